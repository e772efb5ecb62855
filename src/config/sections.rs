//! The whole of `tmkms.toml`, section by section: `[[chain]]` and `[[validator]]` here, the rest in `providers`.
//!
//! Whether the sections fit together is for `validate` to say.

use super::{
    ChainConfig, Config, HookConfig, KeyFormat, NodeAddress, OwnConfig, Pkcs11Config, SoftsignConfig, ValidatorConfig,
    YubiHsmConfig,
    address::Address,
    pkcs11::Surroundings,
    providers::KeyUse,
    reader::{ConfigFindings, Located, Table, Value},
};
use highwater_core::consensus::{ChainId, HEIGHT_MAX};
use std::{path::Path, time::Duration};

/// How long a silent node is waited for, unless `timeout` says longer. CometBFT pings every 3.33 s, so a shorter
/// time would cut links that are well (`privval/signer_listener_endpoint.go`).
const NODE_TIMEOUT_SECONDS: u16 = 10;
/// How long a state hook may take, unless `timeout_secs` says otherwise; tmkms's value.
const HOOK_TIMEOUT_SECONDS: u64 = 1;
/// Longer than anybody would wait for a chain to open.
const HOOK_TIMEOUT_SECONDS_MAX: u64 = 3600;
/// Values of `protocol_version` that tmkms 0.15 knows. They have no effect there either.
const PROTOCOL_VERSIONS: [&str; 2] = ["v0.34", "v0.38"];

/// Everything that could be read, before the sections are compared with each other.
pub(super) struct Draft {
    /// Every id that a `[[chain]]` gives, even where the rest of the section has a mistake.
    pub(super) chain_ids: Vec<Located<ChainId>>,
    pub(super) chains: Vec<ChainConfig>,
    /// Every chain that a `[[validator]]` names.
    pub(super) served: Vec<Located<ChainId>>,
    pub(super) validators: Vec<ValidatorConfig>,
    /// Every chain that a key of any provider names.
    pub(super) keys: Vec<KeyUse>,
    pub(super) softsign: Vec<SoftsignConfig>,
    pub(super) pkcs11: Vec<Pkcs11Config>,
    pub(super) yubihsm: Vec<YubiHsmConfig>,
    /// Highwater's own settings.
    pub(super) own: OwnConfig,
    /// Some chain's id could not be read: that an id is unknown cannot be said.
    pub(super) chains_incomplete: bool,
    /// Some key's chains could not be read: that a chain has no key cannot be said.
    pub(super) keys_incomplete: bool,
    /// What may be looked at beside the text.
    pub(super) surroundings: Surroundings,
}

impl Draft {
    /// Nothing yet.
    pub(super) fn new(surroundings: Surroundings) -> Self {
        Self {
            chain_ids: Vec::new(),
            chains: Vec::new(),
            served: Vec::new(),
            validators: Vec::new(),
            keys: Vec::new(),
            softsign: Vec::new(),
            pkcs11: Vec::new(),
            yubihsm: Vec::new(),
            own: OwnConfig::default(),
            chains_incomplete: false,
            keys_incomplete: false,
            surroundings,
        }
    }

    /// What was read, as a configuration.
    pub(super) fn into_config(self, path: &Path) -> Config {
        let Self { chains, validators, softsign, pkcs11, yubihsm, own, .. } = self;
        Config { path: path.into(), chains, validators, softsign, pkcs11, yubihsm, own }
    }

    /// Reads the whole file.
    pub(super) fn read(&mut self, root: &mut Table<'_>, findings: &mut ConfigFindings<'_>) {
        let chains = root.get("chain", findings);
        let validators = root.get("validator", findings);
        let providers = root.get("providers", findings);
        if chains.is_none_or(Value::is_empty_array) {
            findings.error(0, "there is no [[chain]]: add one for each chain to sign for, with `id` and `key_format`");
            self.chains_incomplete = true;
        }
        if validators.is_none_or(Value::is_empty_array) {
            findings.error(0, "there is no [[validator]]: add one for each node to serve, with `addr` and `chain_id`");
        }
        if providers.is_none() {
            let text =
                "there is no [providers]: add a key, for example [[providers.softsign]] with `chain_ids` and `path`";
            findings.error(0, text);
            self.keys_incomplete = true;
        }

        if let Some(chains) = chains {
            self.chains = chains.tables("[[chain]]", findings, |table, findings| self.chain(table, findings));
        }
        if let Some(validators) = validators {
            let body = |table: &mut Table<'_>, findings: &mut ConfigFindings<'_>| self.validator(table, findings);
            self.validators = validators.tables("[[validator]]", findings, body);
        }
        if let Some(providers) = providers {
            providers.table("[providers]", findings, |table, findings| self.providers(table, findings));
        }
        if let Some(own) = root.get("highwater", findings) {
            own.table("[highwater]", findings, |table, findings| self.own.read(table, findings));
        }
        if let Some(signer) = root.get("tx_signer", findings) {
            findings.error(signer.line, "transaction signing is not supported: remove [[tx_signer]]");
        }
    }

    fn chain(&mut self, table: &mut Table<'_>, findings: &mut ConfigFindings<'_>) -> Option<ChainConfig> {
        let id = table.require("id", "the chain's id, as in its genesis file", findings);
        let id = id.and_then(|value| chain_id(value, findings));
        match &id {
            Some(id) => self.chain_ids.push(Located { value: id.value.clone(), line: id.line }),
            None => self.chains_incomplete = true,
        }

        let meaning = "how keys are shown, for example { type = \"hex\" }";
        let key_format = table.require("key_format", meaning, findings);
        let key_format =
            key_format.and_then(|value| value.table("chain.key_format", findings, read_key_format).flatten());

        let sign_extensions = table.get("sign_extensions", findings);
        if let Some((value, false)) = sign_extensions.and_then(|value| Some((value, value.bool(findings)?))) {
            let text = "ignored: CometBFT 0.38 and later need the extension's signature on every precommit for a block, \
                        so it is always made when the node asks for it";
            value.caution(text, findings);
        }

        let state_file = table.get("state_file", findings).map(|value| value.path(findings));
        let state_hook = table.get("state_hook", findings);
        let state_hook = state_hook.and_then(|value| value.table("chain.state_hook", findings, read_hook).flatten());
        let allow_raw_bytes = table.get("allow_raw_bytes", findings).and_then(|value| value.bool(findings));

        let id = id?.value;
        Some(ChainConfig {
            // The `./` gives the path a parent directory to flush.
            state_file: state_file.unwrap_or_else(|| Some(format!("./{id}_priv_validator_state.json").into()))?,
            id,
            key_format: key_format?,
            state_hook,
            allow_raw_bytes: allow_raw_bytes.unwrap_or(false),
            line: table.line(),
        })
    }

    fn validator(&mut self, table: &mut Table<'_>, findings: &mut ConfigFindings<'_>) -> Option<ValidatorConfig> {
        let address = node_address(table, findings);
        let chain = table.require("chain_id", "the id of the [[chain]] that the node belongs to", findings);
        let chain = chain.and_then(|value| chain_id(value, findings));
        if let Some(chain) = &chain {
            self.served.push(Located { value: chain.value.clone(), line: chain.line });
        }
        let reconnect = table.get("reconnect", findings).and_then(|value| value.bool(findings));
        let timeout = table.get("timeout", findings).and_then(|value| node_timeout(value, findings));
        let max_height = table.get("max_height", findings).map(|value| max_height(value, findings));
        if let Some(value) = table.get("protocol_version", findings) {
            warn_of_protocol_version(value, findings);
        }

        Some(ValidatorConfig {
            address: address?,
            chain_id: chain?.value,
            reconnect: reconnect.unwrap_or(true),
            timeout: Duration::from_secs(timeout.unwrap_or(NODE_TIMEOUT_SECONDS).into()),
            max_height: max_height.flatten(),
            line: table.line(),
        })
    }
}

/// A chain id, checked.
pub(super) fn chain_id(value: Value<'_>, findings: &mut ConfigFindings<'_>) -> Option<Located<ChainId>> {
    match ChainId::new(value.string(findings)?) {
        Ok(id) => Some(Located { value: id, line: value.line }),
        Err(error) => {
            value.reject(error, findings);
            None
        }
    }
}

fn read_key_format(table: &mut Table<'_>, findings: &mut ConfigFindings<'_>) -> Option<KeyFormat> {
    #[derive(Clone, Copy)]
    enum FormatKind {
        Bech32,
        CosmosJson,
        Hex,
    }
    let kinds = [("bech32", FormatKind::Bech32), ("cosmos-json", FormatKind::CosmosJson), ("hex", FormatKind::Hex)];

    table.tolerate_unknown_keys();
    let kind = table.require("type", "\"bech32\", \"cosmos-json\" or \"hex\"", findings)?;
    match kind.one_of(&kinds, findings) {
        Some(FormatKind::Bech32) => {
            let mut prefix = |key| {
                let value = table.require(key, "the prefix, for example \"cosmosvalconspub\"", findings);
                value.and_then(|value| value.string(findings)).map(str::to_owned)
            };
            let (account, consensus) = (prefix("account_key_prefix"), prefix("consensus_key_prefix"));
            Some(KeyFormat::Bech32 { account_key_prefix: account?, consensus_key_prefix: consensus? })
        }
        Some(FormatKind::CosmosJson) => Some(KeyFormat::CosmosJson),
        Some(FormatKind::Hex) => Some(KeyFormat::Hex),
        None => {
            // One finding is enough: with another type these keys may be right.
            table.ignore_unknown_keys();
            None
        }
    }
}

fn read_hook(table: &mut Table<'_>, findings: &mut ConfigFindings<'_>) -> Option<HookConfig> {
    let command = table.require("cmd", "the program and its arguments, for example [\"/path/to/program\"]", findings);
    let command = command.and_then(|value| {
        let entries = value.array(findings)?;
        let words: Vec<_> = entries.into_iter().map(|entry| entry.string(findings).map(str::to_owned)).collect();
        if words.first().is_none_or(|program| program.as_deref() == Some("")) {
            value.reject("it must name a program", findings);
        }
        words.into_iter().collect::<Option<Vec<_>>>()
    });
    let timeout = table.get("timeout_secs", findings).and_then(|value| {
        let seconds = value.u64(findings)?;
        if !(1..=HOOK_TIMEOUT_SECONDS_MAX).contains(&seconds) {
            value.reject(format_args!("expected 1 to {HOOK_TIMEOUT_SECONDS_MAX} seconds, found {seconds}"), findings);
        }
        Some(seconds)
    });
    let fail_closed = table.get("fail_closed", findings);
    if fail_closed.is_none() {
        let text = "chain.state_hook has no `fail_closed`: taken as true, so the chain does not sign if the hook fails; \
                    tmkms refuses a hook without it";
        findings.warning(table.line(), text);
    }
    let fail_closed = fail_closed.and_then(|value| value.bool(findings)).unwrap_or(true);
    let timeout = Duration::from_secs(timeout.unwrap_or(HOOK_TIMEOUT_SECONDS));
    Some(HookConfig { command: command?, timeout, fail_closed })
}

fn node_address(table: &mut Table<'_>, findings: &mut ConfigFindings<'_>) -> Option<NodeAddress> {
    let secret_key = table.get("secret_key", findings).map(|value| value.path(findings));
    let value = table.require("addr", "the node's address, for example \"tcp://10.0.0.1:26658\"", findings)?;
    match Address::parse(value.string(findings)?) {
        Ok(Address::Tcp { peer_id, host, port }) => {
            if secret_key.is_none() {
                let text = "a tcp address needs `secret_key`, the file with the identity key of this signer: make one with \
                            `highwater init`, for example secrets/kms-identity.key, and name it here";
                value.reject(text, findings);
            }
            Some(NodeAddress::Tcp { peer_id, host, port, identity_key: secret_key.flatten()? })
        }
        Ok(Address::Unix { path }) => Some(NodeAddress::Unix { path }),
        Err(error) => {
            value.reject(error, findings);
            None
        }
    }
}

fn node_timeout(value: Value<'_>, findings: &mut ConfigFindings<'_>) -> Option<u16> {
    let seconds = value.u16(findings)?;
    if seconds < NODE_TIMEOUT_SECONDS {
        let text = format!(
            "{seconds} s is raised to {NODE_TIMEOUT_SECONDS} s: a node pings every 3.33 s, and a shorter time would cut \
             links that are well"
        );
        value.caution(text, findings);
    }
    Some(seconds.max(NODE_TIMEOUT_SECONDS))
}

/// A height in a string, as tmkms wants it, or as an integer.
fn max_height(value: Value<'_>, findings: &mut ConfigFindings<'_>) -> Option<u64> {
    if value.is_integer() {
        let height = value.u64(findings)?;
        value.caution(format_args!("tmkms would refuse the integer: write \"{height}\" to go back to it"), findings);
        return Some(height);
    }
    let height = value.string(findings)?.parse().ok().filter(|height| *height <= HEIGHT_MAX);
    if height.is_none() {
        value.reject(format_args!("expected a height from 0 to {HEIGHT_MAX} in quotes"), findings);
    }
    height
}

fn warn_of_protocol_version(value: Value<'_>, findings: &mut ConfigFindings<'_>) {
    let version = value.string(findings);
    if version.is_some_and(|version| !PROTOCOL_VERSIONS.contains(&version)) {
        value.caution("it has no effect: the node's version is recognised from its messages", findings);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{
        KeyEncoding, KeyRole,
        tests::{GOOD, accept, assert_one_error, assert_one_warning, good_with, warnings},
    };
    use std::path::{Path, PathBuf};

    #[test]
    fn defaults_are_those_of_tmkms() {
        let (config, warnings) = accept(GOOD);
        assert!(warnings.is_empty(), "{warnings:?}");

        let chain = &config.chains[0];
        assert_eq!((chain.id.as_str(), chain.line), ("test-1", 1));
        assert_eq!(chain.key_format, KeyFormat::Hex);
        assert_eq!(chain.state_file, Path::new("./test-1_priv_validator_state.json"));
        assert_eq!((&chain.state_hook, chain.allow_raw_bytes), (&None, false));

        let validator = &config.validators[0];
        let identity_key = PathBuf::from("identity.key");
        let address = NodeAddress::Tcp { peer_id: None, host: "10.0.0.1".into(), port: 26658, identity_key };
        assert_eq!((&validator.address, validator.chain_id.as_str(), validator.line), (&address, "test-1", 5));
        assert_eq!((validator.reconnect, validator.max_height), (true, None));
        assert_eq!(validator.timeout, Duration::from_secs(10));

        let key = &config.softsign[0];
        assert_eq!((key.chain_ids[0].as_str(), key.line), ("test-1", 10));
        assert_eq!((key.role, key.encoding), (KeyRole::Consensus, KeyEncoding::Base64));
        assert_eq!(key.path, Path::new("consensus.key"));
    }

    #[test]
    fn every_key_of_a_chain_is_read() {
        let text = good_with(
            "key_format = { type = \"hex\" }",
            r#"state_file = "state/a.json"
            sign_extensions = true
            allow_raw_bytes = true
            state_hook = { cmd = ["/bin/height", "a"], timeout_secs = 7, fail_closed = false }
            [chain.key_format]
            type = "bech32"
            account_key_prefix = "a"
            consensus_key_prefix = "c""#,
        );
        let (config, warnings) = accept(&text);
        assert!(warnings.is_empty(), "{warnings:?}");
        let chain = &config.chains[0];
        assert_eq!(chain.state_file, Path::new("state/a.json"));
        assert!(chain.allow_raw_bytes);
        let key_format = KeyFormat::Bech32 { account_key_prefix: "a".into(), consensus_key_prefix: "c".into() };
        assert_eq!(chain.key_format, key_format);
        let hook = HookConfig {
            command: vec!["/bin/height".into(), "a".into()],
            timeout: Duration::from_secs(7),
            fail_closed: false,
        };
        assert_eq!(chain.state_hook, Some(hook));
    }

    #[test]
    fn a_hook_without_fail_closed_fails_closed_and_says_so() {
        let text = good_with("id = ", "state_hook = { cmd = [\"/bin/height\"] }\nid = ");
        let hook = accept(&text).0.chains[0].state_hook.clone().expect("the chain has a hook");
        assert_eq!((hook.fail_closed, hook.timeout), (true, Duration::from_secs(1)));
        assert_one_warning(&text, 2, "no `fail_closed`: taken as true");
    }

    #[test]
    fn only_an_explicit_no_to_extensions_is_warned_of() {
        let text = good_with("id = ", "sign_extensions = false\nid = ");
        assert_one_warning(&text, 2, "`sign_extensions` in [[chain]]: ignored");
        assert!(warnings(&good_with("id = ", "sign_extensions = true\nid = ")).is_empty());
    }

    #[test]
    fn unknown_keys_in_key_format_are_read_past_as_in_tmkms() {
        let text = good_with("type = \"hex\"", "type = \"hex\", account_key_prefix = \"x\"");
        assert_one_warning(&text, 3, "unknown key `account_key_prefix` in chain.key_format has no effect");
        assert!(warnings(&good_with("\"hex\"", "\"cosmos-json\"")).is_empty());
    }

    #[test]
    fn every_key_of_a_validator_is_read() {
        let more = "addr = \"unix:///run/a.sock\"\nreconnect = false\ntimeout = 300\nmax_height = \"500000\"";
        let (config, warnings) = accept(&good_with("addr = \"tcp://10.0.0.1:26658\"", more));
        assert!(warnings.is_empty(), "a `secret_key` on unix is accepted: {warnings:?}");
        let validator = &config.validators[0];
        assert_eq!(validator.address, NodeAddress::Unix { path: "/run/a.sock".into() });
        assert_eq!((validator.reconnect, validator.max_height), (false, Some(500_000)));
        assert_eq!(validator.timeout, Duration::from_secs(300));
    }

    #[test]
    fn a_short_timeout_is_raised() {
        for (seconds, expected, warnings_expected) in [(0, 10, 1), (9, 10, 1), (10, 10, 0), (65535, 65535, 0)] {
            let text = good_with("addr", &format!("timeout = {seconds}\naddr"));
            assert_eq!(accept(&text).0.validators[0].timeout, Duration::from_secs(expected));
            assert_eq!(warnings(&text).len(), warnings_expected, "{seconds}");
        }
        assert_one_warning(&good_with("addr", "timeout = 9\naddr"), 6, "9 s is raised to 10 s");
    }

    #[test]
    fn a_height_without_quotes_is_taken_with_a_warning() {
        let text = good_with("addr", "max_height = 500_000\naddr");
        assert_eq!(accept(&text).0.validators[0].max_height, Some(500_000));
        assert_one_warning(&text, 6, "tmkms would refuse the integer: write \"500000\"");
        for bad in ["\"\"", "\"1e3\"", "\"-1\"", "\"9223372036854775808\"", "-1", "9223372036854775808", "1.0"] {
            assert_one_error(&good_with("addr", &format!("max_height = {bad}\naddr")), 6, &["`max_height`"]);
        }
    }

    #[test]
    fn any_protocol_version_is_taken_and_those_unknown_to_tmkms_are_warned_of() {
        for version in ["v0.34", "v0.38"] {
            assert!(warnings(&good_with("addr", &format!("protocol_version = {version:?}\naddr"))).is_empty());
        }
        for version in ["legacy", "v0.33", "v0.37", "v1", "whatever"] {
            let text = good_with("addr", &format!("protocol_version = {version:?}\naddr"));
            assert_one_warning(&text, 6, "`protocol_version` in [[validator]]: it has no effect");
        }
    }

    #[test]
    fn missing_keys_are_named_with_the_line_of_their_section() {
        for (line_of_text, line, key) in [
            ("id = \"test-1\"\n", 1, "[[chain]] needs `id`"),
            ("key_format = { type = \"hex\" }\n", 1, "[[chain]] needs `key_format`"),
            ("addr = \"tcp://10.0.0.1:26658\"\n", 5, "[[validator]] needs `addr`"),
            ("chain_id = \"test-1\"\n", 5, "[[validator]] needs `chain_id`"),
            ("type = \"hex\"", 3, "chain.key_format needs `type`"),
        ] {
            assert_one_error(&good_with(line_of_text, ""), line, &[key]);
        }
        for (prefix, missing) in [("account", "consensus"), ("consensus", "account")] {
            let text = good_with("\"hex\"", &format!("\"bech32\", {prefix}_key_prefix = \"x\""));
            assert_one_error(&text, 3, &[&format!("chain.key_format needs `{missing}_key_prefix`")]);
        }
        let text = good_with("id = ", "state_hook = { fail_closed = true }\nid = ");
        assert_one_error(&text, 2, &["chain.state_hook needs `cmd`"]);
    }

    #[test]
    fn wrong_values_are_named_with_their_line() {
        for (old, new, line, text) in [
            ("\"test-1\"", "5", 2, "`id` in [[chain]]: expected a string, found an integer"),
            ("\"test-1\"", "\"a b\"", 2, "`id` in [[chain]]: a chain id cannot contain ' '"),
            ("{ type = \"hex\" }", "\"hex\"", 3, "`key_format` in [[chain]]: expected a table, found a string"),
            ("\"hex\"", "\"hxe\"", 3, "expected \"bech32\" or \"cosmos-json\" or \"hex\", found \"hxe\""),
            ("id =", "sign_extensions = 1\nid =", 2, "`sign_extensions` in [[chain]]: expected a boolean"),
            ("id =", "allow_raw_bytes = 0.5\nid =", 2, "expected a boolean, found a float"),
            ("id =", "state_file = []\nid =", 2, "`state_file` in [[chain]]: expected a string, found an array"),
            ("id =", "state_file = \"\"\nid =", 2, "a path cannot be empty"),
            (
                "id =",
                "state_hook = { cmd = [], fail_closed = true }\nid =",
                2,
                "`cmd` in chain.state_hook: it must name",
            ),
            ("id =", "state_hook = { cmd = [\"\"], fail_closed = true }\nid =", 2, "it must name a program"),
            ("id =", "state_hook = { cmd = \"a\", fail_closed = true }\nid =", 2, "expected an array, found a string"),
            ("id =", "state_hook = { cmd = [\"a\",\n1], fail_closed = true }\nid =", 3, "found an integer"),
            ("id =", "state_hook = { cmd = [\"a\"], fail_closed = 1 }\nid =", 2, "`fail_closed` in chain.state_hook"),
            ("addr", "timeout = 65536\naddr", 6, "`timeout` in [[validator]]: expected an integer from 0 to 65535"),
            ("addr", "timeout = -1\naddr", 6, "expected an integer from 0 to 65535, found -1"),
            ("addr", "timeout = 1979-05-27\naddr", 6, "expected an integer, found a datetime"),
            ("addr", "reconnect = \"no\"\naddr", 6, "`reconnect` in [[validator]]: expected a boolean, found a string"),
            ("addr", "protocol_version = 1\naddr", 6, "expected a string"),
            ("tcp://10.0.0.1:26658", "tcp://10.0.0.1", 6, "`addr` in [[validator]]: the port is missing"),
            ("tcp://10.0.0.1:26658", "noise://a:1", 6, "noise:// is not supported"),
            ("secret_key = \"identity.key\"\n", "", 6, "needs `secret_key`"),
            ("\"identity.key\"", "1", 8, "`secret_key` in [[validator]]: expected a string"),
        ] {
            assert_one_error(&good_with(old, new), line, &[text]);
        }
    }
}

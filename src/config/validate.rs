//! Checks that the sections of a configuration fit together.
//!
//! Each mistake gives one finding: a rule reports nothing about parts that could not be read.

use super::{
    chain::ChainConfig,
    draft::Draft,
    keys::{KeyHome, KeyRole, KeyUse},
    model::Config,
    paths,
    pkcs11::Pkcs11Key,
    providers::Provider,
    reader::{ConfigFindings, Located, nearest},
    validator::ValidatorConfig,
};
use highwater_core::consensus::ChainId;
use std::path::{Path, PathBuf};

/// Reports every inconsistency that the text alone shows.
pub(super) fn check(draft: &Draft, findings: &mut ConfigFindings<'_>) {
    duplicate_chains(&draft.chain_ids, findings);
    duplicate_validators(&draft.validators, findings);
    doubled_keys(&draft.keys.list, findings);
    doubled_devices(&draft.providers, findings);
    drained_logs(draft, findings);
    different_keys_on_tokens(&draft.providers, findings);
    if !draft.chains_incomplete {
        unknown_chains(draft, findings);
    }
    if !draft.keys.incomplete {
        chains_without_key(draft, findings);
    }
    shared_state_files(&draft.chains, paths::normalised, findings);
}

/// Reports different paths to the same state file, and settings that would give a module access to the signer's own
/// files. Reads the disk.
pub(super) fn check_on_disk(config: &Config, findings: &mut ConfigFindings<'_>) {
    shared_state_files(&config.chains, paths::resolved, findings);
    keys_with_two_roles(config, findings);
    overreaching_modules(config, findings);
}

/// Each item with the first earlier one that is the same by `same`.
fn repeats<T>(items: &[T], same: impl Fn(&T, &T) -> bool) -> impl Iterator<Item = (&T, &T)> {
    items.iter().enumerate().filter_map(move |(index, item)| {
        let first = items[..index].iter().find(|earlier| same(earlier, item))?;
        Some((first, item))
    })
}

fn duplicate_chains(chain_ids: &[Located<ChainId>], findings: &mut ConfigFindings<'_>) {
    for (first, second) in repeats(chain_ids, |a, b| a.value == b.value) {
        let text = format!("the chain {} is already defined on line {}: remove one of them", second.value, first.line);
        findings.error(second.line, text);
    }
}

/// A node has one connection for its signer, so a section that says the same again is left out ([`Draft::into_config`]).
fn duplicate_validators(validators: &[ValidatorConfig], findings: &mut ConfigFindings<'_>) {
    for (first, second) in repeats(validators, ValidatorConfig::is_same_node) {
        let known =
            format!("the node {} is already named for {} on line {}", second.address, second.chain_id, first.line);
        if second.has_settings_of(first) {
            findings.warning(second.line, format!("{known}: it is served once; remove one of the two sections"));
        } else {
            findings
                .error(second.line, format!("{known}, with other settings: keep the right one of the two sections"));
        }
    }
}

fn doubled_keys(keys: &[KeyUse], findings: &mut ConfigFindings<'_>) {
    let readable: Vec<_> = keys.iter().filter_map(|key| Some((key, key.role?))).collect();
    let same = |a: &(&KeyUse, KeyRole), b: &(&KeyUse, KeyRole)| {
        a.0.chain == b.0.chain && a.1 == b.1 && !stand_in_for_each_other(a.0.home, b.0.home)
    };
    for ((first, _), (second, role)) in repeats(&readable, same) {
        let text = format!(
            "the chain {} already has its {role} key, on line {}: a chain has at most one (the same key may be on several \
             YubiHSMs or on several PKCS#11 tokens, each with its own section), so remove the chain from one of the two",
            second.chain, first.line
        );
        findings.error(second.line, text);
    }
}

/// Whether one key may be in both places: on two devices of one kind, where the second takes over when the first fails.
fn stand_in_for_each_other(a: KeyHome, b: KeyHome) -> bool {
    match (a, b) {
        (KeyHome::OneOfSeveral { kind: a, section: first }, KeyHome::OneOfSeveral { kind: b, section: second }) => {
            a == b && first != second
        }
        _ => false,
    }
}

/// The tokens of one chain all hold the same key: each signature is verified against the pinned one.
fn different_keys_on_tokens(providers: &[Provider], findings: &mut ConfigFindings<'_>) {
    let mut pinned = Vec::new();
    for provider in providers {
        let Provider::Pkcs11(token) = provider else { continue };
        for key in &token.keys {
            pinned.extend(key.key.chain_ids.iter().map(|chain| (chain, key)));
        }
    }
    let differ = |a: &(&ChainId, &Pkcs11Key), b: &(&ChainId, &Pkcs11Key)| {
        a.0 == b.0 && a.1.key.role == b.1.key.role && a.1.public_key != b.1.public_key
    };
    for ((_, first), (chain, second)) in repeats(&pinned, differ) {
        let text = format!(
            "the tokens of the chain {chain} must hold the same key, but this `public_key` differs from the one on line {}",
            first.key.line
        );
        findings.error(second.key.line, text);
    }
}

fn doubled_devices(providers: &[Provider], findings: &mut ConfigFindings<'_>) {
    for (first, second) in repeats(providers, Provider::repeats) {
        let text = format!("the {second} is already on line {}: add its keys to the `keys` there", first.line());
        findings.error(second.line(), text);
    }
    let on_usb = |a: &Provider, b: &Provider| a.needs().usb && b.needs().usb && !a.repeats(b);
    for (first, second) in repeats(providers, on_usb) {
        let text = format!(
            "the section on line {} uses USB too, and each would reset the device of the other: use USB in one section, \
             and a yubihsm-connector for every other device",
            first.line()
        );
        findings.error(second.line(), text);
    }
}

/// A key signs for one purpose. A consensus key that also identifies the signer would sign what a peer chooses.
fn keys_with_two_roles(config: &Config, findings: &mut ConfigFindings<'_>) {
    let files = config.softsign();
    for validator in &config.validators {
        let Some(identity) = validator.address.identity_key() else { continue };
        if let Some(file) = files.iter().find(|file| paths::is_same_file(&file.path, identity)) {
            let text = format!(
                "`secret_key` in [[validator]] names {}, which is the {} key on line {}: an identity key must be a key of its \
                 own. Make one with `highwater softsign keygen secrets/kms-identity.key`, and name that",
                identity.display(),
                file.key.role,
                file.key.line
            );
            findings.error(validator.line, text);
        }
    }
    for (first, second) in repeats(&files, |a, b| a.key.role != b.key.role && paths::is_same_file(&a.path, &b.path)) {
        let text = format!(
            "{} is the {} key here and the {} key on line {}: one file holds one key, and a key has one `key_type`",
            second.path.display(),
            second.key.role,
            first.key.role,
            first.key.line
        );
        findings.error(second.key.line, text);
    }
}

/// A module can read and write every file that its section names.
/// A device's log needs a file to go to.
fn drained_logs(draft: &Draft, findings: &mut ConfigFindings<'_>) {
    for provider in &draft.providers {
        if let Provider::YubiHsm(device) = provider
            && device.drain_audit_log
            && draft.highwater.audit.is_none()
        {
            let text = "`drain_audit_log` moves the device's log into the audit file, but there is none: add `audit.file` to \
                        [highwater]";
            findings.error(device.line, text);
        }
    }
}

fn overreaching_modules(config: &Config, findings: &mut ConfigFindings<'_>) {
    let never = config.files_of_the_signer();
    let secrets: Vec<_> = config.providers.iter().filter_map(|provider| provider.secret()?.variable()).collect();
    for token in config.pkcs11() {
        for path in &token.files {
            if let Some(own) = never.iter().find(|own| paths::overlap(path, own)) {
                let text = format!(
                    "`files` in [[providers.pkcs11]] names {}, which would give the module access to {}: name only what the \
                     module needs, or move one of the two",
                    path.display(),
                    own.display()
                );
                findings.error(token.line, text);
            }
        }
        for name in token.environment.iter().filter(|name| secrets.contains(&name.as_str())) {
            let text = format!(
                "`environment` in [[providers.pkcs11]] names {name}, which contains a PIN or a password: remove it"
            );
            findings.error(token.line, text);
        }
    }
}

fn unknown_chains(draft: &Draft, findings: &mut ConfigFindings<'_>) {
    let known = || draft.chain_ids.iter().map(|id| id.value.as_str());
    let named_by_nodes = draft.served.iter().map(|id| (&id.value, id.line));
    let named_by_keys = draft.keys.list.iter().map(|key| (&key.chain, key.line));
    for (chain, line) in named_by_nodes.chain(named_by_keys) {
        if known().any(|id| id == chain.as_str()) {
            continue;
        }
        let hint = match nearest(chain.as_str(), known()) {
            Some(id) => format!("did you mean {id}?"),
            None => format!("the chains are {}", known().collect::<Vec<_>>().join(", ")),
        };
        findings.error(line, format!("there is no [[chain]] with the id {chain}: {hint}"));
    }
}

fn chains_without_key(draft: &Draft, findings: &mut ConfigFindings<'_>) {
    for (index, id) in draft.served.iter().enumerate() {
        let is_first = draft.served[..index].iter().all(|earlier| earlier.value != id.value);
        let known = draft.chain_ids.iter().any(|chain| chain.value == id.value);
        let has_key = draft.keys.list.iter().any(|key| key.chain == id.value);
        if known && !has_key && is_first {
            let text = format!(
                "no key signs for the chain {}: add it to the `chain_ids` of a key under [providers]",
                id.value
            );
            findings.error(id.line, text);
        }
    }
}

/// Two chains that share a file would mistake each other's marks for their own.
fn shared_state_files(chains: &[ChainConfig], name: impl Fn(&Path) -> PathBuf, findings: &mut ConfigFindings<'_>) {
    let named: Vec<_> = chains.iter().map(|chain| (chain, name(&chain.state_file))).collect();
    // Chains with the same id are reported as such.
    let same = |a: &(&ChainConfig, PathBuf), b: &(&ChainConfig, PathBuf)| a.1 == b.1 && a.0.id != b.0.id;
    for ((first, _), (second, _)) in repeats(&named, same) {
        let text = format!(
            "the chain {} has the same state file as {} on line {} ({}): give each its own `state_file`",
            second.id,
            first.id,
            first.line,
            second.state_file.display()
        );
        findings.error(second.line, text);
    }
}

#[cfg(test)]
mod tests {
    use crate::config::{
        Config,
        tests::{GOOD, accept, assert_one_error, errors, good_with},
    };
    use std::fs;

    /// A second chain, on line 13.
    fn two_chains(chain: &str) -> String {
        format!("{GOOD}[[chain]]\nid = \"test-2\"\nkey_format = {{ type = \"hex\" }}\n{chain}\n")
    }

    #[test]
    fn a_chain_is_defined_once() {
        let text = format!("{GOOD}[[chain]]\nid = \"test-1\"\nkey_format = {{ type = \"hex\" }}\n");
        assert_one_error(&text, 14, &["the chain test-1 is already defined on line 2"]);
    }

    #[test]
    fn a_node_is_served_once_for_a_chain() {
        let second = "[[validator]]\naddr = \"10.0.0.1:26658\"\nchain_id = \"test-1\"\nsecret_key = \"b\"\n";
        let words = "the node tcp://10.0.0.1:26658 is already named for test-1 on line 5";
        let other = format!("{GOOD}{}", second.replace("\"b\"", "\"c\""));
        assert_one_error(&other, 13, &[words, "with other settings"]);
        let again = GOOD.split_inclusive("[[").nth(2).unwrap().trim_end_matches("[[").to_owned();
        let (config, warnings) = accept(&format!("{GOOD}[[{again}"));
        assert_eq!(config.validators.len(), 1, "it is served once");
        assert!(warnings.iter().any(|warning| warning.contains("it is served once")), "{warnings:?}");
        accept(&format!("{GOOD}{}", second.replace("26658", "26659")));
    }

    #[test]
    fn a_node_names_a_chain_that_exists() {
        let text = good_with("chain_id = \"test-1\"", "chain_id = \"tets-1\"");
        assert_one_error(&text, 7, &["no [[chain]] with the id tets-1: did you mean test-1?"]);
        let text = good_with("chain_id = \"test-1\"", "chain_id = \"osmosis\"");
        assert_one_error(&text, 7, &["no [[chain]] with the id osmosis: the chains are test-1"]);
    }

    #[test]
    fn a_key_names_chains_that_exist() {
        let text = good_with("[\"test-1\"]", "[\n\"test-1\",\n\"test-11\"]");
        assert_one_error(&text, 13, &["no [[chain]] with the id test-11: did you mean test-1?"]);
    }

    #[test]
    fn a_served_chain_has_a_key() {
        let text = good_with("[\"test-1\"]", "[]");
        assert_one_error(&text, 7, &["no key signs for the chain test-1", "`chain_ids`"]);
        let node = "[[validator]]\naddr = \"unix:///b\"\nchain_id = \"test-1\"\n";
        assert_one_error(&format!("{text}{node}"), 7, &["no key signs for the chain test-1"]);
        accept(&two_chains(""));
    }

    #[test]
    fn a_chain_has_one_key_of_each_role() {
        let key =
            |role| format!("[[providers.softsign]]\nchain_ids = [\"test-1\"]\nkey_type = \"{role}\"\npath = \"b\"\n");
        let text = format!("{GOOD}{}", key("consensus"));
        assert_one_error(&text, 14, &["the chain test-1 already has its consensus key, on line 11"]);
        let text = format!("{GOOD}{}", key("account"));
        assert_eq!(accept(&text).0.softsign().len(), 2, "one of each is legal");
        let text = format!("{GOOD}{0}{0}", key("account"));
        assert_one_error(&text, 18, &["the chain test-1 already has its account key, on line 14"]);
    }

    #[test]
    fn one_key_may_serve_several_chains() {
        let text = two_chains("").replace("[\"test-1\"]", "[\"test-1\", \"test-2\"]");
        assert_eq!(accept(&text).0.softsign()[0].key.chain_ids.len(), 2);
    }

    #[test]
    fn two_chains_never_share_a_state_file() {
        for same in ["test-1_priv_validator_state.json", "./a/.././test-1_priv_validator_state.json"] {
            let text = two_chains(&format!("state_file = {same:?}"));
            assert_one_error(&text, 13, &["the chain test-2 has the same state file as test-1 on line 1"]);
        }
        accept(&two_chains("state_file = \"a/test-1_priv_validator_state.json\""));
    }

    #[test]
    fn links_to_one_state_file_are_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (file, link) = (dir.path().join("a.state"), dir.path().join("b.state"));
        fs::write(&file, "").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        let text = two_chains(&format!("state_file = {link:?}"));
        let text = text.replacen("id = ", &format!("state_file = {file:?}\nid = "), 1);
        accept(&text);

        let path = dir.path().join("tmkms.toml");
        fs::write(&path, &text).unwrap();
        let error = Config::load(&path).unwrap_err().to_string();
        assert!(
            error.contains("tmkms.toml:14: the chain test-2 has the same state file as test-1 on line 1"),
            "{error}"
        );

        fs::remove_file(&link).unwrap();
        assert!(Config::load(&path).is_ok());
        fs::remove_file(&file).unwrap();
        std::os::unix::fs::symlink(dir.path(), dir.path().join("d")).unwrap();
        fs::write(&path, text.replace("b.state", "d/a.state")).unwrap();
        assert!(Config::load(&path).is_err(), "also where the file is not there yet");
    }

    #[test]
    fn one_mistake_gives_one_finding() {
        // Nothing is known of the sections that could not be read.
        assert_one_error(&good_with("[[chain]]", "[chain]"), 1, &["two pairs of brackets: [[chain]]"]);
        assert_one_error(&good_with("[[validator]]", "[validator]"), 5, &["[[validator]]"]);
        assert_one_error(&good_with("[[providers.softsign]]", "[providers.softsign]"), 10, &["[[providers.softsign]]"]);
        assert_one_error(&good_with("[[chain]]", "[[chains]]"), 1, &["did you mean `chain`?"]);
        assert_one_error(&good_with("[[validator]]", "[[validators]]"), 5, &["did you mean `validator`?"]);
        assert_one_error(
            &good_with("[[providers.softsign]]", "[[provider.softsign]]"),
            10,
            &["did you mean `providers`?"],
        );
        assert_one_error(
            &good_with("[[providers.softsign]]", "[[providers.softsing]]"),
            10,
            &["did you mean `softsign`?"],
        );
        // A chain without a readable id, a key without readable chains: references to them give no finding.
        assert_one_error(&good_with("id = \"test-1\"", "id = \"\""), 2, &["a chain id cannot be empty"]);
        assert_one_error(&good_with("[\"test-1\"]", "1"), 11, &["expected an array"]);
        assert_eq!(errors(&good_with("key_format", "key_fromat")).len(), 2, "missing and unknown");
    }
}

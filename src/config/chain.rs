//! `[[chain]]`: a chain, its key format, its state file and its state hook.

use super::reader::{ConfigFindings, Located, Table, chain_id};
use highwater_core::{consensus::ChainId, disk};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

/// Default of `timeout_secs`, as in tmkms.
const HOOK_TIMEOUT_SECONDS: u64 = 1;
/// The largest `timeout_secs`: nobody waits an hour for a chain to open.
const HOOK_TIMEOUT_SECONDS_MAX: u64 = 3600;
/// Appended to the name of tmkms's state file, for ours beside it.
const WATERMARK_SUFFIX: &str = ".highwater";

/// The path of our state file, beside the one that tmkms.toml names.
pub fn watermark_beside(state_file: &Path) -> PathBuf {
    disk::with_suffix(state_file, WATERMARK_SUFFIX)
}

#[derive(Clone, Debug)]
pub struct ChainConfig {
    pub id: ChainId,
    /// How public keys of this chain are shown.
    pub key_format: KeyFormat,
    /// By default `./{id}_priv_validator_state.json`; relative to the working directory, as in tmkms.
    pub state_file: PathBuf,
    pub state_hook: Option<HookConfig>,
    /// Whether to answer Celestia's `SignRawBytes`. Highwater's own setting. Off by default.
    pub allow_raw_bytes: bool,
    /// The line of the section in the file.
    pub line: usize,
}

/// How a chain writes its public keys; for display only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyFormat {
    /// Bech32 with the chain's prefixes.
    Bech32 { account_key_prefix: String, consensus_key_prefix: String },
    /// The JSON form of Cosmos SDK tools.
    CosmosJson,
    /// Upper-case hex of the raw key.
    Hex,
}

/// A program that prints the chain's current height at start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookConfig {
    /// `cmd`: the program and its arguments. Not empty.
    pub command: Vec<String>,
    /// `timeout_secs`: 1 s by default.
    pub timeout: Duration,
    /// Whether the chain stays closed if the hook gives no usable height. True by default.
    pub fail_closed: bool,
}

impl ChainConfig {
    /// Reads a `[[chain]]`. Returns its id separately, so that checks can use it if the rest has a mistake.
    pub(super) fn read(
        table: &mut Table<'_>,
        findings: &mut ConfigFindings<'_>,
    ) -> (Option<Located<ChainId>>, Option<Self>) {
        let id = table.require("id", "the chain's id, as in its genesis file", findings);
        let id = id.and_then(|value| chain_id(value, findings));
        let chain = Self::read_rest(id.as_ref().map(|id| id.value.clone()), table, findings);
        (id, chain)
    }

    fn read_rest(id: Option<ChainId>, table: &mut Table<'_>, findings: &mut ConfigFindings<'_>) -> Option<Self> {
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

        let id = id?;
        Some(Self {
            // With `./` the path has a parent directory, which is flushed.
            state_file: state_file.unwrap_or_else(|| Some(format!("./{id}_priv_validator_state.json").into()))?,
            id,
            key_format: key_format?,
            state_hook,
            allow_raw_bytes: allow_raw_bytes.unwrap_or(false),
            line: table.line(),
        })
    }

    /// The watermark's path: beside `state_file`, which belongs to tmkms.
    pub fn watermark(&self) -> PathBuf {
        watermark_beside(&self.state_file)
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
            // One finding is enough: the other keys may be right for another type.
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

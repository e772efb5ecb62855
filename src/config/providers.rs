//! `[providers]`: which key signs for which chain. `[[providers.softsign]]` is read here.

use super::{
    KeyEncoding, KeyRole, SoftsignConfig,
    reader::{ConfigFindings, Located, Table},
    sections::{Draft, chain_id},
};
use highwater_core::consensus::ChainId;

const KEY_ROLES: [(&str, KeyRole); 2] = [("account", KeyRole::Account), ("consensus", KeyRole::Consensus)];
const KEY_ENCODINGS: [(&str, KeyEncoding); 2] = [("base64", KeyEncoding::Base64), ("json", KeyEncoding::Json)];

/// One chain of one key.
pub(super) struct KeyUse {
    pub(super) chain: ChainId,
    /// `None` if it could not be read.
    pub(super) role: Option<KeyRole>,
    pub(super) line: usize,
    pub(super) home: KeyHome,
}

/// Where a key is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum KeyHome {
    /// In a place that no other can stand in for.
    Only,
    /// In a provider that this build has no driver for.
    Unsupported,
    /// On a YubiHSM, whose section begins on this line. Another YubiHSM can have it too.
    YubiHsm { section: usize },
}

impl Draft {
    /// Reads `[providers]`.
    pub(super) fn providers(&mut self, table: &mut Table<'_>, findings: &mut ConfigFindings<'_>) {
        if let Some(softsign) = table.get("softsign", findings) {
            let body = |table: &mut Table<'_>, findings: &mut ConfigFindings<'_>| self.softsign(table, findings);
            self.softsign = softsign.tables("[[providers.softsign]]", findings, body);
        }
        if let Some(pkcs11) = table.get("pkcs11", findings) {
            let body = |table: &mut Table<'_>, findings: &mut ConfigFindings<'_>| self.pkcs11(table, findings);
            self.pkcs11 = pkcs11.tables("[[providers.pkcs11]]", findings, body);
        }
        if let Some(yubihsm) = table.get("yubihsm", findings) {
            let body = |table: &mut Table<'_>, findings: &mut ConfigFindings<'_>| self.yubihsm(table, findings);
            self.yubihsm = yubihsm.tables("[[providers.yubihsm]]", findings, body);
        }
        self.unsupported_providers(table, findings);
    }

    fn softsign(&mut self, table: &mut Table<'_>, findings: &mut ConfigFindings<'_>) -> Option<SoftsignConfig> {
        let role = key_role(table, findings);
        let chain_ids = self.chains_of_key(table, role, KeyHome::Only, findings);
        let format = table.get("key_format", findings);
        let encoding = format.and_then(|value| value.one_of(&KEY_ENCODINGS, findings)).unwrap_or(KeyEncoding::Base64);
        if let (Some(format), Some(KeyRole::Account), KeyEncoding::Json) = (format, role, encoding) {
            format.reject("the file of an account key is always base64: convert it with `highwater softsign import -t account IN OUT`, and write \"base64\"", findings);
        }
        let path = table.require("path", "the file with the key", findings);
        let path = path.and_then(|value| value.path(findings));
        Some(SoftsignConfig { chain_ids: chain_ids?, role: role?, encoding, path: path?, line: table.line() })
    }

    /// Reads `chain_ids` of a key and notes which chains it is for.
    pub(super) fn chains_of_key(
        &mut self,
        table: &mut Table<'_>,
        role: Option<KeyRole>,
        home: KeyHome,
        findings: &mut ConfigFindings<'_>,
    ) -> Option<Vec<ChainId>> {
        let Some(ids) = read_chain_ids(table, findings) else {
            self.keys_incomplete = true;
            return None;
        };
        let key_use = |id: &Located<ChainId>| KeyUse { chain: id.value.clone(), role, line: id.line, home };
        self.keys.extend(ids.iter().map(key_use));
        Some(ids.into_iter().map(|id| id.value).collect())
    }
}

fn read_chain_ids(table: &mut Table<'_>, findings: &mut ConfigFindings<'_>) -> Option<Vec<Located<ChainId>>> {
    let value = table.require("chain_ids", "the ids of the chains that the key signs for", findings)?;
    let entries = value.array(findings)?;
    if entries.is_empty() {
        value.caution("it is empty, so the key signs for no chain", findings);
    }
    let mut ids: Vec<Located<ChainId>> = Vec::new();
    let mut complete = true;
    for entry in entries {
        match chain_id(entry, findings) {
            Some(id) if ids.iter().any(|other| other.value == id.value) => {
                entry.reject(format_args!("it names the chain {} twice: remove one", id.value), findings);
            }
            Some(id) => ids.push(id),
            None => complete = false,
        }
    }
    complete.then_some(ids)
}

/// The role of a key. Softsign calls it `key_type`, the other providers `type`; either name is understood in both.
pub(super) fn key_role(table: &mut Table<'_>, findings: &mut ConfigFindings<'_>) -> Option<KeyRole> {
    match table.get_either(["key_type", "type"], findings) {
        Some(value) => value.one_of(&KEY_ROLES, findings),
        None => Some(KeyRole::Consensus),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::{GOOD, accept, assert_one_error, assert_one_warning, errors, good_with};

    #[test]
    fn a_softsign_key_may_call_its_role_type() {
        for name in ["key_type", "type"] {
            let (config, warnings) = accept(&good_with("path", &format!("{name} = \"account\"\npath")));
            assert!(warnings.is_empty(), "{warnings:?}");
            assert_eq!(config.softsign[0].role, KeyRole::Account);
        }
        let (config, _) = accept(&good_with("path", "key_type = \"consensus\"\nkey_format = \"json\"\npath"));
        assert_eq!((config.softsign[0].role, config.softsign[0].encoding), (KeyRole::Consensus, KeyEncoding::Json));
    }

    #[test]
    fn a_key_for_no_chain_is_warned_of() {
        let text = format!("{GOOD}[[providers.softsign]]\nchain_ids = []\npath = \"x\"\n");
        assert_one_warning(&text, 14, "the key signs for no chain");
    }

    #[test]
    fn what_is_missing_is_named_with_the_line_of_the_section() {
        for (line_of_text, line, key) in [
            ("chain_ids = [\"test-1\"]\n", 10, "[[providers.softsign]] needs `chain_ids`"),
            ("path = \"consensus.key\"\n", 10, "[[providers.softsign]] needs `path`"),
        ] {
            assert_one_error(&good_with(line_of_text, ""), line, &[key]);
        }
    }

    #[test]
    fn every_wrong_chain_id_of_a_key_is_reported() {
        assert_eq!(errors(&good_with("[\"test-1\"]", "[\"a b\", \"test-1\", 2]")).len(), 2);
    }

    #[test]
    fn a_key_whose_role_cannot_be_read_is_not_taken_for_a_consensus_key() {
        let key = "[[providers.softsign]]\nchain_ids = [\"test-1\"]\nkey_type = \"acount\"\npath = \"b\"\n";
        assert_one_error(&format!("{GOOD}{key}"), 15, &["found \"acount\""]);
    }

    #[test]
    fn wrong_values_are_named_with_their_line() {
        for (old, new, line, text) in [
            ("[\"test-1\"]", "\"test-1\"", 11, "`chain_ids` in [[providers.softsign]]: expected an array"),
            ("[\"test-1\"]", "[\n\"test-1\",\n\"test-1\"]", 13, "it names the chain test-1 twice"),
            ("[\"test-1\"]", "[\n1]", 12, "expected a string, found an integer"),
            ("path", "key_type = \"acount\"\npath", 12, "expected \"account\" or \"consensus\", found \"acount\""),
            ("path", "key_type = \"account\"\ntype = \"account\"\npath", 13, "mean the same: remove one"),
            ("path", "key_format = \"raw\"\npath", 12, "expected \"base64\" or \"json\", found \"raw\""),
            ("path", "type = \"account\"\nkey_format = \"json\"\npath", 13, "softsign import -t account"),
        ] {
            assert_one_error(&good_with(old, new), line, &[text]);
        }
    }
}

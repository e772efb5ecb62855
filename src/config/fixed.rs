//! The parts of a configuration that a running signer cannot change: everything but its nodes.
//!
//! Kept as digests, so that a reload can name what differs without keeping the text, which may contain a password.

use highwater_core::hex::Hex;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use toml::de::{DeTable, DeValue};

/// For each section, as messages name it, a digest of each setting.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub struct FixedParts(BTreeMap<String, BTreeMap<String, String>>);

impl FixedParts {
    pub(super) fn of(root: &DeTable<'_>) -> Self {
        let mut parts = Self::default();
        for (name, value) in root {
            match (name.get_ref().as_ref(), value.get_ref()) {
                ("validator", _) => {}
                ("chain", DeValue::Array(chains)) => {
                    for chain in chains.iter().filter_map(|chain| chain.get_ref().as_table()) {
                        let id = chain.get("id").and_then(|id| id.get_ref().as_str()).unwrap_or_default();
                        parts.add(&format!("[[chain]] {id}"), chain);
                    }
                }
                ("providers", DeValue::Table(providers)) => {
                    for (kind, sections) in providers {
                        for section in as_sections(sections.get_ref()) {
                            let mut chains = Vec::new();
                            collect_chains(section, &mut chains);
                            let name = format!("[[providers.{}]] of {}", kind.get_ref(), chains.join(", "));
                            parts.add(&name, section);
                        }
                    }
                }
                (name, DeValue::Table(section)) => parts.add(&format!("[{name}]"), section),
                (name, value) => {
                    let settings = BTreeMap::from([(name.to_owned(), digest(value))]);
                    parts.0.insert(name.to_owned(), settings);
                }
            }
        }
        parts
    }

    fn add(&mut self, section: &str, settings: &DeTable<'_>) {
        let mut name = section.to_owned();
        for number in 2.. {
            if !self.0.contains_key(&name) {
                break;
            }
            name = format!("{section} (number {number})");
        }
        let mut digests = BTreeMap::new();
        for (setting, value) in settings {
            digests.insert(setting.get_ref().to_string(), digest_of_setting(setting.get_ref(), value.get_ref()));
        }
        self.0.insert(name, digests);
    }

    /// What differs in `new`, one sentence for each section or setting.
    pub fn changes(&self, new: &Self) -> Vec<String> {
        let mut changes = Vec::new();
        for (section, settings) in &self.0 {
            let Some(now) = new.0.get(section) else {
                changes.push(format!("{section} is gone"));
                continue;
            };
            for setting in settings.keys().chain(now.keys().filter(|setting| !settings.contains_key(*setting))) {
                let what = match (settings.get(setting), now.get(setting)) {
                    (Some(old), Some(new)) if old == new => continue,
                    (Some(_), Some(_)) => "has changed",
                    (Some(_), None) => "is gone",
                    (None, _) => "is new",
                };
                changes.push(format!("`{setting}` of {section} {what}"));
            }
        }
        let added = new.0.keys().filter(|section| !self.0.contains_key(*section));
        changes.extend(added.map(|section| format!("{section} is new")));
        changes
    }
}

fn as_sections<'v, 't>(value: &'v DeValue<'t>) -> Vec<&'v DeTable<'t>> {
    match value {
        DeValue::Array(sections) => sections.iter().filter_map(|section| section.get_ref().as_table()).collect(),
        DeValue::Table(section) => vec![section],
        _ => Vec::new(),
    }
}

/// Every chain id in a provider's section: its own, and those of its keys.
fn collect_chains(section: &DeTable<'_>, chains: &mut Vec<String>) {
    for (name, value) in section {
        let DeValue::Array(values) = value.get_ref() else { continue };
        for value in values.iter() {
            match value.get_ref() {
                DeValue::Table(key) => collect_chains(key, chains),
                DeValue::String(id) if name.get_ref() == "chain_ids" && !chains.contains(&id.to_string()) => {
                    chains.push(id.to_string());
                }
                _ => {}
            }
        }
    }
}

fn digest(value: &DeValue<'_>) -> String {
    digest_of_setting("", value)
}

fn digest_of_setting(name: &str, value: &DeValue<'_>) -> String {
    let mut hasher = Sha256::new();
    feed(&mut hasher, name, value);
    Hex(&hasher.finalize()[..16]).to_string()
}

/// Feeds a value in one unambiguous form: its kind, its length, its content.
fn feed(hasher: &mut Sha256, name: &str, value: &DeValue<'_>) {
    let mut text = |kind: &str, text: &str| {
        hasher.update(format!("{kind}{}:", text.len()));
        hasher.update(text);
    };
    match value {
        // A PIN is short enough to be guessed from its digest.
        DeValue::String(_) if matches!(name, "password" | "pin") => text("secret", ""),
        DeValue::String(value) => text("string", value),
        DeValue::Integer(value) => text("integer", &value.to_string()),
        DeValue::Float(value) => text("float", value.as_str()),
        DeValue::Boolean(value) => text("boolean", &value.to_string()),
        DeValue::Datetime(value) => text("time", &value.to_string()),
        DeValue::Array(values) => {
            text("array", &values.len().to_string());
            for value in values.iter() {
                feed(hasher, name, value.get_ref());
            }
        }
        DeValue::Table(table) => {
            text("table", &table.len().to_string());
            let sorted: BTreeMap<_, _> = table.iter().map(|(name, value)| (name.get_ref().as_ref(), value)).collect();
            for (name, value) in sorted {
                hasher.update(format!("name{}:{name}", name.len()));
                feed(hasher, name, value.get_ref());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
        [[chain]]
        id = "a-1"
        key_format = { type = "hex" }
        state_file = "a"
        [[validator]]
        addr = "unix:///a"
        chain_id = "a-1"
        [[providers.softsign]]
        chain_ids = ["a-1"]
        path = "key"
        [[providers.yubihsm]]
        auth = { key = 1, password = "secret" }
        keys = [{ chain_ids = ["b-1", "c-1"], key = 1 }]
    "#;

    fn parts(text: &str) -> FixedParts {
        FixedParts::of(DeTable::parse(text).unwrap().get_ref())
    }

    fn changes(from: &str, to: &str) -> Vec<String> {
        parts(TEXT).changes(&parts(&TEXT.replace(from, to)))
    }

    #[test]
    fn every_change_but_that_of_a_node_is_named() {
        assert_eq!(changes("unix:///a", "unix:///b"), Vec::<String>::new());
        assert_eq!(changes("state_file = \"a\"", "state_file =  'a' # the same"), Vec::<String>::new());
        for (from, to, expected) in [
            ("state_file = \"a\"", "state_file = \"b\"", "`state_file` of [[chain]] a-1 has changed"),
            ("state_file = \"a\"", "", "`state_file` of [[chain]] a-1 is gone"),
            ("hex", "cosmos-json", "`key_format` of [[chain]] a-1 has changed"),
            ("path = \"key\"", "path = \"other\"", "`path` of [[providers.softsign]] of a-1 has changed"),
            (
                "path = \"key\"",
                "path = \"key\"\nkey_type = \"account\"",
                "`key_type` of [[providers.softsign]] of a-1 is new",
            ),
            ("key = 1 }]", "key = 2 }]", "`keys` of [[providers.yubihsm]] of b-1, c-1 has changed"),
            ("[[validator]]", "[highwater]\nrequire_sandbox = true\n[[validator]]", "[highwater] is new"),
        ] {
            assert_eq!(changes(from, to), [expected], "{from} -> {to}");
        }
        assert_eq!(changes("id = \"a-1\"", "id = \"b-1\""), ["[[chain]] a-1 is gone", "[[chain]] b-1 is new"]);
    }

    #[test]
    fn no_digest_of_a_password_is_kept() {
        assert_eq!(changes("\"secret\"", "\"other\""), Vec::<String>::new());
        assert_eq!(
            changes("key = 1, password", "key = 2, password"),
            ["`auth` of [[providers.yubihsm]] of b-1, c-1 has changed"]
        );
    }
}

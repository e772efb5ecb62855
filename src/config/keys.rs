//! A row of `keys`: the chains and the role of a key. Every provider has such rows.

use super::reader::{ConfigFindings, Located, Table, chain_id};
use highwater_core::consensus::{ChainId, KeyType};
use std::fmt;

const KEY_ROLES: [(&str, KeyRole); 2] = [("account", KeyRole::Account), ("consensus", KeyRole::Consensus)];

/// The settings that keys of every provider have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRow {
    /// Chains of this configuration.
    pub chain_ids: Vec<ChainId>,
    /// `type` (or `key_type`).
    pub role: KeyRole,
    /// The line of the key in the file.
    pub line: usize,
}

impl KeyRow {
    /// The algorithm that its role implies.
    pub fn key_type(&self) -> KeyType {
        self.role.key_type()
    }
}

/// What tmkms calls the type of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyRole {
    /// A secp256k1 key. It signs blocks if the chain has no consensus key.
    Account,
    /// An Ed25519 key that signs blocks.
    Consensus,
}

impl KeyRole {
    /// The role that implies the algorithm `key_type`.
    pub fn of(key_type: KeyType) -> Self {
        let roles = [Self::Account, Self::Consensus];
        roles.into_iter().find(|role| role.key_type() == key_type).expect("every key type has a role")
    }

    /// The algorithm that the role implies, as in tmkms.
    pub fn key_type(self) -> KeyType {
        match self {
            Self::Account => KeyType::Secp256k1,
            Self::Consensus => KeyType::Ed25519,
        }
    }
}

/// The word for it in the configuration.
impl fmt::Display for KeyRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Account => "account",
            Self::Consensus => "consensus",
        })
    }
}

/// The chains that the keys of all providers name.
#[derive(Default)]
pub(super) struct KeyUses {
    pub(super) list: Vec<KeyUse>,
    /// At least one key's chains could not be read, so no chain can be reported as having no key.
    pub(super) incomplete: bool,
}

/// A chain of a key.
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
    /// In a place that has no substitute.
    Only,
    /// On a device whose section begins on this line. Another device of its kind can hold it too.
    OneOfSeveral { kind: DeviceKind, section: usize },
}

/// The kinds of devices of which a second one can take over.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum DeviceKind {
    Token,
    YubiHsm,
}

impl KeyUses {
    /// Reads the settings that every key has, and records its chains. Returns the role separately, so that the rest of
    /// a key can be checked even if its chains cannot be read.
    pub(super) fn read(
        &mut self,
        table: &mut Table<'_>,
        home: KeyHome,
        findings: &mut ConfigFindings<'_>,
    ) -> (Option<KeyRole>, Option<KeyRow>) {
        let role = read_role(table, findings);
        let Some(ids) = read_chain_ids(table, findings) else {
            self.incomplete = true;
            return (role, None);
        };
        for id in &ids {
            self.list.push(KeyUse { chain: id.value.clone(), role, line: id.line, home });
        }
        let chain_ids = ids.into_iter().map(|id| id.value).collect();
        (role, role.map(|role| KeyRow { chain_ids, role, line: table.line() }))
    }
}

/// tmkms's softsign calls it `key_type`, other providers `type`; both names work everywhere.
fn read_role(table: &mut Table<'_>, findings: &mut ConfigFindings<'_>) -> Option<KeyRole> {
    match table.get_either(["key_type", "type"], findings) {
        Some(value) => value.one_of(&KEY_ROLES, findings),
        None => Some(KeyRole::Consensus),
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

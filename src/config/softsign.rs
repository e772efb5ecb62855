//! `[[providers.softsign]]`: a key in a file.

use super::{
    keys::{KeyHome, KeyRole, KeyRow, KeyUses},
    needs::{FileKind, FileReader, Needs},
    reader::{ConfigFindings, Table},
};
use std::path::PathBuf;

const KEY_ENCODINGS: [(&str, KeyEncoding); 2] = [("base64", KeyEncoding::Base64), ("json", KeyEncoding::Json)];

#[derive(Clone, Debug)]
pub struct SoftsignConfig {
    pub key: KeyRow,
    /// `key_format`
    pub encoding: KeyEncoding,
    pub path: PathBuf,
}

/// How a softsign key file is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyEncoding {
    /// Base64 of the raw key.
    Base64,
    /// CometBFT's `priv_validator_key.json`.
    Json,
}

impl SoftsignConfig {
    pub(super) fn read(table: &mut Table<'_>, uses: &mut KeyUses, findings: &mut ConfigFindings<'_>) -> Option<Self> {
        let (role, key) = uses.read(table, KeyHome::Only, findings);
        let format = table.get("key_format", findings);
        let encoding = format.and_then(|value| value.one_of(&KEY_ENCODINGS, findings)).unwrap_or(KeyEncoding::Base64);
        if let (Some(format), Some(KeyRole::Account), KeyEncoding::Json) = (format, role, encoding) {
            format.reject("an account key file must be base64: convert it with `highwater softsign import -t account IN OUT`, and write \"base64\"", findings);
        }
        let path = table.require("path", "the file with the key", findings);
        let path = path.and_then(|value| value.path(findings));
        Some(Self { key: key?, encoding, path: path? })
    }

    pub(super) fn needs(&self) -> Needs {
        let mut needs = Needs::default();
        needs.file(&self.path, "key", FileKind::Secret, FileReader::Signer);
        needs
    }
}

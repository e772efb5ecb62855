//! CometBFT's `priv_validator_key.json`, and the one of gno.land's node, which has other names for the same types.

use super::{
    super::{SecretKey, software},
    EncodingError, from_base64,
};
use highwater_core::consensus::{KeyType, PublicKey};
use serde::Deserialize;
use std::str;
use subtle_encoding::hex;

/// The type of the secret key in a key file of gno.land's node. Its address is in bech32, and says no more than its public key.
const GNO_ED25519: &str = "/tm.PrivKeyEd25519";

/// `priv_validator_key.json`, borrowed from the file's wiped buffer. Unknown fields are ignored.
#[derive(Deserialize)]
struct KeyFile<'a> {
    #[serde(borrow)]
    address: Option<&'a str>,
    pub_key: Option<TypedKey<'a>>,
    priv_key: TypedKey<'a>,
}

/// A key and the name of its type.
#[derive(Deserialize)]
struct TypedKey<'a> {
    #[serde(rename = "type", alias = "@type")]
    type_name: &'a str,
    value: &'a str,
}

/// The kind of key in the file, if it has a name that we know.
pub(super) fn key_type(content: &[u8]) -> Option<KeyType> {
    let file: KeyFile<'_> = serde_json::from_str(str::from_utf8(content).ok()?).ok()?;
    KeyType::find(|algorithm| algorithm.json_secret == file.priv_key.type_name)
}

/// Reads the content of a file, which must contain a key of that kind.
pub(super) fn decode(content: &[u8], key_type: KeyType) -> Result<SecretKey, EncodingError> {
    // Unescaping would copy the secret into a buffer that is not wiped. No key file needs an escape.
    if content.contains(&b'\\') {
        return Err(EncodingError::Escape);
    }
    let text = str::from_utf8(content).map_err(|_| EncodingError::Json { line: 1, column: 1 })?;
    // serde's own message may quote the file, so only the position is kept.
    let file: KeyFile<'_> = serde_json::from_str(text)
        .map_err(|error| EncodingError::Json { line: error.line(), column: error.column() })?;
    let type_name = file.priv_key.type_name;
    let found = match type_name {
        GNO_ED25519 => Some(KeyType::Ed25519),
        _ => KeyType::find(|algorithm| algorithm.json_secret == type_name),
    };
    let Some(found) = found else {
        return Err(EncodingError::Unsupported { type_name: printable_type(type_name) });
    };
    if found != key_type {
        return Err(EncodingError::OtherType { found });
    }
    let key = (software(key_type).from_json)(&from_base64(file.priv_key.value.as_bytes())?)?;
    if file.address.is_none() && file.pub_key.is_none() {
        return Err(EncodingError::NodeKey);
    }
    check_public_fields(&file, &key.public_key())?;
    Ok(key)
}

/// Checks that `pub_key` and `address`, if present, belong to the file's secret key.
fn check_public_fields(file: &KeyFile<'_>, public: &PublicKey) -> Result<(), EncodingError> {
    if let Some(pub_key) = &file.pub_key
        && *from_base64(pub_key.value.as_bytes())? != public.as_bytes()
    {
        return Err(EncodingError::PublicField { field: "pub_key" });
    }
    if let Some(address) = file.address
        && !address.as_bytes().eq_ignore_ascii_case(&hex::encode_upper(public.address()))
        && !(file.priv_key.type_name == GNO_ED25519 && file.pub_key.is_some())
    {
        return Err(EncodingError::PublicField { field: "address" });
    }
    Ok(())
}

/// `name` if it looks like a type's name, else a placeholder, because it might be a misplaced secret.
fn printable_type(name: &str) -> String {
    const LONGEST: usize = 48;
    let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '/' | '_' | '.' | '-'));
    if plain && name.len() <= LONGEST && name.contains("/PrivKey") { name.into() } else { "(name not shown)".into() }
}

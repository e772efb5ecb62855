//! CometBFT's `priv_validator_key.json`.

use super::{
    super::{SecretKey, software},
    EncodingError, from_base64,
};
use highwater_core::consensus::{KeyType, PublicKey};
use serde::Deserialize;
use std::str;
use subtle_encoding::hex;

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
    #[serde(rename = "type")]
    type_name: &'a str,
    value: &'a str,
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
    let Some(found) = KeyType::find(|algorithm| algorithm.json_secret == type_name) else {
        return Err(EncodingError::Unsupported { type_name: printable_type(type_name) });
    };
    if found != key_type {
        return Err(EncodingError::OtherType { found });
    }
    let key = (software(key_type).from_json)(&from_base64(file.priv_key.value.as_bytes())?)?;
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

//! The encodings of secret key files: tmkms' base64 in its four layouts, and CometBFT's `priv_validator_key.json`.
//!
//! Wherever a file holds a public half beside the secret one, the two must belong together.

use super::{SecretKey, public_of_seed};
use crate::{
    config::{KeyEncoding, KeyRole},
    keyring::Secret,
};
use highwater_core::consensus::PublicKey;
use serde::Deserialize;
use std::{fmt, str};
use subtle::ConstantTimeEq as _;
use subtle_encoding::{Encoding as _, base64, hex};
use zeroize::Zeroizing;

/// The JSON type of an Ed25519 secret: seed and public key, 64 bytes together.
const JSON_ED25519: &str = "tendermint/PrivKeyEd25519";
/// The JSON type of a secp256k1 secret: the scalar, big-endian, 32 bytes.
const JSON_SECP256K1: &str = "tendermint/PrivKeySecp256k1";

/// How the content of a key file looks to be written.
pub fn guess(content: &[u8]) -> KeyEncoding {
    match content.trim_ascii_start().first() {
        Some(b'{') => KeyEncoding::Json,
        _ => KeyEncoding::Base64,
    }
}

/// Reads the content of a key file. White space around it does not matter.
pub fn decode(content: &[u8], role: KeyRole, encoding: KeyEncoding) -> Result<SecretKey, EncodingError> {
    match (encoding, guess(content)) {
        (KeyEncoding::Base64, KeyEncoding::Json) => Err(EncodingError::IsJson),
        (KeyEncoding::Base64, KeyEncoding::Base64) => {
            let bytes = from_base64(content)?;
            match role {
                KeyRole::Account => secp256k1(&bytes),
                KeyRole::Consensus => ed25519(&bytes),
            }
        }
        (KeyEncoding::Json, _) => json(content, role),
    }
}

/// An Ed25519 key from raw bytes, told apart by their number and, for 64, by their second half.
fn ed25519(bytes: &[u8]) -> Result<SecretKey, EncodingError> {
    match bytes.len() {
        32 => secret(bytes).map(SecretKey::Ed25519Seed),
        // Go's form, which tmkms takes for scalar and prefix: it then signs as a validator that does not exist.
        64 => match seed_and_public(bytes) {
            Ok(seed) => Ok(SecretKey::Ed25519Seed(seed)),
            Err(_) => secret(bytes).map(SecretKey::Ed25519Expanded),
        },
        96 => yubihsm_export(bytes),
        bytes => Err(EncodingError::Length { bytes, expected: &[32, 64, 96] }),
    }
}

/// Go's Ed25519 private key: seed and public key.
fn seed_and_public(bytes: &[u8]) -> Result<Secret<32>, EncodingError> {
    if bytes.len() != 64 {
        return Err(EncodingError::Length { bytes: bytes.len(), expected: &[64] });
    }
    let seed = secret(&bytes[..32])?;
    let belongs = public_of_seed(&seed).as_bytes()[..].ct_eq(&bytes[32..]);
    if bool::from(belongs) { Ok(seed) } else { Err(EncodingError::PublicHalf) }
}

/// What a YubiHSM exports: the scalar with its most significant byte first, the nonce prefix, the public key.
fn yubihsm_export(bytes: &[u8]) -> Result<SecretKey, EncodingError> {
    let mut expanded: Secret<64> = secret(&bytes[..64])?;
    expanded[..32].reverse();
    let key = SecretKey::Ed25519Expanded(expanded);
    let belongs = key.public_key().to_bytes().ct_eq(&bytes[64..]);
    if bool::from(belongs) { Ok(key) } else { Err(EncodingError::PublicHalf) }
}

/// A secp256k1 key from its scalar.
fn secp256k1(bytes: &[u8]) -> Result<SecretKey, EncodingError> {
    if bytes.len() != 32 {
        return Err(EncodingError::Length { bytes: bytes.len(), expected: &[32] });
    }
    let key = k256::ecdsa::SigningKey::from_slice(bytes).map_err(|_| EncodingError::Scalar)?;
    Ok(SecretKey::Secp256k1(Box::new(key)))
}

/// `priv_validator_key.json`, borrowed from the file's wiped buffer. Fields that Highwater does not know are
/// passed over.
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

fn json(content: &[u8], role: KeyRole) -> Result<SecretKey, EncodingError> {
    // Unescaping would copy the secret into a buffer that is not wiped. No key file needs an escape.
    if content.contains(&b'\\') {
        return Err(EncodingError::Escape);
    }
    let text = str::from_utf8(content).map_err(|_| EncodingError::Json { line: 1, column: 1 })?;
    // serde's own text may quote the file, so only the place is passed on.
    let file: KeyFile<'_> = serde_json::from_str(text)
        .map_err(|error| EncodingError::Json { line: error.line(), column: error.column() })?;
    let value = || from_base64(file.priv_key.value.as_bytes());
    let key = match (file.priv_key.type_name, role) {
        (JSON_ED25519, KeyRole::Account) => return Err(EncodingError::NotAccount),
        (JSON_ED25519, KeyRole::Consensus) => SecretKey::Ed25519Seed(seed_and_public(&value()?)?),
        (JSON_SECP256K1, KeyRole::Account) => secp256k1(&value()?)?,
        (JSON_SECP256K1, KeyRole::Consensus) => return Err(EncodingError::NotConsensus),
        (other, _) => return Err(EncodingError::Unsupported { type_name: printable_type(other) }),
    };
    check_public_fields(&file, &key.public_key())?;
    Ok(key)
}

/// Whether `pub_key` and `address`, where they stand in the file, are those of its secret key.
fn check_public_fields(file: &KeyFile<'_>, public: &PublicKey) -> Result<(), EncodingError> {
    if let Some(pub_key) = &file.pub_key
        && *from_base64(pub_key.value.as_bytes())? != public.to_bytes()
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

/// `name` if it has the shape of a type's name; else a stand-in, for it might be a misplaced secret.
fn printable_type(name: &str) -> String {
    const LONGEST: usize = 48;
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '_' | '.' | '-');
    let shaped = name.len() <= LONGEST && name.contains("/PrivKey") && name.chars().all(plain);
    if shaped { name.into() } else { "of an unknown name".into() }
}

/// Bytes as one line of base64, without a newline.
pub fn to_base64(bytes: &[u8]) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(base64::encode(bytes))
}

/// Decodes base64, with or without padding and white space around it, in constant time but for the length.
pub fn from_base64(text: &[u8]) -> Result<Zeroizing<Vec<u8>>, EncodingError> {
    let text = text.trim_ascii();
    if text.is_empty() {
        return Err(EncodingError::Empty);
    }
    // The decoder panics over padding where none belongs, so it gets to see none at all.
    let padding = text.iter().rev().take_while(|byte| **byte == b'=').count();
    let digits = &text[..text.len() - padding];
    let whole = padding == 0 || text.len().is_multiple_of(4);
    if !whole || padding > 2 || digits.is_empty() || digits.contains(&b'=') {
        return Err(EncodingError::Base64);
    }
    let mut bytes = Zeroizing::new(vec![0; digits.len().div_ceil(4) * 3]);
    let length = base64::encoder().decode_to_slice(digits, &mut bytes).map_err(|_| EncodingError::Base64)?;
    bytes.truncate(length);
    Ok(bytes)
}

/// Exactly `N` bytes, moved into a buffer of their own.
pub(in crate::keyring) fn secret<const N: usize>(bytes: &[u8]) -> Result<Secret<N>, EncodingError> {
    if bytes.len() != N {
        return Err(EncodingError::Length { bytes: bytes.len(), expected: &[N] });
    }
    let mut secret = Secret::new(Zeroizing::new([0; N]));
    secret.copy_from_slice(bytes);
    Ok(secret)
}

/// What is wrong with the content of a key file. Holds nothing of the content itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EncodingError {
    /// Characters that are not base64, or padding in a wrong place.
    Base64,
    /// Nothing but white space.
    Empty,
    /// A backslash in a JSON file.
    Escape,
    /// An identity key in a form that lacks its seed or carries more than it.
    IdentityNotSeed {
        /// How many bytes it has.
        bytes: usize,
    },
    /// JSON under `key_format = "base64"`.
    IsJson,
    /// Not the JSON of a key file.
    Json {
        /// The line where reading stopped, from 1.
        line: usize,
        /// The column where reading stopped.
        column: usize,
    },
    /// A wrong number of bytes.
    Length {
        /// How many the base64 stands for.
        bytes: usize,
        /// How many there should be.
        expected: &'static [usize],
    },
    /// An Ed25519 key where the configuration says account.
    NotAccount,
    /// A secp256k1 key where the configuration says consensus.
    NotConsensus,
    /// A public field of a JSON file belongs to another key.
    PublicField {
        /// Its name.
        field: &'static str,
    },
    /// The public half beside the secret one belongs to another key.
    PublicHalf,
    /// A secp256k1 scalar that is zero or not below the order of the group.
    Scalar,
    /// A kind of key that Highwater does not sign with.
    Unsupported {
        /// The type that the file names.
        type_name: String,
    },
}

impl fmt::Display for EncodingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Base64 => f.write_str("it is not one line of base64; restore it from a backup"),
            Self::Empty => f.write_str("it is empty; restore it from a backup"),
            Self::Escape => f.write_str("its JSON contains a backslash, which no key file needs; write it without"),
            Self::IdentityNotSeed { bytes } => {
                write!(f, "an identity key must be a 32-byte seed, and this one has {bytes} bytes; name another file")
            }
            Self::IsJson => f.write_str("it is JSON; set `key_format = \"json\"` for it"),
            Self::Json { line, column } => {
                write!(f, "it is not the JSON of a priv_validator_key.json (line {line}, column {column}); ")?;
                f.write_str("if it is a line of base64, set `key_format = \"base64\"` for it")
            }
            Self::Length { bytes, expected } => {
                let expected = expected.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ");
                write!(f, "its base64 stands for {bytes} bytes, where a key has {expected}; restore it from a backup")
            }
            Self::NotAccount => f.write_str("it is an Ed25519 key; set `key_type = \"consensus\"` for it"),
            Self::NotConsensus => f.write_str("it is a secp256k1 key; set `key_type = \"account\"` for it"),
            Self::PublicField { field } => {
                write!(f, "its `{field}` does not belong to its `priv_key`; find out which of the two is meant")
            }
            Self::PublicHalf => {
                f.write_str("the public key in it does not belong to the secret one; restore it from a backup")
            }
            Self::Scalar => f.write_str("its 32 bytes are no secp256k1 key; restore it from a backup"),
            Self::Unsupported { type_name } => {
                write!(f, "its key is of type {type_name}; highwater signs with {JSON_ED25519} and {JSON_SECP256K1}")
            }
        }
    }
}

impl std::error::Error for EncodingError {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{KeyEncoding::*, KeyRole::*};
    use sha2::{Digest as _, Sha512};

    const SEED: [u8; 32] = [0x42; 32];

    /// What CometBFT v0.38.25 computes from the seed.
    fn expected(field: &str) -> Vec<u8> {
        let file: serde_json::Value =
            serde_json::from_str(include_str!("../../../tests/vectors/sign_bytes.json")).unwrap();
        hex::decode(file[field].as_str().unwrap().to_lowercase()).unwrap()
    }

    fn base64(bytes: &[u8]) -> String {
        String::from_utf8(to_base64(bytes).to_vec()).unwrap()
    }

    fn go_form() -> Vec<u8> {
        [&SEED[..], &expected("ed25519_pubkey_hex")].concat()
    }

    fn expanded() -> Vec<u8> {
        Sha512::digest(SEED).to_vec()
    }

    fn yubihsm() -> Vec<u8> {
        let mut bytes = [expanded(), expected("ed25519_pubkey_hex")].concat();
        // The device keeps the scalar clamped.
        bytes[0] &= 248;
        bytes[31] = bytes[31] & 127 | 64;
        bytes[..32].reverse();
        bytes
    }

    fn key_file(type_name: &str, value: &[u8], rest: &str) -> String {
        format!(r#"{{ "priv_key": {{ "type": "{type_name}", "value": "{}" }}{rest} }}"#, base64(value))
    }

    /// Public fields as they stand in a file for the seed.
    fn public_fields(algorithm: &str) -> String {
        let address = hex::encode_upper(expected(&format!("{algorithm}_address_hex")));
        let (address, key) = (String::from_utf8(address).unwrap(), expected(&format!("{algorithm}_pubkey_hex")));
        format!(
            r#", "address": "{address}", "pub_key": {{ "type": "any", "value": "{}" }}, "unknown": [1]"#,
            base64(&key)
        )
    }

    fn refusal(content: &str, role: KeyRole, encoding: KeyEncoding) -> EncodingError {
        match decode(content.as_bytes(), role, encoding) {
            Ok(_) => panic!("accepted"),
            Err(error) => error,
        }
    }

    #[test]
    fn every_encoding_of_one_seed_gives_the_same_key() {
        let (ed25519, secp256k1) = ("ed25519", "secp256k1");
        let cases = [
            (base64(&SEED), Consensus, Base64, ed25519),
            (base64(&SEED).trim_end_matches('=').into(), Consensus, Base64, ed25519),
            (format!("\n {}\r\n", base64(&SEED)), Consensus, Base64, ed25519),
            (base64(&go_form()), Consensus, Base64, ed25519),
            (base64(&expanded()), Consensus, Base64, ed25519),
            (base64(&yubihsm()), Consensus, Base64, ed25519),
            (key_file(JSON_ED25519, &go_form(), ""), Consensus, Json, ed25519),
            (key_file(JSON_ED25519, &go_form(), &public_fields(ed25519)), Consensus, Json, ed25519),
            (base64(&SEED), Account, Base64, secp256k1),
            (key_file(JSON_SECP256K1, &SEED, ""), Account, Json, secp256k1),
            (key_file(JSON_SECP256K1, &SEED, &public_fields(secp256k1)), Account, Json, secp256k1),
        ];
        for (content, role, encoding, algorithm) in cases {
            let key = decode(content.as_bytes(), role, encoding).map_err(|error| error.to_string()).ok().unwrap();
            assert_eq!(key.public_key().to_bytes(), expected(&format!("{algorithm}_pubkey_hex")), "{content}");
            assert_eq!(key.public_key().address().to_vec(), expected(&format!("{algorithm}_address_hex")));
        }
    }

    #[test]
    fn gos_64_bytes_are_a_seed_and_all_others_an_expanded_key() {
        let decode = |bytes: &[u8]| decode(base64(bytes).as_bytes(), Consensus, Base64).ok().unwrap();
        assert!(matches!(decode(&go_form()), SecretKey::Ed25519Seed(seed) if **seed == SEED));
        assert!(matches!(decode(&expanded()), SecretKey::Ed25519Expanded(bytes) if bytes[..] == expanded()));
        assert!(matches!(decode(&yubihsm()), SecretKey::Ed25519Expanded(_)));
    }

    #[test]
    fn a_key_written_again_is_the_same_key() {
        for bytes in [SEED.to_vec(), go_form(), expanded(), yubihsm()] {
            let key = decode(base64(&bytes).as_bytes(), Consensus, Base64).ok().unwrap();
            let again = decode(&key.to_base64(), Consensus, Base64).ok().unwrap();
            assert_eq!(again.public_key(), key.public_key());
            assert_eq!(again.to_base64(), key.to_base64());
        }
        let key = decode(base64(&SEED).as_bytes(), Account, Base64).ok().unwrap();
        assert_eq!(*key.to_base64(), base64(&SEED).as_bytes());
    }

    #[test]
    fn a_public_half_of_another_key_is_refused() {
        let mut exported = yubihsm();
        exported[95] ^= 1;
        assert_eq!(refusal(&base64(&exported), Consensus, Base64), EncodingError::PublicHalf);

        let mut go = go_form();
        go[63] ^= 1;
        assert_eq!(refusal(&key_file(JSON_ED25519, &go, ""), Consensus, Json), EncodingError::PublicHalf);

        let fields = public_fields("secp256k1");
        let other_pub_key = key_file(JSON_ED25519, &go_form(), &fields);
        assert_eq!(refusal(&other_pub_key, Consensus, Json), EncodingError::PublicField { field: "pub_key" });
        let other_address = key_file(JSON_ED25519, &go_form(), r#", "address": "00""#);
        assert_eq!(refusal(&other_address, Consensus, Json), EncodingError::PublicField { field: "address" });
    }

    #[test]
    fn a_key_in_the_wrong_role_is_told_its_role() {
        let ed25519 = key_file(JSON_ED25519, &go_form(), "");
        assert!(refusal(&ed25519, Account, Json).to_string().contains(r#"`key_type = "consensus"`"#));
        let secp256k1 = key_file(JSON_SECP256K1, &SEED, "");
        assert!(refusal(&secp256k1, Consensus, Json).to_string().contains(r#"`key_type = "account"`"#));
        assert!(refusal(&ed25519, Consensus, Base64).to_string().contains(r#"`key_format = "json"`"#));
    }

    #[test]
    fn other_kinds_of_key_are_named() {
        for type_name in ["cometbft/PrivKeyBls12_381", "tendermint/PrivKeySecp256k1eth", "cometbft/PrivKeyMlDsa65"] {
            let error = refusal(&key_file(type_name, &SEED, ""), Consensus, Json);
            assert_eq!(error, EncodingError::Unsupported { type_name: type_name.into() });
            assert!(error.to_string().contains(type_name));
        }
    }

    #[test]
    fn json_that_would_be_unescaped_into_a_copy_is_refused() {
        let escaped = key_file(JSON_ED25519, &go_form(), "").replace("QkJC", r"\u0051kJC");
        assert_eq!(refusal(&escaped, Consensus, Json), EncodingError::Escape);
    }

    #[test]
    fn broken_base64_is_refused_without_a_panic() {
        for text in
            ["=", "==", "A=", "A", "AAAA=", "====", "AAAA====", "AA=A", "A===", "A*==", "AAAA\nAAAA", "QkI\u{e9}"]
        {
            assert_eq!(from_base64(text.as_bytes()).unwrap_err(), EncodingError::Base64, "{text:?}");
        }
        assert_eq!(refusal(" \n", Consensus, Base64), EncodingError::Empty);
        for bytes in [31, 33, 48, 63, 65, 95, 97] {
            let error = refusal(&base64(&vec![0x42; bytes]), Consensus, Base64);
            assert_eq!(error, EncodingError::Length { bytes, expected: &[32, 64, 96] });
        }
        assert_eq!(refusal(&base64(&[0; 32]), Account, Base64), EncodingError::Scalar);
        assert_eq!(refusal(&base64(&[0xff; 32]), Account, Base64), EncodingError::Scalar);
    }

    #[test]
    fn no_error_shows_anything_of_the_secret() {
        let (secret, go) = (base64(&SEED), base64(&go_form()));
        let bad_go = [&SEED[..], &[0x42; 32]].concat();
        let cases = [
            (format!("{secret}!"), Consensus, Base64),
            (secret[..40].into(), Consensus, Base64),
            (secret.clone(), Consensus, Json),
            (format!(r#"{{ "priv_key": "{go}" }}"#), Consensus, Json),
            (format!(r#"{{ "priv_key": {{ "type": "{go}", "value": "{go}" }} }}"#), Consensus, Json),
            (format!(r#"{{ "priv_key": {{ "type": "{JSON_ED25519}", "value": "{go}\u0041" }} }}"#), Consensus, Json),
            (format!(r#"{{ "priv_key": {{ "type": "{JSON_ED25519}", "{go}": 1 }} }}"#), Consensus, Json),
            (format!(r#"{{ "{go}": 1 }}"#), Consensus, Json),
            (key_file(JSON_ED25519, &go_form(), &format!(r#", "address": "{go}""#)), Consensus, Json),
            (key_file(JSON_ED25519, &go_form(), &format!(r#", "address": ["{go}"]"#)), Consensus, Json),
            (key_file(JSON_ED25519, &bad_go, ""), Consensus, Json),
            (key_file(JSON_ED25519, &go_form(), ""), Account, Json),
            (key_file(JSON_SECP256K1, &SEED, ""), Consensus, Json),
            (key_file(JSON_SECP256K1, &bad_go, ""), Account, Json),
            (key_file("cometbft/PrivKeyBls12_381", &SEED, ""), Consensus, Json),
        ];
        for (content, role, encoding) in cases {
            let reason = refusal(&content, role, encoding);
            let error = crate::keyring::KeyError::Malformed { path: "a.key".into(), reason };
            let shown = format!("{error} {error:?} {error:#?}");
            for trace in ["QkJC", "4242", "66, 66", "BBBB"] {
                assert!(!shown.contains(trace), "{shown}");
            }
        }
    }
}

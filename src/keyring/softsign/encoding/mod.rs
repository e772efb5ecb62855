//! The encodings of secret key files: tmkms' base64, and CometBFT's `priv_validator_key.json`.
//!
//! Each algorithm interprets the bytes in them. If a file contains a public key besides the secret key, the two must
//! belong together.

mod base64;
mod form;
mod json;

pub use base64::{from_base64, to_base64};
pub use form::Form;

pub(in crate::keyring) use base64::secret;

use super::SecretKey;
use crate::config::{KeyEncoding, KeyRole};
use highwater_core::consensus::KeyType;
use std::fmt;

/// The kind of key in a JSON file, if it is a known one.
pub fn key_type_in(content: &[u8]) -> Option<KeyType> {
    json::key_type(form::without_mark(content))
}

/// Reads the content of a key file. Ignores surrounding white space.
pub fn decode(content: &[u8], key_type: KeyType, encoding: KeyEncoding) -> Result<SecretKey, EncodingError> {
    match (encoding, Form::of(content)) {
        (KeyEncoding::Base64, Form::Json) => Err(EncodingError::IsJson),
        (KeyEncoding::Base64, Form::Base64) => SecretKey::from_raw(key_type, &from_base64(content)?),
        (_, form @ (Form::ByteOrderMark | Form::Hex | Form::Pem | Form::Raw | Form::Wrapped)) => {
            Err(EncodingError::OtherForm { form })
        }
        (KeyEncoding::Json, Form::Base64 | Form::Json) => json::decode(content, key_type),
    }
}

/// Reads the content of a key file in any form that cannot be mistaken for another, to be written anew.
pub fn decode_any(content: &[u8], key_type: KeyType) -> Result<SecretKey, EncodingError> {
    let content = form::without_mark(content);
    match Form::of(content) {
        form @ Form::Raw => Err(EncodingError::OtherForm { form }),
        Form::Json => json::decode(content, key_type),
        form => SecretKey::from_raw(key_type, &form::bytes_of(content, form)?),
    }
}

/// What is wrong with the content of a key file. Contains no part of the content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EncodingError {
    /// Characters that are not base64, or misplaced padding.
    Base64,
    /// Nothing but white space.
    Empty,
    /// A backslash in a JSON file.
    Escape,
    /// An identity key that is not base64.
    IdentityForm { form: Form },
    /// An identity key in a form without its seed or with more than its seed.
    IdentityNotSeed { bytes: usize },
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
        /// After decoding the base64.
        bytes: usize,
        expected: &'static [usize],
    },
    /// 64 bytes whose second half is not the public key of the first, and whose first half is not a scalar.
    NoHalf,
    /// JSON with a secret key and nothing that belongs to a validator.
    NodeKey,
    /// The right number of bytes, but not a key.
    NoKey { bytes: usize, key_type: KeyType },
    /// A form that providers do not read.
    OtherForm { form: Form },
    /// A key of a kind other than the configured one.
    OtherType { found: KeyType },
    /// PEM with anything but an Ed25519 key.
    Pem,
    /// A public field of a JSON file belongs to another key.
    PublicField { field: &'static str },
    /// The public key beside the secret key belongs to another key.
    PublicHalf,
    /// A kind of key that Highwater does not sign with.
    Unsupported { type_name: String },
}

impl fmt::Display for EncodingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Base64 => f.write_str("it is not one line of base64; restore it from a backup"),
            Self::Empty => f.write_str("it is empty; restore it from a backup"),
            Self::Escape => f.write_str("its JSON contains a backslash, which no key file needs; write it without"),
            Self::IdentityForm { form } => write!(
                f,
                "it is {form}, and an identity key is one line of base64 with a 32-byte seed; make a new one with `highwater \
                 softsign keygen FILE`, and name that file"
            ),
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
                write!(f, "it contains {bytes} bytes, but a key has {expected}; restore it from a backup")
            }
            Self::NoHalf => f.write_str(
                "its 64 bytes are neither a seed and its public key nor an expanded key; restore it from a backup",
            ),
            Self::NodeKey => f.write_str(
                "it has neither `pub_key` nor `address`, as a node_key.json has, which only identifies a node in its network; \
                 name the priv_validator_key.json",
            ),
            Self::OtherForm { form: Form::Raw } => f.write_str(
                "it is a key in raw bytes; convert it with `highwater softsign import -f raw FILE NEW`, and name the new file",
            ),
            Self::OtherForm { form } => write!(
                f,
                "it is {form}; convert it with `highwater softsign import FILE NEW`, and name the new file"
            ),
            Self::Pem => f.write_str(
                "its PEM is not one Ed25519 key without a password (PKCS#8); convert it with OpenSSL: `openssl pkcs8 -topk8 \
                 -nocrypt -in FILE -out NEW`",
            ),
            Self::NoKey { bytes, key_type } => {
                write!(f, "its {bytes} bytes are not a valid {key_type} key; restore it from a backup")
            }
            Self::OtherType { found } => {
                let (type_name, role) = (found.algorithm().json_secret, KeyRole::of(*found));
                write!(f, "its key is of type {type_name}; set `key_type = \"{role}\"` for it")?;
                match role {
                    // The configuration takes no JSON for it, as tmkms does not.
                    KeyRole::Account => f.write_str(", and convert it with `highwater softsign import FILE NEW`"),
                    KeyRole::Consensus => Ok(()),
                }
            }
            Self::PublicField { field } => {
                write!(f, "its `{field}` does not belong to its `priv_key`; find out which of the two is right")
            }
            Self::PublicHalf => {
                f.write_str("its public key does not belong to its secret key; restore it from a backup")
            }
            Self::Unsupported { type_name } => {
                let known: Vec<_> = KeyType::ALL.iter().map(|key_type| key_type.algorithm().json_secret).collect();
                write!(f, "its key is of type {type_name}; Highwater signs with {}", known.join(" and "))
            }
        }
    }
}

impl std::error::Error for EncodingError {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::KeyEncoding::*;
    use highwater_core::consensus::KeyType::*;
    use sha2::{Digest as _, Sha512};
    use subtle_encoding::hex;

    const JSON_ED25519: &str = "tendermint/PrivKeyEd25519";
    const JSON_SECP256K1: &str = "tendermint/PrivKeySecp256k1";

    const SEED: [u8; 32] = [0x42; 32];
    const PKCS8: [u8; 16] = *b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20";

    /// A value that CometBFT v0.38.25 computed from the seed.
    fn expected(field: &str) -> Vec<u8> {
        let file: serde_json::Value =
            serde_json::from_str(include_str!("../../../../tests/vectors/sign_bytes.json")).unwrap();
        hex::decode(file[field].as_str().unwrap().to_lowercase()).unwrap()
    }

    fn base64(bytes: &[u8]) -> String {
        String::from_utf8(to_base64(bytes).to_vec()).unwrap()
    }

    fn go_form() -> Vec<u8> {
        [&SEED[..], &expected("ed25519_pubkey_hex")].concat()
    }

    fn expanded() -> Vec<u8> {
        let mut bytes = Sha512::digest(SEED).to_vec();
        bytes[0] &= 248;
        bytes[31] = bytes[31] & 127 | 64;
        bytes
    }

    fn yubihsm() -> Vec<u8> {
        let mut bytes = [expanded(), expected("ed25519_pubkey_hex")].concat();
        bytes[..32].reverse();
        bytes
    }

    fn key_file(type_name: &str, value: &[u8], rest: &str) -> String {
        format!(r#"{{ "priv_key": {{ "type": "{type_name}", "value": "{}" }}{rest} }}"#, base64(value))
    }

    /// The public fields in a file for the seed.
    fn public_fields(algorithm: &str) -> String {
        let address = hex::encode_upper(expected(&format!("{algorithm}_address_hex")));
        let (address, key) = (String::from_utf8(address).unwrap(), expected(&format!("{algorithm}_pubkey_hex")));
        format!(
            r#", "address": "{address}", "pub_key": {{ "type": "any", "value": "{}" }}, "unknown": [1]"#,
            base64(&key)
        )
    }

    fn refusal(content: &str, key_type: KeyType, encoding: KeyEncoding) -> EncodingError {
        match decode(content.as_bytes(), key_type, encoding) {
            Ok(_) => panic!("accepted"),
            Err(error) => error,
        }
    }

    #[test]
    fn every_encoding_of_one_seed_gives_the_same_key() {
        let (ed25519, secp256k1) = ("ed25519", "secp256k1");
        let cases = [
            (base64(&SEED), Ed25519, Base64, ed25519),
            (base64(&SEED).trim_end_matches('=').into(), Ed25519, Base64, ed25519),
            (format!("\n {}\r\n", base64(&SEED)), Ed25519, Base64, ed25519),
            (base64(&go_form()), Ed25519, Base64, ed25519),
            (base64(&expanded()), Ed25519, Base64, ed25519),
            (base64(&yubihsm()), Ed25519, Base64, ed25519),
            (key_file(JSON_ED25519, &go_form(), &public_fields(ed25519)), Ed25519, Json, ed25519),
            (base64(&SEED), Secp256k1, Base64, secp256k1),
            (
                key_file("/tm.PrivKeyEd25519", &go_form(), &public_fields(ed25519)).replacen("\"type", "\"@type", 1),
                Ed25519,
                Json,
                ed25519,
            ),
            (key_file(JSON_SECP256K1, &SEED, &public_fields(secp256k1)), Secp256k1, Json, secp256k1),
        ];
        for (content, key_type, encoding, algorithm) in cases {
            let key = decode(content.as_bytes(), key_type, encoding).map_err(|error| error.to_string()).ok().unwrap();
            assert_eq!(key.public_key().as_bytes(), expected(&format!("{algorithm}_pubkey_hex")), "{content}");
            assert_eq!(key.public_key().address().to_vec(), expected(&format!("{algorithm}_address_hex")));
        }
    }

    #[test]
    fn gos_64_bytes_are_a_seed_and_all_others_an_expanded_key() {
        let decode = |bytes: &[u8]| decode(base64(bytes).as_bytes(), Ed25519, Base64).ok().unwrap();
        assert_eq!(decode(&go_form()).for_devices().unwrap()[..], SEED);
        assert_eq!(decode(&expanded()).to_base64()[..], *base64(&expanded()).as_bytes());
        for lost in [expanded(), yubihsm()] {
            assert!(decode(&lost).for_devices().is_none());
        }
    }

    #[test]
    fn a_key_written_again_is_the_same_key() {
        for bytes in [SEED.to_vec(), go_form(), expanded(), yubihsm()] {
            let key = decode(base64(&bytes).as_bytes(), Ed25519, Base64).ok().unwrap();
            let again = decode(&key.to_base64(), Ed25519, Base64).ok().unwrap();
            assert_eq!(again.public_key(), key.public_key());
            assert_eq!(again.to_base64(), key.to_base64());
        }
        let key = decode(base64(&SEED).as_bytes(), Secp256k1, Base64).ok().unwrap();
        assert_eq!(*key.to_base64(), base64(&SEED).as_bytes());
    }

    #[test]
    fn a_public_half_of_another_key_is_refused() {
        let mut exported = yubihsm();
        exported[95] ^= 1;
        assert_eq!(refusal(&base64(&exported), Ed25519, Base64), EncodingError::PublicHalf);

        let mut go = go_form();
        go[63] ^= 1;
        assert_eq!(refusal(&key_file(JSON_ED25519, &go, ""), Ed25519, Json), EncodingError::PublicHalf);

        let fields = public_fields("secp256k1");
        let other_pub_key = key_file(JSON_ED25519, &go_form(), &fields);
        assert_eq!(refusal(&other_pub_key, Ed25519, Json), EncodingError::PublicField { field: "pub_key" });
        let other_address = key_file(JSON_ED25519, &go_form(), r#", "address": "00""#);
        assert_eq!(refusal(&other_address, Ed25519, Json), EncodingError::PublicField { field: "address" });
    }

    #[test]
    fn the_error_for_a_key_of_another_type_says_what_to_set() {
        let ed25519 = key_file(JSON_ED25519, &go_form(), "");
        assert!(refusal(&ed25519, Secp256k1, Json).to_string().contains(r#"`key_type = "consensus"`"#));
        let secp256k1 = key_file(JSON_SECP256K1, &SEED, "");
        assert!(refusal(&secp256k1, Ed25519, Json).to_string().contains(r#"`key_type = "account"`"#));
        assert!(refusal(&ed25519, Ed25519, Base64).to_string().contains(r#"`key_format = "json"`"#));
    }

    #[test]
    fn other_kinds_of_key_are_named() {
        for type_name in ["cometbft/PrivKeyBls12_381", "tendermint/PrivKeySecp256k1eth", "cometbft/PrivKeyMlDsa65"] {
            let error = refusal(&key_file(type_name, &SEED, ""), Ed25519, Json);
            assert_eq!(error, EncodingError::Unsupported { type_name: type_name.into() });
            assert!(error.to_string().contains(type_name));
        }
    }

    #[test]
    fn other_forms_are_named_by_a_provider_and_converted_by_an_import() {
        let lower = String::from_utf8(hex::encode(SEED)).unwrap();
        let wrapped = base64(&go_form());
        let pem = base64(&[&PKCS8[..], &SEED].concat());
        let pem = format!("-----BEGIN PRIVATE KEY-----\n{pem}\n-----END PRIVATE KEY-----\n").into_bytes();
        let mark = |text: &str| [b"\xef\xbb\xbf", text.as_bytes()].concat();
        let json = key_file(JSON_ED25519, &go_form(), &public_fields("ed25519"));
        for (content, form) in [
            (format!("{lower}\n").into_bytes(), Form::Hex),
            (lower.to_uppercase().into_bytes(), Form::Hex),
            (hex::encode(go_form()), Form::Hex),
            (pem, Form::Pem),
            (format!("{}\n{}\n", &wrapped[..76], &wrapped[76..]).into_bytes(), Form::Wrapped),
            (format!("{}\r\n {}", &wrapped[..64], &wrapped[64..]).into_bytes(), Form::Wrapped),
            (mark(&base64(&SEED)), Form::ByteOrderMark),
            (mark(&json), Form::ByteOrderMark),
        ] {
            for encoding in [Base64, Json] {
                let error = decode(&content, Ed25519, encoding).err().unwrap();
                assert_eq!(error, EncodingError::OtherForm { form });
                assert!(error.to_string().contains("`highwater softsign import FILE NEW`"), "{error}");
            }
            let key = decode_any(&content, Ed25519).unwrap_or_else(|error| panic!("{form}: {error}"));
            assert_eq!(key.public_key().as_bytes(), expected("ed25519_pubkey_hex"), "{form}");
        }
        // Any 32 bytes could be a key, so somebody must say that they are.
        let raw = decode_any(&[0xaa; 32], Ed25519).err().unwrap();
        assert!(raw.to_string().contains("`highwater softsign import -f raw FILE NEW`"), "{raw}");
        for no_key in
            ["-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----", "-----BEGIN RSA PRIVATE KEY-----"]
        {
            assert_eq!(decode_any(no_key.as_bytes(), Ed25519).err(), Some(EncodingError::Pem));
        }
    }

    #[test]
    fn only_a_pair_of_halves_or_a_clamped_scalar_makes_64_bytes_a_key() {
        let mut wrong = go_form();
        wrong[63] ^= 1;
        assert_eq!(refusal(&base64(&wrong), Ed25519, Base64), EncodingError::NoHalf);
        for (byte, bit) in [(0, 1), (0, 2), (0, 4), (31, 64), (31, 128)] {
            let mut bytes = expanded();
            bytes[byte] ^= bit;
            assert_eq!(refusal(&base64(&bytes), Ed25519, Base64), EncodingError::NoHalf, "{byte} {bit}");
        }
    }

    #[test]
    fn the_key_of_a_node_is_no_consensus_key() {
        assert_eq!(refusal(&key_file(JSON_ED25519, &go_form(), ""), Ed25519, Json), EncodingError::NodeKey);
        // gno.land's file names its address in another form; its public key must be the right one.
        let gno = |public: &[u8]| {
            let fields =
                format!(r#", "address": "g1abc", "pub_key": {{ "@type": "any", "value": "{}" }}"#, base64(public));
            key_file("/tm.PrivKeyEd25519", &go_form(), &fields)
        };
        assert!(decode(gno(&expected("ed25519_pubkey_hex")).as_bytes(), Ed25519, Json).is_ok());
        assert_eq!(refusal(&gno(&[1; 32]), Ed25519, Json), EncodingError::PublicField { field: "pub_key" });
    }

    #[test]
    fn json_with_escapes_is_refused() {
        let escaped = key_file(JSON_ED25519, &go_form(), "").replace("QkJC", r"\u0051kJC");
        assert_eq!(refusal(&escaped, Ed25519, Json), EncodingError::Escape);
    }

    #[test]
    fn broken_base64_is_refused_without_a_panic() {
        for text in
            ["=", "==", "A=", "A", "AAAA=", "====", "AAAA====", "AA=A", "A===", "A*==", "AAAA\nAAAA", "QkI\u{e9}"]
        {
            assert_eq!(from_base64(text.as_bytes()).unwrap_err(), EncodingError::Base64, "{text:?}");
        }
        assert_eq!(refusal(" \n", Ed25519, Base64), EncodingError::Empty);
        for bytes in [31, 33, 48, 63, 65, 95, 97] {
            let error = refusal(&base64(&vec![0x42; bytes]), Ed25519, Base64);
            assert_eq!(error, EncodingError::Length { bytes, expected: &[32, 64, 96] });
        }
        let no_scalar = EncodingError::NoKey { bytes: 32, key_type: Secp256k1 };
        assert_eq!(refusal(&base64(&[0; 32]), Secp256k1, Base64), no_scalar);
        assert_eq!(refusal(&base64(&[0xff; 32]), Secp256k1, Base64), no_scalar);
    }

    #[test]
    fn no_error_shows_anything_of_the_secret() {
        let (secret, go) = (base64(&SEED), base64(&go_form()));
        let bad_go = [&SEED[..], &[0x42; 32]].concat();
        let cases = [
            (format!("{secret}!"), Ed25519, Base64),
            (secret[..40].into(), Ed25519, Base64),
            (secret.clone(), Ed25519, Json),
            (format!(r#"{{ "priv_key": "{go}" }}"#), Ed25519, Json),
            (format!(r#"{{ "priv_key": {{ "type": "{go}", "value": "{go}" }} }}"#), Ed25519, Json),
            (format!(r#"{{ "priv_key": {{ "type": "{JSON_ED25519}", "value": "{go}\u0041" }} }}"#), Ed25519, Json),
            (format!(r#"{{ "priv_key": {{ "type": "{JSON_ED25519}", "{go}": 1 }} }}"#), Ed25519, Json),
            (format!(r#"{{ "{go}": 1 }}"#), Ed25519, Json),
            (key_file(JSON_ED25519, &go_form(), &format!(r#", "address": "{go}""#)), Ed25519, Json),
            (key_file(JSON_ED25519, &go_form(), &format!(r#", "address": ["{go}"]"#)), Ed25519, Json),
            (key_file(JSON_ED25519, &bad_go, ""), Ed25519, Json),
            (key_file(JSON_ED25519, &go_form(), ""), Secp256k1, Json),
            (key_file(JSON_SECP256K1, &SEED, ""), Ed25519, Json),
            (key_file(JSON_SECP256K1, &bad_go, ""), Secp256k1, Json),
            (key_file("cometbft/PrivKeyBls12_381", &SEED, ""), Ed25519, Json),
        ];
        for (content, key_type, encoding) in cases {
            let reason = refusal(&content, key_type, encoding);
            let error = crate::keyring::KeyError::Malformed { path: "a.key".into(), reason };
            let shown = format!("{error} {error:?} {error:#?}");
            for trace in ["QkJC", "4242", "66, 66", "BBBB"] {
                assert!(!shown.contains(trace), "{shown}");
            }
        }
    }
}

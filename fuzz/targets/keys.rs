//! Any content is a key or a refusal. What is a key signs verifiably and is the same key after it was written again,
//! whichever encoding it came in.
#![no_main]

#[path = "../support/hidden_file.rs"]
mod hidden_file;

use hidden_file::HiddenFile;
use highwater::{config::KeyEncoding, keyring::{IdentityKey, KeyError, softsign::{SecretKey, encoding::{self, EncodingError}}}};
use highwater_core::consensus::KeyType;
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

static FILE: LazyLock<HiddenFile> = LazyLock::new(HiddenFile::new);

fn consensus_key(content: &[u8], key_type: KeyType, decoded: Result<SecretKey, EncodingError>) {
    let key = match decoded {
        Ok(key) => key,
        Err(error) => return check(&error, content),
    };
    let public = key.public_key();
    assert_eq!(public.key_type(), key_type);
    let written = encoding::decode(&key.to_base64(), key_type, KeyEncoding::Base64).expect("what we write we read");
    assert_eq!(written.public_key(), public);
    let signer = key.into_signer();
    assert_eq!(signer.public_key(), public);
    let signature = signer.sign(b"message").expect("software signs");
    assert!(public.verifies(b"message", &signature));
    assert!(!public.verifies(b"another", &signature));
}

fn identity_key(content: &[u8]) {
    match IdentityKey::load(&FILE.holding(content)) {
        Ok(key) => {
            let raw = encoding::from_base64(content).expect("an identity is base64");
            let expected = ed25519_dalek::SigningKey::from_bytes(raw.as_slice().try_into().expect("a seed"));
            assert_eq!(key.public_key().as_bytes(), expected.verifying_key().as_bytes());
        }
        Err(KeyError::Malformed { reason, .. }) => check(&reason, content),
        Err(KeyError::TooLarge { .. }) => {}
        Err(error) => panic!("{error}"),
    }
}

/// An error says something, on one line, and never what stands in the file where a secret may.
fn check(error: &EncodingError, content: &[u8]) {
    let text = error.to_string();
    assert!(!text.is_empty() && !text.contains('\n'));
    if let EncodingError::Unsupported { type_name } = error {
        assert!(type_name == "(name not shown)" || type_name.contains("/PrivKey") && type_name.len() <= 48);
        return;
    }
    // Base64 of a seed has 43 digits; no words of ours are that long without a space.
    let secrets = content.split(|byte| !byte.is_ascii_alphanumeric()).filter(|word| word.len() >= 40);
    for word in secrets.filter_map(|word| std::str::from_utf8(word).ok()) {
        assert!(!text.contains(word), "{text}");
    }
}

fuzz_target!(|content: &[u8]| {
    for key_type in KeyType::ALL.iter().copied() {
        for encoding in [KeyEncoding::Base64, KeyEncoding::Json] {
            consensus_key(content, key_type, encoding::decode(content, key_type, encoding));
        }
        // What an import does with a file whose encoding nobody names.
        consensus_key(content, key_type, encoding::decode_any(content, key_type));
    }
    identity_key(content);
});

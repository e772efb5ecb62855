//! The forms in which other programs keep a key. A provider reads one line of base64 or JSON; `softsign import` converts the
//! others, if they cannot be mistaken for anything else.

use super::{EncodingError, from_base64};
use std::fmt;
use subtle_encoding::hex;
use zeroize::Zeroizing;

/// The form of a key file, as its content shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// One line of base64, or nothing that is known.
    Base64,
    /// A byte order mark before whatever follows.
    ByteOrderMark,
    /// Hex digits of a seed, or of a seed and its public key.
    Hex,
    /// `priv_validator_key.json`, or another JSON file.
    Json,
    /// `-----BEGIN PRIVATE KEY-----`
    Pem,
    /// As many bytes as a key has, not encoded.
    Raw,
    /// Base64 in several lines.
    Wrapped,
}

/// The name of the form, after "it is".
impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Base64 => "base64",
            Self::ByteOrderMark => "a text with a byte order mark before it",
            Self::Hex => "a key in hex digits",
            Self::Json => "JSON",
            Self::Pem => "PEM",
            Self::Raw => "a key in raw bytes",
            Self::Wrapped => "base64 in several lines",
        })
    }
}

/// The lengths of keys: a seed or a scalar, a seed with its public key or an expanded key, a YubiHSM's export.
const KEY_BYTES: [usize; 3] = [32, 64, 96];
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
/// The beginning of an Ed25519 key in PKCS#8 (RFC 8410, version 1). The seed follows.
const PKCS8_ED25519: [u8; 16] = *b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20";

impl Form {
    /// The form of a file with this content.
    pub fn of(content: &[u8]) -> Self {
        let text = content.trim_ascii();
        if content.starts_with(BYTE_ORDER_MARK) {
            Self::ByteOrderMark
        } else if text.starts_with(b"{") {
            Self::Json
        } else if text.starts_with(b"-----BEGIN ") {
            Self::Pem
        } else if matches!(text.len(), 64 | 128) && text.iter().all(u8::is_ascii_hexdigit) {
            // As base64, this many digits would be 48 bytes, which no key has, or 96, which prove their public key.
            Self::Hex
        } else if KEY_BYTES.contains(&content.len()) && !content.is_ascii() {
            Self::Raw
        } else if text.iter().any(u8::is_ascii_whitespace) && is_key(&without_blanks(text)) {
            Self::Wrapped
        } else {
            Self::Base64
        }
    }
}

/// The bytes of a key that is in one of the forms that a provider does not read.
pub(super) fn bytes_of(content: &[u8], form: Form) -> Result<Zeroizing<Vec<u8>>, EncodingError> {
    let text = content.trim_ascii();
    match form {
        Form::Hex => {
            let digits = Zeroizing::new(text.to_ascii_lowercase());
            hex::decode(&digits[..]).map(Zeroizing::new).map_err(|_| EncodingError::Base64)
        }
        Form::Pem => pem(text),
        Form::Raw => Ok(Zeroizing::new(content.to_vec())),
        Form::Wrapped => from_base64(&without_blanks(text)),
        Form::Base64 | Form::ByteOrderMark | Form::Json => from_base64(text),
    }
}

/// The content after a byte order mark.
pub(super) fn without_mark(content: &[u8]) -> &[u8] {
    content.strip_prefix(BYTE_ORDER_MARK).unwrap_or(content)
}

/// The seed in a PEM file with one Ed25519 key that is not encrypted.
fn pem(text: &[u8]) -> Result<Zeroizing<Vec<u8>>, EncodingError> {
    let body = text.strip_prefix(b"-----BEGIN PRIVATE KEY-----").ok_or(EncodingError::Pem)?;
    let body = body.strip_suffix(b"-----END PRIVATE KEY-----").ok_or(EncodingError::Pem)?;
    let der = from_base64(&without_blanks(body)).map_err(|_| EncodingError::Pem)?;
    let seed = der.strip_prefix(&PKCS8_ED25519[..]).filter(|seed| seed.len() == 32).ok_or(EncodingError::Pem)?;
    Ok(Zeroizing::new(seed.to_vec()))
}

fn is_key(digits: &[u8]) -> bool {
    from_base64(digits).is_ok_and(|bytes| KEY_BYTES.contains(&bytes.len()))
}

fn without_blanks(text: &[u8]) -> Zeroizing<Vec<u8>> {
    // Has its size from the start: a buffer that grows leaves copies behind.
    let mut digits = Zeroizing::new(Vec::with_capacity(text.len()));
    digits.extend(text.iter().filter(|byte| !byte.is_ascii_whitespace()));
    digits
}

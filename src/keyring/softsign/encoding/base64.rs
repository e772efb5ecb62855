//! Base64, and secrets in separate buffers.

use super::EncodingError;
use crate::keyring::Secret;
use subtle_encoding::{Encoding as _, base64};
use zeroize::Zeroizing;

/// Bytes as one line of base64, without a newline.
pub fn to_base64(bytes: &[u8]) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(base64::encode(bytes))
}

/// Decodes base64, with or without padding and surrounding white space, in a time that depends only on the length.
pub fn from_base64(text: &[u8]) -> Result<Zeroizing<Vec<u8>>, EncodingError> {
    let text = text.trim_ascii();
    if text.is_empty() {
        return Err(EncodingError::Empty);
    }
    // The decoder panics on misplaced padding, so it never gets any.
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

/// Exactly `N` bytes, copied into a separate buffer.
pub(in crate::keyring) fn secret<const N: usize>(bytes: &[u8]) -> Result<Secret<N>, EncodingError> {
    if bytes.len() != N {
        return Err(EncodingError::Length { bytes: bytes.len(), expected: &[N] });
    }
    let mut secret = Secret::new(Zeroizing::new([0; N]));
    secret.copy_from_slice(bytes);
    Ok(secret)
}

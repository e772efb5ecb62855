//! Bytes in hex.

use std::fmt;

/// Shows bytes in lower-case hex.
pub struct Hex<'a>(pub &'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Bytes in lower-case hex.
pub fn hex_of(bytes: &[u8]) -> String {
    Hex(bytes).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_two_digits() {
        assert_eq!(hex_of(&[0, 1, 0xaf, 0xff]), "0001afff");
        assert_eq!(hex_of(&[]), "");
    }
}

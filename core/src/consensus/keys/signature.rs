//! Signatures of any algorithm.

use crate::hex::Hex;
use std::fmt;

/// The longest signature that is stored inline: one of BLS12-381.
const IN_PLACE_BYTES: usize = 96;

/// A signature of any algorithm, and so of any length.
///
/// Up to 96 bytes are stored inline, and neither making nor cloning such a signature allocates; longer ones are boxed.
/// The value itself always has the same size. Two signatures are equal if their bytes are.
#[derive(Clone)]
pub struct Signature(Bytes);

#[derive(Clone)]
enum Bytes {
    InPlace { bytes: [u8; IN_PLACE_BYTES], length: u8 },
    Boxed(Box<[u8]>),
}

impl Signature {
    /// A signature with these bytes. Only a key can decide whether it is valid.
    pub fn new(bytes: &[u8]) -> Self {
        let mut in_place = [0; IN_PLACE_BYTES];
        match (in_place.get_mut(..bytes.len()), u8::try_from(bytes.len())) {
            (Some(start), Ok(length)) => {
                start.copy_from_slice(bytes);
                Self(Bytes::InPlace { bytes: in_place, length })
            }
            _ => Self(Bytes::Boxed(bytes.into())),
        }
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Bytes::InPlace { bytes, length } => &bytes[..usize::from(*length)],
            Bytes::Boxed(bytes) => bytes,
        }
    }
}

impl PartialEq for Signature {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for Signature {}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&Hex(self.as_bytes()), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_is_kept() {
        for length in [0, 1, 64, 65, 95, 96, 97, 255, 256, 3309] {
            let bytes: Vec<u8> = (0..length).map(|index| u8::try_from(index % 251).unwrap() + 1).collect();
            let signature = Signature::new(&bytes);
            assert_eq!(signature.as_bytes(), bytes);
            assert_eq!(signature.clone(), signature);
            assert_eq!(matches!(signature.0, Bytes::InPlace { .. }), length <= IN_PLACE_BYTES, "{length}");
            assert_ne!(signature, Signature::new(&[&bytes[..], &[0]].concat()), "{length}: a longer one differs");
        }
    }

    #[test]
    fn its_own_size_is_that_of_the_longest_in_place() {
        assert_eq!(size_of::<Signature>(), 104);
        assert_eq!(size_of::<Option<Signature>>(), 104);
    }
}

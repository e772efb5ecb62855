//! What header and record share: how they begin, their format, and why one cannot be read.

use std::fmt;

pub(super) const MAGIC_BYTES: usize = 8;
/// The format of headers and records. Format 1 was never released.
pub(super) const VERSION: u16 = 2;

pub(super) fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.try_into().expect("the field has the length of its type")
}

/// A property of a state file in which a newer Highwater can differ from this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NewerFeature {
    /// The format of headers and records.
    Format,
    /// The type of the public key.
    KeyType,
    /// The mode of a record.
    Mode,
}

impl fmt::Display for NewerFeature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Format => "format",
            Self::KeyType => "key type",
            Self::Mode => "mode",
        })
    }
}

/// Why bytes are not a header or not a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordError {
    /// All bytes are zero.
    Blank,
    /// The checksum does not match: a bit changed, or a write was cut short.
    Checksum,
    /// The checksum matches, but a field is impossible.
    Fields,
    /// A newer Highwater wrote it.
    Newer {
        /// What this Highwater does not know: a format, a mode, a key type.
        what: NewerFeature,
        /// Its number.
        number: u16,
    },
    /// The bytes do not begin like a header or a record.
    NotARecord,
    /// The record belongs to another state file.
    OtherFile,
}

impl fmt::Display for RecordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Blank => f.write_str("is blank"),
            Self::Checksum => f.write_str("fails its checksum"),
            Self::Fields => f.write_str("holds an impossible value"),
            Self::Newer { what, number } => write!(f, "has {what} {number} of a newer Highwater"),
            Self::NotARecord => f.write_str("holds something else"),
            Self::OtherFile => f.write_str("belongs to another state file"),
        }
    }
}

impl std::error::Error for RecordError {}

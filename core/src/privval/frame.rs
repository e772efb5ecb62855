//! The length prefix in front of every message: unsigned LEB128, at most ten bytes (Go `binary.Uvarint`,
//! `libs/protoio`).

use std::fmt;

/// Largest request accepted from a node.
///
/// A request carries at most one vote extension. CometBFT's own limit for a node's messages is far lower.
pub const REQUEST_MAX_BYTES: usize = 4 * 1024 * 1024;

/// Largest response a node of any version accepts (`privval/signer_endpoint.go`, v0.34 to v1).
///
/// A longer one is worse than none: the node reads only its prefix, and misreads every later message.
pub const RESPONSE_MAX_BYTES: usize = 10_240;

/// Decodes a length prefix that arrives byte by byte.
#[derive(Debug, Default)]
pub struct LengthPrefix {
    value: u64,
    bytes: u32,
}

impl LengthPrefix {
    /// Takes the next byte. Returns `None` while the prefix goes on, then the length of the message in bytes, which is
    /// at most [`REQUEST_MAX_BYTES`]: a caller never allocates for a message that is too long.
    pub fn push(&mut self, byte: u8) -> Result<Option<usize>, FrameError> {
        const PREFIX_MAX_BYTES: u32 = 10;
        let shift = 7 * self.bytes;
        let bits = u64::from(byte & 0x7f);
        self.bytes += 1;
        if self.bytes > PREFIX_MAX_BYTES || (shift == 63 && bits > 1) {
            return Err(FrameError::PrefixOverflow);
        }
        self.value |= bits << shift;
        if byte & 0x80 != 0 {
            return Ok(None);
        }
        match usize::try_from(self.value) {
            Ok(length) if length <= REQUEST_MAX_BYTES => Ok(Some(length)),
            _ => Err(FrameError::TooLong { bytes: self.value }),
        }
    }
}

/// Why a stream of bytes is not a stream of messages. The next message cannot be found after this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameError {
    /// The length prefix does not end within ten bytes or does not fit 64 bits.
    PrefixOverflow,
    /// The message would be longer than [`REQUEST_MAX_BYTES`].
    TooLong {
        /// The announced length.
        bytes: u64,
    },
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PrefixOverflow => f.write_str("the peer sent an invalid length prefix"),
            Self::TooLong { bytes } => {
                write!(f, "the peer announced a message of {bytes} bytes; the limit is {REQUEST_MAX_BYTES}")
            }
        }
    }
}

impl std::error::Error for FrameError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<Option<usize>, FrameError> {
        let mut prefix = LengthPrefix::default();
        for (index, byte) in bytes.iter().enumerate() {
            if let Some(length) = prefix.push(*byte)? {
                assert_eq!(index + 1, bytes.len(), "the prefix ended early");
                return Ok(Some(length));
            }
        }
        Ok(None)
    }

    #[test]
    fn every_length_up_to_the_limit_round_trips() {
        for length in (0..20_000).chain(REQUEST_MAX_BYTES - 10..=REQUEST_MAX_BYTES) {
            let mut bytes = Vec::new();
            prost::encoding::encode_varint(length as u64, &mut bytes);
            assert_eq!(read(&bytes), Ok(Some(length)));
        }
    }

    #[test]
    fn longer_lengths_are_refused_before_anything_is_allocated() {
        for length in [REQUEST_MAX_BYTES as u64 + 1, u64::from(u32::MAX), u64::MAX] {
            let mut bytes = Vec::new();
            prost::encoding::encode_varint(length, &mut bytes);
            assert_eq!(read(&bytes), Err(FrameError::TooLong { bytes: length }));
        }
    }

    #[test]
    fn a_prefix_ends_within_ten_bytes_and_64_bits() {
        assert_eq!(read(&[0x80; 9]), Ok(None));
        assert_eq!(read(&[0x80; 11]), Err(FrameError::PrefixOverflow));
        let mut sixty_five_bits = [0xff; 10];
        sixty_five_bits[9] = 0x02;
        assert_eq!(read(&sixty_five_bits), Err(FrameError::PrefixOverflow));
    }

    #[test]
    fn an_overlong_encoding_is_read_as_go_reads_it() {
        assert_eq!(read(&[0x81, 0x00]), Ok(Some(1)));
    }
}

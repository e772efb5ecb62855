//! A record: a mark and whose it is, as 512 bytes with a checksum. One record fits one disk sector, so a power cut
//! leaves the old one or the new one.

use super::{
    host::HostId,
    mark::{Mark, Signed},
};
use crate::consensus::{
    CHAIN_ID_MAX_BYTES, ChainId, Digest, HEIGHT_MAX, Hrs, KeyType, PublicKey, ROUND_MAX, Step, Target, Timestamp,
};
use sha2::{Digest as _, Sha256};
use std::fmt;

/// Size of a record: one sector of every disk.
pub const RECORD_BYTES: usize = 512;

/// What a state file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Whether the file is in use.
    pub mode: Mode,
    /// Counts the records of a file from 0.
    pub sequence: u64,
    /// The machine that wrote it.
    pub host: HostId,
    /// Whose mark it is.
    pub identity: Identity,
    /// The mark.
    pub mark: Mark,
}

/// Whose mark a state file holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The chain.
    pub chain: ChainId,
    /// The consensus key.
    pub key: PublicKey,
}

/// Whether a state file is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A signer may use it.
    Active,
    /// Its mark was exported to another program, which may have signed since.
    Retired,
}

/// How every record begins.
pub(super) const MAGIC: [u8; 8] = *b"HIGHWMRK";
const VERSION: u16 = 1;
const CHECKSUM_BYTES: usize = 32;
const BODY_BYTES: usize = RECORD_BYTES - CHECKSUM_BYTES;
const KEY_MAX_BYTES: usize = 33;
/// Nobody counts this far, so a higher sequence is no record of ours. A successor must always have a number.
const SEQUENCE_MAX: u64 = u64::MAX / 2;

/// The fields in their order; the number is the field's length. What is not named is zero.
mod at {
    use std::ops::Range;

    pub(super) const MAGIC: Range<usize> = 0..8;
    pub(super) const VERSION: Range<usize> = 8..10;
    pub(super) const MODE: usize = 10;
    /// 0 no message, 1 nil, 2 block.
    pub(super) const SIGNED: usize = 11;
    pub(super) const SEQUENCE: Range<usize> = 16..24;
    pub(super) const HOST: Range<usize> = 24..40;
    pub(super) const HEIGHT: Range<usize> = 40..48;
    pub(super) const ROUND: Range<usize> = 48..52;
    pub(super) const STEP: usize = 52;
    pub(super) const KEY_TYPE: usize = 53;
    pub(super) const CHAIN_LENGTH: usize = 54;
    pub(super) const CHAIN: usize = 56;
    pub(super) const KEY: usize = 112;
    pub(super) const SECONDS: Range<usize> = 152..160;
    pub(super) const NANOS: Range<usize> = 160..164;
    pub(super) const DIGEST: Range<usize> = 168..200;
}

impl Record {
    /// The record that follows this one.
    pub fn next(&self, mark: Mark, mode: Mode) -> Self {
        Self { mode, sequence: self.sequence + 1, mark, ..self.clone() }
    }

    /// The record as bytes; numbers are little-endian.
    pub fn encode(&self) -> [u8; RECORD_BYTES] {
        let mut out = [0; RECORD_BYTES];
        out[at::MAGIC].copy_from_slice(&MAGIC);
        out[at::VERSION].copy_from_slice(&VERSION.to_le_bytes());
        out[at::MODE] = match self.mode {
            Mode::Active => 0,
            Mode::Retired => 1,
        };
        out[at::SEQUENCE].copy_from_slice(&self.sequence.to_le_bytes());
        out[at::HOST].copy_from_slice(&self.host.0);
        let hrs = self.mark.hrs;
        out[at::HEIGHT].copy_from_slice(&hrs.height.to_le_bytes());
        out[at::ROUND].copy_from_slice(&hrs.round.to_le_bytes());
        out[at::STEP] = hrs.step.number();
        encode_identity(&self.identity, &mut out);
        if let Some(signed) = &self.mark.signed {
            out[at::SIGNED] = match signed.target {
                Target::Nil => 1,
                Target::Block => 2,
            };
            out[at::SECONDS].copy_from_slice(&signed.timestamp.seconds().to_le_bytes());
            out[at::NANOS].copy_from_slice(&signed.timestamp.nanos().to_le_bytes());
            out[at::DIGEST].copy_from_slice(&signed.digest.0);
        }
        let checksum = Sha256::digest(&out[..BODY_BYTES]);
        out[BODY_BYTES..].copy_from_slice(&checksum);
        out
    }

    /// Reads a record. Whatever [`Record::encode`] would not have written is an error.
    pub fn decode(bytes: &[u8; RECORD_BYTES]) -> Result<Self, RecordError> {
        if bytes.iter().all(|byte| *byte == 0) {
            return Err(RecordError::Blank);
        }
        if bytes[at::MAGIC] != MAGIC {
            return Err(RecordError::NotARecord);
        }
        if Sha256::digest(&bytes[..BODY_BYTES])[..] != bytes[BODY_BYTES..] {
            return Err(RecordError::Checksum);
        }
        let version = u16::from_le_bytes(array(&bytes[at::VERSION]));
        if version != VERSION {
            return Err(RecordError::Version { version });
        }
        let record = decode_fields(bytes).ok_or(RecordError::Fields)?;
        if record.encode() == *bytes { Ok(record) } else { Err(RecordError::Fields) }
    }
}

fn encode_identity(identity: &Identity, out: &mut [u8; RECORD_BYTES]) {
    let chain = identity.chain.as_str().as_bytes();
    out[at::CHAIN_LENGTH] = u8::try_from(chain.len()).expect("a chain id has at most 50 bytes");
    out[at::CHAIN..at::CHAIN + chain.len()].copy_from_slice(chain);
    let mut put_key = |key_type, key: &[u8]| {
        debug_assert!(key.len() <= KEY_MAX_BYTES, "both key types fit");
        out[at::KEY_TYPE] = key_type;
        out[at::KEY..at::KEY + key.len()].copy_from_slice(key);
    };
    match &identity.key {
        PublicKey::Ed25519(key) => put_key(1, key.as_bytes()),
        PublicKey::Secp256k1(key) => put_key(2, key.to_encoded_point(true).as_bytes()),
    }
}

fn decode_fields(bytes: &[u8; RECORD_BYTES]) -> Option<Record> {
    let mode = match bytes[at::MODE] {
        0 => Mode::Active,
        1 => Mode::Retired,
        _ => return None,
    };
    let hrs = Hrs {
        height: Some(u64::from_le_bytes(array(&bytes[at::HEIGHT]))).filter(|height| *height <= HEIGHT_MAX)?,
        round: Some(u32::from_le_bytes(array(&bytes[at::ROUND]))).filter(|round| *round <= ROUND_MAX)?,
        step: Step::from_number(bytes[at::STEP].into())?,
    };
    let target = match bytes[at::SIGNED] {
        0 => None,
        1 => Some(Target::Nil),
        2 => Some(Target::Block),
        _ => return None,
    };
    let seconds = i64::from_le_bytes(array(&bytes[at::SECONDS]));
    let nanos = u32::from_le_bytes(array(&bytes[at::NANOS]));
    let timestamp = Timestamp::new(seconds, nanos.into())?;
    let digest = Digest(array(&bytes[at::DIGEST]));
    let signed = target.map(|target| Signed { target, timestamp, digest });
    Some(Record {
        mode,
        sequence: Some(u64::from_le_bytes(array(&bytes[at::SEQUENCE]))).filter(|sequence| *sequence <= SEQUENCE_MAX)?,
        host: HostId(array(&bytes[at::HOST])),
        identity: decode_identity(bytes)?,
        mark: Mark { hrs, signed },
    })
}

fn decode_identity(bytes: &[u8; RECORD_BYTES]) -> Option<Identity> {
    let length = Some(usize::from(bytes[at::CHAIN_LENGTH])).filter(|length| *length <= CHAIN_ID_MAX_BYTES)?;
    let chain = ChainId::new(std::str::from_utf8(&bytes[at::CHAIN..at::CHAIN + length]).ok()?).ok()?;
    let (key_type, length) = match bytes[at::KEY_TYPE] {
        1 => (KeyType::Ed25519, 32),
        2 => (KeyType::Secp256k1, KEY_MAX_BYTES),
        _ => return None,
    };
    let key = PublicKey::from_bytes(key_type, &bytes[at::KEY..at::KEY + length]).ok()?;
    Some(Identity { chain, key })
}

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.try_into().expect("the field has the length of its type")
}

/// Why 512 bytes are no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordError {
    /// Nothing but zeros.
    Blank,
    /// The checksum does not match: a bit changed, or a write was cut short.
    Checksum,
    /// The checksum matches, but a field is impossible.
    Fields,
    /// Something else altogether.
    NotARecord,
    /// A newer Highwater wrote it.
    Version {
        /// Its format.
        version: u16,
    },
}

impl fmt::Display for RecordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Blank => f.write_str("is blank"),
            Self::Checksum => f.write_str("fails its checksum"),
            Self::Fields => f.write_str("holds an impossible value"),
            Self::NotARecord => f.write_str("holds something else"),
            Self::Version { version } => {
                write!(f, "has format {version}, this Highwater reads format {VERSION}")
            }
        }
    }
}

impl std::error::Error for RecordError {}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::watermark) fn sample(mark: Mark) -> Record {
        let key = [
            0x21, 0x52, 0xf8, 0xd1, 0x9b, 0x79, 0x1d, 0x24, 0x45, 0x32, 0x42, 0xe1, 0x5f, 0x2e, 0xab, 0x6c, 0xb7, 0xcf,
            0xfa, 0x7b, 0x6a, 0x5e, 0xd3, 0x00, 0x97, 0x96, 0x0e, 0x06, 0x98, 0x81, 0xdb, 0x12,
        ];
        Record {
            mode: Mode::Active,
            sequence: 7,
            host: HostId([9; 16]),
            identity: Identity {
                chain: ChainId::new("test-chain").unwrap(),
                key: PublicKey::from_bytes(KeyType::Ed25519, &key).unwrap(),
            },
            mark,
        }
    }

    fn marks() -> Vec<Mark> {
        let hrs = Hrs { height: 12, round: 3, step: Step::Precommit };
        let signed = |target, seconds| {
            let timestamp = Timestamp::new(seconds, 999).unwrap();
            Mark { hrs, signed: Some(Signed { target, timestamp, digest: Digest([0xab; 32]) }) }
        };
        vec![
            Mark::NEVER_SIGNED,
            Mark::floor(Hrs::end_of(HEIGHT_MAX)),
            signed(Target::Block, 1_700_000_000),
            signed(Target::Nil, -62_135_596_800),
        ]
    }

    #[test]
    fn records_round_trip() {
        for mark in marks() {
            for mode in [Mode::Active, Mode::Retired] {
                let record = Record { mode, ..sample(mark) };
                assert_eq!(Record::decode(&record.encode()), Ok(record));
            }
        }
    }

    #[test]
    fn records_at_every_limit_round_trip() {
        let key = k256::ecdsa::SigningKey::from_slice(&[1; 32]).unwrap();
        let identity = Identity {
            chain: ChainId::new(&"c".repeat(CHAIN_ID_MAX_BYTES)).unwrap(),
            key: PublicKey::Secp256k1(*key.verifying_key()),
        };
        let record = Record { sequence: SEQUENCE_MAX, identity, ..sample(Mark::floor(Hrs::end_of(HEIGHT_MAX))) };
        assert_eq!(Record::decode(&record.encode()), Ok(record));
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let bytes = sample(marks()[2]).encode();
        for index in 0..RECORD_BYTES {
            for bit in 0..8 {
                let mut flipped = bytes;
                flipped[index] ^= 1 << bit;
                assert!(Record::decode(&flipped).is_err(), "byte {index} bit {bit}");
            }
        }
    }

    #[test]
    fn every_cut_is_noticed() {
        let old = sample(marks()[0]).encode();
        let new = Record { sequence: 9, ..sample(marks()[2]) }.encode();
        for cut in 1..RECORD_BYTES {
            let mut torn = old;
            torn[..cut].copy_from_slice(&new[..cut]);
            assert!(torn == old || torn == new || Record::decode(&torn).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn an_impossible_field_under_a_good_checksum_is_noticed() {
        let changes: [(usize, u8); 11] = [
            (at::MODE, 9),
            (at::SIGNED, 9),
            (at::STEP, 0),
            (at::STEP, 4),
            (at::KEY_TYPE, 3),
            (at::CHAIN_LENGTH, 0),
            (at::CHAIN_LENGTH, 51),
            // The highest bit of a number: a sequence that would run out, a height and a round that nobody has.
            (at::SEQUENCE.end - 1, 0x80),
            (at::HEIGHT.end - 1, 0x80),
            (at::ROUND.end - 1, 0x80),
            (300, 1),
        ];
        for (index, value) in changes {
            let mut bytes = sample(marks()[2]).encode();
            bytes[index] = value;
            let checksum = Sha256::digest(&bytes[..BODY_BYTES]);
            bytes[BODY_BYTES..].copy_from_slice(&checksum);
            assert_eq!(Record::decode(&bytes), Err(RecordError::Fields), "byte {index} = {value}");
        }
    }

    #[test]
    fn blank_foreign_and_newer_records_are_named_as_such() {
        assert_eq!(Record::decode(&[0; RECORD_BYTES]), Err(RecordError::Blank));
        assert_eq!(Record::decode(&[b'{'; RECORD_BYTES]), Err(RecordError::NotARecord));
        let mut newer = sample(marks()[0]).encode();
        newer[8] = 2;
        let checksum = Sha256::digest(&newer[..BODY_BYTES]);
        newer[BODY_BYTES..].copy_from_slice(&checksum);
        assert_eq!(Record::decode(&newer), Err(RecordError::Version { version: 2 }));
        let text = RecordError::Version { version: 2 }.to_string();
        assert_eq!(text, "has format 2, this Highwater reads format 1");
    }
}

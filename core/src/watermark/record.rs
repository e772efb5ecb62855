//! A record: a mark as 512 bytes with a checksum. One record fits one disk sector, so a power cut leaves the old one or
//! the new one.

use super::{
    bytes::{MAGIC_BYTES, NewerFeature, RecordError, VERSION, array},
    header::Header,
    mark::{Mark, SignedMessage},
};
use crate::consensus::{Digest, HEIGHT_MAX, Hrs, ROUND_MAX, Step, Target, Timestamp};
use sha2::{Digest as _, Sha256};

/// Size of a record: one sector of every disk.
pub const RECORD_BYTES: usize = 512;

/// The content of a slot: a mark, and the file that it belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Whether the file is in use.
    pub mode: Mode,
    /// Number of this record; the first of a file is 0.
    pub sequence: u64,
    /// The header of its file: the chain, the key and the machine.
    pub header: Header,
    /// The mark.
    pub mark: Mark,
}

/// Whether a state file is in use. Mode 2 is reserved for files whose marks a cluster decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A signer may use it.
    Active,
    /// Its mark was exported to another program, which may have signed since.
    Retired,
}

/// How every record begins.
const MAGIC: [u8; MAGIC_BYTES] = *b"HIGHWMRK";
const CHECKSUM_BYTES: usize = 32;
const BODY_BYTES: usize = RECORD_BYTES - CHECKSUM_BYTES;
/// No signer gets this far, so a record with a higher sequence is not ours. Every record must have a successor.
const SEQUENCE_MAX: u64 = u64::MAX / 2;

/// The position of each field, in order. Bytes that no field covers are zero.
mod at {
    use std::ops::Range;

    pub(super) const MAGIC: Range<usize> = 0..8;
    pub(super) const VERSION: Range<usize> = 8..10;
    pub(super) const MODE: usize = 10;
    /// 0 no message, 1 nil, 2 block.
    pub(super) const SIGNED: usize = 11;
    pub(super) const SEQUENCE: Range<usize> = 16..24;
    /// The digest of the file's header.
    pub(super) const HEADER: Range<usize> = 24..56;
    pub(super) const HEIGHT: Range<usize> = 56..64;
    pub(super) const ROUND: Range<usize> = 64..68;
    pub(super) const STEP: usize = 68;
    pub(super) const SECONDS: Range<usize> = 72..80;
    pub(super) const NANOS: Range<usize> = 80..84;
    pub(super) const DIGEST: Range<usize> = 88..120;
    /// Reserved for a cluster; zero in every other mode.
    #[cfg(test)]
    pub(super) const CLUSTER: Range<usize> = 128..256;
}

impl Record {
    /// The record that follows this one in the same file, with the next sequence.
    pub fn next(&self, mark: Mark, mode: Mode) -> Self {
        Self { mode, sequence: self.sequence + 1, mark, ..self.clone() }
    }

    /// Encodes the record. Numbers are little-endian; the last 32 bytes are a SHA-256 over the rest.
    pub fn encode(&self) -> [u8; RECORD_BYTES] {
        let mut out = [0; RECORD_BYTES];
        out[at::MAGIC].copy_from_slice(&MAGIC);
        out[at::VERSION].copy_from_slice(&VERSION.to_le_bytes());
        out[at::MODE] = match self.mode {
            Mode::Active => 0,
            Mode::Retired => 1,
        };
        out[at::SEQUENCE].copy_from_slice(&self.sequence.to_le_bytes());
        out[at::HEADER].copy_from_slice(self.header.digest());
        let hrs = self.mark.hrs;
        out[at::HEIGHT].copy_from_slice(&hrs.height.to_le_bytes());
        out[at::ROUND].copy_from_slice(&hrs.round.to_le_bytes());
        out[at::STEP] = hrs.step.number();
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

    /// Decodes a record of the file with that header. Bytes that [`Record::encode`] would not have written are an
    /// error.
    pub fn decode(bytes: &[u8; RECORD_BYTES], header: &Header) -> Result<Self, RecordError> {
        if bytes.iter().all(|byte| *byte == 0) {
            return Err(RecordError::Blank);
        }
        if bytes[at::MAGIC] != MAGIC {
            return Err(RecordError::NotARecord);
        }
        if Sha256::digest(&bytes[..BODY_BYTES])[..] != bytes[BODY_BYTES..] {
            return Err(RecordError::Checksum);
        }
        let format = u16::from_le_bytes(array(&bytes[at::VERSION]));
        if format > VERSION {
            return Err(RecordError::Newer { what: NewerFeature::Format, number: format });
        }
        if bytes[at::HEADER] != header.digest()[..] {
            return Err(RecordError::OtherFile);
        }
        let mode = match bytes[at::MODE] {
            0 => Mode::Active,
            1 => Mode::Retired,
            newer => return Err(RecordError::Newer { what: NewerFeature::Mode, number: newer.into() }),
        };
        let record = decode_fields(bytes, mode, header).ok_or(RecordError::Fields)?;
        if record.encode() == *bytes { Ok(record) } else { Err(RecordError::Fields) }
    }
}

fn decode_fields(bytes: &[u8; RECORD_BYTES], mode: Mode, header: &Header) -> Option<Record> {
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
    let signed = target.map(|target| SignedMessage { target, timestamp, digest });
    let sequence = u64::from_le_bytes(array(&bytes[at::SEQUENCE]));
    let sequence = Some(sequence).filter(|sequence| *sequence <= SEQUENCE_MAX)?;
    Some(Record { mode, sequence, header: header.clone(), mark: Mark { hrs, signed } })
}

#[cfg(test)]
pub(super) mod tests {
    use super::{super::header::tests::sample_header, *};

    pub(in crate::watermark) fn sample(mark: Mark) -> Record {
        Record { mode: Mode::Active, sequence: 7, header: sample_header(), mark }
    }

    fn marks() -> Vec<Mark> {
        let hrs = Hrs { height: 12, round: 3, step: Step::Precommit };
        let signed = |target, seconds| {
            let timestamp = Timestamp::new(seconds, 999).unwrap();
            Mark { hrs, signed: Some(SignedMessage { target, timestamp, digest: Digest([0xab; 32]) }) }
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
                assert_eq!(Record::decode(&record.encode(), &sample_header()), Ok(record));
            }
        }
    }

    #[test]
    fn a_record_at_its_limits_round_trips() {
        let record = Record { sequence: SEQUENCE_MAX, ..sample(Mark::floor(Hrs::end_of(HEIGHT_MAX))) };
        assert_eq!(Record::decode(&record.encode(), &sample_header()), Ok(record));
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let bytes = sample(marks()[2]).encode();
        for index in 0..RECORD_BYTES {
            for bit in 0..8 {
                let mut flipped = bytes;
                flipped[index] ^= 1 << bit;
                assert!(Record::decode(&flipped, &sample_header()).is_err(), "byte {index} bit {bit}");
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
            assert!(torn == old || torn == new || Record::decode(&torn, &sample_header()).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn an_impossible_field_under_a_good_checksum_is_noticed() {
        let changes: [(usize, u8); 10] = [
            (at::VERSION.start, 1),
            (at::SIGNED, 9),
            (at::STEP, 0),
            (at::STEP, 4),
            // The highest bit of a number: a sequence that would run out, an impossible height and an impossible round.
            (at::SEQUENCE.end - 1, 0x80),
            (at::HEIGHT.end - 1, 0x80),
            (at::ROUND.end - 1, 0x80),
            (at::CLUSTER.start, 1),
            (at::CLUSTER.end - 1, 1),
            (300, 1),
        ];
        for (index, value) in changes {
            let decoded = Record::decode(&changed(index, value), &sample_header());
            assert_eq!(decoded, Err(RecordError::Fields), "byte {index} = {value}");
        }
    }

    /// A record with one byte changed and a checksum that fits.
    fn changed(index: usize, value: u8) -> [u8; RECORD_BYTES] {
        let mut bytes = sample(marks()[2]).encode();
        bytes[index] = value;
        let checksum = Sha256::digest(&bytes[..BODY_BYTES]);
        bytes[BODY_BYTES..].copy_from_slice(&checksum);
        bytes
    }

    #[test]
    fn blank_foreign_and_newer_records_are_named_as_such() {
        let decode = |bytes| Record::decode(&bytes, &sample_header());
        assert_eq!(decode([0; RECORD_BYTES]), Err(RecordError::Blank));
        assert_eq!(decode([b'{'; RECORD_BYTES]), Err(RecordError::NotARecord));
        assert_eq!(decode(changed(at::HEADER.start, 0)), Err(RecordError::OtherFile));
        let format = decode(changed(at::VERSION.start, 3));
        assert_eq!(format, Err(RecordError::Newer { what: NewerFeature::Format, number: 3 }));
        let clustered = decode(changed(at::MODE, 2));
        assert_eq!(clustered, Err(RecordError::Newer { what: NewerFeature::Mode, number: 2 }));
        assert_eq!(clustered.unwrap_err().to_string(), "has mode 2 of a newer Highwater");
    }
}

//! The header of a state file: its chain, its key, its machine and which file it is. Written once, when the file is
//! created.
//!
//! Every record carries the digest of its header, so a record never counts in a file of another chain, key or machine.
//! The header also holds the file's own inode number and birth time, so that a copy of the file is recognised as a
//! copy.

use super::{
    bytes::{MAGIC_BYTES, NewerFeature, RecordError, VERSION, array},
    host::HostId,
};
use crate::consensus::{CHAIN_ID_MAX_BYTES, ChainId, KeyType, PublicKey};
use sha2::{Digest as _, Sha256};

/// Size of the header, and distance between the parts of a state file: each part has its own block on every file
/// system.
pub const BLOCK_BYTES: usize = 4096;

/// Whose mark a state file holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The chain.
    pub chain: ChainId,
    /// The consensus key.
    pub key: PublicKey,
}

/// Identifies a file among all files that its machine has or had. The device number is not part of it, because it may
/// change at a boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileId {
    /// Its inode number.
    pub inode: u64,
    /// When it was created, in seconds and nanoseconds since 1970, if the file system records that.
    pub birth: Option<(i64, u32)>,
}

impl FileId {
    /// Whether `found` is the file that this id was taken from. An id without a birth time also matches a file that has
    /// one: the file system may support birth times by now.
    pub fn is(&self, found: &Self) -> bool {
        broken!("copy_unnoticed" => return true);
        self.inode == found.inode && (self.birth.is_none() || self.birth == found.birth)
    }
}

/// The part of a state file that never changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    host: HostId,
    identity: Identity,
    file: FileId,
    digest: [u8; 32],
}

/// How every header begins.
pub(super) const MAGIC: [u8; MAGIC_BYTES] = *b"HIGHWATR";
const CHECKSUM_BYTES: usize = 32;
const BODY_BYTES: usize = BLOCK_BYTES - CHECKSUM_BYTES;
/// The longest public key of any scheme that CometBFT knows, ML-DSA-65, has 1,952 bytes.
const KEY_MAX_BYTES: usize = 2048;

/// The position of each field, in order. Bytes that no field covers are zero.
mod at {
    use std::ops::Range;

    pub(super) const MAGIC: Range<usize> = 0..8;
    pub(super) const VERSION: Range<usize> = 8..10;
    pub(super) const KEY_TYPE: usize = 10;
    pub(super) const CHAIN_LENGTH: usize = 11;
    pub(super) const KEY_LENGTH: Range<usize> = 12..14;
    pub(super) const HOST: Range<usize> = 16..32;
    pub(super) const INODE: Range<usize> = 32..40;
    pub(super) const BIRTH_SECONDS: Range<usize> = 40..48;
    pub(super) const BIRTH_NANOS: Range<usize> = 48..52;
    pub(super) const BIRTH_KNOWN: usize = 52;
    pub(super) const CHAIN: usize = 64;
    pub(super) const KEY: usize = 128;
}

impl Header {
    /// The header of a new file.
    pub fn new(host: HostId, identity: Identity, file: FileId) -> Self {
        let mut header = Self { host, identity, file, digest: [0; 32] };
        header.digest = Sha256::digest(&header.encode()[..BODY_BYTES]).into();
        header
    }

    /// The machine that created the file.
    pub fn host(&self) -> HostId {
        self.host
    }

    /// The chain and key whose mark the file holds.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The id of the file that this header was written for.
    pub fn file(&self) -> &FileId {
        &self.file
    }

    /// SHA-256 over the header. It is the header's last 32 bytes, and every record of the file carries it.
    pub fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    /// Encodes the header. Numbers are little-endian; unused bytes are zero.
    pub fn encode(&self) -> [u8; BLOCK_BYTES] {
        let mut out = [0; BLOCK_BYTES];
        out[at::MAGIC].copy_from_slice(&MAGIC);
        out[at::VERSION].copy_from_slice(&VERSION.to_le_bytes());
        out[at::HOST].copy_from_slice(&self.host.0);
        out[at::INODE].copy_from_slice(&self.file.inode.to_le_bytes());
        if let Some((seconds, nanos)) = self.file.birth {
            out[at::BIRTH_KNOWN] = 1;
            out[at::BIRTH_SECONDS].copy_from_slice(&seconds.to_le_bytes());
            out[at::BIRTH_NANOS].copy_from_slice(&nanos.to_le_bytes());
        }
        let chain = self.identity.chain.as_str().as_bytes();
        out[at::CHAIN_LENGTH] = u8::try_from(chain.len()).expect("a chain id has at most 50 bytes");
        out[at::CHAIN..at::CHAIN + chain.len()].copy_from_slice(chain);
        let key = self.identity.key.as_bytes();
        debug_assert!(key.len() <= KEY_MAX_BYTES, "every key type fits");
        let length = u16::try_from(key.len()).expect("every key type fits");
        out[at::KEY_TYPE] = self.identity.key.key_type().algorithm().header_number;
        out[at::KEY_LENGTH].copy_from_slice(&length.to_le_bytes());
        out[at::KEY..at::KEY + key.len()].copy_from_slice(key);
        out[BODY_BYTES..].copy_from_slice(&self.digest);
        out
    }

    /// Decodes a header. Bytes that [`Header::encode`] would not have written are an error.
    pub fn decode(bytes: &[u8; BLOCK_BYTES]) -> Result<Self, RecordError> {
        if bytes.iter().all(|byte| *byte == 0) {
            return Err(RecordError::Blank);
        }
        if bytes[at::MAGIC] != MAGIC {
            return Err(RecordError::NotARecord);
        }
        // Before the checksum: a newer format may have it elsewhere.
        let format = u16::from_le_bytes(array(&bytes[at::VERSION]));
        if format > VERSION {
            return Err(RecordError::Newer { what: NewerFeature::Format, number: format });
        }
        if Sha256::digest(&bytes[..BODY_BYTES])[..] != bytes[BODY_BYTES..] {
            return Err(RecordError::Checksum);
        }
        let number = bytes[at::KEY_TYPE];
        if number == 0 {
            return Err(RecordError::Fields);
        }
        let key_type = KeyType::find(|algorithm| algorithm.header_number == number);
        let key_type = key_type.ok_or(RecordError::Newer { what: NewerFeature::KeyType, number: number.into() })?;
        let header = decode_fields(bytes, key_type).ok_or(RecordError::Fields)?;
        if header.encode() == *bytes { Ok(header) } else { Err(RecordError::Fields) }
    }
}

fn decode_fields(bytes: &[u8; BLOCK_BYTES], key_type: KeyType) -> Option<Header> {
    let length = Some(usize::from(bytes[at::CHAIN_LENGTH])).filter(|length| *length <= CHAIN_ID_MAX_BYTES)?;
    let chain = ChainId::new(std::str::from_utf8(&bytes[at::CHAIN..at::CHAIN + length]).ok()?).ok()?;
    let length = usize::from(u16::from_le_bytes(array(&bytes[at::KEY_LENGTH])));
    let length = Some(length).filter(|length| *length <= KEY_MAX_BYTES)?;
    let key = PublicKey::from_bytes(key_type, &bytes[at::KEY..at::KEY + length]).ok()?;
    let seconds = i64::from_le_bytes(array(&bytes[at::BIRTH_SECONDS]));
    let nanos = u32::from_le_bytes(array(&bytes[at::BIRTH_NANOS]));
    let file = FileId {
        inode: u64::from_le_bytes(array(&bytes[at::INODE])),
        birth: (bytes[at::BIRTH_KNOWN] == 1).then_some((seconds, nanos)),
    };
    let (host, digest) = (HostId(array(&bytes[at::HOST])), array(&bytes[BODY_BYTES..]));
    Some(Header { host, identity: Identity { chain, key }, file, digest })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::consensus::keys;

    pub(in crate::watermark) const THIS_FILE: FileId = FileId { inode: 4711, birth: Some((1_700_000_000, 999)) };

    pub(in crate::watermark) fn sample_header() -> Header {
        let key = [
            0x21, 0x52, 0xf8, 0xd1, 0x9b, 0x79, 0x1d, 0x24, 0x45, 0x32, 0x42, 0xe1, 0x5f, 0x2e, 0xab, 0x6c, 0xb7, 0xcf,
            0xfa, 0x7b, 0x6a, 0x5e, 0xd3, 0x00, 0x97, 0x96, 0x0e, 0x06, 0x98, 0x81, 0xdb, 0x12,
        ];
        let key = PublicKey::from_bytes(KeyType::Ed25519, &key).unwrap();
        Header::new(HostId([9; 16]), Identity { chain: ChainId::new("test-chain").unwrap(), key }, THIS_FILE)
    }

    /// `header` with one byte changed and a checksum that fits.
    fn changed(header: &Header, index: usize, value: u8) -> [u8; BLOCK_BYTES] {
        let mut bytes = header.encode();
        bytes[index] = value;
        let checksum = Sha256::digest(&bytes[..BODY_BYTES]);
        bytes[BODY_BYTES..].copy_from_slice(&checksum);
        bytes
    }

    #[test]
    fn headers_at_every_limit_round_trip() {
        let key = k256::ecdsa::SigningKey::from_slice(&[1; 32]).unwrap();
        let chain = ChainId::new(&"c".repeat(CHAIN_ID_MAX_BYTES)).unwrap();
        let other = Identity { chain: chain.clone(), key: PublicKey::from(*key.verifying_key()) };
        // 1,952 bytes, as ML-DSA-65 has them.
        let longest = Identity { chain, key: keys::longest::key(0xff) };
        assert!(KeyType::ALL.iter().all(|key_type| key_type.algorithm().public_key_len <= KEY_MAX_BYTES));
        for identity in [sample_header().identity, other, longest] {
            for birth in [None, Some((i64::MIN, 0)), Some((i64::MAX, u32::MAX))] {
                let header = Header::new(HostId([0xff; 16]), identity.clone(), FileId { inode: u64::MAX, birth });
                assert_eq!(Header::decode(&header.encode()), Ok(header));
            }
        }
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let bytes = sample_header().encode();
        for index in 0..BLOCK_BYTES {
            let mut flipped = bytes;
            flipped[index] ^= 1 << (index % 8);
            assert!(Header::decode(&flipped).is_err(), "byte {index}");
        }
    }

    #[test]
    fn an_impossible_field_under_a_good_checksum_is_noticed() {
        let changes: [(usize, u8); 8] = [
            (at::KEY_TYPE, 0),
            (at::CHAIN_LENGTH, 0),
            (at::CHAIN_LENGTH, 51),
            (at::CHAIN, 0xff),
            (at::KEY_LENGTH.start, 31),
            (at::KEY_LENGTH.start + 1, 0xff),
            (at::BIRTH_KNOWN, 2),
            (BODY_BYTES - 1, 1),
        ];
        for (index, value) in changes {
            let decoded = Header::decode(&changed(&sample_header(), index, value));
            assert_eq!(decoded, Err(RecordError::Fields), "byte {index} = {value}");
        }
    }

    #[test]
    fn what_a_newer_highwater_wrote_is_reported_as_newer() {
        let format = changed(&sample_header(), at::VERSION.start + 1, 1);
        let key_type = changed(&sample_header(), at::KEY_TYPE, 7);
        let mut moved_checksum = format;
        moved_checksum[BODY_BYTES..].fill(0);
        for (bytes, what) in
            [(format, NewerFeature::Format), (moved_checksum, NewerFeature::Format), (key_type, NewerFeature::KeyType)]
        {
            let error = Header::decode(&bytes).unwrap_err();
            assert!(matches!(error, RecordError::Newer { what: found, .. } if found == what), "{error}");
        }
    }

    #[test]
    fn a_file_is_known_by_its_inode_and_its_birth() {
        let noted = THIS_FILE;
        assert!(noted.is(&noted));
        assert!(!noted.is(&FileId { inode: 4712, ..noted }));
        assert!(!noted.is(&FileId { birth: Some((1_700_000_000, 998)), ..noted }));
        assert!(!noted.is(&FileId { birth: None, ..noted }));
        assert!(FileId { birth: None, ..noted }.is(&noted), "an upgraded kernel may report more");
    }
}

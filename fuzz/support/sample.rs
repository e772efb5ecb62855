//! Whose state files the targets read: the key is that of `tests/vectors`.
#![allow(dead_code)]

use highwater_core::{consensus::{ChainId, PublicKey}, watermark::{FileId, Header, HostId, Identity}};
use sha2::{Digest as _, Sha256};

/// The machine.
pub const HOST: HostId = HostId([9; 16]);
/// The seed of the key.
pub const SEED: [u8; 32] = [0x42; 32];

/// The chain and its key.
pub fn identity() -> Identity {
    let key = ed25519_dalek::SigningKey::from_bytes(&SEED).verifying_key();
    Identity { chain: ChainId::new("test-chain").expect("a good chain id"), key: PublicKey::from(key) }
}

/// The file that every disk here says it is.
pub const FILE: FileId = FileId { inode: 4711, birth: Some((1_700_000_000, 999)) };

/// The header of our own file.
pub fn header() -> Header {
    Header::new(HOST, identity(), FILE)
}

/// Gives a header or a record a good checksum.
pub fn seal(record: &mut [u8]) {
    let (body, checksum) = record.split_at_mut(record.len() - 32);
    checksum.copy_from_slice(&Sha256::digest(body));
}

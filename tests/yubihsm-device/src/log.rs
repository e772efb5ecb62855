//! The log of a device: 62 entries, each with a digest over itself and the digest before it.

use sha2::{Digest as _, Sha256};

/// As many as a YubiHSM 2 keeps (Yubico, YubiHSM 2 logs).
pub const ENTRIES_MAX: usize = 62;
/// What an entry is made of, without its digest.
const FIELDS: usize = 16;

/// The log, from the oldest entry that is left.
pub struct Log {
    entries: Vec<[u8; 2 * FIELDS]>,
    next: u16,
    last_digest: [u8; 16],
    /// A clock that goes up by one with each entry.
    tick: u32,
}

impl Log {
    /// With the entry that a device makes when it is new.
    pub fn new() -> Self {
        let digest = *b"the first digest";
        let mut first = [0xff; 2 * FIELDS];
        first[..2].copy_from_slice(&1u16.to_be_bytes());
        first[FIELDS..].copy_from_slice(&digest);
        Self { entries: vec![first], next: 2, last_digest: digest, tick: 0 }
    }

    pub fn is_full(&self) -> bool {
        self.entries.len() >= ENTRIES_MAX
    }

    pub fn used(&self) -> u8 {
        u8::try_from(self.entries.len()).expect("62 at most")
    }

    /// Notes a command: its code, the length of its body, the authentication key, the object, and what was answered.
    pub fn note(&mut self, code: u8, length: u16, auth_key: u16, target: u16, result: u8) {
        // Without force-audit the oldest is lost.
        if self.is_full() {
            self.entries.remove(0);
        }
        self.tick += 1;
        let mut entry = Vec::with_capacity(2 * FIELDS);
        entry.extend_from_slice(&self.next.to_be_bytes());
        entry.push(code);
        for field in [length, auth_key, target, 0xffff] {
            entry.extend_from_slice(&field.to_be_bytes());
        }
        entry.push(result);
        entry.extend_from_slice(&self.tick.to_be_bytes());
        let digest = Sha256::digest([&entry[..], &self.last_digest].concat());
        self.last_digest.copy_from_slice(&digest[..16]);
        entry.extend_from_slice(&self.last_digest);
        self.entries.push(entry.try_into().expect("as many fields"));
        self.next = self.next.wrapping_add(1);
    }

    /// The answer to Get Log Entries.
    pub fn answer(&self) -> Vec<u8> {
        [&[0, 0, 0, 0, self.used()], self.entries.concat().as_slice()].concat()
    }

    /// Forgets the entries up to this one.
    pub fn forget(&mut self, index: u16) {
        self.entries.retain(|entry| u16::from_be_bytes([entry[0], entry[1]]) > index);
    }

    /// Changes a byte of the last entry, as somebody who covers their traces.
    pub fn tamper(&mut self) {
        if let Some(entry) = self.entries.last_mut() {
            entry[2] ^= 1;
        }
    }
}

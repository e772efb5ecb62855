//! Moves the device's own log into the audit file: reads the entries, checks their digests, has them written, and only
//! then frees their room on the device.
//!
//! It happens on the device's thread while no request waits, one command at a time, so that a request waits for one
//! short command at most.

use super::client::Client;
use crate::{
    keyring::device::Trouble,
    process::lock::lock,
    record::{
        audit::Audit,
        device_log::{self, DeviceLogEntry},
    },
};
use sha2::{Digest as _, Sha256};
use std::{
    sync::{
        Arc, Mutex, OnceLock,
        mpsc::{Receiver, TryRecvError},
    },
    time::{Duration, Instant},
};
use subtle_encoding::hex;
use tracing::{error, warn};

/// The audit file, once it is open.
pub(crate) type AuditSlot = Arc<OnceLock<Audit>>;

/// From this many commands on, the log is read when the device is idle for a while.
const WORTH_READING: u32 = 10;
/// From this many on, it is read as soon as no request waits: the device has room for 62 entries.
const URGENT: u32 = 25;
/// What "a while" is.
const QUIET: Duration = Duration::from_millis(100);
/// How often to look whether the entries are in the audit file.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// How long to wait after something failed.
const AGAIN_AFTER: Duration = Duration::from_secs(5);

/// Numbers of unlogged boots and authentications, and of entries.
const HEAD_BYTES: usize = 5;
const ENTRY_BYTES: usize = 32;
const DIGEST_BYTES: usize = 16;

/// How far the log of one device was moved. Outlives its sessions. Cheap to clone.
#[derive(Clone)]
pub(super) struct Drain {
    device: String,
    audit: AuditSlot,
    state: Arc<Mutex<DrainState>>,
}

/// The number and digest of an entry.
type EntryName = (u16, [u8; DIGEST_BYTES]);

struct DrainState {
    /// Commands since the log was last read, which may each have made an entry.
    commands: u32,
    /// The last entry that is in the audit file. The next one must follow it, whatever fails in between.
    last: Option<EntryName>,
    /// The last entry that is being written to the audit file, and what says when it is there.
    written: Option<(EntryName, Receiver<bool>)>,
    not_before: Instant,
}

impl Drain {
    pub(super) fn new(device: String, audit: AuditSlot) -> Self {
        // The first time at once: an earlier signer may have left a full log.
        let state = DrainState { commands: URGENT, last: None, written: None, not_before: Instant::now() };
        Self { device, audit, state: Arc::new(Mutex::new(state)) }
    }

    /// Reads the log in a new session soon: the number of the last one that was written says nothing about it.
    pub(super) fn begin(&self) {
        let mut state = lock(&self.state);
        if let Some((last, written)) = state.written.take()
            && written.try_recv() == Ok(true)
        {
            state.last = Some(last);
        }
        state.commands = URGENT;
    }

    /// Reads the log as soon as no request waits, because it is full.
    pub(super) fn hurry(&self) {
        self.count(URGENT);
    }

    /// Counts commands that the device may log.
    pub(super) fn count(&self, commands: u32) {
        let mut state = lock(&self.state);
        state.commands = state.commands.saturating_add(commands);
    }

    /// How long the device has to be idle until there is something to do. `None` if there is nothing.
    pub(super) fn wait(&self) -> Option<Duration> {
        self.audit.get()?;
        let state = lock(&self.state);
        let wait = match (&state.written, state.commands) {
            (Some(_), _) => LOOK_EVERY,
            (None, URGENT..) => Duration::ZERO,
            (None, WORTH_READING..) => QUIET,
            (None, _) => return None,
        };
        Some(wait.max(state.not_before.saturating_duration_since(Instant::now())))
    }

    /// Sends the device one command at most.
    pub(super) fn step(&self, client: &Client) -> Result<(), Trouble> {
        let Some(audit) = self.audit.get() else { return Ok(()) };
        let mut state = lock(&self.state);
        let done = match state.written.take() {
            None => self.read(&mut state, audit, client),
            Some((last, written)) => match written.try_recv() {
                Ok(true) => {
                    state.last = Some(last);
                    client.set_log_index("free the room of its log", last.0)
                }
                Err(TryRecvError::Empty) => {
                    state.written = Some((last, written));
                    Ok(())
                }
                // The audit file says why. The entries are read again.
                Ok(false) | Err(TryRecvError::Disconnected) => {
                    state.commands = URGENT;
                    state.not_before = Instant::now() + AGAIN_AFTER;
                    Ok(())
                }
            },
        };
        if done.is_err() {
            state.commands = URGENT;
            state.not_before = Instant::now() + AGAIN_AFTER;
        }
        done
    }

    fn read(&self, state: &mut DrainState, audit: &Audit, client: &Client) -> Result<(), Trouble> {
        let answer = client.log_entries("show its log")?;
        let Some((unlogged, entries)) = parse(&answer) else {
            return Err(Trouble::Broken("it sent a log that no YubiHSM sends".into()));
        };
        state.commands = 0;
        if unlogged != (0, 0) {
            let (boots, logins) = unlogged;
            warn!(device = %self.device, "its log was full: {boots} starts and {logins} logins are missing from it");
        }
        let Some(last) = entries.last().map(|entry| (entry.number(), entry.digest())) else { return Ok(()) };
        let told = told(&entries, state.last);
        if told.iter().any(|entry| !entry.proven) {
            error!(
                device = %self.device,
                "its log does not fit together: an entry was changed, or is missing. The audit file has `\"proven\":false` \
                 there. Find out who else uses the device or its log"
            );
        }
        state.written = Some((last, audit.device_log(device_log::lines(&self.device, &told))));
        Ok(())
    }
}

/// An entry in the device's form: number, command, length, three object ids, answer, clock, digest.
struct RawEntry([u8; ENTRY_BYTES]);

impl RawEntry {
    fn u16(&self, at: usize) -> u16 {
        u16::from_be_bytes([self.0[at], self.0[at + 1]])
    }

    fn number(&self) -> u16 {
        self.u16(0)
    }

    fn digest(&self) -> [u8; DIGEST_BYTES] {
        let mut digest = [0; DIGEST_BYTES];
        digest.copy_from_slice(&self.0[ENTRY_BYTES - DIGEST_BYTES..]);
        digest
    }

    /// Whether this is the entry after one with that number and digest.
    fn follows(&self, (number, digest): EntryName) -> bool {
        let mut expected = Sha256::new();
        expected.update(&self.0[..ENTRY_BYTES - DIGEST_BYTES]);
        expected.update(digest);
        self.number() == number.wrapping_add(1) && expected.finalize()[..DIGEST_BYTES] == self.digest()
    }
}

/// The numbers of boots and authentications that are missing for want of room, and the entries.
fn parse(answer: &[u8]) -> Option<((u16, u16), Vec<RawEntry>)> {
    let ([boots @ .., _, _, count], entries) = answer.split_first_chunk::<HEAD_BYTES>()?;
    let logins = [answer[2], answer[3]];
    let (chunks, rest) = entries.as_chunks::<ENTRY_BYTES>();
    (rest.is_empty() && chunks.len() == usize::from(*count)).then(|| {
        let entries = chunks.iter().map(|chunk| RawEntry(*chunk)).collect();
        ((u16::from_be_bytes(*boots), u16::from_be_bytes(logins)), entries)
    })
}

/// The entries that are new after `last`. Those that stand before them were written already.
fn told(entries: &[RawEntry], last: Option<EntryName>) -> Vec<DeviceLogEntry> {
    let old = entries.iter().position(|entry| Some((entry.number(), entry.digest())) == last);
    let new = &entries[old.map_or(0, |at| at + 1)..];
    // The first of all has nothing before it to be compared with.
    let mut before = last;
    let mut told = Vec::with_capacity(new.len());
    for entry in new {
        told.push(DeviceLogEntry {
            entry: entry.number(),
            command: format!("0x{:02x}", entry.0[2]),
            length: entry.u16(3),
            session_key: entry.u16(5),
            target_key: entry.u16(7),
            second_key: entry.u16(9),
            answer: format!("0x{:02x}", entry.0[11]),
            tick: u32::from_be_bytes([entry.0[12], entry.0[13], entry.0[14], entry.0[15]]),
            digest: String::from_utf8_lossy(&hex::encode(entry.digest())).into_owned(),
            proven: before.is_none_or(|before| entry.follows(before)),
        });
        before = Some((entry.number(), entry.digest()));
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first entry of a device, from the tests of the `yubihsm` crate.
    const FIRST: [u8; ENTRY_BYTES] = [
        0, 1, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 237, 217, 180, 224, 195, 140, 79,
        126, 197, 15, 5, 112, 145, 241, 47, 206,
    ];

    fn after(before: &RawEntry, command: u8) -> RawEntry {
        let [high, low] = (before.number() + 1).to_be_bytes();
        let fields = [high, low, command, 0, 130, 0, 1, 0, 2, 255, 255, command | 0x80, 0, 0, 0, 9];
        let digest = Sha256::digest([&fields[..], &before.digest()].concat());
        let mut entry = [0; ENTRY_BYTES];
        entry[..DIGEST_BYTES].copy_from_slice(&fields);
        entry[DIGEST_BYTES..].copy_from_slice(&digest[..DIGEST_BYTES]);
        RawEntry(entry)
    }

    fn log(count: u8) -> Vec<RawEntry> {
        let mut entries = vec![RawEntry(FIRST)];
        for _ in 1..count {
            entries.push(after(entries.last().unwrap(), 0x6a));
        }
        entries
    }

    #[test]
    fn a_log_is_read_and_every_digest_is_compared() {
        let entries = log(5);
        let answer = [&[0, 1, 0, 2, 5][..], &entries.iter().flat_map(|entry| entry.0).collect::<Vec<_>>()].concat();
        let (unlogged, read) = parse(&answer).unwrap();
        assert_eq!((unlogged, read.len()), ((1, 2), 5));
        let told = told(&read, None);
        assert!(told.iter().all(|entry| entry.proven));
        assert_eq!((told[1].entry, &*told[1].command, &*told[1].answer, told[1].target_key), (2, "0x6a", "0xea", 2));
        for length in 0..answer.len() {
            assert!(parse(&answer[..length]).is_none(), "{length} bytes");
        }
    }

    #[test]
    fn what_was_changed_or_is_missing_is_not_proven() {
        for at in 0..ENTRY_BYTES {
            let mut entries = log(5);
            entries[2].0[at] ^= 1;
            assert!(told(&entries, None).iter().any(|entry| !entry.proven), "byte {at}");
        }
        let mut entries = log(5);
        entries.remove(2);
        let proven: Vec<_> = told(&entries, None).iter().map(|entry| entry.proven).collect();
        assert_eq!(proven, [true, true, false, true]);
    }

    #[test]
    fn what_was_written_before_is_left_out_and_the_next_must_follow_it() {
        let entries = log(5);
        let last = Some((entries[2].number(), entries[2].digest()));
        for still_there in [0, 2, 3] {
            let told = told(&entries[still_there..], last);
            assert_eq!(
                told.iter().map(|entry| (entry.entry, entry.proven)).collect::<Vec<_>>(),
                [(4, true), (5, true)]
            );
        }
        assert!(!told(&entries[4..], last)[0].proven, "one is missing");
    }

    #[test]
    fn a_new_session_reads_the_log_again_and_knows_what_was_written() {
        let drain = Drain::new("device".into(), AuditSlot::default());
        let name = |number| (number, [7; DIGEST_BYTES]);
        let (done, written) = std::sync::mpsc::sync_channel(1);
        done.send(true).unwrap();
        let state =
            DrainState { commands: 0, last: None, written: Some((name(5), written)), not_before: Instant::now() };
        *lock(&drain.state) = state;
        drain.begin();
        // One that is not written yet is read again.
        let (_done, written) = std::sync::mpsc::sync_channel(1);
        lock(&drain.state).written = Some((name(9), written));
        drain.begin();
        let state = lock(&drain.state);
        assert_eq!((state.last, state.written.is_none(), state.commands), (Some(name(5)), true, URGENT));
    }
}

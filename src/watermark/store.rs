//! The store: two slots that are written in turn, one write and one flush per mark.
//!
//! Invariants, checked when a store is opened and kept by every write:
//! - both slots hold a record of one chain, key and host;
//! - their sequences are adjacent, and a record lies in the slot that its sequence names;
//! - the newer mark is not below the older.
//!
//! While one slot is written the other keeps the last mark that was released. A slot that does not verify is never
//! papered over with the other one: that one may be older than a vote that left.

use super::{
    host::HostId,
    mark::{Durable, Mark},
    record::{Identity, Mode, RECORD_BYTES, Record, RecordError},
};
use std::{fmt, io};

/// Distance between the slots: each in a block of its own on every file system.
pub const SLOT_BYTES: usize = 4096;

/// Size of a state file.
pub const FILE_BYTES: usize = 2 * SLOT_BYTES;

/// One of the two places for a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// Even sequences.
    First,
    /// Odd sequences.
    Second,
}

impl Slot {
    fn of(sequence: u64) -> Self {
        if sequence.is_multiple_of(2) { Self::First } else { Self::Second }
    }

    /// Where the slot begins in the file.
    pub fn offset(self) -> usize {
        match self {
            Self::First => 0,
            Self::Second => SLOT_BYTES,
        }
    }
}

/// What the store needs of a disk. Small, so that every fault of a disk can be played.
pub trait Disk: Send {
    /// Makes everything durable that an earlier process left in the page cache: the file and its directory entry.
    fn settle(&mut self) -> io::Result<()>;
    /// Reads a slot.
    fn read(&mut self, slot: Slot, record: &mut [u8; RECORD_BYTES]) -> io::Result<()>;
    /// Writes a slot in one go.
    fn write(&mut self, slot: Slot, record: &[u8; RECORD_BYTES]) -> io::Result<()>;
    /// Makes the last write durable.
    fn flush(&mut self) -> io::Result<()>;
    /// Whether the file's path still leads to the file that was opened and locked.
    fn still_named(&mut self) -> io::Result<bool>;
}

/// The watermark of one chain, open for signing.
pub struct Store {
    disk: Box<dyn Disk>,
    newest: Record,
    stopped: Option<String>,
}

impl Store {
    /// Opens the store of `identity` on `disk`. After this the newest record is on the disk: an earlier process may
    /// have died over a failed flush, which leaves a page that reads well and was never written.
    pub fn open(mut disk: Box<dyn Disk>, identity: &Identity, host: HostId) -> Result<Self, StoreError> {
        disk.settle().map_err(StoreError::io("flush"))?;
        let newest = Slots::read(disk.as_mut())?.newest().map_err(StoreError::Damaged)?;
        newest.check(identity, host)?;
        broken!("newest_not_rewritten" => return Ok(Self { disk, newest, stopped: None }));
        disk.write(Slot::of(newest.sequence), &newest.encode()).map_err(StoreError::io("write"))?;
        disk.flush().map_err(StoreError::io("flush"))?;
        Ok(Self { disk, newest, stopped: None })
    }

    /// The last mark.
    pub fn mark(&self) -> &Mark {
        &self.newest.mark
    }

    /// Counts the marks of this file.
    pub fn sequence(&self) -> u64 {
        self.newest.sequence
    }

    /// Moves the mark forward and makes it durable.
    ///
    /// After any error the store is stopped for the life of the process: what the disk holds is unknown, and a
    /// second flush may report success over the pages that the first one lost.
    ///
    /// # Panics
    /// If `mark` is not above the last one: the rule decides that before.
    pub fn advance(&mut self, mark: Mark) -> Result<Durable<Mark>, StoreError> {
        assert!(mark.hrs > self.newest.mark.hrs, "a mark only moves forward");
        self.put(mark, Mode::Active)?;
        Ok(Durable::attest(mark))
    }

    /// The last mark, proven durable: for an answer that repeats what was signed.
    pub fn current(&mut self) -> Result<Durable<Mark>, StoreError> {
        self.guard()?;
        let named = self.still_named();
        self.stop_on_error(named)?;
        Ok(Durable::attest(self.newest.mark))
    }

    /// Closes the file for good: its mark has gone to another program.
    pub fn retire(mut self) -> Result<(), StoreError> {
        self.put(self.newest.mark, Mode::Retired)
    }

    fn put(&mut self, mark: Mark, mode: Mode) -> Result<(), StoreError> {
        self.guard()?;
        let record = self.newest.next(mark, mode);
        let written = self.write(&record);
        self.stop_on_error(written)?;
        self.newest = record;
        Ok(())
    }

    fn write(&mut self, record: &Record) -> Result<(), StoreError> {
        broken!("flush_after_release" => self.disk.flush().map_err(StoreError::io("flush"))?);
        self.disk.write(Slot::of(record.sequence), &record.encode()).map_err(StoreError::io("write"))?;
        broken!("flush_after_release" => return self.still_named());
        broken!("no_flush" => return self.still_named());
        self.disk.flush().map_err(StoreError::io("flush"))?;
        self.still_named()
    }

    fn still_named(&mut self) -> Result<(), StoreError> {
        broken!("replacement_unnoticed" => return Ok(()));
        match self.disk.still_named() {
            Ok(true) => Ok(()),
            Ok(false) => Err(StoreError::Replaced),
            Err(error) => Err(StoreError::Io { action: "look up", error }),
        }
    }

    fn guard(&self) -> Result<(), StoreError> {
        match &self.stopped {
            Some(why) => Err(StoreError::Stopped { why: why.clone() }),
            None => Ok(()),
        }
    }

    fn stop_on_error<T>(&mut self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        broken!("no_stop_after_error" => return result);
        result.inspect_err(|error| self.stopped = Some(error.to_string()))
    }
}

impl Record {
    /// Whether a signer for `identity` on `host` may use the file this is the newest record of.
    pub fn check(&self, identity: &Identity, host: HostId) -> Result<(), StoreError> {
        if self.identity.chain != identity.chain {
            return Err(StoreError::ForeignChain { found: self.identity.chain.to_string() });
        }
        if self.identity.key != identity.key {
            let (found, ours) = (self.identity.key.to_string(), identity.key.to_string());
            return Err(StoreError::ForeignKey { found, ours });
        }
        if self.mode == Mode::Retired {
            return Err(StoreError::Retired { mark: self.mark });
        }
        if self.host != host {
            return Err(StoreError::ForeignHost { mark: self.mark });
        }
        Ok(())
    }
}

/// Both slots as they were read.
#[derive(Clone, Debug)]
pub struct Slots {
    first: Result<Record, RecordError>,
    second: Result<Record, RecordError>,
}

impl Slots {
    /// Reads both slots.
    pub fn read(disk: &mut dyn Disk) -> Result<Self, StoreError> {
        let mut slot = |slot| {
            let mut bytes = [0; RECORD_BYTES];
            disk.read(slot, &mut bytes).map_err(StoreError::io("read"))?;
            Ok(Record::decode(&bytes))
        };
        Ok(Self { first: slot(Slot::First)?, second: slot(Slot::Second)? })
    }

    /// The newest record, if every invariant holds.
    pub fn newest(self) -> Result<Record, Damage> {
        broken!("older_slot_fallback" => if let (Ok(one), Err(_)) | (Err(_), Ok(one)) = (&self.first, &self.second) {
            return Ok(one.clone());
        });
        let (first, second) = match (self.first, self.second) {
            (Ok(first), Ok(second)) => (first, second),
            (first, second) => {
                let survivor = first.as_ref().ok().or(second.as_ref().ok()).map(|record| record.mark);
                let slots = [first.err(), second.err()];
                return Err(Damage { what: Broken::Slots(slots), survivor });
            }
        };
        // Of two adjacent sequences one is even, so with the first slot the second is right too.
        let in_place = Slot::of(first.sequence) == Slot::First;
        let adjacent = first.sequence.abs_diff(second.sequence) == 1;
        let same_owner = first.identity == second.identity && first.host == second.host;
        let (old, new) = if first.sequence < second.sequence { (first, second) } else { (second, first) };
        let rule = if !(in_place && adjacent) {
            "the two slots are not successive"
        } else if !same_owner {
            "the two slots are of different chains, keys or hosts"
        } else if new.mark.hrs < old.mark.hrs {
            "the newer slot is below the older"
        } else {
            return Ok(new);
        };
        let survivor = if old.mark.hrs > new.mark.hrs { old.mark } else { new.mark };
        Err(Damage { what: Broken::Rule(rule), survivor: Some(survivor) })
    }
}

/// The content of a new state file: `record` and its successor with the same mark.
pub fn image(record: &Record) -> [u8; FILE_BYTES] {
    let mut out = [0; FILE_BYTES];
    for record in [record.clone(), record.next(record.mark, record.mode)] {
        let offset = Slot::of(record.sequence).offset();
        out[offset..offset + RECORD_BYTES].copy_from_slice(&record.encode());
    }
    out
}

/// A state file that does not verify.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    what: Broken,
    survivor: Option<Mark>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Broken {
    Rule(&'static str),
    Slots([Option<RecordError>; 2]),
}

impl Damage {
    /// The highest mark that can still be read. The true one may be above it.
    pub fn survivor(&self) -> Option<Mark> {
        self.survivor
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.what {
            Broken::Rule(rule) => f.write_str(rule)?,
            Broken::Slots([Some(first), Some(second)]) => {
                write!(f, "the first slot {first} and the second slot {second}")?;
            }
            Broken::Slots([Some(error), None]) => write!(f, "the first slot {error}")?,
            Broken::Slots([None, error]) => {
                write!(f, "the second slot {}", error.expect("one of the slots is broken"))?;
            }
        }
        match self.survivor {
            Some(mark) => write!(f, "; the mark that survives is {}, the true one may be higher", mark.hrs),
            None => f.write_str("; no mark survives"),
        }
    }
}

/// Why a store cannot be used. The caller knows the path.
#[derive(Debug)]
pub enum StoreError {
    /// A slot does not verify, or the two contradict each other.
    Damaged(Damage),
    /// The file belongs to another chain.
    ForeignChain {
        /// That chain.
        found: String,
    },
    /// The file was written on another machine.
    ForeignHost {
        /// Its mark.
        mark: Mark,
    },
    /// The file belongs to another key.
    ForeignKey {
        /// That key.
        found: String,
        /// The configured key.
        ours: String,
    },
    /// The disk failed.
    Io {
        /// What we asked of it.
        action: &'static str,
        /// What it said.
        error: io::Error,
    },
    /// Another file has taken the path.
    Replaced,
    /// The mark was exported to another program.
    Retired {
        /// The mark then.
        mark: Mark,
    },
    /// An earlier error stopped this store for the life of the process.
    Stopped {
        /// That error.
        why: String,
    },
}

impl StoreError {
    fn io(action: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |error| Self::Io { action, error }
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Damaged(damage) => write!(
                f,
                "is damaged: {damage}. Nothing is signed from a damaged file: wait until the chain has committed two \
                 more heights, move the file away, then run `highwater state init --height H` with the last of them"
            ),
            Self::ForeignChain { found } => {
                write!(f, "belongs to chain {found}; give this chain a state file of its own")
            }
            Self::ForeignHost { mark } => write!(
                f,
                "was written on another machine, at {}. If the signer there is stopped for good and this is its \
                 latest file, take it over with `highwater state import FILE`",
                mark.hrs
            ),
            Self::ForeignKey { found, ours } => {
                write!(f, "belongs to key {found}, the configuration names key {ours}")
            }
            Self::Io { action, error } => write!(f, "cannot {action}: {error}"),
            Self::Replaced => f.write_str(
                "was replaced by another file while in use (is tmkms still running on it?). Stop the other program for \
                 good, wait until the chain has committed two more heights, move the file away, then run `highwater state \
                 init --height H` with the last of them",
            ),
            Self::Retired { mark } => write!(
                f,
                "was retired at {} by `highwater state export`: another program may have signed since. Stop that one \
                 and bring its state back with `highwater state import FILE`",
                mark.hrs
            ),
            Self::Stopped { why } => write!(f, "failed earlier and stays closed until a restart: it {why}"),
        }
    }
}

impl std::error::Error for StoreError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { error, .. } => Some(error),
            _ => None,
        }
    }
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;

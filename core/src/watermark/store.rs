//! The store: two slots that are written in turn, with one write and one flush for each mark.
//!
//! Invariants, checked when a store is opened and kept by every write:
//! - the header belongs to this chain, key, machine and file, and both slots hold a record of that header;
//! - the sequences of the two records are adjacent, and each record is in the slot for its sequence;
//! - the newer mark is not below the older.
//!
//! While one slot is written, the other keeps the last mark that was released. That slot is read back before each
//! write: if another program writes into the file of a running signer, the next request notices. A slot that does not
//! verify is never replaced by the other one, which may be older than a vote that left.

use super::{
    bytes::{NewerFeature, RecordError},
    header::{BLOCK_BYTES, FileId, Header, Identity},
    host::HostId,
    mark::{Durable, Mark},
    record::{Mode, RECORD_BYTES, Record},
};
use crate::disk;
use std::{fmt, io};

/// Size of a state file: the header and two slots.
pub const FILE_BYTES: usize = 3 * BLOCK_BYTES;

/// One of the two places for a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// Holds records with an even sequence.
    First,
    /// Holds records with an odd sequence.
    Second,
}

impl Slot {
    fn of(sequence: u64) -> Self {
        if sequence.is_multiple_of(2) { Self::First } else { Self::Second }
    }

    /// Position of the slot's first byte in the file.
    pub fn offset(self) -> usize {
        match self {
            Self::First => BLOCK_BYTES,
            Self::Second => 2 * BLOCK_BYTES,
        }
    }
}

/// The operations that the store needs. The trait is small so that tests can simulate every fault of a disk.
pub trait Disk: Send {
    /// The id of this file, whatever it holds.
    fn id(&mut self) -> io::Result<FileId>;
    /// Flushes whatever an earlier process left in the page cache: the file and its directory entry.
    fn settle(&mut self) -> io::Result<()>;
    /// Reads the header. Bytes that a short file lacks are zero.
    fn read_header(&mut self, header: &mut [u8; BLOCK_BYTES]) -> io::Result<()>;
    /// Reads a slot. Bytes that a short file lacks are zero.
    fn read(&mut self, slot: Slot, record: &mut [u8; RECORD_BYTES]) -> io::Result<()>;
    /// Writes a slot in one write. Not durable before [`Disk::flush`].
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
    /// The newest record as it was written to its slot.
    written: [u8; RECORD_BYTES],
    stopped: Option<String>,
}

impl Store {
    /// Opens the store of `identity` on `disk` and writes the newest record again, so that it is certainly on the disk:
    /// an earlier process may have died of a failed flush, which leaves a page that can be read and was never written.
    pub fn open(mut disk: Box<dyn Disk>, identity: &Identity, host: HostId) -> Result<Self, StoreError> {
        disk.settle().map_err(StoreError::io("flush"))?;
        let newest = newest(disk.as_mut())?;
        let file = disk.id().map_err(StoreError::io("look at"))?;
        newest.check(identity, host, &file)?;
        let written = newest.encode();
        broken!("newest_not_rewritten" => return Ok(Self { disk, newest, written, stopped: None }));
        disk.write(Slot::of(newest.sequence), &written).map_err(StoreError::io("write"))?;
        disk.flush().map_err(StoreError::io("flush"))?;
        Ok(Self { disk, newest, written, stopped: None })
    }

    /// The last mark, as it is on the disk.
    pub fn mark(&self) -> &Mark {
        &self.newest.mark
    }

    /// The number of the last mark. Every new mark raises it by one.
    pub fn sequence(&self) -> u64 {
        self.newest.sequence
    }

    /// Moves the mark forward and makes it durable.
    ///
    /// After any error the store stays stopped until the process ends: what the disk holds is unknown, and a second
    /// flush can report success although the first one lost its pages.
    ///
    /// # Panics
    /// If `mark` is not above the last one, which [`super::decide`] rules out beforehand.
    pub fn advance(&mut self, mark: Mark) -> Result<Durable<Mark>, StoreError> {
        assert!(mark.hrs > self.newest.mark.hrs, "a mark only moves forward");
        self.put(mark, Mode::Active)?;
        Ok(Durable::attest(mark))
    }

    /// Proof that the last mark is durable, for an answer that repeats what was signed. Fails, and stops the store, if
    /// the file was replaced or another program wrote into it.
    pub fn current(&mut self) -> Result<Durable<Mark>, StoreError> {
        self.guard()?;
        let ours = self.still_written().and_then(|()| self.still_named());
        self.stop_on_error(ours)?;
        Ok(Durable::attest(self.newest.mark))
    }

    /// Marks the file as retired, so that no signer uses it again: another program takes over its mark.
    pub fn retire(mut self) -> Result<(), StoreError> {
        self.put(self.newest.mark, Mode::Retired)
    }

    fn put(&mut self, mark: Mark, mode: Mode) -> Result<(), StoreError> {
        self.guard()?;
        let record = self.newest.next(mark, mode);
        let bytes = record.encode();
        let written = self.still_written().and_then(|()| self.write(record.sequence, &bytes));
        self.stop_on_error(written)?;
        self.newest = record;
        self.written = bytes;
        Ok(())
    }

    /// Checks that the slot of the newest record still holds it. No other program may write there.
    fn still_written(&mut self) -> Result<(), StoreError> {
        broken!("overwrite_unnoticed" => return Ok(()));
        let mut found = [0; RECORD_BYTES];
        self.disk.read(Slot::of(self.newest.sequence), &mut found).map_err(StoreError::io("read"))?;
        if found == self.written {
            return Ok(());
        }
        // So that the next start does not accept the other content. This can only raise the mark in the file.
        let slot = Slot::of(self.newest.sequence);
        let _ = self.disk.write(slot, &self.written).and_then(|()| self.disk.flush());
        Err(StoreError::Overwritten)
    }

    fn write(&mut self, sequence: u64, bytes: &[u8; RECORD_BYTES]) -> Result<(), StoreError> {
        broken!("flush_after_release" => self.disk.flush().map_err(StoreError::io("flush"))?);
        self.disk.write(Slot::of(sequence), bytes).map_err(StoreError::io("write"))?;
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
    /// Checks that a signer for `identity` on `host` may use `file`, whose newest record this is.
    pub fn check(&self, identity: &Identity, host: HostId, file: &FileId) -> Result<(), StoreError> {
        let found = self.header.identity();
        if found.chain != identity.chain {
            return Err(StoreError::ForeignChain { found: found.chain.to_string() });
        }
        if found.key != identity.key {
            return Err(StoreError::ForeignKey { found: found.key.to_string(), ours: identity.key.to_string() });
        }
        if self.mode == Mode::Retired {
            return Err(StoreError::Retired { mark: self.mark });
        }
        if self.header.host() != host {
            return Err(StoreError::ForeignHost { mark: self.mark });
        }
        if !self.header.file().is(file) {
            return Err(StoreError::Copy { mark: self.mark });
        }
        Ok(())
    }
}

/// Reads the newest record on `disk`. Fails if an invariant of the two slots does not hold.
pub fn newest(disk: &mut dyn Disk) -> Result<Record, StoreError> {
    let mut bytes = [0; BLOCK_BYTES];
    disk.read_header(&mut bytes).map_err(StoreError::io("read"))?;
    let header = match Header::decode(&bytes) {
        Ok(header) => header,
        Err(RecordError::Newer { what, number }) => return Err(StoreError::Newer { what, number }),
        Err(error) => return Err(StoreError::Damaged(Damage { what: Broken::Header(error), survivor: None })),
    };
    let mut slot = |slot| {
        let mut bytes = [0; RECORD_BYTES];
        disk.read(slot, &mut bytes).map_err(StoreError::io("read"))?;
        Ok(Record::decode(&bytes, &header))
    };
    newer_of(slot(Slot::First)?, slot(Slot::Second)?)
}

/// The newer of the two slots, if they belong together.
fn newer_of(first: Result<Record, RecordError>, second: Result<Record, RecordError>) -> Result<Record, StoreError> {
    broken!("older_slot_fallback" => if let (Ok(one), Err(_)) | (Err(_), Ok(one)) = (&first, &second) {
        return Ok(one.clone());
    });
    let (first, second) = match (first, second) {
        (Ok(first), Ok(second)) => (first, second),
        (Err(RecordError::Newer { what, number }), _) | (_, Err(RecordError::Newer { what, number })) => {
            return Err(StoreError::Newer { what, number });
        }
        (first, second) => {
            let survivor = first.as_ref().ok().or(second.as_ref().ok()).map(|record| record.mark);
            let slots = [first.err(), second.err()];
            return Err(StoreError::Damaged(Damage { what: Broken::Slots(slots), survivor }));
        }
    };
    // Of two adjacent sequences one is even, so if the first slot is right, the second is too.
    let in_place = Slot::of(first.sequence) == Slot::First;
    let adjacent = first.sequence.abs_diff(second.sequence) == 1;
    let (old, new) = if first.sequence < second.sequence { (first, second) } else { (second, first) };
    let rule = if !(in_place && adjacent) {
        "the two slots are not successive"
    } else if new.mark.hrs < old.mark.hrs {
        "the newer slot is below the older"
    } else {
        return Ok(new);
    };
    let survivor = if old.mark.hrs > new.mark.hrs { old.mark } else { new.mark };
    Err(StoreError::Damaged(Damage { what: Broken::Rule(rule), survivor: Some(survivor) }))
}

/// The content of a new state file: the header of `record`, then `record` and its successor with the same mark.
pub fn image(record: &Record) -> [u8; FILE_BYTES] {
    let mut out = [0; FILE_BYTES];
    out[..BLOCK_BYTES].copy_from_slice(&record.header.encode());
    for record in [record.clone(), record.next(record.mark, record.mode)] {
        let offset = Slot::of(record.sequence).offset();
        out[offset..offset + RECORD_BYTES].copy_from_slice(&record.encode());
    }
    out
}

/// What is wrong with a state file that does not verify.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    what: Broken,
    survivor: Option<Mark>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Broken {
    Header(RecordError),
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
            Broken::Header(error) => write!(f, "its header {error}")?,
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

/// Why a store cannot be used. Its text follows "state file PATH": the caller knows the path.
#[derive(Debug)]
pub enum StoreError {
    /// The file is a copy: its header names another file.
    Copy {
        /// The mark in the copy.
        mark: Mark,
    },
    /// A slot does not verify, or the two contradict each other.
    Damaged(Damage),
    /// The file belongs to another chain.
    ForeignChain {
        /// The chain in the file.
        found: String,
    },
    /// The file was written on another machine.
    ForeignHost {
        /// The mark in the file.
        mark: Mark,
    },
    /// The file belongs to another key.
    ForeignKey {
        /// The key in the file.
        found: String,
        /// The configured key.
        ours: String,
    },
    /// The operating system reported an error.
    Io {
        /// The action that failed, as in "cannot {action}".
        action: &'static str,
        /// The system's error.
        error: io::Error,
    },
    /// A newer Highwater wrote it.
    Newer {
        /// What this Highwater does not know: a format, a mode, a key type.
        what: NewerFeature,
        /// Its number.
        number: u16,
    },
    /// Another program wrote into the file while it was in use.
    Overwritten,
    /// The path leads to another file than the open one.
    Replaced,
    /// The mark was exported to another program.
    Retired {
        /// The mark that was exported.
        mark: Mark,
    },
    /// An earlier error stopped this store until the process ends.
    Stopped {
        /// The text of that error.
        why: String,
    },
}

impl StoreError {
    fn io(action: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |error| Self::Io { action, error }
    }
}

impl StoreError {
    /// Whether the cause may go away by itself, as with a full disk.
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Io { error, .. } if disk::may_pass(error))
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Copy { mark } => write!(
                f,
                "is a copy of a state file, made at {}: the original, or another copy, may have signed since. If no other \
                 signer uses this key and the copy is not behind, take it over with `highwater state import FILE`",
                mark.hrs
            ),
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
                write!(
                    f,
                    "belongs to key {found}, the configuration names key {ours}: name the key that belongs to this state, or a \
                     `state_file` for the new key"
                )
            }
            Self::Io { action, error } => write!(f, "cannot {action}: {error}"),
            Self::Newer { what, number } => write!(
                f,
                "was written by a newer Highwater: this version does not know its {what} {number}. Nothing is wrong with \
                 the file. Run the version that wrote it; do not make a new state file, which would forget what was signed"
            ),
            Self::Overwritten => f.write_str(
                "was overwritten by another program while in use: its content is not what this signer wrote. Stop that \
                 program, wait until the chain has committed two more heights, move the file away, then run `highwater \
                 state init --height H` with the last of them",
            ),
            Self::Replaced => f.write_str(
                "was replaced by another file while in use. Stop the program that did it, wait until the chain has committed \
                 two more heights, move the file away, then run `highwater state init --height H` with the last of them",
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

//! The operations on the state file of a chain: open it for signing, make it, import a mark, export the mark, raise it.
//!
//! A mark only moves forward here, whatever the command. The file is ours alone: it is beside the `state_file` of tmkms.toml,
//! which belongs to tmkms. Only `import` takes a mark from there, and it leaves a tombstone in its place.

mod error;
pub mod foreign;
mod theirs;

pub use error::StateError;
pub use theirs::{Rival, Standing, Theirs};

use crate::{
    config::ChainConfig,
    state::foreign::{Foreign, MigrationError, Program},
};
use highwater_core::{
    consensus::{ChainId, Hrs, KeyType, PublicKey},
    watermark::{
        self, Disk as _, FileError, FileId, HostId, Identity, Mark, Mode, Record, StateFile, StateReadError, Store,
        StoreError,
    },
};
use std::{
    fmt, io,
    path::{Path, PathBuf},
};

/// The state file of a chain.
#[derive(Clone, Debug)]
pub struct Place {
    /// Where it is.
    pub path: PathBuf,
    /// The file that tmkms.toml names, which belongs to tmkms.
    pub theirs: Theirs,
    /// The chain and key that it must belong to.
    pub identity: Identity,
    /// The machine that it must belong to.
    pub host: HostId,
}

/// The result of an import.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    /// The program that wrote the imported file.
    pub source: ImportSource,
    /// The new mark of the state file.
    pub mark: Mark,
    /// Where the file that was replaced is kept.
    pub kept: Option<PathBuf>,
}

/// The program whose file a mark was taken from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImportSource {
    /// Another program's.
    Foreign(Program),
    /// A state file of Highwater.
    Highwater,
}

impl fmt::Display for ImportSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Foreign(program) => f.write_str(program.name()),
            Self::Highwater => f.write_str("Highwater"),
        }
    }
}

/// Whether the operator checked a file whose program may have signed more than the file shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Age {
    /// The operator has not said.
    Unknown,
    /// The operator compared its height with what the chain has seen of this key.
    Checked,
}

impl Place {
    /// Opens the state for signing, in the file that [`lock`] returned. Never makes, takes over or repairs anything.
    pub fn open(&self, file: StateFile) -> Result<Store, StateError> {
        Store::open(Box::new(file), &self.identity, self.host).map_err(self.store_error())
    }

    /// Makes the state file of a chain that has none, and makes sure that a tmkms started by mistake signs nothing. Returns
    /// where the file of tmkms is kept, if there is one.
    pub fn create(&self, mark: Mark) -> Result<Option<PathBuf>, StateError> {
        let standing = self.theirs.look(&self.identity);
        let path = || self.theirs.path().to_owned();
        match &standing {
            Standing::State(foreign) if mark.hrs < foreign.mark.hrs => {
                return Err(StateError::BelowTheirs { path: path(), theirs: foreign.mark.hrs, asked: mark.hrs });
            }
            // There was a file of ours, but it is gone.
            Standing::Tombstone if mark == Mark::NEVER_SIGNED && !self.path.exists() => return Err(self.lost()),
            Standing::Unreadable(MigrationError::NeverSigned | MigrationError::Unproven { hrs: Hrs::GENESIS }) => {}
            Standing::Unreadable(error) if mark == Mark::NEVER_SIGNED => {
                return Err(StateError::Migration { path: path(), error: error.clone() });
            }
            _ => {}
        }
        self.create_at(mark)?;
        self.theirs.bury(&standing, &self.identity)
    }

    fn create_at(&self, mark: Mark) -> Result<(), StateError> {
        Ok(watermark::create(&self.path, self.host, &self.identity, mark)?)
    }

    /// Imports the mark of the file at `from`: tmkms's, CometBFT's, or a Highwater state file that is from another machine or
    /// a copy, even if it is in our own place. Without `from`, imports the file that tmkms.toml names.
    pub fn import(&self, from: Option<&Path>, age: Age) -> Result<Imported, StateError> {
        let from = match from {
            Some(from) if is_same_file(&self.path, from) => return self.import_itself(from, age),
            Some(from) => from,
            None if self.finishes_tombstone() => return self.finish_tombstone(),
            None => self.theirs.path(),
        };
        let in_place = is_same_file(self.theirs.path(), from);
        let (source, mut mark) = self.read_source(from, age)?;
        if in_place && source == ImportSource::Foreign(Program::CometBft) {
            return Err(StateError::CometBftInPlace { path: from.into() });
        }
        let standing = if in_place {
            Standing::State(Foreign { program: Program::Tmkms, mark })
        } else {
            self.theirs.look(&self.identity)
        };
        match &standing {
            // Nothing records what this key has signed since the first import.
            Standing::Tombstone if !self.path.exists() => return Err(self.lost()),
            Standing::State(foreign) if mark.hrs < foreign.mark.hrs => {
                let (path, theirs) = (self.theirs.path().to_owned(), foreign.mark.hrs);
                return Err(StateError::BelowTheirs { path, theirs, asked: mark.hrs });
            }
            // Two programs have signed here, perhaps different messages, so neither message may be repeated.
            Standing::State(foreign) if mark.hrs == foreign.mark.hrs && mark != foreign.mark => {
                mark = Mark::floor(mark.hrs);
            }
            _ => {}
        }
        let replaced = match StateFile::open(&self.path) {
            Err(FileError::Missing { .. }) => self.create_at(mark).map(|()| None)?,
            Err(error) => return Err(error.into()),
            Ok(file) => self.import_over(file, mark, in_place, age)?,
        };
        if !in_place {
            self.theirs.note_source(from, mark, &self.path)?;
        }
        let buried = match standing {
            // A file that was not imported is not moved away.
            Standing::State(_) | Standing::Unreadable(_) if !in_place => None,
            standing => self.theirs.bury(&standing, &self.identity)?,
        };
        Ok(Imported { source, mark, kept: buried.or(replaced) })
    }

    /// Moves our own file to `mark`, or replaces it if it may not be used as it is.
    fn import_over(
        &self,
        mut file: StateFile,
        mark: Mark,
        in_place: bool,
        age: Age,
    ) -> Result<Option<PathBuf>, StateError> {
        let ours = file.newest().map_err(self.store_error())?;
        let unchanged = mark.hrs == ours.mark.hrs;
        match ours.check(&self.identity, self.host, &self.id_of(&mut file)?) {
            // An import that was interrupted between our file and the tombstone.
            Ok(()) if in_place && unchanged => Ok(None),
            Ok(()) => {
                self.must_be_above(&ours, mark)?;
                let mut store = Store::open(Box::new(file), &self.identity, self.host).map_err(self.store_error())?;
                store.advance(mark).map_err(self.store_error())?;
                Ok(None)
            }
            Err(StoreError::Retired { .. }) => {
                self.must_be_above(&ours, mark)?;
                Ok(Some(watermark::replace(&file, self.host, &self.identity, mark)?))
            }
            Err(StoreError::Copy { mark }) if age == Age::Unknown => {
                Err(StateError::CopyUnchecked { path: self.path.clone(), mark: mark.hrs })
            }
            Err(StoreError::ForeignHost { .. } | StoreError::Copy { .. }) => {
                let mark = Mark::floor(mark.hrs.max(ours.mark.hrs));
                Ok(Some(watermark::replace(&file, self.host, &self.identity, mark)?))
            }
            Err(error) => Err(self.store_error()(error)),
        }
    }

    /// Imports a file in our own place that came from another machine, or is a copy.
    fn import_itself(&self, from: &Path, age: Age) -> Result<Imported, StateError> {
        let mut file = StateFile::open(&self.path)?;
        let ours = file.newest().map_err(self.store_error())?;
        let id = self.id_of(&mut file)?;
        // By itself a retired file cannot say what the other program has signed since.
        let mark = self.mark_of_another(&ours, &id, from, age)?;
        let kept = watermark::replace(&file, self.host, &self.identity, mark)?;
        Ok(Imported { source: ImportSource::Highwater, mark, kept: Some(kept) })
    }

    /// The mark of a Highwater state file at `from` that is of another machine or a copy. Refuses every other.
    fn mark_of_another(&self, record: &Record, id: &FileId, from: &Path, age: Age) -> Result<Mark, StateError> {
        match record.check(&self.identity, self.host, id) {
            Err(StoreError::Copy { mark }) if age == Age::Unknown => {
                Err(StateError::CopyUnchecked { path: from.into(), mark: mark.hrs })
            }
            Err(StoreError::ForeignHost { .. } | StoreError::Copy { .. }) => Ok(Mark::floor(record.mark.hrs)),
            // Two active files for one key on one machine would let two signers run.
            Ok(()) => Err(StateError::ActiveSource { path: from.into(), ours: self.path.clone() }),
            Err(error) => Err(StateError::Store { path: from.into(), error }),
        }
    }

    /// Whether our file is there but the tombstone is missing, so that tmkms would begin at height 0.
    fn finishes_tombstone(&self) -> bool {
        let unburied = Standing::Unreadable(MigrationError::NeverSigned);
        self.path.exists() && [Standing::Nothing, unburied].contains(&self.theirs.look(&self.identity))
    }

    fn lost(&self) -> StateError {
        StateError::Lost { ours: self.path.clone(), theirs: self.theirs.path().to_owned() }
    }

    fn finish_tombstone(&self) -> Result<Imported, StateError> {
        let mark = *self.open(StateFile::open(&self.path)?)?.mark();
        let kept = self.theirs.bury(&self.theirs.look(&self.identity), &self.identity)?;
        Ok(Imported { source: ImportSource::Highwater, mark, kept })
    }

    fn must_be_above(&self, ours: &Record, theirs: Mark) -> Result<(), StateError> {
        if theirs.hrs > ours.mark.hrs {
            return Ok(());
        }
        let retired = ours.mode == Mode::Retired;
        Err(StateError::NotForward { path: self.path.clone(), last: ours.mark.hrs, asked: theirs.hrs, retired })
    }

    /// Reads the program and the mark from the file at `from`.
    fn read_source(&self, from: &Path, age: Age) -> Result<(ImportSource, Mark), StateError> {
        let is_ours = watermark::is_state_file(from).map_err(|error| match error {
            // The advice for a signer that misses its own state would mislead here.
            FileError::Missing { .. } => StateError::Migration { path: from.into(), error: MigrationError::Missing },
            other => other.into(),
        })?;
        if !is_ours {
            let Foreign { program, mark } = theirs::read(from, &self.identity)?;
            if age == Age::Unknown && theirs::is_older_than_boot(from) {
                return Err(StateError::OlderThanBoot { path: from.into(), program, mark: mark.hrs });
            }
            return Ok((ImportSource::Foreign(program), mark));
        }
        // Locked, so that no signer is using it.
        let there = Self { path: from.into(), ..self.clone() };
        let mut file = StateFile::open(from)?;
        let record = file.newest().map_err(there.store_error())?;
        let id = there.id_of(&mut file)?;
        Ok((ImportSource::Highwater, self.mark_of_another(&record, &id, from, age)?))
    }

    fn id_of(&self, file: &mut StateFile) -> Result<FileId, StateError> {
        file.id().map_err(|error| self.store_error()(StoreError::Io { action: "look at", error }))
    }

    /// Adds the path to an error of the store.
    pub fn store_error(&self) -> impl FnOnce(StoreError) -> StateError + use<> {
        let path = self.path.clone();
        move |error| StateError::Store { path, error }
    }
}

/// Locks the state file at `path` for a signer. `theirs` is the file of tmkms beside it, which is never taken over.
pub fn lock(path: &Path, theirs: &Theirs) -> Result<StateFile, StateError> {
    broken!("start_imports" => theirs.imported_by_start(path));
    StateFile::open(path).map_err(|error| theirs.explain_missing(error))
}

/// Raises the mark of `chain`'s file at `path`: nothing at or below `height` is ever signed again. Needs no key.
pub fn raise(path: &Path, chain: &ChainId, host: HostId, height: u64) -> Result<Mark, StateError> {
    let mut store = open_without_key(path, chain, host)?;
    let mark = Mark::floor(Hrs::end_of(height));
    if mark.hrs <= store.mark().hrs {
        let last = store.mark().hrs;
        return Err(StateError::NotForward { path: path.into(), last, asked: mark.hrs, retired: false });
    }
    let raised = store.advance(mark).map_err(|error| StateError::Store { path: path.into(), error })?;
    Ok(raised.spend())
}

/// The mark of a state file, for another program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exported {
    /// How far this key has signed.
    pub mark: Mark,
    /// Whether the mark had been exported before: two copies exist, and only one may ever be used.
    pub repeated: bool,
}

/// Exports the mark of `chain`'s file at `path` and retires the file: this signer refuses it from now on. A retired file can
/// be exported again, in case the first copy was lost.
pub fn export(path: &Path, chain: &ChainId, host: HostId) -> Result<Exported, StateError> {
    let store = match open_without_key(path, chain, host) {
        Err(StateError::Store { error: StoreError::Retired { mark }, .. }) => {
            return Ok(Exported { mark, repeated: true });
        }
        other => other?,
    };
    let mark = *store.mark();
    store.retire().map_err(|error| StateError::Store { path: path.into(), error })?;
    Ok(Exported { mark, repeated: false })
}

/// The newest record of the file at `path`, even while a signer uses it.
pub fn show(path: &Path) -> Result<Record, StateError> {
    look(path).map(|(record, _)| record)
}

/// The newest record, and the id of the file that it is in.
pub fn look(path: &Path) -> Result<(Record, FileId), StateError> {
    watermark::read_unlocked(path).map_err(|error| match error {
        StateReadError::File(error) => error.into(),
        StateReadError::Store(error) => StateError::Store { path: path.into(), error },
    })
}

/// Opens a store with the key that it has.
fn open_without_key(path: &Path, chain: &ChainId, host: HostId) -> Result<Store, StateError> {
    let mut file = StateFile::open(path)?;
    let newest = file.newest().map_err(|error| StateError::Store { path: path.into(), error })?;
    let identity = Identity { chain: chain.clone(), key: newest.header.identity().key.clone() };
    Store::open(Box::new(file), &identity, host).map_err(|error| StateError::Store { path: path.into(), error })
}

fn is_same_file(one: &Path, other: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let id = |path: &Path| -> io::Result<_> { std::fs::metadata(path).map(|found| (found.dev(), found.ino())) };
    matches!((id(one), id(other)), (Ok(one), Ok(other)) if one == other)
}

/// The public key that the state file of `chain` is bound to, if that is of this type.
pub fn key_in_state_file(chain: &ChainConfig, key_type: KeyType) -> Option<PublicKey> {
    let (record, _) = watermark::read_unlocked(&chain.watermark()).ok()?;
    let identity = record.header.identity();
    (identity.chain == chain.id && identity.key.key_type() == key_type).then(|| identity.key.clone())
}

#[cfg(test)]
mod tests;

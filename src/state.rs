//! What is done to the state file of a chain: open it for signing, make it, bring a mark in, take one out, raise it.
//!
//! A mark only moves forward here, whoever asks.

use crate::{
    consensus::{ChainId, Hrs},
    migration::{self, Foreign, MigrationError, Program},
    watermark::{self, Damage, FileError, Format, HostId, Identity, Mark, Mode, Record, StateFile, Store, StoreError},
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
    /// Whose it has to be.
    pub identity: Identity,
    /// The machine that it has to be of.
    pub host: HostId,
}

/// What was taken over from another file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    /// What that file was.
    pub source: &'static str,
    /// The mark of the state file from now on.
    pub mark: Mark,
    /// Where the file that stood in its place is kept.
    pub kept: Option<PathBuf>,
}

impl Place {
    /// Opens the state for signing. A tmkms state file in its place is imported, once.
    pub fn open(&self) -> Result<(Store, Option<Imported>), StateError> {
        let file = StateFile::open(&self.path)?;
        let (file, imported) = match file.format()? {
            Format::Highwater => (file, None),
            Format::Unknown => return Err(StateError::Unknown { path: self.path.clone() }),
            Format::Json => {
                let mark = self.tmkms_in_place(&file)?;
                if watermark::was_replaced_before(&file)? {
                    return Err(StateError::ImportedBefore { path: self.path.clone() });
                }
                let imported = self.take_place_of(&file, mark, "tmkms")?;
                drop(file);
                (StateFile::open(&self.path)?, Some(imported))
            }
        };
        let store = Store::open(Box::new(file), &self.identity, self.host).map_err(self.store_error())?;
        Ok((store, imported))
    }

    /// Makes the state file of a chain that has none.
    pub fn create(&self, mark: Mark) -> Result<(), StateError> {
        Ok(watermark::create(&self.path, &self.first_record(mark))?)
    }

    /// Brings in the mark of the file at `from`: tmkms's, CometBFT's, or a Highwater state file of another machine
    /// or one that was retired; also when it stands in our own place.
    pub fn import(&self, from: &Path) -> Result<Imported, StateError> {
        match StateFile::open(&self.path) {
            Err(FileError::Missing { .. }) => {
                let (source, mark) = self.read_source(from)?;
                self.create(mark)?;
                Ok(Imported { source, mark, kept: None })
            }
            Err(error) => Err(error.into()),
            Ok(file) => self.import_over(file, from),
        }
    }

    fn import_over(&self, mut file: StateFile, from: &Path) -> Result<Imported, StateError> {
        let in_place = is_same_file(&self.path, from);
        match file.format()? {
            Format::Unknown => return Err(StateError::Unknown { path: self.path.clone() }),
            Format::Json if in_place => {
                let mark = self.tmkms_in_place(&file)?;
                return self.take_place_of(&file, mark, "tmkms");
            }
            Format::Json => return Err(StateError::ForeignInPlace { path: self.path.clone() }),
            Format::Highwater => {}
        }
        let ours = self.verified(&mut file)?;
        match ours.check(&self.identity, self.host) {
            Ok(()) if in_place => Err(StateError::ActiveSource { path: from.into(), ours: self.path.clone() }),
            Ok(()) => {
                let (source, theirs) = self.read_source(from)?;
                self.must_be_above(&ours, theirs)?;
                let mut store = Store::open(Box::new(file), &self.identity, self.host).map_err(self.store_error())?;
                let mark = store.advance(theirs).map_err(self.store_error())?.spend();
                Ok(Imported { source, mark, kept: None })
            }
            // By itself it cannot say what the other program has signed since.
            Err(error @ StoreError::Retired { .. }) if in_place => Err(self.store_error()(error)),
            Err(StoreError::Retired { .. }) => {
                let (source, theirs) = self.read_source(from)?;
                self.must_be_above(&ours, theirs)?;
                self.take_place_of(&file, theirs, source)
            }
            Err(StoreError::ForeignHost { .. }) => {
                let (source, theirs) = if in_place { ("Highwater", ours.mark) } else { self.read_source(from)? };
                self.take_place_of(&file, Mark::floor(theirs.hrs.max(ours.mark.hrs)), source)
            }
            Err(error) => Err(self.store_error()(error)),
        }
    }

    fn must_be_above(&self, ours: &Record, theirs: Mark) -> Result<(), StateError> {
        if theirs.hrs > ours.mark.hrs {
            return Ok(());
        }
        let retired = ours.mode == Mode::Retired;
        Err(StateError::NotForward { path: self.path.clone(), last: ours.mark.hrs, asked: theirs.hrs, retired })
    }

    /// The mark of a tmkms file that stands in our place.
    fn tmkms_in_place(&self, file: &StateFile) -> Result<Mark, StateError> {
        match self.read_foreign(&file.text()?, &self.path) {
            Ok(foreign) if foreign.program == Program::Tmkms => Ok(foreign.mark),
            // Its node still loads and writes that file.
            Ok(_) | Err(StateError::Migration { error: MigrationError::Unproven { .. }, .. }) => {
                Err(StateError::CometBftInPlace { path: self.path.clone() })
            }
            Err(error) => Err(error),
        }
    }

    /// What the file at `from` brings.
    fn read_source(&self, from: &Path) -> Result<(&'static str, Mark), StateError> {
        // What helps a signer that misses its own state would mislead here.
        let refused = |error| StateError::Migration { path: from.into(), error };
        let (format, text) = watermark::format_of(from).map_err(|error| match error {
            FileError::Missing { .. } => refused(MigrationError::Missing),
            other => other.into(),
        })?;
        match (format, text) {
            (Format::Json, Some(text)) => {
                let foreign = self.read_foreign(&text, from)?;
                Ok((name_of(foreign.program), foreign.mark))
            }
            (Format::Highwater, _) => {
                // Locked, so that it is nobody's working file.
                let theirs = Self { path: from.into(), ..self.clone() };
                let record = theirs.verified(&mut StateFile::open(from)?)?;
                match record.check(&self.identity, self.host) {
                    Err(StoreError::ForeignHost { .. }) => Ok(("Highwater", Mark::floor(record.mark.hrs))),
                    // Two active files for one key on one machine would let two signers run.
                    Ok(()) => Err(StateError::ActiveSource { path: from.into(), ours: self.path.clone() }),
                    Err(error) => Err(theirs.store_error()(error)),
                }
            }
            _ => Err(refused(MigrationError::Unknown)),
        }
    }

    fn read_foreign(&self, text: &str, from: &Path) -> Result<Foreign, StateError> {
        migration::read(text, &self.identity).map_err(|error| StateError::Migration { path: from.into(), error })
    }

    fn verified(&self, file: &mut StateFile) -> Result<Record, StateError> {
        let newest = file.newest().map_err(self.store_error())?;
        newest.map_err(|damage| self.store_error()(StoreError::Damaged(damage)))
    }

    fn take_place_of(&self, file: &StateFile, mark: Mark, source: &'static str) -> Result<Imported, StateError> {
        let kept = watermark::replace(file, &self.first_record(mark))?;
        Ok(Imported { source, mark, kept: Some(kept) })
    }

    fn first_record(&self, mark: Mark) -> Record {
        let identity = self.identity.clone();
        Record { mode: Mode::Active, sequence: 0, host: self.host, identity, mark }
    }

    /// Names the file in an error of its store.
    pub fn store_error(&self) -> impl FnOnce(StoreError) -> StateError + use<> {
        let path = self.path.clone();
        move |error| StateError::Store { path, error }
    }
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

/// The mark of a state file in another program's format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exported {
    /// The other program's state file.
    pub text: String,
    /// Whether the mark had been handed out before: two copies exist, and only one may ever be used.
    pub repeated: bool,
}

/// Writes the mark of `chain`'s file at `path` as `program`'s state file, after our file has been retired, so that
/// this signer refuses it. A retired file is exported again as it was, in case the first copy was lost.
pub fn export(path: &Path, chain: &ChainId, host: HostId, program: Program) -> Result<Exported, StateError> {
    let store = match open_without_key(path, chain, host) {
        Err(StateError::Store { error: StoreError::Retired { mark }, .. }) => {
            return Ok(Exported { text: migration::write(program, &mark), repeated: true });
        }
        other => other?,
    };
    let mark = *store.mark();
    store.retire().map_err(|error| StateError::Store { path: path.into(), error })?;
    Ok(Exported { text: migration::write(program, &mark), repeated: false })
}

/// The newest record of the file at `path`, also while a signer uses it.
pub fn show(path: &Path) -> Result<Record, StateError> {
    let store_error = |error| StateError::Store { path: path.into(), error };
    match watermark::format_of(path)? {
        (Format::Highwater, _) => {}
        (Format::Json, _) => return Err(StateError::ForeignInPlace { path: path.into() }),
        (Format::Unknown, _) => return Err(StateError::Unknown { path: path.into() }),
    }
    let newest: Result<Record, Damage> = watermark::read_unlocked(path).map_err(store_error)?;
    newest.map_err(|damage| StateError::Store { path: path.into(), error: StoreError::Damaged(damage) })
}

/// What [`Place::open`] would take over from the tmkms state file at `path`.
pub fn preview(path: &Path, identity: &Identity) -> Result<Foreign, StateError> {
    let (_, text) = watermark::format_of(path)?;
    let text = text.ok_or(StateError::Unknown { path: path.into() })?;
    match migration::read(&text, identity) {
        Ok(foreign) if foreign.program == Program::Tmkms => Ok(foreign),
        Ok(_) | Err(MigrationError::Unproven { .. }) => Err(StateError::CometBftInPlace { path: path.into() }),
        Err(error) => Err(StateError::Migration { path: path.into(), error }),
    }
}

/// Opens a store for whichever key it is of.
fn open_without_key(path: &Path, chain: &ChainId, host: HostId) -> Result<Store, StateError> {
    let mut file = StateFile::open(path)?;
    let store_error = |error| StateError::Store { path: path.into(), error };
    match file.format()? {
        Format::Highwater => {}
        Format::Json => return Err(StateError::ForeignInPlace { path: path.into() }),
        Format::Unknown => return Err(StateError::Unknown { path: path.into() }),
    }
    let newest = file.newest().map_err(store_error)?;
    let newest =
        newest.map_err(|damage| StateError::Store { path: path.into(), error: StoreError::Damaged(damage) })?;
    let identity = Identity { chain: chain.clone(), ..newest.identity };
    Store::open(Box::new(file), &identity, host).map_err(|error| StateError::Store { path: path.into(), error })
}

fn name_of(program: Program) -> &'static str {
    match program {
        Program::CometBft => "CometBFT",
        Program::Tmkms => "tmkms",
    }
}

fn is_same_file(one: &Path, other: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let id = |path: &Path| -> io::Result<_> { std::fs::metadata(path).map(|found| (found.dev(), found.ino())) };
    matches!((id(one), id(other)), (Ok(one), Ok(other)) if one == other)
}

/// Why a state file cannot be used as asked.
#[derive(Debug)]
pub enum StateError {
    /// The file to import is itself in use on this machine.
    ActiveSource {
        /// That file.
        path: PathBuf,
        /// Our state file.
        ours: PathBuf,
    },
    /// CometBFT's own state file stands where ours should be.
    CometBftInPlace {
        /// Where.
        path: PathBuf,
    },
    /// The file cannot be opened, made or replaced.
    File(FileError),
    /// Another program's state file stands where ours should be.
    ForeignInPlace {
        /// Where.
        path: PathBuf,
    },
    /// A tmkms state file stands where ours was: tmkms has run again since it was taken over.
    ImportedBefore {
        /// Where.
        path: PathBuf,
    },
    /// Another program's state file cannot be taken over.
    Migration {
        /// Where it is.
        path: PathBuf,
        /// Why not.
        error: MigrationError,
    },
    /// The mark would not move forward.
    NotForward {
        /// Where the state file is.
        path: PathBuf,
        /// Its mark.
        last: Hrs,
        /// The mark that was asked for.
        asked: Hrs,
        /// Whether the state file is retired.
        retired: bool,
    },
    /// The file was opened, but cannot be used.
    Store {
        /// Where it is.
        path: PathBuf,
        /// Why not.
        error: StoreError,
    },
    /// The file is nobody's state file.
    Unknown {
        /// Where it is.
        path: PathBuf,
    },
}

impl From<FileError> for StateError {
    fn from(error: FileError) -> Self {
        Self::File(error)
    }
}

impl fmt::Display for StateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ActiveSource { path, ours } => write!(
                f,
                "{} is a working state file of this machine: {} needs no import. Nothing was changed",
                path.display(),
                match path == ours {
                    true => "it".to_owned(),
                    false => format!("to use it, name it as `state_file` or move it to {}; it", ours.display()),
                }
            ),
            Self::CometBftInPlace { path } => write!(
                f,
                "{} is CometBFT's own state file, which its node still writes. Name another `state_file`, then run \
                 `highwater state import {}`",
                path.display(),
                path.display()
            ),
            Self::File(error) => write!(f, "{error}"),
            Self::ForeignInPlace { path } => write!(
                f,
                "{} is another program's state file. If it is tmkms's and tmkms is stopped for good, `highwater state \
                 import {}` takes it over",
                path.display(),
                path.display()
            ),
            Self::ImportedBefore { path } => write!(
                f,
                "{} is a tmkms state file again, although tmkms's state was taken over before: tmkms has run since, and \
                 our mark went with the file that it replaced. Stop tmkms for good, wait until the chain has committed \
                 two more heights, move the file away, then run `highwater state init --height H` with the last of them",
                path.display()
            ),
            Self::Migration { path, error } => write!(f, "cannot import {}: {error}", path.display()),
            Self::NotForward { path, last, asked, retired: false } => write!(
                f,
                "state file {} is at {last} and only moves forward: {asked} is not above it. Nothing was changed",
                path.display()
            ),
            Self::NotForward { path, last, asked, retired: true } => write!(
                f,
                "state file {} was retired at {last}, and {asked} does not show what the other program has signed \
                 since. If it never ran: wait until the chain has committed two more heights, move the file away, then \
                 run `highwater state init --height H` with the last of them",
                path.display()
            ),
            Self::Store { path, error } => write!(f, "state file {} {error}", path.display()),
            Self::Unknown { path } => write!(
                f,
                "{} is damaged or no state file at all: wait until the chain has committed two more heights, move the \
                 file away, then run `highwater state init --height H` with the last of them",
                path.display()
            ),
        }
    }
}

impl std::error::Error for StateError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::File(error) => Some(error),
            Self::Migration { error, .. } => Some(error),
            Self::Store { error, .. } => Some(error),
            _ => None,
        }
    }
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;

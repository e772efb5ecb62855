//! The file that tmkms.toml names. It belongs to tmkms: we never sign by it. After an import a tombstone is in its place, in
//! tmkms's own format at the highest possible height, so that a tmkms started by mistake signs nothing.

use super::StateError;
use crate::state::foreign::{self, Foreign, MigrationError, Program};
use highwater_core::{
    consensus::{HEIGHT_MAX, Hrs},
    disk::{create_private, keep_beside, sync_parent, with_suffix},
    watermark::{FileError, Identity, Mark},
};
use serde_json::{Value, json};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{MetadataExt as _, fchown},
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// The suffix for a foreign file that is kept.
const KEPT: &str = ".imported";
/// The note of where a mark came from, beside our state file.
const SOURCE: &str = ".source";
/// A CometBFT state file holds one message in hex; this is far larger.
const TEXT_MAX_BYTES: u64 = 64 * 1024;

/// The file that tmkms.toml names.
#[derive(Clone, Debug)]
pub struct Theirs(PathBuf);

/// What is in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// No file.
    Nothing,
    /// The state of a program that has signed.
    State(Foreign),
    /// Our tombstone.
    Tombstone,
    /// A file that is not a state, or says that nothing was ever signed.
    Unreadable(MigrationError),
}

impl Theirs {
    /// The file at `path`.
    pub fn new(path: &Path) -> Self {
        Self(path.into())
    }

    /// The path of the file.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Looks at what is there.
    pub fn look(&self, identity: &Identity) -> Standing {
        match read(&self.0, identity) {
            Ok(foreign) => Standing::State(foreign),
            Err(StateError::Migration { error: MigrationError::Missing, .. }) => Standing::Nothing,
            Err(StateError::Migration { error: MigrationError::Tombstone, .. }) => Standing::Tombstone,
            Err(StateError::Migration { error, .. }) => Standing::Unreadable(error),
            Err(error) => Standing::Unreadable(MigrationError::NotJson(error.to_string())),
        }
    }

    /// A bug that this design rules out: a start that takes whatever is here for its own state.
    #[cfg(highwater_broken)]
    pub(super) fn imported_by_start(&self, ours: &Path) {
        use highwater_core::watermark::{StateFile, Store, read_unlocked};
        let Ok((record, _)) = read_unlocked(ours) else { return };
        let identity = record.header.identity().clone();
        if let Standing::State(foreign) = self.look(&identity) {
            let old = StateFile::open(ours).expect("no other process uses it");
            let host = record.header.host();
            highwater_core::watermark::replace(&old, host, &identity, foreign.mark).expect("a disk that works");
            drop(old);
            let file = StateFile::open(ours).expect("just made");
            Store::open(Box::new(file), &identity, host).expect("just made");
        }
    }

    /// The error for a missing state file of ours, with what to do.
    pub fn explain_missing(&self, error: FileError) -> StateError {
        let FileError::Missing { path: ours } = error else { return error.into() };
        let theirs = self.0.clone();
        match text_of(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                StateError::File(FileError::NotAFile { path: theirs })
            }
            Err(_) => StateError::File(FileError::Missing { path: ours }),
            Ok(text) if foreign::is_tombstone(&text) => StateError::Lost { ours, theirs },
            Ok(_) => StateError::NotImported { ours, theirs },
        }
    }

    /// Puts the tombstone here. Keeps the previous file, which must be the one in `standing`, beside it; returns where.
    pub(super) fn bury(&self, standing: &Standing, identity: &Identity) -> Result<Option<PathBuf>, StateError> {
        let tombstone = foreign::write(Program::Tmkms, &Mark::floor(Hrs::end_of(HEIGHT_MAX)));
        match standing {
            Standing::Tombstone => Ok(None),
            Standing::Nothing => self.put(&tombstone).map(|()| None),
            // CometBFT's node would not start with a file of tmkms.
            Standing::State(Foreign { program: Program::CometBft, .. })
            | Standing::Unreadable(MigrationError::Unproven { .. }) => Ok(None),
            Standing::State(_) | Standing::Unreadable(_) => {
                let path = fs::canonicalize(&self.0).map_err(self.io("resolve"))?;
                let kept = keep_beside(&path, KEPT).map_err(self.io("keep a copy of"))?;
                sync_parent(&path).map_err(self.io("flush the directory of"))?;
                // tmkms takes no locks, and renames a new file over its old one.
                let same = |at: &Path| Self::new(at).look(identity) == *standing;
                if !(same(&kept) && same(&path)) {
                    return Err(StateError::TheirsAtWork { path: self.0.clone() });
                }
                self.put(&tombstone)?;
                Ok(Some(kept))
            }
        }
    }

    /// Writes the mark that tmkms continues from over the tombstone, or where there is no file.
    pub fn give_back(&self, mark: &Mark, identity: &Identity) -> Result<(), StateError> {
        let text = foreign::write(Program::Tmkms, mark);
        match self.look(identity) {
            Standing::Nothing | Standing::Tombstone => self.put(&text),
            // The same export again.
            Standing::State(foreign) if foreign.mark == Mark::floor(mark.hrs) => self.put(&text),
            _ => Err(StateError::TheirsInPlace { path: self.0.clone() }),
        }
    }

    /// Puts `text` here, whole and on the disk, with the owner of the previous file.
    fn put(&self, text: &str) -> Result<(), StateError> {
        let path = match fs::canonicalize(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.0.clone(),
            found => found.map_err(self.io("resolve"))?,
        };
        let new = with_suffix(&path, ".new");
        let _ = fs::remove_file(&new);
        let written = create_private(&new).and_then(|mut file| {
            if let Ok(old) = fs::metadata(&path) {
                // Only root can change the owner; every other user owns the file already.
                let _ = fchown(&file, Some(old.uid()), Some(old.gid()));
            }
            file.write_all(text.as_bytes())?;
            file.sync_all()
        });
        let placed = written.and_then(|()| match fs::rename(&new, &path) {
            // A file that is a mount point can only be written over. Half of it is not JSON, and tmkms does not start.
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                fs::remove_file(&new)?;
                let mut file = OpenOptions::new().write(true).truncate(true).open(&path)?;
                file.write_all(text.as_bytes())?;
                file.sync_all()
            }
            other => other,
        });
        placed.and_then(|()| sync_parent(&path)).map_err(self.io("write"))
    }

    fn io(&self, action: &'static str) -> impl FnOnce(io::Error) -> StateError {
        let path = self.0.clone();
        move |error| StateError::Theirs { path, action, error }
    }

    /// Notes where the mark of `ours` came from, so that a program that goes on writing there is noticed.
    pub(super) fn note_source(&self, from: &Path, mark: Mark, ours: &Path) -> Result<(), StateError> {
        let note = with_suffix(ours, SOURCE);
        let Hrs { height, round, step } = mark.hrs;
        let text = json!({
            "file": std::path::absolute(from).unwrap_or_else(|_| from.into()),
            "height": height, "round": round, "step": step.number(),
        });
        let _ = fs::remove_file(&note);
        let written = create_private(&note).and_then(|mut file| {
            file.write_all(text.to_string().as_bytes())?;
            file.sync_all()
        });
        let written = written.and_then(|()| sync_parent(&note));
        written.map_err(|error| StateError::Theirs { path: note, action: "write", error })
    }

    /// Other programs that have written their state since it was imported into ours, which is at `ours` and `mark`. At or
    /// below our mark that is no reason to stop: nobody here can take back what they sign, and our mark keeps this signer
    /// from signing it again. Above our mark, it does not cover what they have signed.
    pub fn still_written(&self, identity: &Identity, ours: &Path, mark: &Mark) -> Vec<Rival> {
        let mut found = Vec::new();
        match self.look(identity) {
            Standing::State(foreign) if foreign.mark.hrs > mark.hrs => found.push(Rival::Above(StateError::BehindTheirs {
                path: self.0.clone(),
                program: foreign.program,
                theirs: foreign.mark.hrs,
                ours: mark.hrs,
            })),
            Standing::State(foreign) => found.push(Rival::Below(format!(
                "{} has written its state {} again, at {} (this signer is at {}): it may be running with the same key, and \
                 two programs with one key sign twice. Stop {0} for good. Then move that file away, and run `highwater \
                 state import`, which puts a tombstone in its place",
                foreign.program,
                self.0.display(),
                foreign.mark.hrs,
                mark.hrs,
            ))),
            Standing::Nothing | Standing::Unreadable(MigrationError::NeverSigned) => found.push(Rival::Below(format!(
                "there is no tombstone at {}: a tmkms started by mistake would begin at height 0 and sign twice. Stop the \
                 signer and run `highwater state import`, which puts one there",
                self.0.display()
            ))),
            Standing::Tombstone | Standing::Unreadable(_) => {}
        }
        if let Some((from, taken)) = source_of(ours)
            && let Ok(foreign) = read(&from, identity)
            && foreign.mark.hrs > taken
        {
            found.push(if foreign.mark.hrs > mark.hrs {
                let (program, theirs) = (foreign.program, foreign.mark.hrs);
                Rival::Above(StateError::BehindTheirs { path: from, program, theirs, ours: mark.hrs })
            } else {
                Rival::Below(format!(
                    "{} has gone on writing its state {} since it was imported: it was at {taken} and is at {} (this signer \
                     is at {}). Stop that program for good: two programs with one key sign twice",
                    foreign.program,
                    from.display(),
                    foreign.mark.hrs,
                    mark.hrs,
                ))
            });
        }
        found
    }
}

/// Another program that goes on writing its state.
#[derive(Debug)]
pub enum Rival {
    /// Above our mark: the chain stays closed until that state is imported.
    Above(StateError),
    /// Not above our mark: a warning.
    Below(String),
}

/// The file that the mark of the state file at `ours` came from, and that mark.
fn source_of(ours: &Path) -> Option<(PathBuf, Hrs)> {
    let note: Value = serde_json::from_str(&text_of(&with_suffix(ours, SOURCE)).ok()?).ok()?;
    let step = highwater_core::consensus::Step::from_number(note["step"].as_u64()?)?;
    let hrs = Hrs { height: note["height"].as_u64()?, round: note["round"].as_u64()?.try_into().ok()?, step };
    Some((note["file"].as_str()?.into(), hrs))
}

/// Reads the state of another program.
pub(super) fn read(path: &Path, identity: &Identity) -> Result<Foreign, StateError> {
    let refused = |error| StateError::Migration { path: path.into(), error };
    let text = text_of(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => refused(MigrationError::Missing),
        io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => refused(MigrationError::NotJson(error.to_string())),
        _ => StateError::Theirs { path: path.into(), action: "read", error },
    })?;
    foreign::read(&text, identity).map_err(refused)
}

/// Whether a file was last written before this machine booted. If that is unknown, it counts as older: a machine that went
/// down may have lost what a program had written without a flush.
pub(super) fn is_older_than_boot(path: &Path) -> bool {
    let written = fs::metadata(path).and_then(|found| found.modified());
    match (written, boot_time()) {
        (Ok(written), Some(boot)) => written < boot,
        _ => true,
    }
}

/// proc_stat(5): `btime`, in seconds since 1970.
fn boot_time() -> Option<SystemTime> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let seconds = stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    Some(UNIX_EPOCH + Duration::from_secs(seconds))
}

fn text_of(path: &Path) -> io::Result<String> {
    let invalid = |kind, text| Err(io::Error::new(kind, text));
    // A pipe would wait for its writer.
    if !fs::metadata(path)?.is_file() {
        return invalid(io::ErrorKind::InvalidInput, "it is not a regular file");
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(TEXT_MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > TEXT_MAX_BYTES {
        return invalid(io::ErrorKind::InvalidData, "it is too long for a state file");
    }
    String::from_utf8(bytes).or_else(|_| invalid(io::ErrorKind::InvalidData, "it is not text"))
}

//! Why a state file cannot be used as asked, and what to do.

use crate::state::foreign::{MigrationError, Program};
use highwater_core::{
    consensus::Hrs,
    watermark::{FileError, StoreError},
};
use std::{fmt, io, path::PathBuf};

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
    /// Another program signed above our mark after its state was imported.
    BehindTheirs {
        /// Its file.
        path: PathBuf,
        /// Which program.
        program: Program,
        /// Its mark.
        theirs: Hrs,
        /// Ours.
        ours: Hrs,
    },
    /// Our own audit file lists a signature above the mark.
    BelowAudit {
        /// Where the state file is.
        path: PathBuf,
        /// Its mark.
        last: Hrs,
        /// The audit file.
        audit: PathBuf,
        /// The highest signature in it.
        signed: Hrs,
    },
    /// The file of tmkms is above the mark that was asked for.
    BelowTheirs {
        /// That file.
        path: PathBuf,
        /// Its mark.
        theirs: Hrs,
        /// The mark that was asked for.
        asked: Hrs,
    },
    /// CometBFT's own state file is where tmkms's should be.
    CometBftInPlace {
        /// Where.
        path: PathBuf,
    },
    /// The file is a copy, and nobody has confirmed that it is the latest.
    CopyUnchecked {
        /// That file.
        path: PathBuf,
        /// Its mark.
        mark: Hrs,
    },
    /// The file cannot be opened, made or replaced.
    File(FileError),
    /// Our file is gone, but its tombstone is still there.
    Lost {
        /// Where our file was.
        ours: PathBuf,
        /// The tombstone.
        theirs: PathBuf,
    },
    /// Another program's state file cannot be imported.
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
    /// There is no state file of ours, and the one of another program was not imported.
    NotImported {
        /// Where our file would be.
        ours: PathBuf,
        /// The other program's.
        theirs: PathBuf,
    },
    /// A foreign file was last written before this machine booted.
    OlderThanBoot {
        /// That file.
        path: PathBuf,
        /// Whose it is.
        program: Program,
        /// Its mark.
        mark: Hrs,
    },
    /// The file was opened, but cannot be used.
    Store {
        /// Where it is.
        path: PathBuf,
        /// Why not.
        error: StoreError,
    },
    /// The file system failed on a file of another program.
    Theirs {
        /// Where.
        path: PathBuf,
        /// The operation that failed.
        action: &'static str,
        /// The error of the file system.
        error: io::Error,
    },
    /// Another program wrote its state while it was imported.
    TheirsAtWork {
        /// That file.
        path: PathBuf,
    },
    /// The state of another program is where an export should go.
    TheirsInPlace {
        /// Where.
        path: PathBuf,
    },
}

impl From<FileError> for StateError {
    fn from(error: FileError) -> Self {
        Self::File(error)
    }
}

/// How an operator gets a mark that is safe, whatever was signed before.
const BEGIN_ANEW: &str = "wait until the chain has committed two more heights, then run `highwater state init --height H` \
                          with the last of them";

impl fmt::Display for StateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ActiveSource { path, ours } if path == ours => write!(
                f,
                "{} is an active state file of this machine: it needs no import. Nothing was changed",
                path.display()
            ),
            Self::ActiveSource { path, ours } => write!(
                f,
                "{} is an active state file of this machine, and there may be only one for a key. To use it, name it as \
                 `state_file` (without `.highwater`), or rename it to {}: a renamed file is accepted, a copy is not. \
                 Nothing was changed",
                path.display(),
                ours.display()
            ),
            Self::BehindTheirs { path, program, theirs, ours } => write!(
                f,
                "{program} has signed at {theirs} ({}), above the mark of this signer, {ours}: it went on after its state was \
                 imported, and starting from here would sign twice. Stop {program} for good, then run `highwater state \
                 import {}`",
                path.display(),
                path.display()
            ),
            // The last lines may be missing: they are written after the signatures have left.
            Self::BelowAudit { path, last, audit, signed } => write!(
                f,
                "state file {} is at {last}, but the audit file {} lists a signature at {signed}: an older state was put \
                 back. Wait until the chain has committed two more heights, then run `highwater state raise --height H` with \
                 the last of them, at least {}. If the audit file is of an earlier chain with the same id or of an earlier \
                 key, move it and its older parts (.1, .2 …) away",
                path.display(),
                audit.display(),
                signed.height
            ),
            Self::BelowTheirs { path, theirs, asked } => write!(
                f,
                "{} shows that this key has signed at {theirs}, and {asked} is below that. Run `highwater state import` to \
                 continue from that file, or `highwater state init --height H` with a height above it. Nothing was changed",
                path.display()
            ),
            Self::CometBftInPlace { path } => write!(
                f,
                "{} is CometBFT's own state file, which its node still reads. Name another `state_file`, then run \
                 `highwater state import {}`",
                path.display(),
                path.display()
            ),
            Self::CopyUnchecked { path, mark } => write!(
                f,
                "{} is a copy of a state file, made at {mark}: the original, or another copy, may have signed more. Compare \
                 the height with the last one that the chain shows as signed by this validator. If the copy is not behind, \
                 add --i-checked-the-height; otherwise move it away, {BEGIN_ANEW}. Nothing was changed",
                path.display()
            ),
            Self::File(error) => write!(f, "{error}"),
            Self::Lost { ours, theirs } => write!(
                f,
                "there is no state file {}, but {} shows that there was one: it was moved or removed. Put it back. If it is \
                 lost, {BEGIN_ANEW}",
                ours.display(),
                theirs.display()
            ),
            Self::Migration { path, error } => write!(f, "cannot import {}: {error}", path.display()),
            Self::NotForward { path, last, asked, retired: false } => write!(
                f,
                "state file {} is at {last} and only moves forward: {asked} is not above it. Nothing was changed, and nothing \
                 needs to be: at or below {last} nothing new is signed",
                path.display()
            ),
            Self::NotForward { path, last, asked, retired: true } => write!(
                f,
                "state file {} was retired at {last}, and {asked} does not show what the other program has signed \
                 since. If that program never ran, move the file away, {BEGIN_ANEW}",
                path.display()
            ),
            Self::NotImported { ours, theirs } => write!(
                f,
                "there is no state file {}, and {} belongs to another program: `start` never takes it over. If that program \
                 is stopped for good, run `highwater state import`",
                ours.display(),
                theirs.display()
            ),
            Self::OlderThanBoot { path, program, mark } => write!(
                f,
                "{} is at {mark} and was last written before this machine booted: what {program} wrote last may \
                 never have reached the disk. Compare the height with the last one that the chain shows as signed by this \
                 validator. If the file is not behind, add --i-checked-the-height; otherwise {BEGIN_ANEW}. Nothing was \
                 changed",
                path.display()
            ),
            Self::Store { path, error } => write!(f, "state file {} {error}", path.display()),
            Self::Theirs { path, action, error } => {
                write!(f, "cannot {action} {}: {error}", path.display())?;
                match error.kind() {
                    io::ErrorKind::PermissionDenied => f.write_str(
                        ". Run this as the user that runs highwater, and make that user the owner of the file and its directory",
                    ),
                    io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                        f.write_str(". Free space on its disk, then run this again")
                    }
                    io::ErrorKind::ReadOnlyFilesystem => f.write_str(". Mount its disk read-write, then run this again"),
                    _ => Ok(()),
                }
            }
            Self::TheirsAtWork { path } => write!(
                f,
                "{} was written while it was imported: its program is running. Stop it for good, then run this again",
                path.display()
            ),
            Self::TheirsInPlace { path } => write!(
                f,
                "the mark is retired, but {} is not the tombstone that Highwater leaves there, so it is not overwritten: did \
                 another program write it? Move it away, then run this again, or name another file with --output",
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
            Self::Theirs { error, .. } => Some(error),
            _ => None,
        }
    }
}

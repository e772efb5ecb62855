//! The state file on a real disk: lock, permissions, creation, replacement.

use super::{
    header::{BLOCK_BYTES, FileId, Header, Identity},
    host::HostId,
    mark::Mark,
    record::{Mode, RECORD_BYTES, Record},
    store::{Disk, FILE_BYTES, Slot, StoreError, image, newest},
};
use crate::disk::{create_private, sync_parent, with_suffix};
use rustix::fs::{AtFlags, CWD, Statx, StatxFlags, statx};
use std::{
    fmt,
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Write as _},
    os::unix::fs::{FileExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

/// A state file, open and locked for as long as this lives.
///
/// The lock is `flock`: it belongs to the open file and is released when the process ends, in whatever way.
pub struct StateFile {
    file: File,
    /// As in the configuration, for messages.
    path: PathBuf,
    /// The same path with all links resolved once: changing a link does not move the file of a running signer.
    resolved: PathBuf,
    place: OpenFile,
    /// Whether the end of the file is missing, and with it the second slot.
    short: bool,
}

/// Identifies a file among those that exist now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct OpenFile {
    device: (u32, u32),
    inode: u64,
}

impl OpenFile {
    fn of(found: &Statx) -> Self {
        Self { device: (found.stx_dev_major, found.stx_dev_minor), inode: found.stx_ino }
    }

    /// Asks for the inode number only: once the times of a file were read, Linux gives the next write a fresh
    /// timestamp, which costs that write another trip to the disk.
    fn at(path: &Path) -> io::Result<Self> {
        Ok(Self::of(&statx(CWD, path, AtFlags::empty(), StatxFlags::INO)?))
    }
}

impl StateFile {
    /// Opens and locks the file at `path` without looking at its content.
    pub fn open(path: &Path) -> Result<Self, FileError> {
        let at = |action| FileError::io(path, action);
        let file = OpenOptions::new().read(true).write(true).open(path).map_err(|error| unopened(path, error))?;
        let metadata = file.metadata().map_err(at("look at"))?;
        if !metadata.is_file() {
            return Err(FileError::NotAFile { path: path.into() });
        }
        if metadata.mode() & 0o022 != 0 {
            return Err(FileError::Writable { path: path.into(), mode: metadata.mode() & 0o777 });
        }
        lock(&file, path)?;
        let resolved = fs::canonicalize(path).map_err(at("resolve"))?;
        let place = OpenFile::of(&look(&file, StatxFlags::INO).map_err(at("look at"))?);
        let state_file = Self { file, path: path.into(), resolved, place, short: false };
        match state_file.names_us() {
            Ok(true) => Ok(state_file),
            // Replaced between our open and our lock, by a process that held the lock until then.
            Ok(false) => Err(FileError::Locked { path: state_file.path }),
            Err(error) => Err(FileError::io(&state_file.path, "look at")(error)),
        }
    }

    /// The path of the file, as given to [`StateFile::open`].
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The newest record. Fails if the file does not verify.
    pub fn newest(&mut self) -> Result<Record, StoreError> {
        newest(self)
    }

    fn names_us(&self) -> io::Result<bool> {
        match OpenFile::at(&self.resolved) {
            Ok(place) => Ok(place == self.place),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl Disk for StateFile {
    fn id(&mut self) -> io::Result<FileId> {
        id_of(&self.file)
    }

    fn settle(&mut self) -> io::Result<()> {
        self.file.sync_all()?;
        sync_parent(&self.resolved)
    }

    fn read_header(&mut self, header: &mut [u8; BLOCK_BYTES]) -> io::Result<()> {
        let length = self.file.metadata()?.len();
        if length > FILE_BYTES as u64 {
            let text = format!("it has {length} bytes, a state file has {FILE_BYTES}");
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        self.short = length < FILE_BYTES as u64;
        read_or_blank(&self.file, header, 0)
    }

    fn read(&mut self, slot: Slot, record: &mut [u8; RECORD_BYTES]) -> io::Result<()> {
        if self.short && slot == Slot::Second {
            record.fill(0);
            return Ok(());
        }
        read_or_blank(&self.file, record, slot.offset() as u64)
    }

    fn write(&mut self, slot: Slot, record: &[u8; RECORD_BYTES]) -> io::Result<()> {
        self.file.write_all_at(record, slot.offset() as u64)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn still_named(&mut self) -> io::Result<bool> {
        self.names_us()
    }
}

/// Creates a state file with `mark` at `path`. Never touches an existing file.
pub fn create(path: &Path, host: HostId, identity: &Identity, mark: Mark) -> Result<(), FileError> {
    let at = |action| FileError::io(path, action);
    let mut file = create_private(path).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => FileError::Exists { path: path.into() },
        _ => at("create")(error),
    })?;
    let written = id_of(&file).and_then(|id| {
        let header = Header::new(host, identity.clone(), id);
        file.write_all(&image(&Record { mode: Mode::Active, sequence: 0, header, mark }))?;
        file.sync_all()?;
        sync_parent(path)
    });
    written.map_err(|error| {
        // Half a state file would look like a damaged one.
        let _ = fs::remove_file(path);
        at("write")(error)
    })
}

/// Replaces `old` with a new state file with `mark`. The old file is kept as `FILE.replaced`; returns its new path.
///
/// The new file is durable before the single rename that makes it visible, so a crash leaves the old or the new one.
pub fn replace(old: &StateFile, host: HostId, identity: &Identity, mark: Mark) -> Result<PathBuf, FileError> {
    let path = &old.resolved;
    let at = |action| FileError::io(path, action);
    let new = with_suffix(path, ".new");
    // Left over from a crash between here and the rename; nothing ever reads it.
    if let Err(error) = fs::remove_file(&new)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(FileError::io(&new, "remove")(error));
    }
    create(&new, host, identity, mark)?;
    let kept = crate::disk::keep_beside(path, ".replaced").map_err(at("keep a copy of"))?;
    sync_parent(path).map_err(at("flush the directory of"))?;
    if !old.names_us().map_err(at("look at"))? {
        let _ = fs::remove_file(&new);
        return Err(FileError::Locked { path: path.clone() });
    }
    fs::rename(&new, path).map_err(at("replace"))?;
    sync_parent(path).map_err(at("flush the directory of"))?;
    Ok(kept)
}

/// Reads the newest record at `path`, and the id of its file, without taking the lock. A signer that writes at the same
/// time can tear a read, so a file that looks damaged is read again.
pub fn read_unlocked(path: &Path) -> Result<(Record, FileId), StateReadError> {
    const TRIES: usize = 5;
    let file = open_to_look(path).map_err(|error| StateReadError::File(unopened(path, error)))?;
    let place = OpenFile { device: (0, 0), inode: 0 };
    let mut reader = StateFile { file, path: path.into(), resolved: path.into(), place, short: false };
    let id = reader.id().map_err(|error| StateReadError::File(FileError::io(path, "look at")(error)))?;
    for _ in 1..TRIES {
        match reader.newest() {
            Err(StoreError::Damaged(_)) => thread::sleep(Duration::from_millis(20)),
            other => return other.map(|record| (record, id)).map_err(StateReadError::Store),
        }
    }
    reader.newest().map(|record| (record, id)).map_err(StateReadError::Store)
}

/// Why a state file cannot be read.
#[derive(Debug)]
pub enum StateReadError {
    /// It cannot be opened.
    File(FileError),
    /// It was opened, but cannot be used.
    Store(StoreError),
}

/// Whether `path` is a state file of Highwater, in any format and even if damaged.
pub fn is_state_file(path: &Path) -> Result<bool, FileError> {
    let file = open_to_look(path).map_err(|error| unopened(path, error))?;
    let mut start = [0; super::bytes::MAGIC_BYTES];
    let read = file.read_at(&mut start, 0).map_err(FileError::io(path, "read"))?;
    let length = file.metadata().map_err(FileError::io(path, "look at"))?.len();
    Ok(length == FILE_BYTES as u64 || start[..read] == super::header::MAGIC)
}

/// The id of an open file, which does not depend on its names.
fn id_of(file: &File) -> io::Result<FileId> {
    let found = look(file, StatxFlags::INO | StatxFlags::BTIME)?;
    let birth =
        (found.stx_mask & StatxFlags::BTIME.bits() != 0).then_some((found.stx_btime.tv_sec, found.stx_btime.tv_nsec));
    Ok(FileId { inode: found.stx_ino, birth })
}

fn look(file: &File, what: StatxFlags) -> io::Result<Statx> {
    Ok(statx(file, c"", AtFlags::EMPTY_PATH, what)?)
}

/// Fills `bytes` from `offset`. Past the end of the file, it fills in zeros.
fn read_or_blank(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<()> {
    let mut filled = 0;
    while filled < bytes.len() {
        match file.read_at(&mut bytes[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(more) => filled += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes[filled..].fill(0);
    Ok(())
}

/// Opens a file for reading. Refuses one that is not regular before it opens it: opening a pipe would wait for a
/// writer.
fn open_to_look(path: &Path) -> io::Result<File> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
    }
    File::open(path)
}

fn unopened(path: &Path, error: io::Error) -> FileError {
    match error.kind() {
        io::ErrorKind::NotFound if path.is_symlink() => FileError::DeadLink { path: path.into() },
        io::ErrorKind::NotFound => FileError::Missing { path: path.into() },
        io::ErrorKind::InvalidInput if !path.is_file() => FileError::NotAFile { path: path.into() },
        _ => FileError::io(path, "open")(error),
    }
}

/// Takes the lock. A process that was just killed, or a child of ours between fork and exec, may still hold it, so this
/// tries again for a short while.
fn lock(file: &File, path: &Path) -> Result<(), FileError> {
    broken!("no_lock" => return Ok(()));
    const TRIES: u32 = 10;
    const PAUSE: Duration = Duration::from_millis(20);
    for _ in 1..TRIES {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => thread::sleep(PAUSE),
            Ok(()) => return Ok(()),
            Err(TryLockError::Error(error)) => return Err(FileError::io(path, "lock")(error)),
        }
    }
    Err(FileError::Locked { path: path.into() })
}

/// Why a state file cannot be opened, created or replaced.
#[derive(Debug)]
pub enum FileError {
    /// The path is a link whose target does not exist.
    DeadLink {
        /// Path of the link.
        path: PathBuf,
    },
    /// A file to be created exists already.
    Exists {
        /// Path of the existing file.
        path: PathBuf,
    },
    /// The operating system reported an error.
    Io {
        /// Path of the state file.
        path: PathBuf,
        /// The action that failed, as in "cannot {action} state file".
        action: &'static str,
        /// The system's error.
        error: io::Error,
    },
    /// Another process uses the file.
    Locked {
        /// Path of the state file.
        path: PathBuf,
    },
    /// There is no file at the path.
    Missing {
        /// The path that was tried.
        path: PathBuf,
    },
    /// The path is a directory, socket or device.
    NotAFile {
        /// The path that was tried.
        path: PathBuf,
    },
    /// The file's group or other users can write to it.
    Writable {
        /// Path of the state file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
}

impl FileError {
    fn io(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |error| Self::Io { path, action, error }
    }
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DeadLink { path } => {
                write!(f, "state file {} is a link that leads nowhere: is its disk mounted?", path.display())
            }
            Self::Exists { path } => write!(
                f,
                "state file {} exists and is never overwritten; raise its mark with `highwater state raise`",
                path.display()
            ),
            Self::Io { path, action, error } => {
                write!(f, "cannot {action} state file {}: {error}", path.display())?;
                match (*action, error.kind()) {
                    ("create", io::ErrorKind::NotFound) => f.write_str(". Make its directory, or correct `state_file`"),
                    (_, io::ErrorKind::PermissionDenied) => {
                        f.write_str(". Run this as the user that runs highwater, and make that user the owner of it")
                    }
                    _ => Ok(()),
                }
            }
            Self::Locked { path } => write!(
                f,
                "state file {} is in use by another process: a second signer on one state would sign twice. Stop it \
                 first (`fuser {}` names it)",
                path.display(),
                path.display()
            ),
            Self::Missing { path } => write!(
                f,
                "there is no state file {}. `start` never makes one, because an empty watermark forgets what was \
                 signed: run `highwater state init --never-signed` for a new key, `highwater state init --height H` or \
                 `highwater state import FILE` for one that has signed",
                path.display()
            ),
            Self::NotAFile { path } => {
                write!(f, "state file {} is not a regular file: correct `state_file`", path.display())
            }
            Self::Writable { path, mode } => write!(
                f,
                "state file {} can be written by other users (mode {mode:04o}): run `chmod 600 {}`",
                path.display(),
                path.display()
            ),
        }
    }
}

impl std::error::Error for FileError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { error, .. } => Some(error),
            _ => None,
        }
    }
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;

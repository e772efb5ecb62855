//! The state file on a real disk: lock, permissions, creation, replacement.

use super::{
    record::{MAGIC, RECORD_BYTES, Record},
    store::{Damage, Disk, FILE_BYTES, Slot, Slots, StoreError, image},
};
use crate::disk::{create_private, sync_parent};
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
/// The lock is `flock`: it belongs to the open file and goes with the process, however that ends.
pub struct StateFile {
    file: File,
    path: PathBuf,
    device: u64,
    inode: u64,
}

/// What a file in the place of a state file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A Highwater state file.
    Highwater,
    /// JSON: tmkms or CometBFT.
    Json,
    /// Neither.
    Unknown,
}

impl StateFile {
    /// Opens and locks the file at `path`, whatever it holds.
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
        let path = std::path::absolute(path).map_err(at("resolve"))?;
        let state_file = Self { file, path, device: metadata.dev(), inode: metadata.ino() };
        match state_file.names_us() {
            Ok(true) => Ok(state_file),
            // Replaced between our open and our lock, by a process that held the lock until then.
            Ok(false) => Err(FileError::Locked { path: state_file.path }),
            Err(error) => Err(FileError::io(&state_file.path, "look at")(error)),
        }
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the file holds.
    pub fn format(&self) -> Result<Format, FileError> {
        format(&self.file).map_err(FileError::io(&self.path, "read"))
    }

    /// The whole content, for a file that is not ours in format.
    pub fn text(&self) -> Result<String, FileError> {
        read_text(&self.file).map_err(FileError::io(&self.path, "read"))
    }

    /// The newest record, if the file verifies.
    pub fn newest(&mut self) -> Result<Result<Record, Damage>, StoreError> {
        Ok(Slots::read(self)?.newest())
    }

    fn names_us(&self) -> io::Result<bool> {
        self.is_at(&self.path)
    }

    /// Whether `path` leads to this very file.
    fn is_at(&self, path: &Path) -> io::Result<bool> {
        match fs::metadata(path) {
            Ok(metadata) => Ok(metadata.dev() == self.device && metadata.ino() == self.inode),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl Disk for StateFile {
    fn settle(&mut self) -> io::Result<()> {
        self.file.sync_all()?;
        sync_parent(&self.path)
    }

    fn read(&mut self, slot: Slot, record: &mut [u8; RECORD_BYTES]) -> io::Result<()> {
        let length = self.file.metadata()?.len();
        if length > FILE_BYTES as u64 {
            let text = format!("it has {length} bytes, a state file has {FILE_BYTES}");
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        // A shortened file has lost its tail: the slot reads as blank, and the damage is named slot by slot.
        let needed = match slot {
            Slot::First => RECORD_BYTES,
            Slot::Second => FILE_BYTES,
        };
        if length < needed as u64 {
            record.fill(0);
            return Ok(());
        }
        self.file.read_exact_at(record, slot.offset() as u64)
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

/// Creates the state file at `path` with `record`. Never touches a file that is there.
pub fn create(path: &Path, record: &Record) -> Result<(), FileError> {
    let at = |action| FileError::io(path, action);
    let mut file = create_private(path).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => FileError::Exists { path: path.into() },
        _ => at("create")(error),
    })?;
    let written = file.write_all(&image(record)).and_then(|()| file.sync_all()).and_then(|()| sync_parent(path));
    written.map_err(|error| {
        // Half a state file would only look like a damaged one.
        let _ = fs::remove_file(path);
        at("write")(error)
    })
}

/// Puts a new state file with `record` in the place of `old`, which is kept as `FILE.imported`; returns where.
///
/// The new file is durable before the one rename that makes it visible, so a crash leaves the old or the new one. The
/// old one must still be what its path names: tmkms knows no locks and may have written a newer one.
pub fn replace(old: &StateFile, record: &Record) -> Result<PathBuf, FileError> {
    let path = fs::canonicalize(&old.path).map_err(FileError::io(&old.path, "resolve"))?;
    let at = |action| FileError::io(&path, action);
    let new = with_suffix(&path, ".new");
    // A leftover of a crash between here and the rename; nothing ever reads it.
    if let Err(error) = fs::remove_file(&new)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(FileError::io(&new, "remove")(error));
    }
    create(&new, record)?;
    let kept = keep_beside(&path).map_err(at("keep a copy of"))?;
    sync_parent(&path).map_err(at("flush the directory of"))?;
    let unchanged = old.is_at(&kept).and_then(|kept| Ok(kept && old.is_at(&path)?));
    if !unchanged.map_err(at("look at"))? {
        let _ = fs::remove_file(&new);
        return Err(FileError::Locked { path });
    }
    fs::rename(&new, &path).map_err(at("replace"))?;
    sync_parent(&path).map_err(at("flush the directory of"))?;
    Ok(kept)
}

/// Whether another file was replaced at the path of `file` before, and is still kept beside it.
pub fn was_replaced_before(file: &StateFile) -> Result<bool, FileError> {
    let kept = with_suffix(&file.path, KEPT_SUFFIX);
    // A crash during the first replacement leaves a second name of the very same file.
    Ok(kept.exists() && !file.is_at(&kept).map_err(FileError::io(&kept, "look at"))?)
}

/// The newest record at `path`, read beside whoever holds the lock. A signer that is writing may tear a read, so a
/// damaged file is looked at again.
pub fn read_unlocked(path: &Path) -> Result<Result<Record, Damage>, StoreError> {
    const TRIES: usize = 5;
    let io = |error| StoreError::Io { action: "open", error };
    let file = open_to_look(path).map_err(io)?;
    let mut reader = StateFile { file, path: path.into(), device: 0, inode: 0 };
    let mut found = reader.newest()?;
    for _ in 1..TRIES {
        if found.is_ok() {
            break;
        }
        thread::sleep(Duration::from_millis(20));
        found = reader.newest()?;
    }
    Ok(found)
}

/// What the file at `path` holds, and its text if that is JSON.
pub fn format_of(path: &Path) -> Result<(Format, Option<String>), FileError> {
    let file = open_to_look(path).map_err(|error| unopened(path, error))?;
    let read = |error| FileError::io(path, "read")(error);
    match format(&file).map_err(read)? {
        Format::Json => Ok((Format::Json, Some(read_text(&file).map_err(read)?))),
        other => Ok((other, None)),
    }
}

/// Opens a file for reading. One that is not regular is refused before: opening a pipe would wait for its writer.
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
        _ => FileError::io(path, "open")(error),
    }
}

/// Takes the lock. Its holder may be a process that has just been killed, or a child of ours between fork and exec, so
/// it is asked for again for a short while.
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

fn format(file: &File) -> io::Result<Format> {
    let mut start = [0; 64];
    let read = file.read_at(&mut start, 0)?;
    if file.metadata()?.len() == FILE_BYTES as u64 || start.starts_with(&MAGIC) {
        return Ok(Format::Highwater);
    }
    let first = start[..read].iter().find(|byte| !byte.is_ascii_whitespace());
    Ok(if first == Some(&b'{') { Format::Json } else { Format::Unknown })
}

fn read_text(file: &File) -> io::Result<String> {
    // A CometBFT state file holds one message in hex; this is far above it.
    const TEXT_MAX_BYTES: usize = 64 * 1024;
    let length = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
    if length > TEXT_MAX_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is too long for a state file"));
    }
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, 0)?;
    String::from_utf8(bytes).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not text"))
}

/// What the name of a replaced file ends in.
const KEPT_SUFFIX: &str = ".imported";

/// A second name for the file, so that the rename does not lose it: the first free of `.imported`, `.imported.2` …
fn keep_beside(path: &Path) -> io::Result<PathBuf> {
    let inode = fs::metadata(path)?.ino();
    for number in 1_u32.. {
        let suffix = if number == 1 { KEPT_SUFFIX.to_owned() } else { format!("{KEPT_SUFFIX}.{number}") };
        let kept = with_suffix(path, &suffix);
        match fs::hard_link(path, &kept) {
            Ok(()) => return Ok(kept),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                // A crash after the link and before the rename leaves our own name behind.
                if fs::symlink_metadata(&kept)?.ino() == inode {
                    return Ok(kept);
                }
            }
            Err(error) => return Err(error),
        }
    }
    unreachable!("a directory has fewer files than there are numbers")
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Why a state file cannot be opened, created or replaced.
#[derive(Debug)]
pub enum FileError {
    /// A link to nothing.
    DeadLink {
        /// Where.
        path: PathBuf,
    },
    /// There is one already.
    Exists {
        /// Where.
        path: PathBuf,
    },
    /// The file system failed.
    Io {
        /// Where.
        path: PathBuf,
        /// What we asked of it.
        action: &'static str,
        /// What it said.
        error: io::Error,
    },
    /// Another process uses it.
    Locked {
        /// Where.
        path: PathBuf,
    },
    /// There is none.
    Missing {
        /// Where.
        path: PathBuf,
    },
    /// A directory, socket or device.
    NotAFile {
        /// Where.
        path: PathBuf,
    },
    /// Others may write it.
    Writable {
        /// Where.
        path: PathBuf,
        /// Its permissions.
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
            Self::Io { path, action, error } => write!(f, "cannot {action} state file {}: {error}", path.display()),
            Self::Locked { path } => write!(
                f,
                "state file {} is in use by another process: a second signer on one state would sign twice. Stop it \
                 first (`fuser {}` names it)",
                path.display(),
                path.display()
            ),
            Self::Missing { path } => write!(
                f,
                "there is no state file {}. Start never makes one, because an empty watermark forgets what was signed: \
                 run `highwater state init --never-signed` for a new key, `highwater state init --height H` or \
                 `highwater state import FILE` for one that has signed",
                path.display()
            ),
            Self::NotAFile { path } => write!(f, "state file {} is not a regular file", path.display()),
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

//! The process that creates and renames audit files, because the confined signer can do neither.
//!
//! The signer can send it two orders of one byte each, and gets an open file for either. An order does not name a file:
//! a signer under an attacker's control can rename its audit files, but never a state file in the same directory. The
//! keeper itself can reach only that directory.

use crate::{
    config::{AuditLimits, Config},
    process::{
        frames::{read_json, read_short_json, write_json},
        helper::{self, Helper, receive_descriptor, send_descriptor},
        sandbox::{self, Switches},
    },
    record::evidence::LINE_BEGINS,
};
use highwater_core::disk;
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

/// The hidden command that becomes the keeper.
pub(crate) const KEEPER_COMMAND: &str = "audit-keeper";
/// How long a new file may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// An order to the keeper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// Open the file that has the name now, or create it: the old one was moved away.
    Reopen,
    /// Rename all older files to the next number, then create a new file.
    Rotate,
}

/// Creates audit files.
pub(crate) enum Keeper {
    /// In this process.
    Here(Files),
    /// In a process of its own.
    Process(Helper),
}

/// The audit file and the older ones: `FILE`, `FILE.1` and so on, the oldest last.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Files {
    pub path: PathBuf,
    /// How many older files are kept.
    pub keep: u32,
}

/// What a keeper needs to know.
#[derive(Deserialize, Serialize)]
struct KeeperTask {
    files: Files,
    switches: Switches,
}

impl Keeper {
    /// Starts a keeper for the audit file of the configuration, if it has one.
    pub(crate) fn start(config: &Config) -> io::Result<Option<Self>> {
        let Some(path) = &config.highwater.audit else { return Ok(None) };
        let AuditLimits { keep, .. } = config.highwater.audit_limits;
        let task = KeeperTask { files: Files { path: path.clone(), keep }, switches: Switches::of(config) };
        let helper = Helper::start(KEEPER_COMMAND)?;
        write_json(&mut *helper.control(), &task)?;
        helper.control().set_read_timeout(Some(PATIENCE))?;
        helper.control().set_write_timeout(Some(PATIENCE))?;
        Ok(Some(Self::Process(helper)))
    }

    /// Carries out an order. Waits a few seconds at most.
    pub(super) fn ask(&self, order: Order) -> io::Result<File> {
        match self {
            Self::Here(files) => files.follow(order, &Directory::of(&files.path)),
            Self::Process(helper) => {
                let control = helper.control();
                ask(&control, order).map_err(|error| match error.kind() {
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                        // A late answer would be mistaken for the answer to the next order.
                        let _ = control.shutdown(std::net::Shutdown::Both);
                        io::Error::new(io::ErrorKind::TimedOut, "the process that creates audit files does not answer")
                    }
                    io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe => {
                        io::Error::new(error.kind(), "the process that creates audit files has ended")
                    }
                    _ => error,
                })
            }
        }
    }
}

const REOPEN: u8 = b'o';
const ROTATE: u8 = b'r';

fn ask(mut control: &UnixStream, order: Order) -> io::Result<File> {
    let byte = match order {
        Order::Reopen => REOPEN,
        Order::Rotate => ROTATE,
    };
    control.write_all(&[byte])?;
    if let Some(file) = receive_descriptor(control)? {
        return Ok(file.into());
    }
    Err(io::Error::other(read_short_json::<String>(&mut control)?))
}

/// The program of the hidden command `audit-keeper`: its control stream is standard input. Ends with the stream.
pub(crate) fn run() -> io::Result<()> {
    let mut control = helper::standard_input()?;
    let KeeperTask { files, switches } = read_json(&mut control)?;
    // Afterwards it cannot be opened any more.
    let directory = Directory::of(&files.path);
    sandbox::confine_audit_keeper(switches, &files.path).map_err(io::Error::other)?;
    let mut byte = [0];
    while control.read(&mut byte)? > 0 {
        let order = match byte[0] {
            REOPEN => Order::Reopen,
            ROTATE => Order::Rotate,
            _ => return Err(io::Error::new(io::ErrorKind::InvalidData, "unknown order")),
        };
        match files.follow(order, &directory) {
            Ok(file) => send_descriptor(&control, &file)?,
            Err(why) => {
                control.write_all(&[helper::REFUSED])?;
                write_json(&mut control, &why.to_string())?;
            }
        }
    }
    Ok(())
}

impl Files {
    fn follow(&self, order: Order, directory: &Directory) -> io::Result<File> {
        if order == Order::Rotate {
            self.rotate()?;
        }
        open_in(directory, &self.path)
    }

    /// The path of the older file with this number.
    pub(crate) fn older(&self, number: u32) -> PathBuf {
        let mut path = self.path.clone().into_os_string();
        path.push(format!(".{number}"));
        path.into()
    }

    fn rotate(&self) -> io::Result<()> {
        // All of them are checked first: no file of another program is moved or overwritten.
        for number in 1..=self.keep {
            refuse_foreign(&self.older(number))?;
        }
        for number in (1..self.keep).rev() {
            rename(&self.older(number), &self.older(number + 1))?;
        }
        rename(&self.path, &self.older(1))
    }
}

fn rename(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => {
            Err(io::Error::new(error.kind(), format!("cannot rename {} to {}: {error}", from.display(), to.display())))
        }
        Ok(()) => Ok(()),
    }
}

/// Opens an audit file, or creates one that only its owner can read. Refuses a file with other content: a line written
/// to a state file or a key would spoil it.
pub(super) fn open(path: &Path) -> io::Result<File> {
    open_in(&Directory::of(path), path)
}

fn open_in(directory: &Directory, path: &Path) -> io::Result<File> {
    refuse_foreign(path)?;
    // Only a new file is handed over to the owner of its directory: an old one may be a link to another user's.
    match disk::create_private(path) {
        // A device forgets what is in the file, so the file itself must outlast a power cut.
        Ok(_) => directory.flush()?,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    OpenOptions::new().read(true).append(true).open(path)
}

/// The directory of an audit file. `None` if it cannot be read: a file is created in it all the same.
struct Directory(Option<File>);

impl Directory {
    /// That of the file itself, if `path` is a link.
    fn of(path: &Path) -> Self {
        let file = fs::canonicalize(path).unwrap_or_else(|_| path.into());
        let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Self(File::open(parent).ok())
    }

    /// Has the names in it on the disk.
    fn flush(&self) -> io::Result<()> {
        match self.0.as_ref().map_or(Ok(()), File::sync_all) {
            // This file system cannot flush a directory.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
            other => other,
        }
    }
}

/// Fails if there is a file that is not an audit file.
pub(crate) fn refuse_foreign(path: &Path) -> io::Result<()> {
    let about = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    if !about.is_file() {
        // A pipe or a device is there on purpose.
        return Ok(());
    }
    /// A failed write may have left only the end of a line.
    const BLANK_MAX_BYTES: usize = 64;
    let mut begin = Vec::new();
    File::open(path)?.take((BLANK_MAX_BYTES + LINE_BEGINS.len()) as u64).read_to_end(&mut begin)?;
    let blank = begin.iter().take_while(|byte| **byte == b'\n').count();
    let line = &begin[blank..begin.len().min(blank + LINE_BEGINS.len())];
    if LINE_BEGINS.as_bytes().starts_with(line) {
        return Ok(());
    }
    let text = format!(
        "{} exists and is not an audit file of Highwater: move it away, or set another `file` in [highwater.audit]",
        path.display()
    );
    Err(io::Error::new(io::ErrorKind::AlreadyExists, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(path: &Path, text: &str) {
        fs::write(path, format!("{LINE_BEGINS}{text}}}\n")).unwrap();
    }

    fn read(path: &Path) -> Option<String> {
        let text = fs::read_to_string(path).ok()?;
        Some(text.trim_start_matches(LINE_BEGINS).trim_end_matches("}\n").to_owned())
    }

    #[test]
    fn older_files_move_on_and_the_oldest_goes() {
        let directory = tempfile::tempdir().unwrap();
        let files = Files { path: directory.path().join("audit.jsonl"), keep: 2 };
        for number in 1..=4 {
            write(&files.path, &number.to_string());
            assert_eq!(files.follow(Order::Rotate, &Directory::of(&files.path)).unwrap().metadata().unwrap().len(), 0);
        }
        assert_eq!([1, 2, 3].map(|number| read(&files.older(number))), [Some("4".into()), Some("3".into()), None]);
        write(&files.path, "5");
        assert!(
            files.follow(Order::Reopen, &Directory::of(&files.path)).unwrap().metadata().unwrap().len() > 0,
            "what has the name is not moved"
        );
        // A gap does no harm.
        fs::remove_file(files.older(1)).unwrap();
        files.follow(Order::Rotate, &Directory::of(&files.path)).unwrap();
        assert_eq!([1, 2].map(|number| read(&files.older(number))), [Some("5".into()), Some("3".into())]);
    }

    #[test]
    fn what_is_no_audit_file_is_neither_moved_nor_overwritten_nor_written_to() {
        let directory = tempfile::tempdir().unwrap();
        let files = Files { path: directory.path().join("state"), keep: 3 };
        fs::write(files.older(3), "HIGHWATER state").unwrap();
        write(&files.path, "1");
        write(&files.older(1), "2");
        let error = files.follow(Order::Rotate, &Directory::of(&files.path)).unwrap_err().to_string();
        assert!(error.contains("state.3 exists and is not an audit file"), "{error}");
        let kept = [read(&files.path), read(&files.older(1)), read(&files.older(2)), read(&files.older(3))];
        assert_eq!(kept, [Some("1".into()), Some("2".into()), None, Some("HIGHWATER state".into())]);
        assert!(open(&files.older(3)).is_err());
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(directory.path().join("nowhere"), &link).unwrap();
        assert!(open(&link).is_err() && !directory.path().join("nowhere").exists(), "no file is made through a link");
    }
}

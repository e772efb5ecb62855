//! What every important file needs and std leaves to its caller: private from the first moment, never over another
//! file, owned by the user who needs it, and a directory entry that is on the disk.

use rustix::fs::{Mode, OFlags, mkdirat, open, openat};
use std::{
    ffi::OsStr,
    fs::{self, File},
    io,
    os::unix::fs::{MetadataExt as _, fchown},
    path::{Path, PathBuf},
};

/// Creates a file that only its owner can read and write (mode 0600). Fails if anything exists at `path`, even a dead
/// link. If root creates it, it belongs to the owner of its directory.
pub fn create_private(path: &Path) -> io::Result<File> {
    let (around, name) = place_of(path)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let file = openat(&around, name, flags, Mode::RUSR | Mode::WUSR)?.into();
    hand_over(&file, &around);
    Ok(file)
}

/// Makes a directory. Fails if anything exists at `path`, even a dead link. If root makes it, it belongs to the owner of
/// the directory around it.
pub fn create_directory(path: &Path, mode: u32) -> io::Result<()> {
    let (around, name) = place_of(path)?;
    mkdirat(&around, name, Mode::from_raw_mode(mode))?;
    // The owner of the directory around it may have put a link in its place since.
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    if let Ok(made) = openat(&around, name, flags, Mode::empty()) {
        hand_over(&made.into(), &around);
    }
    Ok(())
}

/// The directory of `path`, open, and the name in it. Whoever can exchange directories on the way cannot have a file made
/// in one of them and handed over because of another.
fn place_of(path: &Path) -> io::Result<(File, &OsStr)> {
    let Some(name) = path.file_name() else {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "not the name of a new file"));
    };
    let around = open(parent_of(path), OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    Ok((around.into(), name))
}

/// Gives what root has just made to the owner of the directory around it: a signer that runs as that user could not open
/// it otherwise. Changes nothing for other users, or in a directory of root's. If it fails, the file stays root's, and
/// `check` reports that. Never for what was there before: it may be a link to anything.
fn hand_over(file: &File, around: &File) {
    const ROOT: u32 = 0;
    if let (Ok(made), Ok(around)) = (file.metadata(), around.metadata())
        && made.uid() == ROOT
        && around.uid() != ROOT
    {
        let _ = fchown(file, Some(around.uid()), Some(around.gid()));
    }
}

/// Flushes the directory of `path`, so that the directory entry is on the disk.
pub fn sync_parent(path: &Path) -> io::Result<()> {
    broken!("rename_without_sync" => return Ok(()));
    File::open(parent_of(path))?.sync_all()
}

fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

/// Whether an error may go away by itself, as with a full disk or a late mount.
pub fn may_pass(error: &io::Error) -> bool {
    !matches!(
        error.kind(),
        io::ErrorKind::PermissionDenied
            | io::ErrorKind::InvalidData
            | io::ErrorKind::InvalidInput
            | io::ErrorKind::IsADirectory
            | io::ErrorKind::NotADirectory
    )
}

/// Returns `path` with `suffix` appended to the file name.
pub fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Gives the file at `path` a second name, so that a rename over the first does not lose it: the first free one of
/// `FILE.suffix`, `FILE.suffix.2` … Returns that name. Copies a file that cannot have a second name in its directory,
/// because it is itself a mount.
pub fn keep_beside(path: &Path, suffix: &str) -> io::Result<PathBuf> {
    let found = fs::metadata(path)?;
    for number in 1_u32.. {
        let kept = match number {
            1 => with_suffix(path, suffix),
            _ => with_suffix(path, &format!("{suffix}.{number}")),
        };
        match fs::hard_link(path, &kept) {
            Ok(()) => return Ok(kept),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                // After a crash between the link and the rename, this name is our own.
                let there = fs::symlink_metadata(&kept)?;
                if (there.dev(), there.ino()) == (found.dev(), found.ino()) {
                    return Ok(kept);
                }
            }
            // A mount, or a file of another user with `fs.protected_hardlinks`.
            Err(error) if matches!(error.kind(), io::ErrorKind::CrossesDevices | io::ErrorKind::PermissionDenied) => {
                match create_private(&kept) {
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                    new => {
                        let mut new = new?;
                        io::copy(&mut File::open(path)?, &mut new)?;
                        new.sync_all()?;
                    }
                }
                return Ok(kept);
            }
            Err(error) => return Err(error),
        }
    }
    unreachable!("a directory has fewer files than there are numbers")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_private_file_is_private_and_never_replaces_anything() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        create_private(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(create_private(&path).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        let link = directory.path().join("link");
        symlink(directory.path().join("nowhere"), &link).unwrap();
        assert_eq!(create_private(&link).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    }

    #[test]
    fn what_root_makes_belongs_to_the_owner_of_its_directory() {
        let directory = tempfile::tempdir().unwrap();
        let us = fs::metadata(directory.path()).unwrap().uid();
        let owner_of_new = |name: &str| create_private(&directory.path().join(name)).unwrap().metadata().unwrap().uid();
        assert_eq!(owner_of_new("ours"), us);
        // Only root can give a directory away.
        if std::os::unix::fs::chown(directory.path(), Some(4242), Some(4343)).is_ok() {
            assert_eq!(owner_of_new("theirs"), 4242);
            let there = fs::metadata(directory.path().join("theirs")).unwrap();
            assert_eq!((there.gid(), there.mode() & 0o777), (4343, 0o600));
        }
    }

    #[test]
    fn a_directory_is_made_once_and_never_through_a_link() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("new");
        create_directory(&path, 0o700).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
        let link = directory.path().join("link");
        symlink(directory.path().join("nowhere"), &link).unwrap();
        for there in [&path, &link, Path::new("/"), Path::new("..")] {
            assert_eq!(create_directory(there, 0o700).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        }
        if std::os::unix::fs::chown(&path, Some(4242), Some(4343)).is_ok() {
            create_directory(&path.join("theirs"), 0o700).unwrap();
            assert_eq!(fs::metadata(path.join("theirs")).unwrap().uid(), 4242);
        }
    }

    #[test]
    fn the_directory_of_a_bare_name_is_the_working_directory() {
        sync_parent(Path::new("file")).unwrap();
        sync_parent(Path::new("/file")).unwrap();
        assert!(sync_parent(Path::new("/nonexistent/file")).is_err());
    }
}

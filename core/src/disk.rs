//! What every important file needs and std leaves to its caller: private from the first moment, never over another
//! file, and a directory entry that is on the disk.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

/// Creates a file that only its owner can read and write (mode 0600). Fails if anything exists at `path`, even a dead
/// link.
pub fn create_private(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

/// Flushes the directory of `path`, so that the directory entry is on the disk.
pub fn sync_parent(path: &Path) -> io::Result<()> {
    broken!("rename_without_sync" => return Ok(()));
    let parent = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    File::open(parent)?.sync_all()
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
    fn the_directory_of_a_bare_name_is_the_working_directory() {
        sync_parent(Path::new("file")).unwrap();
        sync_parent(Path::new("/file")).unwrap();
        assert!(sync_parent(Path::new("/nonexistent/file")).is_err());
    }
}

//! What every file that matters needs and std leaves to its caller: private from the first moment, never over another
//! file, and a directory entry that is on the disk.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

/// Creates a file that only its owner may read and write. Fails if there is anything at `path`, even a dead link.
pub fn create_private(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

/// Waits until the directory entry of `path` is on the disk.
pub fn sync_parent(path: &Path) -> io::Result<()> {
    broken!("rename_without_sync" => return Ok(()));
    let parent = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    File::open(parent)?.sync_all()
}

/// Whether what the system says may pass by itself: a full disk, a mount that comes late.
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

/// `path` with `suffix` at the end of its name.
pub fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Gives the file at `path` a second name, so that a rename over the first does not lose it: the first free of
/// `FILE.suffix`, `FILE.suffix.2` … A file that is mounted by itself has no second name in the directory that shows it,
/// and is copied.
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
                // A crash after the link and before the rename leaves our own name behind.
                let there = fs::symlink_metadata(&kept)?;
                if (there.dev(), there.ino()) == (found.dev(), found.ino()) {
                    return Ok(kept);
                }
            }
            // Nor has, with `fs.protected_hardlinks`, a file of another user.
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

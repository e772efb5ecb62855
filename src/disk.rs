//! What every file that matters needs and std leaves to its caller: private from the first moment, never over another
//! file, and a directory entry that is on the disk.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        fs,
        os::unix::fs::{MetadataExt as _, symlink},
    };

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

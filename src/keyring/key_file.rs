//! Reading and writing the files that hold secrets.
//!
//! Reading checks a file only through its open descriptor. Writing never replaces anything, and returns only when the
//! file and its directory entry are on the disk.

use super::{KeyError, Secret};
use highwater_core::disk::{create_private, sync_parent};
use rand_core::{OsRng, RngCore as _};
use std::{
    fs::{self, File, Metadata},
    io::{self, Read as _, Write as _},
    os::unix::fs::MetadataExt as _,
    path::Path,
};
use zeroize::Zeroizing;

/// Size limit of a key file in bytes. The largest kind, `priv_validator_key.json`, has about 350.
pub const SIZE_MAX: u64 = 64 * 1024;

/// The permission bits of group and others.
const MODE_OTHERS: u32 = 0o077;
/// All permission bits, without the type of the file.
const MODE_BITS: u32 = 0o7777;

/// Reads a whole secret file. Refuses one that other users could have read or replaced.
pub fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    // Checked before opening only because opening a pipe would wait for a writer. The descriptor decides.
    let before = fs::metadata(path).map_err(|error| unreadable(path, error))?;
    if !before.is_file() {
        return Err(KeyError::NotAFile { path: path.into() });
    }
    let mut file = File::open(path).map_err(|error| unreadable(path, error))?;
    let metadata = file.metadata().map_err(|error| unreadable(path, error))?;
    let size = check(path, &metadata, effective_user())?;

    // Has its final size from the start: a buffer that grows leaves copies behind.
    let mut content = Zeroizing::new(vec![0; size]);
    file.read_exact(&mut content).map_err(|error| unreadable(path, error))?;
    Ok(content)
}

/// Writes a new secret file that only its owner can read, and waits for the disk.
pub fn write(path: &Path, content: &[u8]) -> Result<(), KeyError> {
    let mut file = create_private(path).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => KeyError::Exists { path: path.into() },
        _ => cannot("create", path, error),
    })?;
    let written = file
        .write_all(content)
        .and_then(|()| file.sync_all())
        .map_err(|error| cannot("write", path, error))
        .and_then(|()| sync_parent(path).map_err(|error| cannot("flush the directory of", path, error)));
    if written.is_err() {
        // It is ours and useless. If it cannot be removed either, the first error says more.
        let _ = fs::remove_file(path);
    }
    written
}

/// Checks an open file that should hold a secret, and returns its size.
fn check(path: &Path, metadata: &Metadata, us: u32) -> Result<usize, KeyError> {
    if !metadata.is_file() {
        return Err(KeyError::NotAFile { path: path.into() });
    }
    if !is_trusted(metadata.uid(), us) {
        return Err(KeyError::Foreign { path: path.into(), owner: metadata.uid(), expected: us });
    }
    if metadata.mode() & MODE_OTHERS != 0 {
        return Err(KeyError::Permissions { path: path.into(), mode: metadata.mode() & MODE_BITS });
    }
    let bytes = metadata.len();
    match usize::try_from(bytes) {
        Ok(size) if bytes <= SIZE_MAX => Ok(size),
        _ => Err(KeyError::TooLarge { path: path.into(), bytes }),
    }
}

/// Whether a file of `owner` may hold a secret of a process that runs as `us`. Root can read every file anyway, and an
/// operator manages the files of the service's user as root.
fn is_trusted(owner: u32, us: u32) -> bool {
    const ROOT: u32 = 0;
    owner == us || owner == ROOT || us == ROOT
}

fn effective_user() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// The error for a file that could not be opened or read.
fn unreadable(path: &Path, error: io::Error) -> KeyError {
    match error.kind() {
        io::ErrorKind::NotFound => KeyError::Missing { path: path.into() },
        io::ErrorKind::PermissionDenied => KeyError::Denied { path: path.into() },
        _ => cannot("read", path, error),
    }
}

/// The error for any other failed system call.
fn cannot(action: &'static str, path: &Path, error: io::Error) -> KeyError {
    KeyError::Io { action, path: path.into(), error }
}

/// Secret bytes from the operating system's random number generator.
pub fn random<const N: usize>() -> Result<Secret<N>, KeyError> {
    let mut secret = Secret::new(Zeroizing::new([0; N]));
    OsRng.try_fill_bytes(&mut secret[..]).map_err(|error| KeyError::Random { error })?;
    Ok(secret)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        fs::{OpenOptions, Permissions},
        os::unix::fs::{PermissionsExt as _, symlink},
        path::PathBuf,
    };
    use tempfile::TempDir;

    const CONTENT: &[u8] = b"not a secret\n";

    fn key() -> (TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.key");
        write(&path, CONTENT).unwrap();
        (dir, path)
    }

    #[test]
    fn what_was_written_is_read_back_and_belongs_to_its_owner_alone() {
        let (_dir, path) = key();
        let metadata = fs::metadata(&path).unwrap();
        assert_eq!(metadata.mode() & MODE_BITS, 0o600);
        assert_eq!(metadata.uid(), effective_user());
        let content = read(&path).unwrap();
        assert_eq!(*content, CONTENT);
        assert_eq!(content.capacity(), CONTENT.len());
    }

    #[test]
    fn a_file_open_to_others_is_refused_with_the_command_that_helps() {
        let (_dir, path) = key();
        for mode in [0o640, 0o604, 0o620, 0o602, 0o777] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let error = read(&path).unwrap_err();
            assert!(matches!(error, KeyError::Permissions { mode: found, .. } if found == mode));
            assert!(error.to_string().contains(&format!("`chmod 600 {}`", path.display())), "{error}");
        }
        for mode in [0o600, 0o400, 0o700] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            assert!(read(&path).is_ok(), "{mode:o}");
        }
    }

    #[test]
    fn a_link_is_judged_by_the_file_it_leads_to() {
        let (dir, path) = key();
        let link = dir.path().join("link");
        symlink(&path, &link).unwrap();
        assert_eq!(*read(&link).unwrap(), CONTENT);
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(read(&link), Err(KeyError::Permissions { .. })));
    }

    #[test]
    fn nothing_is_ever_overwritten() {
        let (dir, path) = key();
        assert!(matches!(write(&path, b"other"), Err(KeyError::Exists { .. })));
        assert_eq!(*read(&path).unwrap(), CONTENT);

        let (target, link) = (dir.path().join("target"), dir.path().join("link"));
        symlink(&target, &link).unwrap();
        assert!(matches!(write(&link, b"other"), Err(KeyError::Exists { .. })));
        assert!(!target.exists());
    }

    #[test]
    fn what_is_no_key_file_is_refused() {
        let (dir, path) = key();
        assert!(matches!(read(dir.path()), Err(KeyError::NotAFile { .. })));
        assert!(matches!(read(&dir.path().join("none")), Err(KeyError::Missing { .. })));
        assert!(matches!(write(&dir.path().join("no/dir"), b""), Err(KeyError::Io { action: "create", .. })));

        let file = OpenOptions::new().write(true).open(&path).unwrap();
        file.set_len(SIZE_MAX).unwrap();
        assert!(read(&path).is_ok());
        file.set_len(SIZE_MAX + 1).unwrap();
        assert!(matches!(read(&path), Err(KeyError::TooLarge { bytes: 65_537, .. })));
    }

    #[test]
    fn only_we_and_root_may_own_a_key() {
        assert!(is_trusted(1000, 1000));
        assert!(is_trusted(0, 1000));
        assert!(!is_trusted(1001, 1000));
        assert!(is_trusted(1000, 0));
    }
}

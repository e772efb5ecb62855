//! Which failures may pass by themselves: a full disk, a mount that comes late, a device that is not plugged in yet.
//!
//! After such a failure a signer exits with a code that makes its supervisor start it again; after any other it stays
//! stopped, because only a person can fix it. A missing state file is of the second kind: a signer that waits for one would
//! begin to sign as soon as somebody puts one there, perhaps before the other signer is stopped.

use crate::{keyring::KeyError, state::StateError};
use highwater_core::{disk, watermark::FileError};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Whether a key that cannot be used now may be usable later, without anyone doing anything.
pub fn key(error: &KeyError) -> bool {
    match error {
        // A secrets mount may come late; a device may not be there yet.
        KeyError::Missing { .. } | KeyError::PublicKey { .. } | KeyError::Random { .. } => true,
        KeyError::Io { error, .. } => disk::may_pass(error),
        KeyError::Denied { .. }
        | KeyError::Exists { .. }
        | KeyError::Foreign { .. }
        | KeyError::Malformed { .. }
        | KeyError::NotAFile { .. }
        | KeyError::Permissions { .. }
        | KeyError::TooLarge { .. } => false,
    }
}

/// The key file that is not there yet.
pub fn awaited_key(error: &KeyError) -> Option<PathBuf> {
    match error {
        KeyError::Missing { path } => Some(path.clone()),
        _ => None,
    }
}

/// The state file whose file system is not there yet.
pub fn awaited_state(error: &StateError) -> Option<PathBuf> {
    match error {
        StateError::File(FileError::DeadLink { path } | FileError::Missing { path }) if state(error) => {
            Some(path.clone())
        }
        _ => None,
    }
}

/// Whether a state file that cannot be used now may be usable later, without anyone doing anything.
pub fn state(error: &StateError) -> bool {
    match error {
        StateError::File(FileError::DeadLink { .. }) => true,
        // A file system that is not mounted lacks the directory, not only the file.
        StateError::File(FileError::Missing { path }) => {
            !fs::metadata(directory(path)).is_ok_and(|found| found.is_dir())
        }
        StateError::File(FileError::Io { error, .. }) => disk::may_pass(error),
        StateError::Store { error, .. } => error.may_pass(),
        StateError::Theirs { error, .. } => disk::may_pass(error),
        _ => false,
    }
}

fn directory(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Finds a signer that was killed but is not gone: it is waiting for a disk, and still holds its locks. It will never sign
/// again, and ends as soon as the disk answers. `proc` is the mount point of the proc file system.
pub fn dying_signer(proc: &Path) -> Option<u32> {
    let own = std::process::id();
    let processes =
        fs::read_dir(proc).ok()?.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let mut others = processes.filter(|id| *id != own);
    others.find(|id| {
        let text = |name: &str| fs::read_to_string(proc.join(id.to_string()).join(name)).unwrap_or_default();
        text("cmdline").split('\0').nth(1) == Some("start") && is_dying(&text("status"))
    })
}

/// Whether the `status` of a process shows a signer with a pending SIGKILL.
fn is_dying(status: &str) -> bool {
    /// SIGKILL is signal 9, and the mask begins with 1.
    const KILL: u64 = 1 << 8;
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t"));
    let pending = |name: &str| field(name).and_then(|mask| u64::from_str_radix(mask, 16).ok()).unwrap_or_default();
    field("Name") == Some("highwater")
        && !field("State").is_some_and(|state| state.starts_with('Z'))
        && (pending("SigPnd") | pending("ShdPnd")) & KILL != 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use highwater_core::watermark::StoreError;
    use std::io;

    fn status(name: &str, state: &str, own: &str, shared: &str) -> String {
        format!(
            "Name:\t{name}\nUmask:\t0077\nState:\t{state}\nSigPnd:\t{own}\nShdPnd:\t{shared}\nSigBlk:\t0000000000000100\n"
        )
    }

    #[test]
    fn only_a_signer_that_was_killed_and_hangs_is_dying() {
        const NONE: &str = "0000000000000000";
        const KILL: &str = "0000000000000100";
        for (text, dying) in [
            (status("highwater", "D (disk sleep)", KILL, NONE), true),
            (status("highwater", "D (disk sleep)", NONE, "0000000000004100"), true),
            (status("highwater", "D (disk sleep)", NONE, "0000000000004000"), false),
            (status("highwater", "S (sleeping)", NONE, NONE), false),
            (status("highwater", "Z (zombie)", KILL, KILL), false),
            (status("tmkms", "D (disk sleep)", KILL, NONE), false),
            (String::new(), false),
        ] {
            assert_eq!(is_dying(&text), dying, "{text}");
        }
    }

    #[test]
    fn it_is_found_among_all_processes() {
        let proc = tempfile::tempdir().unwrap();
        for (id, command, mask) in
            [("7", "highwater\0status\0", "100"), ("8", "highwater\0start\0", "0"), ("self", "", "")]
        {
            fs::create_dir(proc.path().join(id)).unwrap();
            fs::write(proc.path().join(id).join("cmdline"), command).unwrap();
            fs::write(proc.path().join(id).join("status"), status("highwater", "D (disk sleep)", mask, "0")).unwrap();
        }
        assert_eq!(dying_signer(proc.path()), None);
        fs::write(proc.path().join("8/status"), status("highwater", "D (disk sleep)", "100", "0")).unwrap();
        assert_eq!(dying_signer(proc.path()), Some(8));
        assert_eq!(dying_signer(&proc.path().join("none")), None);
    }

    #[test]
    fn a_missing_state_file_is_for_a_person_unless_its_file_system_is_missing() {
        let home = tempfile::tempdir().unwrap();
        let missing = |name: &str| StateError::File(FileError::Missing { path: home.path().join(name) });
        assert!(!state(&missing("a.state")));
        assert!(state(&missing("state/a.state")));
    }

    #[test]
    fn a_disk_may_get_well_and_permissions_do_not() {
        for (kind, passes) in [
            (io::ErrorKind::StorageFull, true),
            (io::ErrorKind::ReadOnlyFilesystem, true),
            (io::ErrorKind::Other, true),
            (io::ErrorKind::PermissionDenied, false),
            (io::ErrorKind::IsADirectory, false),
        ] {
            assert_eq!(StoreError::Io { action: "write", error: kind.into() }.may_pass(), passes, "{kind}");
            let key_error = KeyError::Io { action: "read", path: "k".into(), error: kind.into() };
            assert_eq!(key(&key_error), passes, "{kind}");
        }
        assert!(key(&KeyError::Missing { path: "k".into() }));
        assert!(!key(&KeyError::Permissions { path: "k".into(), mode: 0o644 }));
        assert!(!StoreError::Replaced.may_pass(), "an older copy may be in its place");
    }
}

//! The state file on a real file system.

use super::super::{header::tests::sample_header, mark::Mark, store::Store};
use super::*;
use crate::consensus::{Hrs, Step};
use std::os::unix::fs::PermissionsExt as _;

fn mark(height: u64) -> Mark {
    Mark::floor(Hrs { height, round: 0, step: Step::Prevote })
}

fn open_store(path: &Path) -> Result<Store, StoreError> {
    let header = sample_header();
    Store::open(Box::new(StateFile::open(path).unwrap()), header.identity(), header.host())
}

fn make(path: &Path, mark: Mark) -> Result<(), FileError> {
    let header = sample_header();
    create(path, header.host(), header.identity(), mark)
}

fn replace_by(old: &StateFile, mark: Mark) -> Result<PathBuf, FileError> {
    let header = sample_header();
    replace(old, header.host(), header.identity(), mark)
}

#[test]
fn a_created_file_opens_keeps_its_mark_and_is_private() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("state");
    make(&path, mark(3)).unwrap();
    let metadata = fs::metadata(&path).unwrap();
    assert_eq!((metadata.len(), metadata.mode() & 0o777), (FILE_BYTES as u64, 0o600));
    open_store(&path).unwrap().advance(mark(4)).unwrap();
    assert_eq!(open_store(&path).unwrap().mark(), &mark(4));
    assert_eq!(read_unlocked(&path).unwrap().0.mark, mark(4));
}

#[test]
fn creating_never_overwrites() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("state");
    fs::write(&path, "precious").unwrap();
    assert!(matches!(make(&path, mark(3)), Err(FileError::Exists { .. })));
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
}

#[test]
fn a_second_opener_is_refused_while_the_first_lives() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("state");
    make(&path, mark(3)).unwrap();
    let first = StateFile::open(&path).unwrap();
    assert!(matches!(StateFile::open(&path), Err(FileError::Locked { .. })));
    drop(first);
    StateFile::open(&path).unwrap();
}

#[test]
fn missing_foreign_and_open_files_are_refused() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("state");
    assert!(matches!(StateFile::open(&path), Err(FileError::Missing { .. })));
    assert!(matches!(StateFile::open(home.path()), Err(FileError::Io { .. } | FileError::NotAFile { .. })));
    make(&path, mark(3)).unwrap();
    for mode in [0o620, 0o602, 0o666] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let error = StateFile::open(&path).err().unwrap();
        assert!(error.to_string().contains("chmod 600"), "{error}");
    }
}

#[test]
fn a_rename_over_our_file_is_noticed_before_the_next_release() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("state");
    make(&path, mark(3)).unwrap();
    let mut store = open_store(&path).unwrap();
    let other = home.path().join("other");
    make(&other, mark(1)).unwrap();
    fs::rename(&other, &path).unwrap();
    assert!(matches!(store.advance(mark(4)), Err(StoreError::Replaced)));

    let removed = home.path().join("removed");
    make(&removed, mark(3)).unwrap();
    let mut store = open_store(&removed).unwrap();
    fs::remove_file(&removed).unwrap();
    assert!(matches!(store.current(), Err(StoreError::Replaced)));
}

#[test]
fn a_shortened_or_lengthened_file_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("state");
    for length in [0, 100, 511, 512, 4096, 4097, FILE_BYTES as u64 - 1] {
        let _ = fs::remove_file(&path);
        make(&path, mark(3)).unwrap();
        OpenOptions::new().write(true).open(&path).unwrap().set_len(length).unwrap();
        assert!(matches!(open_store(&path), Err(StoreError::Damaged(_))), "{length}");
    }
    let _ = fs::remove_file(&path);
    make(&path, mark(3)).unwrap();
    OpenOptions::new().write(true).open(&path).unwrap().set_len(FILE_BYTES as u64 + 1).unwrap();
    assert!(matches!(open_store(&path), Err(StoreError::Io { .. })));
}

#[test]
fn state_files_of_ours_are_recognised_even_when_damaged() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("state");
    for content in ["{\"height\":\"1\"}", "", "garbage"] {
        fs::write(&path, content).unwrap();
        assert!(!is_state_file(&path).unwrap(), "{content:?}");
    }
    fs::remove_file(&path).unwrap();
    make(&path, mark(3)).unwrap();
    assert!(is_state_file(&path).unwrap());
    OpenOptions::new().write(true).open(&path).unwrap().set_len(100).unwrap();
    assert!(is_state_file(&path).unwrap());
}

#[test]
fn a_file_that_was_copied_untarred_or_restored_is_a_copy() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("state");
    let away = home.path().join("away");
    make(&path, mark(3)).unwrap();
    open_store(&path).unwrap();
    // A rename keeps a file what it is, and a hard link is the same file.
    fs::rename(&path, &away).unwrap();
    open_store(&away).unwrap();
    fs::copy(&away, &path).unwrap();
    assert!(matches!(open_store(&path), Err(StoreError::Copy { mark: copied }) if copied == mark(3)));
    // The inode of a removed file is used again; its birth time is not.
    let content = fs::read(&away).unwrap();
    fs::remove_file(&path).unwrap();
    fs::remove_file(&away).unwrap();
    fs::write(&path, content).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    assert!(matches!(open_store(&path), Err(StoreError::Copy { .. })));
}

#[test]
fn changing_a_link_does_not_move_the_file_in_use() {
    let home = tempfile::tempdir().unwrap();
    let [path, other, link] = ["state", "other", "link"].map(|name| home.path().join(name));
    make(&path, mark(3)).unwrap();
    make(&other, mark(1)).unwrap();
    std::os::unix::fs::symlink(&path, &link).unwrap();
    let mut store = open_store(&link).unwrap();
    fs::remove_file(&link).unwrap();
    std::os::unix::fs::symlink(&other, &link).unwrap();
    assert_eq!(store.advance(mark(4)).unwrap().spend(), mark(4));
    assert!(matches!(StateFile::open(&path), Err(FileError::Locked { .. })));
    drop(store);
    assert_eq!(open_store(&path).unwrap().mark(), &mark(4));
}

#[test]
fn whoever_overwrites_the_file_of_a_store_in_place_stops_it() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("state");
    make(&path, mark(3)).unwrap();
    let older = fs::read(&path).unwrap();
    let mut store = open_store(&path).unwrap();
    store.advance(mark(4)).unwrap();
    fs::write(&path, older).unwrap();
    assert!(matches!(store.advance(mark(5)), Err(StoreError::Overwritten)));
}

#[test]
fn replacing_keeps_the_old_file_under_a_free_name() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("state");
    make(&path, mark(1)).unwrap();
    for height in 2..=4 {
        let old = StateFile::open(&path).unwrap();
        let kept = replace_by(&old, mark(height)).unwrap();
        assert_eq!(read_unlocked(&kept).unwrap().0.mark, mark(height - 1));
        assert!(!old.names_us().unwrap(), "the old file no longer has the name");
        drop(old);
        assert_eq!(open_store(&path).unwrap().mark(), &mark(height));
    }
    assert!(home.path().join("state.replaced.3").exists());
    assert!(!home.path().join("state.new").exists());
}

#[test]
fn replacing_resumes_after_a_crash_at_any_point() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("state");
    make(&path, mark(3)).unwrap();
    // The process died after it wrote half of the new file and made the link.
    fs::write(home.path().join("state.new"), "half").unwrap();
    fs::hard_link(&path, home.path().join("state.replaced")).unwrap();
    let kept = replace_by(&StateFile::open(&path).unwrap(), mark(9)).unwrap();
    assert_eq!(kept, home.path().canonicalize().unwrap().join("state.replaced"));
    assert_eq!(open_store(&path).unwrap().mark(), &mark(9));
}

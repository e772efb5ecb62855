//! The state file on a real file system.

use super::super::{mark::Mark, record::tests::sample, store::Store};
use super::*;
use crate::consensus::{Hrs, Step};
use std::os::unix::fs::PermissionsExt as _;

fn mark(height: u64) -> Mark {
    Mark::floor(Hrs { height, round: 0, step: Step::Prevote })
}

fn open_store(path: &Path) -> Result<Store, StoreError> {
    let expected = sample(mark(0));
    Store::open(Box::new(StateFile::open(path).unwrap()), &expected.identity, expected.host)
}

#[test]
fn a_created_file_opens_keeps_its_mark_and_is_private() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("state");
    create(&path, &sample(mark(3))).unwrap();
    let metadata = fs::metadata(&path).unwrap();
    assert_eq!((metadata.len(), metadata.mode() & 0o777), (FILE_BYTES as u64, 0o600));
    open_store(&path).unwrap().advance(mark(4)).unwrap();
    assert_eq!(open_store(&path).unwrap().mark(), &mark(4));
    assert_eq!(read_unlocked(&path).unwrap().unwrap().mark, mark(4));
}

#[test]
fn creating_never_overwrites() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("state");
    fs::write(&path, "precious").unwrap();
    assert!(matches!(create(&path, &sample(mark(3))), Err(FileError::Exists { .. })));
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
}

#[test]
fn a_second_opener_is_refused_while_the_first_lives() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("state");
    create(&path, &sample(mark(3))).unwrap();
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
    create(&path, &sample(mark(3))).unwrap();
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
    create(&path, &sample(mark(3))).unwrap();
    let mut store = open_store(&path).unwrap();
    let other = home.path().join("other");
    create(&other, &sample(mark(1))).unwrap();
    fs::rename(&other, &path).unwrap();
    assert!(matches!(store.advance(mark(4)), Err(StoreError::Replaced)));

    let removed = home.path().join("removed");
    create(&removed, &sample(mark(3))).unwrap();
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
        create(&path, &sample(mark(3))).unwrap();
        OpenOptions::new().write(true).open(&path).unwrap().set_len(length).unwrap();
        assert!(matches!(open_store(&path), Err(StoreError::Damaged(_))), "{length}");
    }
    let _ = fs::remove_file(&path);
    create(&path, &sample(mark(3))).unwrap();
    OpenOptions::new().write(true).open(&path).unwrap().set_len(FILE_BYTES as u64 + 1).unwrap();
    assert!(matches!(open_store(&path), Err(StoreError::Io { .. })));
}

#[test]
fn formats_are_told_apart() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("state");
    let cases: [(&[u8], Format); 5] = [
        (b"{\"height\":\"1\"}", Format::Json),
        (b" \n{}", Format::Json),
        (b"", Format::Unknown),
        (b"garbage", Format::Unknown),
        (&[0; 64], Format::Unknown),
    ];
    for (content, expected) in cases {
        fs::write(&path, content).unwrap();
        assert_eq!(format_of(&path).unwrap().0, expected, "{content:?}");
    }
    fs::remove_file(&path).unwrap();
    create(&path, &sample(mark(3))).unwrap();
    assert_eq!(format_of(&path).unwrap().0, Format::Highwater);
}

#[test]
fn replacing_keeps_the_old_file_under_a_free_name() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("state.json");
    for round in 1..=3 {
        fs::write(&path, format!("{{\"round\": {round}}}")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let old = StateFile::open(&path).unwrap();
        let kept = replace(&old, &sample(mark(round))).unwrap();
        assert_eq!(fs::read_to_string(kept).unwrap(), format!("{{\"round\": {round}}}"));
        drop(old);
        assert_eq!(open_store(&path).unwrap().mark(), &mark(round));
    }
    assert!(home.path().join("state.json.imported.3").exists());
    assert!(!home.path().join("state.json.new").exists());
}

#[test]
fn replacing_resumes_after_a_crash_at_any_point() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("state.json");
    fs::write(&path, "{}").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    // Died after the new file was half written and the link was made.
    fs::write(home.path().join("state.json.new"), "half").unwrap();
    fs::hard_link(&path, home.path().join("state.json.imported")).unwrap();
    let kept = replace(&StateFile::open(&path).unwrap(), &sample(mark(9))).unwrap();
    assert_eq!(kept, home.path().canonicalize().unwrap().join("state.json.imported"));
    assert_eq!(open_store(&path).unwrap().mark(), &mark(9));
}

#[test]
fn whoever_held_the_old_file_during_a_replacement_has_lost_it() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("state");
    create(&path, &sample(mark(3))).unwrap();
    let old = StateFile::open(&path).unwrap();
    replace(&old, &sample(mark(9))).unwrap();
    assert!(!old.names_us().unwrap());
}

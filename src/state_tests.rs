//! State files through everything an operator does to them.

use super::*;
use crate::{
    consensus::{PublicKey, Step},
    keyring::softsign::SecretKey,
};
use std::{fs, os::unix::fs::PermissionsExt as _};
use zeroize::Zeroizing;

const OURS: HostId = HostId([1; 16]);
const OTHER: HostId = HostId([2; 16]);

fn chain() -> ChainId {
    ChainId::new("test-chain").unwrap()
}

fn key(seed: u8) -> PublicKey {
    SecretKey::Ed25519Seed(Box::new(Zeroizing::new([seed; 32]))).public_key()
}

fn place(path: &Path) -> Place {
    Place { path: path.into(), identity: Identity { chain: chain(), key: key(1) }, host: OURS }
}

fn at(height: u64, step: Step) -> Hrs {
    Hrs { height, round: 0, step }
}

fn write_private(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

fn tmkms_text(height: u64) -> String {
    format!(r#"{{"height":"{height}","round":"0","step":1,"block_id":null}}"#)
}

fn with_home(test: impl FnOnce(&Path, &Path)) {
    let home = tempfile::tempdir().unwrap();
    test(home.path(), &home.path().join("state.json"));
}

#[test]
fn a_tmkms_file_in_our_place_is_taken_over_once() {
    with_home(|home, path| {
        write_private(path, &tmkms_text(10));
        let (store, imported) = place(path).open().unwrap();
        assert_eq!(store.mark(), &Mark::floor(at(10, Step::Prevote)));
        let kept = imported.unwrap().kept.unwrap();
        assert_eq!(fs::read_to_string(&kept).unwrap(), tmkms_text(10));
        drop(store);
        // The old file is never read again, whatever it comes to say.
        fs::write(&kept, tmkms_text(1)).unwrap();
        let (store, imported) = place(path).open().unwrap();
        assert_eq!((store.mark().hrs.height, imported), (10, None));
        assert_eq!(fs::read_dir(home).unwrap().count(), 2);
    });
}

#[test]
fn cometbfts_own_file_is_never_taken_in_place_at_start() {
    with_home(|_, path| {
        write_private(path, r#"{"height":"0","round":0,"step":0}"#);
        let error = place(path).open().err().unwrap();
        assert!(matches!(error, StateError::CometBftInPlace { .. }), "{error}");
        assert!(fs::read_to_string(path).unwrap().starts_with('{'));
    });
}

#[test]
fn what_is_no_state_file_is_refused_and_left_alone() {
    with_home(|_, path| {
        for text in ["", "garbage", "{\"height\":"] {
            write_private(path, text);
            assert!(place(path).open().is_err(), "{text:?}");
            assert!(place(path).import(path).is_err(), "{text:?}");
            assert_eq!(fs::read_to_string(path).unwrap(), text);
        }
    });
}

#[test]
fn import_makes_a_file_where_there_is_none() {
    with_home(|home, path| {
        let tmkms = home.join("tmkms.json");
        write_private(&tmkms, &tmkms_text(10));
        let imported = place(path).import(&tmkms).unwrap();
        assert_eq!((imported.source, imported.mark), ("tmkms", Mark::floor(at(10, Step::Prevote))));
        assert_eq!(place(path).open().unwrap().0.mark(), &imported.mark);
        assert_eq!(fs::read_to_string(&tmkms).unwrap(), tmkms_text(10), "the source is left alone");
    });
}

#[test]
fn import_only_moves_forward() {
    with_home(|home, path| {
        place(path).create(Mark::floor(at(10, Step::Prevote))).unwrap();
        let tmkms = home.join("tmkms.json");
        for height in [1, 9, 10] {
            write_private(&tmkms, &tmkms_text(height));
            let error = place(path).import(&tmkms).unwrap_err();
            assert!(matches!(error, StateError::NotForward { retired: false, .. }), "{error}");
        }
        write_private(&tmkms, &tmkms_text(11));
        assert_eq!(place(path).import(&tmkms).unwrap().mark.hrs, at(11, Step::Prevote));
    });
}

#[test]
fn a_file_of_another_host_is_refused_until_it_is_imported() {
    with_home(|_, path| {
        let there = Place { host: OTHER, ..place(path) };
        there.create(Mark::floor(at(10, Step::Prevote))).unwrap();
        let error = place(path).open().err().unwrap();
        assert!(matches!(error, StateError::Store { error: StoreError::ForeignHost { .. }, .. }), "{error}");
        let imported = place(path).import(path).unwrap();
        assert_eq!((imported.source, imported.mark.hrs), ("Highwater", at(10, Step::Prevote)));
        assert_eq!(place(path).open().unwrap().0.mark().hrs, at(10, Step::Prevote));
        assert!(there.open().is_err(), "and now it is ours");
    });
}

#[test]
fn importing_a_highwater_file_of_another_host_keeps_the_higher_mark() {
    with_home(|home, path| {
        let theirs = home.join("theirs");
        for (our_height, their_height) in [(5, 9), (9, 5)] {
            let _ = fs::remove_file(path);
            let _ = fs::remove_file(&theirs);
            Place { host: OTHER, ..place(path) }.create(Mark::floor(at(our_height, Step::Prevote))).unwrap();
            Place { host: OTHER, ..place(&theirs) }.create(Mark::floor(at(their_height, Step::Prevote))).unwrap();
            assert_eq!(place(path).import(&theirs).unwrap().mark.hrs.height, 9);
        }
    });
}

#[test]
fn files_of_other_chains_and_keys_are_never_imported() {
    with_home(|home, path| {
        let theirs = home.join("theirs");
        let identity = Identity { chain: ChainId::new("other").unwrap(), key: key(1) };
        Place { identity, ..place(&theirs) }.create(Mark::floor(at(9, Step::Prevote))).unwrap();
        let other_chain = place(path).import(&theirs).unwrap_err();
        assert!(matches!(other_chain, StateError::Store { error: StoreError::ForeignChain { .. }, .. }));
        fs::remove_file(&theirs).unwrap();
        Place { identity: Identity { chain: chain(), key: key(2) }, ..place(&theirs) }
            .create(Mark::floor(at(9, Step::Prevote)))
            .unwrap();
        let other_key = place(path).import(&theirs).unwrap_err();
        assert!(matches!(other_key, StateError::Store { error: StoreError::ForeignKey { .. }, .. }));
        assert!(!path.exists());
    });
}

#[test]
fn nothing_is_imported_from_or_into_a_file_in_use() {
    with_home(|home, path| {
        let theirs = home.join("theirs");
        place(path).create(Mark::floor(at(5, Step::Prevote))).unwrap();
        Place { host: OTHER, ..place(&theirs) }.create(Mark::floor(at(9, Step::Prevote))).unwrap();
        let locked = |result: Result<Imported, StateError>| {
            assert!(matches!(result, Err(StateError::File(FileError::Locked { .. }))), "{result:?}");
        };
        let using_theirs = StateFile::open(&theirs).unwrap();
        locked(place(path).import(&theirs));
        drop(using_theirs);
        let _using_ours = StateFile::open(path).unwrap();
        locked(place(path).import(&theirs));
        assert!(matches!(raise(path, &chain(), OURS, 9), Err(StateError::File(FileError::Locked { .. }))));
        let exported = export(path, &chain(), OURS, Program::Tmkms);
        assert!(matches!(exported, Err(StateError::File(FileError::Locked { .. }))));
        assert_eq!(show(path).unwrap().mark.hrs, at(5, Step::Prevote), "looking is always allowed");
    });
}

#[test]
fn raise_closes_whole_heights_and_only_moves_forward() {
    with_home(|_, path| {
        place(path).create(Mark::floor(at(10, Step::Prevote))).unwrap();
        assert!(matches!(raise(path, &chain(), OURS, 9), Err(StateError::NotForward { .. })));
        assert_eq!(raise(path, &chain(), OURS, 10).unwrap(), Mark::floor(Hrs::end_of(10)));
        assert!(matches!(raise(path, &chain(), OURS, 10), Err(StateError::NotForward { .. })));
        assert_eq!(raise(path, &chain(), OURS, 11).unwrap(), Mark::floor(Hrs::end_of(11)));
        let other = ChainId::new("other").unwrap();
        assert!(raise(path, &other, OURS, 20).is_err());
        assert!(raise(path, &chain(), OTHER, 20).is_err());
        assert_eq!(show(path).unwrap().mark, Mark::floor(Hrs::end_of(11)));
    });
}

#[test]
fn an_export_retires_the_file_and_can_be_repeated() {
    with_home(|home, path| {
        place(path).create(Mark::floor(at(10, Step::Prevote))).unwrap();
        let first = export(path, &chain(), OURS, Program::Tmkms).unwrap();
        assert!(!first.repeated);
        let error = place(path).open().err().unwrap();
        assert!(matches!(error, StateError::Store { error: StoreError::Retired { .. }, .. }), "{error}");
        assert!(raise(path, &chain(), OURS, 99).is_err(), "raising would hide that another program signs");
        assert_eq!(export(path, &chain(), OURS, Program::Tmkms).unwrap(), Exported { repeated: true, ..first });

        // tmkms went on to height 12 and gives its file back.
        let tmkms = home.join("tmkms.json");
        write_private(&tmkms, &tmkms_text(12));
        assert_eq!(place(path).import(&tmkms).unwrap().mark.hrs, at(12, Step::Prevote));
        assert_eq!(place(path).open().unwrap().0.mark().hrs, at(12, Step::Prevote));
    });
}

#[test]
fn a_retired_file_comes_back_only_with_a_state_above_its_own() {
    with_home(|home, path| {
        place(path).create(Mark::floor(at(10, Step::Prevote))).unwrap();
        let text = export(path, &chain(), OURS, Program::Tmkms).unwrap().text;
        let exported = home.join("exported.json");
        write_private(&exported, &text);
        let copy = home.join("copy");
        fs::copy(path, &copy).unwrap();
        let older = home.join("older.json");
        write_private(&older, &tmkms_text(3));
        // Neither the file itself, nor a copy of it, nor its own export says what tmkms has signed since.
        let refused = [path, &copy, &exported, &older].map(|from| place(path).import(from).unwrap_err());
        assert!(matches!(refused[0], StateError::Store { error: StoreError::Retired { .. }, .. }), "{}", refused[0]);
        assert!(matches!(refused[1], StateError::Store { error: StoreError::Retired { .. }, .. }), "{}", refused[1]);
        assert!(matches!(refused[2], StateError::NotForward { retired: true, .. }), "{}", refused[2]);
        assert!(matches!(refused[3], StateError::NotForward { retired: true, .. }), "{}", refused[3]);
        assert!(place(path).open().is_err());
    });
}

#[test]
fn a_cometbft_export_proves_nothing_anywhere() {
    with_home(|home, path| {
        place(path).create(Mark::floor(at(10, Step::Prevote))).unwrap();
        let text = export(path, &chain(), OURS, Program::CometBft).unwrap().text;
        let exported = home.join("priv_validator_state.json");
        write_private(&exported, &text);
        for path in [path, &home.join("elsewhere")] {
            let unproven = place(path).import(&exported).unwrap_err();
            assert!(matches!(unproven, StateError::Migration { error: MigrationError::Unproven { .. }, .. }));
        }
    });
}

#[test]
fn a_tmkms_that_went_on_running_is_not_taken_over_a_second_time() {
    with_home(|home, path| {
        write_private(path, &tmkms_text(200));
        drop(place(path).open().unwrap());
        raise(path, &chain(), OURS, 500).unwrap();
        let theirs = home.join("theirs");
        write_private(&theirs, &tmkms_text(150));
        fs::rename(&theirs, path).unwrap();
        let error = place(path).open().err().unwrap();
        assert!(matches!(error, StateError::ImportedBefore { .. }), "{error}");
        assert_eq!(fs::read_to_string(path).unwrap(), tmkms_text(150));
    });
}

#[test]
fn a_tmkms_file_that_changes_while_it_is_taken_over_is_left_alone() {
    with_home(|home, path| {
        write_private(path, &tmkms_text(100));
        let read = StateFile::open(path).unwrap();
        let newer = home.join("newer");
        write_private(&newer, &tmkms_text(101));
        fs::rename(&newer, path).unwrap();
        let error = place(path).take_place_of(&read, Mark::floor(at(100, Step::Prevote)), "tmkms").unwrap_err();
        assert!(matches!(error, StateError::File(FileError::Locked { .. })), "{error}");
        assert_eq!(fs::read_to_string(path).unwrap(), tmkms_text(101));
    });
}

#[test]
fn cometbfts_own_file_is_never_replaced_in_place() {
    with_home(|_, path| {
        for text in [r#"{"height":"0","round":0,"step":0}"#, r#"{"height":"9","round":0,"step":2}"#] {
            write_private(path, text);
            let error = place(path).import(path).unwrap_err();
            assert!(matches!(error, StateError::CometBftInPlace { .. }), "{error}");
            assert_eq!(fs::read_to_string(path).unwrap(), text);
        }
    });
}

#[test]
fn a_working_file_of_this_machine_is_no_source() {
    with_home(|home, path| {
        let other = home.join("other");
        place(&other).create(Mark::floor(at(10, Step::Prevote))).unwrap();
        let error = place(path).import(&other).unwrap_err();
        assert!(matches!(error, StateError::ActiveSource { .. }), "{error}");
        assert!(!path.exists());
    });
}

#[test]
fn what_is_no_regular_file_is_refused_without_waiting() {
    with_home(|home, path| {
        let made = std::process::Command::new("mkfifo").arg(path).status().unwrap();
        assert!(made.success());
        assert!(show(path).is_err());
        assert!(place(path).open().is_err());
        let link = home.join("link");
        std::os::unix::fs::symlink(home.join("nowhere"), &link).unwrap();
        assert!(matches!(place(&link).open(), Err(StateError::File(FileError::DeadLink { .. }))));
    });
}

#[test]
fn a_damaged_file_is_never_opened_raised_exported_or_imported_over() {
    with_home(|home, path| {
        place(path).create(Mark::floor(at(10, Step::Prevote))).unwrap();
        let mut bytes = fs::read(path).unwrap();
        bytes[4096 + 42] ^= 1;
        fs::write(path, &bytes).unwrap();
        let tmkms = home.join("tmkms.json");
        write_private(&tmkms, &tmkms_text(99));
        let errors = [
            place(path).open().err().unwrap(),
            raise(path, &chain(), OURS, 99).unwrap_err(),
            export(path, &chain(), OURS, Program::Tmkms).unwrap_err(),
            place(path).import(&tmkms).unwrap_err(),
            show(path).unwrap_err(),
        ];
        for error in errors {
            assert!(matches!(error, StateError::Store { error: StoreError::Damaged(_), .. }), "{error}");
            assert!(error.to_string().contains("the mark that survives is 10/0/prevote"), "{error}");
        }
        assert_eq!(fs::read(path).unwrap(), bytes);
    });
}

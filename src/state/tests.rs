//! State files through everything that an operator does to them.

use super::*;
use crate::{
    config::{KeyFormat, watermark_beside},
    keyring::softsign::SecretKey,
    state::foreign,
};
use highwater_core::consensus::{KeyType, PublicKey, Step};
use std::{fs, os::unix::fs::PermissionsExt as _};

const OURS: HostId = HostId([1; 16]);
const OTHER: HostId = HostId([2; 16]);

fn chain() -> ChainId {
    ChainId::new("test-chain").unwrap()
}

fn key(seed: u8) -> PublicKey {
    SecretKey::from_raw(KeyType::Ed25519, &[seed; 32]).unwrap().public_key()
}

/// The place of a chain whose tmkms.toml names `state_file`.
fn place(state_file: &Path) -> Place {
    let identity = Identity { chain: chain(), key: key(1) };
    Place { path: watermark_beside(state_file), theirs: Theirs::new(state_file), identity, host: OURS }
}

/// The same on another machine.
fn elsewhere(state_file: &Path) -> Place {
    Place { host: OTHER, ..place(state_file) }
}

fn open(place: &Place) -> Result<Store, StateError> {
    place.open(lock(&place.path, &place.theirs)?)
}

fn import(place: &Place, from: &Path) -> Result<Imported, StateError> {
    place.import(Some(from), Age::Unknown)
}

fn names(home: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(home).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// The findings about other programs beside a signer at `mark`: whether each keeps the chain closed, and its text.
fn told(place: &Place, mark: Hrs) -> Vec<(bool, String)> {
    let rivals = place.theirs.still_written(&place.identity, &place.path, &Mark::floor(mark));
    let shown = rivals.into_iter().map(|rival| match rival {
        Rival::Above(error) => (true, error.to_string()),
        Rival::Below(text) => (false, text),
    });
    shown.collect()
}

fn is_tombstone(path: &Path) -> bool {
    foreign::is_tombstone(&fs::read_to_string(path).unwrap())
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
fn start_never_takes_a_foreign_file_and_names_the_command_that_does() {
    with_home(|home, path| {
        for text in [tmkms_text(10), r#"{"height":"0","round":0,"step":0}"#.into(), "garbage".into()] {
            write_private(path, &text);
            let error = open(&place(path)).err().unwrap();
            assert!(matches!(error, StateError::NotImported { .. }), "{error}");
            assert!(error.to_string().contains("run `highwater state import`"), "{error}");
            assert_eq!(fs::read_to_string(path).unwrap(), text);
            assert_eq!(names(home), ["state.json"]);
        }
    });
}

#[test]
fn an_import_leaves_a_tombstone_and_keeps_what_stood_there() {
    with_home(|home, path| {
        write_private(path, &tmkms_text(10));
        let imported = place(path).import(None, Age::Unknown).unwrap();
        assert_eq!(
            (imported.source, imported.mark),
            (ImportSource::Foreign(Program::Tmkms), Mark::floor(at(10, Step::Prevote)))
        );
        assert_eq!(fs::read_to_string(imported.kept.unwrap()).unwrap(), tmkms_text(10));
        assert!(is_tombstone(path));
        assert_eq!(names(home), ["state.json", "state.json.highwater", "state.json.imported"]);
        assert_eq!(open(&place(path)).unwrap().mark().hrs, at(10, Step::Prevote));
        assert_eq!(told(&place(path), imported.mark.hrs), []);
        // The tombstone holds no mark.
        let error = import(&place(path), path).unwrap_err();
        assert!(matches!(error, StateError::Migration { error: MigrationError::Tombstone, .. }), "{error}");
    });
}

#[test]
fn no_foreign_file_takes_a_mark_back_however_it_comes() {
    with_home(|home, path| {
        write_private(path, &tmkms_text(200));
        let kept = place(path).import(None, Age::Unknown).unwrap().kept.unwrap();
        raise(&watermark_beside(path), &chain(), OURS, 500).unwrap();
        let renamed = home.join("renamed");
        write_private(&renamed, &tmkms_text(150));
        // tmkms, left running, renames its own over the tombstone; somebody moves the kept file back.
        for source in [renamed, kept] {
            fs::rename(&source, path).unwrap();
            assert_eq!(open(&place(path)).unwrap().mark().hrs, Hrs::end_of(500));
            let told = told(&place(path), Hrs::end_of(500));
            assert!(!told[0].0 && told[0].1.contains("has written its state"), "{told:?}");
            let error = place(path).import(None, Age::Unknown).unwrap_err();
            let text = error.to_string();
            assert!(text.contains("is at height 500") || text.contains("500"), "{text}");
            assert!(matches!(error, StateError::NotForward { retired: false, .. }), "{text}");
            assert_eq!(open(&place(path)).unwrap().mark().hrs, Hrs::end_of(500));
        }
    });
}

#[test]
fn a_link_or_a_mount_in_the_place_of_tmkmss_file_is_seen_through() {
    with_home(|home, path| {
        let target = home.join("target.json");
        write_private(&target, &tmkms_text(10));
        std::os::unix::fs::symlink(&target, path).unwrap();
        place(path).import(None, Age::Unknown).unwrap();
        assert!(path.is_symlink() && is_tombstone(&target));
        assert_eq!(fs::read_to_string(home.join("target.json.imported")).unwrap(), tmkms_text(10));
        assert_eq!(open(&place(path)).unwrap().mark().hrs, at(10, Step::Prevote));
    });
}

#[test]
fn what_names_a_key_twice_or_says_height_zero_or_is_older_than_the_boot_is_not_imported() {
    with_home(|home, path| {
        let twice = [
            r#"{"height":"1234","height":"5","round":"0","step":2,"block_id":null}"#,
            r#"{"height":"1234","round":"0","step":2,"step":0,"block_id":null}"#,
            r#"{"height":"1234","round":"0","step":2,"block_id":{"hash":"","hash":"","parts":null}}"#,
            r#"{"height":"9","height":"8","round":0,"step":2,"signature":"AA==","signbytes":"00"}"#,
        ];
        for text in twice {
            write_private(path, text);
            let error = place(path).import(None, Age::Checked).unwrap_err();
            assert!(error.to_string().contains("twice"), "{error}");
        }
        for text in [r#"{"height":"0","round":"0","step":0,"block_id":null}"#, r#"{"height":"0","round":0,"step":0}"#] {
            write_private(path, text);
            let error = place(path).import(None, Age::Checked).unwrap_err();
            assert!(error.to_string().contains("`highwater state init --never-signed`"), "{error}");
        }
        write_private(path, &tmkms_text(10));
        fs::File::open(path).unwrap().set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
        let error = place(path).import(None, Age::Unknown).unwrap_err();
        assert!(matches!(error, StateError::OlderThanBoot { .. }), "{error}");
        assert!(error.to_string().contains("--i-checked-the-height"), "{error}");
        assert_eq!(names(home), ["state.json"]);
        place(path).import(None, Age::Checked).unwrap();
    });
}

#[test]
fn an_import_that_was_interrupted_is_finished_by_the_same_command() {
    with_home(|_, path| {
        // Died between our file and the tombstone.
        write_private(path, &tmkms_text(10));
        place(path).create_at(Mark::floor(at(10, Step::Prevote))).unwrap();
        place(path).import(None, Age::Unknown).unwrap();
        assert!(is_tombstone(path));
        // The tombstone was removed.
        fs::remove_file(path).unwrap();
        assert!(told(&place(path), Hrs::GENESIS)[0].1.contains("height 0"));
        place(path).import(None, Age::Unknown).unwrap();
        assert!(is_tombstone(path));
        assert_eq!(open(&place(path)).unwrap().mark().hrs, at(10, Step::Prevote));
    });
}

#[test]
fn init_leaves_a_tombstone_and_never_goes_below_tmkms() {
    with_home(|home, path| {
        write_private(path, &tmkms_text(10));
        for mark in [Mark::NEVER_SIGNED, Mark::floor(Hrs::end_of(9))] {
            let error = place(path).create(mark).unwrap_err();
            assert!(matches!(error, StateError::BelowTheirs { .. }), "{error}");
        }
        write_private(path, r#"{"height": "1234", "round": "0", "step":"#);
        assert!(place(path).create(Mark::NEVER_SIGNED).is_err(), "its mark is unknown");
        assert_eq!(names(home), ["state.json"]);
        assert!(place(path).create(Mark::floor(Hrs::end_of(2000))).unwrap().is_some());
        assert!(is_tombstone(path));
    });
    for before in [None, Some(r#"{"height":"0","round":"0","step":0,"block_id":null}"#)] {
        with_home(|_, path| {
            if let Some(text) = before {
                write_private(path, text);
            }
            place(path).create(Mark::NEVER_SIGNED).unwrap();
            assert!(is_tombstone(path));
            assert!(matches!(place(path).create(Mark::NEVER_SIGNED), Err(StateError::File(FileError::Exists { .. }))));
        });
    }
}

#[test]
fn a_lost_state_file_is_told_by_its_tombstone() {
    with_home(|_, path| {
        assert!(matches!(open(&place(path)), Err(StateError::File(FileError::Missing { .. }))));
        place(path).create(Mark::floor(at(10, Step::Prevote))).unwrap();
        fs::remove_file(watermark_beside(path)).unwrap();
        let error = open(&place(path)).err().unwrap();
        assert!(matches!(error, StateError::Lost { .. }), "{error}");
        assert!(!error.to_string().contains("--never-signed"), "{error}");
    });
    // What was imported once does not show what was signed since.
    with_home(|_, path| {
        write_private(path, &tmkms_text(10));
        let kept = place(path).import(None, Age::Unknown).unwrap().kept.unwrap();
        raise(&watermark_beside(path), &chain(), OURS, 20).unwrap();
        fs::remove_file(watermark_beside(path)).unwrap();
        let refused = [import(&place(path), &kept).unwrap_err(), place(path).create(Mark::NEVER_SIGNED).unwrap_err()];
        for error in refused {
            assert!(matches!(error, StateError::Lost { .. }), "{error}");
        }
        assert!(!watermark_beside(path).exists());
        place(path).create(Mark::floor(Hrs::end_of(22))).unwrap();
    });
}

#[test]
fn a_tmkms_that_signed_above_our_mark_keeps_the_chain_closed_until_it_is_imported() {
    with_home(|_, path| {
        place(path).create_at(Mark::floor(at(10, Step::Prevote))).unwrap();
        write_private(path, &tmkms_text(17));
        let above = told(&place(path), at(10, Step::Prevote));
        assert!(above[0].0 && above[0].1.contains("has signed at 17/0/prevote"), "{above:?}");
        assert_eq!(place(path).import(None, Age::Unknown).unwrap().mark.hrs, at(17, Step::Prevote));
        assert_eq!(told(&place(path), at(17, Step::Prevote)), []);
    });
}

#[test]
fn an_import_from_elsewhere_never_goes_below_what_tmkms_has_signed_in_its_own_place() {
    with_home(|home, path| {
        write_private(path, &tmkms_text(500));
        let older = home.join("older.json");
        write_private(&older, &tmkms_text(100));
        let error = import(&place(path), &older).unwrap_err();
        assert!(matches!(error, StateError::BelowTheirs { .. }), "{error}");
        assert!(!watermark_beside(path).exists());
    });
}

#[test]
fn what_is_no_state_file_is_refused_and_left_alone() {
    with_home(|_, path| {
        for text in ["", "garbage", "{\"height\":"] {
            write_private(path, text);
            assert!(open(&place(path)).is_err(), "{text:?}");
            assert!(place(path).import(None, Age::Unknown).is_err(), "{text:?}");
            assert_eq!(fs::read_to_string(path).unwrap(), text);
            write_private(&watermark_beside(path), text);
            assert!(open(&place(path)).is_err(), "{text:?}");
            assert_eq!(fs::read_to_string(watermark_beside(path)).unwrap(), text);
            fs::remove_file(watermark_beside(path)).unwrap();
        }
    });
}

#[test]
fn import_makes_a_file_where_there_is_none_and_remembers_where_the_mark_came_from() {
    with_home(|home, path| {
        let tmkms = home.join("tmkms.json");
        write_private(&tmkms, &tmkms_text(10));
        let imported = import(&place(path), &tmkms).unwrap();
        assert_eq!(
            (imported.source, imported.mark),
            (ImportSource::Foreign(Program::Tmkms), Mark::floor(at(10, Step::Prevote)))
        );
        assert_eq!(open(&place(path)).unwrap().mark(), &imported.mark);
        assert_eq!(fs::read_to_string(&tmkms).unwrap(), tmkms_text(10), "the source is left alone");
        assert!(is_tombstone(path));
        assert_eq!(told(&place(path), imported.mark.hrs), []);
        write_private(&tmkms, &tmkms_text(11));
        let beyond = told(&place(path), at(11, Step::Prevote));
        assert!(!beyond[0].0 && beyond[0].1.contains("has gone on writing its state"), "{beyond:?}");
        // Our mark does not cover what it has signed above it.
        let above = told(&place(path), imported.mark.hrs);
        assert!(above[0].0 && above[0].1.contains("above the mark of this signer"), "{above:?}");
    });
}

#[test]
fn import_only_moves_forward() {
    with_home(|home, path| {
        place(path).create(Mark::floor(at(10, Step::Prevote))).unwrap();
        let tmkms = home.join("tmkms.json");
        for height in [1, 9, 10] {
            write_private(&tmkms, &tmkms_text(height));
            let error = import(&place(path), &tmkms).unwrap_err();
            assert!(matches!(error, StateError::NotForward { retired: false, .. }), "{error}");
            let text = error.to_string();
            assert!(text.contains("10/0/prevote") && text.contains(&format!("{height}/0/prevote")), "{text}");
        }
        write_private(&tmkms, &tmkms_text(11));
        assert_eq!(import(&place(path), &tmkms).unwrap().mark.hrs, at(11, Step::Prevote));
    });
}

#[test]
fn a_file_of_another_host_is_refused_until_it_is_imported() {
    with_home(|_, path| {
        elsewhere(path).create(Mark::floor(at(10, Step::Prevote))).unwrap();
        let error = open(&place(path)).err().unwrap();
        assert!(matches!(error, StateError::Store { error: StoreError::ForeignHost { .. }, .. }), "{error}");
        let imported = import(&place(path), &watermark_beside(path)).unwrap();
        assert_eq!((imported.source, imported.mark.hrs), (ImportSource::Highwater, at(10, Step::Prevote)));
        assert_eq!(open(&place(path)).unwrap().mark().hrs, at(10, Step::Prevote));
        assert!(open(&elsewhere(path)).is_err(), "and now it is ours");
    });
}

#[test]
fn a_copy_is_refused_until_it_is_imported() {
    with_home(|home, path| {
        let original = home.join("original");
        place(&original).create(Mark::floor(at(10, Step::Prevote))).unwrap();
        fs::copy(watermark_beside(&original), watermark_beside(path)).unwrap();
        let error = open(&place(path)).err().unwrap();
        assert!(matches!(error, StateError::Store { error: StoreError::Copy { .. }, .. }), "{error}");
        for from in [watermark_beside(path), watermark_beside(&home.join("elsewhere"))] {
            let _ = fs::copy(watermark_beside(&original), &from);
            let error = import(&place(path), &from).unwrap_err();
            assert!(matches!(error, StateError::CopyUnchecked { .. }), "{error}");
        }
        // Nor does another program's lower state make it one that may be used.
        let lower = home.join("lower.json");
        write_private(&lower, &tmkms_text(5));
        let error = import(&place(path), &lower).unwrap_err();
        assert!(matches!(error, StateError::CopyUnchecked { .. }), "{error}");
        let imported = place(path).import(Some(&watermark_beside(path)), Age::Checked).unwrap();
        assert_eq!(imported.mark, Mark::floor(at(10, Step::Prevote)));
        assert_eq!(open(&place(path)).unwrap().mark().hrs, at(10, Step::Prevote));
    });
}

#[test]
fn importing_a_highwater_file_of_another_host_keeps_the_higher_mark() {
    with_home(|home, path| {
        let theirs = home.join("theirs");
        for (our_height, their_height) in [(5, 9), (9, 5)] {
            let _ = fs::remove_file(watermark_beside(path));
            let _ = fs::remove_file(watermark_beside(&theirs));
            elsewhere(path).create(Mark::floor(at(our_height, Step::Prevote))).unwrap();
            elsewhere(&theirs).create(Mark::floor(at(their_height, Step::Prevote))).unwrap();
            import(&place(path), &watermark_beside(&theirs)).unwrap();
            assert_eq!(open(&place(path)).unwrap().mark().hrs.height, 9);
        }
    });
}

#[test]
fn files_of_other_chains_and_keys_are_never_imported() {
    with_home(|home, path| {
        let theirs = home.join("theirs");
        let mark = Mark::floor(at(9, Step::Prevote));
        let identity = Identity { chain: ChainId::new("other").unwrap(), key: key(1) };
        Place { identity, ..place(&theirs) }.create(mark).unwrap();
        let other_chain = import(&place(path), &watermark_beside(&theirs)).unwrap_err();
        assert!(matches!(other_chain, StateError::Store { error: StoreError::ForeignChain { .. }, .. }));
        fs::remove_file(watermark_beside(&theirs)).unwrap();
        Place { identity: Identity { chain: chain(), key: key(2) }, ..place(&theirs) }.create(mark).unwrap();
        let other_key = import(&place(path), &watermark_beside(&theirs)).unwrap_err();
        assert!(matches!(other_key, StateError::Store { error: StoreError::ForeignKey { .. }, .. }));
        assert!(!watermark_beside(path).exists());
    });
}

#[test]
fn nothing_is_imported_from_or_into_a_file_in_use() {
    with_home(|home, path| {
        let theirs = home.join("theirs");
        place(path).create(Mark::floor(at(5, Step::Prevote))).unwrap();
        elsewhere(&theirs).create(Mark::floor(at(9, Step::Prevote))).unwrap();
        let locked = |result: Result<Imported, StateError>| {
            assert!(matches!(result, Err(StateError::File(FileError::Locked { .. }))), "{result:?}");
        };
        let using_theirs = StateFile::open(&watermark_beside(&theirs)).unwrap();
        locked(import(&place(path), &watermark_beside(&theirs)));
        drop(using_theirs);
        let ours = watermark_beside(path);
        let _using_ours = StateFile::open(&ours).unwrap();
        locked(import(&place(path), &watermark_beside(&theirs)));
        assert!(matches!(raise(&ours, &chain(), OURS, 9), Err(StateError::File(FileError::Locked { .. }))));
        assert!(matches!(export(&ours, &chain(), OURS), Err(StateError::File(FileError::Locked { .. }))));
        assert_eq!(show(&ours).unwrap().mark.hrs, at(5, Step::Prevote), "showing is always allowed");
    });
}

#[test]
fn raise_closes_whole_heights_and_only_moves_forward() {
    with_home(|_, path| {
        place(path).create(Mark::floor(at(10, Step::Prevote))).unwrap();
        let path = &watermark_beside(path);
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

/// Exports the mark to tmkms, over the tombstone.
fn give_back(path: &Path) -> Exported {
    let exported = export(&watermark_beside(path), &chain(), OURS).unwrap();
    place(path).theirs.give_back(&exported.mark, &place(path).identity).unwrap();
    exported
}

#[test]
fn an_export_retires_the_file_takes_the_tombstones_place_and_can_be_repeated() {
    with_home(|_, path| {
        let mark = Mark::floor(at(10, Step::Prevote));
        place(path).create(mark).unwrap();
        assert_eq!(give_back(path), Exported { mark, repeated: false });
        assert_eq!(
            place(path).theirs.look(&place(path).identity),
            Standing::State(Foreign { program: Program::Tmkms, mark })
        );
        let error = open(&place(path)).err().unwrap();
        assert!(matches!(error, StateError::Store { error: StoreError::Retired { .. }, .. }), "{error}");
        assert!(
            raise(&watermark_beside(path), &chain(), OURS, 99).is_err(),
            "raising would hide that another program signs"
        );
        assert_eq!(give_back(path), Exported { mark, repeated: true });

        // tmkms goes on to height 12 and gives its file back.
        write_private(path, &tmkms_text(12));
        let refused = place(path).theirs.give_back(&mark, &place(path).identity).unwrap_err();
        assert!(matches!(refused, StateError::TheirsInPlace { .. }), "{refused}");
        assert_eq!(place(path).import(None, Age::Unknown).unwrap().mark.hrs, at(12, Step::Prevote));
        assert_eq!(open(&place(path)).unwrap().mark().hrs, at(12, Step::Prevote));
        assert!(is_tombstone(path));
    });
}

#[test]
fn a_retired_file_comes_back_only_with_a_state_above_its_own() {
    with_home(|home, path| {
        place(path).create(Mark::floor(at(10, Step::Prevote))).unwrap();
        give_back(path);
        let ours = watermark_beside(path);
        let copy = home.join("copy");
        fs::copy(&ours, &copy).unwrap();
        let older = home.join("older.json");
        write_private(&older, &tmkms_text(3));
        // Neither the file itself, nor a copy of it, nor its own export shows what tmkms has signed since.
        let refused = [&ours, &copy, path, &older].map(|from| import(&place(path), from).unwrap_err());
        assert!(matches!(refused[0], StateError::Store { error: StoreError::Retired { .. }, .. }), "{}", refused[0]);
        assert!(matches!(refused[1], StateError::Store { error: StoreError::Retired { .. }, .. }), "{}", refused[1]);
        assert!(matches!(refused[2], StateError::NotForward { retired: true, .. }), "{}", refused[2]);
        assert!(matches!(refused[3], StateError::BelowTheirs { .. }), "{}", refused[3]);
        assert!(open(&place(path)).is_err());
    });
}

#[test]
fn a_cometbft_export_proves_nothing_anywhere() {
    with_home(|home, path| {
        place(path).create(Mark::floor(at(10, Step::Prevote))).unwrap();
        let mark = export(&watermark_beside(path), &chain(), OURS).unwrap().mark;
        let exported = home.join("priv_validator_state.json");
        write_private(&exported, &foreign::write(Program::CometBft, &mark));
        for path in [path, &home.join("elsewhere")] {
            let unproven = import(&place(path), &exported).unwrap_err();
            assert!(matches!(unproven, StateError::Migration { error: MigrationError::Unproven { .. }, .. }));
        }
    });
}

#[test]
fn a_tmkms_file_that_changes_while_it_is_imported_is_left_alone() {
    with_home(|home, path| {
        write_private(path, &tmkms_text(100));
        let standing = place(path).theirs.look(&place(path).identity);
        let newer = home.join("newer");
        write_private(&newer, &tmkms_text(101));
        fs::rename(&newer, path).unwrap();
        let error = place(path).theirs.bury(&standing, &place(path).identity).unwrap_err();
        assert!(matches!(error, StateError::TheirsAtWork { .. }), "{error}");
        assert_eq!(fs::read_to_string(path).unwrap(), tmkms_text(101));
        // The next try finds it as it is now.
        assert_eq!(place(path).import(None, Age::Unknown).unwrap().mark.hrs.height, 101);
        assert!(is_tombstone(path));
    });
}

#[test]
fn cometbfts_own_file_is_never_replaced_in_place() {
    with_home(|_, path| {
        for text in [r#"{"height":"0","round":0,"step":0}"#, r#"{"height":"9","round":0,"step":2}"#] {
            write_private(path, text);
            assert!(place(path).import(None, Age::Unknown).is_err());
            assert_eq!(fs::read_to_string(path).unwrap(), text);
        }
    });
}

#[test]
fn a_working_file_of_this_machine_is_no_source() {
    with_home(|home, path| {
        let other = home.join("other");
        place(&other).create(Mark::floor(at(10, Step::Prevote))).unwrap();
        let error = import(&place(path), &watermark_beside(&other)).unwrap_err();
        assert!(matches!(error, StateError::ActiveSource { .. }), "{error}");
        assert!(!watermark_beside(path).exists());
    });
}

#[test]
fn what_is_no_regular_file_is_refused_without_waiting() {
    with_home(|home, path| {
        let made = std::process::Command::new("mkfifo").arg(path).arg(watermark_beside(path)).status().unwrap();
        assert!(made.success());
        assert!(show(&watermark_beside(path)).is_err());
        assert!(open(&place(path)).is_err());
        assert!(place(path).import(None, Age::Unknown).is_err());
        let link = home.join("link");
        std::os::unix::fs::symlink(home.join("nowhere"), watermark_beside(&link)).unwrap();
        assert!(matches!(open(&place(&link)), Err(StateError::File(FileError::DeadLink { .. }))));
    });
}

#[test]
fn a_damaged_file_is_never_opened_raised_exported_or_imported_over() {
    with_home(|home, path| {
        place(path).create(Mark::floor(at(10, Step::Prevote))).unwrap();
        let ours = watermark_beside(path);
        let mut bytes = fs::read(&ours).unwrap();
        bytes[2 * 4096 + 42] ^= 1;
        fs::write(&ours, &bytes).unwrap();
        let tmkms = home.join("tmkms.json");
        write_private(&tmkms, &tmkms_text(99));
        let errors = [
            open(&place(path)).err().unwrap(),
            raise(&ours, &chain(), OURS, 99).unwrap_err(),
            export(&ours, &chain(), OURS).unwrap_err(),
            import(&place(path), &tmkms).unwrap_err(),
            show(&ours).unwrap_err(),
        ];
        for error in errors {
            assert!(matches!(error, StateError::Store { error: StoreError::Damaged(_), .. }), "{error}");
            assert!(error.to_string().contains("the mark that survives is 10/0/prevote"), "{error}");
        }
        assert_eq!(fs::read(&ours).unwrap(), bytes);
    });
}

#[test]
fn a_state_file_pins_the_key_of_its_own_chain_and_kind() {
    let directory = tempfile::tempdir().unwrap();
    let chain = |id: &str| ChainConfig {
        id: ChainId::new(id).unwrap(),
        key_format: KeyFormat::Hex,
        state_file: directory.path().join("state"),
        state_hook: None,
        allow_raw_bytes: false,
        line: 1,
    };
    assert_eq!(key_in_state_file(&chain("test-1"), KeyType::Ed25519), None);
    let identity = Identity { chain: ChainId::new("test-1").unwrap(), key: key(1) };
    let host = HostId::of_this_machine().unwrap();
    watermark::create(&chain("test-1").watermark(), host, &identity, Mark::NEVER_SIGNED).unwrap();
    assert_eq!(key_in_state_file(&chain("test-1"), KeyType::Ed25519), Some(key(1)));
    assert_eq!(key_in_state_file(&chain("test-1"), KeyType::Secp256k1), None);
    assert_eq!(key_in_state_file(&chain("test-2"), KeyType::Ed25519), None);
}

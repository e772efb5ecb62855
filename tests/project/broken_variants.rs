//! Proof that the tests can fail: the signer with deliberate bugs, and the tests that have to notice each of them.
//!
//! The bugs are the `broken!` lines in `src/`. They are compiled in by `--cfg highwater_broken` alone, which
//! `tests/broken/rustc.sh` adds, and switched on by the variable `HIGHWATER_BROKEN`.

use crate::support::assurance;
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// The unit tests, as a target.
const UNIT: &str = "highwater";
/// Those of highwater-core, and its own tests of the promises.
const CORE: &str = "core/highwater_core";
const CORE_DURABLE_FIRST: &str = "core/durable_first";
const CORE_NEVER_TWO: &str = "core/never_two";
const COMETBFT: &str = "cometbft";
const COMMANDS: &str = "commands";
const DURABLE_FIRST: &str = "durable_first";
const NEVER_TWO: &str = "never_two";

/// Each bug, a target, and its tests that have to fail with the bug.
const VARIANTS: &[(&str, &str, &[&str])] = &[
    (
        "audit_unheeded",
        COMMANDS,
        &["one_decision::a_state_below_what_the_audit_file_lists_keeps_its_chain_closed_until_it_is_raised"],
    ),
    ("cache_of_another_mark", CORE, &["chain::tests::the_signature_of_one_mark_is_never_given_for_another"]),
    (
        "copy_unnoticed",
        CORE,
        &[
            "watermark::file::tests::a_file_that_was_copied_untarred_or_restored_is_a_copy",
            "watermark::store::tests::a_copy_of_a_file_is_no_file_of_ours",
        ],
    ),
    ("copy_unnoticed", UNIT, &["state::tests::a_copy_is_refused_until_it_is_imported"]),
    ("flush_after_release", CORE_DURABLE_FIRST, &[NO_CRASH]),
    ("flush_after_release", DURABLE_FIRST, &[SIGNATURE_AFTER_FLUSH]),
    (
        "import_unproven",
        UNIT,
        &[
            "state::foreign::tests::a_cometbft_file_proves_its_chain_key_and_height",
            "state::foreign::tests::a_cometbft_file_that_was_changed_by_hand_is_refused",
        ],
    ),
    ("import_unproven", COMETBFT, &["tmkms::a_cometbft_state_that_proves_nothing_is_refused_and_changes_nothing"]),
    ("machine_lock_ignored", COMMANDS, &["state::one_signer_for_a_chain_and_key_runs_on_a_machine_whatever_its_files"]),
    ("machine_lock_ignored", UNIT, &["daemon::claim::tests::a_chain_and_key_are_claimed_once_and_do_not_block_others"]),
    ("newest_not_rewritten", CORE_DURABLE_FIRST, &[NO_CRASH]),
    ("newest_not_rewritten", NEVER_TWO, &[NO_WORLD]),
    ("no_flush", CORE_DURABLE_FIRST, &[NO_CRASH, NO_TEAR]),
    ("no_flush", DURABLE_FIRST, &[SIGNATURE_AFTER_FLUSH, FAULT_STOPS]),
    ("no_flush", NEVER_TWO, &[NO_WORLD]),
    ("no_lock", CORE, &["watermark::file::tests::a_second_opener_is_refused_while_the_first_lives"]),
    ("no_stop_after_error", CORE_DURABLE_FIRST, &[NO_CRASH]),
    ("no_stop_after_error", DURABLE_FIRST, &[FAULT_STOPS]),
    ("no_stop_after_error", NEVER_TWO, &[NO_WORLD]),
    (
        "older_slot_fallback",
        CORE_DURABLE_FIRST,
        &[
            "bad_files::a_changed_bit_anywhere_in_a_record_is_refused",
            "bad_files::a_file_of_any_other_length_is_refused",
            "crash_states::a_rotten_slot_is_never_passed_over_whatever_went_before",
        ],
    ),
    (
        "overwrite_unnoticed",
        CORE,
        &[
            "watermark::file::tests::whoever_overwrites_the_file_of_a_store_in_place_stops_it",
            "watermark::store::tests::whoever_writes_into_a_file_in_use_stops_its_store",
        ],
    ),
    ("release_unchecked", CORE, &["chain::tests::a_mark_releases_nothing_but_its_own_message"]),
    (
        "rename_without_sync",
        DURABLE_FIRST,
        &[
            "order::start_flushes_the_file_and_its_name_before_it_relies_on_them",
            "order::what_a_command_makes_is_on_the_disk_with_its_name_before_the_command_ends",
        ],
    ),
    (
        "replacement_unnoticed",
        CORE,
        &[
            "chain::tests::a_replaced_state_file_stops_the_chain_and_the_signature_is_discarded",
            "watermark::file::tests::a_rename_over_our_file_is_noticed_before_the_next_release",
        ],
    ),
    ("rule_comparison_flipped", DURABLE_FIRST, &["kills::no_kill_at_work_leads_to_a_double_sign"]),
    ("rule_comparison_flipped", CORE_NEVER_TWO, &[EVERY_HISTORY, RANDOM_HISTORIES]),
    ("rule_comparison_flipped", NEVER_TWO, &[LIKE_COMETBFT, NO_WORLD]),
    ("rule_comparison_flipped", CORE, &[RULE_AGREES, RULE_REFUSES]),
    ("rule_digest_ignored", CORE_NEVER_TWO, &[EVERY_HISTORY, RANDOM_HISTORIES]),
    ("rule_digest_ignored", NEVER_TWO, &[LIKE_COMETBFT, NODES, NO_WORLD]),
    ("rule_digest_ignored", CORE, &[RULE_AGREES, RULE_REFUSES]),
    ("start_imports", COMETBFT, &["tmkms::a_tmkms_that_still_runs_takes_no_mark_of_ours_back"]),
    ("start_imports", UNIT, &["state::tests::no_foreign_file_takes_a_mark_back_however_it_comes"]),
    ("signature_unverified", NEVER_TWO, &[NO_WORLD]),
    ("signature_unverified", UNIT, &["keyring::device::tests::a_wrong_signature_never_leaves_even_twice"]),
];

const EVERY_HISTORY: &str = "exhaustive::the_rule_keeps_the_promise_over_every_history_of_up_to_four_steps";
const FAULT_STOPS: &str = "faults::a_failed_write_flush_or_look_stops_its_chain_until_a_restart_and_no_other";
const LIKE_COMETBFT: &str = "filepv::random_histories_differ_from_cometbft_only_where_we_meant_it";
const NODES: &str = "nodes::nodes_that_ask_at_once_and_a_signer_that_is_killed_never_make_two";
const NO_CRASH: &str = "crash_states::no_crash_takes_the_store_below_a_released_mark_whatever_fails_in_two_lives";
const NO_TEAR: &str =
    "crash_states::no_power_cut_that_tears_a_record_at_any_byte_takes_the_store_below_a_released_mark";
const NO_WORLD: &str = "simulator::no_world_makes_two";
const RANDOM_HISTORIES: &str = "arbitrary::the_rule_keeps_the_promise_over_random_histories";
const RULE_AGREES: &str = "watermark::rule::tests::the_rule_agrees_with_the_reference_over_every_history_of_three";
const RULE_REFUSES: &str = "watermark::rule::tests::two_different_messages_never_get_signed_at_one_place";
const SIGNATURE_AFTER_FLUSH: &str = "order::every_signature_that_leaves_a_socket_comes_after_the_flush_of_its_mark";

/// Builds every target of the table with the bugs in it, beside the ordinary build: the dependencies are shared, the
/// program is another file. Gives the executables.
fn build() -> BTreeMap<String, PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["test", "--locked", "--no-run", "--message-format=json", "--lib"]).current_dir(root);
    // A name stands for the targets of both crates that have it.
    let names: BTreeSet<_> = VARIANTS.iter().map(|(_, target, _)| target.trim_start_matches("core/")).collect();
    for name in names.iter().filter(|name| !name.starts_with(UNIT)) {
        cargo.args(["--test", name]);
    }
    cargo.env("RUSTC_WORKSPACE_WRAPPER", root.join("tests/broken/rustc.sh"));
    // Cargo before 1.91 does not know the second, and builds the dependencies once more.
    cargo.env("CARGO_TARGET_DIR", target.join("broken")).env("CARGO_BUILD_BUILD_DIR", target);
    let output = cargo.stdin(Stdio::null()).stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), "the broken build fails");

    let lines = String::from_utf8(output.stdout).unwrap();
    let messages = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let tests = messages.filter(|message| message["profile"]["test"] == true);
    let found = |message: Value| {
        let executable = message["executable"].as_str()?;
        let folder = if message["package_id"].as_str()?.contains("/core#") { "core/" } else { "" };
        Some((format!("{folder}{}", message["target"]["name"].as_str()?), executable.into()))
    };
    tests.filter_map(found).collect()
}

/// Whether a test passes. It must exist.
fn passes(executable: &Path, test: &str, bug: Option<&str>) -> bool {
    let mut command = Command::new(executable);
    command
        .args([test, "--exact", "--nocapture"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env_remove("HIGHWATER_BROKEN");
    if let Some(bug) = bug {
        command.env("HIGHWATER_BROKEN", bug);
    }
    let output = command.stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("running 1 test"), "there is no test {test}: {said}");
    let skipped =
        ["*** SKIPPED", "*** NOT CHECKED"].iter().any(|word| String::from_utf8_lossy(&output.stderr).contains(word));
    assert!(!skipped, "{test} is skipped on this machine");
    output.status.success()
}

#[test]
#[ignore = "builds the signer once more; run by `make assurance`"]
fn every_deliberate_bug_is_noticed() {
    let executables = build();
    let rows = VARIANTS.iter().flat_map(|(bug, target, tests)| tests.iter().map(move |test| (*bug, *target, *test)));
    let tests: BTreeSet<_> = rows.clone().map(|(_, target, test)| (target, test)).collect();
    for (target, test) in tests {
        assert!(passes(&executables[target], test, None), "{test} fails without a bug");
    }
    let unnoticed: Vec<_> = rows.filter(|(bug, target, test)| passes(&executables[*target], test, Some(bug))).collect();
    assert!(unnoticed.is_empty(), "passed by tests that should have noticed: {unnoticed:#?}");
    let bugs: BTreeSet<_> = VARIANTS.iter().map(|(bug, ..)| *bug).collect();
    assurance::report("durable first", "deliberate bugs, each noticed by every test named for it", bugs.len() as u64);
}

#[test]
fn the_table_knows_every_bug_and_no_other() {
    let mut marked = BTreeSet::new();
    for sources in ["src", "core/src"] {
        walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join(sources), &mut |text| {
            let marks = text.split("broken!(\"").skip(1).map(|rest| rest.split('"').next().unwrap().to_owned());
            marked.extend(marks);
        });
    }
    // The example in the documentation of the macro.
    marked.remove("name");
    let known: BTreeSet<_> = VARIANTS.iter().map(|(bug, ..)| (*bug).to_owned()).collect();
    assert_eq!(marked, known);
}

#[test]
fn every_test_of_the_table_is_there() {
    let mut sources = String::new();
    for directory in ["src", "core", "tests"] {
        walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join(directory), &mut |text| sources += text);
    }
    for (bug, _, tests) in VARIANTS {
        for test in *tests {
            let name = test.rsplit("::").next().unwrap();
            assert!(sources.contains(&format!("fn {name}(")), "{bug}: there is no test {test}");
        }
    }
}

#[test]
fn no_bug_is_in_the_ordinary_program() {
    let program = fs::read(env!("CARGO_BIN_EXE_highwater")).unwrap();
    for (word, expected) in [("HIGHWATER_BROKEN", false), ("no_stop_after_error", false), ("highwater", true)] {
        let found = program.windows(word.len()).any(|window| window == word.as_bytes());
        assert_eq!(found, expected, "{word}");
    }
}

fn walk(directory: &Path, see: &mut impl FnMut(&str)) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            walk(&path, see);
        } else if path.extension().is_some_and(|kind| kind == "rs") {
            see(&fs::read_to_string(path).unwrap());
        }
    }
}

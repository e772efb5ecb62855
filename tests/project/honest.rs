//! The tests of the tests: what is not checked is said, and in CI it is a failure; a report of guarantees is whole or none.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

const TESTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests");
const LIST: &str = include_str!("../assurance.list");
/// How far from the word that something was skipped its failure in CI may stand, in lines.
const NEAR: usize = 8;

fn files(directory: &Path, extension: &str, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("target") {
            files(&path, extension, found);
        } else if path.extension().is_some_and(|found| found == extension) {
            found.push(path);
        }
    }
}

/// The lines of `text` that say that something is skipped, without a word of CI near them.
fn silent_skips(text: &str) -> Vec<usize> {
    let lines: Vec<_> = text.lines().collect();
    let says = |line: &&str| line.contains("SKIPPED:") || line.contains("NOT CHECKED:");
    let fails_in_ci = |line: &&str| line.contains("\"CI\"") || line.contains("${CI:-}");
    let silent = |at: &usize| {
        let near = &lines[at.saturating_sub(NEAR)..(at + NEAR).min(lines.len())];
        says(&lines[*at]) && !near.iter().any(fails_in_ci)
    };
    (0..lines.len()).filter(silent).collect()
}

#[test]
fn whatever_is_skipped_fails_in_ci() {
    let mut sources = Vec::new();
    files(Path::new(TESTS), "rs", &mut sources);
    assert!(sources.len() > 50, "{sources:?}");
    let mut skips = 0;
    for path in sources.iter().filter(|path| !path.ends_with("honest.rs")) {
        let text = fs::read_to_string(path).unwrap();
        skips += usize::from(text.contains("SKIPPED") || text.contains("NOT CHECKED"));
        assert_eq!(silent_skips(&text), [0; 0], "{}: skips in silence; use tests/support/skip.rs", path.display());
    }
    assert!(skips > 8, "the word is searched for where it is used");
    assert_eq!(silent_skips("a\neprintln!(\"*** SKIPPED: b\");\n"), [1]);
    assert_eq!(silent_skips("assert!(var(\"CI\") != Ok(\"true\"));\neprintln!(\"*** SKIPPED: b\");\n"), [0; 0]);
}

/// The judgement of `make assurance` over a log.
fn judge(log: &str) -> Output {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    fs::write(&path, log).unwrap();
    let script = Path::new(TESTS).join("assurance.sh");
    Command::new(script).arg("--judge").arg(path).env("LC_ALL", "C").output().unwrap()
}

fn guarantees() -> Vec<&'static str> {
    LIST.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect()
}

/// A log in which each guarantee is shown as `line` says.
fn log(line: impl Fn(&str) -> String) -> String {
    let name = |listed: &str| listed.strip_suffix(" (may be 0)").unwrap_or(listed).to_owned();
    guarantees().into_iter().map(|listed| line(&name(listed))).collect()
}

#[test]
fn a_report_that_lacks_a_guarantee_is_no_report() {
    let shown = |name: &str| format!("running 1 test\ntest x ... assurance: {name}: 12\n");
    let whole = judge(&log(shown));
    assert!(whole.status.success(), "{whole:?}");
    assert_eq!(String::from_utf8_lossy(&whole.stdout).lines().count(), guarantees().len());

    for lost in ["durable first: power cuts on ext4 in QEMU", "fed garbage: inputs to the fuzz target record"] {
        assert!(guarantees().contains(&lost));
        for (count, word) in [(None, "NOT SHOWN"), (Some("0"), "NEVER TRIED"), (Some(""), "NEVER TRIED")] {
            let log = log(|name| match (name == lost, count) {
                (false, _) => shown(name),
                (true, None) => String::new(),
                (true, Some(count)) => format!("assurance: {name}: {count}\n"),
            });
            let judged = judge(&log);
            let said = String::from_utf8_lossy(&judged.stderr).into_owned();
            assert!(!judged.status.success() && said.contains(&format!("{word}: {lost}")), "{count:?}: {judged:?}");
        }
    }
    let zero = |name: &str| format!("assurance: {name}: {}\n", if name.contains("of these, how many") { 0 } else { 1 });
    assert!(judge(&log(zero)).status.success(), "what may be 0");
    let unlisted = log(shown) + "assurance: never two: what nobody has listed: 5\n";
    let judged = judge(&unlisted);
    assert!(!judged.status.success() && String::from_utf8_lossy(&judged.stderr).contains("what nobody has listed"));
}

#[test]
fn every_fuzz_target_is_a_guarantee() {
    let mut targets = Vec::new();
    files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/targets"), "rs", &mut targets);
    let inputs = guarantees().iter().filter(|line| line.starts_with("fed garbage: inputs to the fuzz target ")).count();
    assert_eq!(inputs, targets.len());
    for target in targets {
        let name = target.file_stem().unwrap().to_str().unwrap();
        let line = format!("fed garbage: inputs to the fuzz target {name}");
        assert!(guarantees().contains(&line.as_str()), "add this line to tests/assurance.list: {line}");
    }
}

/// A machine without ptrace and without namespaces: what needs them is passed over with a word, and fails in CI.
#[test]
fn without_strace_and_namespaces_ci_fails() {
    for (ci, passes) in [("", true), ("true", false)] {
        let mut probe = Command::new(std::env::current_exe().unwrap());
        let probe =
            probe.args(["--ignored", "--exact", "honest::skipping", "--nocapture"]).env("CI", ci).output().unwrap();
        assert_eq!(probe.status.success(), passes, "{probe:?}");
        assert!(String::from_utf8_lossy(&probe.stderr).contains("no such thing here"), "{probe:?}");
    }
}

/// Not a test of its own: what the test before this runs.
#[test]
#[ignore = "run by without_strace_and_namespaces_ci_fails"]
fn skipping() {
    crate::support::skip::skip("no such thing here");
}

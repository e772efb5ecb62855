//! The results of a run, as lines for a report.

use std::io::Write as _;

/// Every guarantee of `make assurance`, which fails if one of them is not shown.
const LIST: &str = include_str!("../assurance.list");

/// Prints one such line: under which promise, what was done, and how often. Not by `println!`, which the test harness
/// swallows when a test passes.
pub fn report(promise: &str, what: &str, count: u64) {
    let guarantee = format!("{promise}: {what}");
    let is_listed = LIST.lines().any(|line| line.strip_suffix(" (may be 0)").unwrap_or(line) == guarantee);
    assert!(is_listed, "add this line to tests/assurance.list: {guarantee}");
    let line = format!("assurance: {guarantee}: {count}\n");
    std::io::stdout().write_all(line.as_bytes()).expect("standard output is open");
}

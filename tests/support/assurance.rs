//! What a run has shown, in lines that a report is made of.

use std::io::Write as _;

/// Prints one such line: under which promise, what was done, and how often. Not by `println!`, which the test harness
/// swallows when a test passes.
pub fn report(promise: &str, what: &str, count: u64) {
    let line = format!("assurance: {promise}: {what}: {count}\n");
    std::io::stdout().write_all(line.as_bytes()).expect("standard output is open");
}

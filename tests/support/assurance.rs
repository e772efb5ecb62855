//! What `make assurance` collects: one line for each thing that was tried, with how often.
#![allow(clippy::print_stdout)]

/// Reports that `what` was tried `count` times for a promise.
pub fn report(promise: &str, what: &str, count: u64) {
    println!("assurance: {promise}: {what}: {count}");
}

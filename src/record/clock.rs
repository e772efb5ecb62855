//! The time of a log line: now, or for the result of a request, when its answer had left.

use super::utc;
use std::{
    cell::Cell,
    fmt,
    time::{SystemTime, UNIX_EPOCH},
};
use tracing_subscriber::fmt::{format::Writer, time::FormatTime};

thread_local! {
    static AT: Cell<Option<SystemTime>> = const { Cell::new(None) };
}

/// Gives the lines that `log` writes on this thread that time.
pub(super) fn at<T>(time: SystemTime, log: impl FnOnce() -> T) -> T {
    AT.set(Some(time));
    let result = log();
    AT.set(None);
    result
}

/// The clock of the log.
pub(super) struct Clock;

impl FormatTime for Clock {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        writer.write_str(&text(AT.get().unwrap_or_else(SystemTime::now)))
    }
}

/// A time in UTC with microseconds, as RFC 3339 has it.
pub(super) fn text(time: SystemTime) -> String {
    // A clock before 1970 counts as 1970.
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let whole = utc::at(since.as_secs());
    format!("{}.{:06}Z", whole.trim_end_matches('Z'), since.subsec_micros())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_line_has_the_time_of_its_answer_and_every_other_the_present() {
        let line = || {
            let mut text = String::new();
            Clock.format_time(&mut Writer::new(&mut text)).unwrap();
            text
        };
        let answered = UNIX_EPOCH + Duration::new(951_782_400, 7_000);
        assert_eq!(at(answered, line), "2000-02-29T00:00:00.000007Z");
        assert_eq!(line()[..4], utc::now()[..4], "the present");
    }
}

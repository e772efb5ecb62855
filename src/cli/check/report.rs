//! What `check` found: a line each, and the exit code that follows from the worst.

use super::super::{CliError, Exit, output};
use serde_json::{Value, json};
use std::{path::Path, time::Duration};

/// How something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    /// As it should be.
    Ok,
    /// Worth knowing; the signer signs.
    Warn,
    /// Keeps the signer, or one of its chains, from signing.
    Fail,
}

impl Level {
    fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

/// What was looked at, and how it is.
#[derive(Default)]
pub(super) struct Report {
    findings: Vec<(Level, String)>,
    /// What was measured of each device, for programs.
    devices: Vec<Value>,
    /// The same of each directory with states.
    disks: Vec<Value>,
}

impl Report {
    pub(super) fn ok(&mut self, text: impl Into<String>) {
        self.findings.push((Level::Ok, text.into()));
    }

    pub(super) fn warn(&mut self, text: impl Into<String>) {
        self.findings.push((Level::Warn, text.into()));
    }

    pub(super) fn fail(&mut self, text: impl Into<String>) {
        self.findings.push((Level::Fail, text.into()));
    }

    /// Figures of a device. What they mean stands in a finding too.
    pub(super) fn device(&mut self, figures: Value) {
        self.devices.push(figures);
    }

    /// How long a flush takes in a directory with states.
    pub(super) fn disk(&mut self, directory: &Path, p50: Duration, p99: Duration) {
        let [p50, p99] = [p50, p99].map(|time| u64::try_from(time.as_micros()).ok());
        self.disks.push(json!({ "directory": directory, "flush_p50_us": p50, "flush_p99_us": p99 }));
    }

    fn worst(&self) -> Level {
        self.findings.iter().map(|(level, _)| *level).max().unwrap_or(Level::Ok)
    }

    /// Prints the answer. The error holds nothing but the exit code.
    pub(super) fn finish(self, as_json: bool, warnings_fail: bool) -> Result<(), CliError> {
        let answer = match as_json {
            true => self.as_json().to_string(),
            false => self.as_text(),
        };
        output::print(&answer)?;
        match self.worst() {
            Level::Ok => Ok(()),
            Level::Warn if !warnings_fail => Ok(()),
            Level::Warn => Err(CliError::new(Exit::CheckWarning, "")),
            Level::Fail => Err(CliError::new(Exit::CheckError, "")),
        }
    }

    fn as_text(&self) -> String {
        let line = |(level, text): &(Level, String)| format!("{:<5} {text}", level.name());
        self.findings.iter().map(line).collect::<Vec<_>>().join("\n")
    }

    fn as_json(&self) -> Value {
        let finding = |(level, text): &(Level, String)| json!({ "level": level.name(), "text": text });
        json!({
            "schema": 1,
            "result": self.worst().name(),
            "findings": self.findings.iter().map(finding).collect::<Vec<_>>(),
            "devices": self.devices,
            "disks": self.disks,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_finding_decides() {
        let mut report = Report::default();
        assert_eq!(report.worst(), Level::Ok);
        report.ok("one");
        report.warn("two");
        assert_eq!((report.worst(), report.as_text().as_str()), (Level::Warn, "ok    one\nwarn  two"));
        report.fail("three");
        report.ok("four");
        assert_eq!((report.worst(), &report.as_json()["result"]), (Level::Fail, &json!("fail")));
    }
}

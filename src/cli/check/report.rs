//! What `check` found: one line each, and the exit code for the worst.

use super::super::{CliError, Exit, output};
use crate::inspect::{Findings, Severity};
use serde_json::{Value, json};
use std::{path::Path, time::Duration};

/// Everything that was checked, with its result.
#[derive(Default)]
pub(super) struct Report {
    findings: Vec<(Severity, String)>,
    /// The figures of each device, for programs.
    devices: Vec<Value>,
    /// The figures of each directory with state files.
    disks: Vec<Value>,
}

fn name(level: Severity) -> &'static str {
    match level {
        Severity::Ok => "ok",
        Severity::Warn => "warn",
        Severity::Fail => "fail",
    }
}

impl Report {
    /// Adds the findings that `start` decides by too.
    pub(super) fn add(&mut self, findings: &Findings) {
        findings.iter().for_each(|finding| self.push(finding.severity, finding.to_string()));
    }

    /// Adds a finding once: a running signer repeats what it found when it started.
    fn push(&mut self, level: Severity, text: String) {
        if !self.findings.iter().any(|(_, known)| *known == text) {
            self.findings.push((level, text));
        }
    }

    pub(super) fn ok(&mut self, text: impl Into<String>) {
        self.push(Severity::Ok, text.into());
    }

    pub(super) fn warn(&mut self, text: impl Into<String>) {
        self.push(Severity::Warn, text.into());
    }

    pub(super) fn fail(&mut self, text: impl Into<String>) {
        self.push(Severity::Fail, text.into());
    }

    /// Adds the figures of a device. A finding says what they mean.
    pub(super) fn device(&mut self, figures: Value) {
        self.devices.push(figures);
    }

    /// Adds how long a flush takes in a directory with state files.
    pub(super) fn disk(&mut self, directory: &Path, p50: Duration, p99: Duration) {
        let [p50, p99] = [p50, p99].map(|time| u64::try_from(time.as_micros()).ok());
        self.disks.push(json!({ "directory": directory, "flush_p50_us": p50, "flush_p99_us": p99 }));
    }

    fn worst(&self) -> Severity {
        self.findings.iter().map(|(level, _)| *level).max().unwrap_or(Severity::Ok)
    }

    /// Prints the answer. The error holds only the exit code.
    pub(super) fn finish(self, as_json: bool, warnings_fail: bool) -> Result<(), CliError> {
        output::print(&if as_json { self.as_json().to_string() } else { self.as_text() })?;
        match self.worst() {
            Severity::Ok => Ok(()),
            Severity::Warn if !warnings_fail => Ok(()),
            Severity::Warn => Err(CliError::new(Exit::CheckWarning, "")),
            Severity::Fail => Err(CliError::new(Exit::CheckError, "")),
        }
    }

    fn as_text(&self) -> String {
        let lines = self.findings.iter().map(|(level, text)| format!("{:<5} {text}", name(*level)));
        lines.collect::<Vec<_>>().join("\n")
    }

    fn as_json(&self) -> Value {
        let findings = self.findings.iter().map(|(level, text)| json!({ "level": name(*level), "text": text }));
        json!({
            "schema": 1,
            "result": name(self.worst()),
            "findings": findings.collect::<Vec<_>>(),
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
        assert_eq!(report.worst(), Severity::Ok);
        report.ok("one");
        report.warn("two");
        assert_eq!((report.worst(), report.as_text().as_str()), (Severity::Warn, "ok    one\nwarn  two"));
        report.fail("three");
        report.ok("four");
        assert_eq!((report.worst(), &report.as_json()["result"]), (Severity::Fail, &json!("fail")));
    }
}

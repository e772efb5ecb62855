//! `[highwater]`: settings that tmkms does not have.

use super::reader::{ConfigFindings, Table, Value};
use std::{net::SocketAddr, path::PathBuf};

/// Settings of the whole signer. All have a default. A setting that begins with `danger_` removes protection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HighwaterConfig {
    /// `metrics.laddr`: the address that Prometheus scrapes. Off by default.
    pub metrics: Option<SocketAddr>,
    /// `audit.file`: one line for every decision. Off by default.
    pub audit: Option<PathBuf>,
    /// `audit.max_mib` and `audit.keep`
    pub audit_limits: AuditLimits,
    /// `require_sandbox`: rather not start than run without a part of the sandbox that the kernel lacks.
    pub require_sandbox: bool,
    /// `danger_no_landlock`: run without the limits on files and ports.
    pub danger_no_landlock: bool,
    /// `danger_no_seccomp`: run without the limits on system calls.
    pub danger_no_seccomp: bool,
    /// `danger_core_dumps`: allow core dumps, which contain the keys, and swapping.
    pub danger_core_dumps: bool,
}

/// The size and number of audit files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuditLimits {
    /// A file is rotated before it exceeds this. `None` leaves rotation to another program.
    pub max_bytes: Option<u64>,
    /// How many rotated files to keep.
    pub keep: u32,
}

impl Default for AuditLimits {
    fn default() -> Self {
        Self { max_bytes: Some(64 << 20), keep: 4 }
    }
}

/// Largest `audit.max_mib`.
const AUDIT_MIB_MAX: u32 = 1 << 20;
/// Largest `audit.keep`.
const AUDIT_KEEP_MAX: u32 = 1000;

impl HighwaterConfig {
    pub(super) fn read(&mut self, table: &mut Table<'_>, findings: &mut ConfigFindings<'_>) {
        if let Some(metrics) = table.get("metrics", findings) {
            metrics.table("[highwater.metrics]", findings, |table, findings| {
                let laddr = table.require("laddr", "an address of this machine, as in \"127.0.0.1:26680\"", findings);
                self.metrics = laddr.and_then(|value| listen_address(value, findings));
            });
        }
        if let Some(audit) = table.get("audit", findings) {
            audit.table("[highwater.audit]", findings, |table, findings| {
                let file = table.require("file", "the path of the file that gets a line for every decision", findings);
                self.audit = file.and_then(|value| value.path(findings));
                let limits = &mut self.audit_limits;
                if let Some(mib) = number(table, "max_mib", (0, AUDIT_MIB_MAX), findings) {
                    limits.max_bytes = (mib > 0).then_some(u64::from(mib) << 20);
                }
                if let Some(keep) = number(table, "keep", (1, AUDIT_KEEP_MAX), findings) {
                    limits.keep = keep;
                }
            });
        }
        for (name, switch) in [
            ("require_sandbox", &mut self.require_sandbox),
            ("danger_no_landlock", &mut self.danger_no_landlock),
            ("danger_no_seccomp", &mut self.danger_no_seccomp),
            ("danger_core_dumps", &mut self.danger_core_dumps),
        ] {
            if let Some(value) = table.get(name, findings) {
                *switch = value.bool(findings).unwrap_or_default();
                if *switch && name.starts_with("danger_") {
                    value.caution("the signer runs with less protection", findings);
                }
            }
        }
        if self.require_sandbox && (self.danger_no_landlock || self.danger_no_seccomp) {
            findings
                .error(table.line(), "[highwater] has both `require_sandbox` and a switch that disables the sandbox");
        }
    }
}

/// A number from `least` to `most`.
fn number(
    table: &mut Table<'_>,
    name: &'static str,
    (least, most): (u32, u32),
    findings: &mut ConfigFindings<'_>,
) -> Option<u32> {
    let value = table.get(name, findings)?;
    let number = value.u64(findings)?;
    let fits = u32::try_from(number).ok().filter(|number| (least..=most).contains(number));
    if fits.is_none() {
        value.reject(format_args!("expected a number from {least} to {most}"), findings);
    }
    fits
}

/// An address to listen on. The metrics are not secret, but they are private: other addresses get a warning.
fn listen_address(value: Value<'_>, findings: &mut ConfigFindings<'_>) -> Option<SocketAddr> {
    let text = value.string(findings)?.trim();
    let address = match text.split_once("://") {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("tcp") => rest,
        _ => text,
    };
    let address: Option<SocketAddr> = address.strip_suffix('/').unwrap_or(address).parse().ok();
    match address {
        None => value.reject(
            "expected an IP address of this machine and a port, as in \"127.0.0.1:26680\" (four numbers up to 255 without \
             leading zeros)",
            findings,
        ),
        Some(address) if !address.ip().is_loopback() => {
            value.caution(
                "other machines can reach this address: anyone who does can see your chains and nodes",
                findings,
            );
        }
        Some(_) => {}
    }
    address
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, ConfigError};
    use std::path::Path;

    const REST: &str = r#"
[[chain]]
id = "a-1"
key_format = { type = "hex" }
[[validator]]
addr = "unix:///a"
chain_id = "a-1"
[[providers.softsign]]
chain_ids = ["a-1"]
path = "a.key"
"#;

    /// The settings and how many warnings they come with, or the only error.
    fn read(highwater: &str) -> Result<(HighwaterConfig, usize), String> {
        match Config::parse(Path::new("tmkms.toml"), &format!("{REST}[highwater]\n{highwater}")) {
            Ok((config, warnings)) => Ok((config.highwater, warnings.len())),
            Err(ConfigError::Invalid { findings, .. }) if findings.len() == 1 => Err(findings[0].text.clone()),
            Err(error) => panic!("{error}"),
        }
    }

    #[test]
    fn nothing_is_on_by_default() {
        assert_eq!(read(""), Ok((HighwaterConfig::default(), 0)));
    }

    #[test]
    fn settings_are_read_and_dangerous_ones_come_with_a_warning() {
        let default = HighwaterConfig::default;
        let metrics = |text: &str| HighwaterConfig { metrics: text.parse().ok(), ..default() };
        for (text, own, warnings) in [
            ("metrics.laddr = \"127.0.0.1:1\"", metrics("127.0.0.1:1"), 0),
            ("metrics.laddr = \"tcp://[::1]:1\"", metrics("[::1]:1"), 0),
            ("metrics.laddr = \" TCP://127.0.0.1:1 \"", metrics("127.0.0.1:1"), 0),
            ("metrics.laddr = \"0.0.0.0:1\"", metrics("0.0.0.0:1"), 1),
            ("audit.file = \"a\"", HighwaterConfig { audit: Some("a".into()), ..default() }, 0),
            (
                "audit = { file = \"a\", max_mib = 2, keep = 1 }",
                HighwaterConfig {
                    audit: Some("a".into()),
                    audit_limits: AuditLimits { max_bytes: Some(2 << 20), keep: 1 },
                    ..default()
                },
                0,
            ),
            (
                "audit = { file = \"a\", max_mib = 0 }",
                HighwaterConfig {
                    audit: Some("a".into()),
                    audit_limits: AuditLimits { max_bytes: None, keep: 4 },
                    ..default()
                },
                0,
            ),
            ("require_sandbox = true", HighwaterConfig { require_sandbox: true, ..default() }, 0),
            ("danger_no_seccomp = true", HighwaterConfig { danger_no_seccomp: true, ..default() }, 1),
            ("danger_no_landlock = false", default(), 0),
        ] {
            assert_eq!(read(text), Ok((own, warnings)), "{text}");
        }
    }

    #[test]
    fn contradictions_and_wrong_values_are_refused() {
        for (text, words) in [
            ("metrics.laddr = \"localhost:1\"", "expected an IP address of this machine and a port"),
            ("metrics.laddr = \"127.0.0.01:1\"", "leading zeros"),
            ("[highwater.metrics]", "[highwater.metrics] needs `laddr`"),
            ("audit.file = \"\"", "a path cannot be empty"),
            ("audit = { file = \"a\", keep = 0 }", "expected a number from 1 to 1000"),
            ("audit = { file = \"a\", max_mib = 1048577 }", "expected a number from 0 to 1048576"),
            ("require_sandbox = true\ndanger_no_seccomp = true", "a switch that disables the sandbox"),
            ("danger_no_secomp = true", "did you mean `danger_no_seccomp`?"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}

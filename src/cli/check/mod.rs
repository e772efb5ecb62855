//! `highwater check`: everything that would keep a signer from signing, found before it starts. Changes nothing.
//!
//! It prints what [`inspect`] finds, by which `start` decides; devices, flushes and the confinement are tried here beside it.

mod devices;
mod machine;
mod report;
mod running;

use super::{CliError, ConfigArgs};
use crate::{
    config::{Config, ConfigError},
    daemon, inspect, keyring,
};
use clap::Args;
use report::Report;
use std::time::Duration;

/// Check without changing anything.
#[derive(Args, Debug)]
pub(super) struct Check {
    #[command(flatten)]
    config: ConfigArgs,
    /// Look at configuration, permissions and state only, touch no device and no PIN, and exit 0 on warnings: for
    /// ExecStartPre
    #[arg(long)]
    before_start: bool,
    /// The time from one block to the next, by which the load of a device is judged
    #[arg(long, value_name = "SECONDS", default_value = "6", value_parser = block_time)]
    block_time: Duration,
    /// Answer in JSON
    #[arg(long)]
    json: bool,
}

fn block_time(text: &str) -> Result<Duration, &'static str> {
    let seconds: Option<f64> = text.parse().ok().filter(|seconds| (0.01..=3600.0).contains(seconds));
    seconds.map(Duration::from_secs_f64).ok_or("expected seconds, 0.01 to 3600")
}

impl Check {
    pub(super) fn run(self) -> Result<(), CliError> {
        let path = self.config.path();
        let mut report = Report::default();
        match Config::load(&path) {
            Ok((mut config, warnings)) => {
                report.add(&inspect::look(&config, &warnings));
                if !self.before_start {
                    machine::measure_flushes(&config, &mut report);
                    self.check_devices(&mut config, &mut report);
                    // Last of all: from here on this process can do no more than a running signer.
                    machine::check_sandbox(&config, &mut report);
                }
            }
            Err(ConfigError::Invalid { findings, path }) => {
                findings.iter().for_each(|finding| report.fail(finding.at(&path)));
            }
            Err(error) => report.fail(error.to_string()),
        }
        report.finish(self.json, !self.before_start)
    }

    /// A running signer's devices are its own: another session may cost it one of its own, or its turn.
    fn check_devices(&self, config: &mut Config, report: &mut Report) {
        if let Err(error) = keyring::take_secrets(config) {
            report.fail(format!("cannot take passwords out of the environment: {error}"));
        }
        let all_there = devices::check_surroundings(config, report);
        if daemon::claim(config).is_err() {
            return running::ask(config, self.block_time, report);
        }
        if all_there {
            // Before there is any thread.
            match keyring::start_spawner(config) {
                Ok(spawner) => devices::measure(config, spawner.as_ref(), self.block_time, report),
                Err(error) => report.fail(format!("cannot start the process that opens PKCS#11 tokens: {error}")),
            }
        }
    }
}

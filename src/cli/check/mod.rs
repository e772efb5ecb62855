//! `highwater check`: finds everything that would keep a signer from signing, before it starts. Changes nothing.
//!
//! It prints what [`inspect`] finds, which `start` decides by too. It also tries the devices, the flushes and the confinement.

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
    /// Check only configuration, permissions and state, use no device and no PIN, and exit 0 on warnings: for
    /// ExecStartPre
    #[arg(long)]
    before_start: bool,
    /// Time from one block to the next, used to compute the load of a device
    #[arg(long, value_name = "SECONDS", default_value = "6", value_parser = block_time)]
    block_time: Duration,
    /// Print JSON
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
                    let answered = self.check_devices(&mut config, &mut report);
                    // A running signer has said itself what is in force; this process may be under other limits. Last,
                    // because from here on this process can do no more than a running signer.
                    if !answered {
                        machine::check_sandbox(&config, &mut report);
                    }
                }
            }
            Err(ConfigError::Invalid { findings, path }) => {
                findings.iter().for_each(|finding| report.fail(finding.at(&path)));
            }
            Err(error) => report.fail(error.to_string()),
        }
        report.finish(self.json, !self.before_start)
    }

    /// Does not touch the devices of a running signer: a session taken here could cost the signer a session or its turn.
    /// Returns whether such a signer has answered.
    fn check_devices(&self, config: &mut Config, report: &mut Report) -> bool {
        if let Err(error) = keyring::take_secrets(config) {
            report.fail(format!("cannot take passwords out of the environment: {error}"));
        }
        let all_there = devices::check_surroundings(config, report);
        if daemon::claim(config).is_err() {
            return running::ask(config, self.block_time, report);
        }
        if all_there {
            // Must come before any thread starts.
            match keyring::start_spawner(config) {
                Ok(spawner) => devices::measure(config, spawner.as_ref(), self.block_time, report),
                Err(error) => report.fail(format!("cannot start the HSM spawner process: {error}")),
            }
        }
        false
    }
}

//! Asks a running signer about its devices, which `check` must not open.

use super::{devices, report::Report};
use crate::{
    config::{Config, home},
    record::utc,
    show::status::{DeviceStatus, Status},
};
use std::{env, time::Duration};

/// Asks the signer that runs with this configuration. Returns whether it has answered.
pub(super) fn ask(config: &Config, block_time: Duration, report: &mut Report) -> bool {
    let sockets = home::control_sockets(env::var_os(home::RUNTIME_VARIABLE), &config.path);
    let answer = sockets.iter().find_map(|socket| super::super::status::ask(socket).ok());
    let Some((status, _)) = answer else {
        report.warn(
            "a signer is running with this configuration, so its devices are not checked; the signer does not answer on its \
             control socket, so their state is unknown",
        );
        return false;
    };
    report.ok(format!(
        "a signer is running with this configuration as process {}: the following lines are its answer",
        status.pid
    ));
    show(&status, block_time, report);
    true
}

fn show(status: &Status, block_time: Duration, report: &mut Report) {
    for chain in &status.chains {
        let mut troubles = chain.missing.iter().chain(&chain.refusing).peekable();
        match (troubles.peek(), chain.quiet(status.now)) {
            (None, None) => report.ok(format!("chain {}: signs", chain.id)),
            (None, Some(since)) => {
                report.ok(format!("chain {}: can sign, no requests since {}", chain.id, utc::at(since)));
            }
            (Some(_), _) => troubles.for_each(|trouble| report.fail(format!("chain {}: {trouble}", chain.id))),
        }
    }
    for device in &status.devices {
        match &device.down {
            Some(why) => report.fail(format!("{}: {why}", device.name)),
            None => show_device(device, block_time, report),
        }
    }
    status.warnings.iter().for_each(|warning| report.warn(warning.clone()));
}

fn show_device(device: &DeviceStatus, block_time: Duration, report: &mut Report) {
    let Some(mean) = device.signature.mean.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()) else {
        return report.ok(format!("{}: signs", device.name));
    };
    let load = devices::Load { name: &device.name, chains: &device.chains, signature: mean, block_time };
    load.tell(&format!("signs in {} on average", devices::milliseconds(mean)), report);
}

//! The devices: whether they sign, how long that takes, and whether they have the time for the chains they serve.

use super::report::Report;
use crate::{
    cli::{output, timing::percentile},
    config::{Config, Pkcs11Config, YubiHsmAdapter, YubiHsmConfig, pkcs11::profile::ProfileEvidence},
    keyring::{
        self,
        child::spawner::Spawner,
        device::{DeviceSetup, Trouble},
        yubihsm,
    },
    process::resolver::Resolver,
};
use highwater_core::signer::SELF_TEST;
use serde_json::json;
use std::{
    env,
    sync::Arc,
    time::{Duration, Instant},
};

/// Signatures by which a device is judged.
const SIGNATURES: usize = 20;
/// How long a device may take to come up; some log in slowly.
const OPEN_WITHIN: Duration = Duration::from_secs(20);
/// How long one signature may take. A signer gives up sooner; this is to find out how slow the device is.
const SIGN_WITHIN: Duration = Duration::from_secs(5);
/// A prevote and a precommit.
const VOTES_PER_BLOCK: u32 = 2;
/// Above this share of its time, in percent, a device begins to keep requests waiting that come together.
const BUSY_PERCENT: f64 = 40.0;

/// Looks at what can be seen of the devices without opening them. Whether all of it is there.
pub(super) fn check_surroundings(config: &Config, report: &mut Report) -> bool {
    let modules: Vec<bool> = config.pkcs11.iter().map(|provider| check_module(provider, report)).collect();
    let connectors: Vec<bool> = config.yubihsm.iter().map(|provider| check_connector(provider, report)).collect();
    modules.iter().chain(&connectors).all(|there| *there)
}

/// Whether the module and what it needs are on this machine. Does not load it.
fn check_module(provider: &Pkcs11Config, report: &mut Report) -> bool {
    let Pkcs11Config { profile, module, token, .. } = provider;
    let of = match profile.tested_with.as_slice() {
        [] => String::new(),
        with => format!(" with {}", with.join(", ")),
    };
    // Of any lower level the configuration itself warns, with the line.
    if profile.evidence == ProfileEvidence::Tested {
        report.ok(format!("{token}: the profile {} {}{of}", profile.name, profile.evidence));
    }
    let there = module.is_file();
    if !there {
        let (path, install) = (module.display(), &profile.module.install);
        report.fail(format!("{token}: there is no {path}: install {install}, or name the file with `module`"));
    }
    if let Some(variable) = profile.missing_variable(|name| env::var_os(name).is_some()) {
        let (name, meaning) = (&variable.name, &variable.meaning);
        report.warn(format!("{token}: its module may need the environment variable {name}: set it to {meaning}"));
    }
    there
}

/// Whether the password can be read and the connector is there. Opens no session.
fn check_connector(provider: &YubiHsmConfig, report: &mut Report) -> bool {
    let serial_number = provider.serial_number.as_deref();
    let reached = yubihsm::client::Reached::look_for(&provider.adapter, serial_number, &Resolver::default());
    let there = reached.is_ok();
    match (&provider.adapter, reached) {
        (_, Err(trouble)) => report.fail(format!("{provider}: {}", trouble.text())),
        (YubiHsmAdapter::Http { .. }, Ok(_)) => report.ok(format!("{provider}: its connector is there")),
        (YubiHsmAdapter::Usb { .. }, Ok(_)) => {}
    }
    match yubihsm::login::read_password(&provider.password) {
        Ok(_) => there,
        Err(why) => {
            report.fail(format!("{provider}: {why}"));
            false
        }
    }
}

/// Opens every device as the signer does, and has it sign. Not beside a running signer.
pub(super) fn measure(config: &Config, spawner: Option<&Arc<Spawner>>, block_time: Duration, report: &mut Report) {
    let devices = match keyring::device_setups(config, spawner) {
        Ok(devices) => devices,
        Err(error) => return report.fail(format!("the devices cannot be asked: {error}")),
    };
    for mut device in devices {
        output::progress(&format!("{}: signing {SIGNATURES} self-tests", device.name));
        let times = sign(&mut device);
        output::progress("");
        if let Some(flaw) = device.opener.flaw() {
            report.fail(format!("{}: {flaw}", device.name));
        }
        match times {
            Ok(times) => tell(&device, &times, block_time, report),
            Err(trouble) => report.fail(format!("{}: {}", device.name, trouble.text())),
        }
    }
}

/// The time of each signature, sorted. Every key signs.
fn sign(device: &mut DeviceSetup) -> Result<Vec<Duration>, Trouble> {
    let mut session = device.opener.open(Instant::now() + OPEN_WITHIN)?;
    let count = device.keys.len();
    let mut times = Vec::new();
    // A key's first signature is not timed: with it comes a look at the key.
    for turn in 0..count + SIGNATURES.max(count) {
        let key = turn % count;
        let begin = Instant::now();
        let signature = session.sign(key, SELF_TEST, begin + SIGN_WITHIN)?;
        if turn >= count {
            times.push(begin.elapsed());
        }
        if !device.keys[key].verifies(SELF_TEST, &signature) {
            return Err(Trouble::Broken(
                format!("a signature does not verify with the key {}: do not sign with this device", device.keys[key])
                    .into(),
            ));
        }
    }
    times.sort_unstable();
    Ok(times)
}

fn tell(device: &DeviceSetup, times: &[Duration], block_time: Duration, report: &mut Report) {
    let [p50, p99] = [50, 99].map(|percent| percentile(times, percent));
    let chains: Vec<_> = device.chains.iter().map(ToString::to_string).collect();
    let load = Load { name: &device.name, chains: &chains, signature: p50, block_time };
    let share = load.tell(&format!("signs in {} (p99 {})", milliseconds(p50), milliseconds(p99)), report);
    report.device(json!({
        "device": device.name,
        "chains": chains,
        "signatures": times.len(),
        "p50_us": u64::try_from(p50.as_micros()).ok(),
        "p99_us": u64::try_from(p99.as_micros()).ok(),
        "block_time_s": block_time.as_secs_f64(),
        "share_percent": share,
    }));
}

/// What a device has to do.
pub(super) struct Load<'a> {
    pub(super) name: &'a str,
    /// The chains whose key is on it.
    pub(super) chains: &'a [String],
    /// The time of one signature.
    pub(super) signature: Duration,
    /// From one block to the next.
    pub(super) block_time: Duration,
}

impl Load<'_> {
    /// Says how much of the device's time is taken, after `how`, and returns that in percent.
    pub(super) fn tell(&self, how: &str, report: &mut Report) -> f64 {
        let Self { name, chains, signature, block_time } = self;
        let share = share(*signature, chains.len(), *block_time);
        let text = format!(
            "{name}: {how}. The votes of {} {} need {share:.1} % of its time, with a block every {} s",
            chains.len(),
            if chains.len() == 1 { "chain" } else { "chains" },
            block_time.as_secs_f64()
        );
        match share > BUSY_PERCENT {
            false => report.ok(text),
            true => report.warn(format!(
                "{text}. Above {BUSY_PERCENT} % votes wait for each other, and vote extensions come on top: move chains to \
                 another device"
            )),
        }
        share
    }
}

/// How much of a device's time the votes of that many chains take, in percent.
fn share(signature: Duration, chains: usize, block_time: Duration) -> f64 {
    let chains = u32::try_from(chains).unwrap_or(u32::MAX);
    let busy = signature.as_secs_f64() * f64::from(VOTES_PER_BLOCK) * f64::from(chains);
    100.0 * busy / block_time.as_secs_f64()
}

pub(super) fn milliseconds(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_is_that_of_two_votes_a_block() {
        for (signature_ms, chains, block_s, percent) in
            [(137, 10, 6, 45.67), (137, 1, 6, 4.57), (137, 1, 1, 27.4), (1, 1, 6, 0.03), (137, 0, 6, 0.0)]
        {
            let share = share(Duration::from_millis(signature_ms), chains, Duration::from_secs(block_s));
            assert!((share - percent).abs() < 0.01, "{share} is not {percent}");
        }
    }
}

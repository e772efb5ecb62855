//! The devices: whether they sign, how long that takes, and whether they are fast enough for their chains.

use super::report::Report;
use crate::{
    cli::{output, pkcs11, timing::percentile},
    config::Config,
    keyring::{
        self, Note,
        child::spawner::Spawner,
        device::{DeviceSetup, Trouble},
    },
    process::sandbox::Switches,
    state,
};
use highwater_core::signer::SELF_TEST;
use serde_json::json;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// How many signatures of a device to time.
const SIGNATURES: usize = 20;
/// How long a device may take to come up; some log in slowly.
const OPEN_WITHIN: Duration = Duration::from_secs(20);
/// How long one signature may take. A signer gives up sooner; here the point is to find out how slow the device is.
const SIGN_WITHIN: Duration = Duration::from_secs(5);
/// A prevote and a precommit.
const VOTES_PER_BLOCK: u32 = 2;
/// Above this share of a device's time, in percent, requests that arrive together begin to wait for each other.
const BUSY_PERCENT: f64 = 40.0;

/// Checks what can be seen of the devices without opening them. Returns whether everything is there.
pub(super) fn check_surroundings(config: &Config, report: &mut Report) -> bool {
    let mut complete = true;
    for provider in &config.providers {
        let sight = keyring::look_at(provider);
        complete &= sight.complete;
        for note in sight.notes {
            match note {
                Note::Ok(text) => report.ok(text),
                Note::Warn(text) => report.warn(text),
                Note::Fail(text) => report.fail(text),
            }
        }
    }
    complete
}

/// Opens every device as the signer does, and has it sign. Must not run beside a running signer.
pub(super) fn measure(config: &Config, spawner: Option<&Arc<Spawner>>, block_time: Duration, report: &mut Report) {
    let devices = match keyring::device_setups(config, spawner, state::key_in_state_file) {
        Ok(devices) => devices,
        Err(error) => return report.fail(format!("cannot open the devices: {error}")),
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
            Err(trouble) => {
                let why = refused_by_sandbox(config, &device.name, &trouble);
                report.fail(format!("{}: {}{why}", device.name, trouble.text()));
            }
        }
    }
}

/// What the sandbox keeps from the module of the token with this name, if that is why it failed. Begins with "; ", or is
/// empty.
fn refused_by_sandbox(config: &Config, name: &str, trouble: &Trouble) -> String {
    let may_be = matches!(trouble, Trouble::Broken(_) | Trouble::Fatal(_) | Trouble::Rejected(_));
    let token = config.pkcs11().into_iter().find(|token| may_be && token.to_string() == name);
    let why = token.and_then(|token| {
        let spec = keyring::plan(config, token, &config.files_of_the_signer()).spec;
        pkcs11::refused_by_sandbox(&spec, Switches::of(config))
    });
    why.map_or_else(String::new, |why| format!("; {why}"))
}

/// Signs with every key. Returns the time of each signature, sorted.
fn sign(device: &mut DeviceSetup) -> Result<Vec<Duration>, Trouble> {
    let mut session = loop {
        match device.opener.open(Instant::now() + OPEN_WITHIN) {
            // Giving up on a login would cut it off, which can cost an attempt at the PIN.
            Err(Trouble::LoggingIn(why)) => output::progress(&format!("{}: {why}", device.name)),
            other => break other?,
        }
    };
    let count = device.keys.len();
    let mut times = Vec::new();
    // A key's first signature is not timed: it includes a look-up of the key.
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

/// The work of a device.
pub(super) struct Load<'a> {
    pub(super) name: &'a str,
    /// The chains whose key is on it.
    pub(super) chains: &'a [String],
    /// The time of one signature.
    pub(super) signature: Duration,
    /// The time from one block to the next.
    pub(super) block_time: Duration,
}

impl Load<'_> {
    /// Reports, after `how`, the share of the device's time that is used, and returns it in percent.
    pub(super) fn tell(&self, how: &str, report: &mut Report) -> f64 {
        let Self { name, chains, signature, block_time } = self;
        let share = share(*signature, chains.len(), *block_time);
        let text = format!(
            "{name}: {how}. The votes of {} {} need {share:.1} % of its time, with a block every {} s",
            chains.len(),
            if chains.len() == 1 { "chain" } else { "chains" },
            block_time.as_secs_f64()
        );
        if share > BUSY_PERCENT {
            report.warn(format!(
                "{text}. Above {BUSY_PERCENT} % votes wait for each other, and vote extensions add to that: move chains \
                 to another device"
            ));
        } else {
            report.ok(text);
        }
        share
    }
}

/// The share of a device's time that the votes of that many chains take, in percent.
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

//! `highwater yubihsm test`: how a key signs, and how long that takes.

use super::{
    ObjectId,
    keys::{birth, hex_of, key_json},
    target::{DeviceTarget, DeviceTargetArgs, device_error},
};
use crate::{
    cli::{CliError, Exit, output, timing::percentile, watch::shown},
    provision::yubihsm::admin_session::DeviceKeyInfo,
};
use clap::Args;
use highwater_core::{consensus::PublicKey, signer::SELF_TEST};
use serde_json::json;
use std::time::{Duration, Instant};

/// More than anybody waits for.
const COUNT_MAX: i64 = 1_000_000;

#[derive(Args, Debug)]
pub(in crate::cli) struct Test {
    #[command(flatten)]
    target: DeviceTargetArgs,
    /// The key
    #[arg(value_name = "KEY_ID")]
    id: ObjectId,
    /// How many signatures
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=COUNT_MAX))]
    count: u32,
}

impl Test {
    pub(super) fn run(self) -> Result<(), CliError> {
        let target = self.target.resolve()?;
        let count = usize::try_from(self.count).expect("it is below a million");
        let (info, public_key, times) = shown(|show| sign(&target, self.id.0, count, show))?;
        let [p50, p99] = [50, 99].map(|percent| percentile(&times, percent).as_micros());
        if self.target.json() {
            let value = json!({
                "schema": 1,
                "signatures": times.len(),
                "p50_us": u64::try_from(p50).ok(),
                "p99_us": u64::try_from(p99).ok(),
                "key": key_json(&info),
            });
            return output::print(&value.to_string());
        }
        output::print(&format!(
            "signed   {}, and all signatures verify\np50      {p50} µs\np99      {p99} µs\nid       {}\nlabel    {:?}\n\
             type     {}\nkey      {}\naddress  {}\nborn     {}",
            times.len(),
            self.id,
            info.label,
            public_key.key_type(),
            hex_of(&public_key.to_bytes()),
            public_key.address_hex(),
            birth(info.birth),
        ))
    }
}

/// Signs the self-test again and again in one session, as the signer does. The times are sorted.
fn sign(
    target: &DeviceTarget,
    id: u16,
    count: usize,
    show: &mut dyn FnMut(usize, usize),
) -> Result<(DeviceKeyInfo, PublicKey, Vec<Duration>), CliError> {
    let session = target.open()?;
    let info = session.key(id).map_err(|error| target.error(&error))?;
    let failed = |exit, text: String| CliError::new(exit, format!("{}: {text}", target.provider));
    let Some(public_key) = info.public_key else {
        return Err(failed(Exit::Data, format!("its key 0x{id:04x} is {}: Highwater signs with none", info.algorithm)));
    };
    if let Some(recorded) = target.key_in_state_file(id).filter(|recorded| *recorded != public_key) {
        let text =
            format!("its key 0x{id:04x} is {public_key}, and the state file of its chain is bound to {recorded}");
        return Err(failed(Exit::Data, text));
    }
    let mut times = Vec::with_capacity(count);
    for done in 1..=count {
        let start = Instant::now();
        let signature = session.sign(id, public_key.key_type(), SELF_TEST);
        let signature = signature.map_err(|trouble| device_error(&target.provider, &trouble))?;
        times.push(start.elapsed());
        if !public_key.verifies(SELF_TEST, &signature) {
            let text = format!("signature {done} of {count} does not verify: do not sign with this key");
            return Err(failed(Exit::Io, text));
        }
        show(done, count);
    }
    times.sort_unstable();
    Ok((info, public_key, times))
}

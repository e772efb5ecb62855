//! `highwater pkcs11 test`: signs with a key, and measures how long that takes.

use super::{
    KeyArgs,
    errand::{Errand, Outcome, WirePublicKey},
    hex_of,
    list::{birth, key_json},
    target::{TokenTargetArgs, unexpected},
};
use crate::{
    cli::{CliError, output, timing::percentile},
    config::pkcs11::profile::{Profile, ProfileEvidence},
    provision::pkcs11::KeyInfo,
};
use clap::Args;
use highwater_core::consensus::PublicKey;
use serde_json::json;
use std::time::Duration;

/// More than anyone waits for.
const COUNT_MAX: i64 = 1_000_000;

#[derive(Args, Debug)]
pub(in crate::cli) struct Test {
    #[command(flatten)]
    target: TokenTargetArgs,
    #[command(flatten)]
    key: KeyArgs,
    /// Number of signatures
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=COUNT_MAX))]
    count: u32,
}

/// The result of a test.
struct TestResult {
    info: KeyInfo,
    public_key: PublicKey,
    /// The time of each signature, sorted.
    times: Vec<Duration>,
}

impl Test {
    pub(super) fn run(self) -> Result<(), CliError> {
        let target = self.target.resolve()?;
        let object = self.key.selector()?;
        let count = usize::try_from(self.count).expect("it is below a million");
        let mut pinned = Vec::new();
        for key in target.section.iter().flat_map(|section| &section.keys) {
            pinned.push((key.object.clone(), WirePublicKey::from(&key.public_key)));
        }
        let run = target.run(Errand::Test { object, pinned, count }, &[]);
        let (outcome, _closing) = run.map_err(|error| target.explain(error))?.split();
        let Outcome::Tested { info, public_key, times } = outcome else { return Err(unexpected()) };
        let public_key = public_key.key().ok_or_else(unexpected)?;
        let outcome = TestResult { info: info.into(), public_key, times };
        let show = if self.target.json { as_json } else { as_text };
        output::print(&show(&target.profile, &outcome))
    }
}

fn as_text(profile: &Profile, outcome: &TestResult) -> String {
    let TestResult { info, public_key, times } = outcome;
    format!(
        "signed   {}, and all signatures verify\np50      {} µs\np99      {} µs\nid       {}\nlabel    {:?}\n\
         type     {}\naddress  {}\nborn     {}\nprofile  {} {}",
        times.len(),
        percentile(times, 50).as_micros(),
        percentile(times, 99).as_micros(),
        hex_of(&info.id),
        info.label,
        public_key.key_type(),
        public_key.address_hex(),
        birth(info),
        profile.name,
        profile.evidence,
    )
}

fn as_json(profile: &Profile, outcome: &TestResult) -> String {
    let TestResult { info, public_key, times } = outcome;
    let mut key = key_json(info);
    key["algorithm"] = json!(public_key.key_type().name());
    key["public_key"] = json!(hex_of(public_key.as_bytes()));
    key["address"] = json!(public_key.address_hex());
    let evidence = match profile.evidence {
        ProfileEvidence::Source => "source",
        ProfileEvidence::Tested => "tested",
        ProfileEvidence::Unverified => "unverified",
        ProfileEvidence::VendorDoc => "vendor-doc",
    };
    json!({
        "schema": 1,
        "signatures": times.len(),
        "p50_us": u64::try_from(percentile(times, 50).as_micros()).ok(),
        "p99_us": u64::try_from(percentile(times, 99).as_micros()).ok(),
        "key": key,
        "profile": profile.name,
        "evidence": evidence,
    })
    .to_string()
}

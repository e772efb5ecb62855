//! `highwater pkcs11 test`: how a key signs, and how long that takes.

use super::{
    KeyArgs, hex_of,
    list::{birth, find_key, key_json, no_key},
    target::{TokenTarget, TokenTargetArgs},
};
use crate::{
    cli::{
        CliError, Exit, output,
        timing::percentile,
        watch::{Progress, watched},
    },
    config::pkcs11::{
        profile::{Profile, ProfileEvidence},
        spec::ObjectSelector,
    },
    provision::pkcs11::KeyInfo,
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
    target: TokenTargetArgs,
    #[command(flatten)]
    key: KeyArgs,
    /// How many signatures
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=COUNT_MAX))]
    count: u32,
}

/// What a test showed.
struct TestResult {
    info: KeyInfo,
    public_key: PublicKey,
    /// The time of each signature, sorted.
    times: Vec<Duration>,
}

impl Test {
    pub(super) fn run(self) -> Result<(), CliError> {
        let target = self.target.resolve()?;
        let selector = self.key.selector();
        let (there, count) = (target.clone(), usize::try_from(self.count).expect("it is below a million"));
        let outcome = watched(move |progress| sign(&there, &selector, count, progress))?;
        let answer = match self.target.json {
            true => as_json(&target.profile, &outcome),
            false => as_text(&target.profile, &outcome),
        };
        output::print(&answer)
    }
}

/// Signs the self-test again and again on one session, as the signer does.
fn sign(
    target: &TokenTarget,
    selector: &ObjectSelector,
    count: usize,
    progress: &Progress<'_>,
) -> Result<TestResult, CliError> {
    let token = target.open()?;
    let Some(info) = find_key(&token, selector)? else { return Err(no_key(&token, selector)?.into()) };
    let failed = |exit, text: String| CliError::new(exit, text);
    let pinned = pinned(target, &info);
    let key_type = info.key_type.or(pinned.map(|key| key.key_type()));
    let key_type = key_type
        .ok_or_else(|| failed(Exit::Data, format!("the key with {selector} is none that Highwater signs with")))?;
    let key = token.find_key(selector, key_type)?;
    if let (Some(shown), Some(pinned)) = (key.public_key(), pinned)
        && shown != pinned
    {
        return Err(failed(Exit::Data, format!("the token holds key {shown}, the configuration pins {pinned}")));
    }
    let public_key = pinned.or(key.public_key()).ok_or_else(|| {
        let text = "the device does not show the key's public half: pin it with `public_key` in the configuration, and \
                    the signatures can be verified";
        failed(Exit::Data, text.to_owned())
    })?;
    let mut times = Vec::with_capacity(count);
    for done in 1..=count {
        let start = Instant::now();
        let signature = token.sign(&key, SELF_TEST)?;
        times.push(start.elapsed());
        if !public_key.verifies(SELF_TEST, &signature) {
            return Err(failed(
                Exit::Io,
                format!("signature {done} of {count} does not verify: do not sign with this key"),
            ));
        }
        progress.step(done, count);
    }
    times.sort_unstable();
    Ok(TestResult { info, public_key, times })
}

/// The public key that the configuration pins for this key.
fn pinned(target: &TokenTarget, info: &KeyInfo) -> Option<PublicKey> {
    let keys = &target.section.as_ref()?.keys;
    let fits = |object: &ObjectSelector| match object {
        ObjectSelector::Id(id) => *id == info.id,
        ObjectSelector::Label(label) => *label == info.label,
    };
    keys.iter().find(|key| fits(&key.object)).map(|key| key.public_key)
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
    key["public_key"] = json!(hex_of(&public_key.to_bytes()));
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

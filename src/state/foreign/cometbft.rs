//! CometBFT's `priv_validator_state.json` (`privval/file.go`): the height is a string, round and step are numbers,
//! and the last signature is kept with the bytes it covers. Tendermint 0.33 and older write the round as a string too.
//!
//! gno.land's file has the same fields, with the sign bytes in base64 and the round in a string. Either is taken if its sign
//! bytes are those of CometBFT, as those of nil votes are; whatever else its program signed does not parse.

use super::{Foreign, MigrationError, Program, decimal};
use crate::keyring::softsign::encoding;
use highwater_core::{
    consensus::{HEIGHT_MAX, Hrs, ROUND_MAX, Signature, Step},
    privval::Canonical,
    watermark::{Identity, Mark, SignedMessage},
};
use serde_json::{Value, json};
use subtle_encoding::hex;

pub(super) fn read(json: &Value, identity: &Identity) -> Result<Foreign, MigrationError> {
    let wrong = |field, expected| MigrationError::Field { program: Program::CometBft, field, expected };
    let height = decimal(&json["height"], HEIGHT_MAX).ok_or_else(|| wrong("height", "a number in a string"))?;
    let round = match &json["round"] {
        text @ Value::String(_) => decimal(text, ROUND_MAX.into()),
        number => number.as_u64().filter(|round| *round <= ROUND_MAX.into()),
    };
    let round = round.and_then(|round| u32::try_from(round).ok()).ok_or_else(|| wrong("round", "a number"))?;
    let step = json["step"].as_u64().filter(|step| *step <= 3).ok_or_else(|| wrong("step", "a number from 0 to 3"))?;
    let Some(step) = Step::from_number(step) else {
        return match (height, round) {
            (0, 0) => Err(MigrationError::Unproven { hrs: Hrs::GENESIS }),
            _ => Err(wrong("step", "1 (proposal), 2 (prevote) or 3 (precommit) above height 0")),
        };
    };
    let hrs = Hrs { height, round, step };
    let sign_bytes = optional(json, "signbytes", hex_or_base64_of).ok_or(wrong("signbytes", "hex"))?;
    let signature = optional(json, "signature", base64_of).ok_or(wrong("signature", "base64"))?;
    let (Some(sign_bytes), Some(signature)) = (sign_bytes, signature) else {
        return Err(MigrationError::Unproven { hrs });
    };
    let signed = prove(hrs, &sign_bytes, &signature, identity)?;
    Ok(Foreign { program: Program::CometBft, mark: Mark { hrs, signed: Some(signed) } })
}

/// The file's own signature proves its chain, its key and its height, and which message was signed there. That message may be
/// repeated: signed again, its bytes are the same.
fn prove(hrs: Hrs, sign_bytes: &[u8], signature: &[u8], identity: &Identity) -> Result<SignedMessage, MigrationError> {
    let parsed = Canonical::parse(sign_bytes);
    let (message, chain) = parsed.ok_or(MigrationError::SignBytes { found: None, expected: hrs })?;
    let signed =
        SignedMessage { target: message.target(), timestamp: message.timestamp, digest: message.digest(&chain) };
    broken!("import_unproven" => return Ok(signed));
    if message.hrs() != hrs {
        return Err(MigrationError::SignBytes { found: Some(message.hrs()), expected: hrs });
    }
    if chain != identity.chain {
        return Err(MigrationError::ForeignChain { found: chain.to_string() });
    }
    if !identity.key.verifies(sign_bytes, &Signature::new(signature)) {
        return Err(MigrationError::Signature);
    }
    Ok(signed)
}

/// CometBFT answers a request at the same height, round and step with an error if its file has no sign bytes.
pub(super) fn write(mark: &Mark) -> String {
    let Hrs { height, round, step } = mark.hrs;
    json!({ "height": height.to_string(), "round": round, "step": step.number() }).to_string()
}

/// `Some(None)` if the field is absent or empty, `None` if it does not decode.
fn optional(json: &Value, field: &str, decode: impl Fn(&str) -> Option<Vec<u8>>) -> Option<Option<Vec<u8>>> {
    match &json[field] {
        Value::Null => Some(None),
        Value::String(text) if text.is_empty() => Some(None),
        Value::String(text) => decode(text).map(Some),
        _ => None,
    }
}

/// What is decoded wrongly is no message, and proves nothing.
fn hex_or_base64_of(text: &str) -> Option<Vec<u8>> {
    hex::decode(text.to_ascii_lowercase()).ok().or_else(|| base64_of(text))
}

fn base64_of(text: &str) -> Option<Vec<u8>> {
    encoding::from_base64(text.as_bytes()).ok().map(|bytes| bytes.to_vec())
}

//! tmkms's state file (`src/chain/state.rs`): height and round are strings, the step counts from 0, and the block is
//! kept instead of a signature.

use super::{Foreign, MigrationError, Program, decimal};
use highwater_core::{
    consensus::{HEIGHT_MAX, Hrs, ROUND_MAX, Step},
    watermark::Mark,
};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

pub(super) fn read(json: &Value) -> Result<Foreign, MigrationError> {
    let wrong = |field, expected| MigrationError::Field { program: Program::Tmkms, field, expected };
    let height = decimal(&json["height"], HEIGHT_MAX).ok_or_else(|| wrong("height", "a number in a string"))?;
    let round = decimal(&json["round"], ROUND_MAX.into()).ok_or_else(|| wrong("round", "a number in a string"))?;
    // tmkms takes any number up to 127, and operators write one to close a round. Above precommit there is nothing, so such a
    // number is the end of its round. (A CometBFT file that somebody made into one of tmkms comes in at most one step too
    // high.)
    let step = json["step"].as_u64().ok_or_else(|| wrong("step", "0 (proposal), 1 (prevote) or 2 (precommit)"))?.min(2);
    if !(json["block_id"].is_object() || json["block_id"].is_null()) {
        return Err(wrong("block_id", "an object or null"));
    }
    let round = u32::try_from(round).expect("checked against the highest round");
    let step = Step::from_number(step + 1).expect("steps 1 to 3 exist");
    let mark = Mark::floor(Hrs { height, round, step });
    Ok(Foreign { program: Program::Tmkms, mark })
}

/// tmkms signs again whatever has the same block, and anything at all after a null block. So the block is a hash of the
/// mark, which no real block can have.
pub(super) fn write(mark: &Mark) -> String {
    let stand_in = match &mark.signed {
        Some(signed) => signed.digest.0,
        None => Sha256::digest(format!("highwater: no block was signed at {}", mark.hrs)).into(),
    };
    let hash = String::from_utf8(subtle_encoding::hex::encode_upper(stand_in)).expect("hex is text");
    json!({
        "height": mark.hrs.height.to_string(),
        "round": mark.hrs.round.to_string(),
        "step": mark.hrs.step.number() - 1,
        "block_id": { "hash": hash, "parts": { "total": 1, "hash": hash } },
    })
    .to_string()
}

//! State files of other programs, in and out.
//!
//! A foreign file tells how far its program has signed, never what a device would need to repeat it. So everything
//! read here becomes a mark without a digest: its own height, round and step is refused for good.

mod cometbft;
mod json;
mod tmkms;

use highwater_core::{
    consensus::{HEIGHT_MAX, Hrs},
    watermark::{Identity, Mark},
};
use json::Unambiguous;
use serde_json::Value;
use std::fmt;

/// A program whose state files are understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// CometBFT's own signer: `priv_validator_state.json`.
    CometBft,
    /// tmkms.
    Tmkms,
}

impl Program {
    /// As an operator writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::CometBft => "CometBFT",
            Self::Tmkms => "tmkms",
        }
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A foreign state file that was understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Foreign {
    /// Who wrote it.
    pub program: Program,
    /// How far that program has signed.
    pub mark: Mark,
}

/// Reads a foreign state file. `identity` is what a CometBFT file must prove to be of.
pub fn read(text: &str, identity: &Identity) -> Result<Foreign, MigrationError> {
    let Unambiguous(json) = serde_json::from_str(text).map_err(|error| MigrationError::NotJson(error.to_string()))?;
    let Value::Object(fields) = &json else { return Err(MigrationError::NotJson("it is not an object".into())) };
    // The one field that tells the two apart. Guessing wrong would be off by a step.
    let block_id = fields.contains_key("block_id");
    let signature = fields.contains_key("signbytes") || fields.contains_key("signature");
    let foreign = match (block_id, signature) {
        (true, true) => {
            return Err(MigrationError::Ambiguous("it has both a block_id (tmkms) and signbytes (CometBFT)"));
        }
        (true, false) => tmkms::read(&json)?,
        (false, _) => cometbft::read(&json, identity)?,
    };
    match foreign.mark.hrs.height {
        // Written by a tmkms that found no file, whatever its key had signed before.
        0 => Err(MigrationError::NeverSigned),
        // A chain would end there.
        HEIGHT_MAX => Err(MigrationError::Tombstone),
        _ => Ok(foreign),
    }
}

/// Whether `text` is what Highwater leaves in the place of an imported file.
pub fn is_tombstone(text: &str) -> bool {
    let Ok(Unambiguous(json)) = serde_json::from_str(text) else { return false };
    tmkms::read(&json).is_ok_and(|foreign| foreign.mark.hrs.height == HEIGHT_MAX)
}

/// Writes `mark` for `program`, so that it never signs the mark's own height, round and step again.
pub fn write(program: Program, mark: &Mark) -> String {
    match program {
        Program::CometBft => cometbft::write(mark),
        Program::Tmkms => tmkms::write(mark),
    }
}

/// Why a foreign state file is not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MigrationError {
    /// It could be either program's.
    Ambiguous(&'static str),
    /// A field is missing or wrong.
    Field {
        /// Whose format it was read in.
        program: Program,
        /// The field.
        field: &'static str,
        /// What it should be.
        expected: &'static str,
    },
    /// It is of another chain.
    ForeignChain {
        /// The chain in its sign bytes.
        found: String,
    },
    /// There is no such file.
    Missing,
    /// A tmkms that had not signed yet wrote it, or one that had lost its file.
    NeverSigned,
    /// It is not JSON.
    NotJson(String),
    /// Its sign bytes are not of its own height, round and step.
    SignBytes {
        /// What the sign bytes say, if they can be read.
        found: Option<Hrs>,
        /// What the file says.
        expected: Hrs,
    },
    /// Its signature is not our key's.
    Signature,
    /// It is what Highwater leaves in the place of an imported file.
    Tombstone,
    /// It has signed, and nothing in it shows for which chain and key.
    Unproven {
        /// How far.
        hrs: Hrs,
    },
}

impl fmt::Display for MigrationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ambiguous(why) => write!(
                f,
                "it cannot be told which program wrote it: {why}. Take the height from it by hand: `highwater state \
                 init --height H`, or `state raise` where a state file exists"
            ),
            Self::Field { program, field, expected } => {
                write!(f, "read as a {program} state file, its `{field}` should be {expected}")
            }
            Self::ForeignChain { found } => write!(f, "its sign bytes are of chain {found}"),
            Self::Missing => f.write_str("there is no such file"),
            Self::NotJson(why) => write!(f, "it is no JSON state file: {why}"),
            Self::SignBytes { found: Some(found), expected } => {
                write!(f, "it says {expected}, its sign bytes say {found}: it was changed by hand")
            }
            Self::SignBytes { found: None, expected } => {
                write!(f, "it says {expected}, but its sign bytes are no vote or proposal: it was changed by hand")
            }
            Self::Signature => f.write_str("its signature is not of the configured consensus key"),
            Self::Tombstone => f.write_str(
                "it is the tombstone that Highwater leaves so that tmkms signs nothing, and holds no mark",
            ),
            Self::NeverSigned | Self::Unproven { hrs: Hrs::GENESIS } => f.write_str(
                "it says that nothing was ever signed, which a lost file or a reset also leaves behind. If the key has \
                 never signed: `highwater state init --never-signed`; if it may have: `highwater state init --height H`",
            ),
            Self::Unproven { hrs } => write!(
                f,
                "it is at {hrs} without the sign bytes and signature that would prove its chain and key. If you know \
                 that it is of this key: `highwater state init --height {}`, or `state raise` where a state file exists",
                hrs.height
            ),
        }
    }
}

impl std::error::Error for MigrationError {}

/// A decimal number in a string, which is how both programs write heights.
fn decimal(value: &Value, most: u64) -> Option<u64> {
    let text = value.as_str()?;
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|number| plain && *number <= most)
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;

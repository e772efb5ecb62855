//! Reads and writes the state files of other programs.
//!
//! A foreign file shows how far its program has signed. One of CometBFT also shows what, and proves it with a signature: that
//! message, and no other, is signed again. One of tmkms does not, so it becomes a mark without a digest: its own height, round
//! and step is refused for good.

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

/// A program whose state files we can read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// CometBFT's own signer: `priv_validator_state.json`.
    CometBft,
    /// tmkms.
    Tmkms,
}

impl Program {
    /// The name, as operators write it.
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

/// The content of a foreign state file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Foreign {
    /// The program that wrote it.
    pub program: Program,
    /// How far that program has signed.
    pub mark: Mark,
}

/// Reads a foreign state file. A CometBFT file must prove that it belongs to `identity`.
pub fn read(text: &str, identity: &Identity) -> Result<Foreign, MigrationError> {
    let Unambiguous(json) = serde_json::from_str(text).map_err(|error| MigrationError::NotJson(error.to_string()))?;
    let Value::Object(fields) = &json else { return Err(MigrationError::NotJson("it is not an object".into())) };
    // The only field that distinguishes the two. A wrong guess would be off by one step.
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
        // A tmkms that found no file wrote it, whatever its key had signed before.
        0 => Err(MigrationError::NeverSigned),
        // No chain gets there.
        HEIGHT_MAX => Err(MigrationError::Tombstone),
        _ => Ok(foreign),
    }
}

/// Whether `text` is the tombstone that Highwater leaves in place of an imported file.
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

/// Why a foreign state file is not imported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MigrationError {
    /// It could be either program's.
    Ambiguous(&'static str),
    /// A field is missing or wrong.
    Field {
        /// The program whose format it was read as.
        program: Program,
        /// The field.
        field: &'static str,
        /// What it should be.
        expected: &'static str,
    },
    /// It belongs to another chain.
    ForeignChain {
        /// The chain in its sign bytes.
        found: String,
    },
    /// There is no such file.
    Missing,
    /// It was written by a tmkms that had not signed yet, or had lost its file.
    NeverSigned,
    /// It is not JSON.
    NotJson(String),
    /// Its sign bytes have another height, round or step.
    SignBytes {
        /// What the sign bytes say, if they can be read.
        found: Option<Hrs>,
        /// What the file says.
        expected: Hrs,
    },
    /// Its signature is not by our key.
    Signature,
    /// It is the tombstone that Highwater leaves in place of an imported file.
    Tombstone,
    /// It shows a signature, but not for which chain and key.
    Unproven {
        /// How far.
        hrs: Hrs,
    },
}

/// How to go on with a file that cannot be imported.
const BY_HAND: &str = "Wait until the chain has committed two more heights, then run `highwater state init --height H` with the last \
                       of them, or `highwater state raise --height H` if a state file exists";

impl fmt::Display for MigrationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ambiguous(why) => write!(
                f,
                "it is unclear which program wrote it: {why}. Read the height in it, then run `highwater state init \
                 --height H`, or `state raise` if a state file exists"
            ),
            Self::Field { program, field, expected } => {
                write!(f, "read as a {program} state file, its `{field}` should be {expected}. {BY_HAND}")
            }
            Self::ForeignChain { found } => write!(
                f,
                "its sign bytes are for chain {found}: import the file of this chain, or name the other one with --chain"
            ),
            Self::Missing => f.write_str(
                "there is no such file: correct the path. If there never was one, run `highwater state init --never-signed` for \
                 a key that has never signed, or `highwater state init --height H`",
            ),
            Self::NotJson(why) => write!(f, "it is not a whole JSON state file ({why}). {BY_HAND}"),
            Self::SignBytes { found: Some(found), expected } => {
                write!(f, "it says {expected}, but its sign bytes say {found}: somebody edited it. {BY_HAND}")
            }
            Self::SignBytes { found: None, expected } => write!(
                f,
                "it says {expected}, but its sign bytes are not a vote or proposal of CometBFT: somebody edited it, or another \
                 program (gno.land's node, Tendermint before 0.34) wrote it. {BY_HAND}"
            ),
            Self::Signature => f.write_str(
                "its signature is not by the configured consensus key: name the key that belongs to this state in `path` of the \
                 provider, or import the state that belongs to the key",
            ),
            Self::Tombstone => f.write_str(
                "it is the tombstone that Highwater leaves so that tmkms signs nothing; it holds no mark. Import the file that \
                 was kept beside it (.imported) only if no signer has signed since; otherwise use the state of that signer",
            ),
            Self::NeverSigned | Self::Unproven { hrs: Hrs::GENESIS } => f.write_str(
                "it says that nothing was ever signed, but it would also say so after a loss or a reset. If the key has never \
                 signed, run `highwater state init --never-signed`; if it may have, run `highwater state init --height H`",
            ),
            Self::Unproven { hrs } => write!(
                f,
                "it is at {hrs} without the sign bytes and signature that would prove its chain and key. If you know \
                 that it belongs to this key, run `highwater state init --height {}`, or `state raise` if a state file exists",
                hrs.height
            ),
        }
    }
}

impl std::error::Error for MigrationError {}

/// A decimal number in a string: both programs write heights so.
fn decimal(value: &Value, most: u64) -> Option<u64> {
    let text = value.as_str()?;
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|number| plain && *number <= most)
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;

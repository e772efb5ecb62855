//! Asks a node about its chain: JSON-RPC as plain HTTP GET, and the commits read from it.

use highwater_core::{
    consensus::{ChainId, KeyType, PublicKey, Signature, Timestamp},
    privval::{Canonical, CanonicalBlockId, MessageKind},
};
use serde_json::Value;
use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::Duration,
};
use subtle_encoding::{base64, hex};

const TIMEOUT: Duration = Duration::from_secs(10);
/// `BlockIDFlagCommit` (CometBFT `types/block.go`): the validator voted for the block.
const BLOCK_ID_FLAG_COMMIT: u64 = 2;

/// A node's RPC server.
#[derive(Clone, Copy)]
pub struct Rpc {
    /// Its loopback port.
    pub port: u16,
}

impl Rpc {
    /// The `result` of a call such as `/block?height=1`, or why there is none, as while the node boots.
    pub fn get(self, path: &str) -> Result<Value, String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).map_err(|error| error.to_string())?;
        let mut exchange = || {
            stream.set_read_timeout(Some(TIMEOUT))?;
            stream.set_write_timeout(Some(TIMEOUT))?;
            // HTTP/1.0: the answer then comes in one piece and ends with the connection.
            stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n").as_bytes())?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        };
        let answer = exchange().map_err(|error: std::io::Error| error.to_string())?;
        let (_, body) = answer.split_once("\r\n\r\n").ok_or_else(|| format!("no HTTP answer: {answer:?}"))?;
        let mut body: Value = serde_json::from_str(body).map_err(|error| format!("{error} in {body:?}"))?;
        match body.get_mut("result").map(Value::take) {
            Some(result) if !result.is_null() => Ok(result),
            _ => Err(format!("{path}: {body}")),
        }
    }

    /// The same, from a node that must answer.
    pub fn expect(self, path: &str) -> Value {
        self.get(path).unwrap_or_else(|error| panic!("RPC {path}: {error}"))
    }

    /// The height of the last block; `None` until the node answers.
    pub fn height(self) -> Option<u64> {
        let status = self.get("/status").ok()?;
        Some(number(&status["sync_info"]["latest_block_height"]))
    }

    /// The commit for the block at `height`. It is settled once the block after it exists.
    pub fn commit(self, height: u64) -> Commit {
        let answer = self.expect(&format!("/commit?height={height}"));
        assert_eq!(answer["canonical"], true, "the commit of height {height} is settled: {answer}");
        Commit::read(&answer["signed_header"]["commit"])
    }

    /// Panics if the block at `height` holds evidence. Gives its hash.
    pub fn block_without_evidence(self, height: u64) -> String {
        let answer = self.expect(&format!("/block?height={height}"));
        let evidence = &answer["block"]["evidence"]["evidence"];
        assert!(evidence.as_array().unwrap().is_empty(), "evidence in block {height}: {evidence}");
        text(&answer["block_id"]["hash"]).into()
    }
}

/// The precommits that committed a block.
pub struct Commit {
    /// The block's height.
    pub height: u64,
    round: u32,
    block_id: CanonicalBlockId,
    signatures: Vec<CommitSignature>,
}

/// The precommit of one validator.
struct CommitSignature {
    address: String,
    timestamp: Timestamp,
    signature: Signature,
}

impl Commit {
    fn read(commit: &Value) -> Self {
        let parts = &commit["block_id"]["parts"];
        let block_id = CanonicalBlockId {
            hash: hash(&commit["block_id"]["hash"]),
            parts_total: u32::try_from(parts["total"].as_u64().unwrap()).unwrap(),
            parts_hash: hash(&parts["hash"]),
        };
        let all = commit["signatures"].as_array().unwrap();
        let for_block = all.iter().filter(|signature| signature["block_id_flag"] == BLOCK_ID_FLAG_COMMIT);
        let signatures = for_block.map(|signature| CommitSignature {
            address: text(&signature["validator_address"]).into(),
            timestamp: timestamp(text(&signature["timestamp"])),
            signature: Signature::new(&bytes(&signature["signature"])),
        });
        Self {
            height: number(&commit["height"]),
            round: u32::try_from(commit["round"].as_u64().unwrap()).unwrap(),
            block_id,
            signatures: signatures.collect(),
        }
    }

    /// Of how many validators it holds a precommit for the block.
    pub fn signers(&self) -> usize {
        self.signatures.len()
    }

    /// Whether the validator with this key signed. Panics if its signature is wrong or there are two.
    pub fn is_signed_by(&self, key: &PublicKey, chain: &ChainId) -> bool {
        let address = String::from_utf8(hex::encode_upper(key.address())).unwrap();
        let ours: Vec<_> = self.signatures.iter().filter(|signature| signature.address == address).collect();
        assert!(ours.len() <= 1, "two signatures of one validator at height {}", self.height);
        for CommitSignature { timestamp, signature, .. } in &ours {
            let precommit = Canonical {
                kind: MessageKind::Precommit,
                height: self.height,
                round: self.round,
                block_id: Some(self.block_id),
                timestamp: *timestamp,
            };
            let sign_bytes = precommit.sign_bytes(chain);
            let valid = key.verifies(sign_bytes.as_slice(), signature);
            assert!(valid, "the signature at height {} does not verify", self.height);
        }
        !ours.is_empty()
    }
}

/// The public half of a CometBFT key in JSON.
pub fn public_key(key_file: &Value) -> PublicKey {
    assert_eq!(key_file["pub_key"]["type"], "tendermint/PubKeyEd25519");
    PublicKey::from_bytes(KeyType::Ed25519, &bytes(&key_file["pub_key"]["value"])).unwrap()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("a text, not {value}"))
}

/// CometBFT writes 64-bit numbers as text.
fn number(value: &Value) -> u64 {
    text(value).parse().unwrap()
}

fn bytes(value: &Value) -> Vec<u8> {
    base64::decode(text(value)).unwrap()
}

fn hash(value: &Value) -> [u8; 32] {
    hex::decode_upper(text(value)).unwrap().try_into().unwrap()
}

/// Reads a time as Go writes it: `2026-01-02T03:04:05.678Z`.
fn timestamp(text: &str) -> Timestamp {
    let (whole, fraction) = text.strip_suffix('Z').unwrap().split_once('.').unwrap_or((text.trim_end_matches('Z'), ""));
    let fields: Vec<i64> = whole.split(['-', 'T', ':']).map(|field| field.parse().unwrap()).collect();
    let &[year, month, day, hour, minute, second] = fields.as_slice() else { panic!("not a time: {text}") };
    let nanos = format!("{fraction:0<9}").parse().unwrap();
    let seconds = ((days_since_1970(year, month, day) * 24 + hour) * 60 + minute) * 60 + second;
    Timestamp::new(seconds, nanos).unwrap()
}

/// Counts in years that begin in March, so that a leap day comes last.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month < 3 { (year - 1, month + 9) } else { (year, month - 3) };
    let leap_days = year / 4 - year / 100 + year / 400;
    year * 365 + leap_days + (month * 153 + 2) / 5 + day - 1 - 719_468
}

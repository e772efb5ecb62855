//! A validator node on a unix socket: it asks for signatures in the clear, and checks those that it gets.

use super::cli::{PATIENCE, wait_for};
use highwater_core::{
    consensus::{ChainId, KeyType, PublicKey, Signature, Timestamp},
    privval::{
        Canonical, CanonicalBlockId, MessageKind,
        message::{self, Message, RemoteSignerError, Sum},
    },
};
use prost::Message as _;
use std::{
    io::{self, Read as _, Write as _},
    os::unix::net::{UnixListener, UnixStream},
    path::Path,
};

/// A node that waits for its signer, whichever that is.
pub struct PlainNode {
    chain: ChainId,
    listener: UnixListener,
    link: Option<(UnixStream, PublicKey)>,
}

/// The result of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The connection ended instead of an answer.
    Dropped,
    /// An error, with its code.
    Refused(i32),
    /// A signature that verifies.
    Signed,
}

/// A message to sign. The letter names the block; `None` is nil.
#[derive(Clone, Copy, Debug)]
pub struct Ballot(pub MessageKind, pub u64, pub u32, pub Option<u8>);

impl PlainNode {
    pub fn bind(path: &Path, chain: &str) -> Self {
        let listener = UnixListener::bind(path).unwrap();
        listener.set_nonblocking(true).unwrap();
        Self { chain: ChainId::new(chain).unwrap(), listener, link: None }
    }

    /// A second connection on the same socket, for a second signer.
    pub fn beside(&self) -> Self {
        Self { chain: self.chain.clone(), listener: self.listener.try_clone().unwrap(), link: None }
    }

    /// Waits for a signer that answers, and gives its public key. Connections of an earlier one may still queue.
    pub fn meet(&mut self) -> PublicKey {
        self.link = None;
        let (stream, key) = wait_for("a signer that answers", || {
            let mut stream = self.listener.accept().ok()?.0;
            stream.set_nonblocking(false).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            let request = message::PubKeyRequest { chain_id: self.chain.to_string() };
            match ask(&mut stream, Sum::PubKeyRequest(request)).ok()? {
                Sum::PubKeyResponse(response) => Some((stream, public_key(response))),
                other => panic!("asked for a public key, got {other:?}"),
            }
        });
        self.link = Some((stream, key.clone()));
        key
    }

    /// Asks for a signature.
    pub fn ask(&mut self, ballot: Ballot) -> Verdict {
        let (stream, key) = self.link.as_mut().expect("a signer was met");
        let Ballot(kind, ..) = ballot;
        let answer = match ask(stream, ballot.request(&self.chain)) {
            Ok(answer) => answer,
            Err(error) if is_end(&error) => return Verdict::Dropped,
            Err(error) => panic!("no answer to {ballot:?}: {error}"),
        };
        let (error, signed) = match answer {
            Sum::SignedVoteResponse(response) if !matches!(kind, MessageKind::Proposal { .. }) => {
                (response.error, response.vote.map(|vote| (vote.timestamp, vote.signature)))
            }
            Sum::SignedProposalResponse(response) if matches!(kind, MessageKind::Proposal { .. }) => {
                (response.error, response.proposal.map(|proposal| (proposal.timestamp, proposal.signature)))
            }
            other => panic!("asked for {ballot:?}, got {other:?}"),
        };
        match (error, signed) {
            // tmkms echoes the request beside its error.
            (Some(RemoteSignerError { code, .. }), signed) => {
                assert!(signed.is_none_or(|(_, signature)| signature.is_empty()), "a signature beside an error");
                Verdict::Refused(code)
            }
            (None, Some((Some(time), signature))) => {
                let timestamp = Timestamp::new(time.seconds, time.nanos.into()).unwrap();
                let bytes = Canonical { timestamp, ..ballot.canonical() }.sign_bytes(&self.chain);
                let signature = Signature::new(&signature);
                assert!(key.verifies(bytes.as_slice(), &signature), "the signature for {ballot:?} verifies");
                Verdict::Signed
            }
            other => panic!("neither an error nor a signature: {other:?}"),
        }
    }
}

impl Ballot {
    pub fn canonical(self) -> Canonical {
        let Self(kind, height, round, block) = self;
        let block_id = block.map(|byte| CanonicalBlockId { hash: [byte; 32], parts_total: 1, parts_hash: [byte; 32] });
        Canonical { kind, height, round, block_id, timestamp: Timestamp::new(1_700_000_000, 5).unwrap() }
    }

    fn request(self, chain: &ChainId) -> Sum {
        let Canonical { kind, height, round, block_id, timestamp } = self.canonical();
        let height = i64::try_from(height).unwrap();
        let round = i32::try_from(round).unwrap();
        let timestamp = message::Timestamp { seconds: timestamp.seconds(), nanos: timestamp.nanos().cast_signed() };
        let block_id = match block_id {
            None => message::BlockId { hash: Vec::new(), part_set_header: Some(message::PartSetHeader::default()) },
            Some(CanonicalBlockId { hash, parts_total, parts_hash }) => message::BlockId {
                hash: hash.into(),
                part_set_header: Some(message::PartSetHeader { total: parts_total, hash: parts_hash.into() }),
            },
        };
        let (block_id, timestamp, chain_id) = (Some(block_id), Some(timestamp), chain.to_string());
        let r#type = match kind {
            MessageKind::Precommit => message::TYPE_PRECOMMIT,
            MessageKind::Prevote => message::TYPE_PREVOTE,
            MessageKind::Proposal { pol_round } => {
                let r#type = message::TYPE_PROPOSAL;
                let signature = Vec::new();
                let proposal = message::Proposal { r#type, height, round, pol_round, block_id, timestamp, signature };
                let request = message::SignProposalRequest { proposal: Some(proposal), chain_id };
                return Sum::SignProposalRequest(request);
            }
        };
        let validator_address = vec![1; 20];
        let vote =
            message::Vote { r#type, height, round, block_id, timestamp, validator_address, ..Default::default() };
        Sum::SignVoteRequest(message::SignVoteRequest { vote: Some(vote), chain_id, skip_extension_signing: false })
    }
}

fn ask(stream: &mut UnixStream, request: Sum) -> io::Result<Sum> {
    let mut frame = Vec::new();
    Message::from(request).encode_frame(&mut frame);
    stream.write_all(&frame)?;
    let mut length = Vec::new();
    while length.last().is_none_or(|byte| byte & 0x80 != 0) {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        length.push(byte[0]);
    }
    let length = prost::decode_length_delimiter(length.as_slice()).unwrap();
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok(Message::decode(body.as_slice()).unwrap().sum.expect("a message says something"))
}

/// Whether the other side is gone, not just slow.
fn is_end(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionReset | UnexpectedEof)
}

fn public_key(response: message::PubKeyResponse) -> PublicKey {
    assert_eq!(response.error, None);
    match response.pub_key {
        Some(message::PublicKey { key_type: Some(KeyType::Ed25519), bytes }) => {
            PublicKey::from_bytes(KeyType::Ed25519, &bytes).unwrap()
        }
        other => panic!("not an Ed25519 key: {other:?}"),
    }
}

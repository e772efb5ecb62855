//! The part of Highwater that decides. Whoever wants to know whether Highwater keeps its first two promises reads this crate, and
//! outside of it only how an import is proven, which is named below.
//!
//! # The promises
//!
//! 1. **Never two.** For one chain and key, at most one vote or proposal per height, round and step ever leaves, and they only move
//!    forward.
//! 2. **Durable first.** No signature leaves before the mark that covers it is on the disk.
//!
//! # Why they hold
//!
//! - A node's bytes become a request in one place, [`privval::Request::parse`], or they become a refusal. What is not exactly a
//!   message of CometBFT is refused. *(`privval::request::tests`)*
//! - What is signed is not what the node sent. [`privval::Canonical`] holds the fields, and the signer builds the sign bytes from
//!   them anew. *(test vectors made by CometBFT, in `privval::sign_bytes::tests`)*
//! - One function decides, [`watermark::decide`]. It is pure: a mark and a candidate go in, a [`watermark::Verdict`] comes out.
//!   *(every history of up to four steps, against a reference that knows no marks: `tests/never_two/exhaustive.rs`)*
//! - Only [`watermark::Store::advance`] moves a mark, and only forward. It writes the record into the slot that does not hold the
//!   last one, flushes, and checks that the path still leads to the locked file. *(every crash, every fault and every part of a
//!   write that a power cut can keep: `tests/durable_first/crash_states.rs`)*
//! - The proof is a value. [`watermark::Durable`] can be made by the store alone, after its flush; it has no `Clone`, and a release
//!   consumes it. Without one there is no way to a signature, because [`chain::Chain`] gives none to its caller in another way.
//!   *(the deliberate bugs `no_flush` and `flush_after_release` fail the tests)*
//! - A release reads the signed bytes back and compares chain, place, time and digest with the durable mark. If they differ, the
//!   process ends. *(`chain::tests::a_mark_releases_nothing_but_its_own_message`)*
//! - A mark that an import makes holds a message only where a file of CometBFT proves it: its sign bytes parse as exactly this
//!   chain's message of that place, and its signature over them verifies with this key. That reading is the one part of the
//!   argument outside of this crate, `state/foreign/cometbft.rs` of the program. *(`state::foreign::tests` there, and the
//!   deliberate bug `import_unproven`)*
//! - One lock for each chain spans the decision, the flush and the release, so that two nodes cannot be answered from one mark.
//!   *(`tests/never_two/nodes.rs` of the repository: five nodes, the real program, and kills)*
//! - After any error of its disk a store is stopped for the life of the process: a second flush may report success over pages that
//!   the first one lost. *(the deliberate bug `no_stop_after_error` fails the tests)*
//! - A state file knows its chain, its whole public key, its machine, and its own inode number and time of birth. A copy, a file of
//!   another machine and a file of another key are refused. *(`watermark::file::tests`, `watermark::header::tests`)*
//! - Slots that contradict each other, or one that does not verify, are never resolved by taking the other one: it may be older than
//!   a vote that left. *(`tests/durable_first/bad_files.rs`)*
//!
//! # What is outside
//!
//! Vote extensions have no mark. Each request for a vote gets its extension signed, as with CometBFT's own signer, and two
//! different extensions may leave. Raw bytes, if the operator allows them, carry a prefix that keeps them apart from every message
//! that a mark guards.
//!
//! Two signers with two state files are beyond any one file. The program claims the pair of chain and key on its machine, and the
//! manual says what an operator has to do on others.
//!
//! # What this crate never does
//!
//! It opens no socket, starts no thread and no process, reads no configuration and no environment, logs nothing, and holds no
//! secret: a [`signer::Signer`] does. None of the crates for that is among its dependencies, and a test looks for the modules of
//! the standard library that could do it.
//!
//! # The rooms
//!
//! | module | what lives there |
//! | --- | --- |
//! | [`answer`] | one request answered, from bytes to message |
//! | [`chain`] | one key joined to one mark: the only place where a request becomes a signature |
//! | [`consensus`] | the words that all modules share: chain id, height/round/step, timestamp, digest, public key |
//! | [`disk`] | private new files, durable directory entries |
//! | [`privval`] | messages, framing, request validation, sign bytes, refusals. No I/O |
//! | [`signer`] | what holds a key, as a chain sees it |
//! | [`watermark`] | the mark, the rule, the record, the store, the file |
//!
//! # The rule, in three lines
//!
//! ```
//! use highwater_core::consensus::{Digest, Hrs, Step, Target, Timestamp};
//! use highwater_core::watermark::{Candidate, Mark, Verdict, decide};
//!
//! let hrs = Hrs { height: 7, round: 0, step: Step::Prevote };
//! let timestamp = Timestamp::new(1_700_000_000, 0).unwrap();
//! let vote = Candidate { hrs, target: Target::Block, timestamp, digest: Digest([1; 32]) };
//! let other_block = Candidate { digest: Digest([2; 32]), ..vote };
//!
//! assert_eq!(decide(&Mark::NEVER_SIGNED, &vote), Verdict::Sign);
//! assert_eq!(decide(&vote.mark(), &vote), Verdict::Repeat { timestamp });
//! assert!(matches!(decide(&vote.mark(), &other_block), Verdict::Refuse(_)));
//! ```
//!
//! # The store
//!
//! ```
//! # let directory = tempfile::tempdir().unwrap();
//! # let path = directory.path().join("test-chain.state");
//! use highwater_core::consensus::{ChainId, Hrs, KeyType, PublicKey};
//! use highwater_core::watermark::{HostId, Identity, Mark, StateFile, Store, create};
//!
//! let key = [0x21, 0x52, 0xf8, 0xd1, 0x9b, 0x79, 0x1d, 0x24, 0x45, 0x32, 0x42, 0xe1, 0x5f, 0x2e, 0xab, 0x6c, 0xb7, 0xcf, 0xfa, 0x7b,
//!     0x6a, 0x5e, 0xd3, 0x00, 0x97, 0x96, 0x0e, 0x06, 0x98, 0x81, 0xdb, 0x12];
//! let key = PublicKey::from_bytes(KeyType::Ed25519, &key).unwrap();
//! let identity = Identity { chain: ChainId::new("test-chain").unwrap(), key };
//! let host = HostId([1; 16]);
//! create(&path, host, &identity, Mark::NEVER_SIGNED).unwrap();
//!
//! let mut store = Store::open(Box::new(StateFile::open(&path).unwrap()), &identity, host).unwrap();
//! let proof = store.advance(Mark::floor(Hrs::end_of(7))).unwrap();
//! // The mark is on the disk now, and the proof is good for one release.
//! assert_eq!(proof.spend().hrs.height, 7);
//!
//! // A second opener is refused while the first lives.
//! assert!(StateFile::open(&path).is_err());
//! ```
//!
//! # Sign bytes
//!
//! ```
//! use highwater_core::consensus::{ChainId, Timestamp};
//! use highwater_core::privval::{Canonical, MessageKind};
//!
//! let chain = ChainId::new("test-chain").unwrap();
//! let nil_prevote = Canonical {
//!     kind: MessageKind::Prevote,
//!     height: 7,
//!     round: 0,
//!     block_id: None,
//!     timestamp: Timestamp::new(1_700_000_000, 0).unwrap(),
//! };
//! let bytes = nil_prevote.sign_bytes(&chain);
//! // What was written reads back as the same message, for the same chain.
//! assert_eq!(Canonical::parse(bytes.as_slice()), Some((nil_prevote, chain)));
//! ```

#![warn(missing_docs)]

#[doc(hidden)]
#[macro_use]
pub mod broken;

pub mod answer;
pub mod chain;
pub mod consensus;
pub mod disk;
pub mod hex;
pub mod privval;
pub mod signer;
pub mod watermark;

//! A chain over a real state file, with real keys and with ones that fail.

use super::*;
use crate::{
    consensus::{Conflict, Step, keys},
    privval::{CanonicalBlockId, MessageKind, message},
    signer::{SELF_TEST, SignError},
    watermark::{HostId, Identity, StateFile, create},
};
use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

fn id() -> ChainId {
    ChainId::new("test-chain").unwrap()
}

/// Signs with the key of the test vectors.
struct SoftwareKey(ed25519_dalek::SigningKey);

impl Signer for SoftwareKey {
    fn public_key(&self) -> PublicKey {
        PublicKey::from(self.0.verifying_key())
    }

    fn sign(&self, message: &[u8]) -> Result<Signature, SignError> {
        use ed25519_dalek::Signer as _;
        Ok(Signature::new(&self.0.sign(message).to_bytes()))
    }
}

fn software_key() -> Box<dyn Signer> {
    Box::new(SoftwareKey(ed25519_dalek::SigningKey::from_bytes(&[0x42; 32])))
}

/// Signs with the software key, fails on demand, and counts.
#[derive(Default)]
struct FlakyKey {
    fails: Arc<AtomicBool>,
    signed: Arc<AtomicUsize>,
}

impl Signer for FlakyKey {
    fn public_key(&self) -> PublicKey {
        software_key().public_key()
    }

    fn sign(&self, message: &[u8]) -> Result<Signature, SignError> {
        if self.fails.load(Ordering::SeqCst) {
            return Err(SignError::Backend("played fault".into()));
        }
        self.signed.fetch_add(1, Ordering::SeqCst);
        software_key().sign(message)
    }
}

pub(crate) struct Home {
    directory: tempfile::TempDir,
}

impl Home {
    pub(crate) fn new() -> Self {
        let home = Self { directory: tempfile::tempdir().unwrap() };
        create(&home.state_file(), HostId([1; 16]), &home.identity(), Mark::NEVER_SIGNED).unwrap();
        home
    }

    fn identity(&self) -> Identity {
        Identity { chain: id(), key: software_key().public_key() }
    }

    fn state_file(&self) -> PathBuf {
        self.directory.path().join("state")
    }

    fn chain_with(&self, signer: Box<dyn Signer>, allow_raw_bytes: bool) -> Chain {
        let file = Box::new(StateFile::open(&self.state_file()).unwrap());
        let store = Store::open(file, &self.identity(), HostId([1; 16])).unwrap();
        Chain::open(id(), signer, store, &self.state_file(), allow_raw_bytes)
    }

    pub(crate) fn chain(&self) -> Chain {
        self.chain_with(software_key(), false)
    }
}

fn canonical(height: u64, kind: MessageKind, block: u8, seconds: i64) -> Canonical {
    let block_id =
        (block != 0).then_some(CanonicalBlockId { hash: [block; 32], parts_total: 1, parts_hash: [block; 32] });
    Canonical { kind, height, round: 0, block_id, timestamp: Timestamp::new(seconds, 0).unwrap() }
}

fn vote(height: u64, kind: MessageKind, block: u8, seconds: i64) -> VoteRequest {
    let extension = match kind {
        MessageKind::Precommit if block != 0 => Extension::Sign(b"extension".to_vec()),
        _ => Extension::None,
    };
    VoteRequest { canonical: canonical(height, kind, block, seconds), extension, echo: message::Vote::default() }
}

fn proposal(height: u64, block: u8, seconds: i64) -> ProposalRequest {
    let kind = MessageKind::Proposal { pol_round: -1 };
    ProposalRequest { canonical: canonical(height, kind, block, seconds), echo: message::Proposal::default() }
}

fn assert_signs(request: &VoteRequest, signed: &Signed) {
    let covered = Canonical { timestamp: signed.timestamp, ..request.canonical };
    let key = software_key().public_key();
    assert!(key.verifies(covered.sign_bytes(&id()).as_slice(), &signed.signature));
    if let Extension::Sign(extension) = &request.extension {
        let bytes = extension_sign_bytes(&id(), covered.height, covered.round, extension);
        assert!(key.verifies(&bytes, &signed.extension_signature.clone().unwrap()));
    }
}

#[test]
fn a_round_of_consensus_is_signed() {
    let home = Home::new();
    let chain = home.chain();
    assert!(!chain.sign_proposal(&proposal(1, 7, 1)).unwrap().repeated);
    for kind in [MessageKind::Prevote, MessageKind::Precommit] {
        let request = vote(1, kind, 7, 1);
        let signed = chain.sign_vote(&request).unwrap();
        assert_signs(&request, &signed);
        assert_eq!(signed.extension_signature.is_some(), kind == MessageKind::Precommit);
    }
    assert_eq!(chain.last(), Ok(Hrs { height: 1, round: 0, step: Step::Precommit }));
}

#[test]
fn a_repeated_vote_gets_the_old_time_and_the_old_signature_also_after_a_restart() {
    let home = Home::new();
    let chain = home.chain();
    let first = chain.sign_vote(&vote(1, MessageKind::Precommit, 7, 100)).unwrap();
    let again = chain.sign_vote(&vote(1, MessageKind::Precommit, 7, 200)).unwrap();
    drop(chain);
    let chain = home.chain();
    let after_restart = chain.sign_vote(&vote(1, MessageKind::Precommit, 7, 300)).unwrap();
    for repeat in [again, after_restart] {
        assert!(repeat.repeated);
        assert_eq!((repeat.timestamp, &repeat.signature), (first.timestamp, &first.signature));
        assert_signs(&vote(1, MessageKind::Precommit, 7, 0), &repeat);
    }
}

#[test]
fn a_repeat_asks_the_key_for_nothing_but_the_extension() {
    let home = Home::new();
    let key = FlakyKey::default();
    let signed = Arc::clone(&key.signed);
    let chain = home.chain_with(Box::new(key), false);
    for _ in 0..3 {
        chain.sign_vote(&vote(1, MessageKind::Prevote, 7, 1)).unwrap();
    }
    assert_eq!(signed.load(Ordering::SeqCst), 1);
    for _ in 0..3 {
        chain.sign_vote(&vote(1, MessageKind::Precommit, 7, 1)).unwrap();
    }
    assert_eq!(signed.load(Ordering::SeqCst), 1 + 1 + 3);
}

#[test]
fn an_extension_may_differ_between_repeats() {
    let home = Home::new();
    let chain = home.chain();
    let first = vote(1, MessageKind::Precommit, 7, 1);
    let other = VoteRequest { extension: Extension::Sign(b"another".to_vec()), ..first.clone() };
    let (a, b) = (chain.sign_vote(&first).unwrap(), chain.sign_vote(&other).unwrap());
    assert_eq!(a.signature, b.signature);
    assert_signs(&first, &a);
    assert_signs(&other, &b);
}

#[test]
fn conflicts_and_regressions_are_refused_and_move_nothing() {
    let home = Home::new();
    let chain = home.chain();
    chain.sign_vote(&vote(5, MessageKind::Prevote, 7, 1)).unwrap();
    let last = chain.last();
    let hrs = Hrs { height: 5, round: 0, step: Step::Prevote };
    let refused = |request: VoteRequest| chain.sign_vote(&request).unwrap_err();
    let double_sign = |conflict| Refusal::DoubleSign { hrs, conflict };
    assert_eq!(refused(vote(5, MessageKind::Prevote, 8, 1)), double_sign(Conflict::BlockAgainstBlock));
    assert_eq!(refused(vote(5, MessageKind::Prevote, 0, 1)), double_sign(Conflict::NilAgainstBlock));
    assert!(matches!(refused(vote(4, MessageKind::Precommit, 7, 1)), Refusal::Regression { .. }));
    let late = chain.sign_proposal(&proposal(5, 7, 1));
    assert!(matches!(late, Err(Refusal::Regression { .. })));
    assert_eq!(chain.last(), last);
    assert!(chain.sign_vote(&vote(5, MessageKind::Precommit, 8, 1)).is_ok(), "another block in a later step is legal");
}

#[test]
fn a_proposal_is_repeated_only_to_the_byte() {
    let home = Home::new();
    let chain = home.chain();
    let first = chain.sign_proposal(&proposal(1, 7, 1)).unwrap();
    assert_eq!(chain.sign_proposal(&proposal(1, 7, 1)).unwrap().signature, first.signature);
    let hrs = Hrs { height: 1, round: 0, step: Step::Propose };
    let refusal = Refusal::DoubleSign { hrs, conflict: Conflict::Proposal };
    assert_eq!(chain.sign_proposal(&proposal(1, 7, 2)), Err(refusal.clone()));
    assert_eq!(chain.sign_proposal(&proposal(1, 8, 1)), Err(refusal));
}

#[test]
fn a_key_that_fails_after_the_mark_moved_can_only_sign_the_same_message_later() {
    let home = Home::new();
    let key = FlakyKey::default();
    let fails = Arc::clone(&key.fails);
    let chain = home.chain_with(Box::new(key), false);
    fails.store(true, Ordering::SeqCst);
    let failed = chain.sign_vote(&vote(1, MessageKind::Prevote, 7, 1));
    assert!(matches!(failed, Err(Refusal::KeyUnavailable(_))));
    fails.store(false, Ordering::SeqCst);
    assert!(matches!(chain.sign_vote(&vote(1, MessageKind::Prevote, 8, 1)), Err(Refusal::DoubleSign { .. })));
    let request = vote(1, MessageKind::Prevote, 7, 1);
    assert_signs(&request, &chain.sign_vote(&request).unwrap());
}

#[test]
fn the_signature_of_one_mark_is_never_given_for_another() {
    let home = Home::new();
    let key = FlakyKey::default();
    let fails = Arc::clone(&key.fails);
    let chain = home.chain_with(Box::new(key), false);
    chain.sign_vote(&vote(1, MessageKind::Prevote, 7, 1)).unwrap();
    fails.store(true, Ordering::SeqCst);
    let next = vote(2, MessageKind::Prevote, 7, 1);
    assert!(matches!(chain.sign_vote(&next), Err(Refusal::KeyUnavailable(_))));
    fails.store(false, Ordering::SeqCst);
    // A repeat now: its mark moved before the key failed.
    let signed = chain.sign_vote(&next).unwrap();
    assert!(signed.repeated);
    assert_signs(&next, &signed);
}

#[test]
fn a_precommit_whose_extension_cannot_be_signed_is_refused_whole_and_later_answered_whole() {
    /// Fails for extensions only: their sign bytes carry no type field.
    struct NoExtensions(Arc<AtomicBool>);
    impl Signer for NoExtensions {
        fn public_key(&self) -> PublicKey {
            software_key().public_key()
        }
        fn sign(&self, message: &[u8]) -> Result<Signature, SignError> {
            match Canonical::parse(message).is_none() && self.0.load(Ordering::SeqCst) {
                true => Err(SignError::Backend("played fault".into())),
                false => software_key().sign(message),
            }
        }
    }
    let home = Home::new();
    let fails = Arc::new(AtomicBool::new(true));
    let chain = home.chain_with(Box::new(NoExtensions(Arc::clone(&fails))), false);
    let request = vote(1, MessageKind::Precommit, 7, 1);
    for _ in 0..2 {
        assert!(matches!(chain.sign_vote(&request), Err(Refusal::KeyUnavailable(_))));
    }
    fails.store(false, Ordering::SeqCst);
    assert_signs(&request, &chain.sign_vote(&request).unwrap());
}

#[test]
fn a_replaced_state_file_stops_the_chain_and_the_signature_is_discarded() {
    let home = Home::new();
    let chain = home.chain();
    std::fs::rename(home.state_file(), home.directory.path().join("away")).unwrap();
    for _ in 0..2 {
        let refused = chain.sign_vote(&vote(1, MessageKind::Prevote, 7, 1));
        assert!(matches!(refused, Err(Refusal::StateUnusable(_))), "{refused:?}");
    }
    assert!(chain.public_key().is_ok(), "a booting node asks for the key once");
}

#[test]
fn a_closed_chain_answers_why_and_still_knows_its_key() {
    let why = Refusal::StateUnusable("no state".into());
    let key = software_key().public_key();
    let chain = Chain::closed(id(), Some(key.clone()), why.clone());
    assert_eq!(chain.public_key(), Ok(key));
    assert_eq!(chain.sign_vote(&vote(1, MessageKind::Prevote, 7, 1)), Err(why.clone()));
    assert_eq!(Chain::closed(id(), None, why.clone()).public_key(), Err(why));
}

#[test]
fn raw_bytes_are_signed_only_where_allowed_and_move_no_mark() {
    let request = RawBytesRequest { raw_bytes: vec![1, 2, 3], unique_id: "fibre/pp:v0".into() };
    let home = Home::new();
    assert!(matches!(home.chain().sign_raw_bytes(&request), Err(Refusal::NotPermitted(_))));
    let chain = home.chain_with(software_key(), true);
    let signature = chain.sign_raw_bytes(&request).unwrap();
    // The signature in tests/vectors/wire.json, made with Celestia's own code.
    let json: serde_json::Value = serde_json::from_str(include_str!("../../tests/vectors/wire.json")).unwrap();
    let expected = subtle_encoding::hex::decode(json["celestia_raw_bytes"]["ed25519_sig"].as_str().unwrap()).unwrap();
    assert_eq!(signature.as_bytes(), expected);
    assert_eq!(chain.last(), Ok(Hrs::GENESIS));
}

#[test]
fn a_key_with_longer_signatures_than_any_signs_and_repeats_like_the_others() {
    struct LongestKey;
    impl Signer for LongestKey {
        fn public_key(&self) -> PublicKey {
            keys::longest::key(7)
        }
        fn sign(&self, message: &[u8]) -> Result<Signature, SignError> {
            Ok(keys::longest::sign(&self.public_key(), message))
        }
    }
    let directory = tempfile::tempdir().unwrap();
    let (path, key) = (directory.path().join("state"), LongestKey.public_key());
    let identity = Identity { chain: id(), key: key.clone() };
    create(&path, HostId([1; 16]), &identity, Mark::NEVER_SIGNED).unwrap();
    let store = Store::open(Box::new(StateFile::open(&path).unwrap()), &identity, HostId([1; 16])).unwrap();
    let chain = Chain::open(id(), Box::new(LongestKey), store, &path, false);
    let request = vote(1, MessageKind::Precommit, 7, 1);
    let signed = chain.sign_vote(&request).unwrap();
    assert_eq!(signed.signature.as_bytes().len(), key.key_type().signature_len());
    assert!(key.verifies(request.canonical.sign_bytes(&id()).as_slice(), &signed.signature));
    let again = chain.sign_vote(&request).unwrap();
    assert!(again.repeated);
    assert_eq!(again.signature, signed.signature);
}

#[test]
fn many_nodes_asking_at_once_get_one_signature_for_one_place() {
    let home = Home::new();
    let chain = home.chain();
    let signatures = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for node in 1..=8_u8 {
            let (chain, signatures) = (&chain, &signatures);
            scope.spawn(move || {
                for height in 1..=50 {
                    // Half of the nodes want one block, half another, each at its own time.
                    let request = vote(height, MessageKind::Prevote, node % 2 + 1, i64::from(node));
                    if let Ok(signed) = chain.sign_vote(&request) {
                        signatures.lock().unwrap().push((height, signed.timestamp, signed.signature));
                    }
                }
            });
        }
    });
    let signatures = signatures.into_inner().unwrap();
    for height in 1..=50 {
        let mut at_height = signatures.iter().filter(|(h, ..)| *h == height);
        if let Some(first) = at_height.next() {
            assert!(at_height.all(|other| other == first), "two messages left for height {height}");
        }
    }
    assert!(signatures.iter().any(|(height, ..)| *height == 50));
}

#[test]
#[should_panic(expected = "does not cover the bytes")]
fn a_mark_releases_nothing_but_its_own_message() {
    let home = Home::new();
    let file = Box::new(StateFile::open(&home.state_file()).unwrap());
    let mut store = Store::open(file, &home.identity(), HostId([1; 16])).unwrap();
    let marked = canonical(1, MessageKind::Prevote, 7, 1);
    let candidate = Candidate {
        hrs: marked.hrs(),
        target: marked.target(),
        timestamp: marked.timestamp,
        digest: marked.digest(&id()),
    };
    let durable = store.advance(candidate.mark()).unwrap();
    let other = canonical(1, MessageKind::Prevote, 8, 1).sign_bytes(&id());
    release(durable, &id(), &other, Signature::new(&[0; 64]));
}

#[test]
fn the_self_test_is_no_message() {
    assert_eq!(Canonical::parse(SELF_TEST), None);
    // Its first byte would be a length prefix, and does not match the length of the rest.
    assert_ne!(usize::from(SELF_TEST[0]), SELF_TEST.len() - 1);
}

/// A device: signs only what was begun, and remembers how many messages it was given at a time.
#[derive(Clone, Default)]
struct DeviceLike {
    begun: Arc<Mutex<Vec<usize>>>,
    locks: bool,
}

struct Making(Vec<Vec<u8>>);

impl Pending for Making {
    fn wait(self: Box<Self>) -> Result<Vec<Signature>, SignError> {
        self.0.iter().map(|message| software_key().sign(message)).collect()
    }
}

impl Signer for DeviceLike {
    fn public_key(&self) -> PublicKey {
        software_key().public_key()
    }

    fn sign(&self, _message: &[u8]) -> Result<Signature, SignError> {
        Err(SignError::Backend("nothing was begun".into()))
    }

    fn begin(&self, messages: &[&[u8]], _asked_at: Instant) -> Result<Option<Box<dyn Pending>>, SignError> {
        self.begun.lock().unwrap().push(messages.len());
        Ok(Some(Box::new(Making(messages.iter().map(|message| message.to_vec()).collect()))))
    }

    fn lock_secrets(&self) -> bool {
        self.locks
    }
}

#[test]
fn a_device_begins_with_all_that_has_to_be_signed_and_with_nothing_that_was() {
    let home = Home::new();
    let device = DeviceLike::default();
    let chain = home.chain_with(Box::new(device.clone()), true);
    let (bare, extended) = (vote(1, MessageKind::Prevote, 7, 1), vote(1, MessageKind::Precommit, 7, 1));
    for request in [&bare, &extended] {
        assert_signs(request, &chain.sign_vote(request).unwrap());
        assert_signs(request, &chain.sign_vote(request).unwrap());
        assert!(chain.sign_vote(request).unwrap().repeated);
    }
    // One for the prevote, none for its repeats; both for the precommit, and its extension again for each repeat.
    assert_eq!(*device.begun.lock().unwrap(), [1, 2, 1, 1]);
    let request = RawBytesRequest { raw_bytes: vec![1], unique_id: "a".into() };
    assert!(chain.sign_raw_bytes(&request).is_ok());
    assert_eq!(device.begun.lock().unwrap().len(), 5);
}

#[test]
fn a_device_that_makes_too_few_signatures_gives_none() {
    struct Short;
    impl Pending for Short {
        fn wait(self: Box<Self>) -> Result<Vec<Signature>, SignError> {
            Ok(vec![software_key().sign(b"another message").unwrap()])
        }
    }
    struct ShortKey;
    impl Signer for ShortKey {
        fn public_key(&self) -> PublicKey {
            software_key().public_key()
        }

        fn sign(&self, message: &[u8]) -> Result<Signature, SignError> {
            software_key().sign(message)
        }

        fn begin(&self, _: &[&[u8]], _: Instant) -> Result<Option<Box<dyn Pending>>, SignError> {
            Ok(Some(Box::new(Short)))
        }
    }
    let home = Home::new();
    let chain = home.chain_with(Box::new(ShortKey), false);
    let refused = chain.sign_vote(&vote(1, MessageKind::Precommit, 7, 1)).unwrap_err();
    assert!(matches!(&refused, Refusal::KeyUnavailable(why) if why.contains("fewer signatures")), "{refused:?}");
}

#[test]
fn secrets_are_locked_where_there_is_a_key_and_the_mark_is_that_of_the_store() {
    let home = Home::new();
    for locks in [true, false] {
        let chain = home.chain_with(Box::new(DeviceLike { locks, ..DeviceLike::default() }), false);
        assert_eq!(chain.lock_secrets(), locks);
        chain.sign_vote(&vote(if locks { 3 } else { 4 }, MessageKind::Prevote, 7, 1)).unwrap();
        let mark = Hrs { height: if locks { 3 } else { 4 }, round: 0, step: Step::Prevote };
        assert_eq!(chain.mark(), Some(mark));
        let sequence = chain.sequence().unwrap();
        let waiting = chain.waiting(Refusal::NotYet("later".into()));
        assert_eq!((waiting.mark(), waiting.sequence()), (Some(mark), Ok(sequence)));
        assert_eq!(waiting.lock_secrets(), locks);
    }
    let closed = Chain::closed(id(), None, Refusal::NotYet("later".into()));
    assert_eq!(closed.mark(), None);
    assert!(closed.lock_secrets() && closed.sequence().is_err());
}

#[test]
fn a_chain_that_waits_opens_once_it_is_ready_and_not_before() {
    let home = Home::new();
    let chain = home.chain().waiting(Refusal::NotYet("the hook runs".into()));
    let request = vote(9, MessageKind::Prevote, 7, 1);
    assert_eq!(chain.sign_vote(&request), Err(Refusal::NotYet("the hook runs".into())));
    let again = Refusal::NotYet("the hook failed".into());
    assert!(
        matches!(chain.try_to_open(|_| Err(NotReady::Yet(again.clone()))), Err(NotReady::Yet(why)) if why == again)
    );
    assert_eq!(chain.last(), Err(again));
    chain
        .try_to_open(|store| {
            store.advance(Mark::floor(Hrs::end_of(8))).unwrap();
            Ok(())
        })
        .unwrap();
    assert_eq!(chain.last(), Ok(Hrs::end_of(8)), "what made it ready has raised the mark");
    assert!(chain.sign_vote(&request).is_ok());
    assert!(chain.try_to_open(|_| panic!("an open chain is not asked again")).is_ok());
}

#[test]
fn a_chain_that_can_never_open_says_whether_its_disk_may_get_well() {
    for passes in [true, false] {
        let home = Home::new();
        let chain = home.chain().waiting(Refusal::NotYet("the hook runs".into()));
        assert!(!chain.disk_failed());
        let why = Refusal::StateUnusable("the disk is full".into());
        let failed = chain.try_to_open(|_| Err(NotReady::Ever { why: why.clone(), passes }));
        assert!(matches!(failed, Err(NotReady::Ever { .. })));
        assert_eq!((chain.disk_failed(), chain.last()), (passes, Err(why)));
    }
}

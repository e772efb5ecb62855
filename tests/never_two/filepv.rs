//! CometBFT's own file signer beside ours: the same bytes to both, and every difference is one that we meant.
//!
//! `docs/rule.md` has a row for each difference. One that is not in [`DIFFERENCES`] fails a test, and so does one that no
//! longer shows.

use super::{
    PROMISE,
    asks::{Ask, CHAIN, chain_id, incomplete_block_id, of_proposal, of_vote},
    assurance,
    dice::{Dice, Replay, seed},
    history::{History, Left},
    mock_node::{block_id, precommit, prevote, proposal},
};
use highwater::{keyring::softsign::SecretKey, state::foreign};
use highwater_core::{
    answer::answer,
    chain::Chain,
    consensus::{Hrs, KeyType, PublicKey, Signature, Step},
    privval::message::{BlockId, Message, PartSetHeader, Proposal, SignVoteRequest, Sum, Timestamp, Vote},
    signer::{SignError, Signer},
    watermark::{
        BLOCK_BYTES, Disk, FILE_BYTES, FileId, Header, HostId, Identity, Mark, Mode, RECORD_BYTES, Record, Slot, Store,
        image,
    },
};
use prost::Message as _;
use std::{
    collections::BTreeMap,
    fs,
    io::{self, BufReader, Read as _, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{Arc, Mutex, OnceLock},
};
use tempfile::TempDir;

const HISTORIES: u64 = if cfg!(debug_assertions) { 1_000 } else { 10_000 };
const STEPS: u64 = 8;

/// Every difference between the two signers, by its name in `docs/rule.md`.
const DIFFERENCES: [&str; 14] = [
    "block-id-incomplete",
    "height-zero",
    "no-message",
    "non-rp-extension",
    "pol-round-below-minus-one",
    "proposal-at-another-time",
    "proposal-for-nil",
    "proposal-type",
    "round-negative",
    "skip-extension",
    "timestamp-missing",
    "timestamp-out-of-range",
    "validator-address",
    "vote-type",
];

/// CometBFT's signer in a process of its own.
struct FilePv {
    child: Child,
    requests: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    dir: TempDir,
}

/// A signer's result for a request.
#[derive(Clone, Debug, PartialEq)]
enum Made {
    /// It fell over.
    Panic,
    /// A refusal.
    Refusal,
    /// A signature, the time that it covers, and the signature of the extension.
    Signature { signature: Vec<u8>, time: Option<Timestamp>, extension_signature: Vec<u8> },
}

impl FilePv {
    /// Starts it; `None`, and a loud word, if there is none.
    fn start() -> Option<Self> {
        static BINARY: OnceLock<Result<PathBuf, String>> = OnceLock::new();
        let binary = match BINARY.get_or_init(build) {
            Ok(binary) => binary,
            Err(why) => {
                assert!(std::env::var("CI").as_deref() != Ok("true"), "{why}, and CI skips nothing");
                // Past the test harness, which swallows what a test that passes prints.
                let skipped = format!("\n*** SKIPPED: nothing is compared with CometBFT's own signer: {why} ***\n");
                io::stderr().write_all(skipped.as_bytes()).unwrap();
                return None;
            }
        };
        // It flushes its file for every signature, which costs nothing in memory.
        let memory = Path::new("/dev/shm");
        let parent = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let dir = tempfile::Builder::new().prefix("highwater-").tempdir_in(parent).unwrap();
        let mut command = Command::new(binary);
        let mut child = command.arg(dir.path()).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let requests = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().unwrap());
        Some(Self { child, requests, answers, dir })
    }

    fn ask(&mut self, kind: u8, body: &[u8]) -> (u8, Vec<u8>) {
        let mut frame = vec![kind];
        frame.extend_from_slice(&u32::try_from(body.len()).unwrap().to_be_bytes());
        frame.extend_from_slice(body);
        self.requests.as_mut().unwrap().write_all(&frame).unwrap();
        let mut head = [0; 5];
        self.answers.read_exact(&mut head).unwrap();
        let length = u32::from_be_bytes(head[1..].try_into().unwrap());
        let mut body = vec![0; usize::try_from(length).unwrap()];
        self.answers.read_exact(&mut body).unwrap();
        (head[0], body)
    }

    fn forget(&mut self) {
        assert_eq!(self.ask(b'N', CHAIN.as_bytes()).0, b'D');
    }

    fn restart(&mut self) {
        assert_eq!(self.ask(b'L', b"").0, b'D');
    }

    fn sign(&mut self, body: &[u8]) -> Made {
        match self.ask(b'M', body) {
            (b'A', response) => made(&Message::decode(response.as_slice()).unwrap()),
            (b'P', _) => Made::Panic,
            (other, _) => panic!("an answer of kind {other}"),
        }
    }

    fn state(&self) -> String {
        fs::read_to_string(self.dir.path().join("priv_validator_state.json")).unwrap()
    }
}

impl Drop for FilePv {
    fn drop(&mut self) {
        drop(self.requests.take());
        let _ = self.child.wait();
    }
}

/// Has CometBFT's signer built, if it is not, and gives where it is.
fn build() -> Result<PathBuf, String> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/install/filepv.sh");
    let output = Command::new(script).output().map_err(|error| error.to_string())?;
    let path = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let built = output.status.success() && !path.is_empty();
    if built { Ok(path.into()) } else { Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()) }
}

/// The file that the disk in memory says it is.
const FILE: FileId = FileId { inode: 1, birth: None };

/// A disk in memory that never fails.
#[derive(Clone)]
struct Memory(Arc<Mutex<[u8; FILE_BYTES]>>);

impl Disk for Memory {
    fn id(&mut self) -> io::Result<FileId> {
        Ok(FILE)
    }

    fn read_header(&mut self, header: &mut [u8; BLOCK_BYTES]) -> io::Result<()> {
        header.copy_from_slice(&self.0.lock().unwrap()[..BLOCK_BYTES]);
        Ok(())
    }

    fn settle(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn read(&mut self, slot: Slot, record: &mut [u8; RECORD_BYTES]) -> io::Result<()> {
        record.copy_from_slice(&self.0.lock().unwrap()[slot.offset()..slot.offset() + RECORD_BYTES]);
        Ok(())
    }

    fn write(&mut self, slot: Slot, record: &[u8; RECORD_BYTES]) -> io::Result<()> {
        self.0.lock().unwrap()[slot.offset()..slot.offset() + RECORD_BYTES].copy_from_slice(record);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn still_named(&mut self) -> io::Result<bool> {
        Ok(true)
    }
}

/// Our signer: the real chain with a real key over a disk in memory.
struct Ours {
    chain: Chain,
    disk: Memory,
}

impl Ours {
    fn new(mark: Mark) -> Self {
        let header = Header::new(HOST, identity(), FILE);
        let record = Record { mode: Mode::Active, sequence: 0, header, mark };
        Self::open(Memory(Arc::new(Mutex::new(image(&record)))))
    }

    fn open(disk: Memory) -> Self {
        let store = Store::open(Box::new(disk.clone()), &identity(), HOST).unwrap();
        let chain = Chain::open(chain_id(), Box::new(SharedKey), store, Path::new("in-memory"), false);
        Self { chain, disk }
    }

    fn restart(&mut self) {
        *self = Self::open(self.disk.clone());
    }

    fn sign(&self, body: &[u8]) -> (Made, Message) {
        let (message, _) = answer(&self.chain, body, None).unwrap();
        (made(&message), message)
    }
}

const HOST: HostId = HostId([1; 16]);

/// The key that `tests/filepv` has too.
fn key() -> SecretKey {
    SecretKey::from_raw(KeyType::Ed25519, &[0x42; 32]).unwrap()
}

fn public_key() -> PublicKey {
    static KEY: OnceLock<PublicKey> = OnceLock::new();
    KEY.get_or_init(|| SharedKey.public_key()).clone()
}

/// The key, made ready once: that takes longer than a signature.
struct SharedKey;

impl SharedKey {
    fn signer() -> &'static dyn Signer {
        static SIGNER: OnceLock<Box<dyn Signer>> = OnceLock::new();
        SIGNER.get_or_init(|| key().into_signer()).as_ref()
    }
}

impl Signer for SharedKey {
    fn public_key(&self) -> PublicKey {
        Self::signer().public_key()
    }

    fn sign(&self, message: &[u8]) -> Result<Signature, SignError> {
        Self::signer().sign(message)
    }
}

fn identity() -> Identity {
    Identity { chain: chain_id(), key: public_key() }
}

fn made(response: &Message) -> Made {
    match &response.sum {
        Some(Sum::SignedVoteResponse(response)) if response.error.is_none() => {
            let vote = response.vote.clone().unwrap();
            let (time, extension_signature) = (vote.timestamp, vote.extension_signature);
            Made::Signature { signature: vote.signature, time, extension_signature }
        }
        Some(Sum::SignedProposalResponse(response)) if response.error.is_none() => {
            let proposal = response.proposal.clone().unwrap();
            let (signature, time) = (proposal.signature, proposal.timestamp);
            Made::Signature { signature, time, extension_signature: Vec::new() }
        }
        Some(Sum::SignedVoteResponse(_) | Sum::SignedProposalResponse(_)) => Made::Refusal,
        other => panic!("{other:?}"),
    }
}

/// Requests near the last one, of which a good part contradict it.
fn random_ask(dice: &mut Dice, last: &Ask) -> Ask {
    let mut ask = last.clone();
    match dice.below(10) {
        0 | 1 => ask.height += 1,
        2 => ask.height = (ask.height - 1).max(1),
        3 => ask.round += 1,
        4 => ask.round = (ask.round - 1).max(0),
        _ => {}
    }
    if dice.percent(40) {
        ask.step = dice.pick(&[Step::Propose, Step::Prevote, Step::Precommit]);
    }
    if dice.percent(30) {
        ask.block = u8::try_from(dice.below(3)).unwrap();
    }
    if dice.percent(20) {
        ask.pol_round = dice.pick(&[-1, 0, 1]);
    }
    if dice.percent(40) {
        ask.time = (1_700_000_000 + dice.between(-2, 2), dice.pick(&[0, 1, 999_999_999]));
    }
    if ask.step == Step::Propose {
        ask.block = ask.block.max(1);
    }
    // One for a vote that must not have any is refused by both.
    let extendable = ask.step == Step::Precommit && ask.block != 0 || dice.percent(3);
    ask.extension = if extendable { vec![0xee; dice.index(3)] } else { Vec::new() };
    ask.skip_extension = dice.percent(5);
    ask
}

/// The name of a difference that random histories may show.
fn name_of(ask: &Ask, theirs: &Made, ours: &Made) -> Option<&'static str> {
    match (theirs, ours) {
        (Made::Signature { time, .. }, Made::Refusal) if ask.step == Step::Propose => {
            let asked = Timestamp { seconds: ask.time.0, nanos: ask.time.1 };
            (*time != Some(asked)).then_some("proposal-at-another-time")
        }
        (
            Made::Signature { signature: one, time: time_one, extension_signature: signed },
            Made::Signature { signature: two, time: time_two, extension_signature: unsigned },
        ) => {
            let skipped = ask.skip_extension && !signed.is_empty() && unsigned.is_empty();
            (one == two && time_one == time_two && skipped).then_some("skip-extension")
        }
        _ => None,
    }
}

#[test]
fn random_histories_differ_from_cometbft_only_where_we_meant_it() {
    let Some(mut filepv) = FilePv::start() else { return };
    let mut seen: BTreeMap<&str, u64> = BTreeMap::new();
    let (mut first, mut repeated, mut requests) = (0_u64, 0_u64, 0_u64);
    for number in 0..HISTORIES {
        let mut replay = Replay { test: "filepv", seed: seed().wrapping_add(number), step: 0 };
        let mut dice = Dice::new(replay.seed);
        filepv.forget();
        let mut ours = Ours::new(Mark::NEVER_SIGNED);
        // A signature that both gave is verified once, when it is new.
        let mut history = History::new(CHAIN, public_key());
        let step = Step::Prevote;
        let (extension, time) = (Vec::new(), (1_700_000_000, 0));
        let mut ask =
            Ask { height: 5, round: 1, step, block: 1, pol_round: -1, time, extension, skip_extension: false };
        for step in 0..STEPS {
            replay.step = step;
            if dice.percent(10) {
                filepv.restart();
                ours.restart();
            }
            ask = random_ask(&mut dice, &ask);
            let body = ask.body();
            let theirs = filepv.sign(&body);
            let (mine, message) = ours.sign(&body);
            requests += 1;
            if theirs != mine {
                let name = name_of(&ask, &theirs, &mine);
                let name = name.unwrap_or_else(|| panic!("{ask:?}:\nCometBFT {theirs:?}\nHighwater {mine:?}"));
                assert!(DIFFERENCES.contains(&name), "{name} is a difference that nobody meant");
                *seen.entry(name).or_default() += 1;
            }
            if number % 10 == 0 {
                match history.note(0, &message, &ask.extension).unwrap_or_else(|offence| panic!("{offence}")) {
                    Left::First => first += 1,
                    Left::Repeat => repeated += 1,
                    Left::Nothing => {}
                }
            }
        }
    }
    assert!(first > HISTORIES / 5 && repeated > HISTORIES / 20, "{first} new, {repeated} repeated");
    for name in ["proposal-at-another-time", "skip-extension"] {
        assert!(seen.contains_key(name), "{name} did not show");
    }
    assurance::report(PROMISE, "random requests to CometBFT's own signer beside ours", requests);
}

/// A vote, with something about it that no honest node sends.
fn odd_vote(change: impl FnOnce(&mut Vote)) -> Message {
    let mut vote = prevote(5, 0, Some(1));
    change(&mut vote);
    of_vote(vote)
}

/// A proposal of that kind.
fn odd_proposal(change: impl FnOnce(&mut Proposal)) -> Message {
    let mut proposal = proposal(5, 0, 1);
    change(&mut proposal);
    of_proposal(proposal)
}

/// Does CometBFT sign it, refuse it, or fall over?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Does {
    Panics,
    Refuses,
    Signs,
}

/// Requests that no honest node sends, with CometBFT's reaction. We refuse all of them.
fn odd_requests() -> Vec<(&'static str, Message, Does)> {
    let parts = |total, hash| Some(PartSetHeader { total, hash });
    let no_hash = BlockId { hash: Vec::new(), ..block_id(1) };
    let short_hash = BlockId { hash: vec![1; 31], ..block_id(1) };
    let no_parts = BlockId { hash: vec![1; 32], part_set_header: parts(0, vec![1; 32]) };
    let with_block = |id: BlockId| odd_vote(|vote| vote.block_id = Some(id));
    let at = |seconds, nanos| odd_vote(|vote| vote.timestamp = Some(Timestamp { seconds, nanos }));
    let none = SignVoteRequest { vote: None, chain_id: CHAIN.into(), skip_extension_signing: false };
    vec![
        ("block-id-incomplete", with_block(incomplete_block_id()), Does::Signs),
        ("block-id-incomplete", with_block(no_parts), Does::Signs),
        ("block-id-incomplete", with_block(no_hash), Does::Signs),
        ("block-id-incomplete", with_block(short_hash), Does::Panics),
        ("height-zero", odd_vote(|vote| vote.height = 0), Does::Signs),
        ("no-message", Sum::SignVoteRequest(none).into(), Does::Panics),
        ("non-rp-extension", odd_vote(|vote| vote.non_rp_extension = vec![1]), Does::Signs),
        ("pol-round-below-minus-one", odd_proposal(|proposal| proposal.pol_round = -2), Does::Signs),
        ("proposal-for-nil", odd_proposal(|proposal| proposal.block_id = None), Does::Signs),
        ("proposal-type", odd_proposal(|proposal| proposal.r#type = 1), Does::Signs),
        ("round-negative", odd_vote(|vote| vote.round = -1), Does::Signs),
        ("timestamp-missing", odd_vote(|vote| vote.timestamp = None), Does::Signs),
        ("timestamp-out-of-range", at(253_402_300_800, 0), Does::Panics),
        ("timestamp-out-of-range", at(0, 1_000_000_000), Does::Panics),
        ("validator-address", odd_vote(|vote| vote.validator_address = vec![1; 19]), Does::Signs),
        ("vote-type", odd_vote(|vote| vote.r#type = 32), Does::Panics),
    ]
}

#[test]
fn what_no_honest_node_sends_is_refused_here_whatever_cometbft_does() {
    let Some(mut filepv) = FilePv::start() else { return };
    for (name, message, expected) in odd_requests() {
        assert!(DIFFERENCES.contains(&name), "{name} is a difference that nobody meant");
        let body = message.encode_to_vec();
        filepv.forget();
        let theirs = match filepv.sign(&body) {
            Made::Panic => Does::Panics,
            Made::Refusal => Does::Refuses,
            Made::Signature { .. } => Does::Signs,
        };
        assert_eq!(theirs, expected, "{name}: {message:?}");
        let ours = Ours::new(Mark::NEVER_SIGNED);
        assert_eq!(ours.sign(&body).0, Made::Refusal, "{name}: {message:?}");
        assert_eq!(ours.chain.last(), Ok(Hrs::GENESIS), "{name}: a refusal moves no mark");
    }
}

#[test]
fn what_both_refuse_is_refused_by_both() {
    let Some(mut filepv) = FilePv::start() else { return };
    let with_extension = |vote: Vote| of_vote(Vote { extension: vec![1], ..vote });
    let elsewhere =
        SignVoteRequest { vote: Some(prevote(5, 0, Some(1))), chain_id: "other".into(), ..Default::default() };
    for message in [
        with_extension(prevote(5, 0, Some(1))),
        with_extension(precommit(5, 0, None)),
        odd_vote(|vote| vote.height = -1),
        Sum::SignVoteRequest(elsewhere).into(),
    ] {
        let body = message.encode_to_vec();
        filepv.forget();
        assert_eq!(filepv.sign(&body), Made::Refusal, "{message:?}");
        assert_eq!(Ours::new(Mark::NEVER_SIGNED).sign(&body).0, Made::Refusal, "{message:?}");
    }
}

#[test]
fn an_imported_state_of_cometbft_repeats_what_cometbft_would_repeat_and_nothing_else() {
    let Some(mut filepv) = FilePv::start() else { return };
    filepv.forget();
    let vote = of_vote(precommit(5, 0, Some(1))).encode_to_vec();
    let signed = filepv.sign(&vote);
    let foreign = foreign::read(&filepv.state(), &identity()).unwrap();
    let ours = Ours::new(foreign.mark);
    filepv.restart();
    assert_eq!(filepv.sign(&vote), signed, "CometBFT repeats");
    assert_eq!(ours.sign(&vote).0, signed, "and so do we, with its time and its signature");
    for other in [precommit(5, 0, Some(2)), precommit(5, 0, None), prevote(5, 0, Some(1))] {
        let other = of_vote(other).encode_to_vec();
        assert_eq!(filepv.sign(&other), Made::Refusal);
        assert_eq!(ours.sign(&other).0, Made::Refusal);
    }
    let next = of_vote(prevote(5, 1, Some(2))).encode_to_vec();
    assert_eq!(ours.sign(&next).0, filepv.sign(&next), "above the mark they agree");
}

#[test]
fn the_documentation_has_a_row_for_every_difference() {
    let rows = include_str!("../../docs/rule.md").lines().filter_map(|line| line.strip_prefix("| `"));
    let mut names: Vec<_> = rows.map(|row| row.split('`').next().unwrap()).collect();
    names.sort_unstable();
    assert_eq!(names, DIFFERENCES);
}

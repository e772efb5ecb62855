//! One world: what can happen in it, and what must not.

use super::{
    super::{
        asks::{Ask, CHAIN, chain_id},
        dice::{Dice, Replay},
        history::{History, Left, Offence},
    },
    disk::{FILE, SimDisk, Trouble},
    keys::{KeyKind, public_key},
};
use highwater_core::{
    answer::{Outcome, answer},
    chain::Chain,
    consensus::{Hrs, Step},
    privval::{
        Refusal,
        message::{Message, Sum},
    },
    watermark::{FILE_BYTES, Header, HostId, Identity, Mark, Mode, Record, Slot, Store, StoreError, image},
};
use prost::Message as _;
use std::path::Path;

/// Events in all worlds.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    pub steps: u64,
    pub crashes: u64,
    pub faults: u64,
    pub unnoticed: u64,
    pub doubled: u64,
    first: u64,
    repeated: u64,
    double_signs: u64,
    regressions: u64,
    keys_failed: u64,
    files_failed: u64,
    damaged: u64,
    noticed: u64,
    moved: u64,
    raised: u64,
    replaced: u64,
    mangled: u64,
}

impl Tally {
    /// A simulation in which something never happens shows nothing about it.
    pub fn assert_everything_happened(&self) {
        let rare = [
            self.crashes,
            self.faults,
            self.unnoticed,
            self.doubled,
            self.keys_failed,
            self.files_failed,
            self.damaged,
            self.noticed,
            self.moved,
            self.raised,
            self.replaced,
            self.mangled,
        ];
        assert!(rare.iter().all(|count| *count > 0), "something never happened: {self:?}");
        let usual = [self.first, self.repeated, self.double_signs, self.regressions];
        assert!(usual.iter().all(|count| *count > self.steps / 50), "something hardly happened: {self:?}");
    }
}

/// A node's bias. Several of them disagree about nearly everything.
struct NodeModel {
    clock: i64,
    favourite: u8,
}

/// The signer and all around it.
pub struct World {
    dice: Dice,
    replay: Replay,
    key: KeyKind,
    host: HostId,
    disk: SimDisk,
    chain: Option<Chain>,
    nodes: Vec<NodeModel>,
    history: History,
    /// The place around which the nodes ask.
    frontier: Hrs,
    asked: Vec<Vec<u8>>,
    copies: Vec<[u8; FILE_BYTES]>,
    /// Trouble seldom comes alone: steps for which more of it is likely.
    uneasy: u32,
    /// An older file was put back and nobody has raised it: what one file cannot know.
    rolled_back: bool,
    over: bool,
}

impl World {
    /// The world of `seed`, whose signer has never signed.
    pub fn new(seed: u64, key: KeyKind) -> Self {
        let mut dice = Dice::new(seed);
        let host = HostId([1; 16]);
        let disk = SimDisk::new(image(&first_record(host, Mark::NEVER_SIGNED)), Dice::new(dice.any()));
        let node = |_| NodeModel { clock: dice.between(-3, 3), favourite: u8::try_from(dice.below(3)).unwrap() };
        let nodes = (0..4).map(node).collect();
        let verifier = Box::new(move |message: &[u8], signature: &_| key.verifies(message, signature));
        Self {
            replay: Replay { test: "simulator", seed, step: 0 },
            key,
            host,
            disk,
            chain: None,
            nodes,
            history: History::with_verifier(CHAIN, verifier),
            frontier: Hrs { height: 1, round: 0, step: Step::Propose },
            asked: Vec::new(),
            copies: Vec::new(),
            uneasy: 0,
            rolled_back: false,
            over: false,
            dice,
        }
    }

    /// Lets `steps` of them happen.
    pub fn live(mut self, steps: u64, tally: &mut Tally) {
        while self.replay.step < steps && !self.over {
            self.replay.step += 1;
            tally.steps += 1;
            self.uneasy = self.uneasy.saturating_sub(1);
            if self.uneasy > 0 && self.dice.percent(8) {
                self.crash(true, tally);
                continue;
            }
            match self.dice.below(1000) {
                0..5 => self.crash(true, tally),
                5..12 => self.crash(false, tally),
                12..16 => self.raise(tally),
                16..24 => self.keep_copy(),
                24..26 => self.put_copy_back(tally),
                26..28 => self.mix_with_copy(tally),
                28..30 => self.move_to_another_host(tally),
                30..32 => self.replace_file(tally),
                _ => self.serve(tally),
            }
        }
    }

    fn serve(&mut self, tally: &mut Tally) {
        if self.chain.is_none() {
            return self.boot(tally);
        }
        let body = self.request();
        if self.dice.percent(4) {
            let trouble = self.dice.pick(&[Trouble::Death, Trouble::Fault]);
            let operations = self.dice.below(6);
            self.disk.platter().plan(operations, trouble);
        }
        let (failed_before, replaced) = self.disk.platter().state();
        let max_height = self.dice.percent(3).then_some(self.frontier.height);
        let chain = self.chain.as_ref().expect("it is there");
        let answered = answer(chain, &body, max_height);
        let dead = {
            let mut platter = self.disk.platter();
            platter.forget_plan();
            tally.faults += u64::from(platter.state().0 && !failed_before && !platter.dead);
            platter.dead
        };
        if dead {
            let power = self.dice.percent(50);
            return self.crash(power, tally);
        }
        // Nobody can tell which answer would match: the link ends, nothing leaves.
        let Ok((message, event)) = answered else { return };
        let left = self.observe(&message, &body, tally);
        let excused = left == Left::Nothing || !(failed_before || replaced);
        assert!(excused, "a signature left after the disk had failed or another file had the path: {message:?}");
        if let Outcome::Refused(refusal) = event.outcome {
            self.note_refusal(&refusal, tally);
        }
    }

    /// The observer: everything that left comes by here.
    fn observe(&mut self, message: &Message, body: &[u8], tally: &mut Tally) -> Left {
        match self.history.note(0, message, &extension_of(body)) {
            Ok(left) => {
                tally.first += u64::from(left == Left::First);
                tally.repeated += u64::from(left == Left::Repeat);
                if left != Left::Nothing {
                    self.frontier = self.frontier.max(place_of(message));
                }
                left
            }
            Err(Offence::Two { .. } | Offence::Backwards { .. }) if self.rolled_back => {
                tally.doubled += 1;
                self.over = true;
                Left::Nothing
            }
            Err(offence) => panic!("{offence}"),
        }
    }

    fn note_refusal(&mut self, refusal: &Refusal, tally: &mut Tally) {
        match refusal {
            Refusal::DoubleSign { .. } => tally.double_signs += 1,
            Refusal::Regression { .. } => tally.regressions += 1,
            Refusal::KeyUnavailable(_) => {
                tally.keys_failed += 1;
                tally.faults += 1;
                // How long a device stays down is told by a clock, which no seed can play again.
                if self.key == KeyKind::Devices {
                    self.chain = None;
                }
            }
            Refusal::NotYet(_) | Refusal::StateUnusable(_) => {
                tally.files_failed += 1;
                self.uneasy = UNEASY_STEPS;
                if self.key == KeyKind::Devices || self.dice.percent(50) {
                    self.chain = None;
                }
            }
            Refusal::Malformed(_) | Refusal::NotPermitted(_) | Refusal::WrongChain { .. } => tally.mangled += 1,
            Refusal::MaxHeight { .. } => {}
        }
    }

    /// A request near the frontier, an earlier one again, or one that was bent on the way.
    fn request(&mut self) -> Vec<u8> {
        if self.uneasy > 0
            && self.dice.percent(40)
            && let Some(last) = self.asked.last()
        {
            return last.clone();
        }
        if self.dice.percent(10) && !self.asked.is_empty() {
            let index = self.dice.index(self.asked.len());
            return self.asked[index].clone();
        }
        let mut body = self.ask().body();
        if self.dice.percent(1) {
            // Not a high byte of the height, which would put an end to the world's chain.
            let index = body.len() / 2 + self.dice.index(body.len() / 2);
            body[index] ^= 1 << self.dice.below(8);
        }
        const REMEMBERED: usize = 8;
        if self.asked.len() == REMEMBERED {
            self.asked.remove(0);
        }
        self.asked.push(body.clone());
        body
    }

    fn ask(&mut self) -> Ask {
        let Hrs { mut height, mut round, mut step } = self.frontier;
        match self.dice.below(100) {
            0..45 => {}
            45..70 => (round, step) = next_step(round, step),
            70..78 => (round, step) = (round + 1, self.dice.pick(&STEPS)),
            78..90 => (height, round, step) = (height + 1, 0, self.dice.pick(&STEPS)),
            90..95 => step = self.dice.pick(&STEPS),
            _ => (height, round) = (height.saturating_sub(self.dice.below(2)).max(1), round / 2),
        }
        let node = self.dice.index(self.nodes.len());
        let NodeModel { clock, favourite } = self.nodes[node];
        let block = if self.dice.percent(70) { favourite } else { u8::try_from(self.dice.below(3)).unwrap() };
        let block = if step == Step::Propose { block.max(1) } else { block };
        if self.dice.percent(2) {
            // The node's clock is set.
            self.nodes[node].clock = self.dice.between(-1_000_000_000, 1_000_000_000);
        }
        let time = (1_700_000_000 + clock + self.dice.between(0, 1), self.dice.pick(&[0, 1, 999_999_999]));
        let extendable = step == Step::Precommit && block != 0;
        Ask {
            height: height.cast_signed(),
            round: round.cast_signed(),
            step,
            block,
            pol_round: self.dice.pick(&[-1, -1, -1, 0]),
            time,
            extension: if extendable { vec![7; self.dice.index(40)] } else { Vec::new() },
            skip_extension: self.dice.percent(10),
        }
    }

    /// The process starts. It may meet a fault, and must never open a file behind what left.
    fn boot(&mut self, tally: &mut Tally) {
        self.disk.platter().begin_process();
        if self.dice.percent(5) {
            let trouble = self.dice.pick(&[Trouble::Death, Trouble::Fault]);
            let operations = self.dice.below(6);
            self.disk.platter().plan(operations, trouble);
        }
        let opened = self.open();
        self.disk.platter().forget_plan();
        match opened {
            Ok(store) => self.sign_from(store),
            Err(StoreError::Damaged(_)) => {
                assert!(self.disk.platter().may_be_damaged(), "the file is damaged, and nothing has damaged it");
                tally.damaged += 1;
                self.start_over();
            }
            Err(StoreError::Io { .. }) => {
                let dead = self.disk.platter().dead;
                tally.faults += u64::from(!dead);
                if dead {
                    let power = self.dice.percent(50);
                    self.crash(power, tally);
                }
            }
            Err(error) => panic!("the file of this world {error}"),
        }
    }

    fn open(&self) -> Result<Store, StoreError> {
        Store::open(Box::new(self.disk.clone()), &identity(), self.host)
    }

    fn sign_from(&mut self, store: Store) {
        assert!(!self.is_behind(&store) || self.rolled_back, "{} was opened, and more had left", store.mark().hrs);
        let signer = self.key.signer(&self.disk, &mut self.dice);
        self.chain = Some(Chain::open(chain_id(), signer, store, Path::new("simulated"), false));
    }

    /// The process is gone; with the power, so is what was not flushed.
    fn crash(&mut self, power: bool, tally: &mut Tally) {
        tally.crashes += 1;
        self.chain = None;
        let mut platter = self.disk.platter();
        platter.begin_process();
        if power {
            platter.cut_power();
        }
    }

    fn stop(&mut self) {
        self.chain = None;
        self.disk.platter().begin_process();
    }

    /// `highwater state raise`.
    fn raise(&mut self, tally: &mut Tally) {
        self.stop();
        let height = self.frontier.height + self.dice.below(2);
        match self.open() {
            Ok(store) if store.mark().hrs >= Hrs::end_of(height) => {}
            Ok(mut store) => {
                assert!(
                    !self.is_behind(&store) || self.rolled_back,
                    "{} was raised, and more had left",
                    store.mark().hrs
                );
                store.advance(Mark::floor(Hrs::end_of(height))).unwrap();
                tally.raised += 1;
                self.closed(height);
            }
            Err(_) => self.start_over(),
        }
    }

    /// The documented procedure after damage: wait for two more heights, then `highwater state init --height`.
    fn start_over(&mut self) {
        let height = self.frontier.height + 2;
        let record = first_record(self.host, Mark::floor(Hrs::end_of(height)));
        self.disk.platter().put(image(&record));
        self.closed(height);
    }

    /// Nobody is at or below `height` any more, and no copy from before is remembered as harmless.
    fn closed(&mut self, height: u64) {
        let beyond = Hrs { height: height + 1, round: 0, step: Step::Propose };
        self.frontier = self.frontier.max(beyond);
        self.rolled_back = false;
    }

    fn keep_copy(&mut self) {
        const KEPT: usize = 4;
        let copy = self.disk.platter().copy();
        if self.copies.len() == KEPT {
            let index = self.dice.index(KEPT);
            self.copies.remove(index);
        }
        self.copies.push(copy);
    }

    /// An older copy of the file in its place: on the same machine it looks like the newest one. Either the operator
    /// raises the mark, as the documentation says, or we count what comes of it.
    fn put_copy_back(&mut self, tally: &mut Tally) {
        let Some(copy) = self.copies.pop() else { return };
        self.stop();
        self.disk.platter().put(copy);
        match self.open() {
            Ok(store) => {
                self.note_rollback(&store, tally);
                if self.rolled_back && self.dice.percent(50) {
                    self.raise(tally);
                }
            }
            Err(StoreError::ForeignHost { .. }) => {
                tally.noticed += 1;
                self.start_over();
            }
            Err(StoreError::Damaged(_)) if self.disk.platter().may_be_damaged() => self.start_over(),
            Err(error) => panic!("a copy of the file {error}"),
        }
    }

    /// A file that opens may be behind what left, if an operator has put it back.
    fn note_rollback(&mut self, store: &Store, tally: &mut Tally) {
        if self.is_behind(store) {
            tally.unnoticed += 1;
            self.rolled_back = true;
        }
    }

    fn is_behind(&self, store: &Store) -> bool {
        self.history.highest().is_some_and(|highest| place(store.mark().hrs) < highest)
    }

    /// One slot of an older copy: half a restore. Must be noticed unless it changes nothing.
    fn mix_with_copy(&mut self, tally: &mut Tally) {
        if self.rolled_back {
            return;
        }
        let Some(copy) = self.copies.pop() else { return };
        self.stop();
        let slot = self.dice.pick(&[Slot::First, Slot::Second]);
        let damaged = self.disk.platter().may_be_damaged();
        let before = self.disk.platter().copy();
        self.disk.platter().put_slot(slot, &copy);
        let changed = self.disk.platter().copy() != before;
        match self.open() {
            // With a slot that is older by two, the file is what it was one mark ago.
            Ok(store) => {
                self.disk.platter().verified();
                self.note_rollback(&store, tally);
            }
            Err(_) => {
                assert!(changed || damaged, "nothing has changed");
                tally.noticed += 1;
                self.start_over();
            }
        }
    }

    /// The file on another machine: refused, and taken over by `highwater state import`.
    fn move_to_another_host(&mut self, tally: &mut Tally) {
        self.stop();
        let Ok(store) = self.open() else { return self.start_over() };
        let hrs = store.mark().hrs;
        drop(store);
        self.host = HostId([self.host.0[0].wrapping_add(1); 16]);
        match self.open() {
            Err(StoreError::ForeignHost { mark }) => assert_eq!(mark.hrs, hrs),
            Err(error) => panic!("the file from another machine {error}"),
            Ok(_) => panic!("the file from another machine was opened"),
        }
        self.disk.platter().put(image(&first_record(self.host, Mark::floor(hrs))));
        tally.moved += 1;
    }

    /// Another program renames its own file over ours while the signer runs. Nothing leaves until the operator has
    /// stopped it and started over.
    fn replace_file(&mut self, tally: &mut Tally) {
        if self.chain.is_none() {
            return;
        }
        self.disk.platter().replace();
        for _ in 0..3 {
            self.serve(tally);
        }
        tally.replaced += 1;
        self.stop();
        self.start_over();
    }
}

const UNEASY_STEPS: u32 = 20;
const STEPS: [Step; 3] = [Step::Propose, Step::Prevote, Step::Precommit];

fn next_step(round: u32, step: Step) -> (u32, Step) {
    match step {
        Step::Propose => (round, Step::Prevote),
        Step::Prevote => (round, Step::Precommit),
        Step::Precommit => (round + 1, Step::Propose),
    }
}

fn identity() -> Identity {
    Identity { chain: chain_id(), key: public_key() }
}

fn first_record(host: HostId, mark: Mark) -> Record {
    Record { mode: Mode::Active, sequence: 0, header: Header::new(host, identity(), FILE), mark }
}

fn place(hrs: Hrs) -> (i64, i32, i32) {
    (hrs.height.cast_signed(), hrs.round.cast_signed(), hrs.step.number().into())
}

/// The position of the message in an answer.
fn place_of(answer: &Message) -> Hrs {
    let (height, round, step) = match &answer.sum {
        Some(Sum::SignedVoteResponse(response)) => {
            let vote = response.vote.as_ref().unwrap();
            (vote.height, vote.round, if vote.r#type == 1 { Step::Prevote } else { Step::Precommit })
        }
        Some(Sum::SignedProposalResponse(response)) => {
            let proposal = response.proposal.as_ref().unwrap();
            (proposal.height, proposal.round, Step::Propose)
        }
        other => panic!("{other:?}"),
    };
    Hrs { height: height.cast_unsigned(), round: round.cast_unsigned(), step }
}

/// The extension that a request wants signed.
fn extension_of(body: &[u8]) -> Vec<u8> {
    match Message::decode(body).ok().and_then(|message| message.sum) {
        Some(Sum::SignVoteRequest(request)) => request.vote.map(|vote| vote.extension).unwrap_or_default(),
        _ => Vec::new(),
    }
}

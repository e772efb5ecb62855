//! A child that is killed again and again, and random faults of a device under two nodes: nothing is signed twice.

use super::token::{
    CHAIN, KEY_UNAVAILABLE, LIMIT, PATIENCE, REJECTIONS, Scene, SetAtEnd, TOKEN, TROUBLE, ask, sign_at_last, wait_until,
};
use crate::support::{
    assert_vote_signed,
    hsm::{Descendant, Hsm, faulty_module},
    mock_node::{MockNode, Session, precommit, prevote, vote_at},
    signer::Home,
};
use highwater_core::{consensus::PublicKey, privval::message::Vote};
use std::{
    collections::BTreeMap,
    env,
    hash::{BuildHasher as _, RandomState},
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// All that was signed: for one height, round and step only ever one message.
#[derive(Default)]
struct History(BTreeMap<(i64, i32, i32), String>);

impl History {
    fn note(&mut self, vote: &Vote) {
        let message = format!("{:?} at {:?}", vote.block_id, vote.timestamp);
        let first = self.0.entry((vote.height, vote.round, vote.r#type)).or_insert_with(|| message.clone());
        assert_eq!(*first, message, "two messages were signed at height {}", vote.height);
    }
}

#[test]
fn twenty_kills_of_the_child_lose_no_link_and_sign_nothing_twice() {
    const KILLS: usize = 20;
    let Some(scene) = Scene::softhsm() else { return };
    let (mut signer, mut session) = scene.start();
    let id = signer.id();
    let (stop, signed) = (AtomicBool::new(false), AtomicUsize::new(0));
    let mut history = History::default();
    let (mut longest_gap, mut lost, mut last) = (Duration::ZERO, 0, Instant::now());
    thread::scope(|scope| {
        let killer = scope.spawn(|| {
            let _stopper = SetAtEnd(&stop);
            let mut killed = 0;
            let deadline = Instant::now() + PATIENCE;
            while killed < KILLS && Instant::now() < deadline {
                // SoftHSM writes the token anew at each login, and a kill at that moment destroys it. So only a child
                // that has signed is killed.
                let (modules, before) = (Descendant::modules_of(id), signed.load(Ordering::Relaxed));
                while signed.load(Ordering::Relaxed) < before + 2 && Instant::now() < deadline {
                    thread::sleep(Duration::from_millis(1));
                }
                thread::sleep(Duration::from_millis(RandomState::new().hash_one(killed) % 60));
                for module in modules.iter().filter(|module| module.is_running()) {
                    module.kill();
                    killed += 1;
                }
            }
            killed
        });
        let mut height = 0;
        while !stop.load(Ordering::Relaxed) {
            height += 1;
            for vote in [prevote(height, 0, Some(7)), precommit(height, 0, Some(7))] {
                match ask(&mut session, vote).0 {
                    Ok(vote) => {
                        assert_vote_signed(&scene.key, CHAIN, &vote);
                        history.note(&vote);
                        signed.fetch_add(1, Ordering::Relaxed);
                        longest_gap = longest_gap.max(last.elapsed());
                        last = Instant::now();
                    }
                    Err(refusal) => {
                        assert_eq!(refusal.code, KEY_UNAVAILABLE, "{refusal:?}");
                        lost += 1;
                    }
                }
            }
            // What a node must never get beside the other.
            let (answer, _) = ask(&mut session, precommit(height, 0, Some(8)));
            answer.iter().for_each(|vote| history.note(vote));
        }
        assert!(killer.join().unwrap() >= KILLS, "every kill found a child");
        sign_at_last(&mut session, &scene.key, height + 1);
    });
    signer.assert_running();
    eprintln!(
        "{KILLS} kills: {} votes signed, {lost} refused, the longest gap between two {longest_gap:?}",
        history.0.len()
    );
    assert!(history.0.len() > KILLS, "only {} votes", history.0.len());
    assert!(lost <= KILLS && longest_gap < LIMIT + LIMIT, "{lost} refused, longest gap {longest_gap:?}");
}

/// Small random numbers that a seed repeats (splitmix64).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }

    fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[usize::try_from(self.below(items.len() as u64)).unwrap()]
    }

    /// Faults for some hundred signatures.
    fn schedule(&mut self) -> Vec<String> {
        const LINES: usize = 200;
        const HANGS: usize = 4;
        let mut plan = Vec::new();
        while plan.len() < LINES {
            match self.below(26) {
                0..=16 => plan.push("sign pass".into()),
                17 => plan.push(format!("sign rv {:#x}", self.pick(&TROUBLE))),
                18 => plan.push(format!("sign rv {:#x}", self.pick(&REJECTIONS))),
                19 => plan.push(format!("sign stuck {:#x}", self.pick(&TROUBLE))),
                20 => plan.push("sign flip".into()),
                21 => plan.extend(["sign flip".into(), "sign flip".into()]),
                22 => plan.push(format!("sign delay {}", self.below(700))),
                23 => plan.push("sign segv".into()),
                24 => plan.push(format!("init rv {:#x}", self.pick(&TROUBLE))),
                // A session is opened only after something has ended the one before.
                _ => {
                    let then = self.pick(&["open rv 0xe0", "open segv", "login rv 0x30", "login segv"]);
                    plan.extend(["sign rv 0x32".into(), (*then).into()]);
                }
            }
        }
        for _ in 0..HANGS {
            let at = usize::try_from(self.below(LINES as u64)).unwrap();
            // Not between the two lines of a pair.
            let at = (at..plan.len()).find(|at| plan[*at].starts_with("sign")).unwrap_or(at);
            plan.insert(at, "sign hang".into());
        }
        plan
    }
}

/// Says by which seed a failed test can be repeated.
struct Seed(u64);

impl Seed {
    fn new() -> Self {
        let given = env::var("HIGHWATER_SEED").ok().map(|seed| seed.parse().expect("HIGHWATER_SEED is a number"));
        Self(given.unwrap_or_else(|| RandomState::new().hash_one(())))
    }
}

impl Drop for Seed {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("--- to repeat the schedule: HIGHWATER_SEED={} ---", self.0);
        }
    }
}

/// One of two nodes with the same key: it votes for one of two blocks, and now and then asks again.
struct Voter<'a> {
    random: Random,
    key: &'a PublicKey,
    height: &'a AtomicI64,
    history: &'a Mutex<History>,
    refusals: &'a AtomicUsize,
    stop: &'a AtomicBool,
}

impl Voter<'_> {
    /// Gives the longest answer, and the link.
    fn vote(mut self, mut session: Session) -> (Duration, Session) {
        let _stopper = SetAtEnd(self.stop);
        let mut longest = Duration::ZERO;
        while !self.stop.load(Ordering::Relaxed) {
            let height = self.height.load(Ordering::Relaxed);
            for make in [prevote, precommit] {
                let block = *self.random.pick(&[None, Some(7), Some(7), Some(7), Some(8)]);
                let time = 1_700_000_000 + i64::from(*self.random.pick(&[0, 0, 1]));
                longest = longest.max(self.ask(&mut session, vote_at(time, make(height, 0, block))));
            }
            self.height.fetch_max(height + 1, Ordering::Relaxed);
        }
        (longest, session)
    }

    fn ask(&mut self, session: &mut Session, vote: Vote) -> Duration {
        let begin = Instant::now();
        let answer = session.ask_vote(CHAIN, vote).expect("the link stays up");
        let took = begin.elapsed();
        match answer {
            Ok(vote) => {
                assert_vote_signed(self.key, CHAIN, &vote);
                self.history.lock().unwrap().note(&vote);
            }
            Err(refusal) => {
                assert!([100, 101, KEY_UNAVAILABLE].contains(&refusal.code), "{refusal:?}");
                if refusal.code == KEY_UNAVAILABLE {
                    self.refusals.fetch_add(1, Ordering::Relaxed);
                    thread::sleep(Duration::from_millis(10));
                }
            }
        }
        took
    }
}

#[test]
fn under_random_faults_two_nodes_never_get_two_messages_and_always_an_answer() {
    let Some(hsm) = Hsm::softhsm() else { return };
    let seed = Seed::new();
    let mut random = Random(seed.0);
    let key = hsm.token(TOKEN, 0);
    let provider = hsm.provider_with_file(&faulty_module(), TOKEN, &[(CHAIN, "consensus", &key)]);
    let nodes = [MockNode::tcp().unwrap(), MockNode::tcp().unwrap()];
    let home = Home::new().chain_with_key(CHAIN, "", &provider);
    let home = nodes.iter().fold(home, |home, node| home.node(&node.address(), CHAIN, ""));
    let home = hsm.equip(home).init();
    let faults = hsm.faults();
    let mut signer = home.start();
    signer.wait_for_log("device up");
    let schedule = random.schedule();
    let planned = schedule.len();
    faults.plan(&schedule);

    let (height, refusals, stop) = (AtomicI64::new(1), AtomicUsize::new(0), AtomicBool::new(false));
    let history = Mutex::new(History::default());
    let ends = thread::scope(|scope| {
        let _stopper = SetAtEnd(&stop);
        let voters = nodes.each_ref().map(|node| {
            let session = node.accept().unwrap();
            let random = Random(random.below(u64::MAX));
            let (height, refusals, stop) = (&height, &refusals, &stop);
            let voter = Voter { random, key: &key, height, history: &history, refusals, stop };
            scope.spawn(move || voter.vote(session))
        });
        let deadline = Instant::now() + 2 * PATIENCE;
        while faults.left() > 0 && Instant::now() < deadline && !stop.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(20));
        }
        stop.store(true, Ordering::Relaxed);
        voters.map(|voter| voter.join().unwrap())
    });
    let longest = ends.iter().map(|(longest, _)| *longest).max().unwrap();
    let (signed, refused, left) = (history.into_inner().unwrap().0.len(), refusals.into_inner(), faults.left());
    eprintln!(
        "{} of {planned} faults played: {signed} votes signed, {refused} refused, the slowest answer after {longest:?}",
        planned - left
    );
    assert!(longest < LIMIT, "an answer after {longest:?}");
    assert!(left < planned / 2 && signed > 20 && refused > 0, "{left} faults left, {signed} signed, {refused} refused");
    // The same signer over the same links.
    signer.assert_running();
    faults.plan(&["sign pass"]);
    // The device may be away for longer than a silent node keeps its link.
    let mut sessions = ends.map(|(_, session)| session);
    wait_until(|| {
        let above = height.fetch_add(1, Ordering::Relaxed) + 1;
        sessions.iter_mut().for_each(|session| session.ping().unwrap());
        ask(&mut sessions[0], prevote(above, 0, Some(7))).0.is_ok()
    });
    for session in &mut sessions {
        let above = height.fetch_add(1000, Ordering::Relaxed) + 1;
        sign_at_last(session, &key, above);
    }
}

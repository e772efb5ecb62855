//! Several nodes at once on the real binary: the same places, other blocks, other times, and a signer that is killed in
//! between. The checker sees every answer.

use super::{
    PROMISE,
    asks::{Ask, CHAIN},
    assurance,
    dice::{Dice, seed},
    history::{History, Left},
    mock_node::MockNode,
    signer::Home,
};
use highwater_core::consensus::Step;
use std::{
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

const NODES: usize = 5;
const LIVES: u64 = 6;
/// Answers that a life of the signer lasts, and as many more by chance.
const ANSWERS_PER_LIFE: u64 = 100;
/// Far above what a life takes, even on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// How many requests each place gets on average, from all nodes together.
const REQUESTS_PER_PLACE: u64 = 8;

/// State shared by the nodes.
struct Scene {
    history: Mutex<History>,
    asked: AtomicU64,
    first: AtomicU64,
    repeated: AtomicU64,
    refused: AtomicU64,
    playing: AtomicU64,
    over: AtomicBool,
}

impl Scene {
    /// A request for about the place where everybody is.
    fn ask(&self, dice: &mut Dice) -> Ask {
        let tick = self.asked.fetch_add(1, Ordering::SeqCst) / REQUESTS_PER_PLACE;
        let tick = i64::try_from(tick).unwrap() + dice.between(-1, 1);
        let tick = tick.max(0);
        let step = [Step::Propose, Step::Prevote, Step::Precommit][usize::try_from(tick % 3).unwrap()];
        let least = u64::from(step == Step::Propose);
        let block = u8::try_from(least + dice.below(3 - least)).unwrap();
        let extension = if step == Step::Precommit && block != 0 { vec![1; dice.index(20)] } else { Vec::new() };
        Ask {
            height: 1 + tick / 6,
            round: i32::try_from(tick / 3 % 2).unwrap(),
            step,
            block,
            pol_round: -1,
            time: (1_700_000_000 + dice.between(-3, 3), 0),
            extension,
            skip_extension: false,
        }
    }

    /// One node: asks until its link ends, waits for the signer to come back, and asks on.
    fn play(&self, node: &MockNode, link: usize) {
        let mut dice = Dice::new(seed().wrapping_add(link as u64));
        while !self.is_over() {
            let mut session = node.accept().unwrap();
            while !self.is_over() {
                let ask = self.ask(&mut dice);
                // A signer that was killed may have signed: what did not arrive did not leave.
                let Ok(answer) = session.ask(ask.message()) else { break };
                let noted = self.history.lock().unwrap().note(link, &answer, &ask.extension);
                let counter = match noted.unwrap_or_else(|offence| panic!("{offence}")) {
                    Left::First => &self.first,
                    Left::Nothing => &self.refused,
                    Left::Repeat => &self.repeated,
                };
                counter.fetch_add(1, Ordering::SeqCst);
            }
        }
    }

    /// Waits until this many more answers have come.
    fn wait_for(&self, answers: u64) {
        let before = self.answers();
        self.wait_until("answers come", || self.answers() >= before + answers || self.is_over());
    }

    fn wait_until(&self, what: &str, done: impl Fn() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !done() {
            assert!(Instant::now() < deadline, "waited in vain until {what}");
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn answers(&self) -> u64 {
        [&self.first, &self.repeated, &self.refused].map(|count| count.load(Ordering::SeqCst)).iter().sum()
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }
}

/// Ends the other nodes too when one fails.
struct OverAtTheEnd<'a>(&'a AtomicBool);

impl Drop for OverAtTheEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn nodes_that_ask_at_once_and_a_signer_that_is_killed_never_make_two() {
    let mut home = Home::new().chain(CHAIN, "");
    let mut nodes: Vec<MockNode> =
        (1..NODES).map(|node| MockNode::unix(&home.path(&format!("{node}.sock"))).unwrap()).collect();
    nodes.push(MockNode::tcp().unwrap());
    for node in &nodes {
        home = home.node(&node.address(), CHAIN, "");
    }
    let home = home.init();
    let scene = Scene {
        history: Mutex::new(History::new(CHAIN, home.public_key(CHAIN))),
        asked: AtomicU64::new(0),
        first: AtomicU64::new(0),
        repeated: AtomicU64::new(0),
        refused: AtomicU64::new(0),
        playing: AtomicU64::new(NODES as u64),
        over: AtomicBool::new(false),
    };
    let mut dice = Dice::new(seed());
    thread::scope(|scope| {
        let over = OverAtTheEnd(&scene.over);
        for (link, node) in nodes.iter().enumerate() {
            let scene = &scene;
            scope.spawn(move || {
                let _over = OverAtTheEnd(&scene.over);
                scene.play(node, link);
                scene.playing.fetch_sub(1, Ordering::SeqCst);
            });
        }
        for life in 0..LIVES {
            let mut signer = home.start();
            signer.wait_for_log("link up");
            scene.wait_for(ANSWERS_PER_LIFE + dice.below(ANSWERS_PER_LIFE));
            // Anywhere in a request, not always right after an answer.
            thread::sleep(Duration::from_micros(dice.below(5_000)));
            if life + 1 < LIVES {
                signer.sigkill();
            } else {
                // The last one lives until every node has seen that it is over.
                over.0.store(true, Ordering::SeqCst);
                scene.wait_until("the nodes end", || scene.playing.load(Ordering::SeqCst) == 0);
            }
        }
    });
    let count = |counter: &AtomicU64| counter.load(Ordering::SeqCst);
    let (first, repeated, refused) = (count(&scene.first), count(&scene.repeated), count(&scene.refused));
    assert!(
        first > 10 * LIVES && repeated > LIVES && refused > 10 * LIVES,
        "{first} new, {repeated} repeated, {refused} refused"
    );
    let what = format!("answers of the real signer to {NODES} nodes at once, killed {} times", LIVES - 1);
    assurance::report(PROMISE, &what, first + repeated + refused);
}

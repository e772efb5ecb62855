//! Every history of up to four steps over a small domain: requests of nodes and raises by hand, after nothing was signed,
//! after a raise, and after an import at every place.

use super::{
    PROMISE,
    asks::{Ask, chain_id},
    assurance,
    reference::{May, Reference},
};
use highwater_core::{
    consensus::{ChainId, Hrs, Step, Timestamp},
    privval::Canonical,
    watermark::{Candidate, Mark, Verdict, decide},
};

const LENGTH: u32 = 4;
const HEIGHTS: [i64; 2] = [1, 2];
const ROUNDS: [i32; 2] = [0, 1];
const STEPS: [Step; 3] = [Step::Propose, Step::Prevote, Step::Precommit];
/// Nil and two blocks.
const BLOCKS: [u8; 3] = [0, 1, 2];
const POL_ROUNDS: [i32; 2] = [-1, 0];
const TIMES: [(i64, i32); 2] = [(1_700_000_000, 5), (1_700_000_001, 0)];

/// A request beside what the signer makes of it.
struct Case {
    ask: Ask,
    canonical: Canonical,
    candidate: Candidate,
    sign_bytes: Vec<u8>,
}

/// Everything a node can ask in the domain: real messages, through the real parser.
fn domain(chain: &ChainId) -> Vec<Case> {
    let mut cases = Vec::new();
    for (height, round) in HEIGHTS.into_iter().flat_map(|height| ROUNDS.map(|round| (height, round))) {
        for (block, time) in BLOCKS.into_iter().flat_map(|block| TIMES.map(|time| (block, time))) {
            for (step, pol_round) in STEPS.into_iter().flat_map(|step| POL_ROUNDS.map(|round| (step, round))) {
                // Only a proposal has a proof-of-lock round, and it always has a block.
                if if step == Step::Propose { block == 0 } else { pol_round != POL_ROUNDS[0] } {
                    continue;
                }
                let extension = Vec::new();
                let ask = Ask { height, round, step, block, pol_round, time, extension, skip_extension: false };
                let canonical = ask.canonical();
                let candidate = Candidate {
                    hrs: canonical.hrs(),
                    target: canonical.target(),
                    timestamp: canonical.timestamp,
                    digest: canonical.digest(chain),
                };
                let sign_bytes = canonical.sign_bytes(chain).as_slice().to_vec();
                cases.push(Case { ask, canonical, candidate, sign_bytes });
            }
        }
    }
    cases
}

struct Walk<'a> {
    chain: &'a ChainId,
    cases: &'a [Case],
    reference: Reference,
    /// The sign bytes of all that left.
    left: Vec<&'a [u8]>,
    decisions: u64,
}

impl<'a> Walk<'a> {
    /// Tries every history of `length` steps from here. A step that changes nothing is not followed: what comes after
    /// it is what comes after this very point, and that is tried already.
    fn from(&mut self, mark: &Mark, length: u32) {
        if length == 0 {
            return;
        }
        for case in self.cases {
            self.decisions += 1;
            let verdict = decide(mark, &case.candidate);
            match (verdict, self.reference.may(&case.ask)) {
                (Verdict::Refuse(_), May::Stay) => {}
                (Verdict::Repeat { timestamp }, May::Again { time }) if same(timestamp, time) => {
                    let again = Canonical { timestamp, ..case.canonical }.sign_bytes(self.chain);
                    assert!(self.left.contains(&again.as_slice()), "{:?} was never signed", case.ask);
                }
                (Verdict::Sign, May::Leave) => self.follow(case, length),
                (verdict, may) => panic!("{:?} after {mark:?}: {verdict:?}, the promise says {may:?}", case.ask),
            }
        }
        for height in HEIGHTS {
            self.raise(mark, Hrs::end_of(height.cast_unsigned()), length);
        }
    }

    fn follow(&mut self, case: &'a Case, length: u32) {
        self.reference.leave(&case.ask);
        self.left.push(&case.sign_bytes);
        self.from(&case.candidate.mark(), length - 1);
        self.left.pop();
        self.reference.undo_leave();
    }

    fn raise(&mut self, mark: &Mark, to: Hrs, length: u32) {
        let forward = to > mark.hrs;
        assert_eq!(self.reference.close(to), forward, "raising {mark:?} to {to}");
        if forward {
            self.from(&Mark::floor(to), length - 1);
            self.reference.undo_close();
        }
    }
}

fn same(timestamp: Timestamp, (seconds, nanos): (i64, i32)) -> bool {
    timestamp.seconds() == seconds && i64::from(timestamp.nanos()) == i64::from(nanos)
}

#[test]
fn the_rule_keeps_the_promise_over_every_history_of_up_to_four_steps() {
    let chain = chain_id();
    let cases = domain(&chain);
    assert_eq!(cases.len(), 80);
    let mut floors = vec![Hrs::GENESIS, Hrs::end_of(1)];
    floors.extend(cases.iter().map(|case| case.candidate.hrs));
    floors.sort();
    floors.dedup();
    assert_eq!(floors.len(), 14, "nothing signed, a raise, and an import at each of twelve places");
    let mut decisions = 0;
    for floor in &floors {
        let mut walk =
            Walk { chain: &chain, cases: &cases, reference: Reference::default(), left: Vec::new(), decisions: 0 };
        walk.reference.close(*floor);
        walk.from(&Mark::floor(*floor), LENGTH);
        decisions += walk.decisions;
    }
    assert!(decisions > 5_000_000, "{decisions} decisions");
    assurance::report(PROMISE, "requests decided wherever up to four steps lead, in a small domain", decisions);
}

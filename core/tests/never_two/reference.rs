//! The reference: every message that ever left, every place closed by hand, and the promise itself.
//!
//! It knows no marks and no digests. A message may leave if and only if nothing that left lies after it, no closed place
//! lies at it or after it, and all that left from its own place says the same; a proposal must also be of the same time.

use super::asks::Ask;
use highwater_core::consensus::{Hrs, Step};

/// All that happened.
#[derive(Default)]
pub struct Reference {
    left: Vec<Ask>,
    closed: Vec<u128>,
}

/// What the promise allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum May {
    /// The message of that time leaves again.
    Again { time: (i64, i32) },
    /// It leaves.
    Leave,
    /// It stays.
    Stay,
}

impl Reference {
    /// What may become of `ask`.
    pub fn may(&self, ask: &Ask) -> May {
        let here = position(ask.height, ask.round, ask.step);
        if self.closed.iter().any(|closed| here <= *closed) {
            return May::Stay;
        }
        let mut again = None;
        for left in &self.left {
            let there = position(left.height, left.round, left.step);
            if there > here {
                return May::Stay;
            }
            if there == here {
                let same_time = left.time == ask.time || ask.step != Step::Propose;
                if !(left.says_the_same_as(ask) && same_time) {
                    return May::Stay;
                }
                again = Some(left.time);
            }
        }
        again.map_or(May::Leave, |time| May::Again { time })
    }

    /// `ask` has left for the first time.
    pub fn leave(&mut self, ask: &Ask) {
        self.left.push(ask.clone());
    }

    /// Nothing at or before `hrs` leaves any more. Whether that is news: by hand a mark only moves forward.
    pub fn close(&mut self, hrs: Hrs) -> bool {
        let height = i64::try_from(hrs.height).unwrap();
        let here = position(height, i32::try_from(hrs.round).unwrap(), hrs.step);
        let after = |ask: &Ask| position(ask.height, ask.round, ask.step) >= here;
        let news = !self.closed.iter().any(|closed| *closed >= here) && !self.left.iter().any(after);
        if news {
            self.closed.push(here);
        }
        news
    }

    /// Takes back the last [`Reference::leave`].
    pub fn undo_leave(&mut self) {
        self.left.pop();
    }

    /// Takes back the last [`Reference::close`] that was news.
    pub fn undo_close(&mut self) {
        self.closed.pop();
    }
}

/// Every place of a chain on one line.
fn position(height: i64, round: i32, step: Step) -> u128 {
    const ROUNDS: u128 = 1 << 31;
    const STEPS: u128 = 4;
    let (height, round) = (u128::try_from(height).unwrap(), u128::try_from(round).unwrap());
    (height * ROUNDS + round) * STEPS + u128::from(step.number())
}

//! All that has left the machine, and what may leave it next.

use crate::{
    machine::{CHAIN, SEED},
    support::{
        assert_vote_signed,
        mock_node::{Session, block_id, precommit, prevote, vote_at},
        random::Random,
    },
};
use highwater_core::{
    consensus::{KeyType, PublicKey},
    privval::{
        ErrorCode,
        message::{TYPE_PREVOTE, Vote},
    },
};
use std::{collections::BTreeMap, fmt, io};

/// Height, round, and type: that of a prevote is below that of a precommit.
type Place = (i64, i32, i32);

/// The first is voted for; the other is asked for to get a second signature.
const BLOCKS: [u8; 2] = [1, 2];

/// Every vote that was released, each as it was answered.
pub struct History {
    key: PublicKey,
    released: BTreeMap<Place, Vote>,
    /// The last vote that was asked for. If the power went before its answer it may have been signed.
    asked: Vote,
}

/// There are two signatures for one place.
#[derive(Debug)]
pub struct DoubleSign(Place);

impl fmt::Display for DoubleSign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self((height, round, kind)) = self;
        write!(f, "two signatures at height {height}, round {round}, type {kind}")
    }
}

impl History {
    /// Nothing was released.
    pub fn new() -> Self {
        let key = ed25519_dalek::SigningKey::from_bytes(&SEED).verifying_key();
        let key = PublicKey::from_bytes(KeyType::Ed25519, key.as_bytes()).unwrap();
        Self { key, released: BTreeMap::new(), asked: prevote(0, 0, None) }
    }

    /// How many votes were released.
    pub fn len(&self) -> usize {
        self.released.len()
    }

    /// Asks for one vote after the other until the connection breaks.
    pub fn vote_until_the_end(&mut self, session: &mut Session, random: &mut Random) -> Result<(), DoubleSign> {
        loop {
            self.asked = self.next(random);
            match self.ask(session, self.asked.clone()) {
                Ok(answer) => assert_eq!(answer?, None, "every vote is above the last one"),
                Err(_) => return Ok(()),
            }
        }
    }

    /// Tries to get a second signature after a cut: for another block at the place of the last vote that was released,
    /// and at that of the one before. The last one itself may be repeated, and the one that nobody has seen replaced.
    pub fn check(&mut self, session: &mut Session) -> Result<(), DoubleSign> {
        let codes = [ErrorCode::DoubleSign as i32, ErrorCode::Regression as i32];
        let newest: Vec<_> = self.released.values().rev().take(2).cloned().collect();
        for vote in &newest {
            let code = self.ask(session, for_another_block(vote)).expect("the signer answers")?;
            assert!(code.is_some_and(|code| codes.contains(&code)), "the mark refuses it, and nothing else: {code:?}");
        }
        if let Some(last) = newest.first() {
            let _ = self.ask(session, made_again(last)).expect("the signer answers")?;
        }
        if self.asked.height > 0 {
            let _ = self.ask(session, for_another_block(&self.asked)).expect("the signer answers")?;
        }
        Ok(())
    }

    /// Asks for a vote; gives the code of a refusal.
    fn ask(&mut self, session: &mut Session, vote: Vote) -> io::Result<Result<Option<i32>, DoubleSign>> {
        match session.ask_vote(CHAIN, vote)? {
            Ok(answer) => Ok(self.record(answer).map(|()| None)),
            Err(refusal) => Ok(Ok(Some(refusal.code))),
        }
    }

    fn record(&mut self, vote: Vote) -> Result<(), DoubleSign> {
        assert_vote_signed(&self.key, CHAIN, &vote);
        // The time is part of the sign bytes: a repeat has that of the first answer.
        match self.released.get(&place(&vote)) {
            Some(first) if *first != vote => Err(DoubleSign(place(&vote))),
            _ => {
                self.released.insert(place(&vote), vote);
                Ok(())
            }
        }
    }

    /// A vote above all that were asked for: mostly the next step, now and then a new round.
    fn next(&self, random: &mut Random) -> Vote {
        let Vote { height, round, .. } = self.asked;
        let block = Some(BLOCKS[0]);
        if height > 0 && self.asked.r#type == TYPE_PREVOTE {
            precommit(height, round, block)
        } else if height > 0 && random.below(8) == 0 {
            prevote(height, round + 1, block)
        } else {
            prevote(height + 1, 0, block)
        }
    }
}

fn place(vote: &Vote) -> Place {
    (vote.height, vote.round, vote.r#type)
}

/// The same place, and nothing that can be signed if `vote` was.
fn for_another_block(vote: &Vote) -> Vote {
    let [one, other] = BLOCKS.map(block_id);
    let block_id = if vote.block_id.as_ref() == Some(&one) { other } else { one };
    Vote { block_id: Some(block_id), ..made_again(vote) }
}

/// The same vote, as a node makes it a second later.
fn made_again(vote: &Vote) -> Vote {
    let seconds = vote.timestamp.map_or(0, |time| time.seconds);
    let unsigned = Vote { signature: Vec::new(), extension_signature: Vec::new(), ..vote.clone() };
    vote_at(seconds + 1, unsigned)
}

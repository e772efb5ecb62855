//! The rule against an independent reference, over every history of a small domain.

use super::*;

/// The content of a message, before it is hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Message {
    height: u64,
    round: u32,
    step: Step,
    /// 0 is nil, others are blocks.
    block: u8,
    pol_round: i8,
    time: i64,
}

impl Message {
    fn candidate(&self) -> Candidate {
        let mut digest = [0; 32];
        digest[0] = u8::try_from(self.height).unwrap();
        digest[1] = u8::try_from(self.round).unwrap();
        digest[2] = self.step.number();
        digest[3] = self.block;
        digest[4] = self.pol_round.cast_unsigned();
        Candidate {
            hrs: Hrs { height: self.height, round: self.round, step: self.step },
            target: if self.block == 0 { Target::Nil } else { Target::Block },
            timestamp: Timestamp::new(self.time, 0).unwrap(),
            digest: Digest(digest),
        }
    }
}

/// Every message with heights 1 and 2, rounds 0 and 1, nil and two blocks, two times, two proof-of-lock rounds.
fn domain() -> Vec<Message> {
    let mut all = Vec::new();
    for height in [1, 2] {
        for round in [0, 1] {
            for time in [1, 2] {
                for block in [1, 2] {
                    for pol_round in [-1, 0] {
                        all.push(Message { height, round, step: Step::Propose, block, pol_round, time });
                    }
                }
                for step in [Step::Prevote, Step::Precommit] {
                    for block in [0, 1, 2] {
                        all.push(Message { height, round, step, block, pol_round: 0, time });
                    }
                }
            }
        }
    }
    all
}

/// The reference remembers every message it signed, knows no marks, and compares field by field.
#[derive(Clone, Default)]
struct Reference(Vec<Message>);

#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Refused,
    Repeated(i64),
    Signed,
}

impl Reference {
    fn ask(&mut self, asked: Message) -> Answer {
        let place = |m: &Message| (m.height, m.round, m.step.number());
        if self.0.iter().any(|signed| place(signed) > place(&asked)) {
            return Answer::Refused;
        }
        let Some(signed) = self.0.iter().find(|signed| place(signed) == place(&asked)) else {
            self.0.push(asked);
            return Answer::Signed;
        };
        let same = signed.block == asked.block && signed.pol_round == asked.pol_round;
        let repeatable = match asked.step {
            Step::Propose => same && signed.time == asked.time,
            Step::Precommit | Step::Prevote => same,
        };
        if repeatable { Answer::Repeated(signed.time) } else { Answer::Refused }
    }
}

fn ask(mark: &mut Mark, asked: &Message) -> Answer {
    let candidate = asked.candidate();
    match decide(mark, &candidate) {
        Verdict::Sign => {
            *mark = candidate.mark();
            Answer::Signed
        }
        Verdict::Repeat { timestamp } => Answer::Repeated(timestamp.seconds()),
        Verdict::Refuse(_) => Answer::Refused,
    }
}

#[test]
fn the_rule_agrees_with_the_reference_over_every_history_of_three() {
    let domain = domain();
    let mut histories = 0_u64;
    for first in &domain {
        for second in &domain {
            for third in &domain {
                let mut mark = Mark::NEVER_SIGNED;
                let mut reference = Reference::default();
                for asked in [first, second, third] {
                    assert_eq!(ask(&mut mark, asked), reference.ask(*asked), "{first:?} {second:?} {third:?}");
                }
                histories += 1;
            }
        }
    }
    assert_eq!(histories, 80 * 80 * 80);
}

#[test]
fn two_different_messages_never_get_signed_at_one_place() {
    let domain = domain();
    for first in &domain {
        for second in &domain {
            let mut mark = Mark::NEVER_SIGNED;
            ask(&mut mark, first);
            let same_place = first.candidate().hrs == second.candidate().hrs;
            if same_place && (first.block, first.pol_round) != (second.block, second.pol_round) {
                assert_eq!(ask(&mut mark, second), Answer::Refused, "{first:?} {second:?}");
            }
        }
    }
}

fn vote(step: Step, block: u8) -> Message {
    Message { height: 5, round: 1, step, block, pol_round: 0, time: 1 }
}

fn after(first: Message, second: Message) -> Verdict {
    decide(&first.candidate().mark(), &second.candidate())
}

#[test]
fn a_prevote_for_one_block_and_a_precommit_for_another_are_legal() {
    assert_eq!(after(vote(Step::Prevote, 1), vote(Step::Precommit, 2)), Verdict::Sign);
}

#[test]
fn a_refusal_names_its_conflict() {
    let refused = |conflict| Verdict::Refuse(Violation::DoubleSign(conflict));
    let prevote = |block| vote(Step::Prevote, block);
    assert_eq!(after(prevote(1), prevote(2)), refused(Conflict::BlockAgainstBlock));
    assert_eq!(after(prevote(0), prevote(1)), refused(Conflict::BlockAgainstNil));
    assert_eq!(after(prevote(1), prevote(0)), refused(Conflict::NilAgainstBlock));
    assert_eq!(after(vote(Step::Propose, 1), vote(Step::Propose, 2)), refused(Conflict::Proposal));
    assert_eq!(after(vote(Step::Precommit, 1), prevote(1)), Verdict::Refuse(Violation::Regression));
}

#[test]
fn a_proposal_with_another_time_is_refused_and_a_vote_is_repeated_with_its_old_time() {
    let later = |message: Message| Message { time: 9, ..message };
    let proposal = vote(Step::Propose, 1);
    let refusal = Verdict::Refuse(Violation::DoubleSign(Conflict::Proposal));
    assert_eq!(after(proposal, later(proposal)), refusal);
    let timestamp = Timestamp::new(1, 0).unwrap();
    assert_eq!(after(proposal, proposal), Verdict::Repeat { timestamp });
    let prevote = vote(Step::Prevote, 1);
    assert_eq!(after(prevote, later(prevote)), Verdict::Repeat { timestamp });
}

#[test]
fn a_mark_without_digest_refuses_its_own_place_and_below_and_signs_above() {
    for asked in domain() {
        let candidate = asked.candidate();
        let floor = Hrs { height: 1, round: 1, step: Step::Prevote };
        let expected = match candidate.hrs.cmp(&floor) {
            std::cmp::Ordering::Less => Verdict::Refuse(Violation::Regression),
            std::cmp::Ordering::Equal => Verdict::Refuse(Violation::DoubleSign(Conflict::Unknown)),
            std::cmp::Ordering::Greater => Verdict::Sign,
        };
        assert_eq!(decide(&Mark::floor(floor), &candidate), expected);
    }
}

#[test]
fn a_raised_mark_closes_its_whole_height() {
    for asked in domain() {
        let verdict = decide(&Mark::floor(Hrs::end_of(1)), &asked.candidate());
        assert_eq!(verdict == Verdict::Sign, asked.height == 2, "{asked:?}");
    }
}

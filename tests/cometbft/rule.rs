//! The running signer's answers to a series of requests, over TCP and over unix: the rule, and extensions.

use crate::support::{
    assert_extension_signed, assert_proposal_signed, assert_vote_signed,
    mock_node::{at, block_id, precommit, prevote, proposal, vote_at},
    scene::{CHAIN, DOUBLE_SIGN, MALFORMED, REGRESSION, Scene, Transport, refusal},
};
use highwater_core::privval::message::{Proposal, SignVoteRequest, Vote};

/// The requests after the signed ones, from `height` up.
#[derive(Clone, Copy, Debug)]
enum Relation {
    HeightAbove,
    HeightBelow,
    RoundAbove,
    RoundBelow,
    Same,
    StepAbove,
    StepBelow,
}

impl Relation {
    const ALL: [Self; 7] = [
        Self::HeightAbove,
        Self::HeightBelow,
        Self::RoundAbove,
        Self::RoundBelow,
        Self::Same,
        Self::StepAbove,
        Self::StepBelow,
    ];

    /// The vote that is signed first and the one asked for then.
    fn votes(self, height: i64, step: Step, first: Option<u8>, then: Option<u8>) -> (Vote, Vote) {
        match self {
            Self::HeightAbove => (step(height, 1, first), step(height + 1, 1, then)),
            Self::HeightBelow => (step(height, 1, first), step(height - 1, 1, then)),
            Self::RoundAbove => (step(height, 1, first), step(height, 2, then)),
            Self::RoundBelow => (step(height, 1, first), step(height, 0, then)),
            Self::Same => (step(height, 1, first), step(height, 1, then)),
            Self::StepAbove => (prevote(height, 1, first), precommit(height, 1, then)),
            Self::StepBelow => (precommit(height, 1, first), prevote(height, 1, then)),
        }
    }

    fn refusal(self, first: Option<u8>, then: Option<u8>) -> Option<i32> {
        match self {
            Self::HeightBelow | Self::RoundBelow | Self::StepBelow => Some(REGRESSION),
            Self::Same if first != then => Some(DOUBLE_SIGN),
            Self::HeightAbove | Self::RoundAbove | Self::Same | Self::StepAbove => None,
        }
    }
}

type Step = fn(i64, i32, Option<u8>) -> Vote;

const BLOCK_PAIRS: [(Option<u8>, Option<u8>); 5] =
    [(None, None), (Some(1), Some(1)), (None, Some(1)), (Some(1), None), (Some(1), Some(2))];

fn every_pair_of_votes(transport: Transport) {
    let mut scene = Scene::new(transport);
    let mut height = 10;
    for relation in Relation::ALL {
        for (first, then) in BLOCK_PAIRS {
            for step in [prevote as Step, precommit] {
                let (first_vote, then_vote) = relation.votes(height, step, first, then);
                let then_vote = vote_at(1_700_000_099, then_vote);
                let signed = scene.sign(first_vote);
                match relation.refusal(first, then) {
                    Some(code) => {
                        assert_eq!(scene.refused(then_vote), code, "{relation:?} {first:?} then {then:?}");
                    }
                    None => {
                        let then_signed = scene.sign(then_vote.clone());
                        if matches!(relation, Relation::Same) {
                            assert_eq!(then_signed, signed, "a repeat has the stored time and signature");
                        } else {
                            assert_eq!(then_signed.timestamp, then_vote.timestamp);
                        }
                    }
                }
                scene.alive(height + 2);
                height += 10;
            }
        }
    }
}

#[test]
fn every_pair_of_votes_is_answered_by_the_rule_over_tcp() {
    every_pair_of_votes(Transport::Tcp);
}

#[test]
fn every_pair_of_votes_is_answered_by_the_rule_over_unix() {
    every_pair_of_votes(Transport::Unix);
}

#[test]
fn a_double_sign_is_any_difference_but_the_time() {
    let mut scene = Scene::new(Transport::Tcp);
    let mut other_total = block_id(1);
    other_total.part_set_header.as_mut().unwrap().total += 1;
    let mut other_parts = block_id(1);
    other_parts.part_set_header.as_mut().unwrap().hash[31] ^= 1;
    let mut other_hash = block_id(1);
    other_hash.hash[0] ^= 0x80;
    for (index, other) in [other_total, other_parts, other_hash].into_iter().enumerate() {
        let height = 10 * (1 + i64::try_from(index).unwrap());
        let signed = scene.sign(precommit(height, 0, Some(1)));
        let conflicting = Vote { block_id: Some(other), ..precommit(height, 0, Some(1)) };
        assert_eq!(scene.refused(conflicting), DOUBLE_SIGN);
        assert_eq!(scene.sign(vote_at(5, precommit(height, 0, Some(1)))), signed, "the repeat still comes");
        scene.alive(height + 1);
    }
    // Neither address nor index is signed: the same vote.
    let signed = scene.sign(prevote(100, 0, Some(1)));
    let elsewhere = Vote { validator_address: vec![0xbb; 20], validator_index: 9, ..prevote(100, 0, Some(1)) };
    assert_eq!(scene.sign(elsewhere).signature, signed.signature);
}

#[test]
fn proposals_are_repeated_to_the_byte_and_otherwise_refused() {
    let mut scene = Scene::new(Transport::Tcp);
    let key = scene.home.public_key(CHAIN);
    type Then = fn(i64) -> Proposal;
    let cases: [(&str, Then, Option<i32>); 8] = [
        ("the same", |height| proposal(height, 1, 1), None),
        ("the next round", |height| proposal(height, 2, 2), None),
        ("another time", |height| Proposal { timestamp: Some(at(5)), ..proposal(height, 1, 1) }, Some(DOUBLE_SIGN)),
        ("another block", |height| proposal(height, 1, 2), Some(DOUBLE_SIGN)),
        ("another proof of lock", |height| Proposal { pol_round: 0, ..proposal(height, 1, 1) }, Some(DOUBLE_SIGN)),
        ("an earlier round", |height| proposal(height, 0, 1), Some(REGRESSION)),
        ("an earlier height", |height| proposal(height - 1, 1, 1), Some(REGRESSION)),
        ("an earlier height, later round", |height| proposal(height - 1, 9, 1), Some(REGRESSION)),
    ];
    for (index, (name, then, code)) in cases.into_iter().enumerate() {
        let height = 10 * (1 + i64::try_from(index).unwrap());
        let signed = scene.session.ask_proposal(CHAIN, proposal(height, 1, 1)).unwrap().unwrap();
        assert_proposal_signed(&key, CHAIN, &signed);
        let answer = scene.session.ask_proposal(CHAIN, then(height)).unwrap();
        match code {
            Some(code) => assert_eq!(refusal(answer), code, "{name}"),
            None => {
                let answer = answer.unwrap();
                assert_proposal_signed(&key, CHAIN, &answer);
                assert_eq!(answer.signature == signed.signature, name == "the same", "{name}");
            }
        }
        scene.alive(height + 2);
    }
    // Within a round a proposal comes first.
    scene.sign(prevote(500, 1, Some(1)));
    assert_eq!(refusal(scene.session.ask_proposal(CHAIN, proposal(500, 1, 1)).unwrap()), REGRESSION);
    scene.sign(precommit(500, 1, Some(1)));
    assert_eq!(refusal(scene.session.ask_proposal(CHAIN, proposal(500, 1, 1)).unwrap()), REGRESSION);
    scene.alive(501);
}

#[test]
fn a_prevote_for_one_block_and_a_precommit_for_another_in_one_round_are_legal() {
    for transport in [Transport::Tcp, Transport::Unix] {
        let mut scene = Scene::new(transport);
        scene.sign(prevote(7, 0, Some(1)));
        scene.sign(precommit(7, 0, Some(2)));
        scene.sign(prevote(7, 1, None));
        scene.sign(precommit(7, 1, Some(2)));
        assert_eq!(scene.home.mark(CHAIN), (7, 1, "precommit".into()));
    }
}

fn every_vote_extension(transport: Transport) {
    let mut scene = Scene::new(transport);
    let key = scene.home.public_key(CHAIN);
    let mut height = 0;
    for step in [prevote as Step, precommit] {
        for block in [None, Some(1)] {
            for extension in [b"".as_slice(), b"extension"] {
                for skip_extension_signing in [false, true] {
                    height += 10;
                    let vote = Vote { extension: extension.to_vec(), ..step(height, 0, block) };
                    let request =
                        SignVoteRequest { vote: Some(vote.clone()), chain_id: CHAIN.into(), skip_extension_signing };
                    let answer = scene.session.ask_vote_request(request).unwrap();
                    let extends = vote.r#type == 2 && block.is_some();
                    if !extends && !extension.is_empty() {
                        assert_eq!(refusal(answer), MALFORMED, "{vote:?}");
                        scene.sign(step(height, 0, block));
                    } else {
                        let signed = answer.unwrap();
                        assert_vote_signed(&key, CHAIN, &signed);
                        let due = extends && !skip_extension_signing;
                        assert_eq!(!signed.extension_signature.is_empty(), due, "{vote:?} {skip_extension_signing}");
                        if due {
                            assert_extension_signed(&key, CHAIN, &signed, extension);
                        }
                    }
                    scene.alive(height + 1);
                }
            }
        }
    }
    assert_eq!(height, 160, "sixteen cases");
}

#[test]
fn an_extension_is_signed_if_and_only_if_a_node_needs_it_over_tcp() {
    every_vote_extension(Transport::Tcp);
}

#[test]
fn an_extension_is_signed_if_and_only_if_a_node_needs_it_over_unix() {
    every_vote_extension(Transport::Unix);
}

#[test]
fn a_repeated_precommit_gets_its_new_extension_signed() {
    let mut scene = Scene::new(Transport::Tcp);
    let key = scene.home.public_key(CHAIN);
    let first = scene.sign(Vote { extension: b"one".to_vec(), ..precommit(5, 0, Some(1)) });
    assert_extension_signed(&key, CHAIN, &first, b"one");
    let again = scene.sign(vote_at(9, Vote { extension: b"two".to_vec(), ..precommit(5, 0, Some(1)) }));
    assert_eq!((again.signature.clone(), again.timestamp), (first.signature, first.timestamp));
    assert_extension_signed(&key, CHAIN, &again, b"two");
}

#[test]
fn long_extensions_are_signed_and_never_sent_back() {
    for transport in [Transport::Tcp, Transport::Unix] {
        let mut scene = Scene::new(transport);
        let key = scene.home.public_key(CHAIN);
        for (height, length) in (1..).zip([1000, 1024, 10_240, 20_000, 900_000]) {
            let extension = vec![0xee; length];
            // The mock node takes no answer above 10 240 bytes, as no node before v0.40 does.
            let signed = scene.sign(Vote { extension: extension.clone(), ..precommit(height, 0, Some(1)) });
            assert_extension_signed(&key, CHAIN, &signed, &extension);
        }
        scene.alive(10);
    }
}

//! Restarts, the end at a signal, and several nodes: what a link sees of them.

use crate::support::{
    assert_alive, assert_vote_signed,
    mock_node::{MockNode, Session, precommit, prevote, proposal, vote_at},
    scene::{A_WHILE, CHAIN, DOUBLE_SIGN, OTHER, REGRESSION, Scene, Transport, refusal},
    signer::Home,
};
use highwater_core::privval::message::{SignVoteRequest, Sum, Vote};
use std::{
    sync::{Barrier, mpsc},
    thread,
    time::{Duration, Instant},
};

fn request(vote: Vote) -> Sum {
    Sum::SignVoteRequest(SignVoteRequest { vote: Some(vote), chain_id: CHAIN.into(), skip_extension_signing: false })
}

#[test]
fn what_was_signed_before_a_sigkill_is_repeated_and_nothing_else() {
    for transport in [Transport::Tcp, Transport::Unix] {
        let mut scene = Scene::new(transport);
        for height in (10..15).step_by(2) {
            let signed = scene.sign(precommit(height, 2, Some(1)));
            scene.signer.sigkill();
            scene.signer = scene.home.start();
            scene.session = scene.node.accept().unwrap();
            assert_eq!(scene.refused(precommit(height, 2, Some(2))), DOUBLE_SIGN);
            assert_eq!(scene.refused(precommit(height, 2, None)), DOUBLE_SIGN);
            assert_eq!(scene.refused(prevote(height, 2, Some(1))), REGRESSION);
            assert_eq!(scene.sign(vote_at(1_800_000_000, precommit(height, 2, Some(1)))), signed);
            scene.alive(height + 1);
        }
        // A proposal too.
        let offer = proposal(90, 0, 1);
        let signed = scene.session.ask_proposal(CHAIN, offer.clone()).unwrap().unwrap();
        scene.signer.sigkill();
        scene.signer = scene.home.start();
        scene.session = scene.node.accept().unwrap();
        assert_eq!(refusal(scene.session.ask_proposal(CHAIN, proposal(90, 0, 2)).unwrap()), DOUBLE_SIGN);
        assert_eq!(scene.session.ask_proposal(CHAIN, offer).unwrap().unwrap(), signed);
    }
}

/// Keeps 50 requests in flight, which no node does, sends SIGTERM amid them, and gives the last height that was
/// answered and how long after the signal the answers ended.
fn sigterm_amid_requests(scene: &mut Scene) -> (i64, Duration) {
    const IN_FLIGHT: i64 = 50;
    const SIGNAL_AT: i64 = 100;
    for height in 1..=IN_FLIGHT {
        scene.session.send(request(prevote(height, 0, Some(1)))).unwrap();
    }
    let mut answered = 0;
    let mut signalled = None;
    while let Ok(message) = scene.session.receive() {
        let Some(Sum::SignedVoteResponse(response)) = message.sum else { panic!("{message:?}") };
        answered = response.vote.expect("answers are whole").height;
        // Fails once the signer no longer reads, while answers may still be on their way.
        let _ = scene.session.send(request(prevote(answered + IN_FLIGHT, 0, Some(1))));
        if answered == SIGNAL_AT {
            scene.signer.sigterm();
            signalled = Some(Instant::now());
        }
    }
    let took = signalled.expect("the signal came amid the requests").elapsed();
    assert_eq!(scene.signer.exit_code(), Some(0));
    (answered, took)
}

#[test]
fn at_a_sigterm_the_request_in_hand_is_answered() {
    // Not over tcp: there a failed write keeps the mock node from reading the last answers.
    let mut scene = Scene::new(Transport::Unix);
    let (answered, _) = sigterm_amid_requests(&mut scene);
    assert_eq!(scene.home.mark(CHAIN).0, answered, "whatever was signed was answered");
}

#[test]
fn after_a_sigterm_no_request_is_begun() {
    // Not over unix: there the node can send nothing more anyway.
    let mut scene = Scene::new(Transport::Tcp);
    let (_, took) = sigterm_amid_requests(&mut scene);
    assert!(took < Duration::from_secs(4), "requests went on being begun for {took:?}");
}

#[test]
fn an_idle_signer_stops_at_once() {
    let mut scene = Scene::new(Transport::Tcp);
    scene.alive(1);
    let begin = Instant::now();
    scene.signer.sigterm();
    assert!(scene.session.ends_within(Duration::from_secs(4)).unwrap());
    assert_eq!(scene.signer.exit_code(), Some(0));
    assert!(begin.elapsed() < Duration::from_secs(4), "{:?}", begin.elapsed());
}

#[test]
fn two_nodes_that_ask_at_once_get_one_signature_and_one_time() {
    let nodes = [MockNode::tcp().unwrap(), MockNode::tcp().unwrap()];
    let home = Home::new().chain(CHAIN, "");
    let home = nodes.iter().fold(home, |home, node| home.node(&node.address(), CHAIN, "")).init();
    let _signer = home.start();
    let mut sessions = nodes.each_ref().map(|node| node.accept().unwrap());
    let barrier = Barrier::new(2);
    let mut firsts = [0, 0];
    for height in 1..=40 {
        let ask = |session: &mut Session, seconds| {
            barrier.wait();
            session.ask_vote(CHAIN, vote_at(seconds, precommit(height, 0, Some(1)))).unwrap().unwrap()
        };
        let [one, two] = &mut sessions;
        let (one, two) = thread::scope(|scope| {
            let one = scope.spawn(|| ask(one, 1_700_000_001));
            let two = scope.spawn(|| ask(two, 1_700_000_002));
            (one.join().unwrap(), two.join().unwrap())
        });
        assert_eq!(one, two, "one signature, one time");
        assert_vote_signed(&home.public_key(CHAIN), CHAIN, &one);
        firsts[usize::try_from(one.timestamp.unwrap().seconds - 1_700_000_001).unwrap()] += 1;
    }
    assert_eq!(firsts.iter().sum::<i32>(), 40);
    // Two blocks at once: one of them.
    let [one, two] = &mut sessions;
    let answers = thread::scope(|scope| {
        let spawned = [(one, 1), (two, 2)].map(|(session, block)| {
            let barrier = &barrier;
            scope.spawn(move || {
                barrier.wait();
                session.ask_vote(CHAIN, precommit(100, 0, Some(block))).unwrap()
            })
        });
        spawned.map(|thread| thread.join().unwrap())
    });
    let signed = answers.iter().filter(|answer| answer.is_ok()).count();
    assert_eq!(signed, 1, "{answers:?}");
    assert!(answers.iter().flat_map(|answer| answer.as_ref().err()).all(|refusal| refusal.code == DOUBLE_SIGN));
}

#[test]
fn a_node_that_goes_away_does_not_touch_another_chain_and_is_dialled_until_it_is_back() {
    let (lost, kept) = (MockNode::tcp().unwrap(), MockNode::tcp().unwrap());
    let home = Home::new()
        .chain(CHAIN, "")
        .chain(OTHER, "")
        .node(&lost.address(), CHAIN, "")
        .node(&kept.address(), OTHER, "")
        .init();
    let mut signer = home.start();
    let (mut first, mut other) = (lost.accept().unwrap(), kept.accept().unwrap());
    assert_alive(&mut first, &home.public_key(CHAIN), CHAIN, 1);
    let address = lost.socket();
    first.close();
    drop(lost);
    signer.wait_for_log("cannot connect");
    for height in 1..=20 {
        let begin = Instant::now();
        assert_alive(&mut other, &home.public_key(OTHER), OTHER, height);
        assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
    }
    let back = MockNode::tcp_at(address).unwrap();
    let mut first = back.accept().unwrap();
    assert_alive(&mut first, &home.public_key(CHAIN), CHAIN, 2);
    assert_alive(&mut other, &home.public_key(OTHER), OTHER, 21);
    signer.assert_running();
}

#[test]
fn a_node_that_is_not_to_be_dialled_again_is_not_and_without_nodes_the_signer_exits() {
    let (once, again) = (MockNode::tcp().unwrap(), MockNode::tcp().unwrap());
    let home = Home::new()
        .chain(CHAIN, "")
        .chain(OTHER, "")
        .node(&once.address(), CHAIN, "reconnect = false")
        .node(&again.address(), OTHER, "reconnect = false")
        .init();
    let mut signer = home.start();
    let (mut first, mut other) = (once.accept().unwrap(), again.accept().unwrap());
    assert_alive(&mut first, &home.public_key(CHAIN), CHAIN, 1);
    first.close();
    signer.wait_for_log("not dialling again");
    assert!(once.accept_raw(A_WHILE).is_err(), "the node is not dialled again");
    assert_alive(&mut other, &home.public_key(OTHER), OTHER, 1);
    other.close();
    assert_eq!(signer.exit_code(), Some(69));
}

/// A signer that starts before its nodes listen, as it is meant to be.
#[test]
fn a_node_that_comes_later_is_found_within_its_three_seconds() {
    let place = MockNode::tcp().unwrap();
    let address = place.socket();
    let home = Home::new().chain(CHAIN, "").node(&place.address(), CHAIN, "").init();
    drop(place);
    let mut signer = home.start();
    signer.wait_for_log("cannot connect");
    let (sender, receiver) = mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(move || {
            // By now the waits have grown to their longest.
            thread::sleep(Duration::from_secs(3));
            let begin = Instant::now();
            let session = MockNode::tcp_at(address).unwrap().accept().unwrap();
            sender.send((begin.elapsed(), session)).unwrap();
        });
        let (took, mut session) = receiver.recv_timeout(Duration::from_secs(20)).unwrap();
        assert!(took < Duration::from_secs(3), "{took:?}");
        assert_alive(&mut session, &home.public_key(CHAIN), CHAIN, 1);
    });
}

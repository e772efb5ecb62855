//! A chain whose files cannot be trusted answers errors and says why, while the other chains sign. Where no chain can sign, the
//! process ends before it dials.

use crate::support::{
    assert_alive,
    mock_node::{MockNode, precommit, prevote, proposal},
    scene::{A_WHILE, CHAIN, KEY_UNAVAILABLE, OTHER, STATE_UNUSABLE, Scene, Transport, refusal},
    signer::Home,
};
use std::fs;

/// Changes to the files of a chain between `state init` and `start`.
type Damage = fn(&Home);

#[test]
fn a_chain_with_bad_files_answers_why_and_the_other_chain_signs() {
    let cases: [(&str, Damage, i32); 5] = [
        ("a missing state file", |home| fs::remove_file(home.state_file(CHAIN)).unwrap(), STATE_UNUSABLE),
        ("an empty state file", |home| fs::write(home.state_file(CHAIN), b"").unwrap(), STATE_UNUSABLE),
        (
            "a damaged state file",
            |home| {
                let mut content = fs::read(home.state_file(CHAIN)).unwrap();
                content[40] ^= 1;
                fs::write(home.state_file(CHAIN), content).unwrap();
            },
            STATE_UNUSABLE,
        ),
        (
            "the state file of another chain",
            |home| {
                fs::copy(home.state_file(OTHER), home.state_file(CHAIN)).unwrap();
            },
            STATE_UNUSABLE,
        ),
        ("a missing key", |home| fs::remove_file(home.key_file(CHAIN)).unwrap(), KEY_UNAVAILABLE),
    ];
    for (name, damage, code) in cases {
        let (bad, good) = (MockNode::tcp().unwrap(), MockNode::tcp().unwrap());
        let home = Home::new()
            .chain(CHAIN, "allow_raw_bytes = true")
            .chain(OTHER, "")
            .node(&bad.address(), CHAIN, "")
            .node(&good.address(), OTHER, "")
            .init();
        damage(&home);
        let _signer = home.start();
        let (mut bad, mut good) = (bad.accept().unwrap(), good.accept().unwrap());
        for height in 1..=3 {
            // A booting node asks for the key once and exits without.
            let answer = bad.ask_pub_key(CHAIN).unwrap();
            match code {
                STATE_UNUSABLE => {
                    assert_eq!(answer.unwrap().pub_key_bytes, home.public_key(CHAIN).as_bytes(), "{name}")
                }
                _ => assert_eq!(refusal(answer), code, "{name}"),
            }
            assert_eq!(refusal(bad.ask_vote(CHAIN, precommit(height, 0, Some(1))).unwrap()), code, "{name}");
            assert_eq!(refusal(bad.ask_proposal(CHAIN, proposal(height, 0, 1)).unwrap()), code, "{name}");
            bad.ping().unwrap();
            assert_alive(&mut good, &home.public_key(OTHER), OTHER, height);
        }
    }
}

#[test]
fn a_state_file_that_is_replaced_at_work_stops_its_chain_until_a_restart() {
    let mut scene = Scene::new(Transport::Tcp);
    scene.alive(1);
    let state = scene.home.state_file(CHAIN);
    let copy = scene.home.path("copy");
    fs::copy(&state, &copy).unwrap();
    fs::rename(&copy, &state).unwrap();
    for vote in [precommit(2, 0, Some(1)), precommit(1, 0, Some(7)), prevote(3, 0, None)] {
        assert_eq!(scene.refused(vote), STATE_UNUSABLE);
        scene.session.ping().unwrap();
        scene.session.ask_pub_key(CHAIN).unwrap().unwrap();
    }
    scene.signer.sigkill();
    // What stands there is a copy, and is taken only by the command that says so.
    let mut refused = scene.home.start();
    assert_eq!(refused.exit_code(), Some(65));
    assert!(refused.log().contains("is a copy of a state file"), "{}", refused.log());
    let import =
        scene.home.command(&["state", "import", "--i-checked-the-height", state.to_str().unwrap()]).output().unwrap();
    assert!(import.status.success(), "{}", String::from_utf8_lossy(&import.stderr));
    let _restarted = scene.home.start();
    scene.session = scene.node.accept().unwrap();
    scene.alive(4);
}

#[test]
fn without_a_usable_chain_the_signer_exits_before_dialling() {
    let node = MockNode::tcp().unwrap();
    let home = Home::new().chain(CHAIN, "").node(&node.address(), CHAIN, "").init();
    fs::remove_file(home.state_file(CHAIN)).unwrap();
    let mut signer = home.start();
    assert_eq!(signer.exit_code(), Some(65));
    assert!(signer.log().contains("no chain can sign"), "{}", signer.log());
    assert!(node.accept_raw(A_WHILE).is_err(), "nobody dials");
    assert!(!home.state_file(CHAIN).exists(), "start never makes a state file");
}

#[test]
fn a_second_signer_on_the_same_state_exits_before_dialling() {
    let mut scene = Scene::new(Transport::Tcp);
    scene.alive(1);
    let mut second = scene.home.start();
    assert_eq!(second.exit_code(), Some(75), "{}", second.log());
    assert!(scene.node.accept_raw(A_WHILE).is_err(), "nobody else dials");
    scene.alive(2);
    scene.signer.sigkill();
    // The lock went with the process.
    let _third = scene.home.start();
    scene.session = scene.node.accept().unwrap();
    scene.alive(3);
}

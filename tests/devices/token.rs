//! A signer with its key on a token, and what a node is answered by it in good and in bad times.

use crate::support::{
    assert_extension_signed, assert_proposal_signed, assert_vote_signed,
    hsm::{Faults, Hsm, faulty_module},
    mock_node::{Answer, MockNode, Session, precommit, prevote, proposal, vote_at},
    signer::{Home, Signer},
};
use highwater_core::{consensus::PublicKey, privval::message::Vote};
use std::{
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

pub const CHAIN: &str = "test-chain";
pub const TOKEN: &str = "validator";
/// The node's answer to a request that the device did not serve.
pub const KEY_UNAVAILABLE: i32 = 104;
/// Within this a node has an answer, whatever its device does.
pub const LIMIT: Duration = Duration::from_millis(1500);
/// For what is only looked at after it has happened.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// Far below a device's deadline of 1.2 s, far above what a busy machine adds to an answer.
pub const UNAFFECTED: Duration = Duration::from_millis(600);

/// Answers of C_Sign after which a new session may help, and the vendor's own.
pub const TROUBLE: [u64; 18] = [
    0x02,
    0x05,
    0x06,
    0x30,
    0x31,
    0x32,
    0x50,
    0x60,
    0x82,
    0x90,
    0x91,
    0xb0,
    0xb1,
    0xb3,
    0xe0,
    0x101,
    0x190,
    0x8000_0001,
];
/// Clear answers: data, mechanism, key type and key that the device does not take, and a policy that forbids it.
pub const REJECTIONS: [u64; 7] = [0x20, 0x21, 0x63, 0x68, 0x70, 0x71, 0x200];

/// A signer to be, with one chain and its key on a token.
pub struct Scene {
    pub hsm: Hsm,
    pub node: MockNode,
    pub home: Home,
    pub key: PublicKey,
}

impl Scene {
    pub fn new(hsm: Hsm, module: &Path) -> Self {
        let key = hsm.token(TOKEN, 0);
        let provider = hsm.provider_with_file(module, TOKEN, &[(CHAIN, "consensus", &key)]);
        Self::with_provider(hsm, &provider, key)
    }

    pub fn with_provider(hsm: Hsm, provider: &str, key: PublicKey) -> Self {
        let node = MockNode::tcp().unwrap();
        let home = Home::new().chain_with_key(CHAIN, "", provider).node(&node.address(), CHAIN, "");
        let home = hsm.equip(home).init();
        Self { hsm, node, home, key }
    }

    pub fn softhsm() -> Option<Self> {
        let hsm = Hsm::softhsm()?;
        let module = hsm.module().to_owned();
        Some(Self::new(hsm, &module))
    }

    /// SoftHSM behind the module that fails on command, and its plan.
    pub fn faulty() -> Option<(Self, Faults)> {
        let scene = Self::new(Hsm::softhsm()?, &faulty_module());
        let faults = scene.hsm.faults();
        Some((scene, faults))
    }

    /// A signer whose device is up, and its link.
    pub fn start(&self) -> (Signer, Session) {
        let mut signer = self.home.start();
        signer.wait_for_log("device up");
        (signer, self.node.accept().unwrap())
    }
}

impl Scene {
    /// What `highwater check` prints.
    pub fn check(&self) -> String {
        let output = self.home.command(&["check"]).output().unwrap();
        String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap()
    }
}

pub fn wait_until(mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited {PATIENCE:?}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Asks, and shows how long the answer took.
pub fn ask(session: &mut Session, vote: Vote) -> (Answer<Vote>, Duration) {
    let begin = Instant::now();
    let answer = session.ask_vote(CHAIN, vote).expect("the link stays up");
    let took = begin.elapsed();
    assert!(took < LIMIT, "an answer after {took:?}");
    (answer, took)
}

/// Has a vote signed that must be.
pub fn sign(session: &mut Session, key: &PublicKey, vote: Vote) -> Duration {
    let (height, extension) = (vote.height, vote.extension.clone());
    let (answer, took) = ask(session, vote);
    let vote = answer.unwrap_or_else(|refusal| panic!("height {height}: {refusal:?}"));
    assert_vote_signed(key, CHAIN, &vote);
    if !vote.extension_signature.is_empty() {
        assert_extension_signed(key, CHAIN, &vote, &extension);
    }
    took
}

/// Has a vote refused for its key, and gives the reason.
pub fn refused(session: &mut Session, vote: Vote) -> (String, Duration) {
    let (answer, took) = ask(session, vote);
    let refusal = answer.expect_err("a refusal");
    assert_eq!(refusal.code, KEY_UNAVAILABLE, "{refusal:?}");
    (refusal.description, took)
}

/// Asks on until a vote is signed, each time for the next height. Gives that height.
pub fn sign_at_last(session: &mut Session, key: &PublicKey, first_height: i64) -> i64 {
    let deadline = Instant::now() + PATIENCE;
    for height in first_height.. {
        match ask(session, prevote(height, 0, Some(7))).0 {
            Ok(vote) => {
                assert_vote_signed(key, CHAIN, &vote);
                return height;
            }
            Err(refusal) => assert_eq!(refusal.code, KEY_UNAVAILABLE, "{refusal:?}"),
        }
        assert!(Instant::now() < deadline, "the device does not come back");
        thread::sleep(Duration::from_millis(10));
    }
    unreachable!("heights have no end")
}

/// All kinds of signatures, and the next height after a restart.
pub fn assert_signs(scene: &Scene) {
    let extended = |height| Vote { extension: b"of the application".to_vec(), ..precommit(height, 0, Some(7)) };
    for height in [1, 3] {
        let (signer, mut session) = scene.start();
        let key = session.ask_pub_key(CHAIN).unwrap().unwrap().pub_key.unwrap();
        assert!(format!("{key:?}").contains(&format!("{:?}", scene.key.as_bytes())), "{key:?}");
        let proposed = session.ask_proposal(CHAIN, proposal(height, 0, 7)).unwrap().unwrap();
        assert_proposal_signed(&scene.key, CHAIN, &proposed);
        sign(&mut session, &scene.key, prevote(height, 0, Some(7)));
        sign(&mut session, &scene.key, extended(height));
        // Asked again, at another time: the same signature for the vote, a new one for the extension.
        sign(&mut session, &scene.key, vote_at(1_700_000_009, extended(height)));
        let conflict = session.ask_vote(CHAIN, precommit(height, 0, Some(8))).unwrap().unwrap_err();
        assert_eq!(conflict.code, 100, "{conflict:?}");
        drop(signer);
        assert_eq!(scene.home.mark(CHAIN).0, height);
    }
}

/// Sets a flag when it goes, also when its test fails: threads that wait for it then end.
pub struct SetAtEnd<'a>(pub &'a AtomicBool);

impl Drop for SetAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

//! One chain, one node, one signer, connected, and the codes with which a request is refused.

use super::{
    assert_alive, assert_vote_signed,
    mock_node::{Answer, MockNode, Session},
    signer::{Home, Signer},
};
use highwater_core::privval::message::Vote;
use std::{fs, os::unix::fs::PermissionsExt as _, time::Duration};

pub const CHAIN: &str = "test-chain";
pub const OTHER: &str = "other-chain";

pub const DOUBLE_SIGN: i32 = 100;
pub const REGRESSION: i32 = 101;
pub const WRONG_CHAIN: i32 = 102;
pub const KEY_UNAVAILABLE: i32 = 104;
pub const MAX_HEIGHT: i32 = 105;
pub const STATE_UNUSABLE: i32 = 106;
pub const MALFORMED: i32 = 107;
pub const NOT_PERMITTED: i32 = 108;

/// Heights at which a test asks for what must be refused. Had a mark moved there, nothing below could be signed.
pub const FAR_AWAY: i64 = 1_000_000_000;
/// How long a test waits to see that something does not happen.
pub const A_WHILE: Duration = Duration::from_millis(300);

#[derive(Clone, Copy)]
pub enum Transport {
    Tcp,
    Unix,
}

/// One chain, one node, one signer, connected. The signer goes before its home does.
pub struct Scene {
    pub session: Session,
    pub node: MockNode,
    pub signer: Signer,
    pub home: Home,
}

impl Scene {
    pub fn new(transport: Transport) -> Self {
        Self::with(transport, CHAIN, "", "")
    }

    pub fn with(transport: Transport, chain: &str, of_chain: &str, of_node: &str) -> Self {
        let home = Home::new();
        let node = match transport {
            Transport::Tcp => MockNode::tcp(),
            Transport::Unix => MockNode::unix(&home.path("privval.sock")),
        };
        let node = node.unwrap();
        let home = home.chain(chain, of_chain).node(&node.address(), chain, of_node).init();
        let signer = home.start();
        let session = node.accept().unwrap();
        Self { session, node, signer, home }
    }

    /// Has a vote signed and checks the signature.
    pub fn sign(&mut self, vote: Vote) -> Vote {
        let signed = self.session.ask_vote(CHAIN, vote.clone()).unwrap();
        let signed = signed.unwrap_or_else(|refusal| panic!("{vote:?}: {refusal:?}"));
        assert_vote_signed(&self.home.public_key(CHAIN), CHAIN, &signed);
        // Everything that the node does not take from the answer comes back as it went.
        let own = Vote {
            signature: Vec::new(),
            extension_signature: Vec::new(),
            timestamp: vote.timestamp,
            ..signed.clone()
        };
        assert_eq!(own, Vote { extension: Vec::new(), ..vote });
        signed
    }

    pub fn refused(&mut self, vote: Vote) -> i32 {
        refusal(self.session.ask_vote(CHAIN, vote).unwrap())
    }

    pub fn alive(&mut self, height: i64) {
        assert_alive(&mut self.session, &self.home.public_key(CHAIN), CHAIN, height);
    }
}

pub fn refusal<T: std::fmt::Debug>(answer: Answer<T>) -> i32 {
    let refusal = answer.expect_err("this must be refused");
    assert!(!refusal.description.is_empty(), "a refusal says why");
    refusal.code
}

/// A home whose chain has `script` for its state hook.
pub fn hook_home(chain: &str, node: &MockNode, script: &str, fail_closed: bool) -> Home {
    let home = Home::new();
    let hook = home.path("hook.sh");
    fs::write(&hook, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o700)).unwrap();
    let extra = format!("state_hook = {{ cmd = [{hook:?}], timeout_secs = 20, fail_closed = {fail_closed} }}");
    home.chain(chain, &extra).node(&node.address(), chain, "").init()
}

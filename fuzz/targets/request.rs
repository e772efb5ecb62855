//! Any bytes are a request, a refusal or unanswerable; every refusal fits every node; what is to be signed reads back.
#![no_main]

use highwater_core::{consensus::{ChainId, Timestamp}, privval::{Canonical, ParseError, Request, response}};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    let chain = ChainId::new("test-chain").expect("a good chain id");
    let canonical = match Request::parse(body, &chain) {
        Ok(Request::Vote(vote)) => vote.canonical,
        Ok(Request::Proposal(proposal)) => proposal.canonical,
        Ok(_) | Err(ParseError::Unanswerable) => return,
        Err(ParseError::Refused(kind, refusal)) => return assert!(response::fits(&response::refused(kind, &refusal))),
    };
    let sign_bytes = canonical.sign_bytes(&chain);
    assert_eq!(Canonical::parse(sign_bytes.as_slice()), Some((canonical, chain.clone())));
    // The digest is that of the message without its time, and of nothing less.
    let later = Canonical { timestamp: Timestamp::ZERO, ..canonical };
    let higher = Canonical { height: canonical.height ^ 1, ..canonical };
    assert_eq!(later.digest(&chain), canonical.digest(&chain));
    assert_ne!(higher.digest(&chain), canonical.digest(&chain));
});

//! A live secret connection with a peer that does the handshake well or badly and then seals anything: the link comes
//! about for an honest peer alone, and delivers exactly the messages that the honest frames hold.
#![no_main]

#[path = "../support/hidden_file.rs"]
mod hidden_file;
#[path = "../support/peer.rs"]
mod peer;

use ed25519_dalek::SigningKey;
use hidden_file::HiddenFile;
use highwater::{keyring::IdentityKey, link::{self, Door, Link, LinkError}, process::panic};
use highwater_core::{consensus::{PeerId, PublicKey}, privval::frame::REQUEST_MAX_BYTES};
use libfuzzer_sys::fuzz_target;
use peer::{CHUNK_MAX_BYTES, Peer, frame};
use std::{
    io::{self, Write as _},
    net::{Shutdown, TcpListener, TcpStream},
    process,
    sync::{Arc, LazyLock},
    thread,
    time::Duration,
};
use subtle_encoding::base64;

const OUR_SEED: [u8; 32] = [7; 32];
const PEER_SEED: [u8; 32] = [9; 32];
/// Never needed: whatever a peer leaves undone, it closes its side.
const TIMEOUT: Duration = Duration::from_secs(20);

static LISTENER: LazyLock<TcpListener> = LazyLock::new(|| TcpListener::bind("127.0.0.1:0").expect("loopback"));
static IDENTITY: LazyLock<Arc<IdentityKey>> = LazyLock::new(|| {
    let file = HiddenFile::new();
    let loaded = IdentityKey::load(&file.holding(&base64::encode(OUR_SEED)));
    Arc::new(loaded.unwrap_or_else(|error| panic!("{error}")))
});

/// What the signer made of the connection.
type Outcome = Result<Vec<Vec<u8>>, LinkError>;

fn serve(pinned: Option<PeerId>) -> Outcome {
    let port = LISTENER.local_addr().expect("it is bound").port();
    let door = Box::new(link::tcp(&[([127, 0, 0, 1], port).into()], Arc::clone(&IDENTITY), pinned, TIMEOUT)?);
    let mut link: Box<dyn Link> = door.enter()?;
    assert_eq!(link.peer(), Some(peer_id(&PEER_SEED)));
    let (mut bodies, mut body) = (Vec::new(), Vec::new());
    loop {
        match link.receive(&mut body) {
            Ok(()) => bodies.push(body.clone()),
            Err(LinkError::Timeout) => panic!("the peer closed its side, and the link waits"),
            Err(_) => return Ok(bodies),
        }
    }
}

fn peer_id(seed: &[u8; 32]) -> PeerId {
    PeerId(PublicKey::from(SigningKey::from_bytes(seed).verifying_key()).address())
}

/// Every message in `stream` up to the first that is cut short or too long, by another reading of the rule.
fn messages(stream: &[u8]) -> Vec<Vec<u8>> {
    let mut rest = stream;
    let mut bodies = Vec::new();
    while let Ok(length) = prost::encoding::decode_varint(&mut rest) {
        let Some(length) = usize::try_from(length).ok().filter(|length| *length <= REQUEST_MAX_BYTES) else { break };
        let Some((body, after)) = rest.split_at_checked(length) else { break };
        bodies.push(body.to_vec());
        rest = after;
    }
    bodies
}

/// Sends frames as `script` tells: each a byte of oddities, two of length, and the chunk. Returns what an honest peer
/// would have said with those before the first dishonest one.
fn speak(peer: &mut Peer<'_>, mut script: &[u8]) -> io::Result<Vec<u8>> {
    let (mut said, mut honest) = (Vec::new(), true);
    while let Some(([oddities, low, high], rest)) = script.split_first_chunk() {
        let length = usize::from(u16::from_le_bytes([*low, *high])) % (CHUNK_MAX_BYTES + 1);
        let (chunk, rest) = rest.split_at(length.min(rest.len()));
        script = rest;
        let announced = match oddities & 3 {
            1 => 0,
            2 => u32::from(*low) << (oddities >> 3),
            _ => u32::try_from(chunk.len()).expect("a chunk is short"),
        };
        let broken = oddities & 4 != 0;
        let frame = frame(announced, chunk);
        let text = usize::try_from(announced).ok().and_then(|length| frame[4..].get(..length));
        match text.filter(|text| !text.is_empty() && !broken) {
            Some(text) if honest => said.extend_from_slice(text),
            _ => honest = false,
        }
        peer.send(&frame, broken)?;
    }
    Ok(said)
}

/// Plays the peer. Returns what the signer is to make of it.
fn play(mut stream: &TcpStream, scene: u8, script: &[u8]) -> io::Result<Option<Vec<Vec<u8>>>> {
    if scene == 0 {
        stream.write_all(script)?;
        return Ok(None);
    }
    let mut peer = Peer::greet(stream)?;
    match (scene, script.split_first_chunk::<4>()) {
        (1, _) => stream.write_all(script)?,
        (2, Some((length, chunk))) => {
            let chunk = &chunk[..chunk.len().min(CHUNK_MAX_BYTES)];
            peer.send(&frame(u32::from_le_bytes(*length), chunk), false)?;
        }
        (3, _) => peer.authenticate(&SigningKey::from_bytes(&OUR_SEED))?,
        (4 | 5, _) => {
            peer.authenticate(&SigningKey::from_bytes(&PEER_SEED))?;
            let said = speak(&mut peer, script)?;
            return Ok((scene == 5).then(|| messages(&said)));
        }
        _ => {}
    }
    Ok(None)
}

// The production hook lets contained panics pass; that of the fuzzer would end the run at each.
fuzz_target!(init: panic::end_process_with(str::to_owned, process::abort), |data: &[u8]| {
    let Some((scene, script)) = data.split_first() else { return };
    let scene = scene % 6;
    LazyLock::force(&IDENTITY);
    LazyLock::force(&LISTENER);
    thread::scope(|scope| {
        // Scene 4 is a peer that is honest, and not the pinned one.
        let pinned = (scene == 4).then_some(PeerId([1; 20]));
        let signer = scope.spawn(move || serve(pinned));
        let (stream, _) = LISTENER.accept().expect("the signer dials");
        // A signer that has left is no longer written to.
        let expected = play(&stream, scene, script);
        let _ = stream.shutdown(Shutdown::Write);
        let outcome = signer.join().expect("a panic would have ended the process");
        match (expected, outcome) {
            (Ok(Some(expected)), Ok(bodies)) => assert_eq!(bodies, expected),
            (Ok(Some(_)), Err(error)) => panic!("an honest peer was turned away: {error}"),
            (Ok(None), Ok(_)) => panic!("a dishonest peer got a link"),
            (Ok(None), Err(error)) if scene == 3 => assert!(matches!(error, LinkError::Reflected), "{error}"),
            (Ok(None), Err(error)) if scene == 4 => assert!(matches!(error, LinkError::WrongPeer { .. }), "{error}"),
            (Ok(None), Err(error)) => assert!(!matches!(error, LinkError::Timeout), "{error}"),
            // The signer hung up in the middle of the frames.
            (Err(_), outcome) => assert!(scene >= 4 || outcome.is_err()),
        }
    });
});

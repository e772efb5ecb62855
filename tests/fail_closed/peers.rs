//! Hostile and broken peers against the running signer. Each costs its own connection and nothing else: the process
//! lives, the peer is dialled again, and meanwhile another chain keeps getting signatures.

use crate::support::{
    assert_alive,
    mock_node::{Connection, MockNode, Session, precommit},
    puppet::{GREETING_BYTES, Puppet, SEALED_BYTES, authentication, greeting},
    signer::{Home, Signer},
};
use highwater_core::{
    consensus::PublicKey,
    privval::message::{Message, PingRequest, PubKeyRequest, SignVoteRequest, Sum},
};
use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

const HONEST: &str = "honest-chain";
const HOSTILE: &str = "hostile-chain";

/// How soon a connection ends that must end: at once, and this on a loaded machine.
const SOON: Duration = Duration::from_secs(8);
/// The `timeout` of a node, which is also its least.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A signer with an honest node, which keeps asking, and the nodes of other chains.
struct Stage {
    honest: Honest,
    signer: Signer,
    home: Home,
}

impl Stage {
    /// `nodes` are addresses with their chains.
    fn new(home: Home, nodes: &[(String, &str)]) -> Self {
        let honest = MockNode::tcp().unwrap();
        let mut home = home.chain(HONEST, "").node(&honest.address(), HONEST, "");
        let mut chains = Vec::new();
        for (address, chain) in nodes {
            if !chains.contains(chain) {
                chains.push(*chain);
                home = home.chain(chain, "");
            }
            home = home.node(address, chain, "");
        }
        let home = home.init();
        let signer = home.start();
        let session = honest.accept().unwrap();
        Self { honest: Honest::start(session, home.public_key(HONEST)), signer, home }
    }

    fn key(&self, chain: &str) -> PublicKey {
        self.home.public_key(chain)
    }

    /// Checks that nobody but the hostile peer noticed anything.
    fn end(mut self) {
        self.signer.assert_running();
        self.honest.end();
    }
}

/// A node that has height after height signed on one connection.
struct Honest {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<(i64, Duration)>,
}

impl Honest {
    fn start(mut session: Session, key: PublicKey) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let (mut height, mut longest) = (0, Duration::ZERO);
            while !stopped.load(Ordering::Relaxed) {
                height += 1;
                let begin = Instant::now();
                assert_alive(&mut session, &key, HONEST, height);
                longest = longest.max(begin.elapsed());
                thread::sleep(Duration::from_millis(20));
            }
            (height, longest)
        });
        Self { stop, thread }
    }

    fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        let (heights, longest) = self.thread.join().expect("the honest node got all its signatures");
        assert!(heights > 0);
        // A node waits five seconds for an answer.
        assert!(longest < Duration::from_secs(5), "{longest:?}");
    }
}

fn one_hostile_node(transport: fn(&Home) -> MockNode) -> (Stage, MockNode) {
    let home = Home::new();
    let node = transport(&home);
    let address = node.address();
    (Stage::new(home, &[(address, HOSTILE)]), node)
}

fn over_tcp(_: &Home) -> MockNode {
    MockNode::tcp().unwrap()
}

fn over_unix(home: &Home) -> MockNode {
    MockNode::unix(&home.path("hostile.sock")).unwrap()
}

// Before the handshake is done.

type Attack = (&'static str, fn(&mut Connection) -> io::Result<()>);

fn sealed(connection: &mut Connection, length: u32, chunk: &[u8]) -> io::Result<()> {
    let mut puppet = Puppet::greet(connection)?;
    connection.write_plain(&puppet.seal(length, chunk))
}

/// Each ends the connection.
const HANDSHAKES: &[Attack] = &[
    ("garbage", |connection| connection.write_plain(&[0xff; 4096])),
    ("zeros", |connection| connection.write_plain(&[0; 4096])),
    ("http", |connection| connection.write_plain("GET / HTTP/1.1\r\nHost: example.com\r\n\r\n".repeat(9).as_bytes())),
    ("an empty greeting", |connection| connection.write_plain(&[0])),
    ("a greeting of three bytes", |connection| connection.write_plain(&[0x03, 0x0a, 0x20, 0x01])),
    ("a greeting that is too short", |connection| {
        connection.write_plain(&[&[0x21, 0x0a, 0x1f][..], &[9; 31]].concat())
    }),
    ("a greeting that is too long", |connection| connection.write_plain(&[&[0x23, 0x0a, 0x21][..], &[9; 33]].concat())),
    ("another field", |connection| connection.write_plain(&[&[0x22, 0x12, 0x20][..], &[9; 32]].concat())),
    ("a wrong inner length", |connection| connection.write_plain(&[&[0x22, 0x0a, 0x1f][..], &[9; 32]].concat())),
    ("the key of zeros", |connection| connection.write_plain(&greeting([0; 32]))),
    ("the key 1", |connection| {
        let mut key = [0; 32];
        key[0] = 1;
        connection.write_plain(&greeting(key))
    }),
    ("the key p - 1", |connection| {
        let mut key = [0xff; 32];
        (key[0], key[31]) = (0xec, 0x7f);
        connection.write_plain(&greeting(key))
    }),
    // Not one of the known encodings, but the same point.
    ("the key of zeros, with a high bit", |connection| {
        let mut key = [0; 32];
        key[31] = 0x80;
        connection.write_plain(&greeting(key))
    }),
    ("an unsealed frame", |connection| {
        connection.write_plain(&greeting([9; 32]))?;
        connection.write_plain(&[0x11; SEALED_BYTES])
    }),
    ("our own bytes", |connection| {
        // The first byte is always the same, and without it nobody speaks.
        connection.write_plain(&[0x22])?;
        let greeting = connection.read_plain(GREETING_BYTES)?;
        connection.write_plain(&greeting[1..])?;
        let authentication = connection.read_plain(SEALED_BYTES)?;
        connection.write_plain(&authentication)
    }),
    ("a wrong signature", |connection| sealed(connection, 103, &authentication())),
    // These two make tendermint-p2p panic.
    ("one byte after the authentication", |connection| {
        sealed(connection, 104, &[&authentication()[..], &[0]].concat())
    }),
    ("a whole chunk after the authentication", |connection| {
        sealed(connection, 1024, &[&authentication()[..], &[0; 921]].concat())
    }),
    ("an empty chunk", |connection| sealed(connection, 0, b"")),
    ("a chunk of 1025 bytes", |connection| sealed(connection, 1025, b"")),
    ("a chunk of 4 GiB", |connection| sealed(connection, u32::MAX, b"")),
    ("an authentication that is no message", |connection| sealed(connection, 103, &[0xff; 103])),
    ("an authentication without a key", |connection| {
        sealed(connection, 103, &[&[0x66, 0x12, 0x64][..], &[7; 100]].concat())
    }),
    ("a frame whose seal is broken", |connection| {
        let mut puppet = Puppet::greet(connection)?;
        let mut frame = puppet.seal(103, &authentication());
        frame[SEALED_BYTES - 1] ^= 1;
        connection.write_plain(&frame)
    }),
    ("the second frame before the first", |connection| {
        let mut puppet = Puppet::greet(connection)?;
        puppet.seal(103, &authentication());
        connection.write_plain(&puppet.seal(103, &authentication()))
    }),
];

#[test]
fn no_handshake_costs_more_than_its_connection() {
    let (stage, node) = one_hostile_node(over_tcp);
    for (height, (name, attack)) in (1..).zip(HANDSHAKES) {
        let mut connection = node.accept_raw(SOON).unwrap();
        attack(&mut connection).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(connection.ends_within(SOON).unwrap(), "{name}: the connection goes on");
        drop(connection);
        // The next connection is as good as ever.
        let mut session = node.accept().unwrap();
        assert_alive(&mut session, &stage.key(HOSTILE), HOSTILE, height);
        session.close();
    }
    // Whoever leaves within a handshake is dialled again too.
    for greeted in [1, 2, 3, 10, 34, 35] {
        let mut connection = node.accept_raw(SOON).unwrap();
        connection.write_plain(&greeting([9; 32])[..greeted]).unwrap();
    }
    assert_alive(&mut node.accept().unwrap(), &stage.key(HOSTILE), HOSTILE, 1000);
    let log = stage.signer.log();
    assert!(log.contains("the peer sent what no node sends"), "the panics were contained");
    assert!(!log.contains("a broken invariant"));
    stage.end();
}

#[test]
fn a_signer_that_is_led_to_itself_notices() {
    let nodes = [MockNode::tcp().unwrap(), MockNode::tcp().unwrap()];
    let addresses = nodes.each_ref().map(|node| (node.address(), HOSTILE));
    let mut stage = Stage::new(Home::new(), &addresses);
    let [mut one, mut two] = nodes.each_ref().map(|node| node.accept_raw(SOON).unwrap());
    // Each waits for the other to speak first; the first byte is always the same.
    one.write_plain(&[0x22]).unwrap();
    two.write_plain(&one.read_plain(GREETING_BYTES).unwrap()).unwrap();
    one.write_plain(&two.read_plain(GREETING_BYTES).unwrap()[1..]).unwrap();
    two.write_plain(&one.read_plain(SEALED_BYTES).unwrap()).unwrap();
    one.write_plain(&two.read_plain(SEALED_BYTES).unwrap()).unwrap();
    assert!(one.ends_within(SOON).unwrap() && two.ends_within(SOON).unwrap());
    stage.signer.wait_for_log("leads back to this signer");
    assert_alive(&mut nodes[0].accept().unwrap(), &stage.key(HOSTILE), HOSTILE, 1);
    stage.end();
}

#[test]
fn only_the_pinned_peer_is_served() {
    let (wrong, right) = (MockNode::tcp().unwrap(), MockNode::tcp().unwrap());
    let other_id = "0123456789abcdef0123456789abcdef01234567";
    let wrong_address = format!("tcp://{other_id}@{}", wrong.socket());
    let nodes = [(wrong_address, HOSTILE), (right.pinned_address(), HOSTILE)];
    let mut stage = Stage::new(Home::new(), &nodes);
    for _ in 0..3 {
        let mut session = wrong.accept().unwrap();
        // The signer may be gone before the request is.
        let _ = session.send(Sum::PingRequest(PingRequest {}));
        assert!(session.receive().is_err(), "the wrong peer gets no answer");
    }
    stage.signer.wait_for_log(&format!("the node has peer id {}", wrong.peer_id()));
    assert_alive(&mut right.accept().unwrap(), &stage.key(HOSTILE), HOSTILE, 1);
    stage.end();
}

// After the handshake.

/// Bytes after which nobody can tell where the next message begins, or which answer would fit.
fn unanswerable() -> Vec<(&'static str, Vec<u8>)> {
    let promise = |length: u64| {
        let mut bytes = Vec::new();
        prost::encoding::encode_varint(length, &mut bytes);
        bytes
    };
    vec![
        ("a promise of 4 MiB and a byte", promise(4 * 1024 * 1024 + 1)),
        ("a promise of 5 MiB", promise(5 * 1024 * 1024)),
        ("a promise of 2^64 - 1 bytes", promise(u64::MAX)),
        ("an endless length", vec![0x80; 11]),
        ("a length of more than 64 bits", [&[0xff; 9][..], &[0x02]].concat()),
        ("an empty message", vec![0]),
        ("a message of an unknown kind", vec![2, 0x5a, 0]),
        ("a message of a far unknown kind", vec![4, 0xfa, 0xff, 0x03, 0]),
        ("a public key as a question", vec![2, 0x12, 0]),
        ("a signed vote as a question", vec![2, 0x22, 0]),
        ("a pong as a question", vec![2, 0x42, 0]),
        ("a message that is no message", vec![3, 0xff, 0xff, 0xff]),
        ("field 0", vec![2, 0x02, 0]),
        ("an end of an unknown group", vec![1, 0x5c]),
    ]
}

fn what_fits_no_answer_ends_the_connection(transport: fn(&Home) -> MockNode) {
    let (stage, node) = one_hostile_node(transport);
    for (height, (name, bytes)) in (1..).zip(unanswerable()) {
        let mut session = node.accept().unwrap();
        assert_alive(&mut session, &stage.key(HOSTILE), HOSTILE, height);
        session.send_raw(&bytes).unwrap();
        assert!(session.receive().is_err(), "{name}: no answer fits");
        assert!(session.ends_within(SOON).unwrap(), "{name}: the connection goes on");
    }
    assert_alive(&mut node.accept().unwrap(), &stage.key(HOSTILE), HOSTILE, 1000);
    stage.end();
}

#[test]
fn what_fits_no_answer_ends_the_connection_over_tcp() {
    what_fits_no_answer_ends_the_connection(over_tcp);
}

#[test]
fn what_fits_no_answer_ends_the_connection_over_unix() {
    what_fits_no_answer_ends_the_connection(over_unix);
}

#[test]
fn bytes_past_the_encryption_end_the_connection() {
    let (stage, node) = one_hostile_node(over_tcp);
    for (height, bytes) in (1..).zip([[0; SEALED_BYTES], [0x3a; SEALED_BYTES]]) {
        let mut session = node.accept().unwrap();
        assert_alive(&mut session, &stage.key(HOSTILE), HOSTILE, height);
        session.write_plain(&bytes).unwrap();
        assert!(session.ends_within(SOON).unwrap());
    }
    assert_alive(&mut node.accept().unwrap(), &stage.key(HOSTILE), HOSTILE, 1000);
    stage.end();
}

/// Which response, by its field number, and its code if it is an error.
fn kind_and_code(message: Message) -> (u32, Option<i32>) {
    let code = |error: Option<highwater_core::privval::message::RemoteSignerError>| error.map(|error| error.code);
    match message.sum.unwrap() {
        Sum::PubKeyResponse(response) => (2, code(response.error)),
        Sum::SignedVoteResponse(response) => (4, code(response.error)),
        Sum::SignedProposalResponse(response) => (6, code(response.error)),
        Sum::PingResponse(_) => (8, None),
        Sum::SignBytesResponse(response) => (10, code(response.error)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_does_not_decode_is_answered_by_its_first_field() {
    const MALFORMED: Option<i32> = Some(107);
    /// A request that ends early, one of another wire type, and one whose inside is garbage.
    fn broken(field: u8) -> [Vec<u8>; 3] {
        let (delimited, number) = (field << 3 | 2, field << 3);
        [vec![delimited, 9, 0x0a], vec![number, 1], vec![delimited, 2, 0xff, 0xff]]
    }
    for transport in [over_tcp, over_unix] {
        let (stage, node) = one_hostile_node(transport);
        let mut session = node.accept().unwrap();
        let answers =
            [(1, (2, MALFORMED)), (3, (4, MALFORMED)), (5, (6, MALFORMED)), (7, (8, None)), (9, (10, MALFORMED))];
        for (field, answer) in answers {
            for (index, body) in broken(field).into_iter().enumerate() {
                let mut bytes = vec![u8::try_from(body.len()).unwrap()];
                bytes.extend(body);
                session.send_raw(&bytes).unwrap();
                assert_eq!(kind_and_code(session.receive().unwrap()), answer, "{bytes:02x?}");
                let height = i64::from(field) * 10 + i64::try_from(index).unwrap();
                assert_alive(&mut session, &stage.key(HOSTILE), HOSTILE, height);
            }
        }
        stage.end();
    }
}

#[test]
fn messages_need_not_keep_to_frames() {
    for transport in [over_tcp, over_unix] {
        let (stage, node) = one_hostile_node(transport);
        let mut session = node.accept().unwrap();
        for (height, piece) in (1..).zip([1, 7, 100, 1024, usize::MAX]) {
            let mut bytes = Vec::new();
            let vote = SignVoteRequest {
                vote: Some(precommit(height, 0, Some(1))),
                chain_id: HOSTILE.into(),
                skip_extension_signing: false,
            };
            let messages = [
                Sum::PingRequest(PingRequest {}),
                Sum::SignVoteRequest(vote),
                Sum::PubKeyRequest(PubKeyRequest { chain_id: HOSTILE.into() }),
                Sum::PingRequest(PingRequest {}),
            ];
            for message in messages {
                Message::from(message).encode_frame(&mut bytes);
            }
            assert!(bytes.len() < 1024, "all of it fits one frame");
            for piece in bytes.chunks(piece) {
                session.send_raw(piece).unwrap();
            }
            for kind in [8, 4, 2, 8] {
                assert_eq!(kind_and_code(session.receive().unwrap()), (kind, None));
            }
        }
        assert_alive(&mut session, &stage.key(HOSTILE), HOSTILE, 1000);
        stage.end();
    }
}

// Time.

/// Counts the connections that come within `period` if each is met with `welcome` and closed.
fn dials(node: &MockNode, period: Duration, mut welcome: impl FnMut(Connection)) -> usize {
    let end = Instant::now() + period;
    let mut dials = 0;
    while let Ok(connection) = node.accept_raw(end.saturating_duration_since(Instant::now())) {
        welcome(connection);
        dials += 1;
        if Instant::now() >= end {
            break;
        }
    }
    dials
}

#[test]
fn a_node_that_hangs_up_is_dialled_neither_at_once_nor_late() {
    let (stage, node) = one_hostile_node(over_tcp);
    // Waits of 25 to 50 ms, then twice that, up to 500 to 1000 ms: at most 9 dials in 3 s, and 6 if each wait is longest.
    // A loaded machine may take some.
    let hung_up = dials(&node, Duration::from_secs(3), drop);
    assert!((3..=10).contains(&hung_up), "{hung_up} dials");

    // A handshake alone does not begin the waits anew: half a second to a second each.
    let shaken = dials(&node, Duration::from_secs(2), |connection| drop(connection.into_session()));
    assert!((1..=4).contains(&shaken), "{shaken} dials");
    assert_alive(&mut node.accept().unwrap(), &stage.key(HOSTILE), HOSTILE, 1);
    stage.end();
}

/// Checks that a connection ended because of its deadline.
fn assert_timed_out(name: &str, began: Instant) {
    let took = began.elapsed();
    assert!(took >= TIMEOUT - Duration::from_millis(200), "{name}: ended early, after {took:?}");
    assert!(took < TIMEOUT + SOON, "{name}: ended late, after {took:?}");
}

#[test]
fn a_node_that_falls_silent_is_left_and_one_that_has_not_spoken_is_not() {
    const CHAINS: [&str; 6] = ["half-tcp", "half-unix", "handshake", "deaf", "parked-tcp", "parked-unix"];
    let home = Home::new();
    let nodes = CHAINS.map(|chain| match chain {
        "half-unix" | "deaf" | "parked-unix" => MockNode::unix(&home.path(&format!("{chain}.sock"))).unwrap(),
        _ => MockNode::tcp().unwrap(),
    });
    let addresses: Vec<_> = nodes.iter().zip(CHAINS).map(|(node, chain)| (node.address(), chain)).collect();
    let stage = Stage::new(home, &addresses);
    thread::scope(|scope| {
        for (node, chain) in nodes.iter().zip(CHAINS) {
            let key = stage.key(chain);
            scope.spawn(move || {
                match chain {
                    "half-tcp" | "half-unix" => half_a_message(node, &key, chain),
                    "handshake" => half_a_handshake(node),
                    "deaf" => no_ear_for_answers(node, &key, chain),
                    _ => parked(node, &key, chain),
                }
                let mut session = node.accept().unwrap();
                assert_alive(&mut session, &key, chain, 100);
            });
        }
    });
    stage.end();
}

fn half_a_message(node: &MockNode, key: &PublicKey, chain: &str) {
    let mut session = node.accept().unwrap();
    assert_alive(&mut session, key, chain, 1);
    let began = Instant::now();
    session.send_raw(&[100, 0x1a, 98, 0x0a]).unwrap();
    assert!(session.ends_within(TIMEOUT + SOON).unwrap(), "{chain}");
    assert_timed_out(chain, began);
}

fn half_a_handshake(node: &MockNode) {
    let mut connection = node.accept_raw(SOON).unwrap();
    let began = Instant::now();
    connection.write_plain(&greeting([9; 32])[..20]).unwrap();
    assert!(connection.ends_within(TIMEOUT + SOON).unwrap());
    assert_timed_out("half a handshake", began);
}

/// Asks without reading: once the socket is full of answers the signer cannot write on.
fn no_ear_for_answers(node: &MockNode, key: &PublicKey, chain: &str) {
    let mut session = node.accept().unwrap();
    assert_alive(&mut session, key, chain, 1);
    let began = Instant::now();
    while session.send(Sum::PingRequest(PingRequest {})).is_ok() {
        assert!(began.elapsed() < TIMEOUT + SOON, "the signer goes on with a node that does not listen");
    }
    assert_timed_out(chain, began);
}

/// A node accepts one signer and leaves another in its backlog, for as long as the first one lives.
fn parked(node: &MockNode, key: &PublicKey, chain: &str) {
    let first = node.accept_raw(SOON).unwrap();
    assert!(node.accept_raw(TIMEOUT + Duration::from_secs(2)).is_err(), "{chain}: a parked signer does not dial again");
    let mut session = first.into_session().unwrap();
    assert_alive(&mut session, key, chain, 1);
    session.close();
}

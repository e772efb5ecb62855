//! Fifty nodes that misbehave at the same time, each on twenty connections, around one healthy node that misses
//! nothing. Half of them are nodes of the healthy chain itself.

use crate::support::{
    assert_vote_signed, assurance,
    mock_node::{Connection, MockNode, Session, precommit},
    puppet::{GREETING_BYTES, Puppet, SEALED_BYTES, authentication, greeting},
    signer::{Home, Signer},
};
use highwater_core::{consensus::PublicKey, privval::frame::REQUEST_MAX_BYTES};
use std::{
    fs, io,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

const HONEST: &str = "honest-chain";
const HOSTILE: &str = "hostile-chain";
const NODES: usize = 50;
const CONNECTIONS: usize = 20;

/// How long a hostile node holds a connection on which nothing happens.
const STALL: Duration = Duration::from_millis(300);
/// A connection ends, or a signer dials again, within this, however loaded the machine is.
const SOON: Duration = Duration::from_secs(20);
/// Memory that fifty announced messages of 4 MiB must not approach.
const MEMORY_MAX_KIB: u64 = 64 * 1024;

/// A node's action on a connection. The connection is dropped afterwards.
type Attack = (&'static str, fn(Connection) -> io::Result<()>);

const ATTACKS: [Attack; 10] = [
    ("silent connections", |_connection| stall()),
    ("half greetings", |mut connection| {
        connection.write_plain(&greeting([9; 32])[..20])?;
        stall()
    }),
    ("greetings without a handshake", |mut connection| {
        connection.write_plain(&greeting([9; 32]))?;
        connection.read_plain(GREETING_BYTES)?;
        stall()
    }),
    ("unsealed frames", |mut connection| {
        connection.write_plain(&greeting([9; 32]))?;
        connection.write_plain(&[0x11; SEALED_BYTES])?;
        ended(connection.ends_within(SOON)?)
    }),
    // This one makes tendermint-p2p panic.
    ("authentications with a byte too many", |mut connection| {
        let mut puppet = Puppet::greet(&mut connection)?;
        connection.write_plain(&puppet.seal(104, &[&authentication()[..], &[0]].concat()))?;
        ended(connection.ends_within(SOON)?)
    }),
    ("promises of 4 MiB", |connection| {
        let mut session = connection.into_session()?;
        let mut bytes = Vec::new();
        prost::encoding::encode_varint(REQUEST_MAX_BYTES as u64, &mut bytes);
        bytes.extend([0x1a; 16 * 1024]);
        session.send_raw(&bytes)?;
        stall()
    }),
    ("promises of more", |connection| {
        let mut bytes = Vec::new();
        prost::encoding::encode_varint(REQUEST_MAX_BYTES as u64 + 1, &mut bytes);
        refused(connection.into_session()?, &bytes)
    }),
    ("messages that drip", |connection| {
        let mut session = connection.into_session()?;
        for byte in [0x20].into_iter().chain([0x1a; 30]) {
            session.send_raw(&[byte])?;
            thread::sleep(STALL / 30);
        }
        Ok(())
    }),
    ("garbage after the handshake", |connection| refused(connection.into_session()?, &garbage())),
    ("nodes that leave after the handshake", |connection| connection.into_session().map(Session::close)),
];

#[allow(clippy::unnecessary_wraps, reason = "the end of many attacks")]
fn stall() -> io::Result<()> {
    thread::sleep(STALL);
    Ok(())
}

fn ended(ended: bool) -> io::Result<()> {
    assert!(ended, "the connection goes on");
    Ok(())
}

/// Sends what no message begins with; the signer ends the connection.
fn refused(mut session: Session, bytes: &[u8]) -> io::Result<()> {
    session.send_raw(bytes)?;
    ended(session.ends_within(SOON)?)
}

/// The length of a short message, and bytes that are none.
fn garbage() -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let next = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        // No field of a known message has this wire type, so the first byte decides.
        state.to_le_bytes()[0] | 7
    };
    [0x40].into_iter().chain((0..64).map(next)).collect()
}

/// Plays `CONNECTIONS` attacks, in the same order as every other node, then asks whether the signer still listens.
fn misbehave(node: &MockNode, played: &[AtomicUsize; ATTACKS.len()]) {
    for turn in 0..CONNECTIONS {
        let index = turn % ATTACKS.len();
        let (name, attack) = ATTACKS[index];
        let connection = node.accept_raw(SOON).unwrap_or_else(|error| panic!("{name}: not dialled again: {error}"));
        attack(connection).unwrap_or_else(|error| panic!("{name}: {error}"));
        played[index].fetch_add(1, Ordering::Relaxed);
    }
    node.accept().unwrap().ping().unwrap();
}

/// A healthy node that measures how long its votes take.
struct Healthy {
    session: Session,
    key: PublicKey,
    height: i64,
}

impl Healthy {
    fn vote(&mut self) -> Duration {
        self.height += 1;
        let begin = Instant::now();
        let vote = self.session.ask_vote(HONEST, precommit(self.height, 0, Some(7))).unwrap();
        let took = begin.elapsed();
        assert_vote_signed(&self.key, HONEST, &vote.expect("a healthy node gets its signature"));
        thread::sleep(Duration::from_millis(5));
        took
    }
}

/// Median and 99th percentile.
fn percentiles(mut times: Vec<Duration>) -> (Duration, Duration) {
    times.sort_unstable();
    (times[times.len() / 2], times[times.len() * 99 / 100])
}

/// A value of the signer's `/proc/PID/status`, in KiB.
fn memory(signer: &Signer, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", signer.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    line.trim_matches(|c: char| !c.is_ascii_digit()).parse().unwrap()
}

#[test]
fn fifty_hostile_nodes_cost_a_healthy_one_nothing() {
    const BEFORE: usize = 400;
    let healthy = MockNode::tcp().unwrap();
    let nodes: Vec<_> = (0..NODES).map(|_| MockNode::tcp().unwrap()).collect();
    let mut home = Home::new().chain(HONEST, "").chain(HOSTILE, "").node(&healthy.address(), HONEST, "");
    for (node, chain) in nodes.iter().zip([HONEST, HOSTILE].iter().cycle()) {
        home = home.node(&node.address(), chain, "");
    }
    let home = home.init();
    let mut signer = home.start();
    let mut healthy = Healthy { session: healthy.accept().unwrap(), key: home.public_key(HONEST), height: 0 };

    // The crowd is parked in its backlogs until it begins to accept.
    let before: Vec<_> = (0..BEFORE).map(|_| healthy.vote()).collect();
    let anonymous_before = memory(&signer, "RssAnon:");
    let played: [AtomicUsize; ATTACKS.len()] = Default::default();
    let (mut during, mut anonymous_peak) = (Vec::new(), 0);
    thread::scope(|scope| {
        let played = &played;
        let misbehave = |node| scope.spawn(move || misbehave(node, played));
        let crowd: Vec<_> = nodes.iter().map(misbehave).collect();
        while crowd.iter().any(|node| !node.is_finished()) {
            during.push(healthy.vote());
            anonymous_peak = anonymous_peak.max(memory(&signer, "RssAnon:"));
        }
    });
    signer.assert_running();

    let peak = memory(&signer, "VmHWM:");
    assert!(peak < MEMORY_MAX_KIB, "the signer took {peak} KiB");
    let mut connections = 0;
    for ((name, _), played) in ATTACKS.iter().zip(&played) {
        let played = played.load(Ordering::Relaxed);
        assert_eq!(played, NODES * CONNECTIONS / ATTACKS.len(), "{name}");
        connections += played;
        assurance::report("fed garbage", name, played as u64);
    }
    assert_eq!(connections, NODES * CONNECTIONS);
    let votes = during.len() as u64;
    let ((median_before, slow_before), (median, slow)) = (percentiles(before), percentiles(during));
    let ratio = |after: Duration, before: Duration| after.as_secs_f64() / before.as_secs_f64();
    eprintln!(
        "healthy votes: median {median_before:?} -> {median:?} (x{:.2}), p99 {slow_before:?} -> {slow:?} (x{:.2}); \
         RssAnon {anonymous_before} -> at most {anonymous_peak} KiB, VmHWM {peak} KiB",
        ratio(median, median_before),
        ratio(slow, slow_before),
    );
    assurance::report("fed garbage", "votes of a healthy node answered meanwhile", votes);
}

//! Shows the main job: a throw-away home, a software key, and the real signer over loopback TCP with SecretConnection.
//! A mock validator node in the same process sends the requests. Run it with `make demo`.

#![allow(clippy::print_stdout)]

#[path = "../tests/support/mock_node.rs"]
mod mock_node;

use highwater::{
    config::{Config, KeyRole},
    daemon::{self, chains::Chains, nodes::Nodes},
    inspect,
    keyring::{IdentityKey, Keyring, softsign},
    process::{hooks::Hooks, resolver::Resolver},
    state::{self, Place, Theirs},
};
use highwater_core::{
    consensus::{ChainId, KeyType, PublicKey},
    privval::message::{Proposal, RemoteSignerError, Vote},
    watermark::{HostId, Identity, Mark},
};
use mock_node::{Answer, MockNode, Session, at, precommit, prevote, proposal, vote_at};
use std::{
    error::Error,
    fs, io,
    path::Path,
    thread,
    time::{Duration, Instant},
};

const CHAIN: &str = "demo-1";
const HEIGHTS: i64 = 10;

fn main() -> Result<(), Box<dyn Error>> {
    let home = tempfile::tempdir()?;
    let node = MockNode::tcp()?;
    let config = make_home(home.path(), &node.address())?;
    println!("home       {} (removed at the end)", home.path().display());
    println!("node       {}, a mock in this process", node.address());

    let keyring = Keyring::open(&config, None, &Resolver::default())?;
    let mut claims = daemon::claim(&config)?;
    let findings = inspect::look(&config, &[]);
    let chains = Chains::open(&config, &mut claims, &keyring, &findings, Hooks::default())?;
    let running = Nodes::open(&config, &chains, &findings, &Resolver::default())?.start(|| {})?;
    let mut session = node.accept()?;
    println!("link up    the signer is {}", session.signer().unwrap_or("unknown"));
    let key = consensus_key(&mut session)?;
    println!("key        {key}\n");

    let times = sign_heights(&mut session)?;
    show_refusals(&mut session)?;
    summary(times, &state::beside(&home.path().join("state")))?;
    running.stop();
    Ok(())
}

/// Does what `highwater init`, `softsign keygen` and `state init` do.
fn make_home(home: &Path, address: &str) -> Result<Config, Box<dyn Error>> {
    let path = |name: &str| home.join(name).display().to_string();
    let text = format!(
        r#"
[[chain]]
id = "{CHAIN}"
key_format = {{ type = "hex" }}
state_file = "{}"

[[validator]]
addr = "{address}"
chain_id = "{CHAIN}"
secret_key = "{}"

[[providers.softsign]]
chain_ids = ["{CHAIN}"]
path = "{}"
"#,
        path("state"),
        path("identity.key"),
        path("consensus.key")
    );
    let config_path = home.join("tmkms.toml");
    fs::write(&config_path, text)?;
    IdentityKey::generate(&home.join("identity.key"))?;
    let key = softsign::generate(KeyRole::Consensus)?;
    key.store(&home.join("consensus.key"))?;
    let identity = Identity { chain: ChainId::new(CHAIN)?, key: key.public_key() };
    let tmkms_file = home.join("state");
    let (path, theirs) = (state::beside(&tmkms_file), Theirs::new(&tmkms_file));
    let place = Place { path, theirs, identity, host: HostId::of_this_machine()? };
    place.create(Mark::NEVER_SIGNED)?;
    Ok(Config::load(&config_path)?.0)
}

fn consensus_key(session: &mut Session) -> Result<PublicKey, Box<dyn Error>> {
    let answer = session.ask_pub_key(CHAIN)?.map_err(refusal_text)?;
    Ok(PublicKey::from_bytes(KeyType::Ed25519, &answer.pub_key_bytes)?)
}

/// Asks for proposal, prevote and precommit of each height, as the node of a lone validator does.
fn sign_heights(session: &mut Session) -> Result<Vec<Duration>, Box<dyn Error>> {
    /// Slow enough to watch.
    const BLOCK_TIME: Duration = Duration::from_millis(400);
    println!("{:>8}  {:>9}  {:>9}  {:>9}", "height", "proposal", "prevote", "precommit");
    let mut times = Vec::new();
    for height in 1..=HEIGHTS {
        let begin = times.len();
        times.push(timed(|| session.ask_proposal(CHAIN, proposal(height, 0, 7)))?);
        times.push(timed(|| session.ask_vote(CHAIN, prevote(height, 0, Some(7))))?);
        times.push(timed(|| session.ask_vote(CHAIN, precommit(height, 0, Some(7))))?);
        let shown: Vec<_> = times[begin..].iter().map(|time| format!("{:>6} µs", time.as_micros())).collect();
        println!("{height:>8}  {}   signed", shown.join("  "));
        thread::sleep(BLOCK_TIME);
    }
    Ok(times)
}

fn timed<T: Signature>(ask: impl FnOnce() -> io::Result<Answer<T>>) -> Result<Duration, Box<dyn Error>> {
    let begin = Instant::now();
    let signed = ask()?.map_err(refusal_text)?;
    let took = begin.elapsed();
    if signed.signature().len() == 64 { Ok(took) } else { Err("the answer holds no signature".into()) }
}

trait Signature {
    fn signature(&self) -> &[u8];
}

impl Signature for Vote {
    fn signature(&self) -> &[u8] {
        &self.signature
    }
}

impl Signature for Proposal {
    fn signature(&self) -> &[u8] {
        &self.signature
    }
}

fn show_refusals(session: &mut Session) -> Result<(), Box<dyn Error>> {
    println!("\nnow what it must not sign, on the same connection:");
    let last = || precommit(HEIGHTS, 0, Some(7));
    expect_refusal("another block at the last height", session.ask_vote(CHAIN, precommit(HEIGHTS, 0, Some(8)))?)?;
    expect_refusal("nil at the last height", session.ask_vote(CHAIN, precommit(HEIGHTS, 0, None))?)?;
    expect_refusal("a height long past", session.ask_vote(CHAIN, prevote(1, 0, Some(7)))?)?;
    expect_refusal("another chain", session.ask_vote("other-1", prevote(HEIGHTS + 1, 0, Some(7)))?)?;

    let again = session.ask_vote(CHAIN, vote_at(1_800_000_000, last()))?.map_err(refusal_text)?;
    if again.timestamp != last().timestamp || again.timestamp == Some(at(1_800_000_000)) {
        return Err("a repeated vote must carry its old time".into());
    }
    println!("  repeated  the last vote asked for again, at another time: its old time and signature");
    Ok(())
}

fn expect_refusal(what: &str, answer: Answer<Vote>) -> Result<(), Box<dyn Error>> {
    match answer {
        Ok(_) => Err(format!("{what} was SIGNED").into()),
        Err(error) => {
            println!("  refused   {what}: error {}, {}", error.code, error.description);
            Ok(())
        }
    }
}

#[allow(clippy::needless_pass_by_value, reason = "the shape that map_err takes")]
fn refusal_text(error: RemoteSignerError) -> Box<dyn Error> {
    format!("refused with error {}: {}", error.code, error.description).into()
}

fn summary(mut times: Vec<Duration>, path: &Path) -> Result<(), Box<dyn Error>> {
    times.sort_unstable();
    let mark = state::show(path)?.mark;
    println!(
        "\n{} signatures for {HEIGHTS} heights, each durable before it left: median {} µs, slowest {} µs",
        times.len(),
        times[times.len() / 2].as_micros(),
        times[times.len() - 1].as_micros()
    );
    println!("the watermark on the disk is {}; nothing at or below it will ever be signed differently", mark.hrs);
    Ok(())
}

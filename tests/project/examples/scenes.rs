//! What a running signer prints, for the examples that no transcript can have: status, log, a second signer.
//!
//! Names are those of the documents: the home is `/var/lib/highwater`, the chain `osmosis-1`, a node's port 26659.

use super::Source;
use crate::support::{
    cli::{Guard, wait_for},
    mock_node::{MockNode, Session, precommit, prevote, proposal},
    signer::Home,
};
use highwater_core::watermark::{self, BLOCK_BYTES, HostId, StateFile};
use std::{
    fs::{self, File},
    path::PathBuf,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

const CHAIN: &str = "osmosis-1";
const OTHER: &str = "osmosis-9";
/// Nobody listens there.
const CLOSED: &str = "tcp://127.0.0.1:1";
const NOBODY: &str = "44cf6a856aa89b3f872b8add8643927149bd4ecf";

/// All of them.
pub fn all() -> Vec<Source> {
    [
        before_the_start(),
        two_blocks(),
        at_work(),
        reloaded(),
        behind(),
        far_ahead(),
        wrong_peer(),
        device_away(),
        replaced(),
        unusable(),
    ]
    .concat()
}

/// A signer whose log is for people.
struct Signer<'a> {
    home: &'a Home,
    node: String,
    log: PathBuf,
    guard: Guard,
}

impl<'a> Signer<'a> {
    fn start(home: &'a Home, node: &MockNode) -> (Self, Session) {
        let log = home.path("log");
        let mut command = home.command(&["start"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&log).unwrap());
        let signer = Self { home, node: node.address(), log, guard: Guard(command.spawn().unwrap()) };
        (signer, node.accept().unwrap())
    }

    /// A command beside it, with everything that it prints.
    fn run(&self, name: &str, words: &[&str]) -> Source {
        run(self.home, name, words, &self.node)
    }

    /// Its log as soon as that has `text`.
    fn log(&self, name: &str, text: &str) -> Source {
        let log = wait_for(text, || Some(fs::read_to_string(&self.log).unwrap()).filter(|log| log.contains(text)));
        source(self.home, name, "start", &log, &self.node)
    }

    /// Its status as soon as that has `text`.
    fn status(&self, name: &str, text: &str) -> Source {
        wait_for(text, || {
            let status = self.run(name, &["status"]);
            status.lines.iter().any(|line| line.contains(text)).then_some(status)
        })
    }
}

fn run(home: &Home, name: &str, words: &[&str], node: &str) -> Source {
    let output = home.command(words).output().unwrap();
    let printed = [output.stdout, output.stderr].concat();
    source(home, name, &words.join(" "), &String::from_utf8(printed).unwrap(), node)
}

fn source(home: &Home, name: &str, command: &str, printed: &str, node: &str) -> Source {
    let place = home.path("").display().to_string();
    let text = printed.replace(node, "tcp://127.0.0.1:26659").replace(&place, "/var/lib/highwater/");
    let text = text.replace(&format!("/{CHAIN}.state"), &format!("/state/{CHAIN}-consensus.json"));
    Source::new(format!("scene {name}"), command, text.lines())
}

/// A home with one chain and one node over TCP, whose mark is at the end of `height`.
fn home_at(height: u32) -> (Home, MockNode) {
    let node = MockNode::tcp().unwrap();
    let home = Home::new().chain(CHAIN, "").node(&node.address(), CHAIN, "");
    home.write_config();
    let output = home.command(&["state", "init", "--height", &height.to_string()]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    (home, node)
}

/// `check` of a home that has its state, and of one that has lost it.
fn before_the_start() -> Vec<Source> {
    let (home, node) = home_at(18);
    let well = run(&home, "before the start", &["check"], &node.address());
    fs::remove_file(home.state_file(CHAIN)).unwrap();
    vec![well, run(&home, "no state file", &["check"], &node.address())]
}

fn two_blocks() -> Vec<Source> {
    let (home, node) = home_at(1);
    let (signer, mut session) = Signer::start(&home, &node);
    session.ask_vote(CHAIN, precommit(3, 0, Some(7))).unwrap().unwrap();
    session.ask_vote(CHAIN, precommit(3, 0, Some(8))).unwrap().unwrap_err();
    vec![signer.log("two blocks", "block-against-block"), signer.run("a second signer", &["start"])]
}

/// First all is well, then the node asks for another chain, and then it is gone.
fn at_work() -> Vec<Source> {
    let (home, node) = home_at(1);
    let (signer, mut session) = Signer::start(&home, &node);
    session.ask_vote(CHAIN, precommit(39, 0, Some(7))).unwrap().unwrap();
    let mut all = vec![signer.status("at work", "1 signed"), signer.run("at work", &["check"])];
    session.ask_pub_key(OTHER).unwrap().unwrap_err();
    all.push(signer.log("wrong chain", "wrong-chain"));
    session.close();
    drop(node);
    all.push(signer.status("no node", "cannot connect"));
    all
}

/// One node takes the place of another.
fn reloaded() -> Vec<Source> {
    let (home, node) = home_at(1);
    let (signer, _session) = Signer::start(&home, &node);
    let socket = MockNode::unix(&home.path("new-node.sock")).unwrap();
    let config = home.path("tmkms.toml");
    let text = fs::read_to_string(&config).unwrap().replace(&node.address(), &socket.address());
    // Only TCP needs an identity.
    let lines = text.lines().filter(|line| !line.starts_with("secret_key"));
    fs::write(&config, lines.map(|line| format!("{line}\n")).collect::<String>()).unwrap();
    let id = signer.guard.0.id().to_string();
    assert!(Command::new("kill").args(["-HUP", &id]).status().unwrap().success());
    let mut session = socket.accept().unwrap();
    session.ask_pub_key(CHAIN).unwrap().unwrap();
    signer.status("a reload", " s ago):");
    vec![signer.status("a reload", ": every chain signs")]
}

fn behind() -> Vec<Source> {
    let (home, node) = home_at(45);
    let (signer, mut session) = Signer::start(&home, &node);
    session.ask_proposal(CHAIN, proposal(44, 0, 7)).unwrap().unwrap_err();
    vec![signer.log("behind", "request=\"proposal\"")]
}

fn far_ahead() -> Vec<Source> {
    let (home, node) = home_at(1_000_000);
    let (signer, mut session) = Signer::start(&home, &node);
    session.ask_proposal(CHAIN, proposal(44, 0, 7)).unwrap().unwrap_err();
    session.ask_vote(CHAIN, prevote(44, 0, Some(7))).unwrap().unwrap_err();
    // The log is written by a thread of its own.
    let log = signer.log("far ahead", "request=\"prevote\"");
    vec![log, signer.status("far ahead", "2 refused")]
}

fn wrong_peer() -> Vec<Source> {
    let (home, node) = home_at(1);
    let config = home.path("tmkms.toml");
    let pinned = fs::read_to_string(&config).unwrap().replace("tcp://", &format!("tcp://{NOBODY}@"));
    fs::write(&config, pinned).unwrap();
    let log = home.path("log");
    let mut command = home.command(&["start"]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&log).unwrap());
    let signer = Signer { home: &home, node: node.address(), log, guard: Guard(command.spawn().unwrap()) };
    thread::scope(|scope| {
        // The signer tries again and again, and says so once in a while.
        let accepting = scope.spawn(|| {
            for _ in 0..20 {
                if let Ok(connection) = node.accept_raw(Duration::from_secs(5)) {
                    // It breaks off in the handshake, as it should.
                    let _ = connection.into_session();
                }
                if fs::read_to_string(&signer.log).unwrap().contains("times=") {
                    break;
                }
            }
        });
        let log = signer.log("wrong peer", "times=");
        accepting.join().unwrap();
        vec![log]
    })
}

fn device_away() -> Vec<Source> {
    let (home, node) = home_at(42);
    let config = home.path("tmkms.toml");
    let text = fs::read_to_string(&config).unwrap();
    let in_a_file = format!(
        "[[providers.softsign]]\nchain_ids = [\"{CHAIN}\"]\npath = {:?}\n",
        home.key_file(CHAIN).display().to_string()
    );
    assert!(text.contains(&in_a_file), "{text}");
    let on_a_device = format!(
        "[[providers.yubihsm]]\nadapter = {{ type = \"http\", addr = \"{CLOSED}\" }}\n\
         auth = {{ key = 4, password_file = {:?} }}\nkeys = [{{ chain_ids = [\"{CHAIN}\"], key = 1 }}]\n",
        home.key_file(CHAIN).display().to_string()
    );
    fs::write(&config, text.replace(&in_a_file, &on_a_device)).unwrap();
    let (signer, _session) = Signer::start(&home, &node);
    vec![signer.status("a device that is away", "Connection refused")]
}

/// Another program has put its own file in the place of the state. A second chain keeps the signer up.
fn replaced() -> Vec<Source> {
    let node = MockNode::tcp().unwrap();
    let home = Home::new().chain(CHAIN, "").chain(OTHER, "").node(&node.address(), CHAIN, "");
    let home = home.node(CLOSED, OTHER, "").init();
    let (signer, mut session) = Signer::start(&home, &node);
    session.ask_vote(CHAIN, precommit(41, 0, Some(7))).unwrap().unwrap();
    let state = home.state_file(CHAIN);
    fs::copy(&state, home.path("another")).unwrap();
    fs::rename(home.path("another"), &state).unwrap();
    session.ask_vote(CHAIN, precommit(42, 0, Some(7))).unwrap().unwrap_err();
    vec![signer.status("a state that was replaced", "was replaced by another file")]
}

/// State files that nobody can sign from: of another machine, and with a damaged slot.
fn unusable() -> Vec<Source> {
    let (home, node) = home_at(42);
    let path = home.state_file(CHAIN);
    let newest = StateFile::open(&path).unwrap().newest().unwrap();
    let image = fs::read(&path).unwrap();
    fs::remove_file(&path).unwrap();
    watermark::create(&path, HostId([0xee; 16]), newest.header.identity(), newest.mark).unwrap();
    let foreign = run(&home, "of another machine", &["check"], &node.address());
    let mut damaged = image;
    damaged[BLOCK_BYTES + 60] ^= 1;
    fs::write(&path, damaged).unwrap();
    vec![foreign, run(&home, "damaged", &["check"], &node.address())]
}

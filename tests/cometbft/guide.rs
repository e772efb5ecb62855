//! `docs/migrate-from-tmkms.md` on a real chain: what stands in its `sh` blocks is done line by line, there, back and there
//! again, and no height, round and step is signed by both.

use crate::support::network::lab::{Lab, Process, cometbft, free_port};
use crate::support::network::node::{Node, chain_id};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

const GUIDE: &str = include_str!("../../docs/migrate-from-tmkms.md");
/// The guide's names for the directory, the chain and the state file.
const HOME: &str = "/var/lib/tmkms";
const CHAIN: &str = "osmosis-1";
const STATE: &str = "state/osmosis-1-consensus.json";
/// How many blocks each signer gets to see.
const BLOCKS: u64 = 15;
const TMKMS: &str = "0.15.0";

/// A message by height, round and step (0 proposal, 1 prevote, 2 precommit).
type Hrs = (u64, u64, u64);

/// The directory of the guide, and the service that runs in it.
struct Walk<'a> {
    lab: &'a Lab,
    home: PathBuf,
    tmkms: PathBuf,
    running: BTreeMap<String, Process>,
}

impl<'a> Walk<'a> {
    /// A home as `tmkms init` makes it, with the node's key and address.
    fn new(lab: &'a Lab, tmkms: PathBuf, key_file: &Path, address: &str) -> Self {
        let home = lab.path("tmkms");
        fs::create_dir(&home).unwrap();
        let walk = Self { lab, home, tmkms, running: BTreeMap::new() };
        walk.run_tmkms(&["init", "-n", "osmosis", "."]);
        walk.run_tmkms(&["softsign", "import", key_file.to_str().unwrap(), "secrets/osmosis-1-consensus.key"]);
        fs::set_permissions(walk.home.join("secrets/osmosis-1-consensus.key"), fs::Permissions::from_mode(0o600))
            .unwrap();
        let config = walk.home.join("tmkms.toml");
        let text = fs::read_to_string(&config).unwrap();
        let theirs = "tcp://deadbeefdeadbeefdeadbeefdeadbeefdeadbeef@example1.example.com:26658";
        assert!(text.contains(theirs) && text.contains(STATE), "{text}");
        fs::write(config, text.replace(theirs, address)).unwrap();
        walk
    }

    fn run_tmkms(&self, words: &[&str]) {
        self.lab.run("tmkms-init", Command::new(&self.tmkms).args(words).current_dir(&self.home));
    }

    /// Does what the block does, line by line. What `systemctl` would start and stop is a process of this test.
    fn follow(&mut self, block: &str) -> String {
        let mut output = String::new();
        for line in block.lines() {
            match line.split_whitespace().collect::<Vec<_>>()[..] {
                ["systemctl", "disable", "--now", service] => self.stop(service),
                // `disable --now` has taken away what starts at a boot; so whatever starts has to be enabled again.
                ["systemctl", "enable", "--now", service] => self.start(service),
                ["systemctl", ..] => panic!("what does this do to a process? {line}"),
                _ => output += &self.shell(&line.replace(HOME, self.home.to_str().unwrap())),
            }
        }
        output
    }

    fn shell(&self, line: &str) -> String {
        let programs = Path::new(env!("CARGO_BIN_EXE_highwater")).parent().unwrap();
        let path = format!("{}:{}", programs.display(), env::var("PATH").unwrap());
        let mut command = Command::new("sh");
        command.args(["-euc", line]).current_dir(&self.home).env("PATH", path).env_remove("TMKMS_CONFIG_FILE");
        self.lab.run("guide", &mut command)
    }

    fn start(&mut self, service: &str) {
        assert!(self.running.is_empty(), "two signers at one time");
        let mut command = match service {
            "highwater" => {
                let mut command = Command::new(env!("CARGO_BIN_EXE_highwater"));
                command.args(["start", "--log-format", "json"]);
                command
            }
            "tmkms" => {
                let mut command = Command::new(&self.tmkms);
                command.arg("start");
                command
            }
            other => panic!("the guide starts {other}"),
        };
        let process = self.lab.spawn(service, command.current_dir(&self.home));
        let process = self.running.entry(service.to_owned()).or_insert(process);
        if service == "highwater" {
            // As `Type=notify` would, and until a link is up.
            let mut status = Command::new(env!("CARGO_BIN_EXE_highwater"));
            status.args(["status", "--json"]).current_dir(&self.home);
            self.lab.wait_for("every chain to sign", || {
                process.assert_running();
                let output = status.output().unwrap();
                let shown: Value = serde_json::from_slice(&output.stdout).ok()?;
                let has_signed = !shown["chains"][0]["signed_at"].is_null();
                (output.status.success() && has_signed).then_some(())
            });
        }
    }

    fn stop(&mut self, service: &str) {
        let mut process = self.running.remove(service).unwrap_or_else(|| panic!("{service} is not running"));
        process.terminate();
        self.lab.wait_for_exit(&mut process);
    }

    fn config(&self) -> Vec<u8> {
        fs::read(self.home.join("tmkms.toml")).unwrap()
    }

    /// All that tmkms has signed: `signed PreVote:6D9A8FC04E at h/r/s 17/0/1 (0 ms)`.
    fn signed_by_tmkms(&self) -> BTreeSet<Hrs> {
        let log = ["stdout", "stderr"].map(|kind| self.log("tmkms", kind)).concat();
        let places = log.lines().filter_map(|line| line.split_once("] signed ")?.1.split_once(" at h/r/s "));
        places.map(|(_, rest)| hrs(rest.split(' ').next().unwrap())).collect()
    }

    /// All that Highwater has signed.
    fn signed_by_highwater(&self) -> BTreeSet<Hrs> {
        let log = self.log("highwater", "stderr");
        let events = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let signed = events.filter(|event| event["message"] == "signed");
        signed
            .map(|event| {
                let step = ["proposal", "prevote", "precommit"].iter().position(|step| event["request"] == *step);
                (event["height"].as_u64().unwrap(), event["round"].as_u64().unwrap(), step.unwrap() as u64)
            })
            .collect()
    }

    fn log(&self, name: &str, kind: &str) -> String {
        fs::read_to_string(self.lab.path(&format!("output/{name}.{kind}"))).unwrap()
    }
}

fn hrs(text: &str) -> Hrs {
    let numbers: Vec<u64> = text.split('/').map(|number| number.parse().unwrap()).collect();
    let [height, round, step] = numbers[..] else { panic!("no height, round and step: {text:?}") };
    (height, round, step)
}

/// The `sh` blocks of the guide, in order.
fn blocks() -> Vec<&'static str> {
    GUIDE.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect()
}

#[test]
fn the_guide_leads_from_tmkms_to_highwater_and_back_and_there_again_on_a_real_chain() {
    let (Some(binary), Some(tmkms)) = (cometbft("v0.38.25"), tmkms()) else { return };
    let lab = Lab::new();
    // Four validators: a vote that the signer misses halts nothing.
    let nodes = ["a", "b", "c", "d"].map(|name| Node::init(&lab, &binary, name));
    let [a, b, ..] = &nodes;
    let mut genesis = a.genesis();
    genesis["chain_id"] = json!(CHAIN);
    genesis["validators"] = nodes.iter().map(|node| node.genesis()["validators"][0].take()).collect();
    let peers: Vec<_> = nodes.iter().map(Node::p2p_address).collect();
    for (node, own) in nodes.iter().zip(&peers) {
        node.set_genesis(&genesis);
        let others: Vec<_> = peers.iter().filter(|peer| *peer != own).map(String::as_str).collect();
        node.configure("p2p", "persistent_peers", &format!("\"{}\"", others.join(",")));
        // A commit waits so long for the precommits beyond two thirds.
        node.configure("consensus", "timeout_commit", "\"100ms\"");
    }
    let key = a.public_key();
    let address = format!("tcp://127.0.0.1:{}", free_port());
    let key_file = a.use_signer(&address);
    let mut walk = Walk::new(&lab, tmkms, &key_file, &address);
    let config = walk.config();
    let [look, stop, look_again, there, back, again] = blocks()[..] else { panic!("{:?}", blocks()) };

    walk.start("tmkms");
    let mut running = nodes.each_ref().map(|node| node.start("kvstore"));
    let mut ends = vec![0];
    let mut see_blocks = || {
        let from = *ends.last().unwrap();
        let to = a.wait_for_blocks(&mut running[0], BLOCKS);
        ends.push(to);
        // A commit need not hold every precommit: on a busy machine one comes late.
        let commits = (from + 1..to).map(|height| b.rpc.commit(height));
        let signed = commits.filter(|commit| commit.is_signed_by(&key, &chain_id(&genesis))).count();
        assert!(signed as u64 >= BLOCKS / 4, "only {signed} blocks signed from {from} to {to}");
    };
    see_blocks();
    walk.follow(look);

    walk.follow(stop);
    let looked = walk.follow(look_again);
    assert!(looked.contains(&format!("{STATE}.highwater is at ")), "{looked}");
    let seen = walk.follow(there);
    assert!(seen.contains("every chain signs") && seen.contains("mode      active"), "{seen}");
    assert!(walk.home.join(format!("{STATE}.imported")).exists());
    see_blocks();

    walk.follow(back);
    see_blocks();
    walk.follow(again);
    see_blocks();
    walk.stop("highwater");

    assert_eq!(walk.config(), config, "nothing has touched tmkms.toml");
    for height in 1..*ends.last().unwrap() {
        a.rpc.block_without_evidence(height);
    }
    for (node, running) in nodes.iter().zip(&running) {
        node.assert_no_alarm(running);
    }
    let (tmkms, highwater) = (walk.signed_by_tmkms(), walk.signed_by_highwater());
    assert!(tmkms.len() as u64 > BLOCKS && highwater.len() as u64 > BLOCKS, "{tmkms:?} {highwater:?}");
    let both: Vec<_> = tmkms.intersection(&highwater).collect();
    assert!(both.is_empty(), "signed by both: {both:?}");
}

/// The real tmkms, as `tests/install/tmkms.sh` installs it. Without it: a failure in CI, and elsewhere a word.
fn tmkms() -> Option<PathBuf> {
    let cache = env::var_os("XDG_CACHE_HOME").filter(|path| !path.is_empty()).map(PathBuf::from);
    let cache = cache.unwrap_or_else(|| PathBuf::from(env::var_os("HOME").unwrap()).join(".cache"));
    let binary = cache.join(format!("highwater/tmkms-{TMKMS}/bin/tmkms"));
    if binary.is_file() {
        return Some(binary);
    }
    let missing = format!("there is no {}: run tests/install/tmkms.sh", binary.display());
    assert!(env::var("CI").as_deref() != Ok("true"), "{missing}");
    // Not `eprintln!`, which the test harness swallows when a test passes.
    let skipped = format!("\n*** SKIPPED: the guide was not walked: {missing} ***");
    std::io::stderr().write_all(skipped.as_bytes()).unwrap();
    None
}

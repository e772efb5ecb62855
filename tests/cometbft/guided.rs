//! `highwater init --guided`, answered by a person at a terminal: from nothing to blocks of a real node.

use crate::support::network::{
    lab::{Lab, cometbft},
    node::Node,
};
use serde_json::Value;
use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// How long a person takes for an answer.
const THINKS: Duration = Duration::from_millis(500);

/// A command on a terminal, which `script` provides, and whoever types there.
struct Terminal {
    script: Child,
    keyboard: ChildStdin,
    screen: PathBuf,
}

impl Terminal {
    fn run(lab: &Lab, words: &str) -> Self {
        let screen = lab.path("screen");
        let command = format!("{} {words}", env!("CARGO_BIN_EXE_highwater"));
        let mut script = Command::new("script");
        script.args(["-qefc", &command, "/dev/null"]).current_dir(lab.path("")).env("HOME", lab.path(""));
        script.stdin(Stdio::piped()).stdout(File::create(&screen).unwrap()).stderr(Stdio::null());
        let mut script = script.spawn().unwrap();
        let keyboard = script.stdin.take().unwrap();
        Self { script, keyboard, screen }
    }

    fn screen(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.screen).unwrap()).into_owned()
    }

    /// Waits for the question and types the answer.
    fn answer(&mut self, lab: &Lab, question: &str, answer: &str) {
        self.wait_for(lab, question);
        thread::sleep(THINKS);
        writeln!(self.keyboard, "{answer}").unwrap();
    }

    fn wait_for(&self, lab: &Lab, words: &str) {
        lab.wait_for(words, || self.screen().contains(words).then_some(()));
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // The terminal goes with it, and so does the signer.
        let _ = self.script.kill();
        let _ = self.script.wait();
        if thread::panicking() {
            eprintln!("--- the screen ---\n{}", self.screen());
        }
    }
}

fn status(config: &Path) -> Option<Value> {
    let output = Command::new(env!("CARGO_BIN_EXE_highwater")).args(["status", "--json", "-c"]).arg(config).output();
    serde_json::from_slice(&output.unwrap().stdout).ok()
}

#[test]
fn a_person_with_a_local_node_comes_to_the_first_signature_with_one_command() {
    let Some(binary) = cometbft("v0.38.25") else { return };
    let lab = Lab::new();
    let node = Node::init(&lab, &binary, "node");
    let node_config = lab.path("node/config/config.toml");
    let config_before = fs::read_to_string(&node_config).unwrap();

    let begin = Instant::now();
    let mut terminal = Terminal::run(&lab, "init --guided");
    // Something is there already: asked again.
    terminal.answer(&lab, "Directory for the signer's files [highwater]: ", "node");
    terminal.answer(&lab, "is not an empty directory, and nothing is overwritten", "");
    terminal.answer(&lab, "Home of the CometBFT node on this machine, or none [none]: ", "node");
    let chain = node.genesis()["chain_id"].as_str().unwrap().to_owned();
    terminal.answer(&lab, &format!("Chain id [{chain}]: "), "");
    terminal.answer(&lab, "Sign with the key of that node", "");
    terminal.answer(&lab, "Is it stopped? [yes]: ", "");
    terminal.answer(&lab, "Has it never signed, anywhere? [yes]: ", "");
    let address = format!("unix://{}", lab.path(&format!("highwater/{chain}.sock")).display());
    terminal.answer(&lab, &format!("[{address}]: "), "");
    terminal.answer(&lab, "Set priv_validator_laddr", "");
    assert!(!lab.path("highwater").exists(), "nothing is made before the last answer");
    terminal.answer(&lab, "Start the signer now? [yes]: ", "");
    terminal.wait_for(&lab, "now start the node in another terminal: cometbft start --home node");
    let mut process = node.start("kvstore");
    let config = lab.path("highwater/tmkms.toml");
    let signer = lab.wait_for("the first signature", || {
        process.assert_running();
        let status = status(&config)?;
        status["chains"][0]["signed_at"].is_u64().then_some(status)
    });
    let took = begin.elapsed();
    eprintln!(
        "{:.1} s from `highwater init --guided` to the first signature, {THINKS:?} of them for each answer",
        took.as_secs_f64()
    );
    node.wait_for_blocks(&mut process, 3);
    node.assert_no_alarm(&process);

    // What was there is kept.
    assert_eq!(fs::read_to_string(lab.path("node/config/config.toml.before-highwater")).unwrap(), config_before);
    let line = format!("priv_validator_laddr = \"{address}\"");
    assert_eq!(fs::read_to_string(&node_config).unwrap(), config_before.replace("priv_validator_laddr = \"\"", &line));
    assert_eq!(signer["chains"][0]["public_key"], node.public_key().to_string());
    // Ctrl-C.
    terminal.keyboard.write_all(&[3]).unwrap();
    terminal.wait_for(&lab, "stopped");

    // A second time everything is refused, whatever is answered.
    let mut again = Terminal::run(&lab, "init --guided highwater");
    again.wait_for(&lab, "is not an empty directory, and nothing is overwritten: name another one");
    assert_eq!(again.script.wait().unwrap().code(), Some(73));
}

#[test]
fn a_raise_far_above_the_mark_wants_the_height_again() {
    let lab = Lab::new();
    let home = lab.path("home");
    let highwater = |words: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_highwater"));
        command.args(words.split_whitespace()).current_dir(lab.path(""));
        command
    };
    lab.run("init", &mut highwater("init -n far-1 --never-signed home"));
    lab.run("raise", &mut highwater("state raise -c home/tmkms.toml --height 1000"));
    let raise = "state raise -c home/tmkms.toml --height 20000000";
    for (typed, code, mark) in [("2000000", 64, 1000), ("20000000", 0, 20_000_000)] {
        let mut terminal = Terminal::run(&lab, raise);
        terminal.wait_for(&lab, "A watermark far ahead of the chain");
        terminal.answer(&lab, "type the height again: ", typed);
        assert_eq!(terminal.script.wait().unwrap().code(), Some(code), "{}", terminal.screen());
        let shown = lab.run("show", highwater("state show --json").arg("-c").arg(home.join("tmkms.toml")));
        // One line for each run.
        let shown: Value = serde_json::from_str(shown.lines().last().unwrap()).unwrap();
        assert_eq!(shown["height"], mark);
    }
}

//! `highwater init --guided`: from nothing to a signing signer with one question at a time, for a first try.
//!
//! Every question has a default. Nothing is made before the last question is answered, and nothing is overwritten.

use super::{begin_state, configuration, default_socket, make_home};
use crate::{
    cli::{CliError, Exit, networks::Target, output, start::Start, state},
    config::{Config, KeyRole},
    keyring::softsign::SecretKey,
    state::{
        Age, StateError,
        foreign::{self, MigrationError},
    },
};
use highwater_core::{
    consensus::{ChainId, Hrs},
    disk,
    watermark::{Identity, Mark},
};
use std::{
    env, fs,
    io::{self, BufRead as _, IsTerminal as _},
    path::{Path, PathBuf},
};

/// How the setting begins in the node's `config.toml`.
const SETTING: &str = "priv_validator_laddr";

/// What the operator wants.
struct Wishes {
    home: PathBuf,
    target: Target,
    address: String,
    /// The node on this machine, if there is one.
    node: Option<LocalNode>,
    key: Key,
    configures_node: bool,
    starts: bool,
}

/// The consensus key.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Key {
    New,
    /// The node's. Its state says whether it has signed.
    OfNode {
        never_signed: bool,
    },
}

/// The home of a CometBFT node.
struct LocalNode(PathBuf);

impl LocalNode {
    fn key(&self) -> PathBuf {
        self.0.join("config/priv_validator_key.json")
    }

    fn state(&self) -> PathBuf {
        self.0.join("data/priv_validator_state.json")
    }

    fn config(&self) -> PathBuf {
        self.0.join("config/config.toml")
    }

    fn chain_id(&self) -> Option<String> {
        let genesis = fs::read(self.0.join("config/genesis.json")).ok()?;
        let genesis: serde_json::Value = serde_json::from_slice(&genesis).ok()?;
        Some(genesis["chain_id"].as_str()?.to_owned())
    }
}

/// `path` is the home, if it was named.
pub(super) fn run(path: Option<PathBuf>) -> Result<(), CliError> {
    if !io::stdin().is_terminal() {
        let text = "--guided asks questions, and standard input is not a terminal. Without questions: `highwater init -n \
                    CHAIN_ID --node unix:///PATH --never-signed PATH` makes the home, a new key and its state. For a key that \
                    exists, leave out --never-signed, then run `highwater softsign import` and `highwater state import`";
        return Err(CliError::usage(text));
    }
    let wishes = ask_all(path)?;
    let config_path = make_home(&wishes.home, std::slice::from_ref(&wishes.target), Some(&wishes.address))?;
    match &wishes.node {
        Some(node) if wishes.key != Key::New => take_key(&config_path, node, wishes.key)?,
        _ => begin_state(&config_path, Mark::NEVER_SIGNED)?,
    }
    if let Some(node) = wishes.node.as_ref().filter(|_| wishes.configures_node) {
        configure_node(node, &wishes.address)?;
    }
    let shown = config_path.display();
    match &wishes.node {
        Some(node) if wishes.configures_node => {
            output::note(&format!(
                "now start the node in another terminal: cometbft start --home {}",
                node.0.display()
            ));
        }
        _ => output::note(&format!(
            "set {SETTING} = \"{}\" in the node's config.toml, and start the node",
            wishes.address
        )),
    }
    if !wishes.starts {
        output::note(&format!("start the signer first: highwater start -c {shown}"));
        return Ok(());
    }
    output::note(&format!("the signer starts; Ctrl-C ends it. Next time: highwater start -c {shown}"));
    Start::with(config_path).run()
}

fn ask_all(path: Option<PathBuf>) -> Result<Wishes, CliError> {
    let home = match path {
        Some(path) if is_free(&path) => path,
        Some(path) => return Err(CliError::new(Exit::CantCreate, not_free(&path))),
        None => ask_until("Directory for the signer's files", "highwater", |answer| {
            let path = PathBuf::from(answer);
            if is_free(&path) { Ok(path) } else { Err(not_free(&path)) }
        })?,
    };
    let found = env::home_dir().map(|home| home.join(".cometbft")).filter(|home| home.join("config").is_dir());
    let found = found.map_or("none".to_owned(), |home| home.display().to_string());
    let node = ask_until("Home of the CometBFT node on this machine, or none", &found, |answer| match answer {
        "none" => Ok(None),
        answer => {
            let node = LocalNode(answer.into());
            if node.config().is_file() {
                return Ok(Some(node));
            }
            Err(format!("there is no {}: `cometbft init` makes it", node.config().display()))
        }
    })?;
    let chain_id = node.as_ref().and_then(LocalNode::chain_id).unwrap_or_else(|| "test-chain".to_owned());
    let target = ask_until("Chain id", &chain_id, |answer| Target::find(answer).map_err(|error| error.to_string()))?;
    let mut key = Key::New;
    if let Some(node) = node.as_ref().filter(|node| node.key().is_file()) {
        let takes_key = ask_yes(&format!(
            "Sign with the key of that node ({})? Otherwise a new key is made",
            node.key().display()
        ))?;
        if takes_key {
            if !ask_yes("The node must not run while its key moves. Is it stopped?")? {
                return Err(CliError::new(Exit::TempFail, "stop the node, then run this again: nothing was made"));
            }
            key = Key::OfNode { never_signed: ask_about_state(node, &target)? };
        }
    }
    // The home does not exist yet.
    let absolute =
        std::path::absolute(&home).map_err(|error| CliError::io("cannot find the working directory", &error))?;
    let address = default_socket(&absolute, &target.chain_id);
    let address = ask_until("Address where the node waits for its signer", &address, |answer| {
        let tried = configuration(&absolute, std::slice::from_ref(&target), Some(answer));
        tried.map(|_| answer.to_owned()).map_err(|error| error.message)
    })?;
    let mut configures_node = false;
    if let Some(node) = &node {
        let path = node.config();
        match laddr_of(&path)?.as_deref() {
            Some("") => configures_node = ask_yes(&format!("Set {SETTING} in {}?", path.display()))?,
            Some(set) if set == address => {}
            _ => output::note(&format!("{} has another {SETTING} already, which stays as it is", path.display())),
        }
    }
    let starts = ask_yes("Start the signer now?")?;
    Ok(Wishes { home, target, address, node, key, configures_node, starts })
}

/// Whether nothing is there that could be overwritten.
fn is_free(path: &Path) -> bool {
    match fs::read_dir(path) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

fn not_free(path: &Path) -> String {
    format!("{} is not an empty directory, and nothing is overwritten: name another one", path.display())
}

/// Whether the node's key has never signed. Fails if its state cannot be taken over, before anything is made.
fn ask_about_state(node: &LocalNode, target: &Target) -> Result<bool, CliError> {
    let secret = SecretKey::load_any(&node.key(), KeyRole::Consensus.key_type())?;
    let chain = ChainId::new(&target.chain_id).expect("a target has a chain id");
    let state = node.state();
    match foreign::read(&read(&state)?, &Identity { chain, key: secret.public_key() }) {
        Ok(_) => Ok(false),
        Err(MigrationError::NeverSigned | MigrationError::Unproven { hrs: Hrs::GENESIS }) => {
            let question = format!(
                "{} says that this key has never signed, and would say so after a reset too. Has it never signed, anywhere?",
                state.display()
            );
            if ask_yes(&question)? {
                return Ok(true);
            }
            let text = "nothing was made. For a key that has signed, run `highwater init`, `highwater softsign import` and \
                        `highwater state init --height H` with a height that it has not signed above";
            Err(CliError::new(Exit::Data, text))
        }
        Err(error) => Err(StateError::Migration { path: state, error }.into()),
    }
}

/// Takes over key and state of a stopped node.
fn take_key(config_path: &Path, node: &LocalNode, key: Key) -> Result<(), CliError> {
    let (config, _) = Config::load(config_path)?;
    let chain = config.chains.first().expect("the new configuration has one chain");
    let key_file = config.softsign().first().expect("and one key").path.clone();
    let secret = SecretKey::load_any(&node.key(), KeyRole::Consensus.key_type())?;
    secret.store(&key_file)?;
    output::note(&format!("made {} ({})", key_file.display(), secret.public_key()));
    let place = state::place_of(&config, chain)?;
    let mark = if key == (Key::OfNode { never_signed: true }) {
        place.create(Mark::NEVER_SIGNED)?;
        Mark::NEVER_SIGNED
    } else {
        place.import(Some(&node.state()), Age::Unknown)?.mark
    };
    output::note(&format!("made {} at {}", chain.watermark().display(), mark.hrs));
    output::note(&format!(
        "once the signer signs, remove {} and every copy of it: a key that runs in two places signs twice",
        node.key().display()
    ));
    Ok(())
}

/// The value of the node's `priv_validator_laddr`. `None` if there is no such line.
fn laddr_of(path: &Path) -> Result<Option<String>, CliError> {
    let text = read(path)?;
    let value = top_of(&text).lines().find_map(|line| line.strip_prefix(SETTING)?.trim_start().strip_prefix('='));
    Ok(value.map(|value| value.trim().trim_matches('"').to_owned()))
}

/// The settings before the first section.
fn top_of(text: &str) -> &str {
    text.find("\n[").map_or(text, |end| &text[..end])
}

/// Writes the address into the node's configuration, and keeps a copy of the file beside it.
fn configure_node(node: &LocalNode, address: &str) -> Result<(), CliError> {
    let path = node.config();
    let text = read(&path)?;
    let mut new = String::with_capacity(text.len() + address.len());
    let top = top_of(&text);
    for line in top.split_inclusive('\n') {
        let is_it = line.strip_prefix(SETTING).is_some_and(|rest| rest.trim_start().starts_with('='));
        if is_it { new += &format!("{SETTING} = \"{address}\"\n") } else { new += line }
    }
    new += &text[top.len()..];
    let failed = |error: io::Error| CliError::io(&format!("cannot change {}", path.display()), &error);
    let kept = disk::with_suffix(&path, ".before-highwater");
    let next = disk::with_suffix(&path, ".highwater");
    for file in [&kept, &next] {
        fs::File::create_new(file).map_err(failed)?;
    }
    // Copies the permissions too.
    fs::copy(&path, &kept).and_then(|_| fs::copy(&path, &next)).and_then(|_| fs::write(&next, new)).map_err(failed)?;
    fs::rename(&next, &path).map_err(failed)?;
    output::note(&format!("changed {}; the old one is {}", path.display(), kept.display()));
    Ok(())
}

fn read(path: &Path) -> Result<String, CliError> {
    fs::read_to_string(path).map_err(|error| CliError::io(&format!("cannot read {}", path.display()), &error))
}

fn ask_yes(question: &str) -> Result<bool, CliError> {
    ask_until(question, "yes", |answer| match answer {
        "y" | "yes" | "Y" | "Yes" => Ok(true),
        "n" | "no" | "N" | "No" => Ok(false),
        _ => Err("answer yes or no".to_owned()),
    })
}

/// Asks until the answer is good. An empty answer is the default.
fn ask_until<T>(question: &str, default: &str, good: impl Fn(&str) -> Result<T, String>) -> Result<T, CliError> {
    loop {
        output::ask(&format!("{question} [{default}]: "));
        let mut line = String::new();
        let length = io::stdin().lock().read_line(&mut line);
        if length.map_err(|error| CliError::io("cannot read the answer", &error))? == 0 {
            return Err(CliError::usage("the questions ended without an answer: nothing was made"));
        }
        let answer = if line.trim().is_empty() { default } else { line.trim() };
        match good(answer) {
            Ok(good) => return Ok(good),
            Err(why) => output::note(&why),
        }
    }
}

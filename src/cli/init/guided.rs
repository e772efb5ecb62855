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
    env,
    fs::{self, File},
    io::{self, BufRead as _, IsTerminal as _, Read as _, Write as _},
    ops::Range,
    os::unix::fs::{MetadataExt as _, fchown},
    path::{Path, PathBuf},
};
use toml::de::{DeTable, DeValue};

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
    let configures_node = node.as_ref().map_or(Ok(false), |node| ask_to_configure(node, &address))?;
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

/// The node's setting in the text of its `config.toml`.
#[derive(Debug, PartialEq, Eq)]
enum Setting {
    Missing,
    /// Empty, which is how a node signs with its own key. With the place of the value.
    Empty(Range<usize>),
    /// As it is written there, without the quotes.
    Set(String),
}

impl Setting {
    fn of(text: &str) -> Result<Self, String> {
        let settings = DeTable::parse(text).map_err(|error| error.message().to_owned())?;
        let Some(value) = settings.get_ref().get(SETTING) else { return Ok(Self::Missing) };
        Ok(match value.get_ref() {
            DeValue::String(address) if address.is_empty() => Self::Empty(value.span()),
            DeValue::String(address) => Self::Set(address.to_string()),
            _ => Self::Set(text[value.span()].to_owned()),
        })
    }

    /// The text with that address instead. `None` if there is another.
    fn replaced(&self, text: &str, address: &str) -> Option<String> {
        match self {
            // The first line stands before every section.
            Self::Missing => Some(format!("{SETTING} = \"{address}\"\n{text}")),
            Self::Empty(place) => Some(format!("{}\"{address}\"{}", &text[..place.start], &text[place.end..])),
            Self::Set(_) => None,
        }
    }
}

/// Whether to write the address into the node's configuration.
fn ask_to_configure(node: &LocalNode, address: &str) -> Result<bool, CliError> {
    let path = node.config();
    let shown = path.display();
    match Setting::of(&read(&path)?) {
        Ok(Setting::Empty(_)) => return ask_yes(&format!("Set {SETTING} in {shown}?")),
        Ok(Setting::Missing) => return ask_yes(&format!("{shown} has no {SETTING}. Add it?")),
        Ok(Setting::Set(set)) if set == address => {}
        Ok(Setting::Set(set)) => {
            output::note(&format!("{shown} sets {SETTING} to {set:?} already, which stays as it is"));
        }
        Err(why) => output::note(&format!("{shown} is not valid TOML, and stays as it is: {why}")),
    }
    Ok(false)
}

/// Writes the address into the node's configuration, and keeps the old file beside it.
fn configure_node(node: &LocalNode, address: &str) -> Result<(), CliError> {
    let path = node.config();
    let kept = set_laddr(&path, address)
        .map_err(|error| CliError::io(&format!("cannot change {}", path.display()), &error))?;
    output::note(&format!("changed {}; the old one is {}", path.display(), kept.display()));
    Ok(())
}

/// Exchanges the file for one with that address, the same owner and the same permissions. Returns where the old one is.
fn set_laddr(path: &Path, address: &str) -> io::Result<PathBuf> {
    let mut file = File::open(path)?;
    let (about, mut text) = (file.metadata()?, String::new());
    file.read_to_string(&mut text)?;
    let new = Setting::of(&text).map_err(io::Error::other)?.replaced(&text, address);
    let new = new.ok_or_else(|| io::Error::other("it has changed since the question"))?;
    let kept = disk::keep_beside(path, ".before-highwater")?;
    let next = disk::with_suffix(path, ".highwater");
    // Of an attempt that was cut off.
    let _ = fs::remove_file(&next);
    let mut file = disk::create_private(&next)?;
    let placed = fchown(&file, Some(about.uid()), Some(about.gid()))
        .and_then(|()| file.write_all(new.as_bytes()))
        // After the owner, whose change takes permissions away.
        .and_then(|()| file.set_permissions(about.permissions()))
        .and_then(|()| file.sync_all())
        .and_then(|()| fs::rename(&next, path));
    if let Err(error) = placed {
        let _ = fs::remove_file(&next);
        return Err(error);
    }
    disk::sync_parent(path)?;
    Ok(kept)
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt as _, chown};

    #[test]
    fn the_setting_is_found_however_it_is_written() {
        for (old, new) in [
            ("a = 1\npriv_validator_laddr = \"\"\n[p2p]\n", "a = 1\npriv_validator_laddr = \"unix:///n\"\n[p2p]\n"),
            ("  priv_validator_laddr='' # none", "  priv_validator_laddr=\"unix:///n\" # none"),
            ("a = 1\n", "priv_validator_laddr = \"unix:///n\"\na = 1\n"),
            // A setting of the same name in a section, or behind `#`, is another.
            (
                "[x]\npriv_validator_laddr = \"b\"",
                "priv_validator_laddr = \"unix:///n\"\n[x]\npriv_validator_laddr = \"b\"",
            ),
            ("# priv_validator_laddr = \"b\"", "priv_validator_laddr = \"unix:///n\"\n# priv_validator_laddr = \"b\""),
        ] {
            assert_eq!(Setting::of(old).unwrap().replaced(old, "unix:///n").as_deref(), Some(new));
            assert_eq!(Setting::of(new), Ok(Setting::Set("unix:///n".into())), "{new}");
        }
        assert_eq!(Setting::of("priv_validator_laddr = 7"), Ok(Setting::Set("7".into())));
        assert!(Setting::of("priv_validator_laddr = ").is_err());
    }

    #[test]
    fn the_new_file_of_the_node_keeps_owner_and_permissions() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.toml");
        fs::write(&path, "priv_validator_laddr = \"\"\n").unwrap();
        // Only root can give a file away.
        let _ = chown(&path, Some(4242), Some(4343));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let old = fs::metadata(&path).unwrap();
        let kept = set_laddr(&path, "unix:///n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "priv_validator_laddr = \"unix:///n\"\n");
        assert_eq!(fs::read_to_string(&kept).unwrap(), "priv_validator_laddr = \"\"\n");
        for file in [&path, &kept] {
            let new = fs::metadata(file).unwrap();
            assert_eq!((new.uid(), new.gid(), new.mode()), (old.uid(), old.gid(), old.mode()));
        }
        assert!(set_laddr(&path, "unix:///other").is_err(), "what is set stays");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2, "and nothing is left behind");
    }
}

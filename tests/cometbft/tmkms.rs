//! Highwater in the place of tmkms and CometBFT's own signer, and back: what they wrote is taken as it is, and nothing
//! that one of them may have signed is signed by another.

use crate::support::cli::{self, Home, Running, seed};
use crate::support::plain_node::{Ballot, PlainNode, Verdict};
use ed25519_dalek::{Signer as _, SigningKey};
use highwater_core::{
    consensus::ChainId,
    privval::{ErrorCode, MessageKind},
};
use serde_json::{Value, json};
use std::{fs, io::Write as _, path::PathBuf, process::Command};
use subtle_encoding::{base64, hex};

use MessageKind::{Precommit, Prevote};
use Verdict::{Dropped, Refused, Signed};

const VERSION: &str = "0.15.0";
const CHAIN: &str = "osmosis-1";
const STATE: &str = "state/osmosis-1-consensus.json";
const PROPOSAL: MessageKind = MessageKind::Proposal { pol_round: -1 };
const DOUBLE_SIGN: Verdict = Refused(ErrorCode::DoubleSign as i32);
const REGRESSION: Verdict = Refused(ErrorCode::Regression as i32);
/// The answer of tmkms to a double sign; any other refusal ends the connection.
const TMKMS_DOUBLE_SIGN: Verdict = Refused(2);

/// A home that `tmkms init` made, with a key that `tmkms softsign keygen` made. Only the node's address is changed,
/// which in the original is a name on the internet.
struct Migrant {
    home: Home,
    tmkms: PathBuf,
}

impl Migrant {
    /// `None` if there is no tmkms to test with.
    fn new() -> Option<Self> {
        let migrant = Self { tmkms: tmkms()?, home: Home::new() };
        let home = &migrant.home;
        migrant.run_tmkms("init -n osmosis .");
        migrant.run_tmkms("softsign keygen secrets/osmosis-1-consensus.key");
        let text = fs::read_to_string(home.path("tmkms.toml")).unwrap();
        let address = "tcp://deadbeefdeadbeefdeadbeefdeadbeefdeadbeef@example1.example.com:26658";
        assert!(text.contains(address) && text.contains(home.path(STATE).to_str().unwrap()), "{text}");
        home.write("tmkms.toml", text.replace(address, &format!("unix://{}", home.path("node.sock").display())));
        Some(migrant)
    }

    fn run_tmkms(&self, words: &str) {
        let answer = self.home.finish(&mut self.command(words));
        assert_eq!(answer.code, 0, "{answer:#?}");
    }

    fn command(&self, words: &str) -> Command {
        let mut command = Command::new(&self.tmkms);
        command.args(words.split_whitespace()).current_dir(self.home.path("")).env_remove("TMKMS_CONFIG_FILE");
        command
    }

    fn node(&self) -> PlainNode {
        PlainNode::bind(&self.home.path("node.sock"), CHAIN)
    }

    fn start_tmkms(&self) -> Running<'_> {
        self.home.spawn("tmkms", &mut self.command("start"))
    }

    fn start_highwater(&self) -> Running<'_> {
        self.home.spawn("highwater", &mut self.home.highwater("start"))
    }

    /// Has tmkms sign these, one after the other, and stops it.
    fn sign_with_tmkms(&self, node: &mut PlainNode, ballots: &[Ballot]) {
        let tmkms = self.start_tmkms();
        node.meet();
        for ballot in ballots {
            assert_eq!(node.ask(*ballot), Signed, "{ballot:?}");
        }
        tmkms.terminate();
    }

    /// Has Highwater sign these, one after the other, and stops it.
    fn sign_with_highwater(&self, node: &mut PlainNode, ballots: &[Ballot]) {
        let highwater = self.start_highwater();
        node.meet();
        for ballot in ballots {
            assert_eq!(node.ask(*ballot), Signed, "{ballot:?}");
        }
        assert!(highwater.terminate().success());
    }

    fn rename(&self, from: &str, to: &str) {
        fs::rename(self.home.path(from), self.home.path(to)).unwrap();
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.home.path(name)).unwrap()
    }
}

#[test]
fn a_home_of_tmkms_is_imported_by_one_command_and_never_by_a_start() {
    let Some(migrant) = Migrant::new() else { return };
    let home = &migrant.home;
    let kept = format!("{STATE}.imported");
    home.run("check").assert(2, "fail  chain osmosis-1: there is no state file", "");
    let mut node = migrant.node();
    migrant.sign_with_tmkms(&mut node, &[Ballot(Prevote, 10, 2, Some(1)), Ballot(Precommit, 10, 2, Some(1))]);
    let written = migrant.text(STATE);

    let refused = "belongs to another program: `start` never takes it over|run `highwater state import`";
    home.run("check").assert(
        2,
        "ok    ./tmkms.toml is|ok    chain osmosis-1: key osmovalconspub1|`start` never takes it over",
        "",
    );
    home.run("start").assert(65, "", refused);
    home.run("state show").assert(66, "", "there is no state file");
    assert_eq!(migrant.text(STATE), written, "looking and starting change nothing");

    home.run("state import").assert(
        0,
        "imported|mark      height 10 round 2 precommit",
        "is kept as|the state of tmkms",
    );
    assert_eq!(migrant.text(&kept), written);
    let mut highwater = migrant.start_highwater();
    node.meet();
    for (ballot, verdict) in [
        (Ballot(Precommit, 10, 2, Some(1)), DOUBLE_SIGN),
        (Ballot(Precommit, 10, 2, Some(2)), DOUBLE_SIGN),
        (Ballot(Precommit, 10, 2, None), DOUBLE_SIGN),
        (Ballot(Prevote, 10, 2, Some(1)), REGRESSION),
        (Ballot(Precommit, 10, 1, Some(1)), REGRESSION),
        (Ballot(Precommit, 9, 3, Some(1)), REGRESSION),
        (Ballot(PROPOSAL, 10, 3, Some(3)), Signed),
        (Ballot(Prevote, 11, 0, Some(4)), Signed),
    ] {
        assert_eq!(node.ask(ballot), verdict, "{ballot:?}");
    }
    highwater.wait_for_line("chain open");
    assert!(highwater.terminate().success());

    // Somebody puts the old file back: it changes nothing but what is said.
    migrant.rename(&kept, STATE);
    let mut again = migrant.start_highwater();
    let line = again.wait_for_line("chain open");
    assert!(line.contains("mark=11/0/prevote"), "{line}");
    assert!(again.log().contains("tmkms has written its state"), "{}", again.log());
    drop(node);
}

#[test]
fn a_tmkms_that_is_started_by_mistake_signs_nothing() {
    let Some(migrant) = Migrant::new() else { return };
    let mut node = migrant.node();
    let begin = [("state init --never-signed", Vec::new()), ("state import", vec![Ballot(Precommit, 20, 0, Some(1))])];
    for (command, signed_before) in begin {
        let _ = fs::remove_file(migrant.home.path(STATE));
        if !signed_before.is_empty() {
            migrant.sign_with_tmkms(&mut node, &signed_before);
        }
        let _ = fs::remove_file(migrant.home.path(&format!("{STATE}.highwater")));
        let answer = migrant.home.run(command);
        assert_eq!(answer.code, 0, "{answer:?}");
        let tombstone = migrant.text(STATE);
        let tmkms = migrant.start_tmkms();
        for height in [1, 20, 21, 1_000_000, i64::MAX as u64] {
            for kind in [PROPOSAL, Prevote, Precommit] {
                node.meet();
                let verdict = node.ask(Ballot(kind, height, 0, Some(2)));
                assert!(matches!(verdict, Dropped | Refused(_)), "{kind:?} at {height}: {verdict:?}");
            }
        }
        tmkms.terminate();
        assert_eq!(migrant.text(STATE), tombstone);
    }
}

#[test]
fn wherever_tmkms_stopped_highwater_goes_on_above_it() {
    let first = Ballot(PROPOSAL, 5, 0, Some(1));
    for (last, mark, conflicts, next) in [
        (first, "5/0/proposal", [Some(2), Some(3)], Ballot(Prevote, 5, 0, Some(1))),
        (Ballot(Prevote, 5, 0, Some(1)), "5/0/prevote", [Some(2), None], Ballot(Precommit, 5, 0, Some(1))),
        (Ballot(Precommit, 5, 0, Some(1)), "5/0/precommit", [Some(2), None], Ballot(Prevote, 6, 0, None)),
        (Ballot(Precommit, 5, 1, None), "5/1/precommit", [Some(2), Some(3)], Ballot(PROPOSAL, 6, 0, Some(4))),
    ] {
        let Some(migrant) = Migrant::new() else { return };
        let mut node = migrant.node();
        migrant.sign_with_tmkms(&mut node, &[Ballot(Precommit, 4, 7, None), last]);
        migrant.home.run("state import").assert(0, "imported", "is kept as");
        let mut highwater = migrant.start_highwater();
        node.meet();
        highwater.wait_for_line(&format!("mark={mark}"));
        for block in conflicts {
            let conflict = Ballot(last.0, last.1, last.2, block);
            assert_eq!(node.ask(conflict), DOUBLE_SIGN, "{conflict:?} after {last:?}");
        }
        assert_eq!(node.ask(last), DOUBLE_SIGN, "tmkms's file cannot say that it was this: {last:?}");
        assert_eq!(node.ask(next), Signed, "{next:?} after {last:?}");
        assert!(highwater.terminate().success());
    }
}

#[test]
fn tmkms_goes_on_above_what_highwater_exports() {
    let Some(migrant) = Migrant::new() else { return };
    let home = &migrant.home;
    let mut node = migrant.node();
    let config = migrant.text("tmkms.toml");
    home.run("state init --never-signed").assert(0, "made", "");

    // The block, nil, and a mark that knows of neither.
    for last in [Some(Ballot(Precommit, 20, 1, Some(1))), Some(Ballot(Precommit, 40, 1, None)), None] {
        let (height, at_mark) = match last {
            Some(ballot) => {
                migrant.sign_with_highwater(&mut node, &[ballot]);
                (ballot.1, [Some(1), Some(2), None].map(|block| Ballot(Precommit, ballot.1, ballot.2, block)))
            }
            None => {
                home.run("state raise --height 60").assert(0, "raised", "");
                (60, [Some(1), Some(2), None].map(|block| Ballot(Precommit, 60, 2_147_483_647, block)))
            }
        };
        let says = "tmkms continues from|is retired: this signer refuses it until `highwater state import`";
        home.run("state export --format tmkms").assert(0, "", says);
        home.run("start").assert(65, "", "was retired at|`highwater state import FILE`");

        assert_eq!(migrant.text("tmkms.toml"), config);
        let tmkms = migrant.start_tmkms();
        node.meet();
        for ballot in at_mark {
            assert_eq!(node.ask(ballot), TMKMS_DOUBLE_SIGN, "{ballot:?}");
        }
        assert_eq!(node.ask(Ballot(Prevote, height, 0, Some(1))), Dropped);
        node.meet();
        assert_eq!(node.ask(Ballot(Prevote, height + 1, 0, Some(3))), Signed);
        tmkms.terminate();

        // Highwater's own file does not know what tmkms has signed, and the way back does not write over tmkms's.
        home.run("start").assert(65, "", "was retired at|Stop that one|`highwater state import FILE`");
        home.run("state export --format tmkms").assert(73, "", "is not the tombstone");
        let mark = format!("mark      height {} round 0 prevote|mode      active", height + 1);
        home.run("state import").assert(0, &mark, "is kept as|imported the state of tmkms");
        let highwater = migrant.start_highwater();
        node.meet();
        assert_eq!(node.ask(Ballot(Prevote, height + 1, 0, Some(3))), DOUBLE_SIGN);
        assert_eq!(node.ask(Ballot(Precommit, height, 9, Some(3))), REGRESSION);
        assert_eq!(node.ask(Ballot(Precommit, height + 1, 0, Some(3))), Signed);
        assert!(highwater.terminate().success());
    }
}

/// tmkms locks nothing. Left running, it renames a file of its own over the tombstone, and the mark of Highwater stays
/// what it is.
#[test]
fn a_tmkms_that_still_runs_takes_no_mark_of_ours_back() {
    let Some(migrant) = Migrant::new() else { return };
    let mut node = migrant.node();
    let tmkms = migrant.start_tmkms();
    node.meet();
    assert_eq!(node.ask(Ballot(Prevote, 100, 0, Some(1))), Signed);
    migrant.home.run("state import").assert(0, "mark      height 100 round 0 prevote", "is kept as");

    let highwater = migrant.start_highwater();
    let mut second = node.beside();
    second.meet();
    for height in 101..=110 {
        assert_eq!(second.ask(Ballot(Prevote, height, 0, Some(1))), Signed);
    }
    assert_eq!(node.ask(Ballot(Prevote, 103, 0, Some(1))), Signed, "this renames tmkms's file over the tombstone");
    assert_eq!(second.ask(Ballot(Prevote, 111, 0, Some(1))), Signed, "which is not ours");
    assert!(highwater.terminate().success());

    let mut again = migrant.start_highwater();
    second.meet();
    for height in 103..=111 {
        let verdict = second.ask(Ballot(Prevote, height, 0, Some(2)));
        assert!(matches!(verdict, Refused(_)), "{height}: {verdict:?}");
    }
    assert_eq!(second.ask(Ballot(Prevote, 112, 0, None)), Signed);
    again.wait_for_line("chain open");
    let log = again.log();
    assert!(log.contains("tmkms has written its state") && log.contains("at 103/0/prevote"), "{log}");
    assert!(again.terminate().success());
    tmkms.terminate();
    let told = migrant.home.run("check");
    told.assert(1, "warn  chain osmosis-1: tmkms has written its state|Stop tmkms for good", "");
    migrant.home.run("state import").assert(65, "", "only moves forward|112/0/prevote|103/0/prevote");
    // The way to a tombstone again, as the warning tells it.
    migrant.rename(STATE, "state/of-tmkms");
    migrant.home.run("state import").assert(0, "mark      height 112", "imported the state of Highwater");
    migrant.home.run("check").assert(0, "ok    chain osmosis-1: state file", "");
}

#[test]
fn the_example_of_tmkms_names_what_to_change_and_then_signs() {
    let Some(example) = example() else { return };
    let home = Home::new();
    let line_of = |words: &str| 1 + example.lines().position(|line| line == words).unwrap();
    let yubihsm = line_of("[[providers.yubihsm]]");
    home.write("tmkms.toml", &example);
    let doubled = "the chain cosmoshub-3 already has its consensus key, on line";
    let before = home.snapshot();
    let answer = home.run("check");
    answer.assert(2, doubled, "");
    assert_eq!(answer.stdout.lines().count(), 1, "{answer:#?}");

    // Without that section, all that is left to do is said at once.
    let section: Vec<_> = example.lines().skip(yubihsm - 1).take_while(|line| *line != "]").chain(["]\n"]).collect();
    let software = example.replacen(&section.join("\n"), "", 1);
    assert_eq!(software.lines().count() + section.len(), example.lines().count(), "{software}");
    home.write("tmkms.toml", &software);
    let text = "ok    ./tmkms.toml is a valid configuration|warn  ./tmkms.toml:19: `sign_extensions`|\
                fail  chain cosmoshub-3: there is no path/to/consensus-ed25519.key|\
                warn  chain irishub: no [[validator]] serves it|warn  chain agoricdev-4: no [[validator]] serves it|\
                fail  identity key: there is no path/to/secret_connection.key";
    home.run("check").assert(2, text, "");
    home.run("start").assert(65, "", "no chain can sign|there is no path/to/consensus-ed25519.key");
    assert_eq!(home.snapshot().len(), before.len(), "nothing was made");

    let address = "tcp://f88883b673fc69d7869cab098de3bafc2ff76eb8@example1.example.com:26658";
    let software = [
        (address, format!("unix://{}", home.path("node.sock").display())),
        ("path/to/secret_connection.key", "identity.key".into()),
        ("path/to/consensus-ed25519.key", "consensus.key".into()),
    ]
    .iter()
    .fold(software, |text, (old, new)| {
        assert!(text.contains(old), "{old}");
        text.replace(old, new)
    });
    home.write("tmkms.toml", software);
    home.write("identity.key", base64::encode([9; 32]));
    home.write("consensus.key", base64::encode(seed()));
    home.run("state init --chain cosmoshub-3 --never-signed").assert(0, "made", "warning: ./tmkms.toml:19: ");
    home.run("check").assert(
        1,
        "ok    chain cosmoshub-3: state file ./cosmoshub-3_priv_validator_state.json.highwater is at",
        "",
    );
    let mut node = PlainNode::bind(&home.path("node.sock"), "cosmoshub-3");
    let highwater = home.spawn("highwater", &mut home.highwater("start"));
    node.meet();
    assert_eq!(node.ask(Ballot(PROPOSAL, 1, 0, Some(1))), Signed);
    assert_eq!(node.ask(Ballot(PROPOSAL, 1, 0, Some(2))), DOUBLE_SIGN);
    assert!(highwater.terminate().success());
}

/// A `priv_validator_state.json` as CometBFT's `privval.FilePV` writes it after it has signed `ballot` (its
/// `cmtjson.MarshalIndent`: the height is a string, round and step are numbers).
fn cometbft_state(ballot: Ballot, chain: &str, seed: [u8; 32]) -> Value {
    let bytes = ballot.canonical().sign_bytes(&ChainId::new(chain).unwrap());
    let signature = SigningKey::from_bytes(&seed).sign(bytes.as_slice());
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    json!({
        "height": ballot.1.to_string(),
        "round": ballot.2,
        "step": ballot.0.step().number(),
        "signature": text(base64::encode(signature.to_bytes())),
        "signbytes": text(hex::encode_upper(bytes.as_slice())),
    })
}

#[test]
fn cometbft_is_taken_over_where_its_own_signature_proves_its_state() {
    let ballots = [Ballot(PROPOSAL, 7, 0, Some(1)), Ballot(Prevote, 7, 0, None), Ballot(Precommit, 7, 3, Some(1))];
    for ballot in ballots {
        let home = Home::with_chain();
        let state = cometbft_state(ballot, cli::CHAIN, seed());
        home.write("theirs.json", serde_json::to_string_pretty(&state).unwrap());
        let mark = format!("imported|mark      height 7 round {} {} (last signed)", ballot.2, ballot.0.step());
        home.run("state import theirs.json").assert(
            0,
            &mark,
            "imported the state of CometBFT. Make sure that this was its latest",
        );
        let mut node = PlainNode::bind(&home.path("node.sock"), cli::CHAIN);
        let highwater = home.spawn("highwater", &mut home.highwater("start"));
        node.meet();
        // The message of the file is repeated, and nothing else is signed there.
        let other = Ballot(ballot.0, ballot.1, ballot.2, Some(2));
        assert_eq!(
            [node.ask(other), node.ask(ballot), node.ask(other)],
            [DOUBLE_SIGN, Signed, DOUBLE_SIGN],
            "{ballot:?}"
        );
        assert_eq!(node.ask(Ballot(Precommit, 6, 9, None)), REGRESSION);
        assert_eq!(node.ask(Ballot(PROPOSAL, 8, 0, Some(2))), Signed);
        assert!(highwater.terminate().success());

        // Once more the same is a step back now.
        let before = home.snapshot();
        home.run("state import theirs.json").assert(65, "", "only moves forward|Nothing was changed");
        home.assert_untouched(&before, "a step back");
        let later = cometbft_state(Ballot(Prevote, 9, 0, Some(1)), cli::CHAIN, seed());
        home.write("theirs.json", later.to_string());
        home.run("state import theirs.json").assert(0, "mark      height 9 round 0 prevote", "CometBFT");
    }
}

#[test]
fn a_cometbft_state_that_proves_nothing_is_refused_and_changes_nothing() {
    let ballot = Ballot(Precommit, 7, 3, Some(1));
    let good = cometbft_state(ballot, cli::CHAIN, seed());
    let with = |field: &str, value: Value| {
        let mut state = good.clone();
        state[field] = value;
        state
    };
    let without = |field: &str| {
        let mut state = good.clone();
        state.as_object_mut().unwrap().remove(field).unwrap();
        state
    };
    let cases = [
        (cometbft_state(ballot, "test-2", seed()), "its sign bytes are for chain test-2"),
        (cometbft_state(ballot, cli::CHAIN, [1; 32]), "its signature is not by the configured consensus key"),
        (with("height", json!("8")), "it says 8/3/precommit, but its sign bytes say 7/3/precommit"),
        (with("round", json!(4)), "it says 7/4/precommit, but its sign bytes say 7/3/precommit"),
        (with("step", json!(2)), "it says 7/3/prevote, but its sign bytes say 7/3/precommit"),
        (with("step", json!(0)), "its `step` should be 1 (proposal), 2 (prevote) or 3 (precommit)"),
        (with("height", json!(7)), "its `height` should be a number in a string"),
        (with("signbytes", json!("00")), "its sign bytes are not a vote or proposal"),
        (with("signature", json!("AA==")), "its signature is not by the configured consensus key"),
        (without("signature"), "without the sign bytes and signature|`highwater state init --height 7`"),
        (without("signbytes"), "without the sign bytes and signature|`highwater state init --height 7`"),
        (with("block_id", json!({})), "it is unclear which program wrote it"),
    ];
    for begin in ["", "state init --height 3"] {
        let home = Home::with_chain();
        if !begin.is_empty() {
            home.run(begin).assert(0, "made", "");
        }
        for (state, reason) in &cases {
            home.write("theirs.json", state.to_string());
            let before = home.snapshot();
            let refused = format!("cannot import theirs.json: |{reason}");
            home.run("state import theirs.json").assert(65, "", &refused);
            home.assert_untouched(&before, reason);
        }
        home.write("theirs.json", good.to_string());
        home.run("state import theirs.json").assert(0, "mark      height 7 round 3 precommit", "CometBFT");
    }
}

/// With sign bytes in its file CometBFT would answer a repeat with the signature beside them.
#[test]
fn what_is_exported_for_cometbft_has_nothing_to_sign_again() {
    let home = Home::with_chain();
    home.run("state init --never-signed").assert(0, "made", "");
    let mut node = PlainNode::bind(&home.path("node.sock"), cli::CHAIN);
    let highwater = home.spawn("highwater", &mut home.highwater("start"));
    node.meet();
    assert_eq!(node.ask(Ballot(Prevote, 7, 2, Some(1))), Signed);
    assert!(highwater.terminate().success());

    let answer = home.run("state export --format cometbft");
    answer.assert(0, "{", "is retired");
    let exported: Value = serde_json::from_str(&answer.stdout).unwrap();
    assert_eq!(exported, json!({ "height": "7", "round": 2, "step": 2 }));
    home.run("start").assert(65, "", "was retired at 7/2/prevote");
    let again = home.run("state export --format cometbft");
    assert_eq!(again.stdout, answer.stdout, "a retired file is exported as it was");

    home.write("back.json", cometbft_state(Ballot(Precommit, 9, 0, None), cli::CHAIN, seed()).to_string());
    home.run("state import back.json").assert(0, "mark      height 9 round 0 precommit|mode      active", "CometBFT");
}

/// The real tmkms, as `tests/install/tmkms.sh` installs it.
fn tmkms() -> Option<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").filter(|path| !path.is_empty()).map(PathBuf::from);
    let cache = cache.unwrap_or_else(|| PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache"));
    let binary = cache.join(format!("highwater/tmkms-{VERSION}/bin/tmkms"));
    if binary.is_file() {
        return Some(binary);
    }
    skip(&format!("there is no {}: run tests/install/tmkms.sh", binary.display()))
}

/// The example that comes with the source of tmkms, which cargo keeps where it has built it.
fn example() -> Option<String> {
    let cargo = std::env::var_os("CARGO_HOME").filter(|path| !path.is_empty()).map(PathBuf::from);
    let cargo = cargo.unwrap_or_else(|| PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cargo"));
    let sources = cargo.join("registry/src");
    let registries = fs::read_dir(&sources).into_iter().flatten().flatten();
    let name = format!("tmkms-{VERSION}/tmkms.toml.example");
    match registries.map(|registry| registry.path().join(&name)).find_map(|path| fs::read_to_string(path).ok()) {
        Some(text) => Some(text),
        None => skip(&format!("there is no {name} in {}: build it with tests/install/tmkms.sh", sources.display())),
    }
}

/// Without tmkms there is nothing to test: that fails in CI, and elsewhere says so and passes.
fn skip<T>(missing: &str) -> Option<T> {
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{missing}");
    // Not `eprintln!`, which the test harness swallows when a test passes.
    let mut stderr = std::io::stderr();
    writeln!(stderr, "\n*** SKIPPED: no test against tmkms {VERSION}: {missing} ***").unwrap();
    None
}

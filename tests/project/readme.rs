//! The README: its figures were measured, and the lines of its ten minutes can be typed as they stand.

use crate::support::{
    binary,
    cli::{Guard, wait_for},
    mock_node::{MockNode, precommit},
};
use std::{
    collections::BTreeSet,
    fs::{self, File},
    path::Path,
    process::{Command, Stdio},
};

const README: &str = include_str!("../../README.md");
/// A README is one page.
const LINES_MAX: usize = 110;

/// What stands below a heading, without what stands below the next.
fn section(heading: &str) -> &'static str {
    let (_, rest) = README.split_once(&format!("\n## {heading}\n")).unwrap();
    rest.split("\n## ").next().unwrap()
}

/// Every number in a text, as it is written.
fn numbers(text: &str) -> BTreeSet<&str> {
    let parts = text.split(|c: char| !(c.is_ascii_digit() || ['.', ','].contains(&c)));
    let parts = parts.map(|part| part.trim_matches(['.', ',']));
    parts.filter(|part| part.starts_with(|c: char| c.is_ascii_digit())).collect()
}

/// A text without the targets of its links, and these.
fn without_targets(text: &str) -> (String, Vec<&str>) {
    let mut parts = text.split("](");
    let mut prose = parts.next().unwrap().to_owned();
    let mut targets = Vec::new();
    for part in parts {
        let (target, rest) = part.split_once(')').unwrap();
        targets.push(target.split('#').next().unwrap());
        prose += rest;
    }
    (prose, targets)
}

#[test]
fn each_reason_to_switch_has_its_figures_from_a_page_that_it_links() {
    assert!(README.lines().count() <= LINES_MAX, "the README is {} lines long", README.lines().count());
    let reasons: Vec<_> = section("Why switch from tmkms").split("\n- ").skip(1).collect();
    assert_eq!(reasons.len(), 5);
    let mut found = 0;
    for reason in reasons {
        let (prose, pages) = without_targets(reason);
        assert!(!pages.is_empty(), "nothing stands behind this: {reason}");
        let pages: Vec<_> = pages
            .iter()
            .map(|page| fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(page)).unwrap())
            .collect();
        let measured: BTreeSet<_> = pages.iter().flat_map(|page| numbers(page)).collect();
        // `99th` is a name.
        for number in numbers(&prose.replace("99th", "")) {
            found += 1;
            assert!(measured.contains(number), "{number} is not on a page that this links: {reason}");
        }
    }
    assert!(found > 6, "only {found} figures were found");
}

#[test]
fn the_lines_of_the_ten_minutes_lead_to_a_first_signature() {
    let place = tempfile::Builder::new().prefix("highwater-").tempdir().unwrap();
    let home = place.path().join("highwater");
    let lines = section("Ten minutes to a first signature").lines().filter_map(|line| line.trim().strip_prefix("$ "));
    let lines: Vec<_> = lines.map(|line| line.split(" #").next().unwrap().trim()).collect();
    let (build, rest) = lines.split_first().unwrap();
    assert_eq!(*build, "cargo install --locked --path .");
    let (init, rest) = rest.split_at(2);
    let [keygen, state, check, start, status] = rest else { panic!("other lines than these: {lines:?}") };
    let shell = |line: &str| {
        let programs = binary::highwater().parent().unwrap().to_owned();
        let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
        let mut shell = Command::new("sh");
        shell.args(["-euc", &format!("exec 2>&1; {line}")]).env("PATH", path).env("HOME", place.path());
        shell.env_remove("TMKMS_CONFIG_FILE");
        shell.current_dir(if home.exists() { &home } else { place.path() }).stdin(Stdio::null());
        shell
    };
    let run = |line: &str| {
        let output = shell(line).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    assert_eq!(run(&init.join("\n")).0, Some(0));

    // The second step: the node's address.
    let config = home.join("tmkms.toml");
    let text = fs::read_to_string(&config).unwrap();
    let node = match text.contains("addr = \"unix://") {
        true => MockNode::unix(&place.path().join("node.sock")).unwrap(),
        false => MockNode::tcp().unwrap(),
    };
    let addressed = text.lines().map(|line| match line.strip_prefix("addr = \"") {
        Some(_) => format!("addr = \"{}\"\n", node.address()),
        None => format!("{line}\n"),
    });
    let addressed: String = addressed.collect();
    assert_ne!(addressed, text);
    fs::write(&config, addressed).unwrap();

    for line in [keygen, state, check] {
        let (code, said) = run(line);
        // A warning may be true on this machine.
        assert!(code == Some(0) || code == Some(1) && line == check, "{line}: {said}");
    }
    let log = File::create(place.path().join("log")).unwrap();
    let _signer = Guard(shell(&format!("exec {start}")).stdout(log).spawn().unwrap());
    let mut session = node.accept().unwrap();
    session.ask_vote("osmosis-1", precommit(3, 0, Some(7))).unwrap().unwrap();
    wait_for("a status", || {
        let (code, said) = run(status);
        (code == Some(0) && said.contains("every chain signs") && said.contains("1 signed")).then_some(())
    });
}

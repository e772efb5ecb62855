//! A start that cannot go on: a state hook that fails keeps its chain closed, the exit code says whether another start may help,
//! and a broken invariant ends the process.

use crate::support::{
    assert_alive,
    cli::Guard,
    mock_node::{MockNode, precommit},
    scene::hook_home,
    signer::Home,
};
use std::{
    fs,
    io::Read as _,
    os::unix::fs::PermissionsExt as _,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

const CHAIN: &str = "test-chain";

/// The processes that this one has started, and theirs.
fn family(id: u32) -> Vec<u32> {
    let mut family = vec![id];
    // Each thread has its own.
    for thread in fs::read_dir(format!("/proc/{id}/task")).into_iter().flatten().flatten() {
        let children = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
        children.split_whitespace().for_each(|child| family.extend(self::family(child.parse().unwrap())));
    }
    family.sort_unstable();
    family
}

fn command_line(id: u32) -> String {
    fs::read_to_string(format!("/proc/{id}/cmdline")).unwrap_or_default().replace('\0', " ")
}

#[test]
fn a_chain_whose_state_hook_fails_waits_for_it_and_opens_in_place() {
    let node = MockNode::tcp().unwrap();
    let home = hook_home(CHAIN, &node, "exit 1", true);
    let mut signer = home.start();
    signer.wait_for_log("this chain signs nothing yet: the chain is not open yet: the state hook failed");
    let mut session = node.accept().unwrap();
    let refusal = session.ask_vote(CHAIN, precommit(101, 0, Some(7))).unwrap().unwrap_err();
    assert!(refusal.code == 106 && refusal.description.contains("The hook runs again"), "{refusal:?}");
    // A node that boots is told the key all the same, and another signer is kept away.
    session.ask_pub_key(CHAIN).unwrap().unwrap();
    assert_eq!(home.start().exit_code(), Some(75));
    let status = |words: &str| {
        let output = home.command(&["status"]).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text.contains(words), "{words} is not in {text}");
        output.status.code()
    };
    assert_eq!(status("the chain is not open yet: the state hook failed"), Some(1));

    fs::write(home.path("hook.sh"), "#!/bin/sh\necho '{\"latest_block_height\": \"100\"}'\n").unwrap();
    signer.wait_for_log("chain open");
    assert_eq!(session.ask_vote(CHAIN, precommit(100, 9, Some(7))).unwrap().unwrap_err().code, 101);
    assert_alive(&mut session, &home.public_key(CHAIN), CHAIN, 101);
    assert_eq!(status("every chain signs"), Some(0));
    // One helper stays: it reads the configuration again at SIGHUP.
    let helpers: Vec<_> = family(signer.id()).into_iter().filter(|id| *id != signer.id()).map(command_line).collect();
    assert!(
        matches!(helpers.as_slice(), [one] if one.contains("config-reader")),
        "the process of the hook has done its work: {helpers:?}"
    );
    signer.sigkill();
    assert_eq!(home.mark(CHAIN).0, 101);
}

fn home_for(node: &MockNode, extra: &str) -> Home {
    Home::new().chain(CHAIN, extra).node(&node.address(), CHAIN, "").init()
}

/// A problem that only a person can fix ends the service; a temporary one leads to another start.
#[test]
fn the_exit_code_says_whether_another_start_may_help() {
    let node = MockNode::tcp().unwrap();
    let home = home_for(&node, "");
    let aside = home.path("aside");
    let key = home.key_file(CHAIN);
    fs::rename(&key, &aside).unwrap();
    let mut signer = home.start();
    assert_eq!(signer.exit_code(), Some(74), "a secrets mount comes late: {}", signer.log());
    fs::rename(&aside, &key).unwrap();
    let identity = home.path("identity.key");
    fs::rename(&identity, &aside).unwrap();
    assert_eq!(home.start().exit_code(), Some(74), "the same for an identity key");
    fs::rename(&aside, &identity).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(home.start().exit_code(), Some(65), "permissions do not change by themselves");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();

    let config = home.path("tmkms.toml");
    let text = fs::read_to_string(&config).unwrap();
    let state = home.tmkms_file(CHAIN);
    for (path, code) in [(home.path("none.state"), 65), (home.path("not-mounted/state"), 74)] {
        fs::write(&config, text.replace(state.to_str().unwrap(), path.to_str().unwrap())).unwrap();
        assert_eq!(home.start().exit_code(), Some(code), "{}", path.display());
    }
    let audits = [(home.path("not-mounted/audit"), 74), (home.path("identity.key/audit"), 73)];
    for (path, code) in audits {
        fs::write(&config, format!("{text}[highwater.audit]\nfile = {path:?}\n")).unwrap();
        assert_eq!(home.start().exit_code(), Some(code), "{}", path.display());
    }
}

#[test]
fn a_key_that_comes_late_for_one_of_two_chains_asks_for_another_start() {
    let node = MockNode::tcp().unwrap();
    let late = MockNode::tcp().unwrap();
    let home = Home::new().chain(CHAIN, "").chain("late", "").node(&node.address(), CHAIN, "");
    let home = home.node(&late.address(), "late", "").init();
    let aside = home.path("aside");
    fs::rename(home.key_file("late"), &aside).unwrap();
    let mut signer = home.start();
    let mut session = node.accept().unwrap();
    assert_alive(&mut session, &home.public_key(CHAIN), CHAIN, 1);
    thread::sleep(Duration::from_secs(6));
    signer.assert_running();
    fs::rename(&aside, home.key_file("late")).unwrap();
    assert_eq!(signer.exit_code(), Some(74), "its supervisor starts it again");
    assert!(signer.log().contains("was missing at start and exists now; restart"), "{}", signer.log());
    let _again = home.start();
    assert_alive(&mut late.accept().unwrap(), &home.public_key("late"), "late", 1);
    assert_alive(&mut node.accept().unwrap(), &home.public_key(CHAIN), CHAIN, 2);
}

/// Not a test of its own: the process in which the next test lets a thread panic.
#[test]
#[ignore = "run by a_panic_anywhere_ends_the_process"]
fn panicking_process() {
    highwater::process::panic::end_process_with(str::to_owned, || std::process::exit(70));
    let thread = thread::spawn(|| panic!("played"));
    let _ = thread.join();
    // Reached only by a process that limps on.
    std::process::exit(0);
}

#[test]
fn a_panic_anywhere_ends_the_process() {
    let program = std::env::current_exe().unwrap();
    let arguments = ["--ignored", "--exact", "start::panicking_process", "--nocapture"];
    let child = Command::new(program).args(arguments).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut child = Guard(child);
    assert_eq!(child.wait().code(), Some(70));
    let mut text = String::new();
    child.0.stderr.take().unwrap().read_to_string(&mut text).unwrap();
    assert!(text.contains("a broken invariant ends the process") && text.contains("played"), "{text}");
}

//! The signer as a supervisor sees it: signals, logs nobody reads, hooks.

use crate::support::{
    assert_alive, binary,
    mock_node::{MockNode, precommit, prevote},
    scene::hook_home,
    signer::Home,
};
use std::{
    fs,
    io::Read as _,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

const CHAIN: &str = "test-chain";
const PATIENCE: Duration = Duration::from_secs(30);

/// Kills, by its id, a process that a failed test leaves behind.
struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Guard {
    fn exit_code(&mut self) -> Option<i32> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status.code();
            }
            thread::sleep(Duration::from_millis(5));
        }
        panic!("the process does not end");
    }
}

fn home_for(node: &MockNode, extra: &str) -> Home {
    Home::new().chain(CHAIN, extra).node(&node.address(), CHAIN, "").init()
}

fn start_with(home: &Home, arguments: &[&str], stderr: Stdio) -> Guard {
    let mut command = Command::new(binary::highwater());
    command.arg("start").arg("-c").arg(home.path("tmkms.toml")).args(arguments);
    Guard(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr).spawn().unwrap())
}

#[test]
fn a_log_that_nobody_reads_never_holds_up_an_answer() {
    let node = MockNode::tcp().unwrap();
    let home = home_for(&node, "");
    // A pipe holds 64 KiB. With -v each request logs far more than 20 bytes, so 4000 overflow it.
    let mut signer = start_with(&home, &["-v"], Stdio::piped());
    let mut session = node.accept().unwrap();
    for height in 1..=4000 {
        session.ask_vote(CHAIN, prevote(height, 0, Some(7))).unwrap().unwrap();
    }
    let mut logged = [0; 64 * 1024];
    let stderr = signer.0.stderr.as_mut().unwrap();
    stderr.read_exact(&mut logged).expect("the pipe was full all the while");
}

#[test]
fn a_log_that_nobody_reads_never_holds_up_the_end_even_where_both_outputs_are_one_pipe() {
    let node = MockNode::tcp().unwrap();
    let home = home_for(&node, "");
    let (unread, pipe) = std::io::pipe().unwrap();
    let mut command = Command::new(binary::highwater());
    command.args(["start", "-v", "-c"]).arg(home.path("tmkms.toml")).stdin(Stdio::null());
    let mut signer = Guard(command.stdout(pipe.try_clone().unwrap()).stderr(pipe).spawn().unwrap());
    let mut session = node.accept().unwrap();
    // More than the pipe and the queue behind it hold.
    for _ in 0..8000 {
        session.ping().unwrap();
    }
    let begin = Instant::now();
    assert!(Command::new("kill").args(["-TERM", &signer.0.id().to_string()]).status().unwrap().success());
    assert_eq!(signer.exit_code(), Some(0));
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
    drop(unread);
}

#[test]
fn three_signals_end_it_with_code_0_also_while_it_waits_or_dials() {
    for signal in ["-TERM", "-INT", "-QUIT"] {
        for state in ["serving", "parked", "dialling"] {
            let node = MockNode::tcp().unwrap();
            let home = home_for(&node, "");
            let mut signer = start_with(&home, &[], Stdio::null());
            let connection = node.accept_raw(PATIENCE).unwrap();
            let held = match state {
                "serving" => {
                    let mut session = connection.into_session().unwrap();
                    session.ping().unwrap();
                    Some(session)
                }
                "parked" => {
                    thread::sleep(Duration::from_millis(50));
                    None
                }
                _ => {
                    drop(connection);
                    drop(node);
                    thread::sleep(Duration::from_millis(200));
                    None
                }
            };
            let begin = Instant::now();
            let id = signer.0.id().to_string();
            assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
            assert_eq!(signer.exit_code(), Some(0), "{signal} while {state}");
            assert!(begin.elapsed() < Duration::from_secs(10), "{signal} while {state} took {:?}", begin.elapsed());
            drop(held);
        }
    }
}

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

#[test]
fn other_signals_are_told_and_end_neither_the_signer_nor_a_process_of_its_own() {
    let node = MockNode::tcp().unwrap();
    // A name has a process that looks it up, and a hook that fails has one that runs it again.
    let named = node.address().replace("127.0.0.1", "localhost");
    let hook = "state_hook = { cmd = [\"/bin/false\"] }";
    let home = Home::new().chain(CHAIN, "").chain("other", hook).node(&named, CHAIN, "");
    let home = home.node("tcp://127.0.0.1:1", "other", "").init();
    let mut signer = home.start();
    let mut session = node.accept().unwrap();
    assert_alive(&mut session, &home.public_key(CHAIN), CHAIN, 1);
    let all = family(signer.id());
    assert!(all.len() >= 3, "{all:?}");
    for signal in ["HUP", "USR1", "USR2"] {
        for id in &all {
            assert!(Command::new("kill").args([&format!("-{signal}"), &id.to_string()]).status().unwrap().success());
        }
        signer.wait_for_log(&format!("SIG{signal}"));
    }
    thread::sleep(Duration::from_secs(1));
    assert_eq!(family(signer.id()), all, "nobody has ended");
    assert_alive(&mut session, &home.public_key(CHAIN), CHAIN, 2);
    let ends: Vec<_> = all.iter().map(ToString::to_string).collect();
    assert!(Command::new("kill").arg("-QUIT").args(ends).status().unwrap().success());
    assert_eq!(signer.exit_code(), Some(0));
}

#[test]
fn log_lines_carry_what_was_asked_and_what_came_of_it() {
    let node = MockNode::tcp().unwrap();
    let home = home_for(&node, "");
    let mut signer = home.start();
    let mut session = node.accept().unwrap();
    session.ask_vote(CHAIN, precommit(5, 2, Some(7))).unwrap().unwrap();
    session.ask_vote(CHAIN, precommit(5, 2, Some(8))).unwrap().unwrap_err();
    session.ask_vote(CHAIN, prevote(6, 0, None)).unwrap().unwrap();
    signer.wait_for_log("double sign refused");
    signer.wait_for_log("\"block\":\"nil\"");
    let log = signer.log();
    let line = |text: &str| -> serde_json::Value {
        serde_json::from_str(log.lines().find(|line| line.contains(text)).unwrap()).unwrap()
    };
    let signed = line("\"message\":\"signed\"");
    assert_eq!(signed["chain"], CHAIN);
    assert_eq!(signed["node"], node.address());
    assert_eq!((&signed["request"], &signed["height"], &signed["round"]), (&"precommit".into(), &5.into(), &2.into()));
    assert!(signed["us"].is_u64());
    let refused = line("double sign refused");
    assert_eq!((&refused["reason"], &refused["level"]), (&"block-against-block".into(), &"WARN".into()));
    // Which node voted nil, and which for which block, is a search.
    assert_eq!((&signed["block"], &refused["block"]), (&"0707070707070707".into(), &"0808080808080808".into()));
    let nil = line("\"block\":\"nil\"");
    assert_eq!((&nil["request"], &nil["height"]), (&"prevote".into(), &6.into()));
}

#[test]
fn a_state_hook_raises_the_mark_durably_before_the_first_answer() {
    let node = MockNode::tcp().unwrap();
    let home = hook_home(CHAIN, &node, r#"echo '{"latest_block_height": "100"}'"#, true);
    let mut signer = home.start();
    let mut session = node.accept().unwrap();
    assert_eq!(session.ask_vote(CHAIN, precommit(100, 9, Some(7))).unwrap().unwrap_err().code, 101);
    assert_alive(&mut session, &home.public_key(CHAIN), CHAIN, 101);
    signer.sigkill();
    assert_eq!(home.mark(CHAIN).0, 101);
}

#[test]
fn a_chain_that_may_go_on_without_its_state_hook_does() {
    let node = MockNode::tcp().unwrap();
    let home = hook_home(CHAIN, &node, "exit 1", false);
    let mut signer = home.start();
    assert_alive(&mut node.accept().unwrap(), &home.public_key(CHAIN), CHAIN, 1);
    signer.wait_for_log("going on without the state hook");
}

#[test]
fn a_state_hook_that_hangs_holds_up_no_end_and_is_not_left_behind() {
    let node = MockNode::tcp().unwrap();
    let home = hook_home(CHAIN, &node, "if [ -e second ]; then sleep 300; fi; touch second; exit 1", true);
    let mut signer = home.start_in_shell(&format!("cd {}", home.path("").display()));
    signer.wait_for_log("this chain signs nothing yet");
    // The hook, which has begun to sleep.
    let asleep = || -> Vec<u32> { family(signer.id()).into_iter().filter(|id| is_sleep(*id)).collect() };
    let deadline = Instant::now() + PATIENCE;
    while asleep().is_empty() {
        assert!(Instant::now() < deadline, "the hook is not run again");
        thread::sleep(Duration::from_millis(20));
    }
    let hook = asleep();
    let begin = Instant::now();
    signer.sigterm();
    assert_eq!(signer.exit_code(), Some(0));
    assert!(begin.elapsed() < Duration::from_secs(8), "{:?}", begin.elapsed());
    while hook.iter().any(|id| is_sleep(*id)) {
        assert!(begin.elapsed() < PATIENCE, "the hook was left behind");
        thread::sleep(Duration::from_millis(20));
    }
}

fn is_sleep(id: u32) -> bool {
    fs::read_to_string(format!("/proc/{id}/cmdline")).is_ok_and(|command| command.starts_with("sleep"))
}

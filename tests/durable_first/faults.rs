//! A failure, or the end of the process, at every system call of the signer in turn.

use crate::{
    CHAIN, OTHER, PROMISE,
    history::{Ask, History},
    support::{
        assert_alive,
        assurance::report,
        mock_node::{MockNode, Session},
        signer::{Home, Signer},
        strace::{self, Attached, Event},
    },
};
use std::{collections::BTreeMap, fs};

const STATE_UNUSABLE: i32 = 106;
/// Heights in a script.
const HEIGHTS: i64 = 2;
/// Three for each of them.
const MESSAGES: usize = 6;

/// A home whose history goes on through many lives.
struct Scene {
    home: Home,
    node: MockNode,
    other: MockNode,
    other_height: i64,
    height: i64,
    history: History,
    lives: u32,
}

/// One life of the signer, connected.
struct Life {
    session: Session,
    other: Session,
    signer: Signer,
    /// The thread that serves the node.
    thread: u32,
}

impl Scene {
    fn new() -> Self {
        let home = Home::new();
        let node = MockNode::unix(&home.path("node.sock")).unwrap();
        let other = MockNode::tcp().unwrap();
        let home = home
            .chain(CHAIN, "")
            .chain(OTHER, "")
            .node(&node.address(), CHAIN, "")
            .node(&other.address(), OTHER, "")
            .init();
        Self { home, node, other, other_height: 0, height: 1, history: History::default(), lives: 0 }
    }

    fn start(&mut self) -> Life {
        let signer = self.home.start();
        self.connected(signer)
    }

    fn connected(&mut self, signer: Signer) -> Life {
        let mut session = self.node.accept().unwrap();
        session.ping().unwrap();
        let mut other = self.other.accept().unwrap();
        other.ping().unwrap();
        let thread = strace::node_threads(signer.id())[0];
        self.lives += 1;
        Life { session, other, signer, thread }
    }

    /// The next request.
    fn script(&mut self) -> Vec<Ask> {
        let first = self.height;
        self.height += HEIGHTS;
        (first..self.height).flat_map(|height| Ask::round(height, 7)).collect()
    }

    fn trace(&self, life: &Life, options: &[&str]) -> Attached {
        Attached::new(life.thread, &self.home.path(&format!("strace.{}", self.lives)), options)
    }

    /// After the end of a life: the mark covers what left, and a conflict gets nothing, nor does it get in later.
    fn check_after_crash(&mut self, life: &mut Life, asked: &[Ask]) {
        self.history.assert_covered(&self.home, CHAIN);
        for ask in asked {
            let left = self.history.has(ask.place());
            let answer = ask.conflicting().ask(&mut life.session, CHAIN, &mut self.history).unwrap();
            assert!(!(left && answer.is_ok()), "a conflict with what had left was signed: {ask:?}");
        }
        // The history itself refuses a second message for any place.
        for ask in asked {
            let _ = ask.ask(&mut life.session, CHAIN, &mut self.history).unwrap();
        }
    }

    fn other_chain_signs(&mut self, life: &mut Life) {
        self.other_height += 1;
        assert_alive(&mut life.other, &self.home.public_key(OTHER), OTHER, self.other_height);
    }
}

/// Asks until the link is gone. What was asked, the last of it without an answer.
fn ask_until_the_end(life: &mut Life, script: Vec<Ask>, history: &mut History) -> Vec<Ask> {
    let mut asked = Vec::new();
    for ask in script {
        let answer = ask.ask(&mut life.session, CHAIN, history);
        asked.push(ask);
        match answer {
            Ok(answer) => answer.unwrap(),
            Err(_) => break,
        }
    }
    asked
}

#[test]
fn a_kill_at_any_system_call_loses_no_mark_that_was_relied_on() {
    if !strace::permitted() {
        return;
    }
    let mut scene = Scene::new();
    // Which calls a script takes, and how many of each.
    let mut life = scene.start();
    let tracing = scene.trace(&life, &[]);
    let log = scene.home.path(&format!("strace.{}", scene.lives));
    let script = scene.script();
    ask_until_the_end(&mut life, script, &mut scene.history);
    life.signer.sigkill();
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for event in strace::read(&log) {
        if let Event::Begin(_, call) = event {
            *counts.entry(call.name).or_default() += 1;
        }
    }
    drop(tracing);
    for name in ["pwrite64", "fdatasync", "statx"] {
        assert_eq!(counts.get(name), Some(&MESSAGES), "every mark takes one: {counts:?}");
    }

    let mut life = scene.start();
    let mut kills = 0;
    for (name, count) in &counts {
        for number in 1..=*count {
            let (trace, inject) = (format!("trace={name}"), format!("inject={name}:signal=KILL:when={number}"));
            let tracing = scene.trace(&life, &["-e", &trace, "-e", &inject]);
            let script = scene.script();
            let asked = ask_until_the_end(&mut life, script, &mut scene.history);
            // Calls that belong to no message in particular may be fewer this time.
            let killed = life.session.ping().is_err();
            assert!(killed || !["pwrite64", "fdatasync", "statx", "sendto"].contains(&name.as_str()), "{inject}");
            kills += u64::from(killed);
            life.signer.sigkill();
            drop(tracing);
            scene.history.assert_covered(&scene.home, CHAIN);
            life = scene.start();
            scene.check_after_crash(&mut life, &asked);
            scene.other_chain_signs(&mut life);
        }
    }
    report(PROMISE, "kills at every system call of a working signer, each followed by conflicting requests", kills);
}

#[test]
fn a_kill_at_any_system_call_of_the_start_changes_no_mark() {
    if !strace::permitted() {
        return;
    }
    let mut scene = Scene::new();
    let mut life = scene.start();
    let script = scene.script();
    let asked = ask_until_the_end(&mut life, script, &mut scene.history);
    life.signer.sigkill();
    let mark = scene.home.mark(CHAIN);
    let log = scene.home.path("strace.start");
    let mut kills = 0;
    for name in ["flock", "fsync", "pread64", "pwrite64", "fdatasync"] {
        for number in 1.. {
            let mut signer = strace::start(
                &scene.home,
                &log,
                &format!("-e trace={name} -e inject={name}:signal=KILL:when={number}"),
            );
            let reached = scene.node.accept_raw(std::time::Duration::ZERO).is_ok();
            // Either it is killed, or it dials: main has made all its calls.
            let survived = reached || !killed_before_dialling(&scene.node, &mut signer);
            signer.sigkill();
            assert_eq!(scene.home.mark(CHAIN), mark, "{name} {number}");
            if survived {
                assert!(number > 1, "{name} is never called");
                break;
            }
            kills += 1;
        }
    }
    let mut life = scene.start();
    scene.check_after_crash(&mut life, &asked);
    report(PROMISE, "kills at every system call with which a start opens its state", kills);
}

/// Waits for the one or the other.
fn killed_before_dialling(node: &MockNode, signer: &mut Signer) -> bool {
    use std::time::{Duration, Instant};
    let deadline = Instant::now() + Duration::from_secs(20);
    while Instant::now() < deadline {
        if node.accept_raw(Duration::from_millis(5)).is_ok() {
            return false;
        }
        if fs::read_to_string(format!("/proc/{}/stat", signer.id())).is_ok_and(|stat| stat.contains(") Z ")) {
            return true;
        }
    }
    panic!("the signer neither dials nor ends");
}

/// Faults of a disk, as the signer meets them while it works, and what it says.
const FAULTS: [(&str, &str, &str); 4] = [
    ("fdatasync", "EIO", "cannot flush: Input/output error"),
    ("pwrite64", "ENOSPC", "cannot write: No space left on device"),
    ("pwrite64", "EROFS", "cannot write: Read-only file system"),
    ("statx", "EIO", "cannot look up: Input/output error"),
];

#[test]
fn a_failed_write_flush_or_look_stops_its_chain_until_a_restart_and_no_other() {
    if !strace::permitted() {
        return;
    }
    let mut scene = Scene::new();
    let mut life = scene.start();
    let mut faults = 0;
    for (call, error, says) in FAULTS {
        for number in 1..=MESSAGES {
            let (trace, inject) = (format!("trace={call}"), format!("inject={call}:error={error}:when={number}"));
            let tracing = scene.trace(&life, &["-e", &trace, "-e", &inject]);
            let script = scene.script();
            for (index, ask) in script.iter().enumerate() {
                let answer = ask.ask(&mut life.session, CHAIN, &mut scene.history).unwrap();
                let expected = match (index + 1).cmp(&number) {
                    std::cmp::Ordering::Less => {
                        answer.unwrap();
                        continue;
                    }
                    std::cmp::Ordering::Equal => says,
                    std::cmp::Ordering::Greater => "failed earlier and stays closed until a restart",
                };
                let refusal = answer.expect_err("no signature without a durable mark");
                assert_eq!(refusal.code, STATE_UNUSABLE, "{refusal:?}");
                assert!(refusal.description.contains(expected), "{inject}: {refusal:?}");
            }
            // A second flush would succeed, over pages that the first one lost. It is not asked for.
            drop(tracing);
            let failed = &script[number - 1];
            for again in [failed.clone(), failed.conflicting()] {
                again.ask(&mut life.session, CHAIN, &mut scene.history).unwrap().unwrap_err();
            }
            life.session.ping().unwrap();
            scene.other_chain_signs(&mut life);
            life.signer.assert_running();
            faults += 1;

            life.signer.sigkill();
            scene.history.assert_covered(&scene.home, CHAIN);
            life = scene.start();
            scene.check_after_crash(&mut life, &script);
        }
    }
    report(PROMISE, "failed writes, flushes and look-ups at work, each of which stopped its chain alone", faults);
}

#[test]
fn a_signer_whose_only_disk_failed_ends_for_another_start_which_signs() {
    if !strace::permitted() {
        return;
    }
    let home = Home::new();
    let node = MockNode::unix(&home.path("node.sock")).unwrap();
    let home = home.chain(CHAIN, "").node(&node.address(), CHAIN, "").init();
    let mut signer = home.start();
    let mut session = node.accept().unwrap();
    assert_alive(&mut session, &home.public_key(CHAIN), CHAIN, 1);
    let thread = strace::node_threads(signer.id())[0];
    let options = ["-e", "trace=pwrite64", "-e", "inject=pwrite64:error=EROFS:when=1"];
    let tracing = Attached::new(thread, &home.path("strace"), &options);
    let refusal = Ask::round(2, 7)[0].ask(&mut session, CHAIN, &mut History::default()).unwrap().unwrap_err();
    assert_eq!(refusal.code, STATE_UNUSABLE, "{refusal:?}");
    drop(tracing);
    assert_eq!(signer.exit_code(), Some(74), "its supervisor starts it again");
    assert!(signer.log().contains("no chain signs any more; restart when the disk works again"), "{}", signer.log());
    let _again = home.start();
    assert_alive(&mut node.accept().unwrap(), &home.public_key(CHAIN), CHAIN, 2);
}

#[test]
fn a_fault_while_the_state_is_opened_closes_its_chain_and_no_other() {
    if !strace::permitted() {
        return;
    }
    let scene = Scene::new();
    let log = scene.home.path("strace.start");
    // The file, its directory, the newest record again, and the flush of that.
    let faults = [
        ("fsync", 1, "cannot flush: Input/output error"),
        ("fsync", 2, "cannot flush: Input/output error"),
        ("pwrite64", 1, "cannot write: Input/output error"),
        ("fdatasync", 1, "cannot flush: Input/output error"),
    ];
    for (height, (call, number, says)) in (1..).zip(faults) {
        let options = format!("-e trace={call} -e inject={call}:error=EIO:when={number}");
        let mut signer = strace::start(&scene.home, &log, &options);
        let (mut session, mut other) = (scene.node.accept().unwrap(), scene.other.accept().unwrap());
        for ask in Ask::round(height, 7) {
            let refusal = ask.ask(&mut session, CHAIN, &mut History::default()).unwrap().unwrap_err();
            assert_eq!(refusal.code, STATE_UNUSABLE);
            assert!(refusal.description.contains(says), "{refusal:?}");
        }
        session.ping().unwrap();
        assert_alive(&mut other, &scene.home.public_key(OTHER), OTHER, height);
        signer.assert_running();
        assert_eq!(scene.home.mark(CHAIN).0, 0);
    }
    report(PROMISE, "faults while a state file is opened, each of which closed its chain alone", faults.len() as u64);
}

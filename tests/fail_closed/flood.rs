//! A node that asks as fast as it can for what it does not get, and an audit file that reaches its size: neither costs a
//! signature its line, and neither fills the disk.

use crate::support::{
    hsm::Descendant,
    mock_node::{MockNode, precommit},
    signer::Home,
};
use highwater::record::evidence::highest_signed;
use highwater_core::consensus::ChainId;
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

const FLOODED: &str = "flooded-1";
const CALM: &str = "calm-1";
const PATIENCE: Duration = Duration::from_secs(20);

fn lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

fn with_audit(home: &Home, extra: &str) -> PathBuf {
    let config = fs::read_to_string(home.path("tmkms.toml")).unwrap();
    let file = home.path("audit.jsonl");
    fs::write(home.path("tmkms.toml"), format!("{config}[highwater.audit]\nfile = {file:?}\n{extra}\n")).unwrap();
    file
}

#[test]
fn a_hostile_node_fills_neither_log_nor_audit_file_and_costs_no_other_chain_a_line() {
    const SIGNED: i64 = 100;
    let home = Home::new().chain(FLOODED, "").chain(CALM, "");
    let nodes = ["a.sock", "b.sock"].map(|name| MockNode::unix(&home.path(name)).unwrap());
    let home = home.node(&nodes[0].address(), FLOODED, "").node(&nodes[1].address(), CALM, "").init();
    let audit = with_audit(&home, "");
    let mut signer = home.start();
    let [mut hostile, mut honest] = nodes.each_ref().map(|node| node.accept().unwrap());
    hostile.ask_vote(FLOODED, precommit(1000, 0, Some(7))).unwrap().unwrap();
    let done = AtomicBool::new(false);
    let asked = thread::scope(|scope| {
        let flood = scope.spawn(|| {
            let mut asked = 0;
            // Each asks for another height, so that no two lines are equal, and for what was signed already.
            while !done.load(Relaxed) || asked < 2000 {
                hostile.ask_vote(FLOODED, precommit(1 + asked % 900, 0, Some(7))).unwrap().unwrap_err();
                hostile.ask_vote(FLOODED, precommit(1000, 0, Some(7))).unwrap().unwrap();
                asked += 1;
            }
            asked
        });
        for height in 1..=SIGNED {
            honest.ask_vote(CALM, precommit(height, 0, Some(7))).unwrap().unwrap();
        }
        done.store(true, Relaxed);
        flood.join().unwrap()
    });
    signer.sigterm();
    assert_eq!(signer.exit_code(), Some(0));

    let lines = lines(&audit);
    let of = |chain: &str, result: &str| -> Vec<u64> {
        let fits = |line: &&Value| line["chain"] == chain && line["result"] == result;
        lines.iter().filter(fits).map(|line| line["count"].as_u64().unwrap_or(1)).collect()
    };
    assert_eq!(of(CALM, "signed").len(), usize::try_from(SIGNED).unwrap());
    assert_eq!(of(FLOODED, "signed"), [1]);
    for result in ["refused", "repeated"] {
        let told = of(FLOODED, result);
        assert_eq!(told.iter().sum::<u64>(), u64::try_from(asked).unwrap(), "{result}: each is told or counted");
        assert!(told.len() < 200, "{result}: {} lines", told.len());
    }
    let log = signer.log();
    assert!(log.contains("requests of this node without their own log lines"), "{log}");
    let about_flood = log.lines().filter(|line| line.contains(FLOODED)).count();
    assert!(about_flood < 400, "{about_flood} lines");
}

#[test]
fn a_confined_signer_has_its_audit_file_rotated_and_carries_on_what_was_signed() {
    let home = Home::new().chain(FLOODED, "").chain(CALM, "");
    let nodes = ["a.sock", "b.sock"].map(|name| MockNode::unix(&home.path(name)).unwrap());
    let home = home.node(&nodes[0].address(), FLOODED, "").node(&nodes[1].address(), CALM, "").init();
    let audit = with_audit(&home, "max_mib = 1\nkeep = 1");
    // An earlier process has all but filled it, and signed further with the one chain.
    let filler = "{\"time\":1,\"chain\":\"calm-1\",\"node\":\"n\",\"type\":\"prevote\",\"height\":77,\"round\":0,\"result\":\"signed\"}\n";
    fs::write(&audit, filler.repeat((1 << 20) / filler.len())).unwrap();
    let mut signer = home.start();
    let [mut session, _calm] = nodes.each_ref().map(|node| node.accept().unwrap());
    let keeper = Descendant::children_with(signer.id(), "audit-keeper");
    let [keeper] = keeper.as_slice() else { panic!("one keeper, not {keeper:?}") };
    let status = fs::read_to_string(format!("/proc/{}/status", keeper.id)).unwrap();
    assert!(status.contains("NoNewPrivs:\t1") && status.contains("Seccomp:\t2"), "{status}");
    for height in 1..=30 {
        session.ask_vote(FLOODED, precommit(height, 0, Some(7))).unwrap().unwrap();
    }
    let begin = Instant::now();
    let is_in = || lines(&audit).iter().any(|line| line["height"] == 30);
    while !is_in() {
        assert!(begin.elapsed() < PATIENCE, "{}", signer.log());
        thread::sleep(Duration::from_millis(20));
    }
    let older = home.path("audit.jsonl.1");
    assert!(fs::metadata(&older).unwrap().len() > 1_000_000, "the old one has moved on");
    let first = &lines(&audit)[0];
    assert_eq!((&first["result"], &first["chain"], &first["height"]), (&"carried".into(), &CALM.into(), &77.into()));
    assert!(!signer.log().contains("cannot be rotated"), "{}", signer.log());
    assert!(home.state_file(FLOODED).exists() && home.state_file(CALM).exists());

    // Without its keeper the signer signs on, and says what it cannot do.
    keeper.kill();
    session.ask_vote(FLOODED, precommit(31, 0, Some(7))).unwrap().unwrap();
    signer.sigterm();
    assert_eq!(signer.exit_code(), Some(0));
    // The old part may go: what must not be forgotten is in the new one.
    fs::remove_file(&older).unwrap();
    let evidence = highest_signed(&audit).unwrap();
    let of = |chain: &str| evidence.of(&ChainId::new(chain).unwrap(), &home.public_key(chain)).unwrap().height;
    assert_eq!((of(FLOODED), of(CALM)), (31, 77));
}

//! The audit file, written, rotated and read back.

use super::*;
use highwater_core::{
    consensus::{Conflict, Hrs, Step},
    privval::Refusal,
};
use std::fs;

fn source(chain: &str, node: &str) -> Source {
    Source { chain: ChainId::new(chain).unwrap(), key: Some("ed25519:2152".into()), node: node.into() }
}

fn lines(path: &Path) -> Vec<serde_json::Value> {
    let text = fs::read_to_string(path).unwrap();
    text.lines().filter(|line| !line.is_empty()).map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn refused(height: u64) -> Event {
    event(height, Outcome::Refused(Refusal::MaxHeight { height, max_height: 0 }), None)
}

fn event(height: u64, outcome: Outcome, sequence: Option<u64>) -> Event {
    let hrs = Hrs { height, round: 1, step: Step::Precommit };
    Event { kind: RequestKind::Vote, hrs: Some(hrs), choice: None, outcome, flush_time: None, sequence }
}

#[test]
fn a_file_that_a_full_disk_left_with_nothing_but_the_end_of_a_line_is_ours() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit.jsonl");
    for left in ["", "\n", "\n\n{\"ti", "{\"time\":1,\"chain\":\"a\"}\n"] {
        fs::write(&path, left).unwrap();
        assert!(AuditFile::open(&path).is_ok(), "{left:?}");
    }
    for foreign in ["\n\nHIGHWATR", "[package]", "\n{\"height\":\"1\"}"] {
        fs::write(&path, foreign).unwrap();
        assert!(AuditFile::open(&path).is_err(), "{foreign:?}");
    }
}

#[test]
fn every_decision_becomes_a_line_and_the_last_sequence_is_found_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit.jsonl");
    let (one, two) = (source("test-1", "unix:///a"), source("test-2", "unix:///b"));
    for start in 0..2 {
        let audit = AuditFile::open(&path).unwrap().start().unwrap();
        let hrs = Hrs { height: 7, round: 1, step: Step::Precommit };
        let refusal = Refusal::DoubleSign { hrs, conflict: Conflict::BlockAgainstBlock };
        audit.answered(&one, &event(7, Outcome::Signed, Some(5 + start)), SystemTime::now());
        audit.answered(&two, &event(8, Outcome::Signed, Some(90)), SystemTime::now());
        audit.answered(&one, &event(7, Outcome::Refused(refusal), None), SystemTime::now());
        audit.answered(
            &one,
            &Event { kind: RequestKind::Ping, ..event(7, Outcome::Answered, None) },
            SystemTime::now(),
        );
        audit.finish();
        assert!(audit.lost().iter().all(|(_, lost)| *lost == [0, 0]));
    }
    // The lines of one chain are in order. Their order among those of another chain is not defined.
    let (one, two): (Vec<_>, Vec<_>) = lines(&path).into_iter().partition(|line| line["chain"] == "test-1");
    assert_eq!((one.len(), two.len()), (4, 2));
    let lines = one;
    let expected = serde_json::json!({
        "time": lines[1]["time"], "chain": "test-1", "node": "unix:///a", "type": "precommit", "height": 7,
        "round": 1, "result": "refused", "reason": "block-against-block",
        "text": "double sign refused at 7/1/precommit: another block was signed there"
    });
    assert_eq!((&lines[1], &lines[2]["sequence"]), (&expected, &6.into()));
    assert_eq!(lines[0]["key"], "ed25519:2152", "what was signed names its key");
    let last = AuditFile::open(&path).unwrap().last;
    assert_eq!(last, [("test-1".to_owned(), 6), ("test-2".to_owned(), 90)].into());
}

#[test]
fn a_line_that_was_cut_off_is_passed_over() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit.jsonl");
    fs::write(&path, "{\"time\":1,\"chain\":\"a\",\"sequence\":3}\n{\"time\":1,\"chain\":\"a\",\"sequ").unwrap();
    assert_eq!(AuditFile::open(&path).unwrap().last, [("a".to_owned(), 3)].into());
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.ends_with("\"sequ\n"), "the next entry begins a new line: {text}");
}

#[test]
fn a_full_disk_costs_refusals_at_once_and_what_was_signed_only_at_the_end() {
    let audit = AuditFile::open(Path::new("/dev/full")).unwrap().start().unwrap();
    let lost = || audit.lost().first().map(|(_, lost)| *lost);
    for height in 0..10 {
        audit.answered(&source("a", "n"), &event(height, Outcome::Signed, Some(height)), SystemTime::now());
        audit.answered(&source("a", "n"), &refused(height), SystemTime::now());
    }
    thread::sleep(Duration::from_millis(300));
    assert_eq!(lost().unwrap()[0], 0, "what was signed is kept");
    audit.finish();
    assert_eq!(lost(), Some([10, 10]));
}

#[test]
fn what_was_signed_while_the_disk_took_nothing_is_written_when_it_does() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit.jsonl");
    let audit_file = AuditFile::open(&path).unwrap();
    // A disk that is full until the file is reopened.
    let audit = AuditFile { file: File::options().append(true).open("/dev/full").unwrap(), ..audit_file };
    let audit = audit.start().unwrap();
    (0..100).for_each(|height| {
        audit.answered(&source("a", "n"), &event(height, Outcome::Signed, Some(height)), SystemTime::now())
    });
    thread::sleep(Duration::from_millis(200));
    audit.reopen();
    let begin = Instant::now();
    while lines(&path).len() < 100 {
        assert!(begin.elapsed() < Duration::from_secs(20), "{} lines", lines(&path).len());
        thread::sleep(Duration::from_millis(20));
    }
    let heights: Vec<_> = lines(&path).iter().map(|line| line["height"].as_u64().unwrap()).collect();
    assert_eq!(heights, (0..100).collect::<Vec<_>>());
    assert_eq!(audit.lost()[0].1, [0, 0]);
}

#[test]
fn a_file_that_is_large_enough_is_rotated_and_the_next_begins_with_what_was_signed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit.jsonl");
    let limits = AuditLimits { max_bytes: Some(20_000), keep: 2 };
    let files = Files { path: path.clone(), keep: limits.keep };
    let audit = AuditFile::open(&path).unwrap().limited(limits, Keeper::Here(files.clone())).start().unwrap();
    audit.answered(&source("rare-1", "n"), &event(70, Outcome::Signed, Some(1)), SystemTime::now());
    // All other lines are another chain's refusals: many times more than is kept.
    for height in 0..5000 {
        audit.answered(&source("loud-1", "n"), &refused(height), SystemTime::now());
        if height % 50 == 0 {
            audit.finish();
        }
    }
    audit.finish();
    let sizes = [path.clone(), files.older(1), files.older(2)].map(|path| fs::metadata(path).unwrap().len());
    assert!(sizes.iter().all(|size| (1..=20_000).contains(size)), "{sizes:?}");
    assert!(!files.older(3).exists());
    let first = &lines(&path)[0];
    assert_eq!(
        (&first["result"], &first["chain"], &first["height"]),
        (&"carried".into(), &"rare-1".into(), &70.into())
    );
    // A new process reads it and carries it on, although nothing more is signed.
    let audit = AuditFile::open(&path).unwrap();
    let [highest] = audit.evidence().all() else { panic!("{:?}", audit.evidence()) };
    assert_eq!((highest.chain.as_str(), highest.hrs.height, highest.hrs.step), ("rare-1", 70, Step::Precommit));
    let audit = audit.start().unwrap();
    fs::rename(&path, directory.path().join("moved")).unwrap();
    audit.reopen();
    audit.finish();
    assert_eq!(lines(&path)[0]["height"], 70);
}

#[test]
fn a_file_that_cannot_be_rotated_takes_what_was_signed_and_no_flood() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit.jsonl");
    let limits = AuditLimits { max_bytes: Some(10_000), keep: 1 };
    let files = Files { path: path.clone(), keep: 1 };
    fs::write(files.older(1), "somebody else's").unwrap();
    let audit = AuditFile::open(&path).unwrap().limited(limits, Keeper::Here(files.clone())).start().unwrap();
    for height in 0..500 {
        audit.answered(&source("a", "n"), &refused(height), SystemTime::now());
        audit.answered(&source("a", "n"), &event(height, Outcome::Signed, Some(height)), SystemTime::now());
        audit.finish();
    }
    let lines = lines(&path);
    let signed = lines.iter().filter(|line| line["result"] == "signed").count();
    let refused = lines.iter().filter(|line| line["result"] == "refused").count() as u64;
    assert_eq!((signed, audit.lost()[0].1), (500, [0, 500 - refused]));
    assert!((20..250).contains(&refused), "{refused}");
    assert_eq!(fs::read_to_string(files.older(1)).unwrap(), "somebody else's");
}

#[test]
fn the_log_of_a_device_is_written_after_a_failure_without_any_decision() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit.jsonl");
    let audit_file = AuditFile::open(&path).unwrap();
    // A disk that is full until the file is reopened.
    let audit = AuditFile { file: File::options().append(true).open("/dev/full").unwrap(), ..audit_file };
    let audit = audit.start().unwrap();
    let write = || audit.device_log("{\"entry\":1}\n".into()).recv_timeout(Duration::from_secs(20)).unwrap();
    assert!(!write());
    audit.reopen();
    assert!(write());
    assert_eq!(fs::read_to_string(&path).unwrap().trim(), "{\"entry\":1}");
}

#[test]
fn the_log_of_a_device_is_written_to_a_file_that_cannot_be_rotated() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit.jsonl");
    let limits = AuditLimits { max_bytes: Some(100), keep: 1 };
    let files = Files { path: path.clone(), keep: 1 };
    fs::write(files.older(1), "somebody else's").unwrap();
    let audit = AuditFile::open(&path).unwrap().limited(limits, Keeper::Here(files.clone())).start().unwrap();
    for _ in 0..50 {
        assert!(audit.device_log("{\"entry\":1}\n".into()).recv_timeout(Duration::from_secs(20)).unwrap());
    }
}

//! The order of the system calls of the running signer: first the mark, then its flush, then the signature.

use crate::{
    CHAIN, OTHER, PROMISE,
    history::{Ask, History},
    support::{
        assurance::report,
        canonical,
        mock_node::{MockNode, Session},
        signer::Home,
        strace::{self, Call, Event, OUTPUT},
    },
};
use highwater_core::{
    consensus::ChainId,
    privval::{
        Canonical, MessageKind,
        frame::LengthPrefix,
        message::{Message, Proposal, Sum, TYPE_PREVOTE, Vote},
    },
    watermark::{BLOCK_BYTES, Header, Mark, RECORD_BYTES, Record},
};
use prost::Message as _;
use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    path::Path,
    process::Command,
    thread,
};

const HEIGHTS: i64 = 40;
/// A sealed frame: the only thing that leaves a SecretConnection after its greeting.
const SEALED_BYTES: usize = 1044;

/// Asks for rounds, repeats and conflicts, and gives what was answered, in order; `None` for what holds no signature.
fn ask_everything(session: &mut Session, chain: &str) -> Vec<Option<Canonical>> {
    let mut history = History::default();
    let mut answers = Vec::new();
    for height in 1..=HEIGHTS {
        for ask in Ask::round(height, 7) {
            for ask in [&ask, &ask.conflicting(), &ask] {
                let answer = ask.ask(session, chain, &mut history).unwrap();
                let signed = match ask {
                    Ask::Proposal(proposal) => canonical_proposal(proposal),
                    Ask::Vote(vote) => canonical_vote(vote),
                };
                answers.push(answer.is_ok().then_some(signed));
            }
        }
    }
    answers
}

fn canonical_vote(vote: &Vote) -> Canonical {
    let kind = if vote.r#type == TYPE_PREVOTE { MessageKind::Prevote } else { MessageKind::Precommit };
    canonical((kind, vote.height, vote.round), vote.block_id.as_ref(), vote.timestamp)
}

fn canonical_proposal(proposal: &Proposal) -> Canonical {
    let kind = MessageKind::Proposal { pol_round: proposal.pol_round };
    canonical((kind, proposal.height, proposal.round), proposal.block_id.as_ref(), proposal.timestamp)
}

/// What is on the disk, judged by the calls: written and then flushed.
#[derive(Default)]
struct Files {
    /// The last record that was written to a file.
    written: HashMap<String, Mark>,
    /// What a flush in progress will cover.
    flushing: HashMap<usize, (String, Option<Mark>)>,
    /// Every mark that was flushed. While one node's answer leaves, another node's request may move on.
    durable: HashMap<String, Vec<Mark>>,
}

impl Files {
    fn see(&mut self, event: &Event) {
        match event {
            Event::End(_, call) if call.name == "pwrite64" && call.succeeded() => {
                let record = call.strings().concat();
                let record: [u8; RECORD_BYTES] = record.as_slice().try_into().expect("records are written whole");
                assert_eq!(call.result, RECORD_BYTES.to_string());
                self.written.insert(call.target(), self.record(&call.target(), &record).mark);
            }
            Event::Begin(number, call) if matches!(call.name.as_str(), "fdatasync" | "fsync") => {
                let mark = self.written.get(&call.target()).copied();
                self.flushing.insert(*number, (call.target(), mark));
            }
            Event::End(number, call) if matches!(call.name.as_str(), "fdatasync" | "fsync") => {
                let (file, mark) = self.flushing.remove(number).unwrap();
                if let (Some(mark), true) = (mark, call.succeeded()) {
                    self.durable.entry(file).or_default().push(mark);
                }
            }
            _ => {}
        }
    }

    /// A record of the file at `path`, whose header is there to read.
    fn record(&self, path: &str, record: &[u8; RECORD_BYTES]) -> Record {
        let content = std::fs::read(path).unwrap();
        let header = Header::decode(content[..BLOCK_BYTES].try_into().unwrap()).unwrap();
        Record::decode(record, &header).unwrap()
    }

    fn assert_covers(&self, home: &Home, chain: &str, sent: &Canonical) {
        let file = home.state_file(chain).to_str().unwrap().to_owned();
        let durable = self.durable.get(&file).unwrap_or_else(|| panic!("{sent:?} left before any mark"));
        let covers = |mark: &Mark| {
            mark.hrs == sent.hrs()
                && mark.signed.is_some_and(|signed| {
                    signed.timestamp == sent.timestamp && signed.digest == sent.digest(&ChainId::new(chain).unwrap())
                })
        };
        let last = durable.last().map(|mark| mark.hrs);
        assert!(durable.iter().rev().any(covers), "{sent:?} left while the mark on the disk was {last:?}");
    }
}

/// The signed message in an answer that left in the clear.
fn in_the_clear(bytes: &[u8]) -> Option<Canonical> {
    let mut prefix = LengthPrefix::default();
    let end = bytes.iter().position(|byte| prefix.push(*byte).unwrap().is_some()).unwrap();
    match Message::decode(&bytes[end + 1..]).unwrap().sum.unwrap() {
        Sum::SignedVoteResponse(response) => response.vote.as_ref().map(canonical_vote),
        Sum::SignedProposalResponse(response) => response.proposal.as_ref().map(canonical_proposal),
        other => panic!("nobody asked for {other:?}"),
    }
}

#[test]
fn every_signature_that_leaves_a_socket_comes_after_the_flush_of_its_mark() {
    if !strace::permitted() {
        return;
    }
    let home = Home::new();
    let unix = ["one.sock", "two.sock"].map(|name| MockNode::unix(&home.path(name)).unwrap());
    let tcp = MockNode::tcp().unwrap();
    let home = home
        .chain(CHAIN, "")
        .chain(OTHER, "")
        .node(&unix[0].address(), CHAIN, "")
        .node(&unix[1].address(), CHAIN, "")
        .node(&tcp.address(), OTHER, "")
        .init();
    let log = home.path("strace");
    let mut signer = strace::start(&home, &log, &format!("-f -e trace={OUTPUT}"));
    let sealed = thread::scope(|scope| {
        for node in &unix {
            scope.spawn(|| ask_everything(&mut node.accept().unwrap(), CHAIN));
        }
        scope.spawn(|| ask_everything(&mut tcp.accept().unwrap(), OTHER)).join().unwrap()
    });
    signer.sigterm();
    assert_eq!(signer.exit_code(), Some(0));

    // Behind a SecretConnection answers cannot be read, but their order is known. The first frame is the handshake's.
    let mut sealed: VecDeque<_> = [None].into_iter().chain(sealed).collect();
    let (mut files, mut signatures) = (Files::default(), 0);
    for event in strace::read(&log) {
        files.see(&event);
        let Event::Begin(_, call) = event else { continue };
        let target = call.target();
        let Some(is_tcp) = ["TCP:", "UNIX-STREAM:"].iter().position(|kind| target.starts_with(kind)).map(|at| at == 0)
        else {
            assert!(!call.name.starts_with("send"), "a way out that nobody watches: {call:?}");
            continue;
        };
        let content = call.strings().into_iter().next().unwrap_or_default();
        assert!(matches!(call.name.as_str(), "sendto" | "write"), "a way out that nobody watches: {call:?}");
        let (chain, sent) = match (is_tcp, content.len()) {
            (true, SEALED_BYTES) => (OTHER, sealed.pop_front().expect("no frame that nobody received")),
            (true, _) => (OTHER, None),
            // The signal that ended the run woke the main thread.
            (false, 1) => (CHAIN, None),
            // To a helper process: a length in four bytes, and JSON.
            (false, _) if content.get(2..5) == Some(b"\0\0{") => (CHAIN, None),
            (false, _) => (CHAIN, in_the_clear(&content)),
        };
        if let Some(sent) = sent {
            files.assert_covers(&home, chain, &sent);
            signatures += 1;
        }
    }
    assert!(sealed.is_empty(), "{} answers are not in the log", sealed.len());
    assert!(signatures >= 5 * u64::try_from(HEIGHTS).unwrap(), "{signatures}");
    report(PROMISE, "signatures that left a socket after the flush of their mark, by the system calls", signatures);
}

/// Which files and directory entries a crash could still take away.
#[derive(Default)]
struct Pending {
    content: BTreeSet<String>,
    entries: BTreeSet<String>,
    /// How many entries were made.
    made: u64,
}

impl Pending {
    /// `within` is where we look.
    fn see(&mut self, call: &Call, within: &str) {
        if !call.succeeded() {
            return;
        }
        let ours = |path: &str| path.starts_with(within) && !path.ends_with(".log");
        match call.name.as_str() {
            "openat" | "creat" if call.arguments.contains("O_CREAT") && ours(&call.opened()) => {
                self.make(call.opened())
            }
            "write" | "pwrite64" if ours(&call.target()) => {
                self.content.insert(call.target());
            }
            "fsync" | "fdatasync" => {
                let path = call.target();
                self.content.remove(&path);
                self.entries.retain(|entry| Path::new(entry).parent() != Some(Path::new(&path)));
            }
            "rename" | "renameat" | "renameat2" | "link" | "linkat" => {
                let names = call.strings().into_iter().map(|name| String::from_utf8(name).unwrap());
                let [old, new] = names.collect::<Vec<_>>().try_into().unwrap();
                assert!(!self.content.contains(&old), "{old} gets another name before it is flushed");
                assert!(new.starts_with('/'), "{new}");
                self.make(new);
            }
            other => assert!(
                matches!(other, "write" | "pwrite64" | "openat" | "sendto"),
                "a way to the disk that nobody watches: {call:?}"
            ),
        }
    }

    fn make(&mut self, path: String) {
        self.made += 1;
        self.entries.insert(path);
    }

    fn assert_nothing(&self, when: &str) {
        assert!(self.content.is_empty(), "{when}, and not flushed: {:?}", self.content);
        assert!(self.entries.is_empty(), "{when}, and in a directory that is not flushed: {:?}", self.entries);
    }
}

#[test]
fn what_a_command_makes_is_on_the_disk_with_its_name_before_the_command_ends() {
    if !strace::permitted() {
        return;
    }
    let home = Home::new().chain(CHAIN, "");
    let node = MockNode::unix(&home.path("node.sock")).unwrap();
    let home = home.node(&node.address(), CHAIN, "");
    home.write_config();
    let within = home.path("").to_str().unwrap().trim_end_matches('/').to_owned();
    let tmkms = home.path("tmkms.json");
    std::fs::write(&tmkms, r#"{"height":"5","round":"0","step":1,"block_id":null}"#).unwrap();
    let away = || {
        std::fs::remove_file(home.state_file(CHAIN)).unwrap();
        std::fs::remove_file(home.tmkms_file(CHAIN)).unwrap();
    };
    let in_place = || {
        away();
        std::fs::copy(&tmkms, home.tmkms_file(CHAIN)).unwrap();
    };
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    let (exported, keys) = (home.path("exported"), home.path("new.key"));
    let steps: [(&dyn Fn(), Vec<String>); 6] = [
        (&|| {}, vec!["state".into(), "init".into(), "--never-signed".into()]),
        (&|| {}, vec!["state".into(), "raise".into(), "--height".into(), "3".into()]),
        (&away, vec!["state".into(), "import".into(), path(&tmkms)]),
        (&in_place, vec!["state".into(), "import".into()]),
        (
            &|| {},
            vec!["state".into(), "export".into(), "--format".into(), "tmkms".into(), "-o".into(), path(&exported)],
        ),
        (&|| {}, vec!["softsign".into(), "keygen".into(), path(&keys)]),
    ];
    let mut made = 0;
    for (prepare, words) in steps {
        prepare();
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        let command = match words[0] {
            "softsign" => {
                let mut command = Command::new(env!("CARGO_BIN_EXE_highwater"));
                command.args(&words);
                command
            }
            _ => home.command(&words),
        };
        let mut pending = Pending::default();
        for event in strace::run(&command, &home.path("trace.log")) {
            if let Event::End(_, call) = event {
                pending.see(&call, &within);
            }
        }
        pending.assert_nothing(&words.join(" "));
        assert!(pending.made > 0 || words[1] == "raise", "{words:?} is known to make a file");
        made += pending.made;
    }
    report(PROMISE, "files and names that commands made, each flushed with its directory", made);
}

#[test]
fn start_flushes_the_file_and_its_name_before_it_relies_on_them() {
    if !strace::permitted() {
        return;
    }
    let home = Home::new();
    let node = MockNode::unix(&home.path("node.sock")).unwrap();
    let home = home.chain(CHAIN, "").node(&node.address(), CHAIN, "").init();
    let state = home.state_file(CHAIN);
    let log = home.path("trace.log");
    let mut signer = strace::start(&home, &log, &format!("-f -e trace={OUTPUT}"));
    node.accept().unwrap().ping().unwrap();
    signer.sigterm();
    assert_eq!(signer.exit_code(), Some(0));

    let (state, directory) = (state.to_str().unwrap(), home.path(""));
    let directory = directory.to_str().unwrap().trim_end_matches('/');
    let (mut pending, mut flushed) = (Pending::default(), BTreeSet::new());
    for event in strace::read(&log) {
        let Event::End(_, call) = event else { continue };
        let target = call.target();
        if call.name == "pwrite64" && target == state {
            break;
        }
        if call.name == "fsync" && call.succeeded() {
            flushed.insert(target);
        }
        let is_log = call.name.starts_with("write") && !call.target().starts_with(&format!("{state}."));
        if !is_log {
            pending.see(&call, directory);
        }
    }
    pending.assert_nothing("about to be used");
    assert_eq!(pending.made, 0, "a start makes nothing");
    assert!(flushed.contains(state) && flushed.contains(directory), "{flushed:?}");
    report(PROMISE, "starts that flushed file and directory before they used them", 1);
}

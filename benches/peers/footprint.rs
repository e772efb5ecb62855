//! What a signer takes: memory, system calls, time to start, bytes on the disk.

use crate::{
    drive::{Loops, Measured as _},
    mock_node::prevote,
    signers::{Door, Home, Program, Running, Served, chain_id, next_seed},
};
use highwater_core::privval::message::{Message, SignVoteRequest, Sum};
use prost::Message as _;
use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    os::unix::net::{UnixListener, UnixStream},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// What one program takes.
pub struct Footprint {
    pub program: Program,
    /// From the start of the process to the first signature, over a unix socket; the median.
    pub start_ms: f64,
    /// Resident after the first signature.
    pub idle_kb: u64,
    /// Resident after all of them.
    pub later_kb: u64,
    pub signatures: i64,
    /// Each system call and how often it is made for a signature. Empty if strace cannot be run.
    pub calls: Vec<(String, f64)>,
    pub stripped: u64,
}

/// Measures the programs that run alone: not CometBFT's, which is a part of a node.
pub fn measure(home: &Path) -> Vec<Footprint> {
    let programs = [Program::Highwater, Program::Tmkms].into_iter().filter(|program| program.find().is_ok());
    programs.map(|program| footprint(program, home)).collect()
}

fn footprint(program: Program, home: &Path) -> Footprint {
    // A million for the one whose growth is ours to answer for.
    let wanted = if program == Program::Highwater { 1_000_000 } else { 50_000 };
    let (idle_kb, later_kb, signatures) = memory(program, wanted);
    let start_ms = start(program, home);
    Footprint {
        program,
        start_ms,
        idle_kb,
        later_kb,
        signatures,
        calls: calls(program, home),
        stripped: stripped(program, home),
    }
}

/// A signer behind a unix socket that is asked in the clear, several requests ahead of the answers.
struct Plain {
    stream: BufReader<UnixStream>,
    process: Running,
    /// Outlives the process.
    _home: Home,
}

impl Plain {
    /// Starts a signer, and waits for it without a pause.
    fn start(program: Program, parent: &Path) -> (Self, Duration) {
        let directory = tempfile::tempdir_in(parent).unwrap();
        let socket = directory.path().join("node.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let chains = [vec![format!("unix://{}", socket.display())]];
        let home = Home::new(program, parent, &chains, next_seed());
        let begin = Instant::now();
        let process = home.start(&chains);
        let (stream, _) = listener.accept().unwrap();
        let mut plain = Self { stream: BufReader::new(stream), process, _home: home };
        plain.ask(1, 1);
        (plain, begin.elapsed())
    }

    /// Has `count` heights from `first` on signed.
    fn ask(&mut self, first: i64, count: i64) {
        let mut frames = Vec::new();
        for height in first..first + count {
            let request = SignVoteRequest {
                vote: Some(prevote(height, 0, Some(7))),
                chain_id: chain_id(0),
                skip_extension_signing: false,
            };
            Message::from(Sum::SignVoteRequest(request)).encode_frame(&mut frames);
        }
        self.stream.get_mut().write_all(&frames).unwrap();
        for height in first..first + count {
            match self.receive().sum {
                Some(Sum::SignedVoteResponse(response)) => assert_eq!(response.error, None, "height {height}"),
                other => panic!("height {height}: {other:?}"),
            }
        }
    }

    fn receive(&mut self) -> Message {
        let mut prefix = Vec::new();
        while prefix.last().is_none_or(|byte| byte & 0x80 != 0) {
            let mut byte = [0];
            self.stream.read_exact(&mut byte).unwrap();
            prefix.push(byte[0]);
        }
        let mut body = vec![0; prost::decode_length_delimiter(prefix.as_slice()).unwrap()];
        self.stream.read_exact(&mut body).unwrap();
        Message::decode(body.as_slice()).unwrap()
    }

    /// Its resident memory in kB.
    fn resident(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }
}

/// Memory before and after, and how many signatures there were. The state is on a RAM disk: a million flushes would take
/// minutes and change nothing about memory.
fn memory(program: Program, wanted: i64) -> (u64, u64, i64) {
    const RAM_DISK: &str = "/dev/shm";
    const AHEAD: i64 = 200;
    const PATIENCE: Duration = Duration::from_secs(75);
    let (mut plain, _) = Plain::start(program, Path::new(RAM_DISK));
    let idle = plain.resident();
    let begin = Instant::now();
    let mut signed = 1;
    while signed < wanted && begin.elapsed() < PATIENCE {
        let ahead = AHEAD.min(wanted - signed);
        plain.ask(signed + 1, ahead);
        signed += ahead;
    }
    (idle, plain.resident(), signed)
}

fn start(program: Program, home: &Path) -> f64 {
    const STARTS: usize = 15;
    let mut times: Vec<_> = (0..STARTS).map(|_| Plain::start(program, home).1).collect();
    times.sort_unstable();
    times[STARTS / 2].as_secs_f64() * 1e3
}

/// What strace counts in the whole process, over TCP.
fn calls(program: Program, home: &Path) -> Vec<(String, f64)> {
    const SIGNATURES: usize = 1000;
    let served = Served::start(program, Door::Tcp, home, 1, 1).expect("every program serves one node");
    let (process, counted) = (served.processes[0].id(), home.join("strace"));
    let mut loops = Loops::new(served, false);
    let mut strace = Command::new("strace");
    strace.args(["-f", "-c", "-o"]).arg(&counted).args(["-p", &process.to_string()]);
    let Ok(mut strace) = strace.stdin(Stdio::null()).stderr(Stdio::piped()).spawn() else { return Vec::new() };
    let mut said = String::new();
    BufReader::new(strace.stderr.as_mut().unwrap()).read_line(&mut said).unwrap();
    if !said.contains("attached") {
        let _ = strace.wait();
        return Vec::new();
    }
    loops.batch(SIGNATURES);
    // It tells what it has counted when it is interrupted; `std` can only kill.
    Command::new("kill").args(["-INT", &strace.id().to_string()]).status().unwrap();
    strace.wait().unwrap();
    let table = fs::read_to_string(counted).unwrap();
    let calls = table.lines().filter_map(|line| {
        let columns: Vec<_> = line.split_whitespace().collect();
        let calls: f64 = columns.get(3)?.parse().ok()?;
        Some(((*columns.last()?).to_owned(), calls / SIGNATURES as f64))
    });
    calls.filter(|(name, each)| *each >= 0.01 && name != "total").collect()
}

fn stripped(program: Program, home: &Path) -> u64 {
    let copy = home.join("stripped");
    let done = Command::new("strip").arg("-o").arg(&copy).arg(program.find().unwrap()).status();
    assert!(done.is_ok_and(|status| status.success()), "strip comes with the linker");
    fs::metadata(copy).unwrap().len()
}

/// How many crates the default build has.
pub fn crates() -> usize {
    let output =
        Command::new(env!("CARGO")).args(["tree", "--locked", "-e", "normal", "--prefix", "none"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let names: std::collections::BTreeSet<_> =
        text.lines().filter(|line| !line.is_empty()).map(|line| line.trim_end_matches(" (*)")).collect();
    names.len()
}

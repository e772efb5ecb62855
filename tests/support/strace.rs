//! strace: to see the system calls of the signer in their order, and to make one of them fail or be the last.

use super::{
    signer::{Home, Signer},
    skip::skip,
};
use std::{
    collections::HashMap,
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::OnceLock,
    thread,
    time::{Duration, Instant},
};

/// Everything by which bytes or names get anywhere.
pub const OUTPUT: &str = "pwrite64,pwritev,pwritev2,write,writev,sendto,sendmsg,sendmmsg,sendfile,splice,\
    copy_file_range,fdatasync,fsync,openat,creat,rename,renameat,renameat2,link,linkat";

/// Whether strace is here and the kernel lets it trace. If not, the tests that need it are skipped, which fails in CI.
pub fn permitted() -> bool {
    static PERMITTED: OnceLock<bool> = OnceLock::new();
    *PERMITTED.get_or_init(|| {
        let tried = Command::new("strace").args(["-f", "-o", "/dev/null", "true"]).output();
        let problem = match tried {
            Ok(output) if output.status.success() => return true,
            Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            Err(error) => format!("{error}: run tests/install/debian.sh strace"),
        };
        skip(&format!("strace does not run here: {problem}"));
        false
    })
}

/// Starts the signer of `home` under strace, which writes to `log`. strace is a process beside the signer, so that a
/// kill meets the signer itself. Without `-f` only the main thread is traced.
pub fn start(home: &Home, log: &Path, options: &str) -> Signer {
    home.start_in_shell(&format!("exec strace -D -yy -xx -s 16384 -o {log:?} {options} \"$0\" \"$@\""))
}

/// Runs a command under strace to its end, successful or not.
pub fn run(command: &Command, log: &Path) -> Vec<Event> {
    let mut traced = Command::new("strace");
    traced.args(["-f", "-yy", "-xx", "-s", "16384", "-o"]).arg(log).args(["-e", &format!("trace={OUTPUT}")]);
    traced.arg(command.get_program()).args(command.get_args());
    if let Some(directory) = command.get_current_dir() {
        traced.current_dir(directory);
    }
    let output = traced.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    read(log)
}

/// strace on one thread of a running process.
pub struct Attached(Child);

impl Attached {
    /// Attaches, and waits until it has.
    pub fn new(thread: u32, log: &Path, options: &[&str]) -> Self {
        let mut command = Command::new("strace");
        command.args(["-p", &thread.to_string(), "-yy", "-xx", "-s", "64", "-o"]).arg(log).args(options);
        let mut child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut said = String::new();
        BufReader::new(child.stderr.as_mut().unwrap()).read_line(&mut said).unwrap();
        assert!(said.contains("attached"), "{said}");
        Self(child)
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        // It may have ended with its thread. Killed, it lets the thread go.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The threads that serve nodes, in the order of the configuration.
pub fn node_threads(process: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).unwrap().map(|entry| entry.unwrap().path());
    let is_node = |task: &PathBuf| fs::read_to_string(task.join("comm")).is_ok_and(|name| name.trim() == "node");
    let mut found: Vec<u32> =
        tasks.filter(is_node).map(|task| task.file_name().unwrap().to_str().unwrap().parse().unwrap()).collect();
    found.sort_unstable();
    found
}

/// A system call.
#[derive(Clone, Debug)]
pub struct Call {
    pub name: String,
    /// As strace writes them, in hex.
    pub arguments: String,
    /// Its return value; empty if it never returned.
    pub result: String,
}

/// What happens, in order. A call that other threads interrupt in the log begins and ends at different places.
#[derive(Clone, Debug)]
pub enum Event {
    Begin(usize, Call),
    End(usize, Call),
}

impl Call {
    pub fn succeeded(&self) -> bool {
        !self.result.is_empty() && !self.result.starts_with('-')
    }

    /// The target of the first argument, a descriptor: a path or the kind of socket.
    pub fn target(&self) -> String {
        described(&self.arguments)
    }

    /// The target of the returned descriptor.
    pub fn opened(&self) -> String {
        described(&self.result)
    }

    /// The strings among its arguments.
    pub fn strings(&self) -> Vec<Vec<u8>> {
        self.arguments.split('"').skip(1).step_by(2).map(unescape).collect()
    }
}

/// `7</path>` to `/path`.
fn described(text: &str) -> String {
    let Some((_, rest)) = text.split_once('<') else { return String::new() };
    // An address within may hold an arrow.
    let end = rest.find(">,").or_else(|| rest.rfind('>')).unwrap();
    let name = &rest[..end];
    if name.starts_with('\\') { String::from_utf8(unescape(name)).unwrap() } else { name.to_owned() }
}

fn unescape(text: &str) -> Vec<u8> {
    text.split("\\x").skip(1).map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
}

/// Reads a log, once strace has written its end.
pub fn read(log: &Path) -> Vec<Event> {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let text = fs::read_to_string(log).unwrap();
        let lines: Vec<_> = text.lines().collect();
        if lines.last().is_some_and(|line| line.contains("+++ ")) {
            return parse(&lines);
        }
        assert!(Instant::now() < deadline, "strace does not end: {:?}", lines.last());
        thread::sleep(Duration::from_millis(5));
    }
}

fn parse(lines: &[&str]) -> Vec<Event> {
    let mut events = Vec::new();
    let mut open: HashMap<&str, (usize, Call)> = HashMap::new();
    for (number, line) in lines.iter().enumerate() {
        // With -f, and only with it, a line begins with the thread.
        let (thread, rest) = match line.split_once(' ') {
            Some((thread, rest)) if thread.bytes().all(|byte| byte.is_ascii_digit()) => (thread, rest.trim_start()),
            _ => ("", *line),
        };
        if rest.starts_with("+++") || rest.starts_with("---") {
            continue;
        }
        if let Some(resumed) = rest.strip_prefix("<... ") {
            let (number, mut call) = open.remove(thread).unwrap_or_else(|| panic!("resumes nothing: {line}"));
            call.result = result(resumed).to_owned();
            events.push(Event::End(number, call));
            continue;
        }
        let (name, rest) = rest.split_once('(').unwrap_or_else(|| panic!("what is {line:?}?"));
        let mut call = Call { name: name.into(), arguments: String::new(), result: String::new() };
        if let Some(arguments) = rest.strip_suffix("<unfinished ...>") {
            arguments.trim_end().clone_into(&mut call.arguments);
            open.insert(thread, (number, call.clone()));
            events.push(Event::Begin(number, call));
        } else {
            call.arguments = rest[..rest.rfind(" = ").unwrap_or(rest.len())].to_owned();
            events.push(Event::Begin(number, call.clone()));
            result(rest).clone_into(&mut call.result);
            events.push(Event::End(number, call));
        }
    }
    events
}

fn result(text: &str) -> &str {
    text.rfind(" = ").map_or("", |at| &text[at + 3..])
}

//! What a process wrote on its standard error before it failed, and how it ended.
//!
//! A module of a vendor often says there, and only there, what is wrong. Its words are kept short, made harmless, and
//! never contain the secret that it was given.

use super::{foreign::ForeignText, lock::lock};
use std::{
    io::Read,
    os::unix::process::ExitStatusExt as _,
    process::ExitStatus,
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// How much of it is kept.
const KEPT_BYTES: usize = 1024;
/// How many lines of it are shown, and in at most how many bytes.
const SHOWN_LINES: usize = 5;
const SHOWN_BYTES: usize = 300;
/// How long to wait for what a process wrote just before its end.
const PATIENCE: Duration = Duration::from_millis(300);
const PAUSE: Duration = Duration::from_millis(5);

/// The end of what a process has written so far.
pub struct LastWords {
    kept: Arc<Mutex<Kept>>,
    reader: JoinHandle<()>,
}

#[derive(Default)]
struct Kept {
    bytes: Vec<u8>,
    /// The beginning is lost, so the first line may be half a line.
    cut: bool,
}

impl LastWords {
    /// Reads from `pipe` on a thread of its own until the pipe ends, so that its writer never waits.
    pub fn of(mut pipe: impl Read + Send + 'static) -> std::io::Result<Self> {
        let kept = Arc::new(Mutex::new(Kept::default()));
        let writer = Arc::clone(&kept);
        let reader = thread::Builder::new().name("last-words".into()).spawn(move || {
            let mut buffer = [0; KEPT_BYTES];
            while let Ok(count @ 1..) = pipe.read(&mut buffer) {
                lock(&writer).add(&buffer[..count]);
            }
        })?;
        Ok(Self { kept, reader })
    }

    /// The last lines, without `secret`. `None` if there are none. Waits a moment for what is still in the pipe.
    pub fn shown(&self, secret: &[u8]) -> Option<ForeignText> {
        let deadline = Instant::now() + PATIENCE;
        while !self.are_complete() && Instant::now() < deadline {
            thread::sleep(PAUSE);
        }
        self.shown_now(secret)
    }

    /// The same, but never waits.
    pub fn shown_now(&self, secret: &[u8]) -> Option<ForeignText> {
        lock(&self.kept).shown(secret)
    }

    /// Whether the pipe has ended, so that no more words can come.
    pub fn are_complete(&self) -> bool {
        self.reader.is_finished()
    }
}

impl Kept {
    fn add(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        let excess = self.bytes.len().saturating_sub(KEPT_BYTES);
        self.cut |= excess > 0;
        self.bytes.drain(..excess);
    }

    fn shown(&self, secret: &[u8]) -> Option<ForeignText> {
        // Half a line could hold half a secret, which would not be recognised.
        let whole = match self.bytes.iter().position(|byte| *byte == b'\n') {
            Some(end) if self.cut => &self.bytes[end..],
            None if self.cut => &[],
            _ => &self.bytes[..],
        };
        let text = String::from_utf8_lossy(&masked(whole, secret)).into_owned();
        let lines: Vec<_> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        let last = lines[lines.len().saturating_sub(SHOWN_LINES)..].join(" / ");
        let mut begin = last.len().saturating_sub(SHOWN_BYTES);
        while !last.is_char_boundary(begin) {
            begin += 1;
        }
        (!last.is_empty()).then(|| ForeignText::from(&last[begin..]))
    }
}

/// `bytes` with every `secret` in it replaced.
fn masked(bytes: &[u8], secret: &[u8]) -> Vec<u8> {
    const MASK: &[u8] = b"***";
    let mut clean = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((byte, next)) = rest.split_first() {
        if !secret.is_empty() && rest.starts_with(secret) {
            clean.extend_from_slice(MASK);
            rest = &rest[secret.len()..];
        } else {
            clean.push(*byte);
            rest = next;
        }
    }
    clean
}

/// How a process ended; completes the sentence "it ...".
pub fn end_of(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(libc::SIGSYS), _) => {
            "was killed by its sandbox for a system call that is never allowed (signal 31, SIGSYS)".to_owned()
        }
        (Some(signal), _) => match name_of(signal) {
            Some(name) => format!("was killed by signal {signal} ({name})"),
            None => format!("was killed by signal {signal}"),
        },
        (None, code) => format!("ended with exit code {}", code.unwrap_or_default()),
    }
}

fn name_of(signal: i32) -> Option<&'static str> {
    Some(match signal {
        libc::SIGABRT => "SIGABRT",
        libc::SIGBUS => "SIGBUS",
        libc::SIGFPE => "SIGFPE",
        libc::SIGILL => "SIGILL",
        libc::SIGKILL => "SIGKILL",
        libc::SIGPIPE => "SIGPIPE",
        libc::SIGSEGV => "SIGSEGV",
        libc::SIGTERM => "SIGTERM",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    fn shown(bytes: &[u8], secret: &[u8]) -> Option<String> {
        LastWords::of(Cursor::new(bytes.to_vec())).unwrap().shown(secret).map(|text| text.to_string())
    }

    #[test]
    fn the_last_lines_are_shown_on_one_line_and_cannot_steer_a_terminal() {
        assert_eq!(shown(b"", b""), None);
        assert_eq!(shown(b"\n \n", b""), None);
        assert_eq!(shown(b"1\n2\n3\n\n4\n5\n6 \x1b[2J\n", b"").unwrap(), "2 / 3 / 4 / 5 / 6 \\u{1b}[2J");
        let long = shown(&[b'x'; 10_000], b"");
        assert_eq!(long, None, "of one endless line nothing is sure to be whole");
        let many = shown(&b"a line of the log\n".repeat(1000), b"").unwrap();
        assert_eq!(many, ["a line of the log"; 5].join(" / "));
        let wide = shown("é".repeat(500).as_bytes(), b"").unwrap();
        assert!(wide.len() <= SHOWN_BYTES && wide.ends_with('é'), "{wide}");
    }

    #[test]
    fn a_secret_is_never_in_them() {
        assert_eq!(shown(b"login with 12345678: no\n", b"12345678").unwrap(), "login with ***: no");
        assert_eq!(shown(b"1234123412345678", b"12345678").unwrap(), "12341234***");
        let mut text = b"12345678".repeat(KEPT_BYTES / 8 + 1);
        text.extend_from_slice(b"\nthe end\n");
        for shift in 0..8 {
            assert_eq!(shown(&text[shift..], b"12345678").unwrap(), "the end", "half a secret at the beginning");
        }
    }

    #[test]
    fn an_end_is_named() {
        for (raw, words) in [
            (libc::SIGSEGV, "was killed by signal 11 (SIGSEGV)"),
            (libc::SIGUSR1, "was killed by signal 10"),
            (libc::SIGSYS, "was killed by its sandbox for a system call that is never allowed (signal 31, SIGSYS)"),
            (3 << 8, "ended with exit code 3"),
        ] {
            assert_eq!(end_of(ExitStatus::from_raw(raw)), words);
        }
    }
}

//! Faults on request, and counters.

use std::{
    fmt::Write as _,
    time::{Duration, Instant},
};

/// Faults that wait for their commands, and counts.
#[derive(Default)]
pub struct Faults {
    /// So many commands are not answered: the connection ends instead.
    pub drop: u32,
    /// So many sessions are forgotten at their next message.
    pub lose_session: u32,
    /// So many sessions are refused: all are in use.
    pub sessions_full: u32,
    /// No command is looked at before this time.
    pub hang_until: Option<Instant>,
    /// The error that answers every request to sign, in its session. 0 for none.
    pub deny: u8,
    /// Whether to change an entry of the log at the next command.
    pub tamper: bool,
    /// Whether to empty the log at the next command.
    pub forget_log: bool,
    /// How the connector writes its answers.
    pub style: Style,
    /// How long a message in a session takes.
    pub latency: Duration,
    /// Whether to drop all sessions at the next command.
    pub power_cycle: bool,
    /// Whether nobody listens on the connector's port.
    pub down: bool,
    pub counts: Counts,
}

/// How the connector writes its answers.
#[derive(Clone, Copy, Default, PartialEq)]
pub enum Style {
    /// In one piece, with its length.
    #[default]
    Plain,
    /// In chunks, each sent alone.
    Chunked,
    /// With its length, a few bytes at a time.
    Pieces,
    /// Without a length: it ends with the connection.
    Close,
    /// Status 500 instead of the device's answer.
    Error,
}

/// Events so far.
#[derive(Default)]
pub struct Counts {
    pub commands: u64,
    pub connections: u64,
    /// Attempts to open a session, refused ones included.
    pub session_requests: u64,
    pub sessions: u64,
    pub signatures: u64,
    /// Sessions that the device holds now, and entries of its log.
    pub open_sessions: u64,
    pub log_entries: u64,
}

impl Faults {
    /// Does what `/fault/NAME` or `/fault/NAME/NUMBER` asks for. `None` if there is no such fault.
    pub fn set(&mut self, route: &str) -> Option<()> {
        let (name, number) = route.split_once('/').unwrap_or((route, "1"));
        let number: u32 = number.parse().ok()?;
        match name {
            "down" => self.down = true,
            "deny" => self.deny = u8::try_from(number).ok()?,
            "drop" => self.drop = number,
            "hang" => self.hang_until = Some(Instant::now() + Duration::from_secs(number.into())),
            "latency" => self.latency = Duration::from_millis(number.into()),
            "lose-session" => self.lose_session = number,
            "power-cycle" => self.power_cycle = true,
            "sessions-full" => self.sessions_full = number,
            "style" => {
                let styles = [Style::Plain, Style::Chunked, Style::Pieces, Style::Close, Style::Error];
                self.style = *styles.get(usize::try_from(number).ok()?)?;
            }
            "forget-log" => self.forget_log = true,
            "tamper" => self.tamper = true,
            "up" => self.down = false,
            _ => return None,
        }
        Some(())
    }

    /// The counts, one on a line.
    pub fn log(&self) -> String {
        let Counts { commands, connections, session_requests, sessions, signatures, open_sessions, log_entries } =
            self.counts;
        let mut text = String::new();
        for (name, count) in [
            ("commands", commands),
            ("connections", connections),
            ("session-requests", session_requests),
            ("sessions", sessions),
            ("signatures", signatures),
            ("open-sessions", open_sessions),
            ("log-entries", log_entries),
        ] {
            writeln!(text, "{name} {count}").expect("a text takes all");
        }
        text
    }

    /// Whether commands are held up.
    pub fn hangs(&self) -> bool {
        self.hang_until.is_some_and(|until| Instant::now() < until)
    }
}

/// Takes one of a number of faults.
pub fn take(left: &mut u32) -> bool {
    let any = *left > 0;
    *left = left.saturating_sub(1);
    any
}

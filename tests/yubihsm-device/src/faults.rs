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
    /// How long a message in a session takes.
    pub latency: Duration,
    /// Whether to drop all sessions at the next command.
    pub power_cycle: bool,
    /// Whether nobody listens on the connector's port.
    pub down: bool,
    pub counts: Counts,
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
}

impl Faults {
    /// Does what `/fault/NAME` or `/fault/NAME/NUMBER` asks for. `None` if there is no such fault.
    pub fn set(&mut self, route: &str) -> Option<()> {
        let (name, number) = route.split_once('/').unwrap_or((route, "1"));
        let number: u32 = number.parse().ok()?;
        match name {
            "down" => self.down = true,
            "drop" => self.drop = number,
            "hang" => self.hang_until = Some(Instant::now() + Duration::from_secs(number.into())),
            "latency" => self.latency = Duration::from_millis(number.into()),
            "lose-session" => self.lose_session = number,
            "power-cycle" => self.power_cycle = true,
            "sessions-full" => self.sessions_full = number,
            "up" => self.down = false,
            _ => return None,
        }
        Some(())
    }

    /// The counts, one on a line.
    pub fn log(&self) -> String {
        let Counts { commands, connections, session_requests, sessions, signatures } = self.counts;
        let mut text = String::new();
        for (name, count) in [
            ("commands", commands),
            ("connections", connections),
            ("session-requests", session_requests),
            ("sessions", sessions),
            ("signatures", signatures),
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

//! The status as text for a person.

use crate::{
    record::utc,
    show::status::{ChainStatus, DeviceStatus, Latency, NodeStatus, ReloadStatus, Status},
};
use highwater_core::consensus::{Hrs, Step};
use std::{
    collections::{BTreeMap, VecDeque},
    fmt::Write as _,
};

/// How many looks the history of the answer times shows.
const LOOKS: usize = 40;

/// Draws one status after the other, and remembers the answer times for the history.
pub(super) struct View {
    paint: Paint,
    histories: BTreeMap<String, History>,
}

/// Whether to use colour.
#[derive(Clone, Copy)]
pub(super) struct Paint(bool);

/// The mean time of a chain's answers, from one look to the next.
#[derive(Default)]
struct History {
    count: u64,
    sum: f64,
    /// In seconds. `None` if there were no answers.
    means: VecDeque<Option<f64>>,
}

impl Paint {
    /// Colour on a terminal, unless `NO_COLOR` is set (no-color.org).
    pub(super) fn for_terminal(is_terminal: bool) -> Self {
        Self(is_terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()))
    }

    fn good(self, text: &str) -> String {
        self.with("32", text)
    }

    fn bad(self, text: &str) -> String {
        self.with("1;31", text)
    }

    fn bold(self, text: &str) -> String {
        self.with("1", text)
    }

    fn with(self, code: &str, text: &str) -> String {
        if self.0 { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

impl View {
    pub(super) fn new(paint: Paint) -> Self {
        Self { paint, histories: BTreeMap::new() }
    }

    /// Draws one picture, with a line break at its end.
    pub(super) fn draw(&mut self, status: &Status) -> String {
        let paint = self.paint;
        let is_quiet = status.chains.iter().any(|chain| chain.quiet(status.now).is_some());
        let ready = match (status.ready, is_quiet) {
            (true, false) => paint.good("every chain signs"),
            (true, true) => paint.good("every chain can sign, but not every chain gets requests"),
            (false, _) => paint.bad("not every chain signs"),
        };
        let Status { version, pid, now, started, .. } = status;
        let mut text =
            format!("highwater {version}, process {pid}, up {}: {ready}\n", span(now.saturating_sub(*started)));
        for warning in &status.warnings {
            let _ = writeln!(text, "{}", paint.bad(warning));
        }
        if let Some(reload) = &status.reload {
            draw_reload(&mut text, paint, reload, *now);
        }
        for chain in &status.chains {
            let history = self.histories.entry(chain.id.clone()).or_default();
            history.look(chain);
            draw_chain(&mut text, paint, chain, history, *now);
        }
        for device in &status.devices {
            draw_device(&mut text, paint, device);
        }
        text
    }
}

fn draw_reload(text: &mut String, paint: Paint, reload: &ReloadStatus, now: u64) {
    let when = format!("{} ({})", utc::at(reload.at), ago(now, reload.at));
    let _ = match (reload.done, reload.lines.is_empty()) {
        (true, true) => writeln!(text, "configuration reloaded {when}: no node has changed"),
        (true, false) => writeln!(text, "configuration reloaded {when}:"),
        (false, _) => writeln!(text, "{}", paint.bad(&format!("reload refused {when}, nothing has changed:"))),
    };
    for line in &reload.lines {
        let _ = writeln!(text, "  {}", if reload.done { line.clone() } else { paint.bad(line) });
    }
}

fn draw_chain(text: &mut String, paint: Paint, chain: &ChainStatus, history: &History, now: u64) {
    let state = match (chain.missing.is_empty(), &chain.refusing, chain.quiet(now)) {
        (false, ..) => paint.bad("does not sign"),
        (true, Some(_), _) => paint.bad("refuses its requests"),
        (true, None, Some(since)) => {
            paint.good(&format!("can sign, no requests since {} ({})", utc::at(since), ago(now, since)))
        }
        (true, None, None) => paint.good("signs"),
    };
    let mark = mark(chain.mark);
    let signed =
        chain.signed_at.map_or("nothing signed since start".to_owned(), |at| format!("last signed {}", ago(now, at)));
    let _ = writeln!(text, "\n{}  {state}, watermark {mark}, {signed}", paint.bold(&chain.id),);
    for missing in chain.missing.iter().chain(&chain.refusing) {
        let _ = writeln!(text, "  {}", paint.bad(missing));
    }
    if let (Some(key), Some(address)) = (&chain.public_key, &chain.address) {
        let _ = writeln!(text, "  key      {key}, address {address}");
    }
    if chain.flush.count > 0 {
        let _ = writeln!(text, "  flush    {}", latency(&chain.flush));
    }
    for node in &chain.nodes {
        draw_node(text, paint, node, now);
    }
    if let Some(line) = history.line() {
        let _ = writeln!(text, "  history  {line}");
    }
}

fn draw_node(text: &mut String, paint: Paint, node: &NodeStatus, now: u64) {
    let link = match (node.up_since, node.down_since, &node.lost) {
        (Some(since), ..) => paint.good(&format!("up for {}", span(now.saturating_sub(since)))),
        (None, Some(since), Some((_, why))) => {
            let down_for = span(now.saturating_sub(since));
            paint.bad(&format!("down since {} ({down_for}): {why}", utc::at(since)))
        }
        _ => paint.bad("not connected yet"),
    };
    let _ = writeln!(text, "  node     {}  {link}", node.address);
    if let Some(peer) = &node.peer {
        let _ = writeln!(text, "           peer {peer}");
    }
    let NodeStatus { signed, repeated, refused, failed, connects, .. } = node;
    let mut line = format!("{signed} signed, {repeated} repeated, {refused} refused, {failed} failed");
    if *connects > 1 {
        let _ = write!(line, ", {connects} connects");
    }
    if node.answer.count > 0 {
        let _ = write!(line, "; answers {}", latency(&node.answer));
    }
    let _ = writeln!(text, "           {line}");
    for (at, why) in &node.refusals {
        let _ = writeln!(text, "           refused {}: {why}", ago(now, *at));
    }
}

fn draw_device(text: &mut String, paint: Paint, device: &DeviceStatus) {
    let state = match &device.down {
        None => paint.good("signs"),
        Some(why) => paint.bad(&format!("down: {why}")),
    };
    let _ = writeln!(text, "\n{}  {state}", paint.bold(&device.name));
    let DeviceStatus { chains, waiting, failures, sessions, signature, .. } = device;
    let mut line = format!("for {}; {waiting} waiting, {failures} failed, {sessions} sessions", chains.join(", "));
    if signature.count > 0 {
        let _ = write!(line, "; signatures {}", latency(signature));
    }
    let _ = writeln!(text, "           {line}");
}

impl History {
    fn look(&mut self, chain: &ChainStatus) {
        let answers = || chain.nodes.iter().map(|node| node.answer);
        let count: u64 = answers().map(|answer| answer.count).sum();
        #[allow(clippy::cast_precision_loss, reason = "a mean need not be exact")]
        let sum: f64 = answers().map(|answer| answer.mean.unwrap_or_default() * answer.count as f64).sum();
        #[allow(clippy::cast_precision_loss, reason = "a mean need not be exact")]
        let mean =
            count.checked_sub(self.count).filter(|new| *new > 0).map(|new| (sum - self.sum).max(0.0) / new as f64);
        // The first mean would go back to the start of the signer.
        self.means.push_back(mean.filter(|_| !self.means.is_empty()));
        if self.means.len() > LOOKS {
            self.means.pop_front();
        }
        (self.count, self.sum) = (count, sum);
    }

    /// A bar for each look, the highest for the slowest. `None` before there are two.
    fn line(&self) -> Option<String> {
        const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
        let slowest = self.means.iter().flatten().copied().fold(0.0, f64::max);
        if self.means.len() < 2 || slowest <= 0.0 {
            return None;
        }
        let mut bars = String::new();
        for mean in &self.means {
            bars.push(match mean {
                None => ' ',
                Some(mean) => {
                    BARS.into_iter().rev().find(|bar| mean / slowest >= height(*bar, &BARS)).unwrap_or(BARS[0])
                }
            });
        }
        Some(format!("{bars}  answers, highest {}", milliseconds(slowest)))
    }
}

/// The share of the slowest time from which this bar is drawn.
fn height(bar: char, bars: &[char]) -> f64 {
    let place = bars.iter().position(|known| *known == bar).unwrap_or_default();
    #[allow(clippy::cast_precision_loss, reason = "there are eight")]
    let share = place as f64 / bars.len() as f64;
    share
}

fn latency(latency: &Latency) -> String {
    let bound = |seconds: Option<f64>| seconds.map_or("over 5 s".to_owned(), |s| format!("≤ {}", milliseconds(s)));
    let mean = latency.mean.map_or(String::new(), |mean| format!(", mean {}", milliseconds(mean)));
    format!("p50 {}, p99 {}{mean}", bound(latency.p50), bound(latency.p99))
}

fn milliseconds(seconds: f64) -> String {
    match seconds * 1000.0 {
        ms if ms < 10.0 => format!("{ms:.2} ms"),
        ms => format!("{ms:.0} ms"),
    }
}

/// Formats a mark as all other texts do.
fn mark((height, round, step): (u64, u32, u8)) -> String {
    match Step::from_number(step.into()) {
        Some(step) => Hrs { height, round, step }.to_string(),
        None => "unknown".into(),
    }
}

fn ago(now: u64, then: u64) -> String {
    match now.saturating_sub(then) {
        0 => "just now".to_owned(),
        seconds => format!("{} ago", span(seconds)),
    }
}

/// A time in its two largest units.
fn span(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, _, _) => format!("{hours} h {} min", minutes % 60),
        _ => format!("{days} d {} h", hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status() -> Status {
        let answer = Latency { count: 10, p50: Some(0.001), p99: Some(0.0025), mean: Some(0.0009) };
        let node = NodeStatus {
            address: "tcp://10.0.0.1:26659".into(),
            peer: Some("aabb".into()),
            up_since: Some(940),
            down_since: None,
            connects: 2,
            lost: Some((930, "the node closed the connection".into())),
            signed: 8,
            repeated: 1,
            refused: 1,
            failed: 0,
            answer,
            refusals: vec![(990, "height regression refused".into())],
        };
        let down = NodeStatus {
            up_since: None,
            down_since: Some(700),
            address: "unix:///b".into(),
            refusals: vec![],
            ..node.clone()
        };
        let chain = ChainStatus {
            id: "test-1".into(),
            public_key: Some("2152".into()),
            address: Some("3097".into()),
            mark: (7, 0, 3),
            signed_at: Some(998),
            missing: vec![],
            refusing: None,
            quiet_since: Some(998),
            flush: answer,
            nodes: vec![node, down],
        };
        let device = DeviceStatus {
            name: "YubiHSM at tcp://a".into(),
            chains: vec!["test-1".into()],
            down: Some("unplugged".into()),
            waiting: 1,
            failures: 2,
            sessions: 3,
            signature: Latency::default(),
        };
        Status {
            schema: Status::SCHEMA,
            version: "0.1.0".into(),
            pid: 5,
            now: 1000,
            started: 0,
            ready: true,
            chains: vec![chain],
            devices: vec![device],
            warnings: vec!["seccomp is off".into()],
            reload: Some(ReloadStatus { at: 995, done: false, lines: vec!["port 1 is new".into()] }),
        }
    }

    #[test]
    fn a_picture_says_what_an_operator_asks() {
        let text = View::new(Paint(false)).draw(&status());
        for words in [
            "up 16 min 40 s: every chain signs",
            "seccomp is off",
            "reload refused 1970-01-01T00:16:35Z (5 s ago), nothing has changed:\n  port 1 is new\n",
            "test-1  signs, watermark 7/0/precommit, last signed 2 s ago",
            "tcp://10.0.0.1:26659  up for 1 min 0 s",
            "8 signed, 1 repeated, 1 refused, 0 failed, 2 connects; answers p50 ≤ 1.00 ms, p99 ≤ 2.50 ms, mean 0.90 ms",
            "refused 10 s ago: height regression refused",
            "unix:///b  down since 1970-01-01T00:11:40Z (5 min 0 s): the node closed the connection",
            "YubiHSM at tcp://a  down: unplugged",
            "for test-1; 1 waiting, 2 failed, 3 sessions",
        ] {
            assert!(text.contains(words), "{words} is not in\n{text}");
        }
        assert!(!text.contains('\x1b'));
        let mut refusing = status();
        refusing.chains[0].refusing = Some("node unix:///b was refused".into());
        refusing.chains[0].mark = (9, 2_147_483_647, 3);
        let text = View::new(Paint(false)).draw(&refusing);
        assert!(text.contains("test-1  refuses its requests, watermark 9/end, last"), "{text}");
        assert!(text.contains("\n  node unix:///b was refused\n"), "{text}");
        let mut quiet = status();
        quiet.ready = true;
        quiet.chains[0].quiet_since = Some(900);
        let text = View::new(Paint(false)).draw(&quiet);
        let words = "test-1  can sign, no requests since 1970-01-01T00:15:00Z (1 min 40 s ago), watermark";
        assert!(text.contains(words) && text.contains("can sign, but not every chain gets requests"), "{text}");
        assert!(View::new(Paint(true)).draw(&status()).contains("\x1b[1;31mdown: unplugged\x1b[0m"));
    }

    #[test]
    fn the_course_shows_what_came_between_two_looks() {
        let mut view = View::new(Paint(false));
        let mut status = status();
        assert!(!view.draw(&status).contains("history"));
        for (count, mean) in [(20, 0.002), (20, 0.002), (40, 0.0015)] {
            let answer = &mut status.chains[0].nodes[0].answer;
            (answer.count, answer.mean) = (count, Some(mean));
            view.draw(&status);
        }
        let history = &view.histories["test-1"];
        let means: Vec<_> = history.means.iter().map(|mean| mean.map(|mean| (mean * 1e6).round())).collect();
        assert_eq!(means, [None, Some(3100.0), None, Some(1000.0)]);
        assert!(history.line().unwrap().starts_with(" █ ▃"), "{:?}", history.line());
    }

    #[test]
    fn times_are_told_in_two_units() {
        for (seconds, text) in [(0, "0 s"), (61, "1 min 1 s"), (7260, "2 h 1 min"), (90_000, "1 d 1 h")] {
            assert_eq!(span(seconds), text);
        }
        assert_eq!((ago(5, 5).as_str(), ago(5, 9).as_str(), ago(9, 5).as_str()), ("just now", "just now", "4 s ago"));
    }
}

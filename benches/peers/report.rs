//! The generated part of `docs/performance.md`, in Markdown.

use crate::{
    Result,
    drive::Times,
    footprint::Footprint,
    signers::{Door, Program},
};
use std::{fmt::Write as _, fs, path::Path, process::Command, thread};

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/performance.md");
const BEGIN: &str = "<!-- `make bench` writes from here -->\n";
const END: &str = "<!-- `make bench` writes to here -->\n";

/// The rows of the floor.
pub const BARE: &str = "bare signer";
pub const DISK: &str = "write and flush";
pub const ROUND_TRIP: &str = "round trip";
pub const SIGN: &str = "signature";

/// A report that grows with every measurement.
pub struct Report {
    text: String,
    aims: Vec<Aim>,
}

/// A ratio and what it should not exceed, or reach.
struct Aim {
    what: &'static str,
    ratio: f64,
    aim: f64,
    at_least: bool,
}

impl Report {
    /// Begins with the machine, and with what is not there to be compared.
    pub fn new(home: &Path, missing: &[String]) -> Self {
        let mut report = Self { text: String::new(), aims: Vec::new() };
        let cores = thread::available_parallelism().map_or(0, usize::from);
        let disk = said_by(Command::new("findmnt").args(["-n", "-o", "SOURCE,FSTYPE,OPTIONS", "-T"]).arg(home));
        report.line(&format!(
            "\nMeasured {}, Highwater {}.\n",
            highwater::record::utc::now(),
            env!("CARGO_PKG_VERSION")
        ));
        report.line("| machine | |\n| --- | --- |");
        report.line(&format!("| processor | {cores} × {} |", processor()));
        report.line(&format!("| kernel | Linux {} |", read("/proc/sys/kernel/osrelease").trim()));
        report.line(&format!("| disk, file system | {} |", disk.split_whitespace().collect::<Vec<_>>().join(", ")));
        report.line(&format!("| load at the beginning | {} |", load()));
        missing.iter().for_each(|why| report.line(&format!("\nNot compared: {why}.")));
        report
    }

    /// One chain with one node.
    pub fn one_chain(&mut self, results: &[Result]) {
        self.line("\n### One chain, one node\n");
        self.line(&format!(
            "{} signatures each; the ratios are relative to tmkms over the same kind of socket.\n",
            count(results)
        ));
        for door in [Door::Tcp, Door::Unix] {
            let rows: Vec<_> = results.iter().filter(|row| row.door == Some(door) && row.program.is_some()).collect();
            self.table(&rows);
        }
        self.floor(results);
        let at = |program, door, permille| find(results, program, door).map(|times| times.at(permille));
        let ratio = |door, peer, permille| Some(at(Program::Highwater, door, permille)? / at(peer, door, permille)?);
        self.aim("p50 to tmkms, TCP", ratio(Door::Tcp, Program::Tmkms, 500), 0.70);
        self.aim("p99 to tmkms, TCP", ratio(Door::Tcp, Program::Tmkms, 990), 1.0);
        self.aim("p50 to tmkms, unix", ratio(Door::Unix, Program::Tmkms, 500), 0.60);
        self.aim("p50 to CometBFT's FilePV, TCP", ratio(Door::Tcp, Program::FilePv, 500), 0.40);
        let bare = find_named(results, BARE, Some(Door::Tcp)).at(500);
        self.aim("p50 to the bare signer, TCP", at(Program::Highwater, Door::Tcp, 500).map(|p50| p50 / bare), 1.5);
    }

    /// The steps that no durable signer can leave out.
    fn floor(&mut self, results: &[Result]) {
        self.line("\nThe floor, measured in turn with the signers:\n\n| | p50 µs | p99 µs | Highwater's p50 to it |\n| --- | --- | --- | --- |");
        let highwater = |door| find(results, Program::Highwater, door).map(|times| times.at(500));
        let own = |name, door| find_named(results, name, door);
        let mut row = |name: &str, p50: f64, p99: Option<f64>, ratio: Option<f64>| {
            let shown = |value: Option<f64>, digits| value.map_or("".into(), |value| format!("{value:.digits$}"));
            let (p99, ratio) = (shown(p99, 0), shown(ratio, 2));
            self.line(&format!("| {name} | {p50:.0} | {p99} | {ratio} |"));
        };
        for (name, door) in [(DISK, None), (SIGN, None), (ROUND_TRIP, Some(Door::Tcp)), (ROUND_TRIP, Some(Door::Unix))]
        {
            let label = format!("{name}{}", door.map_or(String::new(), |door| format!(", {}", door.name())));
            row(&label, own(name, door).at(500), Some(own(name, door).at(990)), None);
        }
        for door in [Door::Tcp, Door::Unix] {
            let sum = own(DISK, None).at(500) + own(SIGN, None).at(500) + own(ROUND_TRIP, Some(door)).at(500);
            row(&format!("these three added up, {}", door.name()), sum, None, highwater(door).map(|p50| p50 / sum));
            let bare = own(BARE, Some(door));
            let ratio = highwater(door).map(|p50| p50 / bare.at(500));
            row(
                &format!("{BARE}, {}: the three, one after the other", door.name()),
                bare.at(500),
                Some(bare.at(990)),
                ratio,
            );
        }
    }

    /// Several chains or nodes at once.
    pub fn several(&mut self, title: &str, about: &str, results: &[Result]) {
        self.line(&format!("\n### {title}\n\n{about} {} answers each.\n", count(results)));
        self.table(&results.iter().collect::<Vec<_>>());
    }

    /// The throughput of four chains is an aim too.
    pub fn four_chains(&mut self, results: &[Result]) {
        self.several("Four chains", "Four chains, one node each, over TCP, all at once.", results);
        let rate = |program| find(results, program, Door::Tcp).map(Times::rate);
        let ratio = (|| Some(rate(Program::Highwater)? / rate(Program::Tmkms)?))();
        self.aim("throughput of four chains to tmkms", ratio, 1.8);
        if let Some(aim) = self.aims.last_mut().filter(|_| ratio.is_some()) {
            aim.at_least = true;
        }
    }

    fn table(&mut self, rows: &[&Result]) {
        self.line("| signer | durable | p50 µs | p99 µs | answers/s | p50 ratio | p99 ratio | answers ratio |");
        self.line("| --- | --- | --- | --- | --- | --- | --- | --- |");
        let tmkms = rows.iter().find(|row| row.program == Some(Program::Tmkms)).map(|row| &row.times);
        for Result { name, program, times, .. } in rows {
            let durable = program.map_or("", Program::durable);
            let (p50, p99, rate) = (times.at(500), times.at(990), times.rate());
            let ratios = tmkms.map_or("| | |".into(), |tmkms| {
                format!("| {:.2} | {:.2} | {:.2}", p50 / tmkms.at(500), p99 / tmkms.at(990), rate / tmkms.rate())
            });
            self.line(&format!("| {name} | {durable} | {p50:.0} | {p99:.0} | {rate:.0} {ratios} |"));
        }
        self.line("");
    }

    /// What each program takes.
    pub fn footprint(&mut self, footprints: &[Footprint], crates: usize) {
        self.line("\n### Footprint\n\n| | start to first signature, ms | memory idle, kB | memory later, kB | after signatures | system calls per signature | stripped, bytes |");
        self.line("| --- | --- | --- | --- | --- | --- | --- |");
        for Footprint { program, start_ms, idle_kb, later_kb, signatures, calls, stripped } in footprints {
            let sum: f64 = calls.iter().map(|(_, count)| count).sum();
            let each: Vec<_> = calls.iter().map(|(name, count)| format!("{name} {count:.2}")).collect();
            let calls = if calls.is_empty() {
                "strace does not run here".into()
            } else {
                format!("{sum:.1}: {}", each.join(", "))
            };
            let name = program.name();
            self.line(&format!(
                "| {name} | {start_ms:.1} | {idle_kb} | {later_kb} | {signatures} | {calls} | {stripped} |"
            ));
        }
        self.line(&format!("\nHighwater's default build has {crates} crates (`make crates`)."));
    }

    fn aim(&mut self, what: &'static str, ratio: Option<f64>, aim: f64) {
        self.aims.extend(ratio.map(|ratio| Aim { what, ratio, aim, at_least: false }));
    }

    /// Puts the report into its document, and says what of the aims was reached.
    pub fn write(mut self) {
        self.line("\n### Aims\n\n| Highwater's | aim | measured | |\n| --- | --- | --- | --- |");
        for Aim { what, ratio, aim, at_least } in std::mem::take(&mut self.aims) {
            let (sign, reached) = if at_least { ("≥", ratio >= aim) } else { ("≤", ratio <= aim) };
            let verdict = if reached { "reached" } else { "missed" };
            self.line(&format!("| {what} | {sign} {aim:.2} | {ratio:.2} | {verdict} |"));
        }
        self.line(&format!("\nLoad at the end: {}.\n", load()));
        println!("{}", self.text);
        let document = fs::read_to_string(DOCUMENT).unwrap();
        let (before, rest) = document.split_once(BEGIN).expect("docs/performance.md has the line where this begins");
        let (_, after) = rest.split_once(END).expect("docs/performance.md has the line where this ends");
        fs::write(DOCUMENT, format!("{before}{BEGIN}{}{END}{after}", self.text)).unwrap();
    }

    fn line(&mut self, line: &str) {
        writeln!(self.text, "{line}").expect("a String takes everything");
    }
}

fn count(results: &[Result]) -> usize {
    results.iter().map(|row| row.times.count()).max().unwrap_or_default()
}

fn find(results: &[Result], program: Program, door: Door) -> Option<&Times> {
    results.iter().find(|row| row.program == Some(program) && row.door == Some(door)).map(|row| &row.times)
}

fn find_named<'a>(results: &'a [Result], name: &str, door: Option<Door>) -> &'a Times {
    let found = results.iter().find(|row| row.name.starts_with(name) && row.door == door);
    &found.expect("the floor is always measured").times
}

fn processor() -> String {
    let info = read("/proc/cpuinfo");
    let model = info.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    model.trim_start_matches(['\t', ' ', ':']).to_owned()
}

fn load() -> String {
    read("/proc/loadavg").split_whitespace().take(3).collect::<Vec<_>>().join(" ")
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// What a command prints; nothing if it cannot be run.
fn said_by(command: &mut Command) -> String {
    command.output().map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}

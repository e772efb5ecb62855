//! Highwater beside the signers that it would replace and beside the floor, measured in turn in one run and told as
//! ratios. Writes the generated part of `docs/performance.md`.

#![allow(missing_docs, clippy::print_stdout, clippy::unwrap_used, unreachable_pub)]

mod drive;
mod floor;
mod footprint;
#[path = "../../tests/support/mock_node.rs"]
mod mock_node;
mod report;
mod signers;

use drive::{Alone, Loops, Measured, Times, in_turn};
use ed25519_dalek::SigningKey;
use floor::{Disk, bare_signer};
use report::{BARE, DISK, ROUND_TRIP, Report, SIGN};
use signers::{Door, Program, Served};
use std::path::Path;

/// One row of a table.
pub struct Result {
    pub name: String,
    /// `None` for the floor.
    pub program: Option<Program>,
    /// `None` for a step without a socket.
    pub door: Option<Door>,
    pub times: Times,
}

/// What is measured in turn, each with its row.
#[derive(Default)]
struct Field {
    rows: Vec<(String, Option<Program>, Option<Door>)>,
    measured: Vec<Box<dyn Measured>>,
}

impl Field {
    fn add(&mut self, name: String, program: Option<Program>, door: Option<Door>, measured: impl Measured + 'static) {
        self.rows.push((name, program, door));
        self.measured.push(Box::new(measured));
    }

    fn measure(mut self, rounds: usize, batch: usize) -> Vec<Result> {
        let times = in_turn(&mut self.measured, rounds, batch);
        let result = |((name, program, door), times)| Result { name, program, door, times };
        self.rows.into_iter().zip(times).map(result).collect()
    }
}

fn main() {
    // Beside the build, not in /tmp: that may be memory, where a flush costs nothing.
    let home = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
    let (programs, missing) = programs();
    let mut report = Report::new(home.path(), &missing);
    report.one_chain(&one_chain(&programs, home.path()));
    report.four_chains(&groups(&programs, home.path(), 4, 1));
    report.several(
        "Two nodes",
        "One chain, two nodes over TCP that ask for the same vote at the same time; the second gets the answer of the first.",
        &groups(&programs, home.path(), 1, 2),
    );
    report.footprint(&footprint::measure(home.path()), footprint::crates());
    report.write();
}

/// What is installed, and a line for each that is not.
fn programs() -> (Vec<Program>, Vec<String>) {
    let (mut found, mut missing) = (Vec::new(), Vec::new());
    for program in [Program::Highwater, Program::Tmkms, Program::FilePv] {
        match program.find() {
            Ok(_) => found.push(program),
            Err(why) => missing.push(why),
        }
    }
    (found, missing)
}

/// One chain with one node: every program over both doors, and the floor.
fn one_chain(programs: &[Program], home: &Path) -> Vec<Result> {
    const ROUNDS: usize = 100;
    const BATCH: usize = 50;
    let mut field = Field::default();
    let key = SigningKey::from_bytes(&[0x42; 32]);
    for door in [Door::Tcp, Door::Unix] {
        for program in programs {
            let served = Served::start(*program, door, home, 1, 1).expect("every program serves one node");
            let name = format!("{}, {}", program.name(), door.name());
            field.add(name, Some(*program), Some(door), Loops::new(served, false));
        }
        let (mut disk, key) = (Disk::new(&home.join(format!("floor of {}", door.name()))), key.clone());
        let work = move || {
            disk.once();
            floor::sign(&key);
        };
        let bare = bare_signer(door, home, "bare.sock", work);
        field.add(format!("{BARE}, {}", door.name()), None, Some(door), Loops::new(bare, false));
        let echo = bare_signer(door, home, "echo.sock", || {});
        field.add(format!("{ROUND_TRIP}, {}", door.name()), None, Some(door), Loops::new(echo, false));
    }
    let mut disk = Disk::new(&home.join("floor"));
    field.add(DISK.into(), None, None, Alone(move || disk.once()));
    field.add(SIGN.into(), None, None, Alone(move || floor::sign(&key)));
    field.measure(ROUNDS, BATCH)
}

/// All nodes of all chains at once, over TCP.
fn groups(programs: &[Program], home: &Path, chains: usize, nodes: usize) -> Vec<Result> {
    const ROUNDS: usize = 40;
    const BATCH: usize = 50;
    let mut field = Field::default();
    for program in programs {
        if let Some(served) = Served::start(*program, Door::Tcp, home, chains, nodes) {
            field.add(program.name().into(), Some(*program), Some(Door::Tcp), Loops::new(served, nodes > 1));
        }
    }
    field.measure(ROUNDS, BATCH)
}

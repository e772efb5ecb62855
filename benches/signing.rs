//! The signing path against its floor, interleaved in one run and told as ratios.
//!
//! The floor is what no durable signer can do without: write and flush one record, sign once. Socket and encryption
//! are left out; the path is everything from a checked request to a released signature.

#![allow(missing_docs, clippy::print_stdout, clippy::unwrap_used)]

use highwater::{
    chain::Chain,
    consensus::{ChainId, Timestamp},
    keyring::{
        Signer,
        softsign::{self, SecretKey},
    },
    privval::{BlockId, Canonical, Extension, Kind, VoteRequest, message},
    watermark::{HostId, Identity, Mark, Mode, RECORD_BYTES, Record, SLOT_BYTES, StateFile, Store, create},
};
use std::{
    fs::{File, OpenOptions},
    os::unix::fs::FileExt as _,
    path::Path,
    time::{Duration, Instant},
};

const BLOCKS: usize = 40;
const BLOCK: usize = 50;

fn main() {
    // Beside the build, not in /tmp: that may be memory, where a flush costs nothing.
    let directory = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
    let mut floor = Floor::new(directory.path());
    let mut path = SigningPath::new(directory.path());
    let (mut floor_times, mut path_times) = (Vec::new(), Vec::new());
    for _ in 0..BLOCKS {
        floor_times.extend((0..BLOCK).map(|_| time(|| floor.once())));
        path_times.extend((0..BLOCK).map(|_| time(|| path.once())));
    }
    println!("{} signatures each, in blocks of {BLOCK} in turn", BLOCKS * BLOCK);
    println!("{:<34} {:>10} {:>10}", "", "p50 µs", "p99 µs");
    let floor = report("floor: write, flush, sign", &mut floor_times);
    let path = report("path: request to released signature", &mut path_times);
    println!("ratio path / floor: p50 {:.2}, p99 {:.2}", path.0 / floor.0, path.1 / floor.1);
}

fn time(act: impl FnOnce()) -> Duration {
    let begin = Instant::now();
    act();
    begin.elapsed()
}

fn report(name: &str, times: &mut [Duration]) -> (f64, f64) {
    times.sort_unstable();
    let at = |permille: usize| times[times.len() * permille / 1000].as_secs_f64() * 1e6;
    println!("{name:<34} {:>10.1} {:>10.1}", at(500), at(990));
    (at(500), at(990))
}

fn key() -> SecretKey {
    softsign::generate(highwater::config::KeyRole::Consensus).unwrap()
}

struct Floor {
    file: File,
    signer: Box<dyn Signer>,
    count: u64,
}

impl Floor {
    fn new(directory: &Path) -> Self {
        let file = OpenOptions::new().write(true).create_new(true).open(directory.join("floor")).unwrap();
        file.write_all_at(&[0; 2 * SLOT_BYTES], 0).unwrap();
        file.sync_all().unwrap();
        Self { file, signer: key().into_signer(), count: 0 }
    }

    fn once(&mut self) {
        self.count += 1;
        let record = [self.count.to_le_bytes()[0]; RECORD_BYTES];
        self.file.write_all_at(&record, (self.count % 2) * SLOT_BYTES as u64).unwrap();
        self.file.sync_data().unwrap();
        self.signer.sign(&record[..120]).unwrap();
    }
}

struct SigningPath {
    chain: Chain,
    height: u64,
}

impl SigningPath {
    fn new(directory: &Path) -> Self {
        let id = ChainId::new("bench-1").unwrap();
        let signer = key().into_signer();
        let (state, host) = (directory.join("state"), HostId([0; 16]));
        let identity = Identity { chain: id.clone(), key: signer.public_key() };
        let mark = Mark::NEVER_SIGNED;
        create(&state, &Record { mode: Mode::Active, sequence: 0, host, identity: identity.clone(), mark }).unwrap();
        let store = Store::open(Box::new(StateFile::open(&state).unwrap()), &identity, host).unwrap();
        Self { chain: Chain::open(id, signer, store, &state, false), height: 0 }
    }

    fn once(&mut self) {
        self.height += 1;
        let block_id = Some(BlockId { hash: [1; 32], parts_total: 1, parts_hash: [2; 32] });
        let timestamp = Timestamp::new(1_700_000_000, 0).unwrap();
        let canonical = Canonical { kind: Kind::Prevote, height: self.height, round: 0, block_id, timestamp };
        let request = VoteRequest { canonical, extension: Extension::None, echo: message::Vote::default() };
        self.chain.sign_vote(&request, None).unwrap();
    }
}

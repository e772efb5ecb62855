//! The floor: what no durable signer can do without. Each step by itself, and all of them behind a socket.

use crate::{
    mock_node::{at, prevote},
    signers::{Door, Served, chain_id},
};
use ed25519_dalek::{Signer as _, SigningKey};
use highwater_core::privval::message::{Message, SignedVoteResponse, Sum, Vote};
use std::{
    fs::{File, OpenOptions},
    io::{Read, Write},
    net::TcpStream,
    os::unix::{fs::FileExt as _, net::UnixStream},
    path::Path,
    thread,
};
use tendermint_p2p::secret_connection::{DATA_MAX_SIZE, SecretConnection, Version};

/// One record, in two places in turn: one write and one flush.
pub struct Disk {
    file: File,
    count: u64,
}

impl Disk {
    /// Two places in a new file, filled and flushed.
    pub fn new(path: &Path) -> Self {
        let file = OpenOptions::new().write(true).create_new(true).open(path).unwrap();
        file.write_all_at(&[0; 8192], 0).unwrap();
        file.sync_all().unwrap();
        Self { file, count: 0 }
    }

    /// Writes and flushes.
    pub fn once(&mut self) {
        self.count += 1;
        let record = [self.count.to_le_bytes()[0]; 512];
        self.file.write_all_at(&record, self.count % 2 * 4096).unwrap();
        self.file.sync_data().unwrap();
    }
}

/// One signature over as many bytes as a vote has.
pub fn sign(key: &SigningKey) {
    std::hint::black_box(key.sign(std::hint::black_box(&[7; 120])));
}

/// A thread that answers every request alike, after it has done `work`. Its socket file, if any, is `socket` in `home`.
pub fn bare_signer(door: Door, home: &Path, socket: &str, mut work: impl FnMut() + Send + 'static) -> Served {
    let node = door.listen(home, socket);
    let address = node.address();
    let path = address.trim_start_matches("unix://").to_owned();
    let tcp = matches!(door, Door::Tcp).then(|| node.socket());
    thread::spawn(move || match tcp {
        Some(socket) => {
            let stream = TcpStream::connect(socket).unwrap();
            stream.set_nodelay(true).unwrap();
            let identity = ed25519_consensus::SigningKey::from([7; 32]);
            answer_all(SecretConnection::new(stream, identity, Version::V0_34).unwrap(), &mut work);
        }
        None => answer_all(UnixStream::connect(path).unwrap(), &mut work),
    });
    Served::by_this_process(node.accept().unwrap(), chain_id(0))
}

fn answer_all(mut stream: impl Read + Write, work: &mut impl FnMut()) {
    let vote = Vote { signature: vec![1; 64], timestamp: Some(at(1_700_000_000)), ..prevote(1, 0, Some(7)) };
    let mut answer = Vec::new();
    Message::from(Sum::SignedVoteResponse(SignedVoteResponse { vote: Some(vote), error: None }))
        .encode_frame(&mut answer);
    let mut request = [0; DATA_MAX_SIZE];
    while stream.read(&mut request).is_ok_and(|length| length > 0) {
        work();
        if stream.write_all(&answer).is_err() {
            return;
        }
    }
}

//! A simulated YubiHSM 2 behind a simulated yubihsm-connector, for tests.
//!
//! ```text
//! yubihsm-device --auth ID PASSWORD_FILE [--ed25519 ID HEX_FILE]... [--secp256k1 ID HEX_FILE]...
//!                [--force-audit] [--audit-log] [--secret-log] [--keep-objects] [--down]
//! ```
//!
//! It prints two addresses on one line: that of the connector (`GET /connector/status`, `POST /connector/api`), and
//! that on which faults are asked for, so that this works while the connector is down:
//!
//! ```text
//! POST /fault/drop/N           do not answer N commands; end the TCP connection instead
//! POST /fault/lose-session/N   forget N sessions, each at its next message: `7f 00 01 03`, from then on
//! POST /fault/power-cycle      forget all sessions
//! POST /fault/sessions-full/N  refuse N new sessions: all are in use
//! POST /fault/hang/SECONDS     hold all commands up; then do them, whether or not anybody still waits
//! POST /fault/latency/MS       have every message in a session take so long
//! POST /fault/deny/ERROR       answer every request to sign with this error, in its session; 0 ends that
//! POST /fault/style/N          write answers plainly (0), in chunks (1), in pieces (2), without a length (3); refuse them
//!                              with the status 500 (4)
//! POST /fault/tamper           change the last entry of the log
//! POST /fault/forget-log       empty the log
//! POST /fault/down, /fault/up  stop listening and end all connections; listen again on the same port
//! GET  /fault/log              counts, as lines of a name and a number
//! ```
//!
//! It ends when its standard input does.

mod device;
mod faults;
mod front;
mod http;
mod inside;
mod log;

use device::{Contents, Device};
use front::Front;
use std::{
    env, fs,
    io::{self, Write as _},
    net::TcpListener,
    process, thread,
};
use yubihsm::asymmetric::Algorithm;

/// Any free port.
const LOOPBACK: &str = "127.0.0.1:0";

fn main() {
    let mut arguments = env::args().skip(1);
    let mut contents = Contents {
        auth: (1, b"password".to_vec()),
        keys: Vec::new(),
        force_audit: false,
        audit_log: false,
        log_is_secret: false,
        keep_objects: false,
    };
    let mut down = false;
    while let Some(argument) = arguments.next() {
        let mut object = || {
            let id = arguments.next().and_then(|id| id.parse().ok()).unwrap_or_else(|| fail("an object id is missing"));
            let path = arguments.next().unwrap_or_else(|| fail("a file is missing"));
            let text = fs::read_to_string(&path).unwrap_or_else(|error| fail(&format!("{path}: {error}")));
            (id, text.trim_end().to_owned())
        };
        match argument.as_str() {
            "--auth" => {
                let (id, password) = object();
                contents.auth = (id, password.into_bytes());
            }
            "--audit-log" => contents.audit_log = true,
            "--down" => down = true,
            "--ed25519" => contents.keys.push(key(Algorithm::Ed25519, object())),
            "--force-audit" => contents.force_audit = true,
            "--keep-objects" => contents.keep_objects = true,
            "--secret-log" => contents.log_is_secret = true,
            "--secp256k1" => contents.keys.push(key(Algorithm::EcK256, object())),
            other => fail(&format!("unknown argument {other}")),
        }
    }
    let make = || Device::new(contents).unwrap_or_else(|error| fail(&format!("the mock device: {error}")));
    if let Err(error) = serve(&Front::start(make, down)) {
        fail(&error.to_string());
    }
}

fn serve(front: &std::sync::Arc<Front>) -> io::Result<()> {
    // Only to learn a free port: it is listened on for as long as the connector is up.
    let address = TcpListener::bind(LOOPBACK)?.local_addr()?;
    let control = TcpListener::bind(LOOPBACK)?;
    let connector = std::sync::Arc::clone(front);
    thread::spawn(move || connector.serve(address).unwrap_or_else(|error| fail(&error.to_string())));

    let control_address = control.local_addr()?;
    let shared = std::sync::Arc::clone(front);
    thread::spawn(move || {
        for stream in control.incoming().map_while(Result::ok) {
            let front = std::sync::Arc::clone(&shared);
            // An error is the end of a test.
            thread::spawn(move || front.control(&stream));
        }
    });
    let mut stdout = io::stdout();
    writeln!(stdout, "{address} {control_address}")?;
    stdout.flush()?;
    io::copy(&mut io::stdin(), &mut io::sink()).map(drop)
}

fn key(algorithm: Algorithm, (id, text): (u16, String)) -> (u16, Algorithm, Vec<u8>) {
    let digit = |index: usize| text.get(index..index + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok());
    let secret = (0..text.len()).step_by(2).map(|index| digit(index).unwrap_or_else(|| fail("a key is not hex")));
    (id, algorithm, secret.collect())
}

fn fail(what: &str) -> ! {
    eprintln!("yubihsm-device: {what}");
    process::exit(1)
}

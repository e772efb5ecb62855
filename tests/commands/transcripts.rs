//! The transcripts in `tests/cmd/`: what an operator types, what is answered, and the exit code, word for word.
//!
//! Each transcript runs in a directory of its own with a copy of `tests/cmd/home/` and with a fresh key in `consensus.key`.
//! `[KEY]` stands for its public key and `[ADDRESS]` for its address, `[CWD]` for the directory, `[..]` for what differs from
//! run to run, and a line `...` for the output of a step that only prepares. Standard output and standard error are mixed, as a
//! terminal shows them; `cli.rs` tests which goes where. After a change of words, `tests/cmd/overwrite.sh` writes the new ones, to be
//! read in the diff.

use crate::support::{binary, cli::seed};
use sha2::{Digest as _, Sha256};
use std::{
    collections::BTreeSet,
    env, fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    panic,
    path::{Path, PathBuf},
    process::Command,
    sync::Mutex,
    thread,
    time::Duration,
};
use subtle_encoding::{base64, hex};
use trycmd::TestCases;

const TRANSCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cmd");
/// The programs that a transcript may use beside `highwater`.
const TOOLS: [&str; 10] = ["cat", "chmod", "cp", "ln", "mkdir", "mv", "rm", "sed", "sh", "touch"];
const PATIENCE: Duration = Duration::from_secs(20);
const WORKERS: usize = 4;

/// Every transcript, by its path.
fn transcripts() -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut directories = vec![PathBuf::from(TRANSCRIPTS)];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "trycmd") {
                found.insert(path);
            }
        }
    }
    assert!(found.len() > 50, "the transcripts were not found");
    found
}

/// A name without its path and extension.
fn name(transcript: &Path) -> String {
    transcript.strip_prefix(TRANSCRIPTS).unwrap().with_extension("").display().to_string()
}

/// Runs one, and panics if anything in it is not as it was.
fn run(transcript: &Path) {
    let place = tempfile::Builder::new().prefix("highwater-").tempdir().unwrap();
    // What is written anew goes through the link into the repository.
    let link = place.path().join("session.trycmd");
    symlink(transcript, &link).unwrap();
    let home = place.path().join("session.in");
    fs::create_dir(&home).unwrap();
    fs::set_permissions(&home, fs::Permissions::from_mode(0o700)).unwrap();
    let write = |name: &str, content: &[u8]| {
        fs::write(home.join(name), content).unwrap();
        fs::set_permissions(home.join(name), fs::Permissions::from_mode(0o600)).unwrap();
    };
    for entry in fs::read_dir(Path::new(TRANSCRIPTS).join("home")).unwrap() {
        let path = entry.unwrap().path();
        write(path.file_name().unwrap().to_str().unwrap(), &fs::read(&path).unwrap());
    }
    let key = ed25519_dalek::SigningKey::from_bytes(&fresh_seed());
    write("consensus.key", &base64::encode(key.to_bytes()));
    let public = key.verifying_key().to_bytes();

    let cases = TestCases::new();
    cases.register_bin("highwater", binary::highwater());
    for tool in TOOLS {
        cases.register_bin(tool, find(tool));
    }
    cases.insert_var("[KEY]", text(hex::encode(public))).unwrap();
    cases.insert_var("[KEY]", text(hex::encode_upper(public))).unwrap();
    cases.insert_var("[ADDRESS]", text(hex::encode_upper(&Sha256::digest(public)[..20]))).unwrap();
    cases.insert_var("[VERSION]", env!("CARGO_PKG_VERSION")).unwrap();
    // Set to nothing, it is not there.
    cases.env("TMKMS_CONFIG_FILE", "").timeout(PATIENCE).case(&link).run();
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

/// Every transcript has a key of its own: signers of one chain and key do not run beside each other on one machine.
fn fresh_seed() -> [u8; 32] {
    // A thread has one.
    thread::spawn(seed).join().unwrap()
}

fn find(program: &str) -> PathBuf {
    let path = env::var_os("PATH").expect("PATH is set");
    let found = env::split_paths(&path).map(|directory| directory.join(program)).find(|path| path.is_file());
    found.unwrap_or_else(|| panic!("{program} is not installed"))
}

#[test]
fn every_transcript_is_as_it_was() {
    let mut all = Command::new(env::current_exe().unwrap());
    all.args(["--ignored", "--exact", "transcripts::all_of_them", "--nocapture"]);
    let output = all.output().unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains("running 1 test"), "{output:?}");
    // A line for each step that is as it was would bury the others.
    let told = String::from_utf8_lossy(&output.stderr);
    let differs: Vec<_> =
        told.lines().filter(|line| !(line.starts_with("Testing ") && line.contains("... ok"))).collect();
    assert!(output.status.success(), "{}", differs.join("\n"));
}

/// Not a test of its own: trycmd reports each step where the test harness cannot hold it back.
#[test]
#[ignore = "run by every_transcript_is_as_it_was"]
fn all_of_them() {
    let waiting = Mutex::new(transcripts());
    let failed = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                loop {
                    let next = waiting.lock().unwrap().pop_first();
                    let Some(transcript) = next else { break };
                    if panic::catch_unwind(|| run(&transcript)).is_err() {
                        failed.lock().unwrap().push(name(&transcript));
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "these differ: {failed:#?}");
}

/// trycmd passes over a program that it does not know.
#[test]
fn transcripts_use_only_programs_that_are_run() {
    for transcript in transcripts() {
        let text = fs::read_to_string(&transcript).unwrap();
        let commands: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("$ ")).collect();
        assert!(commands.iter().any(|command| command.contains("highwater")), "{}", transcript.display());
        for command in commands {
            let program = command.split(' ').find(|word| !word.contains('=')).unwrap();
            assert!(program == "highwater" || TOOLS.contains(&program), "{}: {command}", transcript.display());
        }
    }
}

/// Why a refusal has no transcript.
const ELSEWHERE: &str = "elsewhere: ";

/// For each refusal of a command, a transcript that shows it, or where else it is shown.
const REFUSALS: &[(&str, &[(&str, &str)])] = &[
    (
        "StateError",
        &[
            ("ActiveSource", "state/import-of-another-file-at-work"),
            ("BehindTheirs", "check/tmkms-went-on-after-its-import"),
            ("BelowAudit", "elsewhere: one_decision, with signatures of a running signer"),
            ("BelowTheirs", "state/init-below-another-program"),
            ("CometBftInPlace", "elsewhere: cometbft::tmkms, with a file that CometBFT signed"),
            ("CopyUnchecked", "state/import-of-a-copy"),
            ("File", "state/missing"),
            ("Lost", "state/init-after-the-file-was-lost"),
            ("Migration", "state/import-of-what-is-no-state"),
            ("NotForward", "state/raise-that-goes-back"),
            ("NotImported", "check/state-of-another-program"),
            ("OlderThanBoot", "state/import-of-a-file-older-than-the-boot"),
            ("Store", "state/damaged"),
            ("Theirs", "state/import-whose-source-cannot-be-noted"),
            ("TheirsAtWork", "elsewhere: the unit tests of state, which write at the right moment"),
            ("TheirsInPlace", "state/export-over-the-state-of-another-program"),
        ],
    ),
    (
        "FileError",
        &[
            ("DeadLink", "state/that-is-a-dead-link"),
            ("Exists", "state/init-over-a-state-file"),
            ("Io", "state/init-without-a-directory"),
            ("Locked", "elsewhere: cli, beside a running signer"),
            ("Missing", "state/missing"),
            ("NotAFile", "check/state-that-is-a-directory"),
            ("Writable", "state/file-that-others-can-write"),
        ],
    ),
    (
        "StoreError",
        &[
            ("Copy", "check/state-copied"),
            ("Damaged", "state/damaged"),
            ("ForeignChain", "state/of-another-chain"),
            ("ForeignHost", "elsewhere: durable_first::bad_files, with the file of another machine"),
            ("ForeignKey", "check/state-of-another-key"),
            ("Io", "elsewhere: durable_first::bad_files, on full and read-only disks"),
            ("Newer", "elsewhere: the unit tests of the store, with a format that does not exist yet"),
            ("Overwritten", "elsewhere: durable_first, at work"),
            ("Replaced", "elsewhere: fail_closed::state, at work"),
            ("Retired", "check/state-retired"),
            ("Stopped", "elsewhere: durable_first::faults, at work"),
        ],
    ),
    (
        "MigrationError",
        &[
            ("Ambiguous", "state/import-of-what-could-be-two-programs"),
            ("Field", "state/import-of-a-field-that-is-wrong"),
            ("ForeignChain", "elsewhere: cometbft::tmkms, with a file that CometBFT signed"),
            ("Missing", "state/import-of-nothing"),
            ("NeverSigned", "state/import-of-a-file-that-never-signed"),
            ("NotJson", "state/import-of-what-is-no-state"),
            ("SignBytes", "elsewhere: cometbft::tmkms, with a file that CometBFT signed"),
            ("Signature", "elsewhere: cometbft::tmkms, with a file that CometBFT signed"),
            ("Tombstone", "state/import-of-the-tombstone"),
            ("Unproven", "state/import-of-a-cometbft-file-without-sign-bytes"),
        ],
    ),
    (
        "KeyError",
        &[
            ("Denied", "elsewhere: nowhere, it needs a second user"),
            ("Exists", "softsign/keygen-over-a-file"),
            ("Foreign", "elsewhere: nowhere, it needs a second user"),
            ("Io", "softsign/keygen-without-a-directory"),
            ("Malformed", "softsign/import-of-what-is-no-key"),
            ("Missing", "check/no-key"),
            ("NotAFile", "check/key-that-is-a-directory"),
            ("Permissions", "check/key-open-to-others"),
            ("PublicKey", "elsewhere: devices, which lost their key"),
            ("Random", "elsewhere: nowhere, the system always has random numbers"),
            ("TooLarge", "softsign/import-of-what-is-no-key"),
        ],
    ),
];

/// The variants of an enum, wherever in the sources it is.
fn variants(name: &str) -> BTreeSet<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut directories: Vec<_> = ["src", "core/src"].map(|sources| root.join(sources)).into();
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
                continue;
            }
            let source = fs::read_to_string(path).unwrap();
            let Some((_, body)) = source.split_once(&format!("enum {name} {{\n")) else { continue };
            let body = body.split("\n}").next().unwrap();
            let lines = body.lines().filter_map(|line| line.strip_prefix("    "));
            let names = lines.filter(|line| line.starts_with(|first: char| first.is_ascii_uppercase()));
            return names.map(|line| line.split([' ', '(', ',']).next().unwrap().to_owned()).collect();
        }
    }
    panic!("there is no enum {name}");
}

#[test]
fn every_refusal_has_a_transcript() {
    let there: BTreeSet<_> = transcripts().iter().map(|path| name(path)).collect();
    for (refusal, shown) in REFUSALS {
        let known: BTreeSet<_> = shown.iter().map(|(variant, _)| (*variant).to_owned()).collect();
        assert_eq!(variants(refusal), known, "{refusal}");
        for (variant, transcript) in *shown {
            let found = transcript.starts_with(ELSEWHERE) || there.contains(*transcript);
            assert!(found, "{refusal}::{variant}: there is no tests/cmd/{transcript}.trycmd");
        }
    }
}

//! The plan of `docs/architecture.md` is true: each room imports only what its row allows, and no room imports one above it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

/// From the ground up: a room may import rooms of lower rows, and of those only the ones that stand here.
const ROOMS: &[(&str, &[&str])] = &[
    ("config", &[]),
    ("process", &["config"]),
    ("record", &["config", "process"]),
    ("keyring", &["config", "process", "record"]),
    ("link", &["config", "keyring", "process"]),
    ("provision", &["config", "keyring"]),
    ("show", &["keyring", "process", "record"]),
    ("state", &["config", "keyring"]),
    ("passing", &["keyring", "state"]),
    ("node", &["config", "keyring", "link", "process", "record"]),
    ("inspect", &["config", "keyring", "passing", "process", "record", "state"]),
    ("daemon", &["config", "inspect", "keyring", "node", "passing", "process", "record", "show", "state"]),
    ("cli", &["config", "daemon", "inspect", "keyring", "passing", "process", "provision", "record", "show", "state"]),
];

/// What the deciding crate must not use.
const NOT_IN_CORE: &[&str] = &[
    "TcpListener",
    "TcpStream",
    "UdpSocket",
    "UnixListener",
    "UnixStream",
    "thread::Builder",
    "thread::scope",
    "thread::spawn",
    "env::var",
    "Command::new",
    "tracing::",
    "println!",
];

/// The room of a file: the folder or the file right under `src/`.
fn room(source: &Path, file: &Path) -> String {
    let first = file.strip_prefix(source).unwrap().components().next().unwrap();
    first.as_os_str().to_str().unwrap().trim_end_matches(".rs").to_owned()
}

/// Every file below, but for unit tests in files of their own.
fn files(directory: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|kind| kind == "rs") && name != "tests" && !name.ends_with("_tests") {
            found.push(path);
        }
    }
    found
}

/// The code of a file, without comments and without what only its unit tests need.
fn code(file: &Path) -> String {
    let text = fs::read_to_string(file).unwrap();
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// The rooms that the code names: the first names after `crate::`, also within braces.
fn imports(code: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for rest in code.split("crate::").skip(1) {
        if !rest.starts_with('{') {
            found.insert(name_at(rest));
            continue;
        }
        let mut depth = 0;
        let mut expects_name = false;
        for (at, character) in rest.char_indices() {
            match character {
                '{' => (depth, expects_name) = (depth + 1, depth == 0),
                '}' if depth == 1 => break,
                '}' => depth -= 1,
                ',' => expects_name = depth == 1,
                character if expects_name && character.is_alphabetic() => {
                    found.insert(name_at(&rest[at..]));
                    expects_name = false;
                }
                _ => {}
            }
        }
    }
    found
}

fn name_at(text: &str) -> String {
    text.chars().take_while(|character| character.is_alphanumeric() || *character == '_').collect()
}

#[test]
fn every_room_imports_only_what_stands_below_it() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut plan: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for file in files(&source) {
        let room = room(&source, &file);
        if ["lib", "main"].contains(&room.as_str()) {
            continue;
        }
        let mut imports = imports(&code(&file));
        imports.remove(&room);
        plan.entry(room).or_default().extend(imports);
    }
    let names: Vec<_> = ROOMS.iter().map(|(room, _)| *room).collect();
    assert_eq!(plan.keys().map(String::as_str).collect::<BTreeSet<_>>(), names.iter().copied().collect(), "{plan:#?}");
    for (floor, (room, may)) in ROOMS.iter().enumerate() {
        let may: BTreeSet<_> = may.iter().map(|room| (*room).to_owned()).collect();
        assert_eq!(plan[*room], may, "src/{room} against its row");
        for below in may {
            assert!(names[..floor].contains(&below.as_str()), "{room} imports {below}, which stands above it");
        }
    }
}

#[test]
fn the_core_reaches_for_no_network_no_thread_and_no_environment() {
    let mut count = 0;
    for file in files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("core/src")) {
        // The deliberate bugs are switched on by a variable, and compiled into no ordinary build.
        if file.ends_with("broken.rs") {
            continue;
        }
        let code = code(&file).replace(['\n', ' '], "");
        for word in NOT_IN_CORE {
            assert!(!code.contains(word), "{} names {word}", file.display());
        }
        count += 1;
    }
    assert!(count > 15, "the files of the core were not found");
}

#[test]
fn an_import_is_found_however_it_is_written() {
    let found =
        imports("use crate::{\n    alpha::{self, beta::Gamma},\n    delta,\n};\nlet x = crate::epsilon::zeta();");
    assert_eq!(found, ["alpha", "delta", "epsilon"].map(str::to_owned).into());
}

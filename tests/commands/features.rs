//! Every feature of a `tmkms.toml`, tried on Highwater and on the real tmkms: the rows are in `tmkms_features.json`, and
//! `docs/migrate-from-tmkms.md` shows the same rows to operators.

use crate::support::{cli::Home, skip::skip};
use highwater::{config::Config, keyring::softsign::SecretKey};
use serde::Deserialize;
use std::{
    env, fs,
    io::{BufRead as _, BufReader},
    path::PathBuf,
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

const BASIC: &str = r#"[[chain]]
id = "test-1"
key_format = { type = "hex" }
state_file = "watermark"

[[validator]]
addr = "unix:///nonexistent/node.sock"
chain_id = "test-1"

[[providers.softsign]]
chain_ids = ["test-1"]
path = "consensus.key"
"#;
const SEED: &str = "AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA=";
const IDENTITY: &str = "QkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkI=";

/// A feature. Its first five fields are the columns of the page.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    section: String,
    feature: String,
    tmkms: String,
    highwater: String,
    to_do: String,
    /// What the real tmkms does: "takes" or "refuses"; or "-" where the tests' build of it lacks the provider, or where it does
    /// neither.
    reads: String,
    /// What Highwater does: "takes", "warns" or "fails"; or "-" where another test shows it.
    expect: String,
    /// What its finding says.
    #[serde(default)]
    words: String,
    /// A change of the basic configuration: old and new text.
    edit: Option<[String; 2]>,
    /// Lines at its end.
    #[serde(default)]
    add: String,
    /// The content of the key file.
    key: Option<String>,
}

fn rows() -> Vec<Row> {
    let rows: Vec<Row> = serde_json::from_str(include_str!("tmkms_features.json")).unwrap();
    assert!(rows.len() > 70, "the rows were not read");
    rows
}

/// A home with the configuration and the key of a row.
fn home_of(row: &Row) -> Home {
    let home = Home::new();
    let mut text = BASIC.to_owned();
    if let Some([old, new]) = &row.edit {
        assert!(text.contains(old.as_str()), "{}: {old:?} is in the basic configuration", row.feature);
        text = text.replace(old.as_str(), new);
    }
    home.write("tmkms.toml", format!("{text}\n{}\n", row.add));
    home.write("consensus.key", row.key.as_deref().unwrap_or(SEED));
    home.write("identity.key", IDENTITY);
    home
}

/// The errors, or else the warnings.
fn read(home: &Home) -> Result<Vec<String>, String> {
    let (config, warnings) = Config::load(&home.path("tmkms.toml")).map_err(|error| error.to_string())?;
    for file in config.softsign() {
        SecretKey::load(&home.path("").join(&file.path), file.key.key_type(), file.encoding)
            .map_err(|error| error.to_string())?;
    }
    Ok(warnings.into_iter().map(|warning| warning.text).collect())
}

#[test]
fn highwater_takes_every_feature_as_the_table_says() {
    for row in rows() {
        let found = read(&home_of(&row));
        let feature = &row.feature;
        match (row.expect.as_str(), found) {
            ("takes", Ok(warnings)) => assert!(warnings.is_empty(), "{feature}: {warnings:?}"),
            ("warns", Ok(warnings)) => {
                assert!(warnings.len() == 1 && warnings[0].contains(&row.words), "{feature}: {warnings:?}");
            }
            ("fails", Err(error)) => {
                assert!(error.contains(&row.words) && !row.words.is_empty(), "{feature}: {error}");
                assert_eq!(error.lines().count(), 1, "{feature}: one mistake, one finding: {error}");
            }
            ("-", _) => {}
            (expected, found) => panic!("{feature}: {expected}, but {found:?}"),
        }
    }
}

#[test]
fn tmkms_takes_every_feature_as_the_table_says() {
    let Some(tmkms) = tmkms() else { return };
    for row in rows().iter().filter(|row| row.reads != "-") {
        let home = home_of(row);
        let mut command = Command::new(&tmkms);
        command.arg("start").current_dir(home.path("")).env_remove("TMKMS_CONFIG_FILE");
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (sender, lines) = mpsc::channel();
        let streams: [Box<dyn std::io::Read + Send>; 2] =
            [Box::new(child.stdout.take().unwrap()), Box::new(child.stderr.take().unwrap())];
        for stream in streams {
            let sender = sender.clone();
            thread::spawn(move || {
                BufReader::new(stream).lines().map_while(Result::ok).for_each(|line| drop(sender.send(line)));
            });
        }
        drop(sender);
        // It refuses with an error at once, or else says which key it has, and tries to connect for ever.
        let mut said = Vec::new();
        let takes = loop {
            let line = lines.recv_timeout(Duration::from_secs(10));
            let line = line.unwrap_or_else(|_| panic!("{}: tmkms says neither: {said:?}", row.feature));
            // The last of these is of a node that it does not dial again.
            if ["tmkms::client", "tmkms::connection", "exited with error"].iter().any(|word| line.contains(word)) {
                break true;
            }
            if line.contains("error:") {
                said.push(line);
                break false;
            }
            said.push(line);
        };
        let _ = child.kill();
        child.wait().unwrap();
        assert_eq!(if takes { "takes" } else { "refuses" }, row.reads, "{}: {said:?}", row.feature);
    }
}

#[test]
fn the_page_shows_the_same_rows_in_the_same_order() {
    let page = include_str!("../../docs/migrate-from-tmkms.md");
    let shown: Vec<_> = page.lines().filter(|line| line.starts_with("| ")).skip(2).collect();
    let expected: Vec<_> = rows()
        .into_iter()
        .map(|row| format!("| {} | {} | {} | {} | {} |", row.section, row.feature, row.tmkms, row.highwater, row.to_do))
        .collect();
    assert_eq!(shown, expected, "docs/migrate-from-tmkms.md");
}

fn tmkms() -> Option<PathBuf> {
    let cache = env::var_os("XDG_CACHE_HOME").filter(|path| !path.is_empty()).map(PathBuf::from);
    let cache = cache.unwrap_or_else(|| PathBuf::from(env::var_os("HOME").unwrap()).join(".cache"));
    let binary = cache.join("highwater/tmkms-0.15.0/bin/tmkms");
    if fs::exists(&binary).is_ok_and(|found| found) {
        return Some(binary);
    }
    skip(&format!("there is no {}: run tests/install/tmkms.sh", binary.display()));
    None
}

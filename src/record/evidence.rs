//! What the audit file says was signed: a second memory, beside the watermark, of how far a chain has come.
//!
//! It is only ever read to keep a chain closed. A line counts if it can be read; one that was cut off, or that
//! somebody else wrote into the file, says nothing. A file that was just begun repeats (`carried`) what those before it
//! say, so that they can go. The whole file is read with those that it was rotated out of, in
//! pieces, so that neither its size nor a line without an end takes memory.

use highwater_core::consensus::{CHAIN_ID_MAX_BYTES, ChainId, HEIGHT_MAX, Hrs, PublicKey, Step};
use serde::Deserialize;
use std::{
    borrow::Cow,
    ffi::{OsStr, OsString},
    fs::{self, File},
    io::{self, BufRead as _, BufReader, Read as _},
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

/// Longest line that is looked at. Ours have a few hundred bytes.
const LINE_MAX_BYTES: u64 = 64 * 1024;
/// What is read at one time.
const PIECE_BYTES: usize = 256 * 1024;
/// Most pairs of chain and key. A file that names more was not written by a signer.
const PAIRS_MAX: usize = 4096;
/// What every line of ours begins with.
pub(super) const LINE_BEGINS: &str = "{\"time\":";

/// The highest that was signed, by chain and key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Evidence {
    /// Few, so that looking through them takes less than making a key for a map.
    highest: Vec<Highest>,
    unread: Vec<PathBuf>,
}

/// The highest of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Highest {
    pub(super) chain: String,
    /// Empty in lines of the first versions, which name none.
    pub(super) key: String,
    pub(super) hrs: Hrs,
}

impl Evidence {
    /// The highest that was signed for `chain` with `key`, or for the chain with a key that the line does not name.
    pub fn of(&self, chain: &ChainId, key: &PublicKey) -> Option<Hrs> {
        let key = key.to_string();
        let fits =
            |highest: &&Highest| highest.chain == chain.as_str() && (highest.key == key || highest.key.is_empty());
        self.highest.iter().filter(fits).map(|highest| highest.hrs).max()
    }

    /// Files that look like older parts of the audit file and could not be read as such: packed ones.
    pub fn unread(&self) -> &[PathBuf] {
        &self.unread
    }

    /// Each chain and key, with the highest that was signed.
    pub(super) fn all(&self) -> &[Highest] {
        &self.highest
    }

    /// Takes a line of the file into account.
    pub(super) fn look_at(&mut self, line: &[u8]) -> io::Result<()> {
        let Some(SignedLine { chain, key, hrs }) = SignedLine::read(line) else { return Ok(()) };
        if let Some(highest) = self.highest.iter_mut().find(|highest| highest.key == key && highest.chain == chain) {
            highest.hrs = hrs.max(highest.hrs);
            return Ok(());
        }
        if self.highest.len() == PAIRS_MAX {
            let text = format!("it names more than {PAIRS_MAX} pairs of chain and key: no signer wrote that");
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        self.highest.push(Highest { chain: chain.into_owned(), key: key.into_owned(), hrs });
        Ok(())
    }
}

/// Reads the audit file at `path` and all that it was rotated out of (`path.1`, `path.2` and so on). No file at all is
/// no evidence, and no error.
pub fn highest_signed(path: &Path) -> io::Result<Evidence> {
    let mut evidence = Evidence::default();
    for part in parts(path)? {
        if is_packed(&part) {
            evidence.unread.push(part);
            continue;
        }
        let in_part = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", part.display()));
        match File::open(&part) {
            // Rotated away meanwhile, into a name that is read too.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            opened => read(opened.map_err(in_part)?, &mut evidence).map_err(in_part)?,
        }
    }
    Ok(evidence)
}

/// The file and its predecessors, whatever rotated it: `FILE.1`, `FILE.1.gz`, `FILE-20260131`.
fn parts(path: &Path) -> io::Result<Vec<PathBuf>> {
    let name = path.file_name().unwrap_or_default();
    let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty());
    let entries = match fs::read_dir(directory.unwrap_or(Path::new("."))) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut parts = vec![path.to_owned()];
    for entry in entries {
        let entry = entry?;
        if is_predecessor(name, &entry.file_name()) && fs::metadata(entry.path()).is_ok_and(|found| found.is_file()) {
            parts.push(path.with_file_name(entry.file_name()));
        }
    }
    // A pipe or a device has no past to read.
    if fs::metadata(path).is_ok_and(|found| !found.is_file()) {
        parts.remove(0);
    }
    parts.sort();
    Ok(parts)
}

/// Whether `other` is the name of a file, and then a dot or hyphen and a digit.
fn is_predecessor(name: &OsStr, other: &OsStr) -> bool {
    match other.as_bytes().strip_prefix(name.as_bytes()) {
        Some([b'.' | b'-', digit, ..]) => digit.is_ascii_digit(),
        _ => false,
    }
}

fn is_packed(path: &Path) -> bool {
    let packed = ["gz", "bz2", "xz", "zst", "lz4"].map(OsString::from);
    path.extension().is_some_and(|extension| packed.iter().any(|known| known == extension))
}

fn read(file: File, evidence: &mut Evidence) -> io::Result<()> {
    let mut reader = BufReader::with_capacity(PIECE_BYTES, file);
    let mut line = Vec::new();
    loop {
        line.clear();
        if reader.by_ref().take(LINE_MAX_BYTES).read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        evidence.look_at(&line)?;
        if line.last() != Some(&b'\n') && !skip_line(&mut reader)? {
            return Ok(());
        }
    }
}

/// Reads to the end of a line that is too long. Whether anything follows it.
fn skip_line(reader: &mut BufReader<File>) -> io::Result<bool> {
    loop {
        let piece = reader.fill_buf()?;
        if piece.is_empty() {
            return Ok(false);
        }
        let end = piece.iter().position(|byte| *byte == b'\n');
        let length = end.map_or(piece.len(), |end| end + 1);
        reader.consume(length);
        if end.is_some() {
            return Ok(true);
        }
    }
}

/// A decision of which a signature left.
#[derive(Debug, PartialEq, Eq)]
struct SignedLine<'a> {
    chain: Cow<'a, str>,
    key: Cow<'a, str>,
    hrs: Hrs,
}

/// What is read of a line.
#[derive(Deserialize)]
struct ReadLine<'a> {
    #[serde(borrow)]
    chain: Cow<'a, str>,
    #[serde(borrow, default)]
    key: Cow<'a, str>,
    #[serde(borrow)]
    r#type: Cow<'a, str>,
    height: u64,
    #[serde(default)]
    round: u32,
    #[serde(borrow)]
    result: Cow<'a, str>,
}

impl<'a> SignedLine<'a> {
    /// What the line says was signed, or signed again.
    fn read(line: &'a [u8]) -> Option<Self> {
        let line = str::from_utf8(line).ok()?;
        // Most lines of a flooded file are refusals. Looking for a word is ten times as fast as reading them.
        if !["\"signed\"", "\"repeated\"", "\"carried\""].iter().any(|word| line.contains(word)) {
            return None;
        }
        Self::parse(line).or_else(|| {
            // A kill cuts a line off, and the next process goes on behind it.
            let begin = line.rfind(LINE_BEGINS).filter(|begin| *begin > 0)?;
            Self::parse(&line[begin..])
        })
    }

    fn parse(line: &'a str) -> Option<Self> {
        let line: ReadLine<'a> = serde_json::from_str(line).ok()?;
        let step = match &*line.r#type {
            "proposal" => Step::Propose,
            "prevote" => Step::Prevote,
            "precommit" => Step::Precommit,
            _ => return None,
        };
        let signed = matches!(&*line.result, "signed" | "repeated" | "carried");
        let is_ours = line.chain.len() <= CHAIN_ID_MAX_BYTES && line.height <= HEIGHT_MAX;
        let hrs = Hrs { height: line.height, round: line.round, step };
        (signed && is_ours).then_some(Self { chain: line.chain, key: line.key, hrs })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use highwater_core::consensus::KeyType;
    use std::io::Write as _;

    const KEY: [u8; 32] = [
        0x21, 0x52, 0xf8, 0xd1, 0x9b, 0x79, 0x1d, 0x24, 0x45, 0x32, 0x42, 0xe1, 0x5f, 0x2e, 0xab, 0x6c, 0xb7, 0xcf,
        0xfa, 0x7b, 0x6a, 0x5e, 0xd3, 0x00, 0x97, 0x96, 0x0e, 0x06, 0x98, 0x81, 0xdb, 0x12,
    ];

    fn key() -> PublicKey {
        PublicKey::from_bytes(KeyType::Ed25519, &KEY).unwrap()
    }

    fn chain(id: &str) -> ChainId {
        ChainId::new(id).unwrap()
    }

    fn at(height: u64, round: u32, step: Step) -> Hrs {
        Hrs { height, round, step }
    }

    fn line(key: &str, kind: &str, height: u64, round: u32, result: &str) -> String {
        let key = if key.is_empty() { String::new() } else { format!(r#""key":"{key}","#) };
        format!(
            "{{\"time\":1,\"chain\":\"a\",{key}\"node\":\"n\",\"type\":\"{kind}\",\"height\":{height},\
             \"round\":{round},\"result\":\"{result}\",\"sequence\":7}}\n"
        )
    }

    #[test]
    fn the_highest_of_each_key_is_found_in_all_parts_of_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.jsonl");
        assert_eq!(highest_signed(&path).unwrap(), Evidence::default(), "no file is no evidence");
        let (ours, other) = (key().to_string(), "ed25519:00");
        fs::write(&path, line(&ours, "prevote", 9, 0, "signed")).unwrap();
        assert_eq!(highest_signed(&path).unwrap().of(&chain("a"), &key()), Some(at(9, 0, Step::Prevote)));
        // An older part has the higher one, as after an older state was put back.
        fs::write(path.with_file_name("audit.jsonl.2"), line(&ours, "precommit", 70, 3, "repeated")).unwrap();
        fs::write(path.with_file_name("audit.jsonl-20260131"), line(&ours, "proposal", 70, 4, "signed")).unwrap();
        fs::write(path.with_file_name("audit.jsonl.1"), line(other, "precommit", 900, 0, "signed")).unwrap();
        // What is no part of it.
        fs::write(path.with_file_name("audit.jsonl.old"), line(&ours, "prevote", 8000, 0, "signed")).unwrap();
        fs::write(path.with_file_name("audit.jsonl.3.gz"), "packed").unwrap();
        let evidence = highest_signed(&path).unwrap();
        assert_eq!(evidence.of(&chain("a"), &key()), Some(at(70, 4, Step::Propose)));
        assert_eq!(evidence.of(&chain("b"), &key()), None);
        assert_eq!(evidence.unread(), [path.with_file_name("audit.jsonl.3.gz")]);
    }

    #[test]
    fn a_line_without_a_key_counts_for_every_key_of_its_chain() {
        let mut evidence = Evidence::default();
        evidence.look_at(line("", "prevote", 5, 0, "signed").as_bytes()).unwrap();
        evidence.look_at(line(&key().to_string(), "prevote", 3, 0, "signed").as_bytes()).unwrap();
        assert_eq!(evidence.of(&chain("a"), &key()), Some(at(5, 0, Step::Prevote)));
    }

    #[test]
    fn what_was_refused_cut_off_or_written_by_others_says_nothing() {
        let good = line("", "prevote", 5, 0, "signed");
        let quoted = r#"{"time":1,"chain":"a","type":"prevote","height":9,"result":"refused","text":"\"signed\""}"#;
        for other in [
            line("", "prevote", 9, 0, "refused"),
            line("", "raw-bytes", 9, 0, "signed"),
            line("", "prevote", u64::MAX, 0, "signed"),
            good[..good.len() - 10].to_owned(),
            quoted.to_owned(),
            "\"signed\"".into(),
            "[\"signed\"]".into(),
        ] {
            assert_eq!(SignedLine::read(other.as_bytes()), None, "{other}");
        }
        assert_eq!(SignedLine::read(b"\xff\"signed\""), None);
        // The next process went on behind a line that a kill had cut off.
        let glued = format!("{}{good}", &line("", "prevote", 4, 0, "signed")[..50]);
        assert_eq!(SignedLine::read(glued.as_bytes()).unwrap().hrs, at(5, 0, Step::Prevote));
        // Somebody has put blanks into it.
        let spaced = r#"{ "chain": "a", "type": "prevote", "height": 6, "result": "signed" }"#;
        assert_eq!(SignedLine::read(spaced.as_bytes()).unwrap().hrs, at(6, 0, Step::Prevote));
    }

    #[test]
    fn a_line_without_an_end_takes_no_memory_and_hides_nothing_after_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.jsonl");
        let mut file = File::create(&path).unwrap();
        file.write_all(line("", "prevote", 5, 0, "signed").as_bytes()).unwrap();
        file.write_all(&vec![b'x'; 3 * PIECE_BYTES]).unwrap();
        file.write_all(b"\n").unwrap();
        file.write_all(line("", "prevote", 6, 0, "signed").as_bytes()).unwrap();
        file.write_all(&vec![b'y'; 3 * PIECE_BYTES]).unwrap();
        let evidence = highest_signed(&path).unwrap();
        assert_eq!(evidence.of(&chain("a"), &key()), Some(at(6, 0, Step::Prevote)));
    }

    #[test]
    fn more_chains_than_a_signer_has_are_an_error() {
        let mut evidence = Evidence::default();
        let mut look =
            |number: usize| evidence.look_at(line(&number.to_string(), "prevote", 1, 0, "signed").as_bytes());
        (0..PAIRS_MAX).for_each(|number| look(number).unwrap());
        look(0).unwrap();
        assert_eq!(look(PAIRS_MAX).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}

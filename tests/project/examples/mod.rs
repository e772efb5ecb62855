//! What the documents show as output is what the program prints.
//!
//! An example is a fenced block of `text` or without a language, or what stands in a `console` block below a `$ highwater …`. What is no
//! output of ours, or of a device or a firewall that no test has, is a block of `text no-output`. Each example has to be what
//! one step of a transcript (`tests/cmd/`) or one scene of a running signer (`scenes`) printed. Paths, chains, marks, keys, numbers
//! and times may be others (`words`). A `…` on a line of its own stands for lines that are left out. With a `$ highwater …` above it,
//! an example is all that this command prints, so there too what is left out has a `…`.
//!
//! `tests/cmd/overwrite.sh` corrects the examples that differ. Read the diff.

mod scenes;
mod words;

use super::docs::{Document, documents};
use std::{env, fmt::Write as _, fs, path::Path};
use words::{are, likeness, words};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const LEFT_OUT: &str = "…";
/// Commands that have commands of their own.
const GROUPS: [&str; 5] = ["state", "softsign", "pkcs11", "yubihsm", "keys"];
/// Options that make a command print something else.
const OPTIONS: [&str; 2] = ["--before-start", "--json"];
/// Below this, two lines have nothing to do with each other.
const ALIKE: f64 = 0.4;
/// How much the same marks and names count, beside the same words.
const AMONG_EQUALS: f64 = 0.001;

/// What one command printed.
#[derive(Clone)]
pub struct Source {
    name: String,
    /// Its name and the options that change what it prints.
    command: Vec<String>,
    lines: Vec<String>,
    words: Vec<Vec<String>>,
}

impl Source {
    fn new<'a>(name: String, command: &str, lines: impl Iterator<Item = &'a str>) -> Self {
        let lines: Vec<_> = lines.map(str::to_owned).collect();
        Self { name, command: command_of(command), words: lines.iter().map(|line| words(line)).collect(), lines }
    }

    /// The line that is most like this one, and among equals the one with the same marks and names.
    fn nearest(&self, shown: &str) -> Option<(&str, f64)> {
        let (letters, shown_words) = (raw(shown), words(shown));
        let rated = self.lines.iter().zip(&self.words).map(|(line, real)| {
            let rate = if are(&shown_words, real) { 1.0 } else { likeness(&shown_words, real) };
            (line.as_str(), rate + AMONG_EQUALS * likeness(&letters, &raw(line)))
        });
        rated.max_by(|(_, one), (_, other)| one.total_cmp(other))
    }
}

/// The words of a line as they are.
fn raw(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}

/// An example in a document.
struct Example {
    page: String,
    /// The numbers of its first line and of the one behind its last, from 0.
    from: usize,
    to: usize,
    indentation: usize,
    command: Option<Vec<String>>,
    lines: Vec<String>,
}

impl Example {
    /// Runs of lines between those that are left out.
    fn runs(&self) -> Vec<Vec<Vec<String>>> {
        let runs = self.lines.split(|line| line == LEFT_OUT);
        runs.map(|run| run.iter().map(|line| words(line)).collect()).collect()
    }

    fn is_of(&self, source: &Source) -> bool {
        if self.command.as_ref().is_some_and(|command| *command != source.command) {
            return false;
        }
        let runs = self.runs();
        let mut from = 0;
        for (number, run) in runs.iter().enumerate() {
            let lengths = source.words.len().checked_sub(run.len());
            let whole = self.command.is_some();
            let last = lengths.filter(|last| *last >= from);
            let Some(last) = last else { return false };
            let mut places = from..=last;
            if whole && number == 0 {
                places = 0..=0;
            }
            if whole && number + 1 == runs.len() {
                places = last.max(*places.start())..=last.min(*places.end());
            }
            let same = |at: &usize| run.iter().zip(&source.words[*at..]).all(|(shown, real)| are(shown, real));
            // Nothing between two of them is nothing to be found.
            let Some(at) = places.clone().find(same).or(run.is_empty().then_some(from)) else { return false };
            from = at + run.len();
        }
        true
    }

    /// What is likely meant, and how much of it is there.
    fn likeliest<'a>(&self, sources: &'a [Source]) -> Option<&'a Source> {
        let fits = |source: &&Source| self.command.as_ref().is_none_or(|command| *command == source.command);
        let rate = |source: &Source| -> f64 {
            let lines = self.lines.iter().filter(|line| *line != LEFT_OUT);
            lines.filter_map(|line| source.nearest(line)).map(|(_, rate)| rate).sum()
        };
        sources.iter().filter(fits).max_by(|one, other| rate(one).total_cmp(&rate(other)))
    }

    /// Its lines with the real ones in place of those that are none, and a `…` where it leaves some out.
    fn corrected(&self, source: &Source) -> Vec<String> {
        let mut lines = Vec::new();
        let mut next = 0;
        for line in &self.lines {
            let line = Self::correct(line, source);
            let shown = words(&line);
            let place = source.words.iter().skip(next).position(|real| are(&shown, real));
            if let Some(skipped) = place {
                if skipped > 0 && (next > 0 || self.command.is_some()) {
                    lines.push(LEFT_OUT.to_owned());
                }
                next += skipped + 1;
            }
            lines.push(line);
        }
        if self.command.is_some() && next < source.lines.len() {
            lines.push(LEFT_OUT.to_owned());
        }
        lines.dedup_by(|one, other| one == LEFT_OUT && other == LEFT_OUT);
        lines
    }

    fn correct(line: &str, source: &Source) -> String {
        let shown = words(line);
        let known = line == LEFT_OUT || source.words.iter().any(|real| are(&shown, real));
        let nearest = source.nearest(line).filter(|(_, rate)| !known && *rate >= ALIKE);
        nearest.map_or_else(|| line.to_owned(), |(nearest, _)| tidy(nearest))
    }

    fn difference(&self, source: Option<&Source>) -> String {
        let mut text = format!("{}:{}: no command prints this", self.page, self.from + 1);
        let Some(source) = source else { return text };
        let _ = write!(text, ". The nearest is {}", source.name);
        for line in self.lines.iter().filter(|line| *line != LEFT_OUT) {
            let shown = words(line);
            if !source.words.iter().any(|real| are(&shown, real)) {
                let _ = write!(text, "\n  - {line}\n  + {}", source.nearest(line).map_or("", |(line, _)| line));
            }
        }
        text
    }
}

/// A line as a document may have it: without its time, and with paths instead of what stands for them in a transcript.
fn tidy(line: &str) -> String {
    let levels = ["ERROR ", "WARN ", "INFO "];
    let first = line.split_once(' ').filter(|(time, rest)| {
        (time.ends_with('Z') || *time == "[..]") && levels.iter().any(|level| rest.trim_start().starts_with(level))
    });
    first.map_or(line, |(_, rest)| rest.trim_start()).replace("[CWD]", "/var/lib/highwater")
}

/// `["state", "show", "--json"]` of `highwater state show --json --chain ID`.
fn command_of(line: &str) -> Vec<String> {
    let line = line.split(" #").next().unwrap();
    let all: Vec<_> = line.split_whitespace().skip_while(|word| *word == "highwater").collect();
    let end = all.iter().position(|word| word.starts_with('-') || !GROUPS.contains(word)).unwrap_or(all.len());
    let name = all.iter().take(end + 1).filter(|word| !word.starts_with('-'));
    let options = all.iter().filter(|word| OPTIONS.contains(word));
    name.chain(options).map(|word| (*word).to_owned()).collect()
}

/// Every example of a document.
fn examples(document: &Document) -> Vec<Example> {
    let mut found: Vec<Example> = Vec::new();
    let mut fence: Option<(usize, &str)> = None;
    // Whether the lines that come are output of ours.
    let mut ours = false;
    let lines: Vec<_> = document.text.lines().collect();
    for (number, line) in lines.iter().enumerate() {
        let indentation = line.len() - line.trim_start().len();
        let start = |command| Example {
            page: document.path.display().to_string(),
            from: number + 1,
            to: number + 1,
            indentation,
            command,
            lines: Vec::new(),
        };
        match (line.trim_start().strip_prefix("```"), fence) {
            (Some(language), None) => {
                fence = Some((indentation, language));
                ours = ["", "text"].contains(&language);
                if ours {
                    found.push(start(None));
                }
            }
            (Some(_), Some(_)) => fence = None,
            (None, Some((_, "" | "text" | "console"))) => {
                if let Some(command) = line.trim_start().strip_prefix("$ ") {
                    ours = command.starts_with("highwater ");
                    if ours {
                        found.push(start(Some(command_of(command))));
                    }
                } else if ours {
                    let example = found.last_mut().unwrap();
                    example.to = number + 1;
                    example.lines.push(line.get(example.indentation..).unwrap_or_default().to_owned());
                }
            }
            (None, _) => {}
        }
    }
    for example in &mut found {
        while example.lines.last().is_some_and(|line| line.trim().is_empty()) {
            example.lines.pop();
            example.to -= 1;
        }
    }
    found.retain(|example| !example.lines.is_empty());
    found
}

/// What every step of every transcript printed.
fn transcripts() -> Vec<Source> {
    let mut found = Vec::new();
    let mut directories = vec![Path::new(ROOT).join("tests/cmd")];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "trycmd") {
                let name = path.strip_prefix(ROOT).unwrap().display().to_string();
                found.extend(steps(&name, &fs::read_to_string(path).unwrap()));
            }
        }
    }
    found
}

fn steps(name: &str, transcript: &str) -> Vec<Source> {
    let mut found = Vec::new();
    for step in transcript.split("\n$ ").skip(1) {
        let (command, printed) = step.split_once('\n').unwrap_or((step, ""));
        let printed = printed.split("\n```").next().unwrap().trim_end();
        // `...` is for what only prepares, and for the rest of a long output.
        let lines = printed.lines().filter(|line| !line.starts_with("? ") && *line != "...");
        if command.starts_with("highwater ") {
            found.push(Source::new(name.to_owned(), command, lines));
        }
    }
    found
}

/// With `HIGHWATER_EXAMPLES=overwrite`, writes the examples anew that differ.
#[test]
fn the_documents_show_what_the_program_prints() {
    let overwrites = env::var("HIGHWATER_EXAMPLES").as_deref() == Ok("overwrite");
    let sources = [transcripts(), scenes::all()].concat();
    let (mut count, mut differences) = (0, Vec::new());
    for document in documents() {
        let mut text: Vec<_> = document.text.lines().map(str::to_owned).collect();
        let mut examples = examples(&document);
        count += examples.len();
        examples.retain(|example| !sources.iter().any(|source| example.is_of(source)));
        // From the end, so that numbers of lines stay right.
        for example in examples.iter().rev() {
            let source = example.likeliest(&sources);
            differences.push(example.difference(source));
            if let Some(source) = source.filter(|_| overwrites) {
                let indentation = " ".repeat(example.indentation);
                let lines = example
                    .corrected(source)
                    .into_iter()
                    .map(|line| format!("{indentation}{line}").trim_end().to_owned());
                text.splice(example.from..example.to, lines);
            }
        }
        if overwrites && !examples.is_empty() {
            fs::write(Path::new(ROOT).join(&document.path), text.join("\n") + "\n").unwrap();
        }
    }
    assert!(count > 15, "only {count} examples were found");
    let differences = differences.join("\n");
    if overwrites {
        println!("corrected, as far as they have a source:\n{differences}");
    } else {
        assert!(differences.is_empty(), "{differences}\n\nRun tests/cmd/overwrite.sh, and read the diff");
    }
}

#[test]
fn an_example_is_all_of_one_output_or_says_what_it_leaves_out() {
    let source =
        |command| Source::new("a".into(), command, ["ok    one", "fail  two at 7/end", "ok    three"].into_iter());
    let example = |text: &str| examples(&Document { path: "a.md".into(), text: text.into() }).remove(0);
    let check = "highwater check -c other.toml";
    for whole_or_marked in [
        "```console\n$ highwater check\nok    one\nfail  two at 12/0/prevote\nok    three\n```",
        "- a list:\n\n  ```console\n  $ highwater check # why\n  …\n  fail  two at 7/end\n  …\n  ```",
        "```\nfail  two at 7/end\nok    three\n```",
        "```\nok    one\n…\nok    three\n```",
    ] {
        assert!(example(whole_or_marked).is_of(&source(check)), "{whole_or_marked}");
    }
    for drifted in [
        "```console\n$ highwater check\nok    one\nfail  2 at 7/end\nok    three\n```",
        "```console\n$ highwater check\nok    one\nfail  two at 7/end\n```",
        "```console\n$ highwater check\nfail  two at 7/end\nok    three\n```",
        "```console\n$ highwater status\nok    one\n…\n```",
        "```console\n$ highwater check --json\nok    one\n…\n```",
        "```\nok    one\nok    three\n```",
        "```\nok    three\n…\nok    one\n```",
        "```\nok    one\nfail  two at 7/end\nok    three\nok    four\n```",
    ] {
        let example = example(drifted);
        assert!(!example.is_of(&source(check)), "{drifted}");
        if example.command == Some(source(check).command) && example.lines.len() == 2 {
            let corrected = Example { lines: example.corrected(&source(check)), ..example };
            assert!(corrected.is_of(&source(check)), "{:?}", corrected.lines);
        }
    }
}

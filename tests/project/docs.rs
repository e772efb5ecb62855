//! The documents tell the truth: commands parse, links lead somewhere, exit codes and crates are those that there are.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// A document, by its path from the root.
pub struct Document {
    pub path: PathBuf,
    pub text: String,
}

pub fn documents() -> Vec<Document> {
    let markdown = |directory: &str| {
        let entries = fs::read_dir(Path::new(ROOT).join(directory)).unwrap();
        entries.map(|entry| entry.unwrap().path()).filter(|path| path.extension().is_some_and(|kind| kind == "md"))
    };
    let paths = ["", "docs", "hsm-profiles"].into_iter().flat_map(markdown);
    let mut documents: Vec<_> = paths
        .map(|path| Document {
            text: fs::read_to_string(&path).unwrap(),
            path: path.strip_prefix(ROOT).unwrap().into(),
        })
        .collect();
    documents.sort_by(|one, other| one.path.cmp(&other.path));
    assert!(documents.len() > 15, "the documents were not found");
    documents
}

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(ROOT).join(path)).unwrap()
}

/// A line of a document, and whether it stands in a fenced block, whose language is given.
fn lines(text: &str) -> Vec<(Option<&str>, &str)> {
    let mut fence = None;
    let mut lines = Vec::new();
    for line in text.lines() {
        match (line.trim_start().strip_prefix("```"), fence) {
            (Some(language), None) => fence = Some(language),
            (Some(_), Some(_)) => fence = None,
            (None, _) => lines.push((fence, line.trim_start())),
        }
    }
    assert_eq!(fence, None, "a fence is not closed");
    lines
}

/// Text between single backquotes, also over a line break.
fn code_spans(text: &str) -> Vec<String> {
    let prose: Vec<_> = lines(text).into_iter().map(|(fence, line)| if fence.is_some() { "" } else { line }).collect();
    // A span ends at the latest with its paragraph.
    let prose = prose.join("\n");
    let paragraphs = prose
        .split("\n\n")
        .flat_map(|text| if text.starts_with('|') { text.split('\n').collect() } else { vec![text] });
    let spans = paragraphs
        .flat_map(|text| text.split('`').skip(1).step_by(2).map(|span| span.replace('\n', " ")).collect::<Vec<_>>());
    spans.collect()
}

/// Every command line that begins with `highwater`.
fn commands(text: &str) -> Vec<String> {
    let fenced = lines(text).into_iter().filter_map(|(fence, line)| match fence? {
        "sh" => Some(line),
        "console" => line.strip_prefix("$ "),
        _ => None,
    });
    let fenced = fenced.map(|line| line.split(" #").next().unwrap().trim().to_owned());
    fenced.chain(code_spans(text)).filter(|line| line.starts_with("highwater ")).collect()
}

/// The output of `highwater … --help`, run once for each command.
#[derive(Default)]
struct Help(BTreeMap<Vec<String>, String>);

impl Help {
    fn of(&mut self, path: &[String]) -> &str {
        self.0.entry(path.to_vec()).or_insert_with(|| {
            let output = Command::new(env!("CARGO_BIN_EXE_highwater")).args(path).arg("--help").output().unwrap();
            assert!(output.status.success(), "highwater {path:?} --help");
            String::from_utf8(output.stdout).unwrap()
        })
    }

    fn subcommands(&mut self, path: &[String]) -> Vec<String> {
        let help = self.of(path).split_once("Commands:\n").map_or("", |(_, rest)| rest);
        let listed = help.lines().take_while(|line| line.starts_with("  "));
        let names = listed.filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
        names.filter(|name| !["", "help"].contains(name)).map(str::to_owned).collect()
    }

    /// Every command that does something.
    fn leaves(&mut self, path: &[String]) -> Vec<Vec<String>> {
        let subcommands = self.subcommands(path);
        if subcommands.is_empty() {
            return vec![path.to_vec()];
        }
        subcommands.into_iter().flat_map(|name| self.leaves(&[path, &[name]].concat())).collect()
    }

    /// What is wrong with a command line from a document, with `[…]`, `\|` and words in capitals.
    fn flaw(&mut self, line: &str) -> Option<String> {
        let line = line.replace("\\|", "|").replace(['[', ']', '…', ','], " ");
        let end = line.find([';', '>', '<']).unwrap_or(line.len());
        let mut words = line[..end].split_whitespace().skip(1).peekable();
        let mut path = Vec::new();
        while let Some(word) = words.peek() {
            match self.subcommands(&path).contains(&(*word).to_owned()) {
                true => path.push(words.next()?.to_owned()),
                false => break,
            }
        }
        let flags: Vec<_> = words.filter(|word| word.starts_with('-')).collect();
        if path.is_empty() && flags.iter().all(|flag| !["--version", "-V"].contains(flag)) {
            return Some("no such command".into());
        }
        let help = self.of(&path);
        let known: BTreeSet<_> = help.split([' ', ',', '\n', '|', '<', '>', '[', ']']).collect();
        let unknown = flags.iter().find(|flag| !known.contains(flag.split('=').next().unwrap()));
        unknown.map(|flag| format!("highwater {} has no {flag}", path.join(" ")))
    }
}

#[test]
fn every_command_line_in_the_documents_parses() {
    let mut help = Help::default();
    let mut found = 0;
    for Document { path, text } in documents() {
        for command in commands(&text) {
            found += 1;
            assert_eq!(help.flaw(&command), None, "{}: {command}", path.display());
        }
    }
    assert!(found > 100, "only {found} command lines were found");
    for wrong in
        ["highwater begin", "highwater check --fast", "highwater state raise -x", "highwater state show --format"]
    {
        assert!(help.flaw(wrong).is_some(), "{wrong} was not noticed");
    }
}

#[test]
fn every_command_stands_in_the_table_of_commands() {
    let page = read("docs/commands.md");
    let lines: Vec<_> = commands(&page).iter().map(|line| line.replace("\\|", "|")).collect();
    for leaf in Help::default().leaves(&[]) {
        let (last, group) = leaf.split_last().unwrap();
        let begin = ["highwater"].into_iter().chain(group.iter().map(String::as_str)).collect::<Vec<_>>().join(" ");
        let told = lines.iter().any(|line| {
            let rest = line.strip_prefix(&begin).unwrap_or_default();
            rest.split([' ', '|']).any(|word| word == last)
        });
        assert!(told, "docs/commands.md does not name `{begin} {last}`");
    }
}

/// Its heading as GitHub makes a link of it.
fn anchor(heading: &str) -> String {
    let heading = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

fn anchors(text: &str) -> BTreeSet<String> {
    let headings = lines(text).into_iter().filter(|(fence, line)| fence.is_none() && line.starts_with('#'));
    headings.map(|(_, line)| anchor(line)).collect()
}

#[test]
fn every_link_leads_somewhere() {
    let mut found = 0;
    for Document { path, text } in documents() {
        let prose: Vec<_> =
            lines(&text).into_iter().filter(|(fence, _)| fence.is_none()).map(|(_, line)| line).collect();
        for link in prose.join("\n").split("](").skip(1).map(|rest| rest.split(')').next().unwrap()) {
            if link.starts_with("https://") {
                continue;
            }
            found += 1;
            let (file, place) = link.split_once('#').map_or((link, None), |(file, place)| (file, Some(place)));
            let target = if file.is_empty() { path.clone() } else { path.parent().unwrap().join(file) };
            let target = Path::new(ROOT).join(target);
            let target = fs::canonicalize(&target);
            let target = target.unwrap_or_else(|error| panic!("{}: {link} leads nowhere: {error}", path.display()));
            if let Some(place) = place {
                let there = fs::read_to_string(&target).unwrap();
                assert!(anchors(&there).contains(place), "{}: {link}: there is no such heading", path.display());
            }
        }
    }
    assert!(found > 40, "only {found} links were found");
}

/// Every file of the project that is text and no document: sources, scripts, rules, the example of a configuration.
fn other_files(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            if !["target", "corpus", "docs", ".git"].contains(&name.as_str()) {
                other_files(&path, found);
            }
        } else if !name.ends_with(".md") {
            found.push(path);
        }
    }
}

/// Error texts, alerts and comments name documents too. What is packaged finds them under the same names.
#[test]
fn every_document_and_section_that_a_file_names_is_there() {
    let mut files = Vec::new();
    other_files(Path::new(ROOT), &mut files);
    let mut found = 0;
    for file in files {
        // What is not text names nothing.
        let Ok(text) = fs::read_to_string(&file) else { continue };
        for rest in text.split("docs/").skip(1) {
            let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || "-_.#".contains(c))).unwrap_or(rest.len());
            let Some((name, place)) = rest[..end].split_once(".md") else { continue };
            found += 1;
            let document = Path::new(ROOT).join("docs").join(format!("{name}.md"));
            let there = fs::read_to_string(&document);
            let there = there.unwrap_or_else(|_| panic!("{}: there is no docs/{name}.md", file.display()));
            let place = place.strip_prefix('#').map(|place| place.trim_end_matches('.'));
            if let Some(place) = place.filter(|place| !place.is_empty()) {
                assert!(anchors(&there).contains(place), "{}: docs/{name}.md has no #{place}", file.display());
            }
        }
    }
    assert!(found > 50, "only {found} documents were named");
}

#[test]
fn every_make_target_in_the_documents_is_one() {
    let makefile = read("Makefile");
    let targets = makefile.lines().filter(|line| line.contains(" ## ")).filter_map(|line| line.split_once(':'));
    let targets: BTreeSet<_> = targets.map(|(name, _)| name).collect();
    let mut found = 0;
    for Document { path, text } in documents() {
        let fenced =
            lines(&text).into_iter().filter(|(fence, _)| ["sh", "console"].contains(&fence.unwrap_or_default()));
        let fenced = fenced.map(|(_, line)| line.split('#').next().unwrap().to_owned());
        for line in fenced.chain(code_spans(&text)) {
            let line = line.trim_start_matches("$ ").trim_start_matches("CI=true ");
            let Some(words) = line.strip_prefix("make ") else { continue };
            for target in words.split_whitespace().filter(|word| !word.contains('=')) {
                found += 1;
                assert!(targets.contains(target), "{}: there is no `make {target}`", path.display());
            }
        }
    }
    assert!(found > 15, "only {found} targets were found");
}

/// What the pages for operators quote, and what is not the program's.
const OPERATORS: [&str; 7] = ["alerts", "commands", "hsm-", "install", "migrate-", "runbook", "status"];
const NOT_OURS: [&str; 1] = ["to have it signing meanwhile"];

/// The sources as one line, without the breaks within texts.
fn sources() -> String {
    let mut files = Vec::new();
    for directory in ["src", "core/src"] {
        other_files(&Path::new(ROOT).join(directory), &mut files);
    }
    let mut all = String::new();
    for file in files {
        let source = fs::read_to_string(file).unwrap();
        let mut parts = source.split("\\\n");
        all += parts.next().unwrap();
        for part in parts {
            all += part.trim_start();
        }
    }
    all.to_lowercase()
}

/// Whoever looks for the words of a page in a log finds them.
#[test]
fn what_a_page_quotes_is_what_the_program_says() {
    let sources = sources();
    let mut found = 0;
    for Document { path, text } in documents() {
        let name = path.file_name().unwrap().to_str().unwrap();
        if !OPERATORS.iter().any(|begin| name.starts_with(begin)) {
            continue;
        }
        let prose: Vec<_> =
            lines(&text).into_iter().map(|(fence, line)| if fence.is_some() { "" } else { line }).collect();
        let prose = prose.join("\n");
        // Not in code, where quotes are TOML's and the shell's.
        let prose: String = prose.split('`').step_by(2).collect::<Vec<_>>().join("`");
        for quote in prose.split("\n\n").flat_map(|paragraph| paragraph.split('"').skip(1).step_by(2)) {
            let quote = quote.replace('\n', " ").to_lowercase();
            if quote.contains('`') || NOT_OURS.contains(&quote.as_str()) {
                continue;
            }
            found += 1;
            let parts = quote.split('…').map(|part| part.trim().trim_end_matches('.'));
            for part in parts {
                assert!(sources.contains(part), "{}: the program never says {part:?}", path.display());
            }
        }
    }
    assert!(found > 10, "only {found} quotes were found");
}

/// Whoever counts transcripts counts no more than there are.
#[test]
fn there_are_as_many_transcripts_as_is_said() {
    let mut files = Vec::new();
    other_files(&Path::new(ROOT).join("tests/cmd"), &mut files);
    let there = files.iter().filter(|path| path.extension().is_some_and(|kind| kind == "trycmd")).count();
    for page in ["README.md", "docs/assurance.md"] {
        let text = read(page);
        let (before, _) = text.split_once(" transcripts").unwrap();
        let told: usize = before.rsplit(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap();
        assert!(told <= there, "{page}: there are {there} transcripts");
    }
}

/// The numbers of the variants of an enum in a source file.
fn numbers_of_enum(source: &str, name: &str) -> BTreeSet<u32> {
    let (_, body) = source.split_once(&format!("pub enum {name} {{")).unwrap();
    let body = body.split("\n}").next().unwrap();
    body.lines().filter_map(|line| line.split_once(" = ")?.1.strip_suffix(',')?.parse().ok()).collect()
}

/// The numbers in the first column of the table below a heading.
fn numbers_of_table(text: &str, heading: &str) -> BTreeSet<u32> {
    let (_, section) = text.split_once(&format!("\n## {heading}\n")).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let cells = section.lines().filter_map(|line| line.strip_prefix("| ")?.split(" |").next());
    cells.flat_map(|cell| cell.split(", ").filter_map(|number| number.parse().ok())).collect()
}

/// The numbers that stand right behind `word`.
fn numbers_after(text: &str, word: &str) -> Vec<u32> {
    let digits = |rest: &str| rest.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().ok();
    text.split(word).skip(1).filter_map(digits).collect()
}

#[test]
fn exit_codes_and_error_codes_are_those_of_the_code() {
    let (exits, errors) = (
        numbers_of_enum(&read("src/cli/error.rs"), "Exit"),
        numbers_of_enum(&read("core/src/privval/refusal.rs"), "ErrorCode"),
    );
    assert!(exits.contains(&78) && errors.contains(&100), "{exits:?} {errors:?}");
    let page = read("docs/commands.md");
    assert_eq!(numbers_of_table(&page, "Exit codes"), exits);
    assert_eq!(numbers_of_table(&page, "Refusal codes"), errors);
    let mut found = 0;
    for Document { path, text } in documents() {
        let text = text.replace('\n', " ");
        for (words, known) in
            [(["exit code ", "Exit code ", "exits with "].as_slice(), &exits), (&["returned error #"], &errors)]
        {
            for number in words.iter().flat_map(|word| numbers_after(&text, word)) {
                found += 1;
                assert!(known.contains(&number), "{}: there is no code {number}", path.display());
            }
        }
    }
    assert!(found > 5, "only {found} codes were found");
}

/// The names in a section of both `Cargo.toml`, but for our own crate.
fn crates_of_manifests(section: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for manifest in ["Cargo.toml", "core/Cargo.toml"] {
        let manifest = read(manifest);
        let (_, rest) = manifest.split_once(&format!("\n[{section}]\n")).unwrap();
        let lines = rest.lines().take_while(|line| !line.starts_with('[') && !line.starts_with("# The Debian package"));
        let found = lines.filter_map(|line| line.split_once(" = ")).map(|(name, _)| name.trim());
        names.extend(found.filter(|name| !name.starts_with('#')).map(str::to_owned));
    }
    names.remove("highwater-core");
    names
}

#[test]
fn every_direct_dependency_has_its_line_and_every_line_its_dependency() {
    let document = read("docs/dependencies.md");
    for (section, heading) in [("dependencies", "Direct"), ("dev-dependencies", "For tests only")] {
        let (_, rest) = document.split_once(&format!("\n## {heading}\n")).unwrap();
        let rows =
            rest.split("\n## ").next().unwrap().lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
        let rows: BTreeSet<_> = rows.map(|(name, _)| name.to_owned()).collect();
        let crates = crates_of_manifests(section);
        // What the program needs may be needed by a test of the core too.
        let crates =
            if section == "dev-dependencies" { &crates - &crates_of_manifests("dependencies") } else { crates };
        assert_eq!(rows, crates, "[{section}] against docs/dependencies.md");
    }
}

#[test]
fn nothing_is_left_to_be_written() {
    for Document { path, text } in documents() {
        for word in ["TODO", "TBD", "FIXME", "XXX", "lorem ipsum"] {
            assert!(!text.contains(word), "{}: {word}", path.display());
        }
    }
}

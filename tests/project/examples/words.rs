//! A line of output as words, with a class in place of whatever differs from run to run: paths, marks, keys, numbers, times.

const STEPS: [&str; 4] = ["proposal", "prevote", "precommit", "end"];
const UNITS: [&str; 6] = ["µs", "ms", "s", "min", "h", "d"];
const FILES: [&str; 8] = [".highwater", ".imported", ".json", ".key", ".service", ".so", ".sock", ".toml"];
/// What stands for anything in a transcript.
const ANYTHING: &str = "*";
/// How many words that is at most.
const ANYTHING_MAX: usize = 4;
/// A word that is longer and has digits is a key, an address or an id.
const ID_CHARS: usize = 20;
/// The same for a word of nothing but hex, such as the first bytes of a block.
const HEX_CHARS: usize = 12;

/// The words of a line. Its indentation is one of them.
pub fn words(line: &str) -> Vec<String> {
    let text = line.trim_start();
    let indentation = line.len() - text.len();
    let mut words = vec![format!("{indentation} blanks")];
    for part in pieces(text) {
        let core = part.trim_end_matches(['.', ':', '?']);
        if !core.is_empty() {
            words.push(class(core));
        }
        if core.len() < part.len() {
            words.push(part[core.len()..].to_owned());
        }
    }
    with_durations(without_time(words))
}

/// At blanks, and at marks that stand for themselves.
fn pieces(text: &str) -> Vec<&str> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some(end) = rest.find(|c: char| " ()\"'`,;=".contains(c)) {
        pieces.push(&rest[..end]);
        pieces.push(rest[end..=end].trim());
        rest = &rest[end + 1..];
    }
    pieces.push(rest);
    pieces.retain(|piece| !piece.is_empty());
    pieces
}

fn class(word: &str) -> String {
    if word.contains("[..]") {
        return ANYTHING.into();
    }
    if ["[KEY]", "[ADDRESS]"].contains(&word) {
        return "ID".into();
    }
    if let Some((kind, key)) = word.split_once(':').filter(|(kind, _)| ["ed25519", "secp256k1"].contains(kind)) {
        return format!("{kind}:{}", class(key));
    }
    if word.starts_with("tcp://") || word.starts_with("unix://") {
        return "ADDRESS".into();
    }
    if is_mark(word) {
        return "MARK".into();
    }
    if ["/", "./", "[CWD]"].iter().any(|start| word.starts_with(start)) || FILES.iter().any(|end| word.ends_with(end)) {
        return "PATH".into();
    }
    let has_digit = word.contains(|c: char| c.is_ascii_digit());
    let starts_with_digit = word.starts_with(|c: char| c.is_ascii_digit());
    if starts_with_digit && word.len() >= ID_CHARS && word.contains('T') && word.ends_with('Z') && word.contains(':') {
        return "TIME".into();
    }
    if word.len() >= HEX_CHARS && word.chars().all(|c| c.is_ascii_hexdigit()) {
        return "ID".into();
    }
    if word == "[VERSION]" || has_digit && word.chars().all(|c| c.is_ascii_digit() || ['.', '#'].contains(&c)) {
        return "NUMBER".into();
    }
    if has_digit && word.len() >= ID_CHARS && word.chars().all(|c| c.is_ascii_alphanumeric()) {
        return "ID".into();
    }
    let chain = word.rsplit_once('-').filter(|(name, number)| {
        name.starts_with(|c: char| c.is_ascii_lowercase()) && number.chars().all(|c| c.is_ascii_digit())
    });
    if chain.is_some_and(|(_, number)| !number.is_empty()) { "CHAIN".into() } else { word.into() }
}

/// `42/0/precommit`, `42/end`.
fn is_mark(word: &str) -> bool {
    let parts: Vec<_> = word.split('/').collect();
    let (step, numbers) = parts.split_last().expect("a split has a part");
    !numbers.is_empty() && STEPS.contains(step) && numbers.iter().all(|number| number.parse::<u64>().is_ok())
}

/// The documents leave out the time at the beginning of a line of the log.
fn without_time(mut words: Vec<String>) -> Vec<String> {
    let at_the_start = words.get(1).is_some_and(|word| word == "TIME" || word == ANYTHING);
    let of_the_log = words.get(2).is_some_and(|word| ["ERROR", "WARN", "INFO", "DEBUG"].contains(&word.as_str()));
    if at_the_start && of_the_log {
        words.remove(1);
    }
    words
}

/// `3 min 12 s`, `2.50 ms`, and `just now` for `4 s ago`.
fn with_durations(words: Vec<String>) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for word in words {
        let after_number = all.last().is_some_and(|last| last == "NUMBER");
        if after_number && UNITS.contains(&word.as_str()) {
            all.pop();
            if all.last().is_none_or(|last| last != "DURATION") {
                all.push("DURATION".into());
            }
        } else if word == "now" && all.last().is_some_and(|last| last == "just") {
            all.pop();
            all.extend(["DURATION".into(), "ago".into()]);
        } else {
            all.push(word);
        }
    }
    all
}

/// Whether the words of a document are these words, of which some may be any.
pub fn are(shown: &[String], real: &[String]) -> bool {
    match (shown.split_first(), real.split_first()) {
        (_, Some((first, rest))) if first == ANYTHING => {
            (0..=shown.len().min(ANYTHING_MAX)).any(|some| are(&shown[some..], rest))
        }
        (Some((one, shown)), Some((other, real))) => one == other && are(shown, real),
        (one, other) => one.is_none() && other.is_none(),
    }
}

/// How much two lines have in common: 0 to 1.
pub fn likeness(one: &[String], other: &[String]) -> f64 {
    let mut left = other.to_vec();
    let mut common = 0_u32;
    for word in one {
        if let Some(place) = left.iter().position(|candidate| candidate == word) {
            left.swap_remove(place);
            common += 1;
        }
    }
    let all = u32::try_from(one.len() + other.len()).expect("a line is short");
    f64::from(2 * common) / f64::from(all)
}

#[test]
fn what_differs_from_run_to_run_is_not_compared_and_all_else_is() {
    let same = |one: &str, other: &str| are(&words(one), &words(other));
    for (one, other) in [
        (
            "ok    chain a-1: state file /a/b is at 18/0/precommit",
            "ok    chain test-1: state file w.highwater is at 7/end",
        ),
        ("WARN refused us=236 reason=\"x\"", "2026-03-01T09:14:07Z  WARN refused us=9 reason=\"x\""),
        ("a-1  signs, last signed just now", "b-2  signs, last signed 3 min 12 s ago"),
        ("made /a/b (peer id 7189eb89048183a89ce36bf2a5f81045c5fe9043)", "made [CWD]/b (peer id [..])"),
        ("highwater 0.1.0, process 6613", "highwater [VERSION], process 1"),
        ("block=0707070707070707", "block=8F3A00C7DE01AA42"),
    ] {
        assert!(same(one, other), "{:?}\n{:?}", words(one), words(other));
    }
    for (one, other) in [
        ("ok    the state", "fail  the state"),
        ("3 signed, 0 refused", "3 signed, 0 failed"),
        ("us=236", "ms=236"),
        ("asked for 4/0/proposal", "asked 4/0/proposal"),
        ("  node up", "node up"),
        ("(a)", "a"),
        ("one two three four five six", "[..] six"),
    ] {
        assert!(!same(one, other), "{one} is not {other}");
    }
}

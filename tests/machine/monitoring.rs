//! The alert rules, the dashboard and the documents about them speak of what a running signer shows, and of all of it.

use crate::support::{
    mock_node::{MockNode, precommit},
    signer::Home,
};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

const RULES: &str = include_str!("../../packaging/monitoring/alerts.yml");
const RULE_TESTS: &str = include_str!("../../packaging/monitoring/alerts.test.yml");
const DASHBOARD: &str = include_str!("../../packaging/monitoring/dashboard.json");
const ALERTS_GUIDE: &str = include_str!("../../docs/alerts.md");
const METRICS_GUIDE: &str = include_str!("../../docs/metrics.md");
const STATUS_GUIDE: &str = include_str!("../../docs/status.md");
const MONITORING: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/monitoring");

const CHAIN: &str = "test-1";
const ON_A_DEVICE: &str = "test-2";
const PATIENCE: Duration = Duration::from_secs(20);
/// Labels that Prometheus itself adds.
const OF_PROMETHEUS: [&str; 3] = ["alertname", "instance", "job"];
/// Labels whose values are the same for every signer.
const CLOSED: [&str; 4] = ["kind", "reason", "result", "type"];

/// Every name of a sample that a signer shows, with its labels and their values.
type Shown = BTreeMap<String, BTreeMap<String, BTreeSet<String>>>;

/// A name in a query, with the labels that it is selected by.
#[derive(Debug)]
struct Selector {
    name: String,
    matchers: Vec<(String, Vec<String>)>,
}

/// The metrics of a signer that serves one chain from a file and one from a device.
struct Live {
    metrics: String,
    status: Value,
}

fn live() -> Live {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let home = Home::new().chain(CHAIN, "").chain(ON_A_DEVICE, "");
    let nodes = ["a.sock", "b.sock"].map(|name| MockNode::unix(&home.path(name)).unwrap());
    let home = home.node(&nodes[0].address(), CHAIN, "").node(&nodes[1].address(), ON_A_DEVICE, "").init();
    // The state file knows the key, so the device need not be there.
    let config = fs::read_to_string(home.path("tmkms.toml")).unwrap();
    let in_a_file = format!(
        "[[providers.softsign]]\nchain_ids = [\"{ON_A_DEVICE}\"]\npath = {:?}\n",
        home.key_file(ON_A_DEVICE).display().to_string()
    );
    assert!(config.contains(&in_a_file), "{config}");
    let on_a_device = format!(
        "[[providers.yubihsm]]\nadapter = {{ type = \"http\", addr = \"tcp://127.0.0.1:1\" }}\n\
         auth = {{ key = 4, password_file = {:?} }}\n\
         keys = [{{ chain_ids = [\"{ON_A_DEVICE}\"], key = 1 }}]\n\
         [highwater.metrics]\nladdr = \"{address}\"\n",
        home.key_file(CHAIN).display().to_string()
    );
    fs::write(home.path("tmkms.toml"), config.replace(&in_a_file, "") + &on_a_device).unwrap();

    let _signer = home.start();
    let mut session = nodes[0].accept().unwrap();
    session.ask_vote(CHAIN, precommit(3, 0, Some(7))).unwrap().unwrap();
    assert_eq!(session.ask_vote(CHAIN, precommit(3, 0, Some(8))).unwrap().unwrap_err().code, 100);
    // What came of a request is counted after its answer has left.
    let deadline = Instant::now() + PATIENCE;
    loop {
        let metrics = scrape(address);
        if metrics.lines().any(|line| line.contains("\"block-against-block\"} 1")) {
            let output = home.command(&["status", "--json"]).output().unwrap();
            return Live { metrics, status: serde_json::from_slice(&output.stdout).unwrap() };
        }
        assert!(Instant::now() < deadline, "the refusal was never counted: {metrics}");
        thread::sleep(Duration::from_millis(20));
    }
}

fn scrape(address: SocketAddr) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split_once("\r\n\r\n").unwrap().1.to_owned()
}

fn shown(metrics: &str) -> Shown {
    let mut shown = Shown::new();
    for line in metrics.lines().filter(|line| !line.starts_with('#')) {
        let [selector] = &selectors(line)[..] else { panic!("one sample a line: {line}") };
        let labels = shown.entry(selector.name.clone()).or_default();
        for (label, values) in &selector.matchers {
            labels.entry(label.clone()).or_default().extend(values.iter().cloned());
        }
    }
    shown
}

/// Every `highwater_name{label="value",…}` in a text. The braces may be missing.
fn selectors(text: &str) -> Vec<Selector> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let starts = text.match_indices("highwater_").map(|(start, _)| &text[start..]);
    let selector = |rest: &str| {
        let (name, rest) = rest.split_at(rest.find(|c| !is_name(c)).unwrap_or(rest.len()));
        let inside = rest.strip_prefix('{').and_then(|rest| rest.split_once('}')).map_or("", |(inside, _)| inside);
        let matcher = |part: &str| {
            let (label, rest) = part.trim().split_once('=').unwrap_or_else(|| panic!("{part:?} in {inside:?}"));
            let values = rest.trim_start_matches('~').trim_matches(['"', '\\']);
            (label.to_owned(), values.split('|').map(str::to_owned).collect())
        };
        let parts = split_matchers(inside);
        Selector { name: name.to_owned(), matchers: parts.iter().map(|part| matcher(part)).collect() }
    };
    starts.map(selector).collect()
}

/// At the commas outside quotes.
fn split_matchers(inside: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut quoted = false;
    for c in inside.chars() {
        quoted ^= c == '"';
        match c {
            ',' if !quoted => parts.push(String::new()),
            _ => parts.last_mut().unwrap().push(c),
        }
    }
    parts.retain(|part| !part.trim().is_empty());
    parts
}

/// The labels in every `by (…)` and `on (…)`.
fn groupings(text: &str) -> Vec<&str> {
    let lists = ["by (", "by\n(", "on ("].into_iter().flat_map(|word| text.split(word).skip(1));
    lists.flat_map(|rest| rest.split(')').next().unwrap().split(',')).map(str::trim).collect()
}

/// Checks that a text only uses metrics that a signer shows.
#[track_caller]
fn assert_shown(shown: &Shown, text: &str, whose: &str) {
    let selectors = selectors(text);
    assert!(!selectors.is_empty(), "{whose} asks for nothing");
    for Selector { name, matchers } in selectors {
        let labels = shown.get(&name).unwrap_or_else(|| panic!("{whose}: no signer shows {name}"));
        for (label, values) in matchers.iter().filter(|(label, _)| !OF_PROMETHEUS.contains(&label.as_str())) {
            let known = labels.get(label).unwrap_or_else(|| panic!("{whose}: {name} has no label {label}"));
            let unknown = values.iter().find(|value| CLOSED.contains(&label.as_str()) && !known.contains(*value));
            assert_eq!(unknown, None, "{whose}: {name} has no such {label}");
        }
    }
    let all: BTreeSet<&str> = shown.values().flat_map(|labels| labels.keys().map(String::as_str)).collect();
    for label in groupings(text) {
        let known = all.contains(label) || OF_PROMETHEUS.contains(&label) || label == "severity";
        assert!(known, "{whose}: no signer shows the label {label:?}");
    }
}

/// The queries of the dashboard, and those behind its variables.
pub fn dashboard_queries() -> Vec<String> {
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().unwrap());
    let queries: Vec<_> = targets.map(|target| target["expr"].as_str().unwrap().to_owned()).collect();
    assert!(queries.len() >= panels.len(), "a panel without a query");
    queries
}

/// Without comments.
fn rules() -> String {
    RULES.lines().filter(|line| !line.trim_start().starts_with('#')).map(|line| format!("{line}\n")).collect()
}

#[test]
fn rules_dashboard_and_documents_speak_of_what_a_signer_shows() {
    let live = live();
    let shown = shown(&live.metrics);
    assert!(shown.contains_key("highwater_device_up") && shown.contains_key("highwater_ready"), "{shown:?}");
    assert_shown(&shown, &rules(), "alerts.yml");
    assert_shown(&shown, RULE_TESTS, "alerts.test.yml");
    for query in dashboard_queries() {
        assert_shown(&shown, &query, &query);
    }
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    for variable in dashboard["templating"]["list"].as_array().unwrap() {
        if let Some(query) = variable["query"]["query"].as_str() {
            assert_shown(&shown, query, query);
        }
    }
    assert_metrics_are_explained(&live.metrics, &shown);
    assert_status_is_explained(&live.status);
}

/// A line for each metric, with its labels, and none for what there is not.
#[track_caller]
fn assert_metrics_are_explained(metrics: &str, shown: &Shown) {
    let types = metrics.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let mut explained = BTreeSet::new();
    for (name, kind) in types {
        let name = if kind == "counter" { format!("{name}_total") } else { name.to_owned() };
        let sample = if kind == "histogram" { format!("{name}_bucket") } else { name.clone() };
        let begin = format!("| `{name}` | {kind} |");
        let line = METRICS_GUIDE.lines().find(|line| line.starts_with(&begin));
        let line = line.unwrap_or_else(|| panic!("docs/metrics.md has no line that begins with {begin}"));
        let labels: BTreeSet<_> = shown[&sample].keys().filter(|label| *label != "le").cloned().collect();
        let told = line.split(" | ").nth(2).unwrap().split(", ").map(|label| label.trim_matches('`').to_owned());
        let told: BTreeSet<_> = told.filter(|label| label != "–").collect();
        assert_eq!(told, labels, "the labels of {name} in docs/metrics.md");
        explained.insert(name);
    }
    for name in METRICS_GUIDE.lines().filter_map(|line| line.strip_prefix("| `highwater_")?.split_once('`')) {
        assert!(explained.contains(&format!("highwater_{}", name.0)), "docs/metrics.md invents {}", name.0);
    }
    for label in CLOSED {
        let values: BTreeSet<_> = shown.values().filter_map(|labels| labels.get(label)).flatten().collect();
        for value in values {
            assert!(METRICS_GUIDE.contains(&format!("`{value}`")), "docs/metrics.md does not explain {label}={value}");
        }
    }
}

/// Every field of `status --json`, at any depth.
#[track_caller]
fn assert_status_is_explained(status: &Value) {
    match status {
        Value::Array(items) => items.iter().for_each(assert_status_is_explained),
        Value::Object(fields) => {
            for (name, value) in fields {
                assert!(STATUS_GUIDE.contains(&format!("| `{name}` |")), "docs/status.md does not explain {name}");
                assert_status_is_explained(value);
            }
        }
        _ => {}
    }
}

#[test]
fn every_alert_has_its_page_and_every_page_its_alert() {
    let alerts: Vec<_> = RULES.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    let pages: Vec<_> = ALERTS_GUIDE.lines().filter_map(|line| line.strip_prefix("## Highwater")).collect();
    let pages: Vec<_> = pages.into_iter().map(|name| format!("Highwater{name}")).collect();
    assert_eq!(pages, alerts);
    let runbooks: Vec<_> = RULES.lines().filter_map(|line| line.trim().strip_prefix("runbook: ")).collect();
    let anchors: Vec<_> = alerts.iter().map(|name| format!("docs/alerts.md#{}", name.to_lowercase())).collect();
    assert_eq!(runbooks, anchors);
    for alert in alerts {
        assert!(RULE_TESTS.contains(&format!("alertname=\"{alert}\"")), "no test has {alert} fire");
    }
}

/// Which alerts page somebody is a promise.
#[test]
fn only_two_different_blocks_page_anybody() {
    let of = |severity: &str| -> Vec<_> {
        let alerts = RULES.split("- alert: ").skip(1);
        let with = alerts.filter(|alert| alert.contains(&format!("severity: {severity}\n")));
        with.map(|alert| alert.lines().next().unwrap()).collect()
    };
    assert_eq!(of("page"), ["HighwaterTwoBlocks"]);
    assert_eq!(of("ticket"), ["HighwaterConflictingProposal"]);
    assert_eq!(of("page").len() + of("ticket").len() + of("warning").len(), RULES.matches("- alert: ").count());
}

#[test]
fn promtool_accepts_the_rules_their_tests_and_the_queries_of_the_dashboard() {
    let Some(promtool) = promtool() else { return };
    let run = |words: &[&str], directory: &Path| {
        let output = Command::new(&promtool).args(words).current_dir(directory).output().unwrap();
        let text = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
        assert!(output.status.success(), "promtool {words:?}: {text}");
    };
    run(&["check", "rules", "--lint-fatal", "alerts.yml"], Path::new(MONITORING));
    run(&["test", "rules", "alerts.test.yml"], Path::new(MONITORING));

    let directory = tempfile::tempdir().unwrap();
    let rule = |(number, query): (usize, String)| {
        let query = query.replace("$__rate_interval", "5m").replace("$__range", "1h");
        format!("      - record: query:number_{number}\n        expr: {}\n", Value::from(query))
    };
    let rules: String = dashboard_queries().into_iter().enumerate().map(rule).collect();
    fs::write(directory.path().join("queries.yml"), format!("groups:\n  - name: dashboard\n    rules:\n{rules}"))
        .unwrap();
    run(&["check", "rules", "queries.yml"], directory.path());
}

/// The promtool that `tests/install/promtool.sh` installs. Without it: a failure in CI, and elsewhere a word.
pub fn promtool() -> Option<PathBuf> {
    let cache = env::var_os("XDG_CACHE_HOME").filter(|path| !path.is_empty()).map(PathBuf::from);
    let cache = cache.unwrap_or_else(|| PathBuf::from(env::var_os("HOME").unwrap()).join(".cache"));
    let program = cache.join("highwater/bin/promtool");
    if program.is_file() {
        return Some(program);
    }
    let missing = format!("there is no {}: run tests/install/promtool.sh", program.display());
    assert!(env::var("CI").as_deref() != Ok("true"), "{missing}");
    // Not `eprintln!`, which the test harness swallows when a test passes.
    let skipped = format!("\n*** SKIPPED: the rules were not run: {missing} ***");
    std::io::stderr().write_all(skipped.as_bytes()).unwrap();
    None
}

//! The Grafana dashboard: what Grafana's `dashboard-linter` asks of one, and that no age is counted from a time that is zero.
//!
//! The rules are written out here, with the linter's names, because the linter cannot be installed from the Go module proxy.

use super::monitoring::{dashboard_queries, promtool};
use serde_json::{Value, json};
use std::{fs, process::Command};

const DASHBOARD: &str = include_str!("../../packaging/monitoring/dashboard.json");
/// The panels that the linter looks at.
const PANELS: [&str; 3] = ["gauge", "stat", "timeseries"];
/// The units that this dashboard uses, by Grafana's names for them.
const UNITS: [&str; 5] = ["cpm", "none", "s", "short", "string"];
const SELECTORS: [&str; 2] = ["job", "instance"];

/// Everything that is wrong, each with the linter's name for the rule.
fn findings(dashboard: &Value) -> Vec<String> {
    let mut found = Vec::new();
    if dashboard["editable"] != false {
        found.push("uneditable-dashboard".to_owned());
    }
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    for (name, kind, label) in
        [("datasource", "datasource", "Data source"), ("job", "query", "Job"), ("instance", "query", "Instance")]
    {
        let Some(variable) = variables.iter().find(|variable| variable["name"] == name) else {
            found.push(format!("template-{name}-rule: there is no such variable"));
            continue;
        };
        if variable["type"] != kind || variable["label"] != label {
            found.push(format!("template-{name}-rule: type or label"));
        }
    }
    for variable in variables.iter().filter(|variable| variable["type"] == "query") {
        variable_findings(variable, &mut found);
    }
    for panel in dashboard["panels"].as_array().unwrap() {
        panel_findings(panel, &mut found);
    }
    found
}

fn variable_findings(variable: &Value, found: &mut Vec<String>) {
    let name = variable["name"].as_str().unwrap();
    if variable["refresh"] != 2 {
        found.push(format!("template-on-time-change-reload-rule: {name}"));
    }
    if variable["multi"] != true || variable["allValue"] != ".+" || variable["datasource"]["uid"] != "${datasource}" {
        found.push(format!("template-{name}-rule: multi, allValue or datasource"));
    }
    let query = variable["query"]["query"].as_str().unwrap_or_default();
    if !(query.starts_with("label_values(highwater_") && query.ends_with(&format!(", {name})"))) {
        found.push(format!("template-label-promql-rule: {query}"));
    }
}

fn panel_findings(panel: &Value, found: &mut Vec<String>) {
    let title = panel["title"].as_str().unwrap_or_default();
    let kind = panel["type"].as_str().unwrap();
    assert!(PANELS.contains(&kind), "{title}: no rule is written for a panel of type {kind}");
    if title.is_empty() || panel["description"].as_str().is_none_or(str::is_empty) {
        found.push(format!("panel-title-description-rule: {title}"));
    }
    if panel["datasource"]["uid"] != "${datasource}" {
        found.push(format!("panel-datasource-rule: {title}"));
    }
    if !UNITS.contains(&panel["fieldConfig"]["defaults"]["unit"].as_str().unwrap_or_default()) {
        found.push(format!("panel-units-rule: {title}"));
    }
    let targets = panel["targets"].as_array().map_or(&[][..], Vec::as_slice);
    if targets.is_empty() {
        found.push(format!("panel-no-targets-rule: {title}"));
    }
    for target in targets {
        if target["datasource"]["uid"] != "${datasource}" {
            found.push(format!("panel-datasource-rule: {title}"));
        }
        // A number for "now" is asked for now. The last one of the whole range may be hours old.
        if kind == "stat" && (target["instant"] != true || target["range"] != false) {
            found.push(format!("instant: {title}"));
        }
        query_findings(target["expr"].as_str().unwrap(), found);
    }
}

fn query_findings(query: &str, found: &mut Vec<String>) {
    for name in SELECTORS {
        if query.matches(&format!("{name}=~\"${name}\"")).count() != query.matches("highwater_").count() {
            found.push(format!("target-{name}-rule: {query}"));
        }
    }
    // A window is one of Grafana's own, and for a rate the one that fits the scrape interval.
    for (before, window) in query.match_indices('[').map(|(start, _)| query.split_at(start)) {
        let function = before.rsplit_once("(highwater_").unwrap().0.rsplit(|c: char| !c.is_alphabetic()).next();
        let fits = match function.unwrap() {
            "rate" => window.starts_with("[$__rate_interval]"),
            "increase" => window.starts_with("[$__range]"),
            other => panic!("no rule is written for {other}: {query}"),
        };
        if !fits {
            found.push(format!("target-rate-interval-rule: {query}"));
        }
    }
    let counters = query.matches("_total{").count() + query.matches("_bucket{").count();
    if query.matches("[$__").count() != counters {
        found.push(format!("target-counter-agg-rule: {query}"));
    }
    if query.matches("time() - ").count() != query.matches("> 0)").count() {
        found.push(format!("an age from zero: {query}"));
    }
}

#[test]
fn the_linter_would_find_nothing() {
    assert_eq!(findings(&serde_json::from_str(DASHBOARD).unwrap()), Vec::<String>::new());
}

/// Each change is found, and by its rule alone.
#[test]
fn each_rule_of_the_linter_finds_its_mistake() {
    for (place, value, rule) in [
        ("/editable", json!(true), "uneditable-dashboard"),
        ("/templating/list/0/label", json!("Prometheus"), "template-datasource-rule"),
        ("/templating/list/1/multi", json!(false), "template-job-rule"),
        ("/templating/list/1/refresh", json!(1), "template-on-time-change-reload-rule"),
        ("/templating/list/2/allValue", json!(".*"), "template-instance-rule"),
        ("/templating/list/2/query/query", json!("highwater_ready"), "template-label-promql-rule"),
        ("/panels/0/description", json!(""), "panel-title-description-rule"),
        ("/panels/1/datasource/uid", json!("prometheus"), "panel-datasource-rule"),
        ("/panels/2/fieldConfig/defaults/unit", Value::Null, "panel-units-rule"),
        ("/panels/3/targets", json!([]), "panel-no-targets-rule"),
        ("/panels/3/targets/0/instant", json!(false), "instant"),
        (
            "/panels/0/targets/0/expr",
            json!("highwater_ready{job=~\"highwater\",instance=~\"$instance\"}"),
            "target-job-rule",
        ),
        ("/panels/0/targets/0/expr", json!("highwater_ready{job=~\"$job\"}"), "target-instance-rule"),
        (
            "/panels/5/targets/0/expr",
            json!("rate(highwater_a_total{job=~\"$job\",instance=~\"$instance\"}[$__range])"),
            "target-rate-interval-rule",
        ),
        (
            "/panels/5/targets/0/expr",
            json!("highwater_a_total{job=~\"$job\",instance=~\"$instance\"}"),
            "target-counter-agg-rule",
        ),
        (
            "/panels/3/targets/0/expr",
            json!("time() - highwater_a_seconds{job=~\"$job\",instance=~\"$instance\"}"),
            "an age from zero",
        ),
    ] {
        let mut dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
        *dashboard.pointer_mut(place).unwrap_or_else(|| panic!("{place}")) = value;
        let found = findings(&dashboard);
        assert!(!found.is_empty() && found.iter().all(|finding| finding.starts_with(rule)), "{place}: {found:?}");
    }
}

/// After a restart, nothing has been signed yet and the time of the last signature is 0: that is no age of 56 years.
#[test]
fn no_age_is_counted_from_a_time_that_is_zero() {
    let Some(promtool) = promtool() else { return };
    let ages: Vec<_> = dashboard_queries().into_iter().filter(|query| query.contains("time()")).collect();
    assert_eq!(ages.len(), 2, "{ages:?}");
    let series = |name: &str, values: &str| json!({ "series": format!("{name}{{job=\"j\",instance=\"i\",chain=\"c-1\",type=\"prevote\"}}"), "values": values });
    let mut asked = Vec::new();
    for query in ages {
        let query = query.replace("$job", ".+").replace("$instance", ".+").replace("$chain", ".+");
        asked.push(json!({ "expr": format!("count({query})"), "eval_time": "2m", "exp_samples": [] }));
        let age = json!({ "expr": format!("max({query})"), "eval_time": "5m", "exp_samples": [{ "value": 60 }] });
        asked.push(age);
    }
    let tests = json!({
        "rule_files": [],
        "evaluation_interval": "1m",
        "tests": [{
            "interval": "1m",
            "input_series": [
                series("highwater_last_signed_timestamp_seconds", "0x4 240x5"),
                series("highwater_start_time_seconds", "0x4 240x5"),
            ],
            "promql_expr_test": asked,
        }],
    });
    let directory = tempfile::tempdir().unwrap();
    // YAML is a superset of JSON.
    fs::write(directory.path().join("ages.yml"), tests.to_string()).unwrap();
    let output =
        Command::new(promtool).args(["test", "rules", "ages.yml"]).current_dir(directory.path()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

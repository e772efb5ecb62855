//! What a reload changes: validator nodes are added, removed and changed, all of them or none.
//!
//! Keys, states and devices were opened before the signer was confined, and so were its ports and the processes that
//! look up host names. A change that needs any of these anew needs a restart, and refuses the whole reload.

use super::config_reader::{FailureOf, Reading};
use crate::config::{Config, FixedParts, NodeAddress, ValidatorConfig};
use highwater_core::consensus::ChainId;
use std::{collections::BTreeSet, net::IpAddr, path::PathBuf};

/// What was fixed when the signer started.
pub(super) struct Limits {
    parts: FixedParts,
    chains: BTreeSet<ChainId>,
    identities: BTreeSet<PathBuf>,
    names: BTreeSet<String>,
    ports: BTreeSet<u16>,
}

/// What happens to the nodes, in the order of the new configuration.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) nodes: Vec<Planned>,
    /// One line for each change, for the operator.
    pub(super) lines: Vec<String>,
}

#[derive(Debug)]
pub(super) enum Planned {
    /// The node at this place in the old order keeps its connection.
    Keep(usize),
    /// A node to dial. A connection that it had ends.
    Dial(ValidatorConfig),
}

impl Limits {
    pub(super) fn of(config: &Config, identities: impl Iterator<Item = PathBuf>) -> Self {
        let needs = config.needs();
        Self {
            parts: config.fixed.clone(),
            chains: config.served_chains().map(|chain| chain.id.clone()).collect(),
            identities: identities.collect(),
            names: needs.names,
            ports: needs.ports.into_iter().collect(),
        }
    }

    /// Decides about a new configuration. Fails with every reason against it.
    pub(super) fn decide(&self, current: &[ValidatorConfig], reading: &Reading) -> Result<Plan, Vec<String>> {
        let new = match reading {
            Reading::Mistakes(mistakes) => return Err(mistakes.clone()),
            Reading::Good(new) => new,
        };
        let nodes = new.nodes().map_err(|error| vec![error.to_string()])?;
        let mut reasons: Vec<String> =
            self.parts.changes(&new.fixed).into_iter().map(|change| format!("{change}: {RESTART}")).collect();
        // The chain itself may be new or gone, which is said already.
        let is_known = |chain: &ChainId| new.fixed == self.parts || self.chains.contains(chain);
        for chain in self.chains.iter().filter(|chain| !nodes.iter().any(|node| node.chain_id == **chain)) {
            reasons.push(format!(
                "no [[validator]] serves chain {chain} any more, but its key and state stay open: {RESTART}"
            ));
        }
        let plan = Plan::new(current, nodes);
        // A node that stays as it is needs nothing new: it is served, or was left out at the start and still is.
        for node in plan.dialled().filter(|node| is_known(&node.chain_id)) {
            reasons.extend(self.against(node));
        }
        for failure in &new.failures {
            let matters = match &failure.of {
                FailureOf::Signer => true,
                FailureOf::Chain(chain) => plan.dialled().any(|node| node.chain_id.as_str() == chain),
                FailureOf::Identity(path) => plan.dialled().any(|node| node.address.identity_key() == Some(path)),
            };
            if matters {
                reasons.push(failure.text.clone());
            }
        }
        if reasons.is_empty() { Ok(plan) } else { Err(reasons) }
    }

    /// Why this signer cannot serve that node without a restart.
    fn against(&self, node: &ValidatorConfig) -> Vec<String> {
        let mut reasons = Vec::new();
        let shown = format!("node {} of chain {} (line {})", node.address, node.chain_id, node.line);
        if !self.chains.contains(&node.chain_id) {
            reasons.push(format!(
                "{shown}: chain {} had no node at the start, so it is not open: {RESTART}",
                node.chain_id
            ));
        }
        if let NodeAddress::Tcp { host, port, identity_key, .. } = &node.address {
            if host.parse::<IpAddr>().is_err() && !self.names.contains(host) {
                reasons.push(format!(
                    "{shown}: the host name {host} is new, and a name needs a process that only a start makes: write \
                     its IP address, or restart"
                ));
            }
            if !self.ports.contains(port) {
                let known: Vec<_> = self.ports.iter().map(ToString::to_string).collect();
                let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                reasons.push(format!(
                    "{shown}: port {port} is new, and the sandbox allows only the ports that the configuration had at \
                     the start ({known}): use one of them, or restart"
                ));
            }
            if !self.identities.contains(identity_key) {
                let path = identity_key.display();
                reasons.push(format!("{shown}: its `secret_key` {path} was not read at the start: {RESTART}"));
            }
        }
        reasons
    }
}

const RESTART: &str = "this needs a restart";

impl Plan {
    fn new(current: &[ValidatorConfig], new: Vec<ValidatorConfig>) -> Self {
        let mut left: BTreeSet<usize> = (0..current.len()).collect();
        let (mut nodes, mut lines) = (Vec::new(), Vec::new());
        for config in new {
            let is_it = |place: &&usize| {
                let old = &current[**place];
                old.chain_id == config.chain_id && old.address.to_string() == config.address.to_string()
            };
            let place = left.iter().find(is_it).copied();
            let what = format!("node {} of chain {}", config.address, config.chain_id);
            let Some(place) = place else {
                lines.push(format!("added {what}"));
                nodes.push(Planned::Dial(config));
                continue;
            };
            left.remove(&place);
            let changed = changed_settings(&current[place], &config);
            if changed.is_empty() {
                nodes.push(Planned::Keep(place));
            } else {
                lines.push(format!("changed {what}: {}", changed.join(", ")));
                nodes.push(Planned::Dial(config));
            }
        }
        for place in &left {
            lines.push(format!("removed node {} of chain {}", current[*place].address, current[*place].chain_id));
        }
        Self { nodes, lines }
    }

    /// The nodes that are dialled anew.
    fn dialled(&self) -> impl Iterator<Item = &ValidatorConfig> {
        self.nodes.iter().filter_map(|planned| match planned {
            Planned::Dial(config) => Some(config),
            Planned::Keep(_) => None,
        })
    }
}

fn changed_settings(old: &ValidatorConfig, new: &ValidatorConfig) -> Vec<&'static str> {
    let mut changed = Vec::new();
    if old.address != new.address {
        changed.push(if old.address.identity_key() == new.address.identity_key() { "peer id" } else { "secret_key" });
    }
    for (differs, name) in [
        (old.reconnect != new.reconnect, "reconnect"),
        (old.timeout != new.timeout, "timeout"),
        (old.max_height != new.max_height, "max_height"),
    ] {
        if differs {
            changed.push(name);
        }
    }
    changed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::config_reader::{Failure, NewConfig};
    use std::path::Path;

    const TEXT: &str = r#"
[[chain]]
id = "a-1"
key_format = { type = "hex" }
[[chain]]
id = "b-1"
key_format = { type = "hex" }
[[validator]]
addr = "tcp://10.0.0.1:26659"
chain_id = "a-1"
secret_key = "identity.key"
[[validator]]
addr = "tcp://node.example:26660"
chain_id = "a-1"
secret_key = "identity.key"
[[providers.softsign]]
chain_ids = ["a-1", "b-1"]
path = "key"
"#;

    fn config(text: &str) -> Config {
        Config::parse(Path::new("tmkms.toml"), text).unwrap().0
    }

    fn decide(new: &str, failures: Vec<Failure>) -> Result<Plan, Vec<String>> {
        let old = config(TEXT);
        let limits = Limits::of(&old, std::iter::once("identity.key".into()));
        limits.decide(&old.validators, &Reading::Good(NewConfig::for_tests(config(new), failures)))
    }

    fn node(address: &str, chain: &str, extra: &str) -> String {
        let identity = if address.starts_with("tcp") { "secret_key = \"identity.key\"" } else { "" };
        format!("[[validator]]\naddr = \"{address}\"\nchain_id = \"{chain}\"\n{identity}\n{extra}\n")
    }

    #[test]
    fn what_the_sandbox_allows_is_planned_node_by_node() {
        let plan = decide(TEXT, Vec::new()).unwrap();
        assert!(plan.lines.is_empty() && matches!(plan.nodes[..], [Planned::Keep(0), Planned::Keep(1)]), "{plan:?}");
        // Another address with a known port, a known name with another known port, a socket.
        let added = [
            node("tcp://10.9.9.9:26660", "a-1", ""),
            node("tcp://node.example:26659", "a-1", ""),
            node("unix:///n", "a-1", ""),
        ];
        let plan = decide(&(TEXT.to_owned() + &added.concat()), Vec::new()).unwrap();
        assert_eq!(
            plan.lines,
            [
                "added node tcp://10.9.9.9:26660 of chain a-1",
                "added node tcp://node.example:26659 of chain a-1",
                "added node unix:///n of chain a-1",
            ]
        );
        let changed = TEXT
            .replacen("secret_key", "timeout = 20\nmax_height = \"7\"\nsecret_key", 1)
            .replace("node.example", "10.0.0.2");
        let plan = decide(&changed, Vec::new()).unwrap();
        assert_eq!(
            plan.lines,
            [
                "changed node tcp://10.0.0.1:26659 of chain a-1: timeout, max_height",
                "added node tcp://10.0.0.2:26660 of chain a-1",
                "removed node tcp://node.example:26660 of chain a-1",
            ]
        );
    }

    #[test]
    fn one_change_that_needs_a_restart_refuses_all_of_them() {
        let with = |node: &str| TEXT.to_owned() + node;
        for (new, expected) in [
            (with(&node("tcp://10.0.0.1:1", "a-1", "")), "port 1 is new"),
            (with(&node("tcp://other.example:26659", "a-1", "")), "host name other.example is new"),
            (
                with(&node("tcp://10.0.0.2:26659", "a-1", "").replace("identity", "other")),
                "`secret_key` other.key was not read",
            ),
            (with(&node("unix:///b", "b-1", "")), "chain b-1 had no node at the start"),
            (
                TEXT.replace("path = \"key\"", "path = \"k\""),
                "`path` of [[providers.softsign]] of a-1, b-1 has changed: this needs a restart",
            ),
            (
                TEXT.replacen("id = \"a-1\"", "state_file = \"s\"\nid = \"a-1\"", 1),
                "`state_file` of [[chain]] a-1 is new: this needs a restart",
            ),
            (TEXT.replace("chain_id = \"a-1\"", "chain_id = \"b-1\""), "no [[validator]] serves chain a-1 any more"),
        ] {
            let reasons = decide(&new, Vec::new()).unwrap_err();
            assert!(reasons.iter().any(|reason| reason.contains(expected)), "{expected}: {reasons:?}");
        }
    }

    #[test]
    fn a_node_that_was_left_out_at_the_start_hinders_no_reload() {
        let left_out = node("tcp://10.0.0.3:26659", "a-1", "").replace("identity", "missing");
        let old = config(&(TEXT.to_owned() + &left_out));
        let limits = Limits::of(&old, std::iter::once("identity.key".into()));
        let decide = |new: &str| {
            let failure = Failure { of: FailureOf::Identity("missing.key".into()), text: "bad".into() };
            limits.decide(&old.validators, &Reading::Good(NewConfig::for_tests(config(new), vec![failure])))
        };
        let added = node("unix:///n", "a-1", "");
        let plan = decide(&[TEXT, &left_out, &added].concat()).unwrap();
        assert!(matches!(plan.nodes[..], [_, _, Planned::Keep(2), Planned::Dial(_)]), "{plan:?}");
        assert_eq!(decide(TEXT).unwrap().lines, ["removed node tcp://10.0.0.3:26659 of chain a-1"]);
        let changed = left_out.replace("secret_key", "timeout = 20\nsecret_key");
        let reasons = decide(&[TEXT, &changed].concat()).unwrap_err();
        assert!(reasons[0].contains("`secret_key` missing.key was not read"), "{reasons:?}");
    }

    #[test]
    fn a_failure_matters_to_the_nodes_that_are_dialled() {
        let failure = |of| vec![Failure { of, text: "bad".into() }];
        let added = TEXT.to_owned() + &node("tcp://10.9.9.9:26660", "a-1", "");
        for (of, refuses_nothing, refuses_added) in [
            (FailureOf::Signer, true, true),
            (FailureOf::Chain("a-1".into()), false, true),
            (FailureOf::Chain("b-1".into()), false, false),
            (FailureOf::Identity("identity.key".into()), false, true),
        ] {
            assert_eq!(decide(TEXT, failure(of.clone())).is_err(), refuses_nothing, "{of:?}");
            assert_eq!(decide(&added, failure(of.clone())).is_err(), refuses_added, "{of:?}");
        }
    }
}

//! SIGHUP: nodes come, go and change while the signer signs; anything else is refused as a whole.

use crate::support::{
    assert_alive,
    mock_node::{MockNode, Session, precommit},
    signer::{Home, Signer},
};
use std::{
    fs,
    net::SocketAddr,
    process::Command,
    thread,
    time::{Duration, Instant},
};

const CHAIN: &str = "test-chain";
const PATIENCE: Duration = Duration::from_secs(20);
/// Longer than a link needs to end.
const MOMENT: Duration = Duration::from_millis(300);

/// A signer with one node over TCP.
struct Scene {
    home: Home,
    node: MockNode,
    session: Session,
    signer: Signer,
    reloads: usize,
}

impl Scene {
    fn new(extra: &str) -> Self {
        let node = MockNode::tcp().unwrap();
        let home = Home::new().chain(CHAIN, "").node(&node.address(), CHAIN, "").init();
        let text = fs::read_to_string(home.path("tmkms.toml")).unwrap();
        fs::write(home.path("tmkms.toml"), text + extra).unwrap();
        let signer = home.start();
        let session = node.accept().unwrap();
        Self { home, node, session, signer, reloads: 0 }
    }

    fn config(&self) -> String {
        fs::read_to_string(self.home.path("tmkms.toml")).unwrap()
    }

    /// Replaces the configuration as an editor does, and waits until the signer has dealt with SIGHUP.
    fn reload(&mut self, config: &str) {
        fs::write(self.home.path("new.toml"), config).unwrap();
        fs::rename(self.home.path("new.toml"), self.home.path("tmkms.toml")).unwrap();
        let id = self.signer.id().to_string();
        assert!(Command::new("kill").args(["-HUP", &id]).status().unwrap().success());
        self.reloads += 1;
        let deadline = Instant::now() + PATIENCE;
        let dealt_with = |log: String| {
            log.matches("\"reloaded the configuration\"").count()
                + log.matches("refused to reload the configuration").count()
        };
        while dealt_with(self.signer.log()) < self.reloads {
            self.signer.assert_running();
            assert!(Instant::now() < deadline, "the signer never answers SIGHUP");
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn section(&self, address: &str, extra: &str) -> String {
        let identity = match address.starts_with("tcp") {
            true => format!("secret_key = {:?}\n", self.home.path("identity.key")),
            false => String::new(),
        };
        format!("[[validator]]\naddr = \"{address}\"\nchain_id = \"{CHAIN}\"\n{identity}{extra}\n")
    }

    fn status(&self) -> serde_json::Value {
        let output = self.home.command(&["status", "--json"]).output().unwrap();
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn shown(&self) -> String {
        String::from_utf8_lossy(&self.home.command(&["status"]).output().unwrap().stdout).into_owned()
    }

    fn last_reload(&self) -> (bool, Vec<String>) {
        let reload = self.status()["reload"].clone();
        assert!(reload["at"].as_u64().unwrap() > 1_700_000_000);
        let lines = reload["lines"].as_array().unwrap().iter().map(|line| line.as_str().unwrap().to_owned()).collect();
        (reload["done"].as_bool().unwrap(), lines)
    }

    fn node_names(&self) -> Vec<String> {
        let status = self.status();
        let nodes = status["chains"][0]["nodes"].as_array().unwrap();
        nodes.iter().map(|node| node["address"].as_str().unwrap().to_owned()).collect()
    }

    /// Checks that the first node's connection is the one from the start.
    fn assert_undisturbed(&mut self, height: i64) {
        let key = self.home.public_key(CHAIN);
        assert_alive(&mut self.session, &key, CHAIN, height);
        let connects = &self.status()["chains"][0]["nodes"][0]["connects"];
        assert_eq!(connects, 1, "{connects}");
    }
}

#[test]
fn a_reload_without_a_change_disturbs_nothing() {
    let mut scene = Scene::new("");
    assert!(scene.status()["reload"].is_null());
    scene.reload(&scene.config());
    assert_eq!(scene.last_reload(), (true, vec![]));
    assert!(scene.shown().contains("configuration reloaded 20"), "{}", scene.shown());
    scene.assert_undisturbed(1);
    // Comments and order are no change.
    scene.reload(&format!("# hello\n{}", scene.config()));
    scene.assert_undisturbed(2);
    scene.signer.sigterm();
    assert_eq!(scene.signer.exit_code(), Some(0));
}

#[test]
fn nodes_that_are_added_are_served_at_once_by_the_confined_signer() {
    let mut scene = Scene::new("");
    let socket = scene.home.path("node.sock");
    let over_unix = MockNode::unix(&socket).unwrap();
    // Another machine: another address, the same port.
    let port = scene.node.socket().port();
    let over_tcp = MockNode::tcp_at(SocketAddr::from(([127, 0, 0, 2], port))).unwrap();
    let config = scene.config() + &scene.section(&over_unix.address(), "") + &scene.section(&over_tcp.address(), "");
    scene.reload(&config);
    let key = scene.home.public_key(CHAIN);
    let expected = [&over_unix, &over_tcp].map(|node| format!("added node {} of chain {CHAIN}", node.address()));
    assert_eq!(scene.last_reload(), (true, expected.to_vec()));
    assert_alive(&mut over_unix.accept().unwrap(), &key, CHAIN, 1);
    assert_alive(&mut over_tcp.accept().unwrap(), &key, CHAIN, 2);
    scene.assert_undisturbed(3);
    assert_eq!(scene.node_names(), [scene.node.address(), over_unix.address(), over_tcp.address()]);
}

#[test]
fn a_node_that_is_removed_is_not_dialled_again_and_its_metrics_go() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut scene = Scene::new(&format!("[highwater.metrics]\nladdr = \"{port}\"\n"));
    let socket = scene.home.path("node.sock");
    let leaves = MockNode::unix(&socket).unwrap();
    let before = scene.config();
    scene.reload(&(before.clone() + &scene.section(&leaves.address(), "")));
    let mut session = leaves.accept().unwrap();
    assert_alive(&mut session, &scene.home.public_key(CHAIN), CHAIN, 1);
    let series = format!("node=\"{}\"", leaves.address());
    assert!(metrics(port).contains(&series));
    scene.reload(&before);
    assert!(session.ends_within(PATIENCE).unwrap());
    assert!(leaves.accept_raw(MOMENT).is_err(), "it is not dialled again");
    assert!(!metrics(port).contains(&series));
    assert_eq!(scene.last_reload().1, [format!("removed node {} of chain {CHAIN}", leaves.address())]);
    scene.assert_undisturbed(2);
}

#[test]
fn a_node_that_is_removed_gets_the_answer_to_the_request_in_hand() {
    let mut scene = Scene::new("");
    // Not over tcp: there a failed write keeps the mock node from reading the last answers.
    let leaves = MockNode::unix(&scene.home.path("node.sock")).unwrap();
    let before = scene.config();
    scene.reload(&(before.clone() + &scene.section(&leaves.address(), "")));
    let mut session = leaves.accept().unwrap();
    session.ask_vote(CHAIN, precommit(1, 0, Some(7))).unwrap().unwrap();
    let asking = thread::spawn(move || {
        let mut answered = 1;
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline
            && session.ask_vote(CHAIN, precommit(answered + 1, 0, Some(7))).is_ok_and(|answer| answer.is_ok())
        {
            answered += 1;
        }
        assert!(Instant::now() < deadline, "it is still served");
        answered
    });
    scene.reload(&before);
    let answered = asking.join().unwrap();
    assert_eq!(scene.home.mark(CHAIN).0, answered, "whatever was signed was answered");
    scene.assert_undisturbed(answered + 1);
}

fn metrics(address: SocketAddr) -> String {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn a_node_that_changes_is_dialled_anew_with_its_new_settings() {
    let mut scene = Scene::new("");
    let config = scene.config().replace("[[validator]]", "[[validator]]\nmax_height = \"5\"");
    scene.reload(&config);
    let expected = format!("changed node {} of chain {CHAIN}: max_height", scene.node.address());
    assert_eq!(scene.last_reload(), (true, vec![expected]));
    assert!(scene.session.ends_within(PATIENCE).unwrap());
    let mut session = scene.node.accept().unwrap();
    assert_alive(&mut session, &scene.home.public_key(CHAIN), CHAIN, 5);
    session.ask_vote(CHAIN, precommit(6, 0, Some(7))).unwrap().unwrap_err();
    // And back: the whole chain has only this node.
    scene.reload(&config.replace("max_height = \"5\"", ""));
    assert_alive(&mut scene.node.accept().unwrap(), &scene.home.public_key(CHAIN), CHAIN, 6);
}

#[test]
fn a_file_with_mistakes_changes_nothing_and_each_mistake_is_logged_and_shown() {
    let mut scene = Scene::new("");
    let mut config =
        scene.config() + &scene.section("tcp://127.0.0.2", "") + &scene.section("unix:///a", "timeout = \"x\"");
    for mistake in ["port is missing", "timeout"] {
        scene.reload(&config);
        let (done, lines) = scene.last_reload();
        assert!(!done && lines.len() == 2 && lines.iter().any(|line| line.contains(mistake)), "{lines:?}");
        assert!(scene.signer.log().contains(mistake));
        let shown = scene.shown();
        assert!(shown.contains("reload refused") && shown.contains(mistake), "{shown}");
        config += " ";
    }
    scene.assert_undisturbed(1);
    // Not TOML, and no file at all.
    scene.reload("nonsense");
    assert!(scene.last_reload().1[0].contains("this is not TOML"), "{:?}", scene.last_reload());
    assert_eq!(scene.node_names(), [scene.node.address()]);
    scene.assert_undisturbed(2);
}

#[test]
fn what_needs_a_restart_refuses_the_whole_reload_by_name() {
    let mut scene = Scene::new("");
    let socket = scene.home.path("node.sock");
    let added = MockNode::unix(&socket).unwrap();
    let good = scene.config() + &scene.section(&added.address(), "");
    // Another key in another file, as valid as the first.
    let (key, other) = (scene.home.key_file(CHAIN), scene.home.path("other.key"));
    fs::copy(&key, &other).unwrap();
    for (config, expected) in [
        (
            good.replace(key.to_str().unwrap(), other.to_str().unwrap()),
            format!("`path` of [[providers.softsign]] of {CHAIN} has changed"),
        ),
        (
            good.replace(&format!("{CHAIN}.state\""), "other.state\""),
            format!("`state_file` of [[chain]] {CHAIN} has changed"),
        ),
        (good.clone() + "[highwater]\nrequire_sandbox = true\n", "[highwater] is new".into()),
        (good.clone() + &scene.section("tcp://127.0.0.1:1", ""), "port 1 is new".into()),
        (
            good.clone() + &scene.section(&format!("tcp://localhost:{}", scene.node.socket().port()), ""),
            "host name localhost is new".into(),
        ),
    ] {
        scene.reload(&config);
        let (done, lines) = scene.last_reload();
        assert!(!done && lines.iter().any(|line| line.contains(&expected) && line.contains("restart")), "{lines:?}");
        assert!(added.accept_raw(MOMENT).is_err(), "nothing of it is done");
    }
    scene.assert_undisturbed(1);
    scene.reload(&good);
    assert_alive(&mut added.accept().unwrap(), &scene.home.public_key(CHAIN), CHAIN, 2);
}

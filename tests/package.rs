//! The Debian package in a bare Debian: it installs, it never starts a signer by itself, an upgrade leaves a running one
//! alone, a purge leaves keys and marks. `make package-test` builds the package, makes the Debian and runs this as root.
#![allow(clippy::unwrap_used, clippy::print_stderr, unreachable_pub, missing_docs)]

mod support;

use highwater_core::consensus::{KeyType, PublicKey};
use std::{
    env, fs,
    io::Write as _,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};
use support::{
    assert_alive,
    mock_node::{MockNode, Session, precommit},
};
use tempfile::TempDir;

const CHAIN: &str = "osmosis-1";
const HOME: &str = "/var/lib/highwater";
const CONFIG: &str = "/etc/highwater/tmkms.toml";
const UNIT: &str = "/usr/lib/systemd/system/highwater.service";
const PATIENCE: Duration = Duration::from_secs(60);
/// Above any version that there will be.
const LATER: &str = "99.0.0-1";

/// A Debian in a directory. It shares the network and nothing else of the file system.
struct Debian(TempDir);

impl Debian {
    /// As `tests/install/chroot.sh` made it.
    fn bare() -> Self {
        let root = tempfile::Builder::new().prefix("highwater-debian-").tempdir().unwrap();
        // Its root directory is for all its users.
        fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let base = cache().join("chroot-bookworm.tar");
        let unpacked = Command::new("tar").arg("-xpf").arg(&base).arg("-C").arg(root.path()).status().unwrap();
        assert!(unpacked.success(), "cannot unpack {}: run tests/install/chroot.sh as root", base.display());
        let debian = Self(root);
        let _ = fs::remove_file(debian.path("etc/machine-id"));
        debian.write("etc/machine-id", "0123456789abcdef0123456789abcdef\n", 0o444);
        debian
    }

    /// The same with a systemd that only writes down what it is asked for.
    fn new() -> Self {
        let debian = Self::bare();
        fs::create_dir_all(debian.path("run/systemd/system")).unwrap();
        fs::remove_file(debian.path("usr/bin/systemctl")).unwrap();
        debian.write("usr/bin/systemctl", "#!/bin/sh\necho \"$*\" >> /run/systemctl.log\n", 0o755);
        debian
    }

    fn path(&self, inside: &str) -> PathBuf {
        self.0.path().join(inside.trim_start_matches('/'))
    }

    fn write(&self, inside: &str, text: &str, mode: u32) {
        fs::write(self.path(inside), text).unwrap();
        fs::set_permissions(self.path(inside), fs::Permissions::from_mode(mode)).unwrap();
    }

    /// A command inside. Its `/proc` is mounted for it alone.
    fn command(&self, user: &str, words: &str) -> Command {
        const ENTER: &str = "mount -t proc proc \"$1/proc\" && exec chroot --userspec=\"$0:$0\" \"$@\"";
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", ENTER, user]).arg(self.0.path()).args(words.split_whitespace());
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("TMKMS_CONFIG_FILE", CONFIG);
        command
    }

    /// Runs a command inside that has to succeed.
    fn run(&self, user: &str, words: &str) -> String {
        let output = self.command(user, words).stdin(Stdio::null()).output().unwrap();
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success(), "{words} ended with {}: {said}", output.status);
        said
    }

    fn install_file(&self, package: &Path) {
        fs::copy(package, self.path("root/package.deb")).unwrap();
    }

    /// Gives a package to dpkg.
    fn install(&self, package: &Path) -> String {
        self.install_file(package);
        let said = self.run("root", "dpkg --install /root/package.deb");
        assert!(!said.contains("warning"), "{said}");
        said
    }

    /// Requests to systemd since the last call.
    fn asked_of_systemd(&self) -> Vec<String> {
        let log = self.path("run/systemctl.log");
        let text = fs::read_to_string(&log).unwrap_or_default();
        let _ = fs::remove_file(log);
        text.lines().map(str::to_owned).collect()
    }

    fn owner(&self, inside: &str) -> String {
        let metadata = fs::metadata(self.path(inside)).unwrap();
        let id = |file: &str, id: u32| {
            let text = fs::read_to_string(self.path(file)).unwrap();
            let line = text.lines().find(|line| line.split(':').nth(2) == Some(&id.to_string())).map(str::to_owned);
            line.unwrap().split(':').next().unwrap().to_owned()
        };
        let (user, group) = (id("etc/passwd", metadata.uid()), id("etc/group", metadata.gid()));
        format!("{user}:{group} {:o}", metadata.mode() & 0o7777)
    }

    fn start(&self) -> Signer {
        let log = fs::File::options().create(true).append(true).open(self.path("run/signer.log")).unwrap();
        Signer(self.command("highwater", "highwater start").stdin(Stdio::null()).stderr(log).spawn().unwrap())
    }
}

/// That Debian with a running systemd. Removed on drop.
struct Container {
    debian: Debian,
    nspawn: Child,
    init: String,
}

impl Container {
    fn boot() -> Self {
        let debian = Debian::bare();
        let nspawn = Self::spawn(&debian);
        let mut container = Self { debian, nspawn, init: String::new() };
        container.wait_for_boot();
        container
    }

    fn spawn(debian: &Debian) -> Child {
        let mut command = Command::new("systemd-nspawn");
        // By itself it hides both from what runs inside, which would then be tried without them.
        command.arg("--system-call-filter=landlock_create_ruleset landlock_add_rule landlock_restrict_self @memlock");
        command.args(["--quiet", "--register=no", "--keep-unit", "--console=pipe", "--boot", "--directory"]);
        command.arg(debian.0.path()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().expect("systemd-nspawn is installed: run tests/install/debian.sh systemd-container")
    }

    fn wait_for_boot(&mut self) {
        wait_for("the boot", || self.find_init() && self.said("systemctl is-system-running").trim() == "running");
    }

    /// Shuts it down, as a machine is, and starts it again on the same disk.
    fn reboot(&mut self) {
        let _ = self.shell("systemctl poweroff").output();
        wait_for("the end", || self.nspawn.try_wait().unwrap().is_some());
        self.nspawn = Self::spawn(&self.debian);
        self.wait_for_boot();
    }

    /// systemd is the only child of systemd-nspawn.
    fn find_init(&mut self) -> bool {
        let id = self.nspawn.id();
        self.init = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default().trim().to_owned();
        !self.init.is_empty()
    }

    fn shell(&self, script: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.init, "--mount", "--uts", "--ipc", "--pid", "--cgroup", "--root", "--wd"]);
        command.args(["--", "sh", "-e", "-c", script]).stdin(Stdio::null());
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("TMKMS_CONFIG_FILE", CONFIG);
        command
    }

    /// The output of a command, whether it succeeds or not.
    fn said(&self, script: &str) -> String {
        String::from_utf8_lossy(&self.shell(script).output().unwrap().stdout).into_owned()
    }

    /// Runs a script inside that has to succeed.
    fn run(&self, script: &str) -> String {
        let output = self.shell(script).output().unwrap();
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success(), "{script} ended with {}: {said}\n{}", output.status, self.journal());
        said.trim().to_owned()
    }

    /// A property of the service.
    fn service(&self, property: &str) -> String {
        self.said(&format!("systemctl show --value -p {property} highwater")).trim().to_owned()
    }

    fn journal(&self) -> String {
        self.said("journalctl -u highwater -n 30 --no-pager")
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("{}", self.journal());
        }
        // With it goes all that runs inside.
        let _ = Command::new("kill").args(["-KILL", &self.init]).status();
        let _ = self.nspawn.wait();
    }
}

fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "waited for {what}");
        thread::sleep(Duration::from_millis(50));
    }
}

/// A running signer. Killed by its id if a test fails.
struct Signer(Child);

impl Signer {
    fn stop(mut self) {
        let id = self.0.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
        let mut ended = None;
        wait_for("the end of the signer", || {
            ended = self.0.try_wait().unwrap();
            ended.is_some()
        });
        assert!(ended.unwrap().success(), "{ended:?}");
    }
}

impl Drop for Signer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn cache() -> PathBuf {
    let parent = env::var_os("XDG_CACHE_HOME").map_or_else(|| home().join(".cache"), PathBuf::from);
    parent.join("highwater")
}

fn home() -> PathBuf {
    env::var_os("HOME").unwrap().into()
}

/// The package that `packaging/build.sh` built from this version.
fn package() -> PathBuf {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/debian");
    let prefix = format!("highwater_{}-", env!("CARGO_PKG_VERSION"));
    let mut found: Vec<PathBuf> = fs::read_dir(&directory).map_or_else(
        |error| panic!("{}: {error}: run make package", directory.display()),
        |entries| entries.map(|entry| entry.unwrap().path()).collect(),
    );
    found.retain(|path| path.file_name().unwrap().to_str().unwrap().starts_with(&prefix));
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The same package as a later version.
fn later(package: &Path, directory: &Path) -> PathBuf {
    let (tree, later) = (directory.join("tree"), directory.join("later.deb"));
    run(Command::new("dpkg-deb").arg("-R").arg(package).arg(&tree));
    let control = tree.join("DEBIAN/control");
    let text = fs::read_to_string(&control).unwrap();
    let line = text.lines().find(|line| line.starts_with("Version: ")).unwrap();
    fs::write(&control, text.replace(line, &format!("Version: {LATER}"))).unwrap();
    run(Command::new("dpkg-deb").args(["--root-owner-group", "-b"]).arg(&tree).arg(&later));
    later
}

fn public_key(session: &mut Session) -> PublicKey {
    let answer = session.ask_pub_key(CHAIN).unwrap().unwrap();
    PublicKey::from_bytes(KeyType::Ed25519, &answer.pub_key_bytes).unwrap()
}

/// Never twice, across whatever was done to the package.
fn assert_refuses(session: &mut Session, height: i64) {
    let refusal = session.ask_vote(CHAIN, precommit(height, 0, Some(9))).unwrap().unwrap_err();
    assert!([100, 101].contains(&refusal.code), "{refusal:?}");
}

#[test]
#[ignore = "installs the package into a Debian of its own, as root: make package-test"]
fn the_package_installs_signs_upgrades_and_purges_without_ever_starting_or_forgetting() {
    let debian = Debian::new();
    let package = package();
    debian.install(&package);
    assert_eq!(debian.asked_of_systemd(), ["daemon-reload"], "the installation");
    assert_eq!(debian.owner(HOME), "highwater:highwater 700");
    assert_eq!(debian.owner("/etc/highwater/tmkms.toml.example"), "root:root 644");
    assert_eq!(debian.owner("/usr/bin/highwater"), "root:root 755");
    assert!(!debian.path(CONFIG).exists());
    assert_eq!(debian.run("root", "dpkg --verify highwater"), "");

    // As highwater(8) says.
    let node = MockNode::tcp().unwrap();
    debian.run("highwater", &format!("highwater init -n osmosis --node tcp://127.0.0.1:26659 {HOME}"));
    let config = fs::read_to_string(debian.path(&format!("{HOME}/tmkms.toml"))).unwrap();
    debian.run("root", &format!("install -o root -g highwater -m 0640 {HOME}/tmkms.toml {CONFIG}"));
    let served = config.replace("tcp://127.0.0.1:26659", &node.address());
    assert_ne!(served, config);
    fs::write(debian.path(CONFIG), served).unwrap();
    let key = format!("{HOME}/secrets/{CHAIN}-consensus.key");
    debian.run("highwater", &format!("highwater softsign keygen {key}"));
    debian.run("highwater", "highwater state init --never-signed");
    let report = debian.run("highwater", "highwater check --before-start");
    assert!(report.lines().all(|line| line.starts_with("ok ")), "{report}");
    assert!(debian.asked_of_systemd().is_empty());
    let signer = debian.start();
    let mut session = node.accept().unwrap();
    let public = public_key(&mut session);
    assert_alive(&mut session, &public, CHAIN, 1);

    // The upgrade leaves the signer and all its files alone.
    let secret = fs::read(debian.path(&key)).unwrap();
    let settings = fs::read(debian.path(CONFIG)).unwrap();
    let aside = TempDir::new().unwrap();
    let said = debian.install(&later(&package, aside.path()));
    assert!(said.contains("keeps signing; to switch to the new version, run: systemctl restart highwater"), "{said}");
    assert_eq!(debian.asked_of_systemd(), ["daemon-reload", "is-active --quiet highwater"], "the upgrade");
    assert!(debian.run("root", "dpkg-query --show highwater").contains(LATER));
    // The link may have been silent for too long meanwhile: another one.
    session.close();
    let mut session = node.accept().unwrap();
    assert_alive(&mut session, &public, CHAIN, 2);
    signer.stop();
    let signer = debian.start();
    let mut session = node.accept().unwrap();
    assert_refuses(&mut session, 2);
    assert_alive(&mut session, &public, CHAIN, 3);
    signer.stop();

    // The purge takes what the package brought, and nothing else.
    let state = debian.path(&format!("{HOME}/state/{CHAIN}-consensus.json"));
    let marks = fs::read(&state).unwrap();
    let said = debian.run("root", "dpkg --purge highwater");
    assert!(said.contains("your files in /var/lib/highwater were not deleted"), "{said}");
    assert_eq!(debian.asked_of_systemd(), ["stop highwater", "daemon-reload"], "the purge");
    for gone in [
        "/usr/bin/highwater",
        "/usr/lib/systemd/system/highwater.service",
        "/etc/highwater/tmkms.toml.example",
        "/usr/share/highwater",
    ] {
        assert!(!debian.path(gone).exists(), "{gone}");
    }
    assert_eq!(fs::read(debian.path(&key)).unwrap(), secret);
    assert_eq!(fs::read(debian.path(CONFIG)).unwrap(), settings);
    assert_eq!(debian.owner(&key), "highwater:highwater 600");
    assert!(fs::read(&state).unwrap() == marks, "the mark has changed");

    // And what stayed is good for the next installation.
    debian.install(&package);
    let signer = debian.start();
    let mut session = node.accept().unwrap();
    assert_eq!(public_key(&mut session), public);
    assert_refuses(&mut session, 3);
    assert_alive(&mut session, &public, CHAIN, 4);
    signer.stop();
    assert!(!debian.asked_of_systemd().iter().any(|words| words.contains("start") || words.contains("enable")));
}

#[test]
#[ignore = "boots systemd in a container, as root: make package-test"]
fn the_service_signs_in_its_sandbox_and_restarts_only_where_that_helps() {
    let container = Container::boot();
    container.debian.install_file(&package());
    container.run("dpkg --install /root/package.deb");
    assert_eq!(container.said("systemctl is-enabled highwater").trim(), "disabled");
    assert_eq!(container.service("ActiveState"), "inactive");

    // Its key is in a PKCS#11 module, and its PIN an encrypted credential: all that the sandbox could be too tight for.
    let node = MockNode::tcp().unwrap();
    container.run(&format!(
        "usermod -a -G softhsm highwater
        as_highwater='runuser -u highwater -- '
        $as_highwater highwater init -n osmosis --node tcp://127.0.0.1:26659 {HOME}
        $as_highwater softhsm2-util --init-token --free --label validator --pin 4711 --so-pin 0815
        $as_highwater sh -c 'umask 077; printf 4711 > {HOME}/pin'
        $as_highwater highwater pkcs11 generate -c {HOME}/tmkms.toml --profile softhsm2 --token validator --pin-file {HOME}/pin \
            --id 01 --label {CHAIN} --chain {CHAIN} > /root/section
        rm {HOME}/pin
        printf 4711 | systemd-creds encrypt --with-key=host --name=hsm-pin - /etc/highwater/hsm-pin.cred
        sed -e '/^.*providers/,$d' -e 's|tcp://127.0.0.1:26659|{}|' {HOME}/tmkms.toml > {CONFIG}
        sed -e '1,/^$/d' -e '/providers/,$!d' -e 's|^pin = .*|pin = {{ credential = \"hsm-pin\" }}|' /root/section >> {CONFIG}
        printf '\n[highwater]\nrequire_sandbox = true\n' >> {CONFIG}
        $as_highwater highwater state init --never-signed
        mkdir -p /etc/systemd/system/highwater.service.d
        cat > /etc/systemd/system/highwater.service.d/own.conf <<END
[Service]
LoadCredentialEncrypted=hsm-pin:/etc/highwater/hsm-pin.cred
ReadWritePaths=/var/lib/softhsm/tokens
WatchdogSec=4
RestartSec=3
END
        systemctl daemon-reload
        systemctl start highwater",
        node.address()
    ));
    let mut session = node.accept().unwrap();
    let public = public_key(&mut session);
    assert_alive(&mut session, &public, CHAIN, 1);
    wait_for("the status", || container.service("StatusText") == "every chain signs");
    let status = container.run("highwater status");
    assert!(status.contains("every chain signs"), "{status}");
    // Every part of what the signer puts upon itself is in force: it would not have started without, and has no warning.
    assert!(!["limited", "swapped", "privileges"].iter().any(|word| status.contains(word)), "{status}");
    let process = container.service("MainPID");
    let sandbox =
        container.run(&format!("grep -E '^(CapBnd|NoNewPrivs|Seccomp):' /proc/{process}/status | tr -s '\\t\\n' ' '"));
    assert_eq!(sandbox, "CapBnd: 0000000000000000 NoNewPrivs: 1 Seccomp: 2");

    let exposure = container.run(&format!("systemd-analyze security --offline=true --no-pager {UNIT}"));
    let verdict = exposure.lines().find(|line| line.contains("Overall exposure")).expect("it says how much");
    // Not `eprintln!`, which the test harness swallows when a test passes.
    std::io::stderr().write_all(format!("\n*** {} ***\n", verdict.trim()).as_bytes()).unwrap();

    // An upgrade leaves it alone.
    let aside = TempDir::new().unwrap();
    container.debian.install_file(&later(&package(), aside.path()));
    container.run("dpkg --install /root/package.deb");
    assert_eq!(container.service("MainPID"), process);
    // The link may have been silent for too long meanwhile: another one.
    session.close();
    let mut session = node.accept().unwrap();
    assert_alive(&mut session, &public, CHAIN, 2);

    // A crash and a signer that hangs are restarted, and remember.
    for (signal, height) in [("KILL", 3), ("STOP", 4)] {
        container.run(&format!("kill -{signal} $(systemctl show --value -p MainPID highwater)"));
        let mut session = node.accept().unwrap();
        assert_refuses(&mut session, height - 1);
        assert_alive(&mut session, &public, CHAIN, height);
    }
    assert_eq!(container.service("NRestarts"), "2");

    // A mark that is gone is for a person.
    container.run(&format!(
        "systemctl stop highwater; mkdir {HOME}/gone; mv {HOME}/state/* {HOME}/gone; systemctl start highwater || true"
    ));
    thread::sleep(Duration::from_secs(8));
    let state = ["ActiveState", "ExecMainStatus", "NRestarts"].map(|property| container.service(property));
    assert_eq!(state, ["failed", "65", "0"]);
    container.run("dpkg --purge highwater");
    assert!(container.debian.path(&format!("{HOME}/gone")).exists());
}

#[test]
#[ignore = "looks into the package that make package has built"]
fn the_package_holds_all_that_it_should_for_root_alone_to_change() {
    let package = package();
    let list = run(Command::new("dpkg-deb").arg("-c").arg(&package));
    for line in list.lines() {
        let mut words = line.split_whitespace();
        let (mode, owner) = (words.next().unwrap(), words.next().unwrap());
        assert!(["0/0", "root/root"].contains(&owner) && !mode[4..].contains('w'), "{line}");
    }
    for path in [
        "./etc/highwater/tmkms.toml.example",
        "./usr/bin/highwater",
        "./usr/lib/systemd/system/highwater.service",
        "./usr/lib/sysusers.d/highwater.conf",
        "./usr/share/bash-completion/completions/highwater",
        "./usr/share/doc/highwater/changelog.Debian.gz",
        "./usr/share/doc/highwater/copyright",
        "./usr/share/doc/highwater/examples/selinux/highwater.te",
        "./usr/share/doc/highwater/packaging/monitoring/alerts.yml",
        "./usr/share/doc/highwater/packaging/monitoring/dashboard.json",
        "./usr/share/fish/vendor_completions.d/highwater.fish",
        "./usr/share/highwater/hsm-profiles/softhsm2.toml",
        "./usr/share/highwater/usb/60-highwater-usb.rules",
        "./usr/share/highwater/usb/highwater-usb.conf",
        "./usr/share/man/man5/highwater.toml.5.gz",
        "./usr/share/man/man8/highwater.8.gz",
        "./usr/share/zsh/vendor-completions/_highwater",
    ] {
        assert!(list.lines().any(|line| line.ends_with(&format!(" {path}"))), "{path} is not in\n{list}");
    }
    let aside = TempDir::new().unwrap();
    run(Command::new("dpkg-deb").arg("-x").arg(&package).arg(aside.path()));
    let program = aside.path().join("usr/bin/highwater");
    // What `cargo auditable` leaves for scanners.
    assert!(run(Command::new("readelf").args(["-SW"]).arg(&program)).contains(".dep-v0"));
    let bytes = fs::read(&program).unwrap();
    for path in [home().join(".cargo"), env!("CARGO_MANIFEST_DIR").into()] {
        let path = path.to_str().unwrap();
        assert!(!bytes.windows(path.len()).any(|window| window == path.as_bytes()), "the program holds {path}");
    }
}

/// `docs/install.md`, as it is in this commit.
const INSTALL_PAGE: &str = include_str!("../docs/install.md");

#[test]
#[ignore = "boots systemd in a container, as root: make package-test"]
fn who_follows_the_install_page_to_the_letter_has_a_signer() {
    let container = Container::boot();
    container.debian.install_file(&package());
    container.run("dpkg --install /root/package.deb");
    let node = MockNode::tcp().unwrap();
    // As a person at root's prompt, without a variable that names the configuration.
    let type_in = |line: &str| container.run(&format!("cd /root; unset TMKMS_CONFIG_FILE; {line}"));
    let blocks: Vec<_> = INSTALL_PAGE.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    let lines: Vec<_> = blocks.iter().flat_map(|block| block.lines()).collect();
    assert!(lines.len() > 6, "{lines:?}");
    let mut session = None;
    for line in &lines {
        match *line {
            // Warnings of this machine, about its disk or its kernel.
            line if line.ends_with("highwater check") => {
                let report = type_in(&format!("{line} || [ $? -eq 1 ]"));
                assert!(report.contains(&format!("ok    {CONFIG} is a valid configuration")), "{report}");
            }
            "highwater status" => {
                let mut there = node.accept().unwrap();
                let public = public_key(&mut there);
                assert_alive(&mut there, &public, CHAIN, 1);
                session = Some(there);
                assert!(type_in(line).contains("every chain signs"));
            }
            line => drop(type_in(line)),
        }
        // "Then edit": the address of the node.
        if line.starts_with("rm ") {
            type_in(&format!("sed -i 's|tcp://10.0.0.2:26659|{}|' {CONFIG}", node.address()));
        }
    }
    assert!(session.is_some(), "the page starts the signer and looks at it");
    assert_eq!(container.debian.owner(CONFIG), "root:highwater 640");

    // A command that root runs by mistake leaves nothing that the service cannot open, and `check` says whose turn it is.
    let careless = format!("{HOME}/secrets/careless.key");
    type_in(&format!("highwater softsign keygen {careless}"));
    assert_eq!(container.debian.owner(&careless), "highwater:highwater 600");
    let report = container.said("cd /root; unset TMKMS_CONFIG_FILE; highwater check || true");
    assert!(report.contains("runuser -u highwater -- highwater"), "{report}");
    container.run(&format!("chown root {HOME}/state/{CHAIN}-consensus.json.highwater"));
    let script = "cd /root; unset TMKMS_CONFIG_FILE; runuser -u highwater -- highwater check --before-start || true";
    let report = container.said(script);
    assert!(report.contains("belongs to root") && report.contains("chown --reference="), "{report}");
    container.run(&format!("chown highwater {HOME}/state/{CHAIN}-consensus.json.highwater"));

    // With a YubiHSM on USB, `check` names the drop-in; what it says to run is enough, and the service starts with it.
    type_in(&format!(
        "printf secret > {HOME}/secrets/hsm; chown highwater {HOME}/secrets/hsm; chmod 600 {HOME}/secrets/hsm
        cat >> {CONFIG} <<END

[[providers.yubihsm]]
adapter = {{ type = \"usb\" }}
auth = {{ key = 1, password_file = \"{HOME}/secrets/hsm\" }}
keys = []
END"
    ));
    let report = container.said(script);
    let commands: Vec<_> = report.split('`').filter(|words| words.contains("/usr/share/highwater/usb/")).collect();
    assert_eq!(commands.len(), 2, "{report}");
    container.run("mkdir -p /etc/udev/rules.d");
    commands.iter().for_each(|command| drop(type_in(command)));
    type_in("systemctl daemon-reload");
    assert!(!container.said(script).contains("/usr/share/highwater/usb/"));
    type_in("systemctl restart highwater");
    let mut there = node.accept().unwrap();
    let public = public_key(&mut there);
    assert_alive(&mut there, &public, CHAIN, 2);
    assert_eq!(container.service("PrivateDevices"), "no");
}

/// `docs/migrate-from-tmkms.md`, as it is in this commit.
const GUIDE: &str = include_str!("../docs/migrate-from-tmkms.md");
const TMKMS_HOME: &str = "/var/lib/tmkms";

/// Does what a block of the guide says, line by line: `systemctl` as root, the rest as the user that tmkms ran as.
fn follow(container: &Container, block: &str) -> String {
    let mut said = String::new();
    for line in block.lines().filter(|line| !line.starts_with("cd ")) {
        // The page says so of several chains.
        let several = if line.starts_with("highwater state ") { format!(" --chain {CHAIN}") } else { String::new() };
        let line = match line.starts_with("systemctl ") {
            true => line.to_owned(),
            false => {
                format!("cd {TMKMS_HOME}; runuser -u tmkms -- env -u TMKMS_CONFIG_FILE sh -euc '{line}{several}'")
            }
        };
        said += &container.run(&line);
        said.push('\n');
    }
    said
}

#[test]
#[ignore = "boots systemd in a container, as root: make package-test"]
fn who_follows_the_guide_from_tmkms_has_a_signer_also_after_a_reboot_and_no_restart_loop_over_one_bad_chain() {
    let mut container = Container::boot();
    container.debian.install_file(&package());
    container.run("dpkg --install /root/package.deb");
    let node = MockNode::tcp().unwrap();
    // A directory as tmkms leaves it, and a service that stands in for it. A second chain has no state.
    container.run(&format!(
        "useradd --system --home-dir {TMKMS_HOME} --shell /usr/sbin/nologin tmkms
        install -d -o tmkms -g tmkms -m 0700 {TMKMS_HOME}
        cd {TMKMS_HOME}
        as_tmkms='runuser -u tmkms -- env -u TMKMS_CONFIG_FILE'
        $as_tmkms highwater init -n osmosis --node tcp://127.0.0.1:26659 {TMKMS_HOME}
        $as_tmkms highwater softsign keygen secrets/{CHAIN}-consensus.key
        $as_tmkms highwater softsign keygen secrets/bad.key
        sed -i 's|tcp://127.0.0.1:26659|{}|' tmkms.toml
        cat >> tmkms.toml <<END

[[chain]]
id = \"bad-1\"
key_format = {{ type = \"hex\" }}
state_file = \"state/bad.json\"

[[providers.softsign]]
chain_ids = [\"bad-1\"]
path = \"secrets/bad.key\"

[[validator]]
chain_id = \"bad-1\"
addr = \"tcp://127.0.0.1:1\"
secret_key = \"secrets/kms-identity.key\"
END
        umask 077
        echo '{{\"height\":\"5\",\"round\":\"0\",\"step\":2,\"block_id\":null}}' > state/{CHAIN}-consensus.json
        chown -R tmkms: {TMKMS_HOME}
        cat > /etc/systemd/system/tmkms.service <<END
[Service]
User=tmkms
ExecStart=/bin/sleep infinity
[Install]
WantedBy=multi-user.target
END
        systemctl daemon-reload
        systemctl enable --now tmkms",
        node.address()
    ));
    let drop_in = GUIDE.split("```ini\n").nth(1).unwrap().split("```").next().unwrap();
    let path = GUIDE.split('`').find(|words| words.ends_with("highwater.service.d/tmkms.conf")).unwrap();
    fs::create_dir_all(container.debian.path(path).parent().unwrap()).unwrap();
    fs::write(container.debian.path(path), drop_in).unwrap();
    container.run("systemctl daemon-reload");

    assert!(GUIDE.contains("add `--chain ID` to `state import`"));
    // Up to and with the start of Highwater. What is looked at before that may find the second chain bad.
    let blocks: Vec<_> = GUIDE.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    let starts = blocks.iter().position(|block| block.contains("enable --now highwater")).unwrap();
    for block in &blocks[..starts] {
        let without_looks: Vec<_> = block.lines().filter(|line| !line.starts_with("highwater check")).collect();
        follow(&container, &without_looks.join("\n"));
    }
    let (before, after) = blocks[starts].split_once("systemctl enable --now highwater\n").unwrap();
    follow(&container, before);
    follow(&container, "systemctl enable --now highwater");
    let mut session = node.accept().unwrap();
    let public = public_key(&mut session);
    assert_alive(&mut session, &public, CHAIN, 6);
    assert!(after.contains("highwater status"), "{after}");
    let is_enabled = |service: &str| container.said(&format!("systemctl is-enabled {service}")).trim().to_owned();
    assert_eq!([is_enabled("highwater"), is_enabled("tmkms")], ["enabled", "disabled"]);
    // Twice the pause between two restarts.
    thread::sleep(Duration::from_secs(11));
    assert_eq!(container.service("ActiveState"), "active");
    assert_eq!(
        container.service("NRestarts"),
        "0",
        "one bad chain is no reason to start again: {}",
        container.journal()
    );

    // The machine is started again, and nobody is there.
    session.close();
    container.reboot();
    let mut session = node.accept().unwrap();
    assert_eq!(public_key(&mut session), public);
    assert_refuses(&mut session, 6);
    assert_alive(&mut session, &public, CHAIN, 7);
    assert_eq!(container.service("NRestarts"), "0");

    // A hangup, by hand or by a tool that rotates logs, ends nothing; whatever does end it starts it again.
    container.run("systemctl kill --signal=HUP --kill-who=main highwater");
    thread::sleep(Duration::from_secs(1));
    assert_alive(&mut session, &public, CHAIN, 8);
    container.run("kill -TERM $(systemctl show --value -p MainPID highwater)");
    let mut session = node.accept().unwrap();
    assert_alive(&mut session, &public, CHAIN, 9);
    assert_eq!(container.service("NRestarts"), "1");
}

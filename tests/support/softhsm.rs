//! Tokens of SoftHSM 2, each in a directory of its own, and a process of its own for what uses them.
//!
//! A PKCS#11 module lives once in a process, and SoftHSM reads its configuration from the environment: so a test
//! runs its body in a child of the test binary, unless it only runs commands.
#![allow(dead_code)]

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};
use tempfile::TempDir;

/// The user's PIN of every token.
pub const PIN: &str = "hush-1234";
/// The label of the token that every lab has from the start.
pub const LABEL: &str = "validator";

/// Tells a child where its lab is.
const LAB: &str = "HIGHWATER_TEST_LAB";
/// The paths where Debian and others install the module.
const MODULES: [&str; 4] = [
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
    "/usr/local/lib/softhsm/libsofthsm2.so",
];

/// A directory with SoftHSM's configuration and tokens.
pub struct Lab {
    dir: PathBuf,
    /// The module.
    pub module: PathBuf,
}

/// Runs `body` in a process of its own with a fresh token. `test` is the name of the test that calls this.
pub fn isolated(test: &str, body: impl FnOnce(&Lab)) {
    let Some(module) = installed() else { return };
    if let Some(dir) = env::var_os(LAB) {
        let lab = Lab { dir: dir.into(), module };
        body(&lab);
        return fs::write(lab.dir.join("done"), "").unwrap();
    }
    let dir = TempDir::new().unwrap();
    let lab = Lab::in_directory(dir.path(), module);
    let output = lab.spawn_test(test).output().unwrap();
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    assert!(lab.dir.join("done").exists(), "there is no test {test:?}");
}

/// The module, if SoftHSM is on this machine. Says so if it is not.
pub fn installed() -> Option<PathBuf> {
    let module = MODULES.iter().map(PathBuf::from).find(|path| path.exists());
    if module.is_none() {
        skip("there is no libsofthsm2.so");
        return None;
    }
    if Command::new("softhsm2-util").arg("--version").output().is_err() {
        skip("there is no softhsm2-util");
        return None;
    }
    module
}

fn skip(reason: &str) {
    assert!(env::var("CI").as_deref() != Ok("true"), "{reason}, and CI skips nothing");
    eprintln!("*** SKIPPED: {reason}; run `tests/install/debian.sh softhsm2 opensc` as root");
}

impl Lab {
    /// Makes a lab with one token in an empty directory.
    pub fn in_directory(dir: &Path, module: PathBuf) -> Self {
        let lab = Self { dir: dir.into(), module };
        fs::create_dir(lab.dir.join("tokens")).unwrap();
        let conf = format!(
            "directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n",
            lab.dir.join("tokens").display()
        );
        fs::write(lab.dir.join("softhsm2.conf"), conf).unwrap();
        lab.init_token(LABEL);
        lab
    }

    /// Makes one more token.
    pub fn init_token(&self, label: &str) {
        let arguments = ["--init-token", "--free", "--label", label, "--so-pin", "12345678", "--pin", PIN];
        let output = self.command("softhsm2-util").args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
    }

    /// A program that sees the lab's tokens.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env("SOFTHSM2_CONF", self.dir.join("softhsm2.conf")).stdin(Stdio::null());
        // For the module that fails on command, in front of this one.
        command.env("HIGHWATER_FAULTY_TARGET", &self.module).env("HIGHWATER_FAULTY_PLAN", self.path("faults.plan"));
        command
    }

    /// Replaces the plan of the module that fails on command, and forgets what it noted.
    pub fn plan(&self, lines: &[&str]) {
        let _ = fs::remove_file(self.path("faults.log"));
        fs::write(self.path("faults.plan"), lines.iter().map(|line| format!("{line}\n")).collect::<String>()).unwrap();
    }

    /// How often that module was called by this name.
    pub fn calls(&self, name: &str) -> usize {
        let log = fs::read_to_string(self.path("faults.log")).unwrap_or_default();
        log.lines().filter(|line| line.split(' ').next() == Some(name)).count()
    }

    /// One test of this binary, in a process of its own that sees the lab.
    pub fn spawn_test(&self, test: &str) -> Command {
        let mut command = self.command(env::current_exe().unwrap());
        command.args(["--exact", test, "--nocapture", "--include-ignored"]).env(LAB, &self.dir);
        command
    }

    /// Another implementation that looks at the same token, logged in as its user.
    pub fn pkcs11_tool(&self, arguments: &[&str]) -> Output {
        let mut command = self.command("pkcs11-tool");
        command.arg("--module").arg(&self.module).args(["--token-label", LABEL, "--login", "--pin", PIN]);
        command.args(arguments).output().expect("pkcs11-tool, of Debian's package opensc, is installed")
    }

    /// A file in the lab.
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir.join(name)
    }
}

/// The output of a program.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

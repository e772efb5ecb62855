//! Modules of others, as Debian installs them: those that can sign do so in the sandbox, and the others say why not.

use super::token::{Scene, sign};
use crate::support::{
    cli::{Answer, Home},
    hsm::Hsm,
    mock_node::prevote,
    skip::skip,
};
use std::{
    fs,
    net::{TcpListener, TcpStream},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

const VOTES: i64 = 20;
const PATIENCE: Duration = Duration::from_secs(20);
const PIN: &str = "42424242";
const SO_PIN: &str = "87654321";
/// The places of libraries in Debian, by its name of the machine.
const LIBRARIES: [&str; 4] = ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib"];
const PKCSSLOTD_SOCKET: &str = "/run/pkcsslotd.socket";

/// A library of the system; `None`, said loudly, where its package is not installed.
fn library(name: &str, package: &str) -> Option<PathBuf> {
    let found = LIBRARIES.iter().map(|place| Path::new(place).join(name)).find(|path| path.exists());
    if found.is_none() {
        skip(&format!("there is no {name}: run tests/install/debian.sh {package} as root"));
    }
    found
}

/// Has the signer sign as many votes as two nodes would ask in ten heights, in its sandbox.
fn assert_signs_votes(scene: &Scene) {
    let (signer, mut session) = scene.start();
    for height in 1..=VOTES {
        sign(&mut session, &scene.key, prevote(height, 0, Some(7)));
    }
    assert!(!signer.log().contains("not limited"), "in the sandbox: {}", signer.log());
}

#[test]
fn softhsm_and_kryoptic_sign_twenty_votes_each_in_the_sandbox() {
    for hsm in [Hsm::softhsm(), Hsm::kryoptic()].into_iter().flatten() {
        let module = hsm.module().to_owned();
        assert_signs_votes(&Scene::new(hsm, &module));
    }
}

#[test]
fn p11_kits_proxy_signs_twenty_votes_for_the_softhsm_behind_it() {
    let (Some(proxy), Some(hsm)) = (library("p11-kit-proxy.so", "p11-kit-modules"), Hsm::softhsm()) else { return };
    if !Path::new("/usr/share/p11-kit/modules/softhsm2.module").exists() {
        return skip("p11-kit knows no SoftHSM: Debian's package softhsm2 tells it");
    }
    assert_signs_votes(&Scene::new(hsm, &proxy));
}

/// A process that ends with its test.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        // Not killed: pkcsslotd removes its socket.
        let _ = Command::new("kill").arg(self.0.id().to_string()).status();
        let _ = self.0.wait();
    }
}

fn until(condition: impl Fn() -> bool) -> bool {
    let deadline = Instant::now() + PATIENCE;
    while !condition() && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(20));
    }
    condition()
}

/// A TPM in software and a token of tpm2-pkcs11 on it.
struct Tpm {
    home: Home,
    module: PathBuf,
    tcti: String,
    _daemon: Daemon,
}

impl Tpm {
    fn new() -> Option<Self> {
        let module = library("libtpm2_pkcs11.so.1", "libtpm2-pkcs11-1 libtpm2-pkcs11-tools swtpm tpm2-tools")?;
        let home = Home::new();
        for name in ["tpm", "store"] {
            fs::create_dir(home.path(name)).unwrap();
        }
        // It takes the port after the first for control.
        let port = (0..100).find_map(|_| {
            let first = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            (first < u16::MAX && TcpListener::bind(("127.0.0.1", first + 1)).is_ok()).then_some(first)
        });
        let port = port.expect("two free ports beside each other");
        let mut command = Command::new("swtpm");
        command.args(["socket", "--tpm2", "--flags", "not-need-init,startup-clear", "--tpmstate"]);
        command.arg(format!("dir={}", home.path("tpm").display()));
        command.args(["--server", &format!("type=tcp,port={port}")]);
        command.args(["--ctrl", &format!("type=tcp,port={}", port + 1)]);
        let Ok(daemon) = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn() else {
            skip("there is no swtpm: run tests/install/debian.sh swtpm as root");
            return None;
        };
        let daemon = Daemon(daemon);
        assert!(until(|| TcpStream::connect(("127.0.0.1", port + 1)).is_ok()), "swtpm listens");
        let tpm = Self { home, module, tcti: format!("swtpm:port={port}"), _daemon: daemon };
        tpm.tool("tpm2_ptool", &["init"]);
        // Without a resource manager, nobody else makes room in the TPM.
        tpm.tool("tpm2_flushcontext", &["-t"]);
        let module = tpm.module.display().to_string();
        let tool = ["--module", &module];
        tpm.tool(
            "pkcs11-tool",
            &[&tool[..], &["--slot", "1", "--init-token", "--label", "validator", "--so-pin", SO_PIN]].concat(),
        );
        let login = ["--login", "--login-type", "so", "--so-pin", SO_PIN, "--init-pin", "--pin", PIN];
        tpm.tool("pkcs11-tool", &[&tool[..], &["--token-label", "validator"], &login].concat());
        Some(tpm)
    }

    fn equip<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command.env("TPM2TOOLS_TCTI", &self.tcti).env("TPM2_PKCS11_TCTI", &self.tcti);
        command.env("TPM2_PKCS11_STORE", self.home.path("store")).stdin(Stdio::null())
    }

    fn tool(&self, program: &str, words: &[&str]) -> Output {
        let output = self.equip(Command::new(program).args(words)).output().expect("tpm2-tools are installed");
        assert!(output.status.success(), "{program} {words:?}: {}", String::from_utf8_lossy(&output.stderr));
        output
    }

    fn run(&self, words: &str) -> Answer {
        self.home.finish(self.equip(&mut self.home.highwater(words)))
    }
}

#[test]
fn a_tpm_says_that_it_has_neither_curve() {
    let Some(tpm) = Tpm::new() else { return };
    tpm.home.write(
        "tpm2.toml",
        format!(
            "name = \"tpm2\"\nevidence = \"unverified\"\nsources = [\"https://github.com/tpm2-software/tpm2-pkcs11\"]\n[module]\npaths = [{:?}]\ninstall = \"tpm2-pkcs11\"\n\
             environment = [\n{{ name = \"TPM2_PKCS11_STORE\", meaning = \"its store\", required = false, file = true }},\n\
             {{ name = \"TPM2_PKCS11_TCTI\", meaning = \"its TPM\", required = false }},\n]\nfiles = [{:?}]\nnetwork = true\n\
             [ed25519]\nsupported = true\nec_params = [\"oid\"]\n[secp256k1]\nsupported = true\n",
            tpm.module,
            tpm.home.path("store")
        ),
    );
    tpm.home.write("pin", PIN);
    let device = "--profile ./tpm2.toml --token validator --pin-file pin";
    tpm.run("pkcs11 tokens --profile ./tpm2.toml").assert(0, "label   \"validator\"|IBM", "");
    tpm.run(&format!("pkcs11 generate {device} --id 01 --label a")).assert(
        74,
        "",
        "CKR_MECHANISM_INVALID|the module's last words: ",
    );
    let refused = "C_GenerateKeyPair answered CKR_CURVE_NOT_SUPPORTED|the module's last words: |Unsupported nid";
    tpm.run(&format!("pkcs11 generate {device} --id 01 --label a -t account")).assert(74, "", refused);
    tpm.run(&format!("pkcs11 keys list {device}")).assert(0, "no private keys", "");
}

#[test]
fn nss_without_its_text_says_that_it_wants_other_arguments() {
    let Some(module) = library("libsoftokn3.so", "libnss3") else { return };
    let home = Home::new();
    let words = format!("pkcs11 tokens --module {}", module.display());
    home.run(&words).assert(74, "", "C_Initialize answered CKR_ARGUMENTS_BAD");
}

#[test]
fn nss_with_the_text_of_its_profile_lists_its_tokens() {
    let Some(module) = library("libsoftokn3.so", "libnss3") else { return };
    let home = Home::new();
    let database = home.path("nss");
    fs::create_dir(&database).unwrap();
    let text = format!("configdir='sql:{}' certPrefix='' keyPrefix='' secmod='secmod.db' flags= ", database.display());
    home.write(
        "nss.toml",
        format!(
            "name = \"nss\"\nevidence = \"unverified\"\nsources = [\"https://firefox-source-docs.mozilla.org\"]\n[module]\n\
             paths = [{module:?}]\ninstall = \"libnss3\"\nfiles = [{database:?}]\ninit_string = {text:?}\n\
             [ed25519]\nsupported = true\nec_params = [\"oid\"]\n[secp256k1]\nsupported = true\n"
        ),
    );
    home.run("pkcs11 tokens --profile ./nss.toml").assert(0, "NSS Certificate DB", "");
    home.write("pin", PIN);
    let device = "--profile ./nss.toml --token pkcs11:token=NSS%20Certificate%20DB --pin-file pin";
    home.run(&format!("pkcs11 generate {device} --id 01 --label a")).assert(77, "", "the token is not initialised");
}

#[test]
fn opencryptokis_soft_token_is_listed_and_has_no_curve() {
    let Some(module) = library("opencryptoki/libopencryptoki.so.0", "opencryptoki") else { return };
    if !is_root() {
        return skip("only root and the group pkcs11 may use opencryptoki");
    }
    // A connection that is closed at once ends this version of the daemon, so its socket is only looked at.
    let runs = || Path::new(PKCSSLOTD_SOCKET).exists();
    let daemon = (!runs()).then(|| {
        let mut command = Command::new("pkcsslotd");
        Daemon(command.arg("-f").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    });
    assert!(until(runs), "pkcsslotd listens");
    let home = Home::new();
    // Its clock is in a form of its own, and no listing needs it.
    let answer = home.run(&format!("pkcs11 tokens --profile opencryptoki --module {}", module.display()));
    answer.assert(0, "IBM", "");
    let tool = Command::new("pkcs11-tool").arg("--module").arg(&module).args(["--slot", "3", "-M"]).output().unwrap();
    let mechanisms = String::from_utf8_lossy(&tool.stdout).into_owned();
    assert!(mechanisms.contains("RSA-PKCS") && !mechanisms.contains("ECDSA"), "{mechanisms}");
    drop(daemon);
}

fn is_root() -> bool {
    fs::metadata("/proc/self").unwrap().uid() == 0
}

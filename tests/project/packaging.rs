//! What `packaging/` promises, as far as it can be checked without a build of the package: units, SELinux policy, manual
//! pages, completions. `tests/package.rs` installs the package itself.

use clap::Command as CommandLine;
#[path = "../../examples/completions.rs"]
mod completions;

use highwater::cli::{self, Exit};
use std::{
    collections::BTreeSet,
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};
use tempfile::TempDir;

/// The highest allowed exposure in `systemd-analyze security`. 10 is a unit without any protection.
const EXPOSURE_MAX: &str = "15";

fn packaging(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging").join(name)
}

fn read(name: &str) -> String {
    fs::read_to_string(packaging(name)).unwrap_or_else(|error| panic!("packaging/{name}: {error}"))
}

/// The output of a program; `None`, with a reason, where it is not there. Only in CI is that a failure.
fn output_of(package: &str, command: &mut Command) -> Option<Output> {
    match command.output() {
        Ok(output) => Some(output),
        Err(error) => {
            eprintln!("*** NOT CHECKED: what needs {command:?}: {error}: run tests/install/debian.sh {package}");
            assert!(env::var("CI").as_deref() != Ok("true"), "{package} is not installed");
            None
        }
    }
}

#[track_caller]
fn assert_silent(output: &Output) {
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.trim().is_empty(), "{}: {said}", output.status);
}

/// Every value of a setting of the unit, in order; what is commented out does not count.
fn settings<'a>(unit: &'a str, name: &str) -> Vec<&'a str> {
    unit.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('=')).collect()
}

/// The service in a directory of its own, with and without the drop-in for USB, and with this build as its program.
fn units() -> Vec<(&'static str, TempDir, PathBuf)> {
    let write = |what, with_usb| {
        let dir = TempDir::new().unwrap();
        let unit = dir.path().join("highwater.service");
        let text = read("systemd/highwater.service").replace("/usr/bin/highwater", env!("CARGO_BIN_EXE_highwater"));
        fs::write(&unit, text).unwrap();
        if with_usb {
            let drop_in = dir.path().join("highwater.service.d");
            fs::create_dir(&drop_in).unwrap();
            fs::copy(packaging("systemd/highwater-usb.conf"), drop_in.join("usb.conf")).unwrap();
        }
        (what, dir, unit)
    };
    vec![write("the service", false), write("the service with USB", true)]
}

#[test]
fn the_units_expose_little() {
    for (what, _dir, unit) in units() {
        let mut analyze = Command::new("systemd-analyze");
        analyze.args(["security", "--offline=true", "--no-pager", &format!("--threshold={EXPOSURE_MAX}")]).arg(&unit);
        let Some(output) = output_of("systemd", &mut analyze) else { return };
        let text = String::from_utf8_lossy(&output.stdout);
        let verdict = text.lines().find(|line| line.contains("Overall exposure")).unwrap_or_default();
        eprintln!("{what}: {verdict}");
        // Each version of systemd counts in its own way.
        let version = Command::new("systemd-analyze").arg("--version").output().unwrap().stdout;
        if version.starts_with(b"systemd 252 ") {
            let score = verdict.split(": ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap();
            let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/sandbox.md")).unwrap();
            assert!(page.contains(&format!("| {what} | {score} |")), "docs/sandbox.md: {what} has {score}");
        }
        assert!(output.status.success() && !verdict.is_empty(), "{what}: {text}");
    }
}

#[test]
fn the_threshold_fails_a_unit_without_protection() {
    let dir = TempDir::new().unwrap();
    let unit = dir.path().join("highwater.service");
    fs::write(&unit, "[Service]\nExecStart=/bin/true\n").unwrap();
    let mut analyze = Command::new("systemd-analyze");
    analyze.args(["security", "--offline=true", &format!("--threshold={EXPOSURE_MAX}")]).arg(&unit);
    let Some(output) = output_of("systemd", &mut analyze) else { return };
    assert!(!output.status.success());
}

#[test]
fn systemd_takes_every_line_of_the_units() {
    for (_, dir, unit) in units() {
        let mut verify = Command::new("systemd-analyze");
        // With a colon at the end systemd's own units are known too.
        verify.args(["verify", "--man=no"]).arg(&unit).env("SYSTEMD_UNIT_PATH", format!("{}:", dir.path().display()));
        let Some(output) = output_of("systemd", &mut verify) else { return };
        assert_silent(&output);
    }
}

#[test]
fn systemd_takes_the_user_of_the_service() {
    let sysusers = packaging("systemd/highwater.sysusers");
    let root = TempDir::new().unwrap();
    let mut command = Command::new("systemd-sysusers");
    command.arg("--root").arg(root.path()).arg(&sysusers);
    fs::create_dir(root.path().join("etc")).unwrap();
    let Some(output) = output_of("systemd", &mut command) else { return };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let unit = read("systemd/highwater.service");
    let passwd = fs::read_to_string(root.path().join("etc/passwd")).unwrap();
    for user in settings(&unit, "User") {
        let line = passwd.lines().find(|line| line.starts_with(&format!("{user}:"))).unwrap();
        assert!(line.ends_with("nologin"), "{line}");
    }
}

/// Whether the service starts again after this exit code of `start`.
fn restart_helps(exit: Exit) -> bool {
    match exit {
        // A crash, a device or a disk that may be well again, a node that was restarted.
        Exit::Io | Exit::Software | Exit::Unavailable => true,
        // Not ended by a failure, or by that of another command.
        Exit::CheckError | Exit::CheckWarning | Exit::Ok => true,
        // Only a person can mend these. And a signer that waits for the end of another one takes over when nobody
        // expects it: perhaps while a third one is being set up.
        Exit::CantCreate
        | Exit::Config
        | Exit::Data
        | Exit::NoInput
        | Exit::NoPermission
        | Exit::TempFail
        | Exit::Usage => false,
    }
}

const EXITS: [Exit; 13] = [
    Exit::CantCreate,
    Exit::CheckError,
    Exit::CheckWarning,
    Exit::Config,
    Exit::Data,
    Exit::Io,
    Exit::NoInput,
    Exit::NoPermission,
    Exit::Ok,
    Exit::Software,
    Exit::TempFail,
    Exit::Unavailable,
    Exit::Usage,
];

#[test]
fn the_service_never_loops_where_a_restart_helps_nobody() {
    let unit = read("systemd/highwater.service");
    let listed: BTreeSet<u8> = settings(&unit, "RestartPreventExitStatus")
        .iter()
        .flat_map(|codes| codes.split_whitespace())
        .map(|code| code.parse().unwrap())
        .collect();
    let expected = EXITS.into_iter().filter(|exit| !restart_helps(*exit)).map(|exit| exit as u8).collect();
    assert_eq!(listed, expected);
    // HUP, and whatever else a signal can end, is a clean end to `on-failure`.
    assert_eq!(settings(&unit, "Restart"), ["always"]);
    let pause: u32 = settings(&unit, "RestartSec")[0].parse().unwrap();
    assert!(pause >= 3);
    // A limit, but one that a disk which is full for some hours does not reach.
    let burst: u32 = settings(&unit, "StartLimitBurst")[0].parse().unwrap();
    assert_eq!(settings(&unit, "StartLimitIntervalSec"), ["1d"]);
    assert!((3600..86400).contains(&(burst * pause)), "{burst}");
    // A failed ExecStartPre= is a failure like any other, which RestartPreventExitStatus= does not see.
    assert!(settings(&unit, "ExecStartPre").iter().all(|program| program.starts_with('-')));
}

#[test]
fn the_table_of_exit_codes_says_of_each_whether_it_may_pass() {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/commands.md")).unwrap();
    let table = page.split("## Exit codes").nth(1).unwrap().split("\n## ").next().unwrap();
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split('|').map(str::trim).collect()).collect();
    for exit in EXITS {
        let code = (exit as u8).to_string();
        let has = |row: &&Vec<&str>| row.len() == 5 && row[1].split(", ").any(|known| known == code);
        let row = rows.iter().find(has).unwrap_or_else(|| panic!("exit code {code} is not in the table"));
        if !matches!(exit, Exit::CheckError | Exit::CheckWarning) {
            assert_eq!(row[3].starts_with("yes"), restart_helps(exit), "exit code {code}: {}", row[3]);
        }
    }
}

#[test]
fn every_place_where_a_profile_looks_for_a_module_may_be_executed_from() {
    let unit = read("systemd/highwater.service");
    let allowed: Vec<&str> = settings(&unit, "ExecPaths").iter().flat_map(|paths| paths.split_whitespace()).collect();
    let mut modules = 0;
    for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("hsm-profiles")).unwrap() {
        let text = fs::read_to_string(entry.unwrap().path()).unwrap();
        for module in text.split('"').filter(|text| text.starts_with('/') && text.ends_with(".so")) {
            let inside = |allowed: &&str| Path::new(module).starts_with(allowed.trim_start_matches('-'));
            assert!(allowed.iter().any(inside), "{module}");
            modules += 1;
        }
    }
    assert!(modules > 3, "{modules}");
}

/// Where `cargo deb` installs each file of the repository: its path there, and its path on the machine.
fn installed() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let manifest = fs::read_to_string(root.join("Cargo.toml")).unwrap();
    let assets = manifest.split("\nassets = [\n").nth(1).unwrap().split("\n]").next().unwrap();
    let mut files = Vec::new();
    for line in assets.lines() {
        let words: Vec<&str> = line.split('"').skip(1).step_by(2).collect();
        let [source, target, _mode] = words[..] else { panic!("{line}") };
        let (directory, name) = source.rsplit_once('/').unwrap_or(("", source));
        let sources: Vec<String> = match name.split_once('*') {
            Some((begin, end)) => fs::read_dir(root.join(directory))
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .filter(|found| found.starts_with(begin) && found.ends_with(end))
                .collect(),
            None => vec![name.to_owned()],
        };
        for name in sources {
            let target = if target.ends_with('/') { format!("{target}{name}") } else { target.to_owned() };
            let source = if directory.is_empty() { name } else { format!("{directory}/{name}") };
            files.push((source, target));
        }
    }
    files
}

#[test]
fn every_link_in_an_installed_document_leads_to_an_installed_file() {
    let files = installed();
    let mut found = 0;
    for (source, target) in files.iter().filter(|(_, target)| target.ends_with(".md")) {
        let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(source)).unwrap();
        for link in text.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()) {
            if link.starts_with('#') || link.contains("://") || link.contains(char::is_whitespace) {
                continue;
            }
            let mut place = Path::new(target).parent().unwrap().to_owned();
            for step in link.split('#').next().unwrap().split('/') {
                match step {
                    ".." => drop(place.pop()),
                    _ => place.push(step),
                }
            }
            let leads = files.iter().any(|(_, target)| Path::new(target).starts_with(&place));
            assert!(leads, "{source}: {link}: the package has no {}", place.display());
            found += 1;
        }
    }
    assert!(found > 60, "{found}");
}

#[test]
fn what_the_program_says_about_usb_is_in_the_package() {
    let files = installed();
    for name in ["highwater-usb.conf", "60-highwater-usb.rules"] {
        let path = format!("usr/share/highwater/usb/{name}");
        assert!(files.iter().any(|(_, target)| *target == path), "{path}");
    }
    for source in ["src/keyring/yubihsm/usb_bus.rs", "src/inspect/unit.rs"] {
        let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(source)).unwrap();
        assert!(text.contains("/usr/share/highwater/usb"), "{source}");
    }
}

#[test]
fn libusb_is_built_in_and_libudev_is_not() {
    assert_eq!(option_env!("LIBUDEV_NO_PKG_CONFIG"), Some("1"), "see .cargo/config.toml");
    let program = fs::read(env!("CARGO_BIN_EXE_highwater")).unwrap();
    let has = |text: &[u8]| program.windows(text.len()).any(|window| window == text);
    assert!(has(b"libc.so.6\0"), "the libraries that it needs are named like this");
    for library in ["libusb-1.0.so", "libudev.so"] {
        assert!(!has(library.as_bytes()), "the program needs {library}");
    }
    assert!(has(b"/dev/bus/usb\0"), "libusb is in it");
}

#[test]
fn the_selinux_policy_compiles() {
    const MAKEFILE: &str = "/usr/share/selinux/devel/Makefile";
    if !Path::new(MAKEFILE).exists() {
        eprintln!("*** NOT CHECKED: the SELinux policy: run tests/install/debian.sh selinux-policy-dev");
        assert!(env::var("CI").as_deref() != Ok("true"), "selinux-policy-dev is not installed");
        return;
    }
    let dir = TempDir::new().unwrap();
    for name in ["highwater.te", "highwater.fc", "highwater.if"] {
        fs::copy(packaging("selinux").join(name), dir.path().join(name)).unwrap();
    }
    let mut make = Command::new("make");
    // A make above this one hands on what is not meant for this one.
    make.args(["-f", MAKEFILE, "highwater.pp"]).current_dir(&dir).env_remove("MAKEFLAGS").env_remove("MAKELEVEL");
    let Some(output) = output_of("make", &mut make) else { return };
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && !said.contains("rror"), "{said}");
    assert!(fs::metadata(dir.path().join("highwater.pp")).unwrap().len() > 0);
}

/// Every command that does something: its words, and itself.
fn leaves(command: &CommandLine, words: &str) -> Vec<(String, CommandLine)> {
    let inside: Vec<_> = command.get_subcommands().filter(|command| command.get_name() != "help").collect();
    if inside.is_empty() {
        return vec![(words.trim().to_owned(), command.clone())];
    }
    inside.into_iter().flat_map(|command| leaves(command, &format!("{words} {}", command.get_name()))).collect()
}

#[test]
fn completions_have_every_command_and_no_hidden_one() {
    for (shell, name) in completions::FILES {
        let text = String::from_utf8(completions::completions(shell)).unwrap();
        for (words, _) in leaves(&completions::visible(&cli::command()), "") {
            assert!(text.contains(words.split(' ').next_back().unwrap()), "{name}: {words}");
        }
        for command in cli::command().get_subcommands().filter(|command| command.is_hide_set()) {
            assert!(!text.contains(command.get_name()), "{name}: {}", command.get_name());
        }
        let asset = format!("target/completions/{name}");
        assert!(fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")).unwrap().contains(&asset));
    }
}

#[test]
fn the_manual_has_every_command_every_option_and_every_exit_code() {
    let manual = read("man/highwater.8");
    for (words, command) in leaves(&completions::visible(&cli::command()), "") {
        let is_item = |line: &str| line == format!(".It Cm {words}") || line.starts_with(&format!(".It Cm {words} "));
        assert!(manual.lines().any(is_item), "`highwater {words}` is not in highwater.8");
        for option in command.get_arguments().filter_map(|argument| argument.get_long()) {
            let is_there = manual.split_whitespace().any(|word| word == format!("-{option}"));
            assert!(is_there, "--{option} of `highwater {words}` is not in highwater.8");
        }
    }
    let status = manual.split(".Sh EXIT STATUS").nth(1).unwrap();
    let items: Vec<&str> = status.lines().filter_map(|line| line.strip_prefix(".It ")).collect();
    for exit in EXITS {
        let code = (exit as u8).to_string();
        let named = |item: &&&str| item.split([' ', ',']).any(|word| word == code);
        let item = items.iter().find(named).unwrap_or_else(|| panic!("exit code {code} is not in highwater.8"));
        assert_eq!(item.ends_with('*'), !restart_helps(exit), "exit code {code}: whether the service restarts");
    }
}

#[test]
fn the_manual_of_the_configuration_has_every_setting_of_the_example() {
    let manual = read("man/highwater.toml.5");
    let words: BTreeSet<&str> = manual.split_whitespace().collect();
    let example = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tmkms.toml.example")).unwrap();
    let mut settings = 0;
    for line in example.lines() {
        let line = if line.starts_with("# ") { continue } else { line.trim_start_matches('#') };
        let line = line.split(" #").next().unwrap();
        if let Some(section) = line.strip_prefix('[') {
            let name = section.trim_matches(['[', ']']).rsplit('.').next().unwrap();
            assert!(manual.contains(name), "section {line} is not in highwater.toml.5");
            continue;
        }
        // Every key before a `=`, also inside of tables on one line.
        let mut parts: Vec<&str> = line.split('=').collect();
        parts.pop();
        for part in parts {
            let name = part.trim().rsplit([' ', '{', ',']).next().unwrap();
            if !name.is_empty() && name.chars().all(|c| c.is_ascii_lowercase() || c == '_') {
                assert!(words.contains(name), "setting {name:?} is not in highwater.toml.5");
                settings += 1;
            }
        }
    }
    assert!(settings > 30, "{settings}");
}

#[test]
fn the_manuals_are_well_formed() {
    for name in ["man/highwater.8", "man/highwater.toml.5"] {
        let mut lint = Command::new("mandoc");
        lint.args(["-T", "lint", "-W", "warning"]).arg(packaging(name));
        let Some(output) = output_of("mandoc", &mut lint) else { return };
        assert_silent(&output);
    }
}

#[test]
fn the_scripts_are_shell() {
    for name in ["build.sh", "reproducible.sh", "debian/postinst", "debian/postrm", "debian/prerm"] {
        assert_silent(&Command::new("sh").arg("-n").arg(packaging(name)).output().unwrap());
    }
}

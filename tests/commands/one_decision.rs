//! `check` and `start` are one decision: what `check` fails, `start` refuses with the same words; what it warns of, `start`
//! logs and `status` shows. Each case is made real, and both are asked.

use crate::support::{
    cli::{Answer, CHAIN, Home, PATIENCE, wait_for},
    plain_node::{Ballot, PlainNode, Verdict},
    skip::skip,
};
use highwater_core::privval::MessageKind;
use std::{
    fs::{self, OpenOptions, Permissions},
    io::Write as _,
    os::unix::fs::{PermissionsExt as _, chown, symlink},
    process::Command,
};

/// Nobody's number.
const STRANGER: u32 = 4242;
const KEY_2: &str = "second.key";

/// A home whose chain is ready to sign.
fn ready() -> Home {
    let home = Home::with_chain();
    home.run("state init --never-signed").assert(0, "made", "");
    home.run("check").assert(0, "ok    chain test-1: state file watermark.highwater is at 0/0/proposal", "");
    home
}

/// The same with a second chain, of which nothing is wrong.
fn ready_with_second() -> Home {
    let home = ready();
    home.run(&format!("softsign keygen {KEY_2}")).assert(0, "made", "");
    let socket = home.path("second.sock");
    edit(
        &home,
        "[[chain]]",
        &format!(
            "[[chain]]\nid = \"test-2\"\nkey_format = {{ type = \"hex\" }}\nstate_file = \"second\"\n\
         [[validator]]\naddr = \"unix://{}\"\nchain_id = \"test-2\"\n\
         [[providers.softsign]]\nchain_ids = [\"test-2\"]\npath = \"{KEY_2}\"\n[[chain]]",
            socket.display()
        ),
    );
    home.run("state init --never-signed --chain test-2").assert(0, "made", "");
    home
}

fn edit(home: &Home, old: &str, new: &str) {
    let text = fs::read_to_string(home.path("tmkms.toml")).unwrap();
    assert!(text.contains(old), "{old:?} is in {text}");
    home.write("tmkms.toml", text.replacen(old, new, 1));
}

fn mode(home: &Home, name: &str, mode: u32) {
    fs::set_permissions(home.path(name), Permissions::from_mode(mode)).unwrap();
}

/// Moves a file, and the state file beside it if there is one.
fn move_to(home: &Home, name: &str, directory: &str) {
    for name in [name.to_owned(), format!("{name}.highwater")] {
        if home.path(&name).exists() {
            fs::rename(home.path(&name), home.path(&format!("{directory}/{name}"))).unwrap();
        }
    }
}

/// Every file has an owner that a test can change only as root.
fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output().unwrap();
    let root = id.stdout == b"0\n";
    if !root {
        skip("files of other users can be made only by root");
    }
    root
}

/// The lines of `check` at that level, without the level.
fn said(answer: &Answer, level: &str) -> Vec<String> {
    let lines = answer.stdout.lines().filter_map(|line| line.strip_prefix(&format!("{level:<5} ")));
    lines.map(str::to_owned).collect()
}

/// Without the chain, which `start` names in its own way.
fn words(line: &str) -> &str {
    line.strip_prefix("chain ").and_then(|rest| rest.split_once(": ")).map_or(line, |(_, words)| words)
}

/// `check`, also as the unit runs it, fails with all of `fragments`, and `start` does not start, with the same words.
#[track_caller]
fn assert_refused(home: &Home, fragments: &str, exit: i32) -> String {
    let mut refused = String::new();
    for command in ["check --before-start", "check"] {
        let before = home.snapshot();
        let check = home.run(command);
        home.assert_untouched(&before, command);
        assert_eq!(check.code, 2, "{command}: {check:?}");
        let fails = said(&check, "fail").join("\n");
        fragments.split('|').for_each(|fragment| assert!(fails.contains(fragment), "{fragment:?} is in {fails}"));
        refused = fails;
    }
    let before = home.snapshot();
    let start = home.run("start");
    home.assert_same(&before, "start");
    assert_eq!(start.code, exit, "{start:?}");
    for line in refused.lines() {
        assert!(start.stderr.contains(words(line)), "check says {line:?}, start says {}", start.stderr);
    }
    refused
}

/// `check` warns with all of `fragments`; the signer signs, has it in its log, and shows it in its status.
#[track_caller]
fn assert_warned(home: &Home, fragments: &str) {
    let before = home.snapshot();
    let check = home.run("check");
    home.assert_untouched(&before, "check");
    assert_eq!(check.code, 1, "{check:?}");
    assert_eq!(home.run("check --before-start").code, 0, "a warning keeps nobody from starting");
    let warnings = said(&check, "warn");
    let all = warnings.join("\n");
    fragments.split('|').for_each(|fragment| assert!(all.contains(fragment), "{fragment:?} is in {all}"));

    let mut signer = home.spawn("signer", &mut home.highwater("start"));
    signer.wait_for_line("chain open");
    signer.wait_for_line("link lost");
    let log = signer.log();
    let status = wait_for("status", || {
        let status = home.run("status");
        status.stdout.contains("test-1").then_some(status.stdout)
    });
    for warning in &warnings {
        assert!(log.contains(warning), "check warns {warning:?}, the log says {log}");
        assert!(status.contains(warning), "check warns {warning:?}, the status says {status}");
    }
    // Beside a running signer nothing is said twice.
    let check = home.run("check");
    assert_eq!(said(&check, "warn"), warnings);
    assert!(signer.terminate().success());
}

#[test]
fn a_state_directory_that_is_not_there() {
    let home = ready();
    edit(&home, "\"watermark\"", "\"no/where/watermark\"");
    let said = "chain test-1: |no/where/watermark.highwater|`state_file`";
    assert_refused(&home, said, 74);
}

#[test]
fn a_state_that_is_no_file() {
    let home = ready();
    fs::remove_file(home.path("watermark.highwater")).unwrap();
    fs::create_dir(home.path("watermark.highwater")).unwrap();
    mode(&home, "watermark.highwater", 0o775);
    let said = assert_refused(&home, "watermark.highwater|`state_file`", 65);
    assert!(!said.contains("chmod 600"), "{said}");
    let home = ready();
    fs::remove_file(home.path("watermark.highwater")).unwrap();
    symlink("/dev/null", home.path("watermark.highwater")).unwrap();
    let said = assert_refused(&home, "watermark.highwater", 65);
    assert!(!said.contains("chmod"), "{said}");
}

#[test]
fn a_state_file_that_is_missing_damaged_or_of_another_program() {
    let home = Home::with_chain();
    assert_refused(&home, "chain test-1: |watermark.highwater", 65);
    home.write("watermark.highwater", "what is this");
    assert_refused(&home, "watermark.highwater", 65);
    fs::remove_file(home.path("watermark.highwater")).unwrap();
    home.write("watermark", r#"{"height":"9","round":"0","step":1,"block_id":null}"#);
    assert_refused(&home, "watermark.highwater|`highwater state import`", 65);
    home.run("state import").assert(0, "imported", "is kept as");
    fs::remove_file(home.path("watermark.highwater")).unwrap();
    assert_refused(&home, "watermark.highwater", 65);
    symlink("/nonexistent/disk/state", home.path("watermark.highwater")).unwrap();
    assert_refused(&home, "watermark.highwater", 74);
}

#[test]
fn what_every_user_can_write() {
    for (name, bits, fragments, exit) in [
        ("tmkms.toml", 0o666, "tmkms.toml|(mode 0666)|`chmod go-w ", 77),
        (".", 0o777, "(mode 0777)|`chmod go-w ", 77),
        ("watermark.highwater", 0o602, "watermark.highwater|(mode 0602)", 65),
        ("consensus.key", 0o602, "consensus.key", 65),
    ] {
        let home = ready();
        mode(&home, name, bits);
        assert_refused(&home, fragments, exit);
    }
}

#[test]
fn a_directory_that_every_user_can_write_on_the_way_to_anything() {
    for (name, what) in [("watermark", "state file"), ("consensus.key", "key")] {
        let home = ready();
        fs::create_dir_all(home.path("open/own")).unwrap();
        move_to(&home, name, "open/own");
        edit(&home, &format!("{name:?}"), &format!("\"open/own/{name}\""));
        mode(&home, "open", 0o777);
        let said = format!("chain test-1: every user can replace the {what}|open (mode 0777)");
        assert_refused(&home, &said, 65);
        // Nobody can move somebody else's directory there.
        mode(&home, "open", 0o1777);
        home.run("check").assert(0, "ok    chain test-1", "");
    }
}

#[test]
fn files_and_directories_of_other_users() {
    if !is_root() {
        return;
    }
    for (name, what, exit) in [
        ("tmkms.toml", "the configuration ", 77),
        (".", "the directory |, on the way to the configuration,", 77),
        ("watermark.highwater", "the state file ", 65),
        ("consensus.key", "the key ", 65),
    ] {
        let home = ready();
        chown(home.path(name), Some(STRANGER), None).unwrap();
        let said = format!(
            "{what}|belongs to user id 4242, but highwater runs as 0: run highwater as that user, or run `chown 0 "
        );
        assert_refused(&home, &said, exit);
    }
}

/// Only its own chain is kept from signing.
#[test]
fn what_concerns_one_chain_closes_that_one_and_the_others_sign() {
    let home = ready_with_second();
    fs::create_dir(home.path("open")).unwrap();
    move_to(&home, "second", "open");
    edit(&home, "\"second\"", "\"open/second\"");
    mode(&home, "open", 0o777);
    let check = home.run("check --before-start");
    let fails = said(&check, "fail");
    let [fail] = &fails[..] else { panic!("{check:?}") };
    assert!(fail.starts_with("chain test-2: every user can replace the state file"), "{fail}");

    let mut signer = home.spawn("signer", &mut home.highwater("start"));
    let opened = signer.wait_for_line("chain open");
    assert!(opened.contains("chain=test-1"), "{opened}");
    let closed = signer.wait_for_line("this chain signs nothing");
    assert!(closed.contains(words(fail)) && closed.contains("test-2"), "check says {fail:?}, start says {closed:?}");
    let status = home.run("status").stdout;
    assert!(status.contains(words(fail)), "{status}");
    assert!(signer.terminate().success());
}

fn hook(home: &Home, command: &str, fail_closed: bool) {
    let hook = format!("state_hook = {{ cmd = {command}, fail_closed = {fail_closed} }}\n[[validator]]");
    edit(home, "[[validator]]", &hook);
}

/// A hook that says that nothing is committed, as a file of `home`.
fn script(home: &Home, name: &str) -> String {
    let path =
        home.write(name, "#!/bin/sh\ntouch \"$(dirname \"$0\")/ran\"\necho '{\"latest_block_height\": \"0\"}'\n");
    mode(home, name, 0o700);
    path.display().to_string()
}

#[test]
fn a_hook_that_cannot_be_started() {
    let home = ready();
    let not_executable = script(&home, "hook");
    mode(&home, "hook", 0o600);
    let cases =
        [("/nonexistent/chain-height", "No such file"), ("no-such-hook", "os error"), (&not_executable, "denied")];
    for (program, why) in cases {
        let home = ready();
        hook(&home, &format!("[{program:?}]"), false);
        assert_warned(&home, &format!("going on without the state hook: cannot start the state hook {program}|{why}"));
        let home = ready();
        hook(&home, &format!("[{program:?}]"), true);
        let check = home.run("check --before-start");
        assert_eq!(check.code, 2, "{check:?}");
        let fails = said(&check, "fail");
        let [fail] = &fails[..] else { panic!("{check:?}") };
        assert!(fail.contains(&format!("cannot start the state hook {program}")) && fail.contains(why), "{fail}");
        // The chain stays closed, whether the signer waits for its hook or ends.
        let mut signer = home.spawn("signer", &mut home.highwater("start"));
        signer.wait_for_line(words(fail));
        assert!(!signer.log().contains("chain open"), "{}", signer.log());
    }
}

#[test]
fn a_hook_that_others_can_change_is_not_run() {
    let home = ready();
    let path = script(&home, "hook");
    hook(&home, &format!("[{path:?}]"), false);
    home.run("check").assert(0, "ok    chain test-1", "");
    assert!(!home.path("ran").exists(), "check starts no program");
    mode(&home, "hook", 0o777);
    assert_refused(&home, "hook|(mode 0777)|`chmod go-w ", 65);
    assert!(!home.path("ran").exists());

    // What an interpreter is given is no program for certain.
    let home = ready();
    let path = script(&home, "hook");
    hook(&home, &format!("[\"sh\", {path:?}]"), false);
    mode(&home, "hook", 0o777);
    assert_warned(&home, "hook|(mode 0777)");
    assert!(home.path("ran").exists());
}

#[test]
fn an_identity_key_that_cannot_be_relied_upon() {
    let home = ready();
    fs::create_dir(home.path("open")).unwrap();
    home.run("softsign keygen open/identity.key").assert(0, "made", "");
    let node = format!("addr = \"unix://{}\"", home.path("node.sock").display());
    edit(&home, &node, "addr = \"tcp://127.0.0.1:1\"\nsecret_key = \"open/identity.key\"");
    home.run("check --before-start").assert(0, "ok    identity key open/identity.key: peer id", "");
    mode(&home, "open", 0o777);
    assert_refused(&home, "open (mode 0777)", 77);
    mode(&home, "open", 0o700);
    mode(&home, "open/identity.key", 0o644);
    assert_refused(&home, "open/identity.key|`chmod 600 open/identity.key`", 77);
}

#[test]
fn an_audit_file_that_cannot_be_had() {
    let home = ready();
    let text = fs::read_to_string(home.path("tmkms.toml")).unwrap();
    home.write("tmkms.toml", text + "[highwater.audit]\nfile = \"no/where/audit\"\n");
    assert_refused(&home, "no/where/audit|[highwater.audit]|No such file or directory", 74);
    // Lines that were written to a key would spoil it, and no restart mends the configuration.
    edit(&home, "\"no/where/audit\"", "\"consensus.key\"");
    assert_refused(&home, "consensus.key", 73);
}

#[test]
fn a_state_below_what_the_audit_file_lists_keeps_its_chain_closed_until_it_is_raised() {
    let home = ready();
    let text = fs::read_to_string(home.path("tmkms.toml")).unwrap();
    home.write("tmkms.toml", text + "[highwater.audit]\nfile = \"audit.jsonl\"\n");
    home.run("state raise --height 5").assert(0, "raised", "");
    let older = fs::read(home.path("watermark.highwater")).unwrap();
    let mut node = PlainNode::bind(&home.path("node.sock"), CHAIN);
    let signer = home.spawn("signer", &mut home.highwater("start"));
    node.meet();
    for height in 6..=9 {
        assert_eq!(node.ask(Ballot(MessageKind::Prevote, height, 0, Some(1))), Verdict::Signed);
    }
    assert!(signer.terminate().success());
    home.run("check").assert(0, "is at 9/0/prevote", "");

    // Written into the same file, it looks like the newest; only the audit file knows better, wherever in it the line is.
    fs::write(home.path("watermark.highwater"), older).unwrap();
    let filler =
        "{\"time\":1,\"chain\":\"other\",\"node\":\"n\",\"type\":\"vote\",\"result\":\"refused\"}\n".repeat(20_000);
    let mut audit = OpenOptions::new().append(true).open(home.path("audit.jsonl")).unwrap();
    audit.write_all(filler.as_bytes()).unwrap();
    let said = "watermark.highwater is at height 5, all of it|audit.jsonl lists a signature at 9/0/prevote|\
                `highwater state raise --height H`|at least 9";
    let said = said.replace("height 5, all of it", "5/end");
    assert_refused(&home, &said, 65);
    home.run("state raise --height 9").assert(0, "raised", "");
    let mut again = home.spawn("again", &mut home.highwater("start"));
    again.wait_for_line("chain open");
    node.meet();
    assert!(matches!(node.ask(Ballot(MessageKind::Prevote, 9, 0, Some(2))), Verdict::Refused(_)));
    assert_eq!(node.ask(Ballot(MessageKind::Prevote, 10, 0, Some(2))), Verdict::Signed);
    assert!(again.terminate().success());
}

#[test]
fn warnings_of_the_configuration_and_of_chains() {
    let home = ready();
    edit(&home, "[[validator]]\n", "[[validator]]\ntimeout = 3\n");
    edit(&home, "[[validator]]", "[[chain]]\nid = \"idle-1\"\nkey_format = { type = \"hex\" }\n[[validator]]");
    assert_warned(&home, "./tmkms.toml:9: `timeout`|chain idle-1: no [[validator]] serves it");
}

#[test]
fn a_state_among_the_files_of_all_users_is_to_move() {
    let home = ready();
    fs::create_dir(home.path("common")).unwrap();
    move_to(&home, "watermark", "common");
    edit(&home, "\"watermark\"", "\"common/watermark\"");
    mode(&home, "common", 0o1777);
    assert_warned(&home, "common");
}

#[test]
fn a_group_that_may_write() {
    if !is_root() {
        return;
    }
    let home = ready();
    for (name, bits) in [("tmkms.toml", 0o660), (".", 0o770)] {
        chown(home.path(name), None, Some(STRANGER)).unwrap();
        mode(&home, name, bits);
    }
    let file = "tmkms.toml can be written by group id 4242 (mode 0660)";
    assert_warned(&home, &format!("{file}|group id 4242 can replace the configuration"));
}

/// Runs `script` where mounts are nobody else's. `$0` is highwater, and `$disk` an empty directory. `None` where a machine
/// has no namespaces for us.
fn with_mounts(home: &Home, script: &str) -> Option<String> {
    let tried = Command::new("unshare").args(["-rm", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]).output().unwrap();
    if !tried.status.success() {
        skip(&format!("no mount in a namespace of our own: {}", String::from_utf8_lossy(&tried.stderr).trim()));
        return None;
    }
    fs::create_dir_all(home.path("disk")).unwrap();
    let mut command = Command::new("timeout");
    let seconds = PATIENCE.as_secs().to_string();
    command.args([
        &seconds,
        "unshare",
        "-rm",
        "sh",
        "-c",
        &format!("disk=disk\n{script}"),
        env!("CARGO_BIN_EXE_highwater"),
    ]);
    // tmpfs keeps what a terminal would scramble: both outputs in one file, in order.
    let output = command.current_dir(home.path(".")).env_remove("TMKMS_CONFIG_FILE").output().unwrap();
    Some(format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)))
}

/// `check`, then a signer, its status and its end.
const CHECK_START_STATUS: &str = r#"
"$0" check --before-start >check.out; echo "check $?"
"$0" start >start.log 2>&1 & signer=$!
for turn in $(seq 200); do
    "$0" status >status.out 2>/dev/null; grep -q test-1 status.out && break
    kill -0 $signer 2>/dev/null || break
    sleep 0.05
done
kill $signer 2>/dev/null; wait $signer; echo "start $?"
"#;

#[track_caller]
fn assert_warned_on_disk(before: &str, fragment: &str) {
    let home = Home::with_chain();
    edit(&home, "\"watermark\"", "\"disk/watermark\"");
    let Some(said) = with_mounts(&home, &format!("{before}\n{CHECK_START_STATUS}")) else { return };
    let [check, log, status] = ["check.out", "start.log", "status.out"].map(|name| home.path(name));
    let [check, log, status] = [check, log, status].map(|path| fs::read_to_string(path).unwrap_or_default());
    assert!(said.contains("check 0\n") && said.contains("start 0\n"), "{said}{check}{log}");
    let warning = check.lines().find_map(|line| line.strip_prefix("warn  ").filter(|line| line.contains(fragment)));
    let warning = warning.unwrap_or_else(|| panic!("{fragment:?} is in {check}"));
    assert!(log.contains(warning), "check warns {warning:?}, the log says {log}");
    assert!(status.contains(warning), "check warns {warning:?}, the status says {status}");
}

#[test]
fn a_state_on_memory_is_warned_of_by_all_three() {
    let mount = "mount -t tmpfs -o mode=700 tmpfs $disk && \"$0\" state init --never-signed >init.out";
    assert_warned_on_disk(mount, "disk is on tmpfs: the state is lost at the next boot: move `state_file`");
}

#[test]
fn a_state_on_a_container_layer_is_warned_of_by_all_three() {
    let mount = "mkdir layers && mount -t tmpfs -o mode=700 tmpfs layers && mkdir layers/a layers/b layers/c && \
                 mount -t overlay -o lowerdir=layers/a,upperdir=layers/b,workdir=layers/c,userxattr overlay $disk && \
                 chmod 700 $disk && \"$0\" state init --never-signed >init.out";
    assert_warned_on_disk(mount, "disk is on overlay: the state is lost with its container: move `state_file`");
}

#[test]
fn a_full_state_disk_is_warned_of_by_all_three() {
    let fill = "mount -t tmpfs -o mode=700,size=64k tmpfs $disk && \"$0\" state init --never-signed >init.out\n\
                cat /dev/zero >$disk/rest 2>/dev/null";
    assert_warned_on_disk(fill, "cannot make a state file in disk: No space left on device (os error 28): free space");
}

#[test]
fn a_state_disk_that_cannot_be_written_is_refused_by_both() {
    let home = Home::with_chain();
    edit(&home, "\"watermark\"", "\"disk/watermark\"");
    let mount = "mount -t tmpfs -o mode=700 tmpfs $disk && \"$0\" state init --never-signed >init.out\n\
                 mount -o remount,bind,ro $disk";
    let Some(said) = with_mounts(&home, &format!("{mount}\n{CHECK_START_STATUS}")) else { return };
    let [check, log] = ["check.out", "start.log"].map(|name| fs::read_to_string(home.path(name)).unwrap());
    assert!(said.contains("check 2\n") && !said.contains("start 0\n"), "{said}");
    let fail = check.lines().find_map(|line| line.strip_prefix("fail  ")).unwrap();
    assert!(fail.contains("cannot open state file disk/watermark.highwater: Read-only file system"), "{fail}");
    assert!(log.contains(words(fail)), "check says {fail:?}, start says {log}");
    assert!(check.contains("warn  cannot make a state file in disk: Read-only file system"), "{check}");
}

/// What is done to a running signer's directories does not disturb it, and `check` sees it beside it.
#[test]
fn check_beside_a_running_signer_leaves_its_state_alone() {
    let home = ready();
    let mut signer = home.spawn("signer", &mut home.highwater("start"));
    signer.wait_for_line("chain open");
    signer.wait_for_line("link lost");
    mode(&home, "watermark.highwater", 0o622);
    let before = home.snapshot();
    let check = home.run("check");
    home.assert_untouched(&before, "check");
    assert!(said(&check, "fail").iter().any(|fail| fail.contains("can be written by other users")), "{check:?}");
    assert!(signer.log().contains(CHAIN));
    assert!(signer.terminate().success());
}

//! Which PIN is sent again, and what ends a refusal.

use super::*;
use std::os::unix::fs::PermissionsExt as _;

const RIGHT: &[u8] = b"42424242";
const WRONG: &[u8] = b"11111111";

fn token(state: PinState) -> TokenBeforeLogin {
    TokenBeforeLogin { module: "/opt/hsm.so".into(), label: "validator".into(), serial: "1".into(), state }
}

fn sent(pin: &[u8]) -> PinToSend<'_> {
    PinToSend { pin: Some(pin), source: "the file pin", is_read_again: true, proven: false, doubts: 0 }
}

fn proven(pin: &[u8]) -> PinToSend<'_> {
    PinToSend { proven: true, ..sent(pin) }
}

/// Every call is another process.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn memory(&self) -> LoginMemory {
        LoginMemory::new(Some(self.0.path().to_owned()))
    }

    fn begin(&self, state: PinState, pin: PinToSend<'_>) -> Result<(), String> {
        self.memory().begin(&token(state), pin)
    }

    fn end(&self, pin: PinToSend<'_>, outcome: &LoginOutcome) {
        self.memory().end(&token(PinState::Ok), pin, outcome);
    }

    fn file(&self) -> PathBuf {
        token(PinState::Ok).note_file(self.0.path())
    }
}

#[test]
fn a_pin_without_an_answer_counts_as_wrong_until_it_changes() {
    let place = Place::new();
    place.begin(PinState::Ok, sent(WRONG)).unwrap();
    let why = place.begin(PinState::Ok, sent(WRONG)).unwrap_err();
    for words in ["no answer came", "the file pin", "without a restart", "pkcs11-tool", "delete", "pkcs11-login-"] {
        assert!(why.contains(words), "{words} is not in {why}");
    }
    assert!(!why.contains("1111"), "{why}");
    place.begin(PinState::Ok, sent(RIGHT)).unwrap();
    place.end(sent(RIGHT), &LoginOutcome::Accepted);
    place.begin(PinState::Ok, sent(RIGHT)).unwrap();
}

#[test]
fn a_refusal_ends_when_the_file_is_deleted_or_the_count_is_reset() {
    let place = Place::new();
    place.begin(PinState::Ok, sent(WRONG)).unwrap();
    place.end(sent(WRONG), &LoginOutcome::Refused("CKR_PIN_INCORRECT".into()));
    let why = place.begin(PinState::Ok, sent(WRONG)).unwrap_err();
    assert!(why.contains("refused the PIN in the file pin on 2") && why.contains("CKR_PIN_INCORRECT"), "{why}");
    fs::remove_file(place.file()).unwrap();
    place.begin(PinState::Ok, sent(WRONG)).unwrap();
    place.end(sent(WRONG), &LoginOutcome::Refused("CKR_PIN_INCORRECT".into()));

    let why = place.begin(PinState::Low, sent(WRONG)).unwrap_err();
    assert!(why.contains("resets the count"), "{why}");
    place.begin(PinState::Ok, sent(WRONG)).unwrap();
}

#[test]
fn only_a_pin_that_was_right_outranks_unclear_answers() {
    let unclear = LoginOutcome::Unclear("CK_RV 0x80000384".into());
    let place = Place::new();
    place.begin(PinState::Ok, sent(RIGHT)).unwrap();
    place.end(sent(RIGHT), &unclear);
    let why = place.begin(PinState::Ok, sent(RIGHT)).unwrap_err();
    assert!(why.contains("0x80000384") && why.contains("can mean a wrong PIN"), "{why}");

    let place = Place::new();
    place.begin(PinState::Ok, sent(RIGHT)).unwrap();
    place.end(sent(RIGHT), &LoginOutcome::Accepted);
    for _ in 0..20 {
        place.begin(PinState::Ok, proven(RIGHT)).unwrap();
        place.end(proven(RIGHT), &unclear);
    }
    // A restart later it may have been changed on the token.
    for _ in 0..2 {
        place.begin(PinState::Ok, sent(RIGHT)).unwrap();
        place.end(sent(RIGHT), &unclear);
    }
    place.begin(PinState::Ok, sent(RIGHT)).unwrap_err();
}

#[test]
fn trouble_with_the_device_says_nothing_about_the_pin() {
    let place = Place::new();
    for _ in 0..5 {
        place.begin(PinState::Ok, sent(RIGHT)).unwrap();
        place.end(sent(RIGHT), &LoginOutcome::Trouble);
    }
}

#[test]
fn a_low_count_keeps_every_pin_back_that_was_not_right_just_before() {
    let place = Place::new();
    for state in [PinState::Low, PinState::FinalTry, PinState::Locked] {
        let why = place.begin(state, sent(RIGHT)).unwrap_err();
        assert!(why.contains("without a restart"), "{why}");
        assert_eq!(why.contains("pkcs11-tool --module /opt/hsm.so"), state != PinState::Locked, "{why}");
    }
    place.begin(PinState::Low, proven(RIGHT)).unwrap();
    // A PIN that was right until now is noted once it is refused.
    place.begin(PinState::Ok, sent(RIGHT)).unwrap();
    place.end(proven(RIGHT), &LoginOutcome::Refused("CKR_PIN_INCORRECT".into()));
    place.begin(PinState::Ok, sent(RIGHT)).unwrap_err();
    // The last try is never the signer's.
    place.begin(PinState::FinalTry, proven(RIGHT)).unwrap_err();
}

#[test]
fn the_note_is_private_and_shows_no_pin() {
    let place = Place::new();
    place.begin(PinState::Ok, sent(RIGHT)).unwrap();
    assert_eq!(fs::metadata(place.file()).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!fs::read_to_string(place.file()).unwrap().contains("4242"));
}

#[test]
fn without_a_directory_or_with_a_damaged_note_the_process_itself_remembers() {
    let mut memory = LoginMemory::new(None);
    memory.begin(&token(PinState::Ok), sent(WRONG)).unwrap();
    memory.begin(&token(PinState::Ok), sent(WRONG)).unwrap_err();
    let place = Place::new();
    fs::write(place.file(), "{").unwrap();
    place.begin(PinState::Ok, sent(WRONG)).unwrap();
    place.begin(PinState::Ok, sent(WRONG)).unwrap_err();
}

#[test]
fn a_keypad_gets_no_note() {
    let place = Place::new();
    let keypad = PinToSend { pin: None, ..sent(RIGHT) };
    place.begin(PinState::Ok, keypad).unwrap();
    place.end(keypad, &LoginOutcome::Refused("CKR_PIN_INCORRECT".into()));
    assert!(!place.file().exists());
}

#[test]
fn two_wrong_pins_cannot_take_turns_without_limit() {
    let place = Place::new();
    for pin in [WRONG, RIGHT] {
        place.begin(PinState::Ok, sent(pin)).unwrap();
        place.end(sent(pin), &LoginOutcome::Refused("CKR_PIN_INCORRECT".into()));
    }
    for pin in [WRONG, RIGHT, WRONG] {
        place.begin(PinState::Ok, sent(pin)).unwrap_err();
    }
}

#[test]
fn the_answer_is_noted_for_the_pin_that_was_sent() {
    let place = Place::new();
    place.begin(PinState::Ok, sent(RIGHT)).unwrap();
    place.end(sent(RIGHT), &LoginOutcome::Accepted);
    // Proven in this process, while a command has sent another one.
    place.begin(PinState::Ok, sent(WRONG)).unwrap();
    place.end(proven(RIGHT), &LoginOutcome::Refused("CKR_PIN_INCORRECT".into()));
    place.end(sent(WRONG), &LoginOutcome::Accepted);
    place.begin(PinState::Ok, sent(RIGHT)).unwrap_err();
    place.begin(PinState::Ok, sent(WRONG)).unwrap();
}

#[test]
fn a_proven_pin_that_got_no_clear_answer_twice_waits_for_the_operator() {
    let place = Place::new();
    place.begin(PinState::Ok, sent(RIGHT)).unwrap();
    place.end(sent(RIGHT), &LoginOutcome::Accepted);
    place.begin(PinState::Ok, PinToSend { doubts: 2, ..sent(RIGHT) }).unwrap_err();
    let why = place.begin(PinState::Ok, sent(RIGHT)).unwrap_err();
    assert!(why.contains("delete"), "{why}");
}

#[test]
fn a_pin_that_cannot_be_noted_is_sent_only_if_it_was_right_before() {
    let why = LoginMemory::new(Some("/nowhere/at/all".into())).begin(&token(PinState::Ok), sent(WRONG)).unwrap_err();
    assert!(why.contains("cannot be written") && why.contains("/nowhere/at/all"), "{why}");

    let place = Place::new();
    place.begin(PinState::Ok, sent(RIGHT)).unwrap();
    place.end(sent(RIGHT), &LoginOutcome::Accepted);
    // Nobody, not even root, can replace this by a file.
    let aside = place.file().with_extension("new");
    fs::create_dir(&aside).unwrap();
    let mut memory = place.memory();
    memory.begin(&token(PinState::Ok), sent(RIGHT)).unwrap();
    memory.end(&token(PinState::Ok), sent(RIGHT), &LoginOutcome::Refused("CKR_PIN_INCORRECT".into()));
    memory.begin(&token(PinState::Ok), sent(RIGHT)).unwrap_err();
    // Once there is room, the file is written, and whoever deletes it is heard.
    fs::remove_dir(&aside).unwrap();
    memory.begin(&token(PinState::Ok), sent(RIGHT)).unwrap_err();
    fs::remove_file(place.file()).unwrap();
    memory.begin(&token(PinState::Ok), sent(RIGHT)).unwrap();
}

#[test]
fn a_note_is_never_read_or_written_through_a_link_and_a_pipe_does_not_hang() {
    let place = Place::new();
    let theirs = place.0.path().join("theirs");
    fs::write(&theirs, "theirs").unwrap();
    for aside in [place.file(), place.file().with_extension("new")] {
        std::os::unix::fs::symlink(&theirs, &aside).unwrap();
        place.begin(PinState::Ok, sent(RIGHT)).unwrap();
        assert_eq!(fs::read_to_string(&theirs).unwrap(), "theirs");
        assert!(fs::symlink_metadata(place.file()).unwrap().is_file());
        fs::remove_file(place.file()).unwrap();
    }
    let made = std::process::Command::new("mkfifo").arg(place.file()).status().unwrap();
    assert!(made.success());
    place.begin(PinState::Ok, sent(RIGHT)).unwrap();
}

#[test]
fn a_note_that_cannot_be_read_keeps_the_pin_back() {
    let why = unreadable(Path::new("/"), &io::ErrorKind::PermissionDenied.into());
    assert!(why.contains("Run this command as the user with the id 0"), "{why}");
    let file = tempfile::NamedTempFile::new().unwrap();
    // A directory that is a file: neither missing nor damaged.
    let mut memory = LoginMemory::new(Some(file.path().to_owned()));
    let why = memory.begin(&token(PinState::Ok), sent(RIGHT)).unwrap_err();
    assert!(why.contains("cannot be read"), "{why}");
}

#[test]
fn the_command_is_safe_to_paste() {
    let odd =
        TokenBeforeLogin { module: "/opt/my hsm;x.so".into(), label: "it's $(reboot)".into(), ..token(PinState::Ok) };
    let command = odd.command();
    assert!(command.contains("--module '/opt/my hsm;x.so' --token-label 'it'\\''s $(reboot)' "), "{command}");
    assert!(token(PinState::Ok).command().contains("--module /opt/hsm.so --token-label 'validator' "));
}

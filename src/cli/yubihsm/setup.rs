//! `highwater yubihsm setup`: a device wiped and set up from 24 words.

use super::{
    keys::refuse_existing,
    secrets::{self, Sink, Terminal},
    target::{DeviceTarget, DeviceTargetArgs, device_error, usage},
};
use crate::{
    cli::{CliError, Exit, output},
    keyring::device::Trouble,
    provision::yubihsm::{
        setup::{self, Setup as SetupRun},
        words::{Role, WORDS, WRAP_KEY, Words},
    },
    record::utc,
};
use clap::Args;
use highwater_core::disk;
use rand_core::{OsRng, RngCore as _};
use serde_json::json;
use std::{
    env, fs,
    io::Write as _,
    path::{Path, PathBuf},
};
use zeroize::Zeroizing;

#[derive(Args, Debug)]
pub(in crate::cli) struct Setup {
    #[command(flatten)]
    target: DeviceTargetArgs,
    /// Show what is derived, and leave the device as it is
    #[arg(short, long)]
    print_only: bool,
    /// Use the words of an earlier setup, of Highwater or of tmkms
    #[arg(short, long)]
    restore: bool,
    /// Read those words from this file descriptor [default: ask on the terminal]
    #[arg(long, value_name = "N", requires = "restore", value_parser = clap::value_parser!(i32).range(0..))]
    phrase_fd: Option<i32>,
    /// Show words, passwords and wrap key on this file descriptor [default: the terminal]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..))]
    secrets_fd: Option<i32>,
    /// Do not ask before wiping the device with this serial number
    #[arg(long, value_name = "SERIAL")]
    yes_wipe: Option<String>,
    /// Write a report of the setup to this new file
    #[arg(short, long, value_name = "FILE", conflicts_with = "print_only")]
    write_report: Option<PathBuf>,
}

impl Setup {
    pub(super) fn run(self) -> Result<(), CliError> {
        // Whatever is missing is found before the device is touched.
        let mut sink = Sink::open(self.secrets_fd)?;
        let mut terminal = match self.print_only || self.yes_wipe.is_some() {
            true => None,
            false => Some(Terminal::open("name the device that may be wiped with --yes-wipe SERIAL")?),
        };
        self.write_report.as_deref().map_or(Ok(()), refuse_existing)?;
        let restored = if self.restore { Some(self.read_words()?) } else { None };
        if let Some(words) = restored.as_ref().filter(|_| self.print_only) {
            sink.show(&shown(words, None))?;
            return self.print_done(None);
        }
        let target = self.target.resolve()?;
        let mut login = target.login();
        let failed = |trouble| device_error(&target.provider, &trouble);
        let session = setup::prepare(&mut login).map_err(failed)?;
        let serial = session.serial_number().map_err(failed)?;
        if !self.print_only {
            setup::may_wipe(&session).map_err(failed)?;
            self.refuse_other(&serial)?;
        }
        let words = match restored {
            Some(words) => words,
            None => {
                let of_device = setup::random(&session).map_err(failed)?;
                let mut of_system = Zeroizing::new([0; 32]);
                let random = OsRng.try_fill_bytes(&mut of_system[..]);
                random
                    .map_err(|error| CliError::new(Exit::Io, format!("the system gives no random numbers: {error}")))?;
                Words::generate(&of_device, &of_system)
            }
        };
        drop(session);
        sink.show(&shown(&words, Some(&serial)))?;
        if self.print_only {
            return self.print_done(Some(&serial));
        }
        if let Some(terminal) = &mut terminal {
            ask(terminal, &target, &serial)?;
        }
        let report = report(&serial);
        let run = SetupRun { words: &words, time: utc::now(), report: report.clone() };
        run.run(&mut login, output::note).map_err(|error| {
            let exit = if matches!(error.trouble, Trouble::WrongPassword(_)) { Exit::NoPermission } else { Exit::Io };
            CliError::new(exit, format!("{}: {error}", target.provider))
        })?;
        self.print_done(Some(&serial))?;
        self.write_report.as_deref().map_or(Ok(()), |path| {
            write_report(path, &report).map_err(|error| {
                let text =
                    format!("{}. The device is set up, and keeps the report as opaque object 0xfffe", error.message);
                CliError::new(error.exit, text)
            })
        })
    }

    fn read_words(&self) -> Result<Words, CliError> {
        let text = match self.phrase_fd {
            Some(number) => secrets::read_line(number)?,
            None => {
                let mut terminal = Terminal::open("name a file descriptor that has the words with --phrase-fd")?;
                terminal.ask_hidden(&format!("The {WORDS} words, with spaces between them (nothing shows): "))?
            }
        };
        Words::parse(&text)
            .map_err(|error| CliError::new(Exit::Data, format!("these are no words of a setup: {error}")))
    }

    fn refuse_other(&self, serial: &str) -> Result<(), CliError> {
        match &self.yes_wipe {
            Some(named) if named != serial => {
                Err(usage(format!("nothing was changed: the device is {serial}, and --yes-wipe names {named}")))
            }
            _ => Ok(()),
        }
    }

    /// Without any secret.
    fn print_done(&self, serial: Option<&str>) -> Result<(), CliError> {
        if self.target.json() {
            let ids = Role::ALL.iter().map(|role| (role.name().to_owned(), json!(role.key_id())));
            let value = json!({
                "schema": 1,
                "done": if self.print_only { "derived" } else { "set up" },
                "serial": serial,
                "authentication_keys": ids.collect::<serde_json::Map<_, _>>(),
                "wrap_key": WRAP_KEY,
            });
            return output::print(&value.to_string());
        }
        if self.print_only {
            return output::print("nothing was changed");
        }
        output::print(&format!(
            "YubiHSM {} is wiped and set up\n\nauthentication keys  1 admin, 2 operator, 3 auditor, 4 validator\n\
             wrap key             0x{WRAP_KEY:04x}\nforce-audit          off\n\nPut the validator's password into a file of \
             mode 0600, and into the configuration:\n\nauth = {{ key = 4, password_file = \"FILE\" }}",
            serial.unwrap_or_default()
        ))
    }
}

/// Has the operator type the serial number.
fn ask(terminal: &mut Terminal, target: &DeviceTarget, serial: &str) -> Result<(), CliError> {
    let question = format!(
        "\nThe {} is wiped now: every key in it is gone for good, unless there is a backup.\nTo wipe it, type its serial \
         number, {serial}, and press Enter: ",
        target.provider
    );
    match terminal.ask(&question)?.trim() == serial {
        true => Ok(()),
        false => Err(usage("nothing was changed: that was not its serial number. Forget the words that were shown")),
    }
}

/// All that is secret, for the eyes of an operator.
fn shown(words: &Words, serial: Option<&str>) -> Zeroizing<String> {
    let of = serial.map_or(String::new(), |serial| format!(" of YubiHSM {serial}"));
    // Never grows: a buffer that grows leaves copies behind.
    let mut text = Zeroizing::new(String::with_capacity(2048));
    text.push_str(&format!("The {WORDS} words{of}, its administrator's password (authentication key 1):\n\n"));
    for (place, word) in words.text().split(' ').enumerate() {
        text.push_str(if place % (WORDS / 2) == 0 { "    " } else { " " });
        text.push_str(word);
        if place % (WORDS / 2) == WORDS / 2 - 1 {
            text.push('\n');
        }
    }
    text.push_str("\nand what is derived from them:\n\n");
    for role in [Role::Operator, Role::Auditor, Role::Validator] {
        text.push_str(&format!("    {:10} authentication key {}  ", role.name(), role.key_id()));
        text.push_str(&words.password(role));
        text.push('\n');
    }
    text.push_str(&format!("    {:10} 0x{WRAP_KEY:04x}                ", "wrap key"));
    text.push_str(&words.wrap_key_hex());
    text.push_str(
        "\n\nWrite the words down on paper, twice, and keep them apart: they are not shown again, and whoever has \
                   them has every key.\n",
    );
    text
}

/// What the device keeps about its setup, by the field names of tmkms's report.
fn report(serial: &str) -> String {
    json!({
        "version": 1,
        "device_serial_number": serial,
        "hostname": fs::read_to_string("/proc/sys/kernel/hostname").ok().map(|name| name.trim_end().to_owned()),
        "username": env::var("LOGNAME").ok(),
        "date": utc::now(),
        "software": concat!("highwater ", env!("CARGO_PKG_VERSION")),
    })
    .to_string()
}

fn write_report(path: &Path, report: &str) -> Result<(), CliError> {
    let written = disk::create_private(path)
        .and_then(|mut file| file.write_all(report.as_bytes()).and_then(|()| file.sync_all()))
        .and_then(|()| disk::sync_parent(path));
    written.map_err(|error| CliError::io(&format!("cannot write {}", path.display()), &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_has_everything_and_was_never_moved() {
        let words = Words::generate(&[1; 32], &[2; 32]);
        let text = shown(&words, Some("0123456789"));
        assert_eq!(text.capacity(), 2048, "it did not grow");
        let flat = text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(flat.contains(words.text()) && flat.contains("YubiHSM 0123456789"));
        for role in [Role::Operator, Role::Auditor, Role::Validator] {
            assert!(flat.contains(words.password(role).as_str()));
        }
        assert!(flat.contains(words.wrap_key_hex().as_str()));
    }
}

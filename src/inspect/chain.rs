//! Inspects a chain: its key, its state and its state hook.

use super::{Look, Severity, Subject, Topic, accessible, directory_of};
use crate::{
    config::{ChainConfig, FileKind, HookConfig, KeyConfig, KeyRole},
    keyring, passing,
    process::hook::HookError,
    state::{self, Rival, StateError, Theirs},
};
use highwater_core::{
    consensus::PublicKey,
    watermark::{FileError, FileId, HostId, Identity, Record},
};
use rustix::{fs::Access, io::Errno};
use std::{
    env, fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

impl Look<'_> {
    pub(super) fn at_chain(&mut self, chain: &ChainConfig, host: Option<HostId>) {
        let subject = Subject::Chain(chain.id.clone());
        if !self.config.validators.iter().any(|validator| validator.chain_id == chain.id) {
            return self.findings.push(Severity::Warn, (&subject, Topic::Config), "no [[validator]] serves it", "");
        }
        let key = self.config.consensus_key(&chain.id).expect("the configuration gives every served chain a key");
        let public_key = self.at_key(&subject, chain, key);
        self.at_state(&subject, chain, public_key, host);
        if let Some(hook) = &chain.state_hook {
            self.at_hook(&subject, hook);
        }
    }

    /// The public key, as far as it is known without asking a device: `None` if only its YubiHSM has it, an error if the
    /// key is unusable.
    fn at_key(&mut self, subject: &Subject, chain: &ChainConfig, key: KeyConfig<'_>) -> Result<Option<PublicKey>, ()> {
        let about = (subject, Topic::Key);
        let known = keyring::known_public_key(chain, key, state::key_in_state_file);
        match &known {
            Ok(Some(public_key)) => {
                let shown = keyring::format::show(&chain.key_format, public_key);
                let what = format!("key {shown}, validator address {}", public_key.address_hex());
                self.findings.push(Severity::Ok, about, what, "");
            }
            Ok(None) => {}
            Err(error) => self.findings.fail(about, error.to_string(), "", passing::key(error)),
        }
        if known.is_ok() && key.role() == KeyRole::Account {
            let what = "has no consensus key, so its account key signs blocks";
            self.findings.push(Severity::Warn, about, what, "");
        }
        // A YubiHSM's key may be on several devices.
        let alike = |other: &KeyConfig<'_>| other.role() == key.role() && other.chain_ids().contains(&chain.id);
        for key in self.config.keys().filter(alike) {
            for file in key.provider.needs().files {
                self.guard(about, &file.path, file.what, file.kind);
            }
        }
        known.map_err(drop)
    }

    fn at_state(
        &mut self,
        subject: &Subject,
        chain: &ChainConfig,
        public_key: Result<Option<PublicKey>, ()>,
        host: Option<HostId>,
    ) {
        let about = (subject, Topic::State);
        let path = chain.watermark();
        let theirs = Theirs::new(&chain.state_file);
        let shown = path.display();
        let directory = directory_of(&path);
        if !directory.is_dir() && !path.is_symlink() {
            let what = format!("there is no directory {} for the state file {shown}", directory.display());
            // It may be on a disk that is not mounted yet.
            return self.findings.fail(about, what, "correct `state_file`, or make the directory", true);
        }
        self.guard(about, &path, "state file", FileKind::Secret);
        let (record, file) = match newest(&path, &theirs) {
            Ok(newest) => newest,
            Err(error) => {
                return self.findings.fail(about, error.to_string(), "", passing::state(&error));
            }
        };
        let fails = match (public_key, host) {
            // Already reported.
            (Err(()), _) | (_, None) => return,
            (Ok(Some(key)), Some(host)) => {
                let identity = Identity { chain: chain.id.clone(), key };
                record.check(&identity, host, &file).err().map(|error| error.to_string())
            }
            // Needs no device: a file of another chain or with another type of key cannot be the right one.
            (Ok(None), _) => Some(format!(
                "belongs to chain {} and key {}: name the right `state_file`",
                record.header.identity().chain,
                record.header.identity().key
            )),
        };
        if let Some(error) = self.below_evidence(&path, &record) {
            return self.findings.push(Severity::Fail, about, error.to_string(), "");
        }
        match fails {
            Some(why) => self.findings.push(Severity::Fail, about, format!("state file {shown} {why}"), ""),
            None => {
                let what = format!("state file {shown} is at {}", record.mark.hrs);
                self.findings.push(Severity::Ok, about, what, "");
            }
        }
        for rival in theirs.still_written(record.header.identity(), &path, &record.mark) {
            match rival {
                Rival::Above(error) => self.findings.push(Severity::Fail, about, error.to_string(), ""),
                Rival::Below(what) => self.findings.push(Severity::Warn, about, what, ""),
            }
        }
    }

    /// The error if our own audit file lists a signature above the mark: then an older state was put back.
    fn below_evidence(&self, path: &Path, record: &Record) -> Option<StateError> {
        broken!("audit_unheeded" => return None);
        let (audit, evidence) = self.evidence.as_ref()?;
        let identity = record.header.identity();
        let signed = evidence.of(&identity.chain, &identity.key).filter(|signed| *signed > record.mark.hrs)?;
        let (path, audit) = (path.to_owned(), audit.clone());
        Some(StateError::BelowAudit { path, last: record.mark.hrs, audit, signed })
    }

    fn at_hook(&mut self, subject: &Subject, hook: &HookConfig) {
        let (program, arguments) = hook.command.split_first().expect("the configuration requires a program");
        match find_program(program) {
            Ok(path) => self.guard((subject, Topic::Hook), &path, "state hook", FileKind::Program),
            Err(error) => {
                let error = HookError::Spawn { program: program.clone(), error };
                let about = (subject, Topic::HookProgram);
                if hook.fail_closed {
                    self.findings.push(Severity::Fail, about, error.to_string(), "");
                } else {
                    let what = format!("going on without the state hook: {error}");
                    self.findings.push(Severity::Warn, about, what, "");
                }
            }
        }
        // The script of an interpreter, or any other file: what the program does with it is not known here.
        for argument in arguments.iter().map(Path::new).filter(|argument| argument.is_file()) {
            for flaw in self.guards.flaws(subject, argument, "argument of the state hook", FileKind::Program) {
                self.findings.push(Severity::Warn, (subject, Topic::Hook), flaw.what, &flaw.remedy);
            }
        }
    }
}

/// The newest record and its file, or the error that `start` would report. Takes nothing over: the state of another program
/// is for `highwater state import`.
fn newest(path: &Path, theirs: &Theirs) -> Result<(Record, FileId), StateError> {
    usable(path).map_err(|error| theirs.explain_missing(error))?;
    state::look(path)
}

/// Checks what `start` requires of a state file, with the same errors. Does not open the file, so that a signer that uses it
/// does not notice.
fn usable(path: &Path) -> Result<(), FileError> {
    let file = || path.to_owned();
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound && path.is_symlink() => {
            return Err(FileError::DeadLink { path: file() });
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(FileError::Missing { path: file() }),
        Err(error) => return Err(FileError::Io { path: file(), action: "open", error }),
    };
    if !metadata.is_file() {
        return Err(FileError::NotAFile { path: file() });
    }
    if metadata.mode() & 0o022 != 0 {
        return Err(FileError::Writable { path: file(), mode: metadata.mode() & 0o777 });
    }
    accessible(path, Access::READ_OK | Access::WRITE_OK).map_err(|error| FileError::Io {
        path: file(),
        action: "open",
        error,
    })
}

/// Finds the program of a command as the system does, or returns the error that the system would give.
fn find_program(name: &str) -> io::Result<PathBuf> {
    if name.contains('/') {
        return executable(Path::new(name)).map(|()| name.into());
    }
    let path = env::var_os("PATH").unwrap_or_else(|| "/bin:/usr/bin".into());
    let mut missed = Errno::NOENT;
    for candidate in env::split_paths(&path).map(|directory| directory.join(name)) {
        match executable(&candidate) {
            Ok(()) => return Ok(candidate),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => missed = Errno::ACCESS,
            Err(_) => {}
        }
    }
    Err(missed.into())
}

fn executable(path: &Path) -> io::Result<()> {
    if fs::metadata(path)?.is_file() { accessible(path, Access::EXEC_OK) } else { Err(Errno::ACCESS.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs::Permissions, os::unix::fs::PermissionsExt as _, process::Command};

    #[test]
    fn a_program_is_found_or_missed_as_the_system_does_it() {
        assert!(find_program("sh").unwrap().is_absolute());
        let directory = tempfile::tempdir().unwrap();
        let plain = directory.path().join("plain");
        fs::write(&plain, "#!/bin/sh\n").unwrap();
        fs::set_permissions(&plain, Permissions::from_mode(0o600)).unwrap();
        for name in ["/nonexistent/program", "no-such-program", plain.to_str().unwrap(), "/tmp", "/dev/null"] {
            let ours = find_program(name).unwrap_err().to_string();
            let systems = Command::new(name).spawn().unwrap_err().to_string();
            assert_eq!(ours, systems, "{name}");
        }
    }
}

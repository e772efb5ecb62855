//! Inspects configuration, permissions, state and machine before anything is opened. `check` prints the findings, and
//! `start` acts on them: it refuses each failure with the same text, for one chain or for all, and shows each warning in its
//! log and its status.
//!
//! | file | what it inspects |
//! | --- | --- |
//! | `chain` | a chain: its key, its state, its state hook |
//! | `disk` | the directories of the state files, and the clock |
//! | `trust` | who could replace a file |
//! | `unit` | whether the systemd unit lets the signer reach its devices |
//!
//! Opens no device, asks for no PIN, starts no program, and leaves no file behind. Only `check` measures devices and flushes:
//! a running signer measures them all the time.

mod chain;
mod disk;
mod trust;
mod unit;

pub use trust::refuse_module;

use crate::{
    config::{self, Config, FileKind, KeyRole},
    keyring::{self, IdentityKey},
    record::{
        evidence::{self, Evidence},
        keeper,
    },
    state,
};
use highwater_core::{consensus::ChainId, privval::Refusal, watermark::HostId};
use rustix::fs::{Access, AtFlags, CWD, accessat};
use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
};
use trust::{Guards, Us};

/// How serious a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Severity {
    /// Everything is as it should be.
    Ok,
    /// Worth knowing; the signer signs.
    Warn,
    /// Keeps the signer, or one of its chains, from signing.
    Fail,
}

/// What a finding affects.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Subject {
    /// One chain. If it fails, that chain stays closed and the others sign.
    Chain(ChainId),
    /// The nodes that are dialled with the identity key in this file.
    Identity(PathBuf),
    /// The whole program.
    Signer,
}

/// What a finding is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topic {
    /// The audit file.
    Audit,
    /// The configuration file.
    Config,
    /// Who could replace the program of a state hook.
    Hook,
    /// A state hook that cannot be started now. `start` finds out itself whenever it runs the hook, with the same text.
    HookProgram,
    /// An identity key.
    Identity,
    /// A consensus key, or what leads to it.
    Key,
    /// The machine: its disks, its clock, its identity.
    Machine,
    /// A state file.
    State,
}

/// The result of one check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) severity: Severity,
    pub(crate) subject: Subject,
    pub(crate) topic: Topic,
    pub(crate) what: String,
    /// What to do about it. Empty if there is nothing to do, or if `what` is an error that says it.
    pub(crate) remedy: String,
    /// Whether it may pass without anyone doing anything.
    pub(crate) passes: bool,
}

impl Finding {
    /// What was found and what to do, without the subject.
    pub(crate) fn text(&self) -> String {
        match self.remedy.as_str() {
            "" => self.what.clone(),
            remedy => format!("{}: {remedy}", self.what),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Subject::Chain(chain) = &self.subject {
            write!(f, "chain {chain}: ")?;
        }
        f.write_str(&self.text())
    }
}

/// All findings, in the order of the checks.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    all: Vec<Finding>,
    /// What the audit file lists as signed.
    evidence: Option<Evidence>,
}

impl Findings {
    /// What the audit file lists as signed, if there is one, so that opening it need not read it all again.
    pub(crate) fn take_evidence(&mut self) -> Option<Evidence> {
        self.evidence.take()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Finding> {
        self.all.iter()
    }

    /// Each warning, as one line.
    pub(crate) fn warnings(&self) -> impl Iterator<Item = String> {
        self.all.iter().filter(|finding| finding.severity == Severity::Warn).map(ToString::to_string)
    }

    /// What keeps the whole signer from starting: the topic of the first failure, and all failures, one line each. Leaves
    /// out the audit file: `start` opens it anyway, and fails with the same text.
    pub(crate) fn refusal(&self) -> Option<(Topic, String)> {
        let failed: Vec<_> = self.failed(&Subject::Signer).filter(|found| found.topic != Topic::Audit).collect();
        let first = failed.first()?.topic;
        let all: Vec<_> = failed.into_iter().map(Finding::text).collect();
        Some((first, all.join("\n")))
    }

    /// What keeps that chain from being opened, and whether all of it may pass.
    pub(crate) fn closed(&self, chain: &ChainId) -> Option<(Refusal, bool)> {
        let subject = Subject::Chain(chain.clone());
        let failed: Vec<_> = self.failed(&subject).filter(|found| found.topic != Topic::HookProgram).collect();
        let key = failed.first()?.topic == Topic::Key;
        let passes = failed.iter().all(|found| found.passes);
        let all = failed.into_iter().map(Finding::text).collect::<Vec<_>>().join("; ");
        Some((if key { Refusal::KeyUnavailable(all) } else { Refusal::StateUnusable(all) }, passes))
    }

    /// What keeps nodes from being dialled with that identity key.
    pub(crate) fn unfit_identity(&self, path: &Path) -> Option<String> {
        self.failed(&Subject::Identity(path.into())).next().map(Finding::text)
    }

    fn failed(&self, subject: &Subject) -> impl Iterator<Item = &Finding> {
        self.all.iter().filter(move |found| found.severity == Severity::Fail && found.subject == *subject)
    }

    fn push(&mut self, severity: Severity, about: (&Subject, Topic), what: impl Into<String>, remedy: &str) {
        let (subject, topic) = (about.0.clone(), about.1);
        let finding = Finding { severity, subject, topic, what: what.into(), remedy: remedy.into(), passes: false };
        if !self.all.contains(&finding) {
            self.all.push(finding);
        }
    }

    /// Adds a failure, which may pass by itself or not.
    fn fail(&mut self, about: (&Subject, Topic), what: impl Into<String>, remedy: &str, passes: bool) {
        let (subject, topic) = (about.0.clone(), about.1);
        let severity = Severity::Fail;
        self.all.push(Finding { severity, subject, topic, what: what.into(), remedy: remedy.into(), passes });
    }
}

/// Inspects everything. `warnings` are those of the configuration.
pub fn look(config: &Config, warnings: &[config::ConfigFinding]) -> Findings {
    inspect(config, warnings, |look| look.at_audit())
}

/// Inspects everything but the audit file, which can be so large that it takes minutes.
pub(crate) fn look_without_audit(config: &Config, warnings: &[config::ConfigFinding]) -> Findings {
    inspect(config, warnings, |_| {})
}

fn inspect(config: &Config, warnings: &[config::ConfigFinding], at_audit: fn(&mut Look<'_>)) -> Findings {
    let (guards, findings) = (Guards::new(Us::now()), Findings::default());
    let mut look = Look { config, guards, evidence: None, findings };
    look.at_config(warnings);
    at_audit(&mut look);
    let host = look.at_host();
    for chain in &config.chains {
        look.at_chain(chain, host);
    }
    look.at_identities();
    look.at_disks();
    look.at_clock();
    look.at_unit();
    look.findings.evidence = look.evidence.map(|(_, evidence)| evidence);
    look.findings
}

/// An inspection in progress.
struct Look<'a> {
    config: &'a Config,
    guards: Guards,
    /// What the audit file lists as signed, and which file that is.
    evidence: Option<(PathBuf, Evidence)>,
    findings: Findings,
}

impl Look<'_> {
    fn at_config(&mut self, warnings: &[config::ConfigFinding]) {
        let about = (&Subject::Signer, Topic::Config);
        let path = &self.config.path;
        self.findings.push(Severity::Ok, about, format!("{} is a valid configuration", path.display()), "");
        for warning in warnings {
            self.findings.push(Severity::Warn, about, warning.at(path), "");
        }
        self.guard(about, path, "configuration", FileKind::Program);
        let socket = self.config.control_socket();
        if socket.as_os_str().len() > config::SOCKET_PATH_MAX_BYTES {
            let what = format!(
                "`highwater status` will not work: the path of the control socket {} has more than {} bytes",
                socket.display(),
                config::SOCKET_PATH_MAX_BYTES
            );
            self.findings.push(
                Severity::Warn,
                about,
                what,
                "move the configuration to a directory with a shorter path",
            );
        }
    }

    /// An audit must begin with the first decision, so `start` fails if the file cannot be opened.
    fn at_audit(&mut self) {
        let Some(path) = self.config.highwater.audit.as_deref() else { return };
        let about = (&Subject::Signer, Topic::Audit);
        if let Err(error) = appendable(path).and_then(|()| keeper::refuse_foreign(path)) {
            let what = format!("cannot open {}, the `file` of [highwater.audit]: {error}", path.display());
            return self.findings.push(Severity::Fail, about, what, "");
        }
        match evidence::highest_signed(path) {
            Ok(evidence) => {
                for part in evidence.unread() {
                    let what = format!("cannot check the signatures in {}, because it is compressed", part.display());
                    let remedy = "decompress it, and rotate it without compression";
                    self.findings.push(Severity::Warn, about, what, remedy);
                }
                self.evidence = Some((path.to_owned(), evidence));
            }
            // Without it nobody can rule out that an older state was put back.
            Err(error) => {
                let what = format!("cannot read the signatures in the audit file {}: {error}", path.display());
                return self.findings.fail((&Subject::Signer, Topic::Machine), what, "", true);
            }
        }
        // A forged line can only keep a chain closed.
        for flaw in self.guards.flaws(about.0, path, "audit file", FileKind::Program) {
            self.findings.push(Severity::Warn, about, flaw.what, &flaw.remedy);
        }
    }

    fn at_host(&mut self) -> Option<HostId> {
        let about = (&Subject::Signer, Topic::Machine);
        HostId::of_this_machine().map_err(|error| self.findings.push(Severity::Fail, about, error.to_string(), "")).ok()
    }

    fn at_identities(&mut self) {
        if let Some((first, second)) = keyring::secret_with_two_roles(self.config) {
            let what = format!(
                "{} holds the same secret as {}, one as {} key and one as {} key",
                second.path.display(),
                first.path.display(),
                second.key.role,
                first.key.role
            );
            let remedy = "make a new key for one of the two with `highwater softsign keygen`";
            self.findings.push(Severity::Fail, (&Subject::Signer, Topic::Key), what, remedy);
        }
        let mut seen: Vec<&Path> = Vec::new();
        for validator in &self.config.validators {
            let Some(identity_key) = validator.address.identity_key() else { continue };
            if seen.contains(&identity_key) {
                continue;
            }
            seen.push(identity_key);
            let subject = Subject::Identity(identity_key.to_owned());
            let about = (&subject, Topic::Identity);
            match IdentityKey::load(identity_key) {
                Ok(key) => {
                    let what = format!("identity key {}: peer id {}", identity_key.display(), key.peer_id());
                    self.findings.push(Severity::Ok, about, what, "");
                    if let Some((chain, role)) = self.signs_blocks(&key) {
                        let what = format!(
                            "{} holds the {role} key of chain {chain}, and an identity key must be a key of its own",
                            identity_key.display()
                        );
                        let remedy = "make one with `highwater softsign keygen \
                                      secrets/kms-identity.key`, and name it in `secret_key`";
                        self.findings.push(Severity::Fail, about, what, remedy);
                    }
                }
                Err(error) => self.findings.push(Severity::Fail, about, format!("identity key: {error}"), ""),
            }
            self.guard(about, identity_key, "identity key", FileKind::Secret);
        }
    }

    /// The chain whose key is the same secret as an identity key, and its role. It would sign what a peer chooses.
    fn signs_blocks(&self, identity: &IdentityKey) -> Option<(ChainId, KeyRole)> {
        for chain in &self.config.chains {
            for key in self.config.keys().filter(|key| key.chain_ids().contains(&chain.id)) {
                if keyring::is_same_secret(chain, key, identity, state::key_in_state_file) {
                    return Some((chain.id.clone(), key.role()));
                }
            }
        }
        None
    }

    /// Reports who could replace this file.
    fn guard(&mut self, about: (&Subject, Topic), path: &Path, what: &'static str, kind: FileKind) {
        for flaw in self.guards.flaws(about.0, path, what, kind) {
            self.findings.push(flaw.severity, about, flaw.what, &flaw.remedy);
        }
    }
}

/// Whether a file can be appended to, or made.
fn appendable(path: &Path) -> io::Result<()> {
    match fs::metadata(path) {
        Ok(_) => accessible(path, Access::READ_OK | Access::WRITE_OK),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            accessible(directory_of(path), Access::WRITE_OK | Access::EXEC_OK)
        }
        Err(error) => Err(error),
    }
}

/// Whether this process has access. Does not open the file: a pipe would wait, and a device can do anything.
fn accessible(path: &Path, access: Access) -> io::Result<()> {
    Ok(accessat(CWD, path, access, AtFlags::EACCESS)?)
}

/// The directory of a path, as written.
fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

//! How a command fails: one message for an operator, one exit code for a supervisor.

use crate::{
    config::ConfigError,
    daemon::{StartError, claim::ClaimError},
    inspect::Topic,
    keyring::{
        KeyError,
        pkcs11::error::{ErrorClass, TokenError},
    },
    passing,
    state::{StateError, foreign::MigrationError},
};
use highwater_core::{
    disk,
    watermark::{FileError, HostError, StoreError},
};
use std::{io, process::ExitCode};

/// Exit codes, after sysexits.h; `check` has its own 0, 1 and 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Success.
    Ok = 0,
    /// `check` found warnings; `status` found a chain that does not sign.
    CheckWarning = 1,
    /// `check` found errors.
    CheckError = 2,
    /// The command line is wrong.
    Usage = 64,
    /// The content of a state or key file cannot be used.
    Data = 65,
    /// A file, a token or a key on it is missing.
    NoInput = 66,
    /// Every validator node is gone and none may be dialled again; or a signer or a device does not answer.
    Unavailable = 69,
    /// A broken invariant: a bug in Highwater.
    Software = 70,
    /// A file or a key cannot be made, or exists already.
    CantCreate = 73,
    /// The disk or a device failed.
    Io = 74,
    /// Another process is using the state or the device.
    TempFail = 75,
    /// A file has wrong permissions, or a PIN or password is wrong.
    NoPermission = 77,
    /// The configuration is wrong.
    Config = 78,
}

impl Exit {
    /// The code with this number, from a process of ours. Any other number is a bug there.
    pub(crate) fn of_number(number: u8) -> Self {
        const ALL: [Exit; 10] = [
            Exit::Usage,
            Exit::Data,
            Exit::NoInput,
            Exit::Unavailable,
            Exit::CantCreate,
            Exit::Io,
            Exit::TempFail,
            Exit::NoPermission,
            Exit::Config,
            Exit::Software,
        ];
        ALL.into_iter().find(|exit| *exit as u8 == number).unwrap_or(Exit::Software)
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command failed. Printed once, by `main`.
#[derive(Debug)]
pub(crate) struct CliError {
    pub(crate) exit: Exit,
    /// What happened, where, and what to do. Empty if the command has already printed it.
    pub(crate) message: String,
}

impl CliError {
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into() }
    }

    /// A command line that cannot be carried out as it is.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    pub(crate) fn io(what: &str, error: &io::Error) -> Self {
        let exit = match error.kind() {
            // What is missing is the directory of a new file.
            io::ErrorKind::AlreadyExists | io::ErrorKind::NotFound => Exit::CantCreate,
            io::ErrorKind::PermissionDenied => Exit::NoPermission,
            _ => Exit::Io,
        };
        Self::new(exit, format!("{what}: {error}"))
    }
}

impl From<ConfigError> for CliError {
    fn from(error: ConfigError) -> Self {
        // A list of findings is easier to read if each begins its own line.
        let message = match &error {
            ConfigError::Invalid { findings, path } if findings.len() > 1 => {
                format!("{} has {} errors:\n{error}", path.display(), findings.len())
            }
            _ => error.to_string(),
        };
        let exit = match &error {
            ConfigError::Unreadable { error, .. } if error.kind() == io::ErrorKind::NotFound => Exit::NoInput,
            ConfigError::Unreadable { error, .. } if error.kind() == io::ErrorKind::PermissionDenied => {
                Exit::NoPermission
            }
            _ => Exit::Config,
        };
        Self::new(exit, message)
    }
}

impl From<StartError> for CliError {
    fn from(error: StartError) -> Self {
        let exit = match &error {
            StartError::Audit { error, .. } => exit_of_audit(error),
            StartError::Claimed { error, .. } => exit_of_claim(error),
            StartError::Dying { .. } | StartError::Host(_) | StartError::Restart(_) | StartError::Thread(_) => Exit::Io,
            StartError::HelperEnded(_) => Exit::Software,
            StartError::Identity(error) if passing::key(error) => Exit::Io,
            StartError::Identity(error) => exit_of_key(error),
            StartError::Locked(_) => Exit::TempFail,
            StartError::NoChain { passes: true, .. } => Exit::Io,
            StartError::NoChain { passes: false, .. } => Exit::Data,
            StartError::NodesGone => Exit::Unavailable,
            StartError::Refused { topic: Topic::Machine, .. } => Exit::Io,
            StartError::Refused { .. } | StartError::Untrusted(_) => Exit::NoPermission,
            // The kernel does not come by it while the configuration asks for it.
            StartError::Sandbox(_) => Exit::Config,
            StartError::System { error, .. } if disk::may_pass(error) => Exit::Io,
            StartError::System { .. } => Exit::NoPermission,
        };
        Self::new(exit, error.to_string())
    }
}

fn exit_of_audit(error: &io::Error) -> Exit {
    match error.kind() {
        io::ErrorKind::PermissionDenied => Exit::NoPermission,
        io::ErrorKind::AlreadyExists => Exit::CantCreate,
        _ if disk::may_pass(error) => Exit::Io,
        _ => Exit::CantCreate,
    }
}

impl From<KeyError> for CliError {
    fn from(error: KeyError) -> Self {
        Self::new(exit_of_key(&error), error.to_string())
    }
}

impl From<StateError> for CliError {
    fn from(error: StateError) -> Self {
        let exit = match &error {
            StateError::File(error) => exit_of_file(error),
            StateError::Migration { error: MigrationError::Missing, .. }
            | StateError::Lost { .. }
            | StateError::NotImported { .. } => Exit::NoInput,
            StateError::Theirs { error, .. } => exit_of_io(error),
            StateError::TheirsAtWork { .. } => Exit::TempFail,
            StateError::TheirsInPlace { .. } => Exit::CantCreate,
            StateError::Store { error: StoreError::Io { error, .. }, .. } => exit_of_io(error),
            _ => Exit::Data,
        };
        Self::new(exit, error.to_string())
    }
}

impl From<ClaimError> for CliError {
    fn from(error: ClaimError) -> Self {
        Self::new(exit_of_claim(&error), error.to_string())
    }
}

fn exit_of_claim(error: &ClaimError) -> Exit {
    match error {
        ClaimError::Held { .. } => Exit::TempFail,
        ClaimError::Io(_) => Exit::Io,
    }
}

impl From<TokenError> for CliError {
    fn from(error: TokenError) -> Self {
        let hint = match &error {
            TokenError::NoPin { .. } => " in the configuration, or give it with --pin-file or --pin-fd",
            _ => "",
        };
        Self::new(exit_of_token(&error), format!("{error}{hint}"))
    }
}

fn exit_of_token(error: &TokenError) -> Exit {
    match error.cause() {
        TokenError::AmbiguousKey { .. } | TokenError::AmbiguousToken { .. } | TokenError::NoPin { .. } => Exit::Usage,
        TokenError::Exists { .. } => Exit::CantCreate,
        TokenError::Expanded => Exit::Data,
        TokenError::Login { .. } if error.class() == ErrorClass::Broken => Exit::Io,
        TokenError::Login { .. }
        | TokenError::NotSent { .. }
        | TokenError::PinAtRisk { .. }
        | TokenError::PinForm { .. }
        | TokenError::WrongPin { .. } => Exit::NoPermission,
        TokenError::Module { .. } | TokenError::NoKey { .. } | TokenError::NoToken { .. } => Exit::NoInput,
        TokenError::Because { .. }
        | TokenError::Call { .. }
        | TokenError::LoginForEachUse
        | TokenError::NotRemoved { .. }
        | TokenError::SelfTest
        | TokenError::Signature { .. }
        | TokenError::TooLong { .. }
        | TokenError::Unreadable
        | TokenError::Unsupported { .. } => Exit::Io,
    }
}

fn exit_of_file(error: &FileError) -> Exit {
    match error {
        FileError::Exists { .. } => Exit::CantCreate,
        FileError::Io { error, .. } if error.kind() == io::ErrorKind::PermissionDenied => Exit::NoPermission,
        FileError::Io { action: "create", .. } => Exit::CantCreate,
        FileError::Io { error, .. } => exit_of_io(error),
        FileError::Locked { .. } => Exit::TempFail,
        FileError::DeadLink { .. } | FileError::Missing { .. } | FileError::NotAFile { .. } => Exit::NoInput,
        FileError::Writable { .. } => Exit::NoPermission,
    }
}

fn exit_of_io(error: &io::Error) -> Exit {
    match error.kind() {
        io::ErrorKind::PermissionDenied => Exit::NoPermission,
        _ => Exit::Io,
    }
}

impl From<HostError> for CliError {
    fn from(error: HostError) -> Self {
        Self::new(Exit::Io, error.to_string())
    }
}

fn exit_of_key(error: &KeyError) -> Exit {
    match error {
        KeyError::Denied { .. } | KeyError::Foreign { .. } | KeyError::Permissions { .. } => Exit::NoPermission,
        KeyError::Exists { .. } | KeyError::Io { action: "create", .. } => Exit::CantCreate,
        KeyError::Io { .. } | KeyError::Random { .. } => Exit::Io,
        KeyError::Malformed { .. } | KeyError::TooLarge { .. } => Exit::Data,
        KeyError::Missing { .. } | KeyError::NotAFile { .. } => Exit::NoInput,
        KeyError::PublicKey { .. } => Exit::Unavailable,
    }
}

//! The command line: one file per command, and what they share.

mod chains;
mod check;
mod error;
mod init;
mod networks;
mod output;
mod pkcs11;
mod softsign;
mod start;
mod state;
mod status;
mod timing;
mod watch;
mod yubihsm;

pub(crate) use error::CliError;
pub use error::Exit;

use crate::{
    config::{self, Config, ConfigError, PartialConfig},
    daemon::config_reader,
    keyring::{child::spawner, pkcs11::served},
    process::{hooks, resolver},
    record::{keeper, log::LogFormat},
};
use clap::{Args, CommandFactory as _, Parser, Subcommand};
use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
    process::ExitCode,
};

/// Remote signer for CometBFT validators.
#[derive(Debug, Parser)]
#[command(name = "highwater", version, arg_required_else_help = true, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Makes and renames audit files; started by the signer
    #[command(name = keeper::KEEPER_COMMAND, hide = true)]
    AuditKeeper,
    /// Check configuration, keys and state without changing anything; exits 0 (ok), 1 (warnings) or 2 (errors)
    Check(check::Check),
    /// Reads the configuration again; started by the signer
    #[command(name = config_reader::READER_COMMAND, hide = true)]
    ConfigReader,
    /// Talks to one PKCS#11 token; started by the spawner
    #[command(name = spawner::CHILD_COMMAND, hide = true)]
    HsmChild,
    /// Calls one PKCS#11 module for one command; started by that command
    #[command(name = pkcs11::WORKER_COMMAND, hide = true)]
    HsmErrand,
    /// Starts the children that talk to PKCS#11 tokens; started by the signer
    #[command(name = spawner::SPAWNER_COMMAND, hide = true)]
    HsmSpawner,
    /// Make a configuration and an identity key in a new directory
    Init(init::Init),
    /// Runs one lookup of a host name; started by the name resolver
    #[command(name = resolver::LOOKUP_COMMAND, hide = true)]
    NameLookup,
    /// Resolves one host name; started by the signer
    #[command(name = resolver::RESOLVER_COMMAND, hide = true)]
    NameResolver,
    /// List PKCS#11 tokens; make, import, test and delete the keys on them
    #[command(subcommand)]
    Pkcs11(pkcs11::Pkcs11),
    /// Make or import keys kept in files
    #[command(subcommand)]
    Softsign(softsign::Softsign),
    /// Sign for the configured validators, in the foreground
    Start(start::Start),
    /// Show, make, import, export or raise the watermark of a chain
    #[command(subcommand)]
    State(state::StateCommand),
    /// Runs one state hook; started by the signer
    #[command(name = hooks::HOOK_COMMAND, hide = true)]
    StateHook,
    /// Show what the running signer is doing; exits 0 (every chain signs) or 1 (not every chain signs)
    Status(status::StatusCommand),
    /// Print the version
    Version,
    /// Find, set up and test YubiHSM 2 devices; make, import and back up the keys on them
    #[command(subcommand, name = "yubihsm")]
    YubiHsm(yubihsm::YubiHsm),
}

/// The configuration that a command uses.
#[derive(Args, Debug)]
struct ConfigArgs {
    /// Configuration file [default: $TMKMS_CONFIG_FILE, then ./tmkms.toml, then
    /// /etc/highwater/tmkms.toml]
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl ConfigArgs {
    fn path(&self) -> PathBuf {
        config::resolve_path(self.config.as_deref(), std::env::var_os(config::PATH_VARIABLE))
    }

    /// Loads the configuration. Its warnings go to standard error.
    fn load(&self) -> Result<Config, CliError> {
        let path = self.path();
        let (config, warnings) = Config::load(&path)?;
        for warning in warnings {
            output::note(&format!("warning: {}", warning.at(&path)));
        }
        Ok(config)
    }

    /// Loads as much of the configuration as can be read. `None` if there is no file and none was named, or only that of
    /// the service, which is not for everybody.
    fn partial(&self) -> Result<Option<PartialConfig>, CliError> {
        let path = self.path();
        let is_named = config::named_path(self.config.as_deref(), std::env::var_os(config::PATH_VARIABLE)).is_some();
        let is_here = path == Path::new(config::DEFAULT_PATH);
        match PartialConfig::load(&path) {
            Err(ConfigError::Unreadable { error, .. })
                if !is_named
                    && (error.kind() == ErrorKind::NotFound
                        || (!is_here && error.kind() == ErrorKind::PermissionDenied)) =>
            {
                Ok(None)
            }
            loaded => Ok(Some(loaded?)),
        }
    }
}

/// The command line, for completions and manual pages.
pub fn command() -> clap::Command {
    Cli::command()
}

/// Runs the command line of this process and returns its exit code.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version arrive here too, and belong on standard output.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage.into() } else { Exit::Ok.into() };
        }
    };
    // The last line of a log of JSON is JSON too.
    let format = match &cli.command {
        Command::Start(command) => command.log_format,
        _ => LogFormat::Text,
    };
    let result = match cli.command {
        Command::AuditKeeper => keeper::run().map_err(|error| internal(&error)),
        Command::Check(command) => command.run(),
        Command::ConfigReader => config_reader::run().map_err(|error| internal(&error)),
        Command::HsmChild => served::run().map_err(|error| internal(&error)),
        Command::HsmErrand => pkcs11::run_worker().map_err(|error| internal(&error)),
        Command::HsmSpawner => spawner::run().map_err(|error| internal(&error)),
        Command::Init(command) => command.run(),
        Command::NameLookup => resolver::run_lookup().map_err(|error| internal(&error)),
        Command::NameResolver => resolver::run().map_err(|error| internal(&error)),
        Command::Pkcs11(command) => command.run(),
        Command::Softsign(command) => command.run(),
        Command::Start(command) => command.run(),
        Command::State(command) => command.run(),
        Command::StateHook => hooks::run().map_err(|error| internal(&error)),
        Command::Status(command) => command.run(),
        Command::YubiHsm(command) => command.run(),
        Command::Version => output::print(&format!("highwater {}", env!("CARGO_PKG_VERSION"))),
    };
    match result {
        Ok(()) => Exit::Ok.into(),
        Err(error) => {
            if !error.message.is_empty() {
                output::note(&format.fatal(&error.message));
            }
            error.exit.into()
        }
    }
}

fn internal(error: &std::io::Error) -> CliError {
    CliError::new(Exit::Software, format!("only the signer starts this command: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        command().debug_assert();
    }
}

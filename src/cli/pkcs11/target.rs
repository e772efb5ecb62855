//! Finds the token that a command is for and how to log in, and makes sure that no running signer uses it.

use crate::{
    cli::{CliError, ConfigArgs, Exit, chains, output},
    config::{
        ChainConfig, Config, ConfigError, PartialConfig, Pkcs11Config, Provider, SecretSource,
        paths::is_same_file,
        pkcs11::{
            profile::{Profile, SessionMode},
            spec::TokenSelector,
        },
    },
    keyring::{
        self,
        child::pin,
        pkcs11::{
            error::TokenError,
            gate::CommandGate,
            token::{Opening, Pin, Token},
        },
    },
};
use clap::Args;
use highwater_core::consensus::ChainId;
use std::{
    env,
    path::{Path, PathBuf},
};
use zeroize::Zeroizing;

/// Selects the token, the login and the form of the answer.
#[derive(Args, Debug)]
pub(super) struct TokenTargetArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Device profile to use instead of a [[providers.pkcs11]]: a name in hsm-profiles/ or a path
    #[arg(long, value_name = "NAME|PATH")]
    profile: Option<String>,
    /// PKCS#11 module [default: the usual path in the profile]
    #[arg(long, value_name = "PATH", requires = "profile")]
    module: Option<PathBuf>,
    /// Label of the token; required if the configuration has several
    #[arg(long, value_name = "LABEL", conflicts_with = "serial")]
    token: Option<String>,
    /// Serial number of the token
    #[arg(long, value_name = "SERIAL")]
    serial: Option<String>,
    /// Read the PIN from this file [default: `pin` in the configuration]
    #[arg(long, value_name = "FILE", conflicts_with = "pin_fd")]
    pin_file: Option<PathBuf>,
    /// Read the PIN from this file descriptor
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..))]
    pin_fd: Option<i32>,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

/// A token that no running signer uses.
#[derive(Clone)]
pub(super) struct TokenTarget {
    pub(super) profile: Profile,
    /// The profile as the configuration writes it.
    pub(super) profile_text: String,
    /// The module, an absolute path.
    pub(super) module: PathBuf,
    pub(super) selector: TokenSelector,
    /// Where the PIN came from.
    pub(super) pin_source: Option<SecretSource>,
    /// The configuration, as far as it can be read.
    pub(super) config: Option<Config>,
    /// The token's section in it.
    pub(super) section: Option<Pkcs11Config>,
    pin: Option<Zeroizing<Vec<u8>>>,
}

impl TokenTargetArgs {
    /// Selects the token, makes sure that no running signer uses it, and reads its PIN.
    pub(super) fn resolve(&self) -> Result<TokenTarget, CliError> {
        let partial = self.config.partial()?;
        let mut target = match &self.profile {
            Some(profile) => self.by_flags(profile)?,
            None => self.in_config(partial.as_ref())?,
        };
        if let Some(partial) = partial {
            target.refuse_running(&partial.config)?;
            for token in partial.config.pkcs11() {
                if token.token == target.selector && is_same_file(&token.module, &target.module) {
                    target.section = Some(token.clone());
                    break;
                }
            }
            target.config = Some(partial.config);
        }
        refuse_missing(&target.module, Some(&target.profile))?;
        let read = |source: &SecretSource| pin::read(source).map_err(|text| CliError::new(Exit::NoInput, text));
        target.pin = target.pin_source.as_ref().map(read).transpose()?;
        Ok(target)
    }

    fn by_flags(&self, text: &str) -> Result<TokenTarget, CliError> {
        let profile = load_profile(text)?;
        let module = match &self.module {
            Some(path) => absolute(path)?,
            None => usual_module(&profile)?,
        };
        let selector = self.selector().ok_or_else(|| {
            CliError::usage("name the token with --token or --serial: `highwater pkcs11 tokens` shows both")
        })?;
        let profile_text = if text.contains('/') || text.ends_with(".toml") {
            absolute(Path::new(text))?.display().to_string()
        } else {
            text.to_owned()
        };
        let pin_source = self.pin_source()?;
        Ok(TokenTarget { profile, profile_text, module, selector, pin_source, config: None, section: None, pin: None })
    }

    fn in_config(&self, partial: Option<&PartialConfig>) -> Result<TokenTarget, CliError> {
        let flags = "name the device with --profile and --token";
        let Some(PartialConfig { config, errors }) = partial else {
            return Err(CliError::usage(format!("there is no configuration: name one with -c, or {flags}")));
        };
        let wanted = self.selector();
        let mut hits = config.pkcs11();
        hits.retain(|provider| wanted.as_ref().is_none_or(|wanted| provider.token == *wanted));
        let path = config.path.display();
        let provider = match hits[..] {
            [provider] => provider,
            [] if !errors.is_empty() => {
                return Err(ConfigError::Invalid { path: config.path.clone(), findings: errors.clone() }.into());
            }
            [] => {
                let what = wanted.map_or(String::new(), |wanted| format!(" for the {wanted}"));
                return Err(CliError::usage(format!("{path} has no [[providers.pkcs11]]{what}: add one, or {flags}")));
            }
            _ => {
                let tokens: Vec<_> = hits.iter().map(|provider| provider.token.to_string()).collect();
                let text = format!("name one token of {path} with --token or --serial: {}", tokens.join(", "));
                return Err(CliError::usage(text));
            }
        };
        if !errors.is_empty() {
            output::note(&format!("note: {path} is not complete yet; `highwater check` shows what is missing"));
        }
        Ok(TokenTarget {
            profile: provider.profile.clone(),
            profile_text: provider.profile_text.clone(),
            module: provider.module.clone(),
            selector: provider.token.clone(),
            pin_source: self.pin_source()?.or_else(|| provider.pin.clone()),
            config: None,
            section: None,
            pin: None,
        })
    }

    fn selector(&self) -> Option<TokenSelector> {
        let label = self.token.clone().map(TokenSelector::Label);
        label.or_else(|| self.serial.clone().map(TokenSelector::Serial))
    }

    /// The source that the command line names. Absolute, because it may end up in a configuration.
    fn pin_source(&self) -> Result<Option<SecretSource>, CliError> {
        match (&self.pin_file, self.pin_fd) {
            (Some(path), _) => absolute(path).map(SecretSource::File).map(Some),
            (None, number) => Ok(number.map(SecretSource::Fd)),
        }
    }
}

impl TokenTarget {
    /// Opens the token to look at it and to sign. Call it only where a module may hang.
    pub(super) fn open(&self) -> Result<Token, TokenError> {
        self.open_with(self.profile.session.mode == SessionMode::ReadWrite)
    }

    /// Opens the token to change it. Call it only where a module may hang.
    pub(super) fn open_for_changes(&self) -> Result<Token, TokenError> {
        self.open_with(true)
    }

    /// A PIN that the token has refused is not sent again, whichever command or signer sent it.
    fn open_with(&self, read_write: bool) -> Result<Token, TokenError> {
        let notes = self.config.as_ref().zip(self.section.as_ref());
        let notes = notes.and_then(|(config, section)| keyring::login_notes(config, section));
        let source = self.pin_source.as_ref().map(ToString::to_string).unwrap_or_default();
        let mut gate = CommandGate::new(notes, self.module.clone(), self.pin.clone(), source);
        let keys = self.section.as_ref().map(keyring::pinned_keys).unwrap_or_default();
        let opening = Opening { read_write, gate: Some(&mut gate), keys: &keys };
        Token::open_by(&self.module, &self.selector, &self.profile, self.pin().as_ref(), opening)
    }

    /// Refuses a token that a running signer of this configuration has.
    fn refuse_running(&self, config: &Config) -> Result<(), CliError> {
        let token = Provider::Pkcs11(Box::new(Pkcs11Config {
            profile: self.profile.clone(),
            profile_text: self.profile_text.clone(),
            module: self.module.clone(),
            token: self.selector.clone(),
            pin: None,
            keys: Vec::new(),
            files: Vec::new(),
            environment: Vec::new(),
            line: 0,
        }));
        let users = config.chains.iter().filter(|chain| config.may_use(&chain.id, &token));
        chains::refuse_running(users, &self.selector.to_string())
    }

    fn pin(&self) -> Option<Pin> {
        self.pin.clone().map(Pin::new)
    }

    /// The chain that `--chain` names, or the only one configured.
    pub(super) fn chain(&self, named: Option<&ChainId>) -> Result<Option<&ChainConfig>, CliError> {
        chains::named(self.config.as_ref().map_or(&[][..], |config| &config.chains), named)
    }
}

/// The modules whose tokens to list, each with its profile if that is known.
pub(super) fn modules(
    config: &ConfigArgs,
    profile: Option<&str>,
    module: Option<&Path>,
) -> Result<Vec<(PathBuf, Option<Profile>)>, CliError> {
    let profile = profile.map(load_profile).transpose()?;
    match (module, profile) {
        (Some(path), profile) => Ok(vec![(absolute(path)?, profile)]),
        (None, Some(profile)) => Ok(vec![(usual_module(&profile)?, Some(profile))]),
        (None, None) => {
            let Some(PartialConfig { config, errors }) = config.partial()? else {
                return Err(CliError::usage(
                    "there is no configuration: name one with -c, or the device with --profile",
                ));
            };
            let mut modules: Vec<(PathBuf, Option<Profile>)> = Vec::new();
            for provider in config.pkcs11() {
                if !modules.iter().any(|(path, _)| is_same_file(path, &provider.module)) {
                    modules.push((provider.module.clone(), Some(provider.profile.clone())));
                }
            }
            if !modules.is_empty() {
                Ok(modules)
            } else if !errors.is_empty() {
                Err(ConfigError::Invalid { path: config.path, findings: errors }.into())
            } else {
                let path = config.path.display();
                Err(CliError::usage(format!(
                    "{path} has no [[providers.pkcs11]]: add one, or name the device with --profile"
                )))
            }
        }
    }
}

/// Refuses a missing module, and says what to install.
pub(super) fn refuse_missing(module: &Path, profile: Option<&Profile>) -> Result<(), CliError> {
    if module.is_file() {
        return Ok(());
    }
    let install = profile.map_or("the device's software", |profile| &profile.module.install);
    let text = format!("there is no {}: install {install}, or name the file with --module", module.display());
    Err(CliError::new(Exit::NoInput, text))
}

/// A hint about the module's environment, for a result that is not as expected.
pub(super) fn environment_hint(profile: Option<&Profile>) -> Option<String> {
    let variable = profile?.missing_variable(|name| env::var_os(name).is_some())?;
    Some(format!(
        "note: the module may need the environment variable {}: set it to {}",
        variable.name, variable.meaning
    ))
}

fn load_profile(text: &str) -> Result<Profile, CliError> {
    Profile::by_name_or_path(text, Profile::load).map_err(|error| CliError::usage(error.to_string()))
}

fn usual_module(profile: &Profile) -> Result<PathBuf, CliError> {
    let paths = &profile.module.paths;
    let module = paths.iter().find(|path| path.exists()).or(paths.first());
    module.cloned().ok_or_else(|| {
        CliError::usage(format!(
            "name the PKCS#11 module with --module: the profile {} has no usual path",
            profile.name
        ))
    })
}

fn absolute(path: &Path) -> Result<PathBuf, CliError> {
    std::path::absolute(path).map_err(|error| CliError::io(&format!("cannot resolve {}", path.display()), &error))
}

//! Which token a command means, how it logs in, and whether a running signer has it.

use crate::{
    cli::{CliError, ConfigArgs, Exit, chains, output},
    config::{
        ChainConfig, Config, ConfigError, KeyConfig, KeyRole, PinSource, Pkcs11Config, Sketch,
        pkcs11::{profile::Profile, spec::TokenSelector},
    },
    keyring::{
        child::pin,
        pkcs11::{
            error::TokenError,
            token::{Pin, Token},
        },
    },
};
use clap::Args;
use highwater_core::consensus::ChainId;
use std::{
    env, fs,
    path::{Path, PathBuf},
};
use zeroize::Zeroizing;

/// Which token, how to log in, and how the answer looks.
#[derive(Args, Debug)]
pub(super) struct TokenTargetArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// The family of the device, instead of a [[providers.pkcs11]]: a name of hsm-profiles/ or a path
    #[arg(long, value_name = "NAME|PATH")]
    profile: Option<String>,
    /// The PKCS#11 module [default: where the profile knows it to be]
    #[arg(long, value_name = "PATH", requires = "profile")]
    module: Option<PathBuf>,
    /// The token, by its label; needed where the configuration has several
    #[arg(long, value_name = "LABEL", conflicts_with = "serial")]
    token: Option<String>,
    /// The token, by its serial number
    #[arg(long, value_name = "SERIAL")]
    serial: Option<String>,
    /// Read the PIN from this file [default: `pin` of the configuration]
    #[arg(long, value_name = "FILE", conflicts_with = "pin_fd")]
    pin_file: Option<PathBuf>,
    /// Read the PIN from this file descriptor
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..))]
    pin_fd: Option<i32>,
    /// Answer in JSON
    #[arg(long)]
    pub(super) json: bool,
}

/// A token that no running signer has.
#[derive(Clone)]
pub(super) struct TokenTarget {
    /// What is peculiar to the device.
    pub(super) profile: Profile,
    /// The profile as the configuration writes it.
    pub(super) profile_text: String,
    /// The module, an absolute path.
    pub(super) module: PathBuf,
    /// Which token.
    pub(super) selector: TokenSelector,
    /// Where the PIN came from.
    pub(super) pin_source: Option<PinSource>,
    /// What the configuration has, as far as it can be read.
    pub(super) config: Option<Config>,
    /// The token's section in it.
    pub(super) section: Option<Pkcs11Config>,
    pin: Option<Zeroizing<Vec<u8>>>,
}

impl TokenTargetArgs {
    /// Finds out which token is meant, makes sure that no running signer has it, and reads its PIN.
    pub(super) fn resolve(&self) -> Result<TokenTarget, CliError> {
        let sketch = self.config.sketch()?;
        let mut target = match &self.profile {
            Some(profile) => self.by_flags(profile)?,
            None => self.in_config(sketch.as_ref())?,
        };
        if let Some(sketch) = sketch {
            refuse_running(&sketch.config, &target.module, &target.selector)?;
            let same = |provider: &&Pkcs11Config| {
                provider.token == target.selector && is_same_file(&provider.module, &target.module)
            };
            target.section = sketch.config.pkcs11.iter().find(same).cloned();
            target.config = Some(sketch.config);
        }
        refuse_missing(&target.module, Some(&target.profile))?;
        let read = |source: &PinSource| pin::read(source).map_err(|text| CliError::new(Exit::NoInput, text));
        target.pin = target.pin_source.as_ref().map(read).transpose()?;
        Ok(target)
    }

    fn by_flags(&self, text: &str) -> Result<TokenTarget, CliError> {
        let profile = load_profile(text)?;
        let module = match &self.module {
            Some(path) => absolute(path)?,
            None => usual_module(&profile)?,
        };
        let selector = self
            .selector()
            .ok_or_else(|| usage("name the token with --token or --serial: `highwater pkcs11 tokens` shows both"))?;
        let profile_text = match text.contains('/') || text.ends_with(".toml") {
            true => absolute(Path::new(text))?.display().to_string(),
            false => text.to_owned(),
        };
        let pin_source = self.pin_source()?;
        Ok(TokenTarget { profile, profile_text, module, selector, pin_source, config: None, section: None, pin: None })
    }

    fn in_config(&self, sketch: Option<&Sketch>) -> Result<TokenTarget, CliError> {
        let flags = "name the device with --profile and --token";
        let Some(Sketch { config, errors }) = sketch else {
            return Err(usage(format!("there is no configuration: name one with -c, or {flags}")));
        };
        let wanted = self.selector();
        let fits = |provider: &&Pkcs11Config| wanted.as_ref().is_none_or(|wanted| provider.token == *wanted);
        let hits: Vec<_> = config.pkcs11.iter().filter(fits).collect();
        let path = config.path.display();
        let provider = match hits[..] {
            [provider] => provider,
            [] if !errors.is_empty() => {
                return Err(ConfigError::Invalid { path: config.path.clone(), findings: errors.clone() }.into());
            }
            [] => {
                let what = wanted.map_or(String::new(), |wanted| format!(" of the {wanted}"));
                return Err(usage(format!("{path} has no [[providers.pkcs11]]{what}: add one, or {flags}")));
            }
            _ => {
                let tokens: Vec<_> = hits.iter().map(|provider| provider.token.to_string()).collect();
                let text = format!("name one token of {path} with --token or --serial: {}", tokens.join(", "));
                return Err(usage(text));
            }
        };
        if !errors.is_empty() {
            output::note(&format!("note: {path} is not complete yet; `highwater check` says what is missing"));
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

    /// The source that the command line names. Made absolute: it may come to stand in a configuration.
    fn pin_source(&self) -> Result<Option<PinSource>, CliError> {
        match (&self.pin_file, self.pin_fd) {
            (Some(path), _) => absolute(path).map(PinSource::File).map(Some),
            (None, number) => Ok(number.map(PinSource::Fd)),
        }
    }
}

impl TokenTarget {
    /// Opens the token to look at it and to sign. Call it only where a module may hang.
    pub(super) fn open(&self) -> Result<Token, TokenError> {
        Token::open(&self.module, &self.selector, &self.profile, self.pin().as_ref())
    }

    /// Opens the token to change it. Call it only where a module may hang.
    pub(super) fn open_for_changes(&self) -> Result<Token, TokenError> {
        Token::open_for_changes(&self.module, &self.selector, &self.profile, self.pin().as_ref())
    }

    fn pin(&self) -> Option<Pin> {
        self.pin.clone().map(Pin::new)
    }

    /// The chain that `--chain` names, or else the only one there is.
    pub(super) fn chain(&self, named: Option<&ChainId>) -> Result<Option<&ChainConfig>, CliError> {
        chains::named(self.config.as_ref().map_or(&[][..], |config| &config.chains), named)
    }
}

/// The modules whose tokens are to be listed, each with its profile if that is known.
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
            let Some(Sketch { config, errors }) = config.sketch()? else {
                return Err(usage("there is no configuration: name one with -c, or the device with --profile"));
            };
            let mut modules: Vec<(PathBuf, Option<Profile>)> = Vec::new();
            for provider in &config.pkcs11 {
                if !modules.iter().any(|(path, _)| is_same_file(path, &provider.module)) {
                    modules.push((provider.module.clone(), Some(provider.profile.clone())));
                }
            }
            match modules.is_empty() {
                false => Ok(modules),
                true if !errors.is_empty() => Err(ConfigError::Invalid { path: config.path, findings: errors }.into()),
                true => {
                    let path = config.path.display();
                    Err(usage(format!(
                        "{path} has no [[providers.pkcs11]]: add one, or name the device with --profile"
                    )))
                }
            }
        }
    }
}

/// Refuses a module that is not there, with what to install.
pub(super) fn refuse_missing(module: &Path, profile: Option<&Profile>) -> Result<(), CliError> {
    if module.is_file() {
        return Ok(());
    }
    let install = profile.map_or("the device's software", |profile| &profile.module.install);
    let text = format!("there is no {}: install {install}, or name the file with --module", module.display());
    Err(CliError::new(Exit::NoInput, text))
}

/// What to say of a module's environment when it was not as expected.
pub(super) fn environment_hint(profile: Option<&Profile>) -> Option<String> {
    let variable = profile?.missing_variable(|name| env::var_os(name).is_some())?;
    Some(format!(
        "note: the module may need the environment variable {}: set it to {}",
        variable.name, variable.meaning
    ))
}

/// Refuses a token that a running signer of this configuration has.
fn refuse_running(config: &Config, module: &Path, selector: &TokenSelector) -> Result<(), CliError> {
    let users = config.chains.iter().filter(|chain| may_use(config, &chain.id, module, selector));
    chains::refuse_running(users, &selector.to_string())
}

/// Whether the signer of `chain` may use this token: its key is there, or it cannot be said where its key is. A label
/// and a serial number may be of one token.
fn may_use(config: &Config, chain: &ChainId, module: &Path, selector: &TokenSelector) -> bool {
    let may_be_this = |provider: &Pkcs11Config| {
        let is_of_one_kind = matches!(
            (&provider.token, selector),
            (TokenSelector::Label(_), TokenSelector::Label(_)) | (TokenSelector::Serial(_), TokenSelector::Serial(_))
        );
        is_same_file(&provider.module, module) && (provider.token == *selector || !is_of_one_kind)
    };
    let is_here = |key: KeyConfig<'_>| match key {
        KeyConfig::Pkcs11 { provider, .. } => may_be_this(provider),
        KeyConfig::Softsign(_) | KeyConfig::YubiHsm { .. } => false,
    };
    let mut keys = config.keys().filter(|key| key.chain_ids().contains(chain)).peekable();
    let is_known = config.consensus_key(chain).is_some_and(|key| key.role() == KeyRole::Consensus);
    !is_known || keys.any(is_here)
}

fn is_same_file(a: &Path, b: &Path) -> bool {
    let real = |path: &Path| fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    a == b || real(a) == real(b)
}

fn load_profile(text: &str) -> Result<Profile, CliError> {
    Profile::by_name_or_path(text, Profile::load).map_err(|error| usage(error.to_string()))
}

fn usual_module(profile: &Profile) -> Result<PathBuf, CliError> {
    let paths = &profile.module.paths;
    let module = paths.iter().find(|path| path.exists()).or(paths.first());
    module.cloned().ok_or_else(|| {
        usage(format!("name the PKCS#11 module with --module: the profile {} knows no usual place of it", profile.name))
    })
}

fn absolute(path: &Path) -> Result<PathBuf, CliError> {
    std::path::absolute(path).map_err(|error| CliError::io(&format!("cannot resolve {}", path.display()), &error))
}

fn usage(text: impl Into<String>) -> CliError {
    CliError::new(Exit::Usage, text)
}

//! Finds the token that a command is for and how to log in, and makes sure that no running signer uses it.

use super::{
    UriText,
    call::{self, Environment, Finished, Secrets, refused_by_sandbox},
    errand::{Confinement, Errand, Order},
    read_uri,
};
use crate::{
    cli::{CliError, ConfigArgs, Exit, chains, output},
    config::{
        ChainConfig, Config, ConfigError, PartialConfig, Pkcs11Config, Provider, SecretSource,
        paths::is_same_file,
        pkcs11::{
            profile::Profile,
            spec::{TokenSelector, TokenSpec},
            uri::Pkcs11Uri,
        },
    },
    inspect,
    keyring::{self, child::pin},
    process::sandbox::Switches,
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
    /// Label of the token, or its pkcs11: URI; required if the configuration has several
    #[arg(long, value_name = "LABEL|URI", conflicts_with = "serial")]
    token: Option<TokenText>,
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

/// What `--token` takes.
#[derive(Clone, Debug)]
enum TokenText {
    Label(String),
    Uri(UriText),
}

impl From<String> for TokenText {
    fn from(text: String) -> Self {
        UriText::of(&text).map_or(Self::Label(text), Self::Uri)
    }
}

/// A token that no running signer uses.
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
        let named = self.named()?;
        let mut target = match &self.profile {
            Some(profile) => self.by_flags(profile, named)?,
            None => self.in_config(partial.as_ref(), &named)?,
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

    fn by_flags(&self, text: &str, named: Pkcs11Uri) -> Result<TokenTarget, CliError> {
        let profile = load_profile(text)?;
        let module = match (&self.module, named.module) {
            (Some(path), _) => absolute(path)?,
            (None, Some(path)) => path,
            (None, None) => usual_module(&profile)?,
        };
        let selector = named.token.ok_or_else(|| {
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

    fn in_config(&self, partial: Option<&PartialConfig>, named: &Pkcs11Uri) -> Result<TokenTarget, CliError> {
        let flags = "name the device with --profile and --token";
        let Some(PartialConfig { config, errors }) = partial else {
            return Err(CliError::usage(format!("there is no configuration: name one with -c, or {flags}")));
        };
        let wanted = named.token.as_ref();
        let mut hits = config.pkcs11();
        hits.retain(|provider| wanted.is_none_or(|wanted| provider.token.agrees_with(wanted)));
        // One that is named in the same words comes before one that may be the same.
        if let Some(exact) = hits.iter().position(|provider| Some(&provider.token) == wanted) {
            hits = vec![hits[exact]];
        }
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

    /// The token that the command line names, and the module in its URI.
    fn named(&self) -> Result<Pkcs11Uri, CliError> {
        match &self.token {
            Some(TokenText::Uri(uri)) => {
                let uri = read_uri(uri)?;
                if uri.token.is_none() {
                    let text = "this pkcs11: URI names no token: add token=LABEL or serial=NUMBER to it";
                    return Err(CliError::usage(text));
                }
                Ok(uri)
            }
            Some(TokenText::Label(label)) => {
                Ok(Pkcs11Uri { token: Some(TokenSelector::Label(label.clone())), ..Pkcs11Uri::default() })
            }
            None => Ok(Pkcs11Uri { token: self.serial.clone().map(TokenSelector::Serial), ..Pkcs11Uri::default() }),
        }
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
    /// Runs an errand in a process of its own. `key` is the key to import, else empty.
    pub(super) fn run(&self, errand: Errand, key: &[u8]) -> Result<Finished, CliError> {
        let variable = self.pin_source.as_ref().and_then(SecretSource::variable).map(str::to_owned);
        let pin = self.pin.as_deref().map_or(&[][..], Vec::as_slice);
        let source = self.pin_source.as_ref().map(ToString::to_string).unwrap_or_default();
        let notes = self.config.as_ref().zip(self.section.as_ref());
        let notes = notes.and_then(|(config, section)| keyring::login_notes(config, section));
        let secrets = Secrets { pin, key, variables: variable.as_slice(), source: &source, notes: notes.as_deref() };
        let order = Order { errand, spec: self.spec(), confinement: Confinement::AsSigner(self.switches()) };
        call::run(&order, Environment::AsSigner, secrets)
    }

    /// Adds to an error of the module what the sandbox keeps from it, if that is why. Loads the module again, also outside
    /// of the sandbox, where commands of tmkms and of the device's maker run it too.
    pub(super) fn explain(&self, mut error: CliError) -> CliError {
        // An error about the command line, the PIN or a key is none of the module's surroundings.
        if matches!(error.exit, Exit::Io | Exit::NoInput)
            && let Some(text) = refused_by_sandbox(&self.spec(), self.switches())
        {
            error.message += &format!("; {text}");
        }
        error
    }

    /// What the module may reach: as much as under `start`.
    fn spec(&self) -> TokenSpec {
        let mut never = self.config.as_ref().map_or_else(Vec::new, Config::files_of_the_signer);
        if let Some(SecretSource::File(path)) = &self.pin_source {
            never.push(path.clone());
        }
        let section = self.section.as_ref();
        TokenSpec {
            module: self.module.clone(),
            profile: self.profile.clone(),
            token: self.selector.clone(),
            keys: section.map(keyring::pinned_keys).unwrap_or_default(),
            files: section.map_or_else(Vec::new, |section| section.files.clone()),
            environment: section.map_or_else(Vec::new, |section| section.environment.clone()),
            never,
        }
    }

    fn switches(&self) -> Switches {
        self.config.as_ref().map_or_else(Switches::default, Switches::of)
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

    /// The chain that `--chain` names, or the only one configured.
    pub(super) fn chain(&self, named: Option<&ChainId>) -> Result<Option<&ChainConfig>, CliError> {
        chains::named(self.config.as_ref().map_or(&[][..], |config| &config.chains), named)
    }
}

/// A profile with nothing that listing the tokens of any module would not do too.
const UNUSED: &str = "softhsm2";

/// A module whose tokens to list.
pub(super) struct ModuleTarget {
    pub(super) profile: Option<Profile>,
    spec: TokenSpec,
    switches: Switches,
}

impl ModuleTarget {
    /// By flags alone.
    fn new(path: PathBuf, profile: Option<Profile>) -> Self {
        let spec = TokenSpec {
            module: path,
            profile: profile.clone().or_else(|| Profile::builtin(UNUSED)).expect("it is built in"),
            token: TokenSelector::Label(String::new()),
            keys: Vec::new(),
            files: Vec::new(),
            environment: Vec::new(),
            never: Vec::new(),
        };
        Self { profile, spec, switches: Switches::default() }
    }

    fn in_config(config: &Config, provider: &Pkcs11Config) -> Self {
        let mut target = Self::new(provider.module.clone(), Some(provider.profile.clone()));
        target.spec.files.clone_from(&provider.files);
        target.spec.environment.clone_from(&provider.environment);
        target.spec.never = config.files_of_the_signer();
        target.switches = Switches::of(config);
        target
    }

    pub(super) fn path(&self) -> &Path {
        &self.spec.module
    }

    pub(super) fn order(&self, errand: Errand) -> Order {
        // Without a profile nobody knows which files the module needs, so that any limit would be a guess. No PIN and no
        // key is within its reach here.
        let confinement = if self.profile.is_some() { Confinement::AsSigner(self.switches) } else { Confinement::None };
        Order { errand, spec: self.spec.clone(), confinement }
    }

    pub(super) fn environment(&self) -> Environment {
        if self.profile.is_some() { Environment::AsSigner } else { Environment::Ours }
    }
}

/// The modules whose tokens to list.
pub(super) fn modules(
    config: &ConfigArgs,
    profile: Option<&str>,
    module: Option<&Path>,
) -> Result<Vec<ModuleTarget>, CliError> {
    let profile = profile.map(load_profile).transpose()?;
    match (module, profile) {
        (Some(path), profile) => Ok(vec![ModuleTarget::new(absolute(path)?, profile)]),
        (None, Some(profile)) => Ok(vec![ModuleTarget::new(usual_module(&profile)?, Some(profile))]),
        (None, None) => {
            let Some(PartialConfig { config, errors }) = config.partial()? else {
                return Err(CliError::usage(
                    "there is no configuration: name one with -c, or the device with --profile",
                ));
            };
            let mut modules: Vec<ModuleTarget> = Vec::new();
            for provider in config.pkcs11() {
                if !modules.iter().any(|module| is_same_file(module.path(), &provider.module)) {
                    modules.push(ModuleTarget::in_config(&config, provider));
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

/// The error for an outcome of another errand: a bug in the module's process.
pub(super) fn unexpected() -> CliError {
    CliError::new(Exit::Software, "the process of the PKCS#11 module answered something else than it was asked")
}

/// Refuses a module that is missing, and says what to install, or that others can write.
pub(super) fn refuse_missing(module: &Path, profile: Option<&Profile>) -> Result<(), CliError> {
    if module.is_file() {
        return inspect::refuse_module(module).map_err(|text| CliError::new(Exit::NoPermission, text));
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

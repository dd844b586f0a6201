//! Reads settings from file, environment and flags; a mistake is answered with its place and what may have been
//! meant. Sections of other kinds of daemons are skipped, so that one file can serve a whole cluster.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use shardkeep_types::DaemonKind;
use toml::{
    Table, Value,
    de::{DeTable, ValueDeserializer},
};

use crate::{ClusterConfig, DaemonConfig, LogConfig, Settings, Validate};

const ENV_PREFIX: &str = "SHARDKEEP_";
const COMMON_SECTIONS: [&str; 3] = ["daemon", "cluster", "log"];

/// Where settings come from, later ones win: file, then environment, then `--set`.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    pub file: Option<PathBuf>,
    /// Environment variables; those not of the form `SHARDKEEP_<SECTION>__<KEY>` are ignored.
    pub env: Vec<(String, String)>,
    /// `section.key=value`
    pub set: Vec<String>,
}

/// What is wrong with the settings, and where.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{location}: {message}")]
pub struct SettingsError {
    /// `file:line:column`, the environment variable or the flag.
    pub location: String,
    pub message: String,
}

impl SettingsError {
    fn new(location: impl Into<String>, message: impl Into<String>) -> Self {
        Self { location: location.into(), message: message.into() }
    }
}

impl<C: Serialize + DeserializeOwned + Default + Validate> Settings<C> {
    /// Reads, merges and checks the settings of a daemon of this kind.
    ///
    /// # Errors
    /// With file, line and column (or the variable or flag) of the first mistake, and what may have been meant.
    pub fn load(kind: DaemonKind, sources: &Sources) -> Result<Self, SettingsError> {
        let mut loader = Loader::<C>::new(kind)?;
        if let Some(file) = &sources.file {
            loader.read_file(file)?;
        }
        for (name, value) in &sources.env {
            loader.apply_env(name, value)?;
        }
        for assignment in &sources.set {
            loader.apply_flag(assignment)?;
        }
        loader.finish()
    }

    /// These settings as one table, as a file would hold them.
    pub fn to_table(&self, kind: DaemonKind) -> Table {
        let mut table = Table::new();
        let mut section = |name: &str, value: Result<Value, _>| {
            if let Ok(value) = value {
                table.insert(name.to_owned(), value);
            }
        };
        section("daemon", Value::try_from(&self.daemon));
        section("cluster", Value::try_from(&self.cluster));
        section("log", Value::try_from(&self.log));
        section(kind.as_str(), Value::try_from(&self.service));
        table
    }
}

/// Collects the sources one after another, checking each as it comes, so that a mistake has one origin.
struct Loader<C> {
    kind: DaemonKind,
    /// The defaults as a table: tells which type a variable or flag should have.
    defaults: Table,
    merged: Table,
    file: Option<(PathBuf, String)>,
    /// Who last set `section.key`, for those not from the file.
    origins: BTreeMap<String, String>,
    service: std::marker::PhantomData<C>,
}

impl<C: Serialize + DeserializeOwned + Default + Validate> Loader<C> {
    fn new(kind: DaemonKind) -> Result<Self, SettingsError> {
        let defaults = Settings::<C>::default().to_table(kind);
        if !defaults.contains_key(kind.as_str()) {
            return Err(SettingsError::new(
                "defaults",
                format!("the section [{kind}] can not be written as TOML"),
            ));
        }
        Ok(Self {
            kind,
            defaults,
            merged: Table::new(),
            file: None,
            origins: BTreeMap::new(),
            service: std::marker::PhantomData,
        })
    }

    fn read_file(&mut self, path: &Path) -> Result<(), SettingsError> {
        let shown = path.display().to_string();
        let text =
            std::fs::read_to_string(path).map_err(|error| SettingsError::new(&shown, error.to_string()))?;
        let at =
            |span: Option<std::ops::Range<usize>>| location(&shown, &text, span.map_or(0, |span| span.start));
        let sections = DeTable::parse(&text)
            .map_err(|error| SettingsError::new(at(error.span()), error.message().trim()))?;
        for (key, value) in sections.into_inner() {
            let (name, span) = (key.get_ref().to_string(), key.span());
            if !self.reads_section(&name).map_err(|message| SettingsError::new(at(Some(span)), message))? {
                continue;
            }
            self.check_section(&name, ValueDeserializer::from(value))
                .map_err(|error| SettingsError::new(at(error.span()), explain(&name, error.message())))?;
        }
        self.merged = text.parse::<Table>().map_err(|error| SettingsError::new(&shown, error.message()))?;
        self.file = Some((path.to_owned(), text));
        Ok(())
    }

    fn apply_env(&mut self, name: &str, value: &str) -> Result<(), SettingsError> {
        let Some((section, keys)) = name.strip_prefix(ENV_PREFIX).and_then(|rest| rest.split_once("__"))
        else {
            return Ok(());
        };
        let keys: Vec<String> = keys.split("__").map(str::to_ascii_lowercase).collect();
        self.assign(&section.to_ascii_lowercase(), &keys, value, &format!("environment variable {name}"))
    }

    fn apply_flag(&mut self, assignment: &str) -> Result<(), SettingsError> {
        let origin = format!("--set {assignment}");
        let (path, value) = assignment
            .split_once('=')
            .ok_or_else(|| SettingsError::new(&origin, "expected section.key=value"))?;
        let (section, keys) = path
            .trim()
            .split_once('.')
            .ok_or_else(|| SettingsError::new(&origin, "expected section.key=value"))?;
        let keys: Vec<String> = keys.split('.').map(str::to_owned).collect();
        self.assign(section, &keys, value.trim(), &origin)
    }

    fn assign(
        &mut self,
        section: &str,
        keys: &[String],
        raw: &str,
        origin: &str,
    ) -> Result<(), SettingsError> {
        if !self.reads_section(section).map_err(|message| SettingsError::new(origin, message))? {
            return Ok(());
        }
        let default =
            keys.iter().try_fold(self.defaults.get(section), |at, key| Some(at?.get(key))).flatten();
        let typed = typed_value(raw, default);
        let mut result = self.try_assign(section, keys, typed.clone());
        if result.is_err() && !typed.is_str() {
            // The key may be an optional text without a default to tell so: `--set daemon.advertise_host=7`.
            result = self.try_assign(section, keys, Value::String(raw.to_owned())).or(result);
        }
        self.merged = result.map_err(|message| SettingsError::new(origin, explain(section, &message)))?;
        self.origins.insert(format!("{section}.{}", keys[0]), origin.to_owned());
        Ok(())
    }

    fn try_assign(&self, section: &str, keys: &[String], value: Value) -> Result<Table, String> {
        let mut merged = self.merged.clone();
        let mut at = merged.entry(section).or_insert_with(|| Value::Table(Table::new()));
        for key in keys {
            let Value::Table(table) = at else { return Err(format!("`{key}` is not a table")) };
            at = table.entry(key.as_str()).or_insert_with(|| Value::Table(Table::new()));
        }
        *at = value;
        self.check_section(section, merged[section].clone()).map_err(|error| error.message().to_owned())?;
        Ok(merged)
    }

    /// Whether this daemon reads the section; an error if no daemon does.
    fn reads_section(&self, section: &str) -> Result<bool, String> {
        if COMMON_SECTIONS.contains(&section) || section == self.kind.as_str() {
            return Ok(true);
        }
        if DaemonKind::DAEMONS.iter().any(|kind| kind.as_str() == section) {
            return Ok(false);
        }
        let kinds = DaemonKind::DAEMONS.iter().map(|kind| kind.as_str());
        let all: Vec<&str> = COMMON_SECTIONS.into_iter().chain(kinds).collect();
        Err(format!("unknown section [{section}]; {}", suggest(section, &all)))
    }

    fn check_section<'de, D>(&self, name: &str, value: D) -> Result<(), toml::de::Error>
    where
        D: serde::Deserializer<'de, Error = toml::de::Error>,
    {
        match name {
            "daemon" => DaemonConfig::deserialize(value).map(drop),
            "cluster" => ClusterConfig::deserialize(value).map(drop),
            "log" => LogConfig::deserialize(value).map(drop),
            _ => C::deserialize(value).map(drop),
        }
    }

    fn finish(self) -> Result<Settings<C>, SettingsError> {
        let mut settings = Settings::<C> {
            daemon: self.section("daemon")?,
            cluster: self.section("cluster")?,
            log: self.section("log")?,
            service: self.section(self.kind.as_str())?,
        };
        apply_derived_defaults(&mut settings, self.kind).map_err(|message| {
            SettingsError::new(self.location_of("daemon", &message), format!("[daemon] {message}"))
        })?;
        let checks = [
            ("daemon", settings.daemon.validate()),
            ("cluster", settings.cluster.validate()),
            ("log", settings.log.validate()),
            (self.kind.as_str(), settings.service.validate()),
        ];
        for (section, result) in checks {
            result.map_err(|message| {
                SettingsError::new(self.location_of(section, &message), format!("[{section}] {message}"))
            })?;
        }
        Ok(settings)
    }

    fn section<T: DeserializeOwned + Default>(&self, name: &str) -> Result<T, SettingsError> {
        let Some(value) = self.merged.get(name) else { return Ok(T::default()) };
        value.clone().try_into().map_err(|error: toml::de::Error| SettingsError::new(name, error.message()))
    }

    /// Where the key was set that a validation message begins with.
    fn location_of(&self, section: &str, message: &str) -> String {
        let key = message.split_once(':').map_or("", |(key, _)| key);
        if let Some(origin) = self.origins.get(&format!("{section}.{key}")) {
            return origin.clone();
        }
        let Some((path, text)) = &self.file else { return "settings".to_owned() };
        let offset = DeTable::parse(text).ok().and_then(|sections| {
            let sections = sections.into_inner();
            let (_, table) = sections.iter().find(|(name, _)| name.get_ref() == section)?;
            let (name, _) = table.get_ref().as_table()?.iter().find(|(name, _)| name.get_ref() == key)?;
            Some(name.span().start)
        });
        let shown = path.display().to_string();
        offset.map_or_else(|| shown.clone(), |offset| location(&shown, text, offset))
    }
}

/// Defaults that depend on the kind and the name.
fn apply_derived_defaults<C>(settings: &mut Settings<C>, kind: DaemonKind) -> Result<(), String> {
    match settings.daemon.name.as_str() {
        "" => settings.daemon.name = format!("{kind}-1"),
        "auto" => settings.daemon.name = format!("{kind}-{}", host_name()?),
        _ => {}
    }
    let name = &settings.daemon.name;
    if settings.cluster.cert.as_os_str().is_empty() {
        settings.cluster.cert = format!("certs/{name}.pem").into();
    }
    if settings.cluster.key.as_os_str().is_empty() {
        settings.cluster.key = format!("certs/{name}.key").into();
    }
    Ok(())
}

/// This machine's or container's name, without its domain.
fn host_name() -> Result<String, String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map_err(|error| format!("name: the host has no name to find: {error}"))?;
    Ok(name.trim().split('.').next().unwrap_or_default().to_owned())
}

/// A variable's or flag's text as the type that the default has; without one, as TOML if it is that, else as text.
fn typed_value(raw: &str, default: Option<&Value>) -> Value {
    let parsed = ValueDeserializer::parse(raw).and_then(Value::deserialize).ok();
    match default {
        Some(Value::String(_)) => {
            parsed.filter(Value::is_str).unwrap_or_else(|| Value::String(raw.to_owned()))
        }
        Some(Value::Array(_)) if !raw.trim_start().starts_with('[') => {
            let items = raw.split(',').map(str::trim).filter(|item| !item.is_empty());
            Value::Array(items.map(|item| typed_value(item, None)).collect())
        }
        _ => parsed.unwrap_or_else(|| Value::String(raw.to_owned())),
    }
}

fn location(file: &str, text: &str, offset: usize) -> String {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().map_or(0, |line| line.chars().count()) + 1;
    format!("{file}:{line}:{column}")
}

/// Serde's message, with the nearest valid key first: the words in back-ticks are the unknown name, then those that
/// would have been valid.
fn explain(section: &str, message: &str) -> String {
    let message = message.lines().next().unwrap_or(message);
    let quoted: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    match quoted.split_first() {
        Some((unknown, valid)) if message.starts_with("unknown field") => {
            format!("unknown key `{unknown}` in [{section}]; {}", suggest(unknown, valid))
        }
        Some((unknown, valid)) if message.starts_with("unknown variant") => {
            format!("unknown value `{unknown}` in [{section}]; {}", suggest(unknown, valid))
        }
        _ => format!("[{section}] {message}"),
    }
}

fn suggest(wrong: &str, valid: &[&str]) -> String {
    let nearest =
        valid.iter().max_by(|a, b| strsim::jaro_winkler(wrong, a).total_cmp(&strsim::jaro_winkler(wrong, b)));
    match nearest {
        Some(nearest) if strsim::jaro_winkler(wrong, nearest) > 0.7 => format!("did you mean `{nearest}`?"),
        Some(_) => format!("valid: {}", valid.join(", ")),
        None => "it has no keys".to_owned(),
    }
}

//! Reads settings from file, environment and flags, and reports every mistake with its place and the nearest valid key.
//! Sections of other kinds of daemons are skipped, so that one file can serve a whole cluster.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use shardkeep_types::DaemonKind;
use toml::{
    Spanned, Table, Value,
    de::{DeTable, DeValue, ValueDeserializer},
};

use crate::{ClusterConfig, DaemonConfig, LogConfig, Settings, Validate};

const ENV_PREFIX: &str = "SHARDKEEP_";
const COMMON_SECTIONS: [&str; 3] = ["daemon", "cluster", "log"];

/// Sources of settings. A later source overrides an earlier one: file, environment, `--set`.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    pub file: Option<PathBuf>,
    /// Environment variables. Names other than `SHARDKEEP_<SECTION>__<KEY>` are ignored.
    pub env: Vec<(String, String)>,
    /// `section.key=value`
    pub set: Vec<String>,
}

/// Every mistake in the settings.
#[derive(Debug, PartialEq, Eq)]
pub struct SettingsError {
    pub mistakes: Vec<SettingsMistake>,
}

/// One mistake and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingsMistake {
    /// `file:line:column`, the environment variable or the flag.
    pub location: String,
    pub message: String,
}

impl std::error::Error for SettingsError {}

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, SettingsMistake { location, message }) in self.mistakes.iter().enumerate() {
            let line_break = if number == 0 { "" } else { "\n" };
            write!(f, "{line_break}{location}: {message}")?;
        }
        Ok(())
    }
}

impl<C: Serialize + DeserializeOwned + Default + Validate> Settings<C> {
    /// Reads, merges and checks the settings of a daemon of this kind.
    ///
    /// # Errors
    /// All mistakes, each with file, line and column (or the variable or flag) and the nearest valid key.
    pub fn load(kind: DaemonKind, sources: &Sources) -> Result<Self, SettingsError> {
        let mut loader = Loader::<C>::new(kind);
        if let Some(file) = &sources.file {
            loader.read_file(file);
        }
        for (name, value) in &sources.env {
            loader.apply_env(name, value);
        }
        for assignment in &sources.set {
            loader.apply_flag(assignment);
        }
        loader.finish()
    }

    /// These settings as a table, in the form of a settings file.
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

/// Collects the sources one after another. It checks each source alone, so that each mistake has one place, and goes on
/// without the faulty key, so that it finds the next mistake.
struct Loader<C> {
    kind: DaemonKind,
    /// The defaults as a table: the types of variables and flags.
    defaults: Table,
    merged: Table,
    file: Option<(PathBuf, String)>,
    /// The variable or flag that set `section.key`. Keys of the file are not in it.
    origins: BTreeMap<String, String>,
    mistakes: Vec<SettingsMistake>,
    service: std::marker::PhantomData<C>,
}

impl<C: Serialize + DeserializeOwned + Default + Validate> Loader<C> {
    fn new(kind: DaemonKind) -> Self {
        Self {
            kind,
            defaults: Settings::<C>::default().to_table(kind),
            merged: Table::new(),
            file: None,
            origins: BTreeMap::new(),
            mistakes: Vec::new(),
            service: std::marker::PhantomData,
        }
    }

    fn report(&mut self, location: impl Into<String>, message: impl Into<String>) {
        self.mistakes.push(SettingsMistake { location: location.into(), message: message.into() });
    }

    fn read_file(&mut self, path: &Path) {
        let shown = path.display().to_string();
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) => return self.report(&shown, error.to_string()),
        };
        let at =
            |span: Option<std::ops::Range<usize>>| location(&shown, &text, span.map_or(0, |span| span.start));
        let sections = match DeTable::parse(&text) {
            Ok(sections) => sections.into_inner(),
            Err(error) => return self.report(at(error.span()), error.message().trim()),
        };
        for (key, value) in sections {
            let name = key.get_ref().to_string();
            match self.reads_section(&name) {
                Ok(true) => self.read_section(&name, value, at),
                Ok(false) => {}
                Err(message) => self.report(at(Some(key.span())), message),
            }
        }
        self.file = Some((path.to_owned(), text));
    }

    /// Checks one section of the file. After a mistake it removes the faulty key and checks the rest.
    fn read_section(
        &mut self,
        name: &str,
        mut section: Spanned<DeValue<'_>>,
        at: impl Fn(Option<std::ops::Range<usize>>) -> String,
    ) {
        while let Err(error) = self.check_section(name, ValueDeserializer::from(section.clone())) {
            let (span, message) = (error.span(), error.message().to_owned());
            let removed = match (&span, section.get_mut()) {
                (Some(span), DeValue::Table(table)) => remove_at(table, span.start),
                _ => None,
            };
            self.report(at(span), explain(name, removed.as_deref(), &message));
            if removed.is_none() {
                return;
            }
        }
        if let Ok(value) = Value::deserialize(ValueDeserializer::from(section)) {
            self.merged.insert(name.to_owned(), value);
        }
    }

    fn apply_env(&mut self, name: &str, value: &str) {
        let path = name.strip_prefix(ENV_PREFIX).and_then(|rest| rest.split_once("__"));
        let Some((section, keys)) = path else { return };
        let keys: Vec<String> = keys.split("__").map(str::to_ascii_lowercase).collect();
        self.assign(&section.to_ascii_lowercase(), &keys, value, &format!("environment variable {name}"));
    }

    fn apply_flag(&mut self, assignment: &str) {
        let origin = format!("--set {assignment}");
        let parts =
            assignment.split_once('=').and_then(|(path, value)| Some((path.trim().split_once('.')?, value)));
        let Some(((section, keys), value)) = parts else {
            return self.report(origin, "expected section.key=value");
        };
        let keys: Vec<String> = keys.split('.').map(str::to_owned).collect();
        self.assign(section, &keys, value.trim(), &origin);
    }

    fn assign(&mut self, section: &str, keys: &[String], raw: &str, origin: &str) {
        match self.reads_section(section) {
            Ok(true) => {}
            Ok(false) => return,
            Err(message) => return self.report(origin, message),
        }
        let default =
            keys.iter().try_fold(self.defaults.get(section), |at, key| Some(at?.get(key))).flatten();
        let typed = typed_value(raw, default);
        let mut result = self.try_assign(section, keys, typed.clone());
        if result.is_err() && !typed.is_str() {
            // The key may be an optional text, whose type no default shows: `--set daemon.advertise_host=7`.
            result = self.try_assign(section, keys, Value::String(raw.to_owned())).or(result);
        }
        match result {
            Ok(merged) => {
                self.merged = merged;
                self.origins.insert(format!("{section}.{}", keys[0]), origin.to_owned());
            }
            Err(message) => self.report(origin, explain(section, Some(&keys.join(".")), &message)),
        }
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

    /// Whether this daemon reads the section.
    ///
    /// # Errors
    /// No daemon reads the section.
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

    /// Validates the settings. After a mistake it resets the faulty key to its default and validates the rest.
    fn finish(mut self) -> Result<Settings<C>, SettingsError> {
        loop {
            let mut settings = Settings::<C> {
                daemon: self.section("daemon"),
                cluster: self.section("cluster"),
                log: self.section("log"),
                service: self.section(self.kind.as_str()),
            };
            let Err((section, message)) = validate(&mut settings, self.kind) else {
                if self.mistakes.is_empty() {
                    return Ok(settings);
                }
                break;
            };
            let shown = format!("[{section}] {message}");
            if self.mistakes.iter().any(|mistake| mistake.message == shown) {
                break;
            }
            self.report(self.location_of(section, &message), shown);
            let key = message.split([':', '.']).next().unwrap_or_default();
            let table = self.merged.get_mut(section).and_then(Value::as_table_mut);
            if table.and_then(|table| table.remove(key)).is_none() {
                break;
            }
        }
        Err(SettingsError { mistakes: self.mistakes })
    }

    /// The section without its faulty keys. Those are reported already.
    fn section<T: DeserializeOwned + Default>(&self, name: &str) -> T {
        let value = self.merged.get(name).cloned();
        value.and_then(|value| value.try_into().ok()).unwrap_or_default()
    }

    /// The place where the key at the start of a validation message was set.
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

/// Applies the derived defaults, and returns the first section and message that are invalid.
fn validate<C: Validate>(settings: &mut Settings<C>, kind: DaemonKind) -> Result<(), (&'static str, String)> {
    let in_section = |section| move |message| (section, message);
    apply_derived_defaults(settings, kind).map_err(in_section("daemon"))?;
    settings.daemon.validate().map_err(in_section("daemon"))?;
    settings.cluster.validate().map_err(in_section("cluster"))?;
    settings.log.validate().map_err(in_section("log"))?;
    settings.service.validate().map_err(in_section(kind.as_str()))
}

/// Removes the key whose name or value is at this offset of the file, and returns its path.
fn remove_at(table: &mut DeTable<'_>, offset: usize) -> Option<String> {
    for (name, value) in &mut *table {
        if let DeValue::Table(inner) = value.get_mut()
            && let Some(path) = remove_at(inner, offset)
        {
            return Some(format!("{}.{path}", name.get_ref()));
        }
    }
    let found =
        table.iter().find(|(name, value)| name.span().contains(&offset) || value.span().contains(&offset));
    let name = found.map(|(name, _)| name.clone())?;
    table.remove(&name);
    Some(name.get_ref().to_string())
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

/// The name of this machine or container, without its domain.
fn host_name() -> Result<String, String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map_err(|error| format!("name: cannot read the host name: {error}; set daemon.name"))?;
    Ok(name.trim().split('.').next().unwrap_or_default().to_owned())
}

/// The text of a variable or flag in the type of the default. Without a default: as TOML, or as text if it is not TOML.
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

/// The message of serde in plain words, with the key and the nearest valid name.
fn explain(section: &str, key: Option<&str>, message: &str) -> String {
    let message = message.lines().next().unwrap_or(message);
    // The unknown name and the valid names are in back-ticks.
    let quoted: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    match quoted.split_first() {
        Some((unknown, valid)) if message.starts_with("unknown field") => {
            return format!("unknown key `{unknown}` in [{section}]; {}", suggest(unknown, valid));
        }
        Some((unknown, valid)) if message.starts_with("unknown variant") => {
            return format!("unknown value `{unknown}` in [{section}]; {}", suggest(unknown, valid));
        }
        _ => {}
    }
    let types = ["invalid type: ", "invalid value: "].into_iter().find_map(|it| message.strip_prefix(it));
    let shown = types.and_then(|types| types.split_once(", expected ")).map_or_else(
        || message.to_owned(),
        |(found, expected)| format!("expected {}, found {}", plain_type(expected), plain_value(found)),
    );
    key.map_or_else(|| format!("[{section}] {shown}"), |key| format!("[{section}] {key}: {shown}"))
}

fn plain_type(expected: &str) -> &str {
    match expected {
        "u8" => "a whole number from 0 to 255",
        "u16" => "a whole number from 0 to 65535",
        "u32" => "a whole number from 0 to 4294967295",
        "u64" | "usize" => "a whole number, 0 or more",
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number",
        "f32" | "f64" => "a number",
        "a boolean" => "true or false",
        "a string" | "path string" => "a text in quotes",
        "a sequence" => "a list in square brackets",
        table if table == "a map" || table.starts_with("struct ") => "a table",
        other => other,
    }
}

fn plain_value(found: &str) -> String {
    let inner = |prefix: &str| found.strip_prefix(prefix).map(|value| value.trim_matches('`').to_owned());
    if let Some(text) = inner("string ") {
        return format!("the text {text}");
    }
    if let Some(number) = inner("integer ").or_else(|| inner("floating point ")) {
        return format!("the number {number}");
    }
    match found {
        "sequence" => "a list".to_owned(),
        "map" => "a table".to_owned(),
        other => inner("boolean ").unwrap_or_else(|| other.to_owned()),
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

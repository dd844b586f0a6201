//! Checks the settings of every daemon before the first one starts, so that an error names a line of the user's file and
//! not of a file that `up` wrote.

use std::path::Path;

use shardkeep_daemon::{Service, Settings, SettingsError, Sources};
use shardkeep_types::DaemonKind;
use toml::{Table, Value};

use super::plan::{self, ClusterOptions};
use crate::data_dir::DataDir;

/// Reads the user's file and the environment as each kind of daemon will, with what the plan adds.
///
/// # Errors
/// Every mistake, with its place.
pub fn check(options: &ClusterOptions, dir: &DataDir, file: &Path) -> Result<(), SettingsError> {
    let env: Vec<(String, String)> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    let mut mistakes = Vec::new();
    let bare = ClusterOptions { overrides: Table::new(), ..options.clone() };
    for child in plan::children(0).iter().filter(|child| child.name.ends_with("-1")) {
        let planned = plan::config(&bare, dir, child, None);
        let set = plan_only_settings(&planned, &options.overrides);
        let sources = Sources { file: Some(file.to_owned()), env: env.clone(), set };
        if let Err(error) = check_as(child.kind, &sources) {
            // Mistakes in common sections are found once per kind.
            mistakes
                .extend(error.mistakes.into_iter().filter(|it| !mistakes.contains(it)).collect::<Vec<_>>());
        }
    }
    if mistakes.is_empty() { Ok(()) } else { Err(SettingsError { mistakes }) }
}

fn check_as(kind: DaemonKind, sources: &Sources) -> Result<(), SettingsError> {
    fn load<S: Service>(sources: &Sources) -> Result<(), SettingsError> {
        Settings::<S::Config>::load(S::KIND, sources).map(drop)
    }
    match kind {
        DaemonKind::Dns => load::<shardkeep_dns::Dns>(sources),
        DaemonKind::Login => load::<shardkeep_login::Login>(sources),
        DaemonKind::Registry => load::<shardkeep_registry::Registry>(sources),
        DaemonKind::Gateway => load::<shardkeep_gateway::Gateway>(sources),
        DaemonKind::World => load::<shardkeep_world::World>(sources),
        DaemonKind::Zone => load::<shardkeep_zone::Zone>(sources),
        DaemonKind::Ai => load::<shardkeep_ai::Ai>(sources),
        DaemonKind::Chat => load::<shardkeep_chat::Chat>(sources),
        DaemonKind::Dbcache => load::<shardkeep_dbcache::Dbcache>(sources),
        DaemonKind::Billing => load::<shardkeep_billing::Billing>(sources),
        DaemonKind::Gm => load::<shardkeep_gm::Gm>(sources),
        DaemonKind::Logs => load::<shardkeep_logs::Logs>(sources),
        // They have no settings.
        DaemonKind::Backend | DaemonKind::Cli => Ok(()),
    }
}

/// The settings of the plan that the user does not set, as `section.key=value`. They would otherwise override the file.
fn plan_only_settings(planned: &Table, users: &Table) -> Vec<String> {
    let mut set = Vec::new();
    for (section, values) in planned {
        if let Value::Table(values) = values {
            flatten(section, values, users.get(section).and_then(Value::as_table), &mut set);
        }
    }
    set
}

fn flatten(path: &str, values: &Table, users: Option<&Table>, set: &mut Vec<String>) {
    for (key, value) in values {
        let (path, user_value) = (format!("{path}.{key}"), users.and_then(|users| users.get(key)));
        match value {
            Value::Table(inner) => flatten(&path, inner, user_value.and_then(Value::as_table), set),
            value if user_value.is_none() => set.push(format!("{path}={value}")),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::up::region::Region;

    fn checked(text: &str, region: Option<Region>) -> Result<(), String> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("mine.toml");
        std::fs::write(&file, text).unwrap();
        let options =
            ClusterOptions { region, overrides: text.parse().unwrap(), ..ClusterOptions::default() };
        let dir = DataDir::new(folder.path()).unwrap();
        check(&options, &dir, &file)
            .map_err(|error| error.to_string().replace(&format!("{}/", folder.path().display()), ""))
    }

    #[test]
    fn settings_error_points_to_user_file() {
        assert_eq!(checked("", None), Ok(()));
        assert_eq!(checked("[world]\ncapacity = 5\n[zone]\nmax_avatars = 10\n", None), Ok(()));
        let unknown = checked("# mine\n[zone]\nmax_avatar = 10\n", None).unwrap_err();
        assert!(unknown.starts_with("mine.toml:3:1: unknown key `max_avatar` in [zone]"), "{unknown}");
        let wrong = checked("[world]\n\ntick_hz = 0\n", None).unwrap_err();
        assert!(wrong.starts_with("mine.toml:3:"), "{wrong}");
    }

    #[test]
    fn mistakes_in_sections_of_several_daemons_are_all_reported() {
        let text = "[zone]\nmax_avatar = 10\n[chat]\nrates = 7\n";
        let mistakes = checked(text, None).unwrap_err();
        for mistake in ["max_avatar", "rates"] {
            let lines = mistakes.lines().filter(|line| line.contains(&format!("`{mistake}`")));
            assert_eq!(lines.count(), 1, "{mistake}: {mistakes}");
        }
    }

    #[test]
    fn planned_settings_are_included_in_check() {
        let adopt = "[login.central]\nadopt = true\n";
        assert!(checked(adopt, None).is_err(), "adopting is for a home region");
        assert_eq!(checked(adopt, Some(Region::Home { name: "eu".into() })), Ok(()));
    }
}

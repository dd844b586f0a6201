//! Settings from files, environment and flags: valid ones are read, mistakes are named with their place.

use std::{path::Path, time::Duration};

use shardkeep_daemon::{LogFormat, Settings, SettingsError, Sources};
use shardkeep_types::DaemonKind;

use crate::service::{Act, Config};

fn load(sources: &Sources) -> Result<Settings<Config>, SettingsError> {
    Settings::load(DaemonKind::Gateway, sources)
}

fn folder(name: &str) -> Vec<std::path::PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/settings").join(name);
    let files: Vec<_> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(!files.is_empty());
    files
}

fn with_flags(set: &[&str]) -> Sources {
    Sources { set: set.iter().map(ToString::to_string).collect(), ..Sources::default() }
}

#[test]
fn valid_settings_files_load() {
    for file in folder("valid") {
        let result = load(&Sources { file: Some(file.clone()), ..Sources::default() });
        assert!(result.is_ok(), "{}: {:?}", file.display(), result.err());
    }
}

/// Each file's first line says what must be complained about.
#[test]
fn invalid_settings_error_names_the_location() {
    for file in folder("invalid") {
        let text = std::fs::read_to_string(&file).unwrap();
        let wanted = text.lines().next().unwrap().trim_start_matches("# ");
        let message =
            load(&Sources { file: Some(file.clone()), ..Sources::default() }).unwrap_err().to_string();
        let (_, shown) = message.split_once("invalid/").unwrap_or_else(|| panic!("{message}"));
        assert!(shown.starts_with(wanted), "\n  said   {shown}\n  wanted {wanted}");
    }
}

#[test]
fn missing_settings_file_is_named() {
    let sources = Sources { file: Some("/nowhere/at/all.toml".into()), ..Sources::default() };
    assert!(load(&sources).unwrap_err().to_string().starts_with("/nowhere/at/all.toml: "));
}

#[test]
fn settings_file_values_are_all_loaded() {
    let file = folder("valid").into_iter().find(|path| path.ends_with("everything.toml"));
    let settings = load(&Sources { file, ..Sources::default() }).unwrap();
    assert_eq!(settings.daemon.name, "gateway-7");
    assert_eq!(settings.daemon.grace, Duration::from_secs(60));
    assert_eq!(settings.cluster.registries, ["registry-1:7000", "registry-2:7000"]);
    assert_eq!(settings.cluster.world, 3);
    assert_eq!(settings.log.format, LogFormat::Json);
    assert_eq!((settings.service.sessions, settings.service.limits.rate), (12, 2.5));
    // Follows from the name.
    assert_eq!(settings.cluster.cert, Path::new("certs/gateway-7.pem"));
}

#[test]
fn flags_override_environment_and_environment_the_file() {
    let file = folder("valid").into_iter().find(|path| path.ends_with("everything.toml"));
    let mut sources = Sources { file, ..Sources::default() };
    sources.env = vec![("SHARDKEEP_GATEWAY__SESSIONS".into(), "13".into())];
    assert_eq!(load(&sources).unwrap().service.sessions, 13);
    sources.set = vec!["gateway.sessions=14".into()];
    let settings = load(&sources).unwrap();
    assert_eq!((settings.service.sessions, settings.service.limits.rate), (14, 2.5));
}

#[test]
fn flag_texts_lists_and_numbers_need_no_quotes() {
    let settings = load(&with_flags(&[
        "gateway.store=postgres://localhost/game?x=1",
        "gateway.listen=127.0.0.1:1, 127.0.0.1:2",
        "gateway.limits.rate=1.5",
        "gateway.act=never_finish",
        "gateway.title=7",
        "daemon.name=123",
        "cluster.registries=one:1",
    ]))
    .unwrap();
    assert_eq!(settings.service.store, "postgres://localhost/game?x=1");
    assert_eq!(settings.service.listen, ["127.0.0.1:1", "127.0.0.1:2"]);
    assert_eq!(settings.service.limits.rate, 1.5);
    assert_eq!(settings.service.act, Act::NeverFinish);
    assert_eq!(settings.service.title.as_deref(), Some("7"));
    assert_eq!(settings.daemon.name, "123");
    assert_eq!(settings.cluster.registries, ["one:1"]);
}

#[test]
fn settings_error_names_the_flag_or_variable() {
    let cases = [
        (with_flags(&["gateway.sesions=1"]), "--set gateway.sesions=1: unknown key `sesions`"),
        (with_flags(&["sessions=1"]), "--set sessions=1: expected section.key=value"),
        (with_flags(&["gateway.sessions=0"]), "--set gateway.sessions=0: [gateway] sessions: must be"),
        (
            with_flags(&["gateway.store.deep=0"]),
            "--set gateway.store.deep=0: [gateway] store.deep: expected a text in quotes, found a table",
        ),
    ];
    for (sources, wanted) in cases {
        let message = load(&sources).unwrap_err().to_string();
        assert!(message.starts_with(wanted), "{message}");
    }
    let env = |name: &str| Sources { env: vec![(name.into(), "1".into())], ..Sources::default() };
    let message = load(&env("SHARDKEEP_GATEWAY__SESION")).unwrap_err().to_string();
    assert!(message.starts_with("environment variable SHARDKEEP_GATEWAY__SESION: unknown key"), "{message}");
    assert!(message.ends_with("did you mean `sessions`?"), "{message}");
    // Other programs' variables, and other daemons'.
    assert!(load(&env("SHARDKEEP_CONFIG")).is_ok());
    assert!(load(&env("SHARDKEEP_ZONE__ANYTHING")).is_ok());
}

#[test]
fn settings_error_lists_every_mistake() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("shardkeep.toml");
    let text = "[gateway]\nsesions = 1\nsessions = \"lots\"\nlimits.rate = true\n\n[gatway]\n\n[daemon]\n\
                grpc = \"localhost\"\nadmin = \"localhost\"\n[log]\nformat = \"jsn\"\n";
    std::fs::write(&file, text).unwrap();
    let sources = Sources {
        file: Some(file),
        env: vec![("SHARDKEEP_CLUSTER__WORLD".into(), "many".into())],
        set: vec!["gateway.sessions=0".into(), "gateway.titel=x".into()],
    };
    let error = load(&sources).unwrap_err();
    let mut found: Vec<&str> = error.mistakes.iter().map(|it| it.message.as_str()).collect();
    found.sort_unstable();
    let number = "expected a whole number from 0 to 4294967295, found the text";
    let mut wanted = vec![
        "unknown key `sesions` in [gateway]; did you mean `sessions`?".to_owned(),
        format!("[gateway] sessions: {number} \"lots\""),
        "[gateway] limits.rate: expected a number, found true".to_owned(),
        "unknown section [gatway]; did you mean `gateway`?".to_owned(),
        "[daemon] grpc: \"localhost\" is not an address with a port, such as 127.0.0.1:0".to_owned(),
        "[daemon] admin: \"localhost\" is not an address with a port, such as 127.0.0.1:0".to_owned(),
        "unknown value `jsn` in [log]; did you mean `json`?".to_owned(),
        format!("[cluster] world: {number} \"many\""),
        "[gateway] sessions: must be at least 1".to_owned(),
        "unknown key `titel` in [gateway]; did you mean `title`?".to_owned(),
    ];
    wanted.sort_unstable();
    assert_eq!(found, wanted, "{error}");
}

#[test]
fn auto_name_uses_the_host_name() {
    let settings = load(&with_flags(&["daemon.name=auto"])).unwrap();
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    assert_eq!(settings.daemon.name, format!("gateway-{}", host.trim().split('.').next().unwrap()));
}

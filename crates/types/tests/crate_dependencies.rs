//! The dependency arrows of ARCHITECTURE.md hold, read from `cargo metadata`. This crate is where all arrows
//! end, so the test builds in a second and runs with the lints.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
};

use serde_json::Value;

const PURE: [&str; 7] = ["types", "names", "wire", "auth", "sim", "behavior", "patch"];
const SERVICES: [&str; 12] = [
    "dns", "login", "registry", "gateway", "world", "zone", "ai", "chat", "dbcache", "billing", "gm", "logs",
];

/// Crates of ours that each crate may depend on, besides `types`.
fn allowed(name: &str) -> BTreeSet<&'static str> {
    let base = [
        "link",
        "cluster",
        "store",
        "bus",
        "daemon",
        "rpc",
        "lanes",
        "wire",
        "auth",
        "sim",
        "behavior",
        "journal",
        "patch",
        "connection",
        "names",
        "update",
    ];
    let allowed: Vec<&str> = match name {
        "types" | "names" | "bus" | "sim" | "behavior" => vec![],
        "store" => vec!["names"],
        "journal" => vec!["sim"],
        "wire" => vec![],
        "auth" => vec!["names", "wire"],
        "lanes" | "patch" => vec!["wire"],
        "rpc" => vec![],
        "daemon" => vec!["rpc"],
        "cluster" => vec!["daemon", "rpc"],
        "link" => vec!["cluster", "rpc"],
        "client" => vec!["lanes", "wire", "auth", "patch"],
        "connection" => vec!["lanes", "wire", "auth"],
        "update" => vec!["connection", "daemon", "lanes", "patch", "wire"],
        "testkit" => SERVICES.into_iter().chain(base).chain(["client"]).collect(),
        "cli" => {
            let more = [
                "client", "auth", "patch", "wire", "daemon", "cluster", "rpc", "store", "bus", "update",
                "sim", "journal",
            ];
            SERVICES.into_iter().chain(more).collect()
        }
        "example-dice" => vec!["link", "cluster", "rpc", "client", "daemon", "wire"],
        "attack" => vec!["auth", "client", "cli"],
        "stories" | "bench" => SERVICES.into_iter().chain(base).chain(["client", "testkit", "cli"]).collect(),
        service if SERVICES.contains(&service) => base.to_vec(),
        other => panic!("crate {other} has no place in the arrows: give it one here and in ARCHITECTURE.md"),
    };
    allowed.into_iter().chain(["types"]).collect()
}

/// Our crates and the names of everything each depends on; development dependencies apart.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo metadata is JSON");
    let text = |value: &Value| value.as_str().expect("a string").to_owned();
    metadata["packages"]
        .as_array()
        .expect("a list of packages")
        .iter()
        .map(|package| {
            let dependencies = package["dependencies"].as_array().expect("a list of dependencies");
            let normal = dependencies.iter().filter(|it| it["kind"].is_null()).map(|it| text(&it["name"]));
            (short(&text(&package["name"])), normal.collect())
        })
        .collect()
}

/// `shardkeep-zone` is `zone`; `shardkeep` itself is the tool, `cli`.
fn short(name: &str) -> String {
    if name == "shardkeep" { "cli".into() } else { name.trim_start_matches("shardkeep-").into() }
}

#[test]
fn crates_depend_only_on_allowed_crates() {
    let mut wrong = Vec::new();
    for (name, dependencies) in dependencies() {
        let allowed = allowed(&name);
        for dependency in dependencies.iter().filter(|it| it.starts_with("shardkeep")) {
            if !allowed.contains(short(dependency).as_str()) {
                wrong.push(format!("{name} must not depend on {dependency}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn pure_crates_have_no_runtime_socket_or_clock() {
    let impure =
        ["tokio", "tokio-util", "tonic", "hyper", "axum", "sqlx", "redis", "socket2", "rand", "async-trait"];
    for (name, dependencies) in dependencies().into_iter().filter(|(name, _)| PURE.contains(&name.as_str())) {
        for dependency in impure {
            assert!(!dependencies.contains(dependency), "{name} is pure and must not depend on {dependency}");
        }
    }
}

#[test]
fn every_service_has_a_crate() {
    let dependencies = dependencies();
    for service in SERVICES {
        assert!(dependencies.contains_key(service), "no crate for the daemon {service}");
    }
}

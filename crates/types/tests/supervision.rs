//! Services start no task that nothing supervises: a panic in it would leave a daemon that goes on without the task.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Calls that start a task or a thread.
const SPAWNS: [&str; 4] = ["tokio::spawn(", "task::spawn(", ".spawn(", "spawn_local("];
/// Wrappers and receivers that supervise it.
const SUPERVISED: [&str; 6] =
    ["daemon.spawn(", "daemon().spawn(", "self.spawn(", "supervised(", "contained(", "supervision: "];
/// Lines around the call that are searched for a wrapper.
const CONTEXT: usize = 3;

fn rust_files(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            rust_files(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// Lines with a bare spawn, in the part of the file before its tests.
fn bare_spawns(text: &str) -> Vec<usize> {
    let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or(text);
    let lines: Vec<&str> = code.lines().collect();
    let is_bare = |number: &usize| {
        let line = lines[*number];
        let around = &lines[number.saturating_sub(CONTEXT)..(number + CONTEXT + 1).min(lines.len())];
        !line.trim_start().starts_with("//")
            && SPAWNS.iter().any(|spawn| line.contains(spawn))
            && !around.iter().any(|line| SUPERVISED.iter().any(|supervised| line.contains(supervised)))
    };
    (0..lines.len()).filter(is_bare).map(|number| number + 1).collect()
}

#[test]
fn services_start_no_unsupervised_task() {
    let services = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../services");
    let mut files = Vec::new();
    rust_files(&services, &mut files);
    assert!(files.len() > 100, "the services were not found");
    let mut wrong = Vec::new();
    for file in files.iter().filter(|file| !file.components().any(|part| part.as_os_str() == "tests")) {
        let text = fs::read_to_string(file).expect("a source file");
        wrong.extend(bare_spawns(&text).iter().map(|line| format!("{}:{line}", file.display())));
    }
    assert!(
        wrong.is_empty(),
        "use Daemon::spawn, Daemon::spawn_work or shardkeep_daemon::contained, or say `// supervision: …` how a panic \
         is noticed:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn bare_spawn_is_found_and_supervised_spawn_is_not() {
    assert_eq!(bare_spawns("fn a() {\n    tokio::spawn(work);\n}\n"), [2]);
    assert_eq!(bare_spawns("    tasks.spawn(work);\n"), [1]);
    assert!(bare_spawns("    tokio::spawn(contained(\"work\", work));\n").is_empty());
    assert!(bare_spawns("    daemon.spawn(\"work\", work);\n").is_empty());
    assert!(bare_spawns("#[cfg(test)]\nmod tests {\n    tokio::spawn(work);\n").is_empty());
}

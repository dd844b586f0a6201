//! Hashes the source code of the simulation, so that a snapshot or a journal of another version is recognised.

#![allow(clippy::disallowed_methods, reason = "a build script is not the simulation")]

use std::{
    env, fs,
    path::{Path, PathBuf},
};

/// The sources of other crates whose code decides outcomes.
const OTHERS: [&str; 3] = ["../types/src/id.rs", "../types/src/position.rs", "../types/src/random.rs"];

fn main() {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets the manifest's folder"));
    let mut sources: Vec<PathBuf> = OTHERS.map(PathBuf::from).into();
    collect(&root, Path::new("src"), &mut sources);
    sources.sort();
    // FNV-1a: it needs to recognise changes, not attacks.
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    for source in &sources {
        println!("cargo::rerun-if-changed={}", source.display());
        let text = fs::read(root.join(source)).expect("a source file is readable");
        for byte in text.into_iter().filter(|&byte| byte != b'\r').chain([0]) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    println!("cargo::rerun-if-changed=src");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets the output folder"));
    fs::write(out.join("schema.rs"), format!("{hash:#x}")).expect("the output folder is writable");
}

fn collect(root: &Path, folder: &Path, sources: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(root.join(folder)).expect("the source folder is readable") {
        let name = entry.expect("a folder entry is readable").file_name();
        let path = folder.join(name);
        if root.join(&path).is_dir() {
            collect(root, &path, sources);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            sources.push(path);
        }
    }
}

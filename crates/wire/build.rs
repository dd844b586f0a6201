//! Generates the payload types of the client protocol from `proto/client/`.

use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../proto");
    let mut files = Vec::new();
    for entry in std::fs::read_dir(root.join("client"))? {
        files.push(entry?.path());
    }
    files.sort();
    println!("cargo::rerun-if-changed={}", root.join("client").display());
    prost_build::Config::new().compile_fds(protox::compile(&files, [&root])?)?;
    Ok(())
}

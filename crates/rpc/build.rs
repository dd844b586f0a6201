//! Generates the gRPC code of `proto/` with a compiler written in Rust, so that a build needs no protoc.

use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../proto");
    let mut files = Vec::new();
    for entry in std::fs::read_dir(&root)? {
        let path = entry?.path();
        if path.extension().is_some_and(|ext| ext == "proto") {
            files.push(path);
        }
    }
    files.sort();
    println!("cargo::rerun-if-changed={}", root.display());
    let descriptors = protox::compile(&files, [&root])?;
    // These carry secrets; how they show themselves is in `masked.rs`.
    let masked = ["Account", "CreateRequest", "SetProofRequest", "SetSecondFactorRequest"];
    let masked = masked.map(|message| format!(".shardkeep.central.v1.{message}"));
    tonic_prost_build::configure()
        .skip_debug(&masked)
        .bytes(".shardkeep.link.v1")
        .extern_path(".shardkeep.link.v1.GatewayBatch", "crate::batch::Batch")
        .extern_path(".shardkeep.link.v1.BackendBatch", "crate::batch::Batch")
        .compile_fds(descriptors)?;
    Ok(())
}

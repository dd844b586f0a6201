//! The vectors of `docs/protocol.md`, section 19, which another implementation made: everything encodes to them, and
//! they decode to everything.

use std::collections::BTreeMap;

use shardkeep_patch::{
    Builder, Chunk, ChunkId, Chunking, Manifest, PublicKey, Release, ReleasePath, SignedManifest, SigningKey,
    chunk,
};
use shardkeep_wire::{
    Message, opcode,
    payload::{GetPiece, GetRelease, Piece, PublishedRelease},
    preface::{Preface, Service, deployment_tag},
};

const SIGNED_MS: u64 = 1_767_225_600_000;
const PLAIN: &[u8] = b"hello, world\n";

/// Name and bytes of every line in the code blocks; lines that begin with a space continue the one before.
fn vectors() -> BTreeMap<String, Vec<u8>> {
    let page = include_str!("../../../../docs/protocol.md");
    let section = page.split("### Update vectors").nth(1).expect("the section exists");
    let section = section.split("\n##").next().unwrap();
    let mut vectors = BTreeMap::<String, String>::new();
    let mut name = String::new();
    for line in section.split("```").skip(1).step_by(2).flat_map(str::lines).filter(|line| !line.is_empty()) {
        let (start, hex) = line.split_at(line.rfind("  ").map_or(0, |at| at + 2));
        if !start.trim().is_empty() {
            name = start.trim().to_owned();
        }
        vectors.entry(name.clone()).or_default().push_str(hex.trim());
    }
    vectors.into_iter().map(|(name, hex)| (name, hex::decode(hex).unwrap())).collect()
}

fn repetitive() -> Vec<u8> {
    b"Shardkeep ".repeat(60)
}

fn manifest(vectors: &BTreeMap<String, Vec<u8>>) -> Manifest {
    let chunk = |content: &[u8], stored: &str| Chunk {
        id: ChunkId::of(content),
        size: u32::try_from(content.len()).unwrap(),
        stored: u32::try_from(vectors[stored].len()).unwrap(),
    };
    let (plain, repetitive) = (chunk(PLAIN, "stored"), chunk(&repetitive(), "stored of 600"));
    let release = Release { name: "1.2.3".into(), sequence: 7, client_version: 1_002_003 };
    let mut builder = Builder::new(release, Chunking::new(64, 256, 1_024).unwrap());
    builder.add(ReleasePath::new("readme.txt").unwrap(), false, vec![plain, repetitive]);
    builder.add(ReleasePath::new("empty").unwrap(), false, vec![]);
    builder.add(ReleasePath::new("bin/game").unwrap(), true, vec![repetitive, plain]);
    builder.finish().unwrap()
}

#[test]
fn chunks_match_vectors() {
    let vectors = vectors();
    for (content, id, stored) in
        [(PLAIN.to_vec(), "chunk id", "stored"), (repetitive(), "chunk id of 600", "stored of 600")]
    {
        let name = ChunkId::of(&content);
        assert_eq!(name.as_bytes()[..], vectors[id]);
        let size = u32::try_from(content.len()).unwrap();
        assert_eq!(chunk::restore(&vectors[stored], &name, size), Ok(content));
    }
    assert_eq!(chunk::store(PLAIN, 3), vectors["stored"]);
}

#[test]
fn manifests_match_vectors() {
    let vectors = vectors();
    let manifest = manifest(&vectors);
    assert_eq!(manifest.encode(), vectors["manifest"]);
    assert_eq!(Manifest::decode(&vectors["manifest"]), Ok(manifest.clone()));

    let seed: [u8; 32] = vectors["seed"].clone().try_into().unwrap();
    let key = SigningKey::from_seed(&seed).unwrap();
    let public = PublicKey::new(vectors["public key"].clone().try_into().unwrap());
    assert_eq!(key.public(), public);
    assert_eq!(key.sign(&manifest, SIGNED_MS), vectors["signed manifest"]);
    assert_eq!(
        SignedManifest::parse(&vectors["signed manifest"]).unwrap().verify_trusted(&[public]),
        Ok(manifest)
    );
}

#[test]
fn messages_match_vectors() {
    let vectors = vectors();
    assert_eq!(Preface::new(Service::Update, deployment_tag("dev")).encode()[..], vectors["preface"]);
    let published = &vectors["signed manifest"];
    let answer = PublishedRelease {
        manifest_id: ChunkId::of(published).as_bytes().to_vec(),
        manifest_size: u32::try_from(published.len()).unwrap(),
        name: "1.2.3".into(),
        sequence: 7,
        client_version: 1_002_003,
    };
    let stored = &vectors["stored"];
    let get = GetPiece { id: ChunkId::of(PLAIN).as_bytes().to_vec(), offset: 8, length: 61_440 };
    let piece = Piece { total: u32::try_from(stored.len()).unwrap(), data: stored[8..].to_vec() };
    for (name, message) in [
        ("GetRelease", Message::request(opcode::GET_RELEASE, 1, &GetRelease {})),
        ("PublishedRelease", Message::reply(opcode::GET_RELEASE, 1, &answer)),
        ("GetPiece", Message::request(opcode::GET_PIECE, 2, &get)),
        ("Piece", Message::reply(opcode::GET_PIECE, 2, &piece)),
    ] {
        assert_eq!(message.to_bytes(), vectors[name], "{name}");
    }
}

//! The fuzzers' corpus, replayed: whatever once broke a decoder stays mended.

use std::{fs, path::Path};

#[test]
fn fuzz_corpus_replays_without_panic() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/patch");
    let mut replayed = 0;
    for entry in fs::read_dir(corpus).unwrap() {
        shardkeep_patch::fuzz::decode_all(&fs::read(entry.unwrap().path()).unwrap());
        replayed += 1;
    }
    assert!(replayed > 20, "the corpus is there");
}

//! The fuzzers' corpus, replayed: whatever once broke the name server stays mended.

use std::{fs, path::Path};

#[test]
fn fuzz_corpus_does_not_panic() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/dns");
    let inputs: Vec<_> = fs::read_dir(corpus).unwrap().map(|it| it.unwrap().path()).collect();
    assert!(!inputs.is_empty(), "the corpus is there");
    for input in inputs {
        shardkeep_dns::fuzz::answer(&fs::read(input).unwrap());
    }
}

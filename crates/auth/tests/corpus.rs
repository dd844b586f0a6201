//! The fuzzers' corpus, replayed: whatever once let a stranger in, or broke the arithmetic, stays mended.

use std::{fs, path::Path};

use shardkeep_auth::fuzz;

#[test]
fn fuzz_corpus_replays_without_panic() {
    replay("srp", |bytes| {
        fuzz::srp(bytes);
        fuzz::names(bytes);
    });
    replay("ticket", fuzz::ticket);
}

fn replay(target: &str, entry: fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
    let inputs: Vec<_> = fs::read_dir(corpus).unwrap().map(|it| it.unwrap().path()).collect();
    assert!(!inputs.is_empty(), "the corpus of {target} is there");
    for input in inputs {
        entry(&fs::read(input).unwrap());
    }
}

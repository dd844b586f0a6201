//! The fuzzers' corpus, replayed: whatever once broke a decoder stays mended.

use std::{fs, path::Path};

use shardkeep_wire::fuzz;

#[test]
fn fuzz_corpus_replays_without_panic() {
    replay("wire", fuzz::decode_all);
    replay("preface", fuzz::preface);
    replay("record", fuzz::records);
    replay("message", fuzz::message);
    replay("handshake", fuzz::handshake);
    replay("session_log", fuzz::session_log);
}

fn replay(target: &str, entry: fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
    let inputs: Vec<_> = fs::read_dir(corpus).unwrap().map(|it| it.unwrap().path()).collect();
    assert!(!inputs.is_empty(), "the corpus of {target} is there");
    for input in inputs {
        entry(&fs::read(input).unwrap());
    }
}

//! Every chunk of a manifest, read as a distrustful client would: before it is published, and whenever somebody asks.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use indicatif::ProgressBar;
use shardkeep_patch::Manifest;

use super::{common::on_all_cores, store::Store};

/// Damaged chunks that are named; the rest is counted.
const NAMED: usize = 10;

/// How many of the chunks are missing or damaged. The first of them are said.
pub fn damaged(store: &Store, manifest: &Manifest) -> usize {
    let bar = ProgressBar::new(manifest.chunks().len() as u64);
    let (next, damaged) = (AtomicUsize::new(0), AtomicUsize::new(0));
    on_all_cores(|| {
        while let Some(chunk) = manifest.chunks().get(next.fetch_add(1, Relaxed)) {
            if let Err(error) = store.check(chunk)
                && damaged.fetch_add(1, Relaxed) < NAMED
            {
                bar.suspend(|| eprintln!("chunk {}: {error:#}", chunk.id));
            }
            bar.inc(1);
        }
    });
    bar.finish_and_clear();
    damaged.into_inner()
}

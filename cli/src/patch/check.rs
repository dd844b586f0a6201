//! Checks every chunk of a manifest as a client does: before a release is published, and for `patch verify`.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use indicatif::ProgressBar;
use shardkeep_patch::Manifest;

use super::{common::on_all_cores, store::Store};

/// Damaged chunks that are printed; the rest is counted.
const NAMED: usize = 10;

/// Counts the missing and damaged chunks, and prints the first of them.
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

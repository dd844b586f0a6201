//! `shardkeep patch build`: cuts the files of a folder into chunks and stores the new chunks.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use parking_lot::Mutex;
use shardkeep_patch::{Builder, Chunk, Chunking, Manifest, Release, ReleasePath};

use super::{
    common::{bytes, on_all_cores},
    store::Store,
};

#[derive(Debug, Args)]
pub struct BuildArgs {
    /// Folder with the files of the release
    folder: PathBuf,
    /// Store for the chunks; created if it is missing
    #[arg(long, value_name = "DIR")]
    store: PathBuf,
    /// Name of the release, for people
    #[arg(long, value_name = "NAME")]
    release: String,
    /// Version that the client of this release sends to login servers, as MAJOR.MINOR.PATCH
    #[arg(long, value_name = "VERSION")]
    client_version: String,
    /// Number of the release, higher than all before; one above the published release when absent
    #[arg(long)]
    sequence: Option<u64>,
    /// How hard to compress, 1 to 19
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(i32).range(1..=19))]
    level: i32,
}

struct FoundFile {
    at: PathBuf,
    path: ReleasePath,
    executable: bool,
    size: u64,
}

pub fn run(args: &BuildArgs) -> Result<()> {
    let client_version = version(&args.client_version)?;
    let store = Store::create(&args.store)?;
    let before = store.published()?;
    let last = before.as_ref().map_or(0, |manifest| manifest.release().sequence);
    let sequence = args.sequence.unwrap_or(last + 1);
    if sequence <= last {
        bail!("--sequence {sequence} is not higher than {last}, which is published: clients would refuse it");
    }
    let release = Release { name: args.release.clone(), sequence, client_version };
    let mut files = Vec::new();
    walk(&args.folder, "", &mut files)?;
    if files.is_empty() {
        bail!("{} holds no files", args.folder.display());
    }
    let mut builder = Builder::new(release, Chunking::default());
    for (file, chunks) in cut(&store, files, args.level)? {
        builder.add(file.path, file.executable, chunks);
    }
    let manifest = builder.finish()?;
    store.set_unsigned(&manifest)?;

    let known = before.iter().flat_map(Manifest::chunks).map(|chunk| chunk.id);
    let known: std::collections::HashSet<_> = known.collect();
    let new = manifest.chunks().iter().filter(|chunk| !known.contains(&chunk.id));
    let (new, new_bytes) = new.fold((0, 0), |(n, sum), it| (n + 1, sum + u64::from(it.stored)));
    println!(
        "release {} ({sequence}): {} files, {}; {} chunks, {} to fetch for a new player, {new} chunks and {} for one \
         who has the release before",
        args.release,
        manifest.files().len(),
        bytes(manifest.total_size()),
        manifest.chunks().len(),
        bytes(manifest.total_stored()),
        bytes(new_bytes),
    );
    if store.repaired() > 0 {
        println!("{} chunks of earlier builds were damaged, and are stored anew", store.repaired());
    }
    println!("not published yet: `shardkeep patch sign` does that");
    Ok(())
}

/// `1.2.3` as the number that clients send.
fn version(text: &str) -> Result<u32> {
    let parts: Vec<u32> = text.split('.').map(str::parse).collect::<Result<_, _>>().unwrap_or_default();
    match parts[..] {
        [major, minor @ 0..1_000, patch @ 0..1_000] if major <= 4_000 => {
            Ok(major * 1_000_000 + minor * 1_000 + patch)
        }
        _ => bail!("--client-version {text:?} is not of the form 1.2.3, with parts below 1000"),
    }
}

fn walk(folder: &Path, prefix: &str, files: &mut Vec<FoundFile>) -> Result<()> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    for entry in entries {
        let entry = entry?;
        let at = entry.path();
        let shown = at.display();
        let name = entry.file_name().into_string().ok();
        let name = name.with_context(|| format!("{shown}: the name is not UTF-8"))?;
        let path = if prefix.is_empty() { name } else { format!("{prefix}/{name}") };
        let kind = entry.file_type()?;
        if kind.is_dir() {
            walk(&at, &path, files)?;
        } else if kind.is_file() {
            let path = ReleasePath::new(&path).with_context(|| shown.to_string())?;
            let it = entry.metadata()?;
            files.push(FoundFile {
                executable: it.permissions().mode() & 0o100 != 0,
                size: it.len(),
                path,
                at,
            });
        } else {
            bail!("{shown} is neither a file nor a folder; a release can hold nothing else");
        }
    }
    Ok(())
}

/// Cuts and stores the files, one at a time on each core. Returns the chunks of each file.
fn cut(store: &Store, mut files: Vec<FoundFile>, level: i32) -> Result<Vec<(FoundFile, Vec<Chunk>)>> {
    // The largest file first, so that it does not start last.
    files.sort_by_key(|file| std::cmp::Reverse(file.size));
    let bar = ProgressBar::new(files.iter().map(|file| file.size).sum());
    if let Ok(style) =
        ProgressStyle::with_template("{spinner} {bar:30} {binary_bytes}/{binary_total_bytes} {eta}")
    {
        bar.set_style(style);
    }
    let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let work = || -> Result<()> {
        while let Some(file) = files.get(next.fetch_add(1, Relaxed)) {
            let chunks = cut_one(store, file, level, &bar).with_context(|| file.at.display().to_string())?;
            done.lock().push((file.path.clone(), chunks));
        }
        Ok(())
    };
    on_all_cores(work).into_iter().collect::<Result<()>>()?;
    bar.finish_and_clear();
    let mut done: std::collections::HashMap<_, _> = done.into_inner().into_iter().collect();
    Ok(files
        .into_iter()
        .map(|file| {
            let chunks = done.remove(&file.path).unwrap_or_default();
            (file, chunks)
        })
        .collect())
}

fn cut_one(store: &Store, file: &FoundFile, level: i32, bar: &ProgressBar) -> Result<Vec<Chunk>> {
    let mut chunks = Vec::new();
    for cut in Chunking::default().cut(fs::File::open(&file.at)?) {
        let cut = cut?;
        chunks.push(store.put(&cut, level)?);
        bar.inc(cut.size().into());
    }
    Ok(chunks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn client_version_is_parsed_as_major_minor_patch() {
        assert_eq!(version("1.2.3").unwrap(), 1_002_003);
        for wrong in ["", "1.2", "1.2.1000", "1.2.3.4", "5000.0.0", "a.b.c", "1.-2.3"] {
            assert!(version(wrong).is_err(), "{wrong}");
        }
    }
}

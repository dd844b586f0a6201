//! The store of patches: which signed manifest is published, and the files that pieces are read from. A new manifest is
//! noticed within a second after it was renamed into place, verified once, and not kept in memory.

use std::{
    fs::{File, Metadata},
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
use shardkeep_patch::{ChunkId, PublicKey, SignedError, SignedManifest, chunk, layout, signature};
use shardkeep_wire::payload::PublishedRelease;
use tokio::{
    sync::{Semaphore, watch},
    task::spawn_blocking,
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::metrics;

/// How often the store is polled for a new release.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

pub(crate) struct Store {
    dir: PathBuf,
    key: Option<PublicKey>,
    published: watch::Sender<Option<Arc<Published>>>,
}

/// The published manifest.
pub(crate) struct Published {
    pub(crate) answer: PublishedRelease,
    id: ChunkId,
    blob: Blob,
}

/// A file to read pieces from. Its bytes never change, because a store only adds and renames files.
#[derive(Clone)]
pub(crate) struct Blob {
    pub(crate) file: Arc<File>,
    pub(crate) size: u32,
}

/// Identifies the file behind `current`; a new release has another identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FileIdentity(u64, u64, i64, i64, u64);

impl FileIdentity {
    fn of(it: &Metadata) -> Self {
        Self(it.dev(), it.ino(), it.mtime(), it.mtime_nsec(), it.size())
    }
}

/// Why a release cannot be published.
#[derive(Debug, thiserror::Error)]
enum PublishError {
    /// The file could not be read now; it may be valid.
    #[error(transparent)]
    Unreadable(#[from] io::Error),
    #[error(transparent)]
    Refused(#[from] SignedError),
}

/// The result of the last poll.
#[derive(Debug, Default)]
struct LastSeen {
    file: Option<Result<FileIdentity, io::ErrorKind>>,
    /// The file could not be read, and a warning was logged.
    unreadable: bool,
}

impl LastSeen {
    fn is_new(&self, file: Result<FileIdentity, io::ErrorKind>) -> bool {
        self.file != Some(file)
    }

    /// A file that could not be read is read again at the next poll. Returns whether to log the outcome.
    fn note(&mut self, file: Result<FileIdentity, io::ErrorKind>, failed: Option<&PublishError>) -> bool {
        let again = file.is_ok() && matches!(failed, Some(PublishError::Unreadable(_)));
        self.file = (!again).then_some(file);
        let told = std::mem::replace(&mut self.unreadable, again);
        !(again && told)
    }
}

impl Store {
    pub(crate) fn new(dir: &Path, key: Option<PublicKey>) -> Self {
        Self { dir: dir.to_owned(), key, published: watch::Sender::new(None) }
    }

    pub(crate) fn published(&self) -> Option<Arc<Published>> {
        self.published.borrow().clone()
    }

    /// Polls the store until `stop`. A release that cannot be published is logged once, and the previous one stays.
    pub(crate) async fn follow(&self, stop: &CancellationToken) {
        let mut seen = LastSeen::default();
        loop {
            self.poll(&mut seen).await;
            if stop.run_until_cancelled(tokio::time::sleep(POLL_INTERVAL)).await.is_none() {
                return;
            }
        }
    }

    async fn poll(&self, seen: &mut LastSeen) {
        let path = self.dir.join(layout::CURRENT);
        let identity =
            tokio::fs::metadata(&path).await.map(|it| FileIdentity::of(&it)).map_err(|it| it.kind());
        if !seen.is_new(identity) {
            return;
        }
        let key = self.key;
        let current_path = path.clone();
        let read = spawn_blocking(move || read(&current_path, key)).await;
        let read = read.unwrap_or_else(|panic| Err(io::Error::other(panic).into()));
        let first = seen.note(identity, read.as_ref().err());
        match read {
            Ok(published) => {
                let PublishedRelease { name, sequence, .. } = &published.answer;
                info!(release = %name, sequence, "release published");
                metrics::release_published(true);
                self.published.send_replace(Some(Arc::new(published)));
            }
            Err(error) if first => {
                metrics::release_published(false);
                warn!(path = %path.display(), %error, "no release to publish");
            }
            Err(error) => debug!(path = %path.display(), %error, "still no release to publish"),
        }
    }

    /// Opens the published manifest or a chunk by its id; `None`: there is none.
    ///
    /// The kernel usually has the directory entries in memory, and then opening does not block. Otherwise a blocking
    /// thread opens the file; `cold_reads` bounds how many threads do so at once.
    pub(crate) async fn open(&self, id: ChunkId, cold_reads: &Semaphore) -> io::Result<Option<Blob>> {
        if let Some(published) = self.published().filter(|it| it.id == id) {
            return Ok(Some(published.blob.clone()));
        }
        let path = self.dir.join(layout::chunk(&id));
        let opened = match open_cached(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                let _permit = cold_reads.acquire().await.map_err(io::Error::other)?;
                let opened = spawn_blocking(move || File::open(path)).await;
                opened.unwrap_or_else(|panic| Err(io::Error::other(panic)))
            }
            done => done,
        };
        match opened.and_then(Blob::of) {
            Ok(blob) if blob.size > chunk::max_stored_size(chunk::MAX) => Ok(None),
            Ok(blob) => Ok(Some(blob)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl Blob {
    fn of(file: File) -> io::Result<Self> {
        let size = file.metadata()?.len();
        Ok(Self { file: Arc::new(file), size: u32::try_from(size).unwrap_or(u32::MAX) })
    }
}

/// Opens a file if that needs no disk access. Fails also where the kernel cannot tell.
fn open_cached(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    Ok(openat2(CWD, path, flags, Mode::empty(), ResolveFlags::CACHED)?.into())
}

/// Reads and verifies a signed manifest.
fn read(path: &Path, key: Option<PublicKey>) -> Result<Published, PublishError> {
    let file = File::open(path)?;
    let mut bytes = Vec::new();
    // One byte above the limit is enough to detect a file that is too large.
    (&file).take(signature::MAX as u64 + 1).read_to_end(&mut bytes)?;
    let signed = SignedManifest::parse(&bytes)?;
    let manifest = match key {
        Some(key) => signed.verify_trusted(&[key])?,
        None => signed.verify_self_signed()?,
    };
    let (id, size) = (ChunkId::of(&bytes), u32::try_from(bytes.len()).unwrap_or(u32::MAX));
    let release = manifest.release();
    let answer = PublishedRelease {
        manifest_id: id.as_bytes().to_vec(),
        manifest_size: size,
        name: release.name.clone(),
        sequence: release.sequence,
        client_version: release.client_version,
    };
    Ok(Published { answer, id, blob: Blob { file: Arc::new(file), size } })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn release_is_read_again_only_after_read_error() {
        let (mut seen, file) = (LastSeen::default(), Ok(FileIdentity(1, 2, 3, 4, 5)));
        assert!(seen.is_new(file));
        let unreadable = PublishError::Unreadable(io::Error::other("too many open files"));
        assert!(seen.note(file, Some(&unreadable)) && seen.is_new(file));
        assert!(!seen.note(file, Some(&unreadable)) && seen.is_new(file), "logged once");
        assert!(seen.note(file, None) && !seen.is_new(file));
        assert!(seen.note(file, Some(&unreadable)), "logged again after a success");
        let refused = PublishError::Refused(SignedManifest::parse(b"nonsense").err().unwrap());
        assert!(seen.note(file, Some(&refused)) && !seen.is_new(file), "a refused file is not read again");
        // A missing file gets another identity when it appears.
        let gone = Err(io::ErrorKind::NotFound);
        assert!(seen.is_new(gone) && seen.note(gone, Some(&unreadable)) && !seen.is_new(gone));
    }

    #[tokio::test]
    async fn unreadable_release_is_retried_and_not_published() {
        let folder = tempfile::tempdir().unwrap();
        let (store, mut seen) = (Store::new(folder.path(), None), LastSeen::default());
        store.poll(&mut seen).await;
        assert!(!seen.is_new(Err(io::ErrorKind::NotFound)));
        // A folder has an identity and cannot be read.
        let current = folder.path().join(layout::CURRENT);
        std::fs::create_dir(&current).unwrap();
        store.poll(&mut seen).await;
        let identity = std::fs::metadata(&current).map(|it| FileIdentity::of(&it)).map_err(|it| it.kind());
        assert!(seen.is_new(identity) && store.published().is_none());
    }
}

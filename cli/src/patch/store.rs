//! A store on this disk. Each file is written under another name and then renamed, so that a server never reads half a
//! file.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

use anyhow::{Context as _, Result, ensure};
use shardkeep_patch::{Chunk, ChunkId, Manifest, PublicKey, SignedManifest, chunk, chunking::Cut, layout};

pub struct Store {
    dir: PathBuf,
    /// Damaged chunks that were stored again.
    repaired: AtomicUsize,
}

impl Store {
    /// An existing or a new one.
    pub fn create(dir: &Path) -> Result<Self> {
        let chunks = dir.join(layout::CHUNKS);
        fs::create_dir_all(&chunks).with_context(|| format!("cannot create {}", chunks.display()))?;
        Ok(Self::at(dir))
    }

    pub fn open(dir: &Path) -> Result<Self> {
        ensure!(
            dir.join(layout::CHUNKS).is_dir(),
            "{} is no store of patches: `shardkeep patch build` makes one",
            dir.display()
        );
        Ok(Self::at(dir))
    }

    fn at(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), repaired: AtomicUsize::new(0) }
    }

    /// Stores a chunk unless an intact copy is here. A stored chunk may be damaged by the disk or an interrupted copy.
    pub fn put(&self, cut: &Cut, level: i32) -> Result<Chunk> {
        let at = self.dir.join(layout::chunk(&cut.id));
        let there = read(&at)?;
        let good = |stored: &Vec<u8>| chunk::restore(stored, &cut.id, cut.size()).is_ok();
        let stored = match there {
            Some(stored) if good(&stored) => stored.len(),
            damaged => {
                let stored = chunk::store(&cut.content, level);
                write(&at, &stored)?;
                self.repaired.fetch_add(damaged.is_some().into(), Relaxed);
                stored.len()
            }
        };
        Ok(Chunk { id: cut.id, size: cut.size(), stored: u32::try_from(stored)? })
    }

    pub fn repaired(&self) -> usize {
        self.repaired.load(Relaxed)
    }

    /// Checks a chunk against the manifest.
    pub fn check(&self, chunk: &Chunk) -> Result<()> {
        let stored = read(&self.dir.join(layout::chunk(&chunk.id)))?.context("it is missing")?;
        chunk::restore(&stored, &chunk.id, chunk.size)?;
        ensure!(
            stored.len() == chunk.stored as usize,
            "it is stored in {} bytes, the manifest says {}",
            stored.len(),
            chunk.stored
        );
        Ok(())
    }

    /// Chunks of a release that are missing or have another size.
    pub fn damaged(&self, manifest: &Manifest) -> Vec<ChunkId> {
        let whole = |chunk: &Chunk| self.stored_size(&chunk.id) == Some(chunk.stored.into());
        manifest.chunks().iter().filter(|chunk| !whole(chunk)).map(|chunk| chunk.id).collect()
    }

    fn stored_size(&self, id: &ChunkId) -> Option<u64> {
        Some(fs::metadata(self.dir.join(layout::chunk(id))).ok()?.len())
    }

    /// The manifest of the last build, if it is not signed yet.
    pub fn unsigned(&self) -> Result<Option<Manifest>> {
        let Some(bytes) = read(&self.dir.join(layout::UNSIGNED))? else { return Ok(None) };
        Ok(Some(Manifest::decode(&bytes).context("the manifest that waits for its signature")?))
    }

    pub fn set_unsigned(&self, manifest: &Manifest) -> Result<()> {
        write(&self.dir.join(layout::UNSIGNED), &manifest.encode())
    }

    /// The key that signed the published release.
    pub fn publisher(&self) -> Result<Option<PublicKey>> {
        let Some(bytes) = self.current()? else { return Ok(None) };
        Ok(SignedManifest::parse(&bytes).ok().map(|signed| signed.key()))
    }

    /// The bytes of the published manifest.
    pub fn current(&self) -> Result<Option<Vec<u8>>> {
        read(&self.dir.join(layout::CURRENT))
    }

    /// The parsed published manifest. The caller decides whether to trust its key.
    pub fn published(&self) -> Result<Option<Manifest>> {
        let Some(bytes) = self.current()? else { return Ok(None) };
        Ok(Some(
            SignedManifest::parse(&bytes)
                .and_then(|signed| signed.verify_self_signed())
                .context("what is published")?,
        ))
    }

    pub fn publish(&self, signed: &[u8]) -> Result<()> {
        write(&self.dir.join(layout::CURRENT), signed)?;
        match fs::remove_file(self.dir.join(layout::UNSIGNED)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).context("cannot remove the unsigned manifest")
            }
            _ => Ok(()),
        }
    }
}

fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// Writes a temporary file, syncs it and renames it.
fn write(path: &Path, content: &[u8]) -> Result<()> {
    let folder = path.parent().context("a file has a folder")?;
    let write = || {
        fs::create_dir_all(folder)?;
        let mut file = tempfile::Builder::new().prefix(".new-").tempfile_in(folder)?;
        file.write_all(content)?;
        file.as_file().sync_data()?;
        set_readable(file.as_file())?;
        file.persist(path).map_err(|error| error.error)?;
        io::Result::Ok(())
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

/// Temporary files are private, but daemons of other users read a store.
fn set_readable(file: &File) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    file.set_permissions(fs::Permissions::from_mode(0o644))
}

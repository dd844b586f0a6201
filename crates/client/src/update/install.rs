//! The folder of an installation. New files are written aside, below `.shardkeep/`, and renamed into their places when
//! all of them are whole:
//!
//! ```text
//! .shardkeep/lock      held while an update runs
//! .shardkeep/state     which release is installed, whether wholly, and the files that are ours
//! .shardkeep/stage/…   files written aside, named by their content
//! ```
//!
//! A rename replaces one file at once, not all of them: an update that dies among its renames leaves `whole no` in the
//! state, and the next one finds the rest on the disk.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    fs::{self, File, TryLockError},
    io::{self, Read, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
};

use parking_lot::Mutex;
use shardkeep_patch::{
    Chunk, Manifest, Plan, ReleasePath, Scan, ScanResult, Source, path,
    plan::MissingChunk,
    scan::{self, ChunkLocation, staged_name},
};
use shardkeep_types::FileLock;

use super::{
    error::UpdateError,
    progress::{Progress, Stage},
    space,
};

const STATE_HEADER: &str = "shardkeep-install 1";

#[derive(Debug)]
pub(super) struct Install {
    root: PathBuf,
    /// Where the files of the plan are written aside, by their numbers.
    staging: Mutex<HashMap<u32, PathBuf>>,
    _lock: FileLock,
}

/// The record of earlier updates.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct State {
    /// Of the release that was put in place last, or was begun to be.
    pub(super) sequence: u64,
    pub(super) whole: bool,
    pub(super) owned: Vec<ReleasePath>,
}

impl Install {
    pub(super) fn open(root: &Path) -> Result<Self, UpdateError> {
        let stage = root.join(path::RESERVED).join("stage");
        fs::create_dir_all(&stage).map_err(UpdateError::disk(&stage))?;
        let at = root.join(path::RESERVED).join("lock");
        let lock = FileLock::take(&at).map_err(|error| match error {
            TryLockError::WouldBlock => UpdateError::Locked(root.to_owned()),
            TryLockError::Error(source) => UpdateError::Disk { path: at, source },
        })?;
        Ok(Self { root: root.to_owned(), staging: Mutex::default(), _lock: lock })
    }

    /// A missing or unreadable record counts as that of a new folder.
    pub(super) fn state(&self) -> State {
        let text = fs::read_to_string(self.state_path()).unwrap_or_default();
        State::parse(&text).unwrap_or_default()
    }

    /// Reads everything that is here.
    pub(super) fn scan(
        &self,
        manifest: &Manifest,
        owned: &[ReleasePath],
        progress: &Progress,
    ) -> Result<ScanResult, UpdateError> {
        let paths = manifest.files().iter().map(|file| &file.path).chain(owned);
        let paths: BTreeSet<&ReleasePath> = paths.filter(|path| self.size_of(path).is_some()).collect();
        let staged: Vec<(u32, PathBuf)> = (0u32..)
            .zip(manifest.files())
            .map(|(number, file)| (number, self.staged(&staged_name(manifest, file))))
            .filter(|(_, path)| path.is_file())
            .collect();
        let here = paths.iter().filter_map(|path| self.size_of(path)).sum::<u64>();
        let staging = staged.iter().filter_map(|(_, path)| Some(path.metadata().ok()?.len())).sum::<u64>();
        progress.begin_stage(Stage::Scan, here + staging);
        let mut scan = Scan::new(manifest);
        for path in paths {
            let at = self.installed_path(path);
            let file = File::open(&at).map_err(UpdateError::disk(&at))?;
            scan.installed(path, CountingReader(file, progress)).map_err(UpdateError::disk(at))?;
        }
        for (number, at) in staged {
            let file = File::open(&at).map_err(UpdateError::disk(&at))?;
            scan.staged(number, CountingReader(file, progress)).map_err(UpdateError::disk(at))?;
        }
        Ok(scan.finish())
    }

    /// Makes room for the files to write, and throws away what was written aside for something else.
    pub(super) fn prepare(&self, manifest: &Manifest, plan: &Plan) -> Result<(), UpdateError> {
        let file = |number: &u32| &manifest.files()[*number as usize];
        let name = |number: &u32| (*number, self.staged(&staged_name(manifest, file(number))));
        let staging: HashMap<u32, PathBuf> = plan.write.iter().map(name).collect();
        let wanted: HashSet<&Path> = staging.values().map(PathBuf::as_path).collect();
        let stage = self.staged("");
        let mut on_disk = 0;
        for entry in fs::read_dir(&stage).map_err(UpdateError::disk(&stage))? {
            let entry = entry.map_err(UpdateError::disk(&stage))?;
            if wanted.contains(entry.path().as_path()) {
                on_disk += entry.metadata().map_or(0, |it| space::allocated_bytes(&it));
            } else {
                fs::remove_file(entry.path()).map_err(UpdateError::disk(entry.path()))?;
            }
        }
        space::check(plan.write_bytes, on_disk, space::free(&stage))?;
        for (number, at) in &staging {
            let size = manifest.size(file(number));
            let file = File::options().create(true).truncate(false).write(true).open(at);
            file.and_then(|file| file.set_len(size)).map_err(UpdateError::disk(at))?;
        }
        *self.staging.lock() = staging;
        Ok(())
    }

    /// The content of a chunk that is here; `None` if it is not what was found before.
    pub(super) fn read(&self, manifest: &Manifest, need: &MissingChunk) -> Option<Vec<u8>> {
        let (at, offset) = match &need.from {
            Source::Installed(ChunkLocation { path, offset }) => (self.installed_path(path), *offset),
            Source::Staged { file, offset } => (self.staging(*file), *offset),
            Source::Fetched => return None,
        };
        let chunk = &manifest.chunks()[need.chunk as usize];
        let content = read_at(&at, offset, chunk).ok()?;
        scan::chunk_matches(chunk, &content).then_some(content)
    }

    /// Writes the content of a chunk, which was verified, to all of its places.
    pub(super) fn write(&self, need: &MissingChunk, content: &[u8]) -> Result<(), UpdateError> {
        for &(file, offset) in &need.to {
            let at = self.staging(file);
            let written = File::options().write(true).open(&at).and_then(|mut file| {
                file.seek(SeekFrom::Start(offset))?;
                file.write_all(content)
            });
            written.map_err(UpdateError::disk(at))?;
        }
        Ok(())
    }

    /// Everything is written: puts it in its place.
    pub(super) fn commit(
        &self,
        manifest: &Manifest,
        plan: &Plan,
        progress: &Progress,
    ) -> Result<(), UpdateError> {
        progress.begin_stage(Stage::Commit, plan.write.len() as u64);
        let sequence = manifest.release().sequence;
        let files: Vec<ReleasePath> = manifest.files().iter().map(|file| file.path.clone()).collect();
        if !plan.is_empty() {
            for &number in &plan.write {
                let at = self.staging(number);
                let synced = File::options().write(true).open(&at).and_then(|file| file.sync_all());
                synced.map_err(UpdateError::disk(at))?;
            }
            // From here on until the end it is neither the old release nor the new.
            let owned = files.iter().chain(&plan.remove).cloned().collect();
            self.write_state(&State { sequence, whole: false, owned })?;
            let case_variants = plan.case_variants(manifest);
            for path in &plan.remove {
                // Where the system takes both names for one, it is a file of the release.
                if !case_variants.get(path).is_some_and(|twin| self.is_same_file(path, twin)) {
                    self.remove(path)?;
                }
            }
            for &number in &plan.write {
                self.move_into_place(manifest, number)?;
                progress.advance(1);
            }
        }
        for file in manifest.files() {
            set_executable(&self.installed_path(&file.path), file.executable)?;
        }
        self.write_state(&State { sequence, whole: true, owned: files })
    }

    fn move_into_place(&self, manifest: &Manifest, number: u32) -> Result<(), UpdateError> {
        let file = &manifest.files()[number as usize];
        let (from, to) = (self.staging(number), self.installed_path(&file.path));
        let folder = to.parent().unwrap_or(&self.root);
        fs::create_dir_all(folder).map_err(UpdateError::disk(folder))?;
        fs::rename(from, &to).map_err(UpdateError::disk(&to))?;
        sync_folder(folder)
    }

    /// The file, and the folders that are empty without it.
    fn remove(&self, path: &ReleasePath) -> Result<(), UpdateError> {
        let at = self.installed_path(path);
        match fs::remove_file(&at) {
            Ok(()) => {}
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
            Err(source) => return Err(UpdateError::Disk { path: at, source }),
        }
        let mut folder = at.parent();
        while let Some(at) = folder.filter(|at| *at != self.root) {
            // Not empty, most often: then it stays.
            if fs::remove_dir(at).is_err() {
                break;
            }
            folder = at.parent();
        }
        Ok(())
    }

    /// Whether two names are of one file.
    fn is_same_file(&self, one: &ReleasePath, other: &ReleasePath) -> bool {
        use std::os::unix::fs::MetadataExt as _;
        let identity = |path| fs::symlink_metadata(self.installed_path(path)).map(|it| (it.dev(), it.ino()));
        matches!((identity(one), identity(other)), (Ok(one), Ok(other)) if one == other)
    }

    /// Bytes of the regular file that is there.
    fn size_of(&self, path: &ReleasePath) -> Option<u64> {
        let it = fs::symlink_metadata(self.installed_path(path)).ok()?;
        it.is_file().then_some(it.len())
    }

    fn installed_path(&self, path: &ReleasePath) -> PathBuf {
        self.root.join(path.as_str())
    }

    fn staged(&self, name: &str) -> PathBuf {
        self.root.join(path::RESERVED).join("stage").join(name)
    }

    /// Where a file of the plan is written; [`Self::prepare`] has chosen it.
    fn staging(&self, file: u32) -> PathBuf {
        self.staging.lock().get(&file).cloned().unwrap_or_else(|| self.staged("unknown"))
    }

    fn state_path(&self) -> PathBuf {
        self.root.join(path::RESERVED).join("state")
    }

    fn write_state(&self, state: &State) -> Result<(), UpdateError> {
        let (at, staging) = (self.state_path(), self.state_path().with_extension("new"));
        let written = File::create(&staging).and_then(|mut file| {
            file.write_all(state.text().as_bytes())?;
            file.sync_all()
        });
        written.map_err(UpdateError::disk(&staging))?;
        fs::rename(&staging, &at).map_err(UpdateError::disk(&at))?;
        sync_folder(&self.root.join(path::RESERVED))
    }
}

impl State {
    fn text(&self) -> String {
        let mut text = format!("{STATE_HEADER}\nsequence {}\nwhole {}\n", self.sequence, self.whole);
        for path in &self.owned {
            text.push_str(path.as_str());
            text.push('\n');
        }
        text
    }

    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        if lines.next()? != STATE_HEADER {
            return None;
        }
        let sequence = lines.next()?.strip_prefix("sequence ")?.parse().ok()?;
        let whole = lines.next()?.strip_prefix("whole ")?.parse().ok()?;
        // An update removes only files with a valid path of a release.
        let owned = lines.filter_map(|line| ReleasePath::new(line).ok()).collect();
        Some(Self { sequence, whole, owned })
    }
}

/// Counts what is read.
struct CountingReader<'a>(File, &'a Progress);

impl Read for CountingReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.0.read(buffer)?;
        self.1.advance(read as u64);
        Ok(read)
    }
}

fn read_at(at: &Path, offset: u64, chunk: &Chunk) -> io::Result<Vec<u8>> {
    let mut file = File::open(at)?;
    file.seek(SeekFrom::Start(offset))?;
    let mut content = vec![0; chunk.size as usize];
    file.read_exact(&mut content)?;
    Ok(content)
}

/// So that a rename outlives a power cut. Where folders cannot be opened, they need not be.
fn sync_folder(folder: &Path) -> Result<(), UpdateError> {
    match File::open(folder) {
        Ok(opened) => opened.sync_all().map_err(UpdateError::disk(folder)),
        Err(_) => Ok(()),
    }
}

fn set_executable(at: &Path, executable: bool) -> Result<(), UpdateError> {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = fs::metadata(at).map_err(UpdateError::disk(at))?.permissions().mode();
    // Read permission includes execute permission.
    let wanted = if executable { mode | (mode & 0o444) >> 2 } else { mode & !0o111 };
    if wanted == mode {
        return Ok(());
    }
    fs::set_permissions(at, fs::Permissions::from_mode(wanted)).map_err(UpdateError::disk(at))
}

#[cfg(test)]
mod tests {
    use shardkeep_patch::{Builder, Chunking, Release};

    use super::*;

    fn path(path: &str) -> ReleasePath {
        ReleasePath::new(path).unwrap()
    }

    #[test]
    fn install_state_round_trips_and_rejects_damage() {
        let state = State { sequence: 7, whole: true, owned: vec![path("a"), path("b/c")] };
        assert_eq!(State::parse(&state.text()), Some(state));
        assert_eq!(State::parse(""), None);
        assert_eq!(State::parse("shardkeep-install 1\nsequence x\n"), None);
        let odd = format!("{STATE_HEADER}\nsequence 1\nwhole false\n../../etc/passwd\na\n");
        assert_eq!(State::parse(&odd), Some(State { sequence: 1, whole: false, owned: vec![path("a")] }));
    }

    #[test]
    fn second_update_of_a_folder_is_locked_out() {
        let folder = tempfile::tempdir().unwrap();
        let first = Install::open(folder.path()).unwrap();
        assert!(matches!(Install::open(folder.path()), Err(UpdateError::Locked(_))));
        drop(first);
        assert!(Install::open(folder.path()).is_ok());
    }

    #[test]
    fn remove_deletes_file_and_empty_parents_only() {
        let folder = tempfile::tempdir().unwrap();
        let install = Install::open(folder.path()).unwrap();
        fs::create_dir_all(folder.path().join("a/b")).unwrap();
        fs::write(folder.path().join("a/b/old"), "old").unwrap();
        fs::write(folder.path().join("a/own"), "own").unwrap();
        install.remove(&path("a/b/old")).unwrap();
        install.remove(&path("a/never/there")).unwrap();
        assert!(!folder.path().join("a/b").exists() && folder.path().join("a/own").exists());
    }

    fn manifest(files: &[(&str, &[u8])]) -> Manifest {
        let release = Release { name: "1".into(), sequence: 1, client_version: 1 };
        let mut builder = Builder::new(release, Chunking::default());
        for (name, content) in files {
            let chunks = Chunking::default().cut(*content).map(|cut| {
                let cut = cut.unwrap();
                Chunk { id: cut.id, size: cut.size(), stored: cut.size() + 1 }
            });
            builder.add(path(name), false, chunks.collect());
        }
        builder.finish().unwrap()
    }

    /// Brings the folder to the release, of which everything is there already. How many files were written and to remove.
    fn install_from_here(install: &Install, manifest: &Manifest, owned: &[ReleasePath]) -> (usize, usize) {
        let found = install.scan(manifest, owned, &Progress::default()).unwrap();
        let plan = shardkeep_patch::plan(manifest, &found, owned);
        install.prepare(manifest, &plan).unwrap();
        for need in &plan.missing_chunks {
            install.write(need, &install.read(manifest, need).expect("it is here")).unwrap();
        }
        install.commit(manifest, &plan, &Progress::default()).unwrap();
        (plan.write.len(), plan.remove.len())
    }

    #[test]
    fn case_only_rename_keeps_content_and_removes_old_name() {
        let folder = tempfile::tempdir().unwrap();
        let (install, at) = (Install::open(folder.path()).unwrap(), |name| folder.path().join(name));
        fs::create_dir(at("Data")).unwrap();
        fs::write(at("Data/Foo.lua"), "return 1").unwrap();
        let manifest = manifest(&[("data/foo.lua", b"return 1")]);
        assert_eq!(install_from_here(&install, &manifest, &[path("Data/Foo.lua")]), (1, 1));
        assert!(!at("Data").exists());
        assert_eq!(fs::read(at("data/foo.lua")).unwrap(), b"return 1");

        // Where a system takes both names for one, both are the same file.
        fs::hard_link(at("data/foo.lua"), at("data/FOO.lua")).unwrap();
        assert_eq!(install_from_here(&install, &manifest, &[path("data/FOO.lua")]), (0, 1));
        assert!(at("data/FOO.lua").exists() && at("data/foo.lua").exists());
        assert_eq!(install.state().owned, [path("data/foo.lua")]);
    }
}

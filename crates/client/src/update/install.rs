//! The folder of an installation. New files are staged below `.shardkeep/`, and renamed to their places when all of them
//! are complete:
//!
//! ```text
//! .shardkeep/lock      locked while an update runs
//! .shardkeep/state     the installed release, whether it is complete, and the files that updates have installed
//! .shardkeep/stage/…   staged files, named by their content
//! ```
//!
//! A rename replaces one file at a time. An update that dies among its renames leaves `whole no` in the state, and the next
//! update finds the rest on the disk. Nothing here follows a symbolic link ([`Folder`]).

use std::{
    collections::{BTreeSet, HashMap},
    fs::{File, TryLockError},
    io::{self, Read, Seek as _, SeekFrom, Write as _},
    path::Path,
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
    folder::Folder,
    progress::{Progress, Stage},
    space,
};

const STATE_HEADER: &str = "shardkeep-install 1";
const STATE: &str = "state";

#[derive(Debug)]
pub(super) struct Install {
    root: Folder,
    /// `.shardkeep`.
    own: Folder,
    stage: Folder,
    /// The staged file of each file of the plan, by their numbers.
    staging: Mutex<HashMap<u32, String>>,
    _lock: FileLock,
}

/// The record of earlier updates.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct State {
    /// Of the release whose installation began last.
    pub(super) sequence: u64,
    pub(super) whole: bool,
    pub(super) owned: Vec<ReleasePath>,
}

impl Install {
    pub(super) fn open(path: &Path) -> Result<Self, UpdateError> {
        let root = Folder::open_root(path).map_err(UpdateError::disk(path))?;
        let own = root.folder(path::RESERVED, true).map_err(UpdateError::disk(root.shown(path::RESERVED)))?;
        let stage = own.folder("stage", true).map_err(UpdateError::disk(own.shown("stage")))?;
        let lock = own.create("lock").map_err(UpdateError::disk(own.shown("lock")))?;
        let lock = FileLock::of(lock).map_err(|error| match error {
            TryLockError::WouldBlock => UpdateError::Locked(path.to_owned()),
            TryLockError::Error(source) => UpdateError::Disk { path: own.shown("lock"), source },
        })?;
        Ok(Self { root, own, stage, staging: Mutex::default(), _lock: lock })
    }

    /// A missing or unreadable record counts as that of a new folder.
    pub(super) fn state(&self) -> State {
        let mut text = String::new();
        let read = self.own.open_to_read(STATE).and_then(|mut file| file.read_to_string(&mut text));
        if read.is_err() {
            return State::default();
        }
        State::parse(&text).unwrap_or_default()
    }

    /// Reads all installed and staged files.
    pub(super) fn scan(
        &self,
        manifest: &Manifest,
        owned: &[ReleasePath],
        progress: &Progress,
    ) -> Result<ScanResult, UpdateError> {
        let paths = manifest.files().iter().map(|file| &file.path).chain(owned);
        let paths: BTreeSet<&ReleasePath> = paths.filter(|path| self.size_of(path).is_some()).collect();
        let staged: Vec<(u32, String)> = (0u32..)
            .zip(manifest.files())
            .map(|(number, file)| (number, staged_name(manifest, file)))
            .filter(|(_, name)| self.stage.size_of(name).is_some())
            .collect();
        let installed_bytes = paths.iter().filter_map(|path| self.size_of(path)).sum::<u64>();
        let staged_bytes = staged.iter().filter_map(|(_, name)| self.stage.size_of(name)).sum::<u64>();
        progress.begin_stage(Stage::Scan, installed_bytes + staged_bytes);
        let mut scan = Scan::new(manifest);
        for path in paths {
            let file = self.root.open_to_read(path.as_str()).map_err(self.error_at(path))?;
            scan.installed(path, CountingReader(file, progress)).map_err(self.error_at(path))?;
        }
        for (number, name) in staged {
            let error = |error| UpdateError::disk(self.stage.shown(&name))(error);
            let file = self.stage.open_to_read(&name).map_err(error)?;
            scan.staged(number, CountingReader(file, progress)).map_err(error)?;
        }
        Ok(scan.finish())
    }

    /// Creates the staged files of the plan in their sizes, and removes those of other plans.
    ///
    /// # Errors
    /// The disk is too full, or a symbolic link is on the way to a file.
    pub(super) fn prepare(&self, manifest: &Manifest, plan: &Plan) -> Result<(), UpdateError> {
        let file = |number: &u32| &manifest.files()[*number as usize];
        for number in &plan.write {
            self.check_folders(&file(number).path)?;
        }
        let staging: HashMap<u32, String> =
            plan.write.iter().map(|number| (*number, staged_name(manifest, file(number)))).collect();
        let wanted: BTreeSet<&str> = staging.values().map(String::as_str).collect();
        let mut on_disk = 0;
        let stage = |name: &str| UpdateError::disk(self.stage.shown(name));
        for name in self.stage.names().map_err(stage(""))? {
            if wanted.contains(name.as_str()) {
                on_disk += self.stage.stat(&name).map_or(0, |it| space::allocated_bytes(&it));
            } else {
                self.stage.remove(&name).map_err(stage(&name))?;
            }
        }
        space::check(plan.write_bytes, on_disk, self.stage.free_bytes())?;
        for (number, name) in &staging {
            let size = manifest.size(file(number));
            let created = self.stage.create(name).and_then(|file| file.set_len(size));
            created.map_err(stage(name))?;
        }
        *self.staging.lock() = staging;
        Ok(())
    }

    /// Refuses a path whose existing folders are not all real folders, before anything is fetched for it.
    fn check_folders(&self, path: &ReleasePath) -> Result<(), UpdateError> {
        let folder = path.as_str().rsplit_once('/').map_or("", |(folder, _)| folder);
        match self.root.folder(folder, false) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(UpdateError::Disk { path: self.root.shown(folder), source: error })
            }
            _ => Ok(()),
        }
    }

    /// The content of an installed or staged chunk; `None`: it has changed since the scan.
    pub(super) fn read(&self, manifest: &Manifest, need: &MissingChunk) -> Option<Vec<u8>> {
        let (file, offset) = match &need.from {
            Source::Installed(ChunkLocation { path, offset }) => {
                (self.root.open_to_read(path.as_str()).ok()?, *offset)
            }
            Source::Staged { file, offset } => (self.stage.open_to_read(&self.staging(*file)).ok()?, *offset),
            Source::Fetched => return None,
        };
        let chunk = &manifest.chunks()[need.chunk as usize];
        let content = read_at(file, offset, chunk).ok()?;
        scan::chunk_matches(chunk, &content).then_some(content)
    }

    /// Writes the verified content of a chunk to all of its places.
    pub(super) fn write(&self, need: &MissingChunk, content: &[u8]) -> Result<(), UpdateError> {
        for &(file, offset) in &need.to {
            let name = self.staging(file);
            let written = self.stage.open_to_write(&name).and_then(|mut file| {
                file.seek(SeekFrom::Start(offset))?;
                file.write_all(content)
            });
            written.map_err(UpdateError::disk(self.stage.shown(&name)))?;
        }
        Ok(())
    }

    /// Moves the staged files to their places, and removes the files that the release no longer has.
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
                let name = self.staging(number);
                let synced = self.stage.open_to_write(&name).and_then(|file| file.sync_all());
                synced.map_err(UpdateError::disk(self.stage.shown(&name)))?;
            }
            // Until the end of this block, the folder has neither the old nor the new release.
            let owned = files.iter().chain(&plan.remove).cloned().collect();
            self.write_state(&State { sequence, whole: false, owned })?;
            let case_variants = plan.case_variants(manifest);
            for path in &plan.remove {
                // A system that ignores case may have one file under both names.
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
            let set = self.root.open_to_read(file.path.as_str());
            set.and_then(|opened| set_executable(&opened, file.executable))
                .map_err(self.error_at(&file.path))?;
        }
        self.write_state(&State { sequence, whole: true, owned: files })
    }

    fn move_into_place(&self, manifest: &Manifest, number: u32) -> Result<(), UpdateError> {
        let path = &manifest.files()[number as usize].path;
        let moved = self.root.move_here(&self.stage, &self.staging(number), path.as_str());
        moved.map_err(self.error_at(path))
    }

    /// Removes a file, and the folders that are empty without it.
    fn remove(&self, path: &ReleasePath) -> Result<(), UpdateError> {
        self.root.remove(path.as_str()).map_err(self.error_at(path))?;
        let mut folder = path.as_str();
        while let Some((above, _)) = folder.rsplit_once('/') {
            if !self.root.remove_empty_folder(above) {
                break;
            }
            folder = above;
        }
        Ok(())
    }

    /// Whether two names are of one file.
    fn is_same_file(&self, one: &ReleasePath, other: &ReleasePath) -> bool {
        let identity = |path: &ReleasePath| self.root.stat(path.as_str()).map(|it| (it.st_dev, it.st_ino));
        matches!((identity(one), identity(other)), (Some(one), Some(other)) if one == other)
    }

    /// Bytes of the regular file at this path.
    fn size_of(&self, path: &ReleasePath) -> Option<u64> {
        self.root.size_of(path.as_str())
    }

    fn error_at(&self, path: &ReleasePath) -> impl FnOnce(io::Error) -> UpdateError {
        UpdateError::disk(self.root.shown(path.as_str()))
    }

    /// The staged file of a file of the plan; [`Self::prepare`] has chosen it.
    fn staging(&self, file: u32) -> String {
        self.staging.lock().get(&file).cloned().unwrap_or_else(|| "unknown".to_owned())
    }

    fn write_state(&self, state: &State) -> Result<(), UpdateError> {
        const NEW: &str = "state.new";
        let written = self.own.remove(NEW).and_then(|()| self.own.create(NEW)).and_then(|mut file| {
            file.write_all(state.text().as_bytes())?;
            file.sync_all()?;
            self.own.move_here(&self.own, NEW, STATE)
        });
        written.map_err(UpdateError::disk(self.own.shown(STATE)))
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

/// Reports the bytes read as progress.
struct CountingReader<'a>(File, &'a Progress);

impl Read for CountingReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.0.read(buffer)?;
        self.1.advance(read as u64);
        Ok(read)
    }
}

fn read_at(mut file: File, offset: u64, chunk: &Chunk) -> io::Result<Vec<u8>> {
    file.seek(SeekFrom::Start(offset))?;
    let mut content = vec![0; chunk.size as usize];
    file.read_exact(&mut content)?;
    Ok(content)
}

fn set_executable(file: &File, executable: bool) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = file.metadata()?.permissions().mode();
    // Users that may read the file may execute it.
    let wanted = if executable { mode | (mode & 0o444) >> 2 } else { mode & !0o111 };
    if wanted == mode {
        return Ok(());
    }
    file.set_permissions(std::fs::Permissions::from_mode(wanted))
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

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

    #[test]
    fn linked_folder_stops_an_update_before_it_writes_outside() {
        let (folder, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let install = Install::open(folder.path()).unwrap();
        fs::write(outside.path().join("old"), "kept").unwrap();
        symlink(outside.path(), folder.path().join("data")).unwrap();
        let manifest = manifest(&[("data/new", b"return 1")]);
        let found = install.scan(&manifest, &[path("data/old")], &Progress::default()).unwrap();
        let plan = shardkeep_patch::plan(&manifest, &found, &[path("data/old")]);
        let error = install.prepare(&manifest, &plan).unwrap_err();
        assert!(error.to_string().contains("symbolic link"), "{error}");
        install.remove(&path("data/old")).unwrap();
        let names: Vec<_> = fs::read_dir(outside.path()).unwrap().map(|it| it.unwrap().file_name()).collect();
        assert_eq!(names, ["old"]);
    }

    #[test]
    fn linked_folder_of_the_update_itself_is_refused() {
        let (folder, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        symlink(outside.path(), folder.path().join(path::RESERVED)).unwrap();
        assert!(matches!(Install::open(folder.path()), Err(UpdateError::Disk { .. })));
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
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

    /// Installs a release whose chunks are all in the folder. Returns the numbers of files to write and to remove.
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

        // A system that ignores case has one file under both names.
        fs::hard_link(at("data/foo.lua"), at("data/FOO.lua")).unwrap();
        assert_eq!(install_from_here(&install, &manifest, &[path("data/FOO.lua")]), (0, 1));
        assert!(at("data/FOO.lua").exists() && at("data/foo.lua").exists());
        assert_eq!(install.state().owned, [path("data/foo.lua")]);
    }
}

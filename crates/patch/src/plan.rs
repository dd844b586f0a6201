//! The plan of an update: the files to stage, the source of each chunk, and the files to remove. An update never
//! touches files that no manifest contains, such as saves, settings and screenshots.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::{Manifest, ReleasePath, ScanResult, scan::ChunkLocation};

/// Source of a chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// An installed file.
    Installed(ChunkLocation),
    /// Already in a staged file: number of the file, offset.
    Staged { file: u32, offset: u64 },
    /// The server.
    Fetched,
}

/// A chunk, and all the places where it is missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingChunk {
    /// Number in the manifest.
    pub chunk: u32,
    pub from: Source,
    /// Numbers of files, and offsets.
    pub to: Vec<(u32, u64)>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Indices of the files to stage and then to move into place.
    pub write: Vec<u32>,
    /// In the order of the manifest's table.
    pub missing_chunks: Vec<MissingChunk>,
    /// Files of an earlier release that this one does not contain under that name. On systems that ignore case, such
    /// a file may still belong to this release: see [`Plan::case_variants`].
    pub remove: Vec<ReleasePath>,
    /// Bytes to fetch, in their stored form.
    pub fetch_bytes: u64,
    /// Bytes of the files to write.
    pub write_bytes: u64,
}

impl Plan {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.write.is_empty() && self.remove.is_empty()
    }

    /// Files to remove that differ from a file of the release only in case, with that file.
    pub fn case_variants<'a>(&self, manifest: &'a Manifest) -> HashMap<&ReleasePath, &'a ReleasePath> {
        if self.remove.is_empty() {
            return HashMap::new();
        }
        let release_paths: HashMap<String, &ReleasePath> =
            manifest.files().iter().map(|file| (file.path.folded(), &file.path)).collect();
        self.remove.iter().filter_map(|path| Some((path, *release_paths.get(&path.folded())?))).collect()
    }

    /// Number of chunks to fetch from the server.
    pub fn fetches(&self) -> usize {
        self.missing_chunks.iter().filter(|need| need.from == Source::Fetched).count()
    }
}

/// Computes the plan from the scan result. `previous_files` are the files that earlier releases installed.
pub fn plan(manifest: &Manifest, found: &ScanResult, previous_files: &[ReleasePath]) -> Plan {
    let mut plan = Plan { remove: removed(manifest, previous_files), ..Plan::default() };
    let mut missing: BTreeMap<u32, Vec<(u32, u64)>> = BTreeMap::new();
    let mut staged: BTreeMap<u32, (u32, u64)> = BTreeMap::new();
    for (number, file) in (0u32..).zip(manifest.files()) {
        if found.whole.get(number as usize).copied().unwrap_or(false) {
            continue;
        }
        plan.write.push(number);
        plan.write_bytes += manifest.size(file);
        let present = found.staged.get(&number);
        for ((at, place), (offset, _)) in file.chunks.iter().enumerate().zip(manifest.file_chunks(file)) {
            if present.and_then(|present| present.get(at)).copied().unwrap_or(false) {
                staged.entry(*place).or_insert((number, offset));
            } else {
                missing.entry(*place).or_default().push((number, offset));
            }
        }
    }
    for (chunk, to) in missing {
        let from = match (staged.get(&chunk), found.locations.get(&chunk)) {
            (Some(&(file, offset)), _) => Source::Staged { file, offset },
            (None, Some(place)) => Source::Installed(place.clone()),
            (None, None) => {
                plan.fetch_bytes += u64::from(manifest.chunks()[chunk as usize].stored);
                Source::Fetched
            }
        };
        plan.missing_chunks.push(MissingChunk { chunk, from, to });
    }
    plan
}

fn removed(manifest: &Manifest, previous_files: &[ReleasePath]) -> Vec<ReleasePath> {
    let release_paths: HashSet<&ReleasePath> = manifest.files().iter().map(|file| &file.path).collect();
    previous_files.iter().filter(|path| !release_paths.contains(path)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::{Scan, chunking::tests::noise, manifest::tests::manifest_of, scan::chunk_matches};

    type Files = BTreeMap<String, Vec<u8>>;

    fn scan(manifest: &Manifest, installed: &Files, staged: &HashMap<u32, Vec<u8>>) -> ScanResult {
        let mut scan = Scan::new(manifest);
        for (path, content) in installed {
            scan.installed(&ReleasePath::new(path).unwrap(), &content[..]).unwrap();
        }
        for (file, content) in staged {
            scan.staged(*file, &content[..]).unwrap();
        }
        scan.finish()
    }

    /// Executes a plan in memory. The new files serve as the server.
    fn apply_plan(
        manifest: &Manifest,
        plan: &Plan,
        installed: &mut Files,
        mut staged: HashMap<u32, Vec<u8>>,
        new: &Files,
    ) {
        let served: HashMap<u32, Vec<u8>> = manifest
            .files()
            .iter()
            .flat_map(|file| file.chunks.iter().zip(manifest.file_chunks(file)).map(move |it| (file, it)))
            .map(|(file, (place, (offset, chunk)))| {
                let at = usize::try_from(offset).unwrap();
                (*place, new[file.path.as_str()][at..at + chunk.size as usize].to_vec())
            })
            .collect();
        for &file in &plan.write {
            let size = usize::try_from(manifest.size(&manifest.files()[file as usize])).unwrap();
            staged.entry(file).or_default().resize(size, 0);
        }
        for need in &plan.missing_chunks {
            let chunk = &manifest.chunks()[need.chunk as usize];
            let read = |bytes: &[u8], offset: u64| {
                let at = usize::try_from(offset).unwrap();
                bytes[at..at + chunk.size as usize].to_vec()
            };
            let content = match &need.from {
                Source::Installed(place) => read(&installed[place.path.as_str()], place.offset),
                Source::Staged { file, offset } => read(&staged[file], *offset),
                Source::Fetched => served[&need.chunk].clone(),
            };
            assert!(chunk_matches(chunk, &content));
            for &(file, offset) in &need.to {
                let at = usize::try_from(offset).unwrap();
                staged.get_mut(&file).unwrap()[at..at + content.len()].copy_from_slice(&content);
            }
        }
        for &file in &plan.write {
            let path = manifest.files()[file as usize].path.to_string();
            installed.insert(path, staged.remove(&file).unwrap());
        }
        for path in &plan.remove {
            installed.remove(path.as_str());
        }
    }

    fn paths(manifest: &Manifest) -> Vec<ReleasePath> {
        manifest.files().iter().map(|file| file.path.clone()).collect()
    }

    fn files() -> impl Strategy<Value = Files> {
        let content = proptest::collection::vec((0u64..5, 0usize..3_000), 0..3)
            .prop_map(|parts| parts.into_iter().flat_map(|(seed, length)| noise(seed, length)).collect());
        proptest::collection::btree_map("[a-e]/[x-z]", content, 0..6)
    }

    #[test]
    fn plan_fetches_only_changed_chunks() {
        let old = noise(1, 50_000);
        let mut new = old.clone();
        new.splice(20_000..20_000, *b"a new paragraph");
        let installed = Files::from([("book".into(), old)]);
        let wanted = Files::from([("book".into(), new)]);
        let (before, after) = (manifest_of(&installed), manifest_of(&wanted));
        let plan = plan(&after, &scan(&after, &installed, &HashMap::new()), &paths(&before));
        assert!(plan.fetches() <= 3 && plan.fetch_bytes < 4_000, "{plan:?}");
        assert_eq!((plan.write.len(), plan.write_bytes, plan.remove.len()), (1, 50_015, 0));
    }

    #[test]
    fn chunk_is_fetched_once_for_all_files() {
        let wanted = Files::from([("a".into(), noise(1, 5_000)), ("b".into(), noise(1, 5_000))]);
        let manifest = manifest_of(&wanted);
        let nothing = plan(&manifest, &scan(&manifest, &Files::new(), &HashMap::new()), &[]);
        assert_eq!(nothing.fetch_bytes, manifest.total_stored());
        assert!(nothing.missing_chunks.iter().all(|need| need.to.len() == 2 && need.from == Source::Fetched));
    }

    #[test]
    fn file_renamed_by_case_is_removed_by_old_name() {
        let old = Files::from([("Data/Foo.lua".into(), noise(1, 99)), ("gone".into(), noise(2, 9))]);
        let new = Files::from([("data/foo.lua".into(), noise(1, 99))]);
        let (before, after) = (manifest_of(&old), manifest_of(&new));
        let plan = plan(&after, &scan(&after, &old, &HashMap::new()), &paths(&before));
        let [renamed, gone] = ["Data/Foo.lua", "gone"].map(|path| ReleasePath::new(path).unwrap());
        assert_eq!((plan.remove.clone(), plan.fetches()), (vec![renamed.clone(), gone], 0));
        let case_variants = plan.case_variants(&after);
        assert_eq!((case_variants.len(), case_variants[&renamed].as_str()), (1, "data/foo.lua"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]
        /// From any installed files and any interrupted attempt, the plan produces the release, and files outside of
        /// all manifests stay.
        #[test]
        fn plan_produces_release_from_any_state(
            old in files(),
            new in files(),
            others in proptest::collection::btree_map("own/[x-z]", proptest::collection::vec(any::<u8>(), 0..50), 0..2),
            damage in proptest::option::of((any::<proptest::sample::Index>(), any::<proptest::sample::Index>())),
            staged in proptest::collection::vec((any::<proptest::sample::Index>(), 0usize..6_000), 0..3),
        ) {
            let (before, manifest) = (manifest_of(&old), manifest_of(&new));
            let mut installed = old.clone();
            installed.extend(others.clone());
            if let Some((file, at)) = damage && !installed.is_empty() {
                let content = installed.values_mut().nth(file.index(old.len() + others.len())).unwrap();
                if !content.is_empty() {
                    let at = at.index(content.len());
                    content[at] ^= 1;
                }
            }
            let kept: Files = installed.iter().filter(|(path, _)| path.starts_with("own/")).map(|(a, b)| (a.clone(), b.clone())).collect();
            let mut staged_files = HashMap::new();
            for (file, cut) in staged {
                if !new.is_empty() {
                    let number = file.index(new.len());
                    let content = new.values().nth(number).unwrap();
                    staged_files.insert(u32::try_from(number).unwrap(), content[..cut.min(content.len())].to_vec());
                }
            }
            let plan = plan(&manifest, &scan(&manifest, &installed, &staged_files), &paths(&before));
            apply_plan(&manifest, &plan, &mut installed, staged_files, &new);
            let mut wanted = new.clone();
            wanted.extend(kept);
            prop_assert_eq!(&installed, &wanted);
            prop_assert!(super::plan(&manifest, &scan(&manifest, &installed, &HashMap::new()), &paths(&manifest)).is_empty());
        }
    }
}

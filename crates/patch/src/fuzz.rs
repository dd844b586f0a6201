//! Entry point for fuzzers over every decoder of this crate. Tests replay the fuzz corpus through it. It accepts any
//! bytes and returns, and decoded values encode to the same bytes again.

use crate::{ChunkId, Manifest, ReleasePath, Scan, SignedManifest, chunk, plan};

/// Decodes `bytes` with every decoder.
///
/// # Panics
/// Panics if an invariant is violated.
pub fn decode_all(bytes: &[u8]) {
    if let Ok(manifest) = Manifest::decode(bytes) {
        assert!(manifest.encode() == bytes, "a manifest with two forms");
        scan_and_plan(&manifest);
    }
    if let Ok(signed) = SignedManifest::parse(bytes) {
        let _ = signed.verify_self_signed();
        let _ = signed.verify_trusted(&[signed.key()]);
    }
    if let Ok(path) = ReleasePath::from_bytes(bytes) {
        assert!(path.as_str().split('/').all(|part| !matches!(part, "" | "." | "..")));
    }
    for size in [0, 16, 4_096, u32::try_from(bytes.len()).unwrap_or(u32::MAX)] {
        if let Ok(content) = chunk::restore(bytes, &ChunkId::of(bytes.get(1..).unwrap_or_default()), size) {
            assert!(content.len() == size as usize);
        }
    }
}

fn scan_and_plan(manifest: &Manifest) {
    let found = Scan::new(manifest).finish();
    let plan = plan(manifest, &found, &[]);
    assert!(plan.fetch_bytes == manifest.total_stored() && plan.write.len() == manifest.files().len());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{SigningKey, manifest::tests::sample};

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]
        #[test]
        fn decoders_survive_arbitrary_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            decode_all(&bytes);
        }

        /// Mutated valid manifests reach deeper code than random bytes.
        #[test]
        fn decoders_survive_mutated_manifests(
            signed: bool,
            mutations in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..4),
        ) {
            let key = SigningKey::from_seed(&[1; 32]).unwrap();
            let mut bytes = if signed { key.sign(&sample(), 1) } else { sample().encode() };
            for (at, byte) in mutations {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            decode_all(&bytes);
        }
    }
}

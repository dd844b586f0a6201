//! Revocation of certificates that are stolen, or of daemons that are no more.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use rustls::pki_types::{CertificateRevocationListDer, pem::PemObject};
use x509_parser::prelude::{CertificateRevocationList, FromDer};

use super::{
    authority::{Authority, hex, unhex},
    files::Files,
};
use crate::identity::REVOKED;

/// Revokes every certificate that the authority of this folder has ever issued under these file names, removes their
/// files, and returns the path of the revocation list. The next [`super::issue`] makes a new certificate.
///
/// # Errors
/// When there is no authority, a name was never issued, or files cannot be written.
pub fn revoke(dir: &Path, names: &[String]) -> anyhow::Result<PathBuf> {
    let authority = Authority::open(dir)?;
    let issued = authority.issued();
    let mut serials = revoked(&dir.join(REVOKED))?;
    for name in names {
        let of_name = || issued.iter().filter(|(_, issued)| issued == name);
        if of_name().next().is_none() {
            let known: BTreeSet<&str> = issued.iter().map(|(_, name)| name.as_str()).collect();
            let known: Vec<&str> = known.into_iter().collect();
            bail!("this authority issued no certificate {name:?}; it issued: {}", known.join(", "));
        }
        serials.extend(of_name().filter_map(|(serial, _)| unhex(serial)).map(|serial| hex(&serial)));
    }
    let numbers: Vec<Vec<u8>> = serials.iter().filter_map(|serial| unhex(serial)).collect();
    let list = authority.write_revoked(&numbers)?;
    for name in names {
        let files = Files::of(dir, name);
        for path in [files.cert, files.key].iter().filter(|path| path.exists()) {
            std::fs::remove_file(path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    Ok(list)
}

/// The serial numbers that the list in this file holds already.
fn revoked(path: &Path) -> anyhow::Result<BTreeSet<String>> {
    if !path.exists() {
        return Ok(BTreeSet::new());
    }
    let list = CertificateRevocationListDer::from_pem_file(path)
        .with_context(|| format!("{} is not a revocation list", path.display()))?;
    let (_, list) = CertificateRevocationList::from_der(&list)
        .with_context(|| format!("{} is not a revocation list", path.display()))?;
    Ok(list.iter_revoked_certificates().map(|revoked| hex(revoked.raw_serial())).collect())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::{
        RootCertStore,
        pki_types::{CertificateDer, UnixTime},
        server::WebPkiClientVerifier,
    };
    use shardkeep_types::{DaemonKind, WorldId};

    use super::{super::*, *};

    fn accepted(dir: &Path, certificate: &CertificateDer<'_>) -> bool {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(dir.join("ca.pem")).unwrap()).unwrap();
        let list = CertificateRevocationListDer::from_pem_file(dir.join(REVOKED)).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
            .with_crls([list])
            .build()
            .unwrap();
        verifier.verify_client_cert(certificate, &[], UnixTime::now()).is_ok()
    }

    #[test]
    fn revoked_certificate_is_refused_and_its_successor_accepted() {
        let dir = tempfile::tempdir().unwrap();
        make_ca(dir.path()).unwrap();
        let issue = |name| issue(dir.path(), DaemonKind::Gateway, name, WorldId(0)).unwrap();
        let (stolen, other) = (issue("gateway-1"), issue("gateway-2"));
        let load = |files: &Files| CertificateDer::from_pem_file(&files.cert).unwrap();
        let (stolen, other) = (load(&stolen), load(&other));
        revoke(dir.path(), &["gateway-1".into()]).unwrap();
        assert!(!accepted(dir.path(), &stolen));
        assert!(accepted(dir.path(), &other));
        let successor = load(&issue("gateway-1"));
        assert!(accepted(dir.path(), &successor));
        // A second revocation keeps the first.
        revoke(dir.path(), &["gateway-2".into()]).unwrap();
        assert!(!accepted(dir.path(), &stolen) && !accepted(dir.path(), &other));
    }

    #[test]
    fn revoke_of_unknown_name_lists_issued_names() {
        let dir = tempfile::tempdir().unwrap();
        make_ca(dir.path()).unwrap();
        issue(dir.path(), DaemonKind::Gateway, "gateway-1", WorldId(0)).unwrap();
        let error = revoke(dir.path(), &["gateway-7".into()]).unwrap_err().to_string();
        assert!(error.contains("gateway-7") && error.contains("it issued: gateway-1"), "{error}");
    }
}

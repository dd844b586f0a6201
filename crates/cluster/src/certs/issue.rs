//! Certificates of instances, of all replicas of a kind, and the one that players see.

use std::{path::Path, sync::Arc};

use anyhow::{Context, bail};
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyUsagePurpose, SanType};
use rustls::{
    RootCertStore,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
};
use shardkeep_types::{DaemonKind, WorldId};

use super::{
    authority::{Authority, needs_renewal},
    files::{Files, PLAYERS},
};
use crate::{Peer, peer};

/// Issues a certificate for this instance, or keeps the one that is there if it is valid for long enough.
///
/// # Errors
/// When there is no authority, the name is no instance name or taken by another kind or world, or files cannot be
/// written.
pub fn issue(dir: &Path, kind: DaemonKind, name: &str, world: WorldId) -> anyhow::Result<Files> {
    issue_to(dir, Files::of_instance(dir, name)?, &Peer::new(kind, name, world))
}

/// Like [`issue`], one certificate for all replicas of this kind in this world: it proves both, but not which replica
/// speaks. For replicas that are scaled by a number, so that their names are unknown beforehand.
///
/// # Errors
/// See [`issue`].
pub fn issue_shared(dir: &Path, kind: DaemonKind, world: WorldId) -> anyhow::Result<Files> {
    issue_to(dir, Files::of(dir, kind.as_str()), &Peer::new(kind, peer::SHARED_NAME, world))
}

/// Issues the certificate that login and gateways show to players on QUIC and `wss`. It names
/// `players.shardkeep.internal`, this machine, and `hosts`. No daemon accepts it from a peer. The certificate that is
/// there stays if it names all of these and is valid for long enough.
///
/// # Errors
/// When there is no authority, a host is no name, or files cannot be written.
pub fn issue_players(dir: &Path, hosts: &[&str]) -> anyhow::Result<Files> {
    let files = Files::of(dir, PLAYERS);
    let authority = Authority::open(dir)?;
    let mut names = vec![format!("{PLAYERS}.shardkeep.internal"), "localhost".into()];
    names.extend(["127.0.0.1", "::1"].into_iter().chain(hosts.iter().copied()).map(str::to_owned));
    names.sort_unstable();
    names.dedup();
    if files.key.exists() && !needs_renewal(&files.cert) && covers_names(&files, &names).unwrap_or(false) {
        return Ok(files);
    }
    // An IP address among the names becomes one in the certificate.
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name.push(DnType::CommonName, "Shardkeep, for players");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    authority.sign(params, &files)?;
    Ok(files)
}

/// Whether the authority beside this certificate made it, for all these names.
fn covers_names(files: &Files, names: &[String]) -> anyhow::Result<bool> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&files.ca)?)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build()?;
    let leaf = CertificateDer::from_pem_file(&files.cert)?;
    let covered = |name: &String| {
        let name = ServerName::try_from(name.as_str());
        name.is_ok_and(|name| verifier.verify_server_cert(&leaf, &[], &name, &[], UnixTime::now()).is_ok())
    };
    Ok(names.iter().all(covered))
}

fn issue_to(dir: &Path, files: Files, wanted: &Peer) -> anyhow::Result<Files> {
    if files.cert.exists()
        && let Ok(identity) = files.load()
    {
        if identity.peer().uri() != wanted.uri() {
            bail!("{} is already the certificate of {}", files.cert.display(), identity.peer().uri());
        }
        if !needs_renewal(&files.cert) {
            return Ok(files);
        }
    }
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, wanted.to_string());
    params.subject_alt_names = vec![
        SanType::URI(wanted.uri().try_into().context("the name does not fit a certificate")?),
        SanType::DnsName(peer::dns_name(wanted.kind).try_into()?),
    ];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    Authority::open(dir)?.sign(params, &files)?;
    Ok(files)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::{super::make_ca, *};

    #[test]
    fn issuing_twice_keeps_the_certificate() {
        let dir = tempfile::tempdir().unwrap();
        make_ca(dir.path()).unwrap();
        let files = issue(dir.path(), DaemonKind::Zone, "zone-1", WorldId(1)).unwrap();
        let before = std::fs::read(&files.cert).unwrap();
        make_ca(dir.path()).unwrap();
        assert_eq!(issue(dir.path(), DaemonKind::Zone, "zone-1", WorldId(1)).unwrap(), files);
        assert_eq!(std::fs::read(&files.cert).unwrap(), before);
        assert_eq!(files.load().unwrap().peer().to_string(), "zone/zone-1");
        for key in ["ca.key", "zone-1.key"] {
            let mode = std::fs::metadata(dir.path().join(key)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{key}");
        }
    }

    #[test]
    fn players_certificate_is_not_an_instance_identity() {
        let dir = tempfile::tempdir().unwrap();
        make_ca(dir.path()).unwrap();
        let files = issue_players(dir.path(), &["play.example", "127.0.0.1", "192.0.2.7"]).unwrap();
        let before = std::fs::read(&files.cert).unwrap();
        assert_eq!(issue_players(dir.path(), &["192.0.2.7"]).unwrap(), files);
        assert_eq!(std::fs::read(&files.cert).unwrap(), before);
        assert!(files.load().is_err());
        issue_players(dir.path(), &["another.example"]).unwrap();
        assert_ne!(std::fs::read(&files.cert).unwrap(), before, "the certificate does not name that host");
        assert!(issue_players(tempfile::tempdir().unwrap().path(), &[]).is_err(), "no authority");
    }

    #[test]
    fn issue_refuses_name_of_another_instance() {
        let dir = tempfile::tempdir().unwrap();
        make_ca(dir.path()).unwrap();
        issue(dir.path(), DaemonKind::Zone, "one", WorldId(1)).unwrap();
        let error = issue(dir.path(), DaemonKind::Gm, "one", WorldId(0)).unwrap_err().to_string();
        assert!(error.contains("shardkeep://zone/one?world=1"), "{error}");
    }

    #[test]
    fn certificate_of_replaced_authority_is_reissued() {
        let dir = tempfile::tempdir().unwrap();
        make_ca(dir.path()).unwrap();
        let files = issue(dir.path(), DaemonKind::Ai, "ai-1", WorldId(0)).unwrap();
        for file in ["ca.pem", "ca.key"] {
            std::fs::remove_file(dir.path().join(file)).unwrap();
        }
        make_ca(dir.path()).unwrap();
        assert!(files.load().is_err());
        issue(dir.path(), DaemonKind::Ai, "ai-1", WorldId(0)).unwrap().load().unwrap();
    }

    #[test]
    fn name_that_leads_out_of_the_folder_is_refused() {
        let outside = tempfile::tempdir().unwrap();
        let dir = outside.path().join("tls");
        make_ca(&dir).unwrap();
        for name in ["../x", "../../x", "/tmp/x", "a/b", "..", ".x", "", "x\0", "-x"] {
            let error = issue(&dir, DaemonKind::Zone, name, WorldId(1)).unwrap_err().to_string();
            assert!(error.contains("is not an instance name"), "{name:?}: {error}");
        }
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 1, "only the folder itself");
    }

    #[test]
    fn name_of_the_authority_or_of_players_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let authority = std::fs::read(make_ca(dir.path()).unwrap()).unwrap();
        for name in ["ca", "players", "revoked"] {
            let error = issue(dir.path(), DaemonKind::Zone, name, WorldId(1)).unwrap_err().to_string();
            assert!(error.contains(&format!("for example {name}-1")), "{error}");
        }
        assert_eq!(std::fs::read(dir.path().join("ca.pem")).unwrap(), authority);
    }

    #[test]
    fn copy_holds_one_identity_and_no_authority_key() {
        let dir = tempfile::tempdir().unwrap();
        make_ca(dir.path()).unwrap();
        let files = issue_shared(dir.path(), DaemonKind::Gateway, WorldId(0)).unwrap();
        let folder = dir.path().join("for-gateway");
        files.copy_to(&folder).unwrap().load().unwrap();
        let mut names: Vec<_> =
            std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["ca.pem", "gateway.key", "gateway.pem"]);
        let mode = std::fs::metadata(folder.join("gateway.key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}

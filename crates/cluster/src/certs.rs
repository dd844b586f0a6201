//! Development certificates: an authority in a folder, and certificates that name kind, instance and world.
//! Everything here may be called again: what is there and valid stays. A production cluster brings certificates of
//! its own authority with the same names (see [`crate::Peer`]).
//!
//! Files: `ca.pem`, `ca.key`, and per instance `<name>.pem`, `<name>.key`; keys are readable by their owner only.
//! [`issue_shared`] makes `<kind>.pem` and `<kind>.key` for all replicas of a kind, [`issue_players`] makes
//! `players.pem` and `players.key`, which login and gateways show to players.

use std::{
    fs::OpenOptions,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use anyhow::{Context, bail};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType, date_time_ymd,
};
use rustls::{
    RootCertStore,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
};
use shardkeep_types::{DaemonKind, WorldId};

use crate::{Identity, Peer, peer};

const VALID_YEARS: i32 = 10;

/// The files of one issued certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    pub ca: PathBuf,
    pub cert: PathBuf,
    pub key: PathBuf,
}

impl Files {
    /// Where the certificate of this instance lies, or will lie.
    pub fn of(dir: &Path, name: &str) -> Self {
        let file = |extension: &str| dir.join(format!("{name}.{extension}"));
        Self { ca: dir.join("ca.pem"), cert: file("pem"), key: file("key") }
    }

    /// # Errors
    /// See [`Identity::load`].
    pub fn load(&self) -> anyhow::Result<Identity> {
        Identity::load(&self.ca, &self.cert, &self.key)
    }
}

/// Makes an authority in this folder, or keeps the one that is there. Returns its certificate's path.
///
/// # Errors
/// When the folder or its files can not be written, or hold half an authority.
pub fn make_ca(dir: &Path) -> anyhow::Result<PathBuf> {
    let (cert, key) = (dir.join("ca.pem"), dir.join("ca.key"));
    match (cert.exists(), key.exists()) {
        (true, true) => return Ok(cert),
        (false, false) => {}
        _ => bail!("{} holds only one of ca.pem and ca.key; remove it to begin anew", dir.display()),
    }
    std::fs::create_dir_all(dir).with_context(|| format!("can not make {}", dir.display()))?;
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "Shardkeep development authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    limit_validity(&mut params);
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    write(&key, issuer.key().serialize_pem().as_bytes(), 0o600)?;
    write(&cert, issuer.pem().as_bytes(), 0o644)?;
    Ok(cert)
}

/// Issues a certificate signed by the folder's authority, or keeps the one that is there and still valid.
///
/// # Errors
/// When there is no authority, the name is taken by another kind or world, or files can not be written.
pub fn issue(dir: &Path, kind: DaemonKind, name: &str, world: WorldId) -> anyhow::Result<Files> {
    issue_to(dir, Files::of(dir, name), &Peer::new(kind, name, world))
}

/// Like [`issue`], one certificate for all replicas of this kind in this world: it proves both, but not which replica
/// speaks. For replicas that are scaled by a number, where nobody could issue one to each.
///
/// # Errors
/// See [`issue`].
pub fn issue_shared(dir: &Path, kind: DaemonKind, world: WorldId) -> anyhow::Result<Files> {
    issue_to(dir, Files::of(dir, kind.as_str()), &Peer::new(kind, peer::SHARED_NAME, world))
}

/// Name of the certificate for players, in it and of its files.
const PLAYERS: &str = "players";

/// Issues the certificate that login and gateways show to players on QUIC and `wss`, or keeps the one that is there if
/// this authority made it for all these names. It names `players.shardkeep.internal`, this machine, and `hosts`; it is no instance's, and no daemon accepts it.
///
/// # Errors
/// When there is no authority, a host is no name, or files can not be written.
pub fn issue_players(dir: &Path, hosts: &[&str]) -> anyhow::Result<Files> {
    let files = Files::of(dir, PLAYERS);
    let issuer = issuer(dir)?;
    let mut names = vec![format!("{PLAYERS}.shardkeep.internal"), "localhost".into()];
    names.extend(["127.0.0.1", "::1"].into_iter().chain(hosts.iter().copied()).map(str::to_owned));
    names.sort_unstable();
    names.dedup();
    if files.key.exists() && covers_names(&files, &names).unwrap_or(false) {
        return Ok(files);
    }
    let key = KeyPair::generate()?;
    // An IP address among the names becomes one in the certificate.
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name.push(DnType::CommonName, "Shardkeep, for players");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    limit_validity(&mut params);
    let certificate = params.signed_by(&key, &issuer)?;
    write(&files.key, key.serialize_pem().as_bytes(), 0o600)?;
    write(&files.cert, certificate.pem().as_bytes(), 0o644)?;
    Ok(files)
}

/// Whether the authority beside it made this certificate, for all these names.
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

fn issuer(dir: &Path) -> anyhow::Result<Issuer<'static, KeyPair>> {
    let read = |name: &str| {
        let path = dir.join(name);
        std::fs::read_to_string(&path)
            .with_context(|| format!("no authority: can not read {}", path.display()))
    };
    Ok(Issuer::from_ca_cert_pem(&read("ca.pem")?, KeyPair::from_pem(&read("ca.key")?)?)?)
}

fn issue_to(dir: &Path, files: Files, wanted: &Peer) -> anyhow::Result<Files> {
    if files.cert.exists()
        && let Ok(identity) = files.load()
    {
        if identity.peer().uri() == wanted.uri() {
            return Ok(files);
        }
        bail!("{} is already the certificate of {}", files.cert.display(), identity.peer().uri());
    }
    let issuer = issuer(dir)?;
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, wanted.to_string());
    params.subject_alt_names = vec![
        SanType::URI(wanted.uri().try_into().context("the name does not fit a certificate")?),
        SanType::DnsName(peer::dns_name(wanted.kind).try_into()?),
    ];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    limit_validity(&mut params);
    let certificate = params.signed_by(&key, &issuer)?;
    write(&files.key, key.serialize_pem().as_bytes(), 0o600)?;
    write(&files.cert, certificate.pem().as_bytes(), 0o644)?;
    Ok(files)
}

fn limit_validity(params: &mut CertificateParams) {
    const SECONDS_A_YEAR: u64 = 31_556_952;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let year = 1970 + i32::try_from(now / SECONDS_A_YEAR).unwrap_or(100);
    // From last new year's day on, so that a peer whose clock is behind accepts it.
    params.not_before = date_time_ymd(year - 1, 1, 1);
    params.not_after = date_time_ymd(year + VALID_YEARS, 1, 1);
}

/// Replaces the file in one step; a private key is never readable by others, not even while it is written.
fn write(path: &Path, content: &[u8], mode: u32) -> anyhow::Result<()> {
    let draft = path.with_extension(format!("draft-{}", std::process::id()));
    let result = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(&draft)
        .and_then(|mut file| file.write_all(content))
        .and_then(|()| std::fs::rename(&draft, path));
    result.with_context(|| format!("can not write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

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
        assert_ne!(std::fs::read(&files.cert).unwrap(), before, "it did not name that one");
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
}

//! The certificate authority in a folder: makes itself, signs certificates and revocation lists, and remembers what it
//! has signed.

use std::{
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use anyhow::{Context, bail};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType, IsCa,
    Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber,
};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::files::{Files, write};
use crate::identity::REVOKED;

const DAY: Duration = Duration::from_secs(24 * 3600);
/// Lifetime of the CA.
const CA_LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// Lifetime of the certificates of daemons and of the one for players, of which [`CLOCK_TOLERANCE`] lies before the
/// issue. Browsers accept at most 398 days.
pub const CERTIFICATE_LIFETIME: Duration = Duration::from_secs(397 * 24 * 3600);
/// A certificate that expires within this time is issued anew.
pub const RENEW_BEFORE: Duration = Duration::from_secs(180 * 24 * 3600);
/// A certificate is valid from this long before its issue, for peers whose clock is behind.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(30 * 24 * 3600);
/// Serial numbers and file names of what the CA has signed.
const ISSUED: &str = "issued";

/// Makes an authority in this folder, or keeps the one that is there. Returns its certificate's path.
///
/// # Errors
/// When the folder or its files cannot be written, or hold half an authority.
pub fn make_ca(dir: &Path) -> anyhow::Result<PathBuf> {
    let Files { cert, key, .. } = Files::of(dir, "ca");
    match (cert.exists(), key.exists()) {
        (true, true) => return Ok(cert),
        (false, false) => {}
        _ => bail!("{} holds only one of ca.pem and ca.key; remove it to begin anew", dir.display()),
    }
    std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "Shardkeep development authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    limit_validity(&mut params, CA_LIFETIME);
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    write(&key, issuer.key().serialize_pem().as_bytes(), 0o600)?;
    write(&cert, issuer.pem().as_bytes(), 0o644)?;
    Ok(cert)
}

/// The authority of a folder, with its key.
pub(super) struct Authority<'a> {
    dir: &'a Path,
    issuer: Issuer<'static, KeyPair>,
}

impl<'a> Authority<'a> {
    pub(super) fn open(dir: &'a Path) -> anyhow::Result<Self> {
        let read = |name: &str| {
            let path = dir.join(name);
            std::fs::read_to_string(&path)
                .with_context(|| format!("no authority: cannot read {}", path.display()))
        };
        let issuer = Issuer::from_ca_cert_pem(&read("ca.pem")?, KeyPair::from_pem(&read("ca.key")?)?)?;
        Ok(Self { dir, issuer })
    }

    /// Signs a certificate for a new key, and writes both. The serial number is recorded first, so that every
    /// certificate that exists can be revoked.
    pub(super) fn sign(&self, mut params: CertificateParams, files: &Files) -> anyhow::Result<()> {
        let key = KeyPair::generate()?;
        params.use_authority_key_identifier_extension = true;
        limit_validity(&mut params, CERTIFICATE_LIFETIME);
        let certificate = params.signed_by(&key, &self.issuer)?;
        self.record(certificate.der(), &files.cert)?;
        write(&files.key, key.serialize_pem().as_bytes(), 0o600)?;
        write(&files.cert, certificate.pem().as_bytes(), 0o644)
    }

    fn record(&self, certificate: &CertificateDer<'_>, path: &Path) -> anyhow::Result<()> {
        let (_, parsed) = X509Certificate::from_der(certificate)?;
        let mut issued = self.issued();
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        issued.push((hex(parsed.raw_serial()), name));
        let lines: Vec<String> = issued.iter().map(|(serial, name)| format!("{serial} {name}\n")).collect();
        write(&self.dir.join(ISSUED), lines.concat().as_bytes(), 0o644)
    }

    /// Serial number in hexadecimal and file name of every certificate that this authority has signed.
    pub(super) fn issued(&self) -> Vec<(String, String)> {
        let text = std::fs::read_to_string(self.dir.join(ISSUED)).unwrap_or_default();
        let line =
            |line: &str| line.split_once(' ').map(|(serial, name)| (serial.to_owned(), name.to_owned()));
        text.lines().filter_map(line).collect()
    }

    /// Writes the revocation list of these serial numbers. It holds all revocations, not only new ones.
    pub(super) fn write_revoked(&self, serials: &[Vec<u8>]) -> anyhow::Result<PathBuf> {
        let now = SystemTime::now();
        let seconds = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let revoked = serials.iter().map(|serial| RevokedCertParams {
            serial_number: SerialNumber::from_slice(serial),
            revocation_time: now.into(),
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: (now - DAY).into(),
            next_update: (now + CA_LIFETIME).into(),
            crl_number: SerialNumber::from(seconds),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let path = self.dir.join(REVOKED);
        write(&path, list.signed_by(&self.issuer)?.pem()?.as_bytes(), 0o644)?;
        Ok(path)
    }
}

/// Whether the first certificate in this file expires within [`RENEW_BEFORE`], or cannot be read.
pub(super) fn needs_renewal(path: &Path) -> bool {
    let expires = || {
        let leaf = CertificateDer::from_pem_file(path).ok()?;
        let (_, parsed) = X509Certificate::from_der(&leaf).ok()?;
        u64::try_from(parsed.validity().not_after.timestamp()).ok()
    };
    let renew_at = SystemTime::now() + RENEW_BEFORE;
    let renew_at = renew_at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    expires().is_none_or(|expires| expires < renew_at)
}

fn limit_validity(params: &mut CertificateParams, lifetime: Duration) {
    let begins = SystemTime::now() - CLOCK_TOLERANCE;
    params.not_before = begins.into();
    params.not_after = (begins + lifetime).into();
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(super) fn unhex(text: &str) -> Option<Vec<u8>> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok()).collect()
}

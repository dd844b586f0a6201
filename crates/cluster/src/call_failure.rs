//! Explains why a call to a peer failed: the cause below tonic's "transport error", and what the operator can do.

use std::error::Error;

use rustls::CertificateError;
use tonic::Status;

/// The cause of a failed call in one line. A certificate of another authority is reported as such.
pub(crate) fn explain(status: &Status) -> String {
    let mut causes = Vec::new();
    if !status.message().is_empty() {
        causes.push(status.message().to_owned());
    }
    let mut source = status.source();
    while let Some(error) = source {
        if is_foreign_authority(error) {
            return FOREIGN_AUTHORITY.to_owned();
        }
        let text = error.to_string();
        if !causes.iter().any(|cause| cause.contains(&text)) {
            causes.push(text);
        }
        source = error.source();
    }
    if causes.is_empty() { status.code().to_string() } else { causes.join(": ") }
}

const FOREIGN_AUTHORITY: &str = "the peer's certificate is not signed by the authority in cluster.ca: use the ca.pem of \
                                 the cluster, and a certificate that this authority has signed";

/// Two authorities with the same name, such as two development authorities, differ only in the signature.
fn is_foreign_authority(error: &(dyn Error + 'static)) -> bool {
    // rustls reports through `io::Error`, whose `source` skips the error that it wraps.
    let wrapped = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    let tls = wrapped
        .and_then(|inner| inner.downcast_ref::<rustls::Error>())
        .or_else(|| error.downcast_ref::<rustls::Error>());
    match tls {
        Some(rustls::Error::InvalidCertificate(reason)) => {
            matches!(reason, CertificateError::UnknownIssuer | CertificateError::BadSignature)
        }
        Some(rustls::Error::AlertReceived(alert)) => *alert == rustls::AlertDescription::UnknownCA,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(error: rustls::Error) -> Status {
        Status::from_error(Box::new(std::io::Error::other(error)))
    }

    #[test]
    fn certificate_of_foreign_authority_is_named() {
        for reason in [CertificateError::UnknownIssuer, CertificateError::BadSignature] {
            let shown = explain(&status(rustls::Error::InvalidCertificate(reason)));
            assert!(shown.contains("not signed by the authority in cluster.ca"), "{shown}");
        }
        let shown = explain(&status(rustls::Error::InvalidCertificate(CertificateError::Expired)));
        assert!(shown.contains("Expired") && !shown.contains("cluster.ca"), "{shown}");
    }

    #[test]
    fn causes_are_joined_without_repetition() {
        assert_eq!(explain(&Status::unavailable("closed")), "closed");
        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        let shown = explain(&Status::from_error(Box::new(refused)));
        assert_eq!(shown.matches("connection refused").count(), 1, "{shown}");
    }
}

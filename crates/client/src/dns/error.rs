//! Why a look-up failed.

use std::{io, net::SocketAddr};

use hickory_proto::{
    ProtoError,
    op::ResponseCode,
    rr::{Name, RecordType},
};

#[derive(Debug, thiserror::Error)]
pub enum DnsError {
    #[error("{name}: {source}")]
    Name { name: String, source: ProtoError },
    #[error("{server}: {source}")]
    Io { server: SocketAddr, source: io::Error },
    #[error("{server} does not answer")]
    Timeout { server: SocketAddr },
    #[error("{name}: {code}")]
    Refused { name: Name, code: ResponseCode },
    #[error("{name} has no {kind} records")]
    NoRecords { name: Name, kind: RecordType },
    #[error("{server} sends no DNS: {reason}")]
    Malformed { server: SocketAddr, reason: String },
    #[error("the system does not know {host}: {source}")]
    System { host: String, source: io::Error },
}

//! Where a request came from, as the audit shows it.

use std::{
    borrow::Cow,
    fmt,
    net::{IpAddr, Ipv4Addr},
};

/// The interface and the address of a request, shown as `web 203.0.113.9`.
#[derive(Debug, Clone)]
pub(crate) struct Origin {
    interface: Cow<'static, str>,
    address: IpAddr,
}

impl Origin {
    /// A request of a browser.
    pub(crate) fn web(address: Option<IpAddr>) -> Self {
        Self::new("web".into(), address)
    }

    /// A gRPC call. `caller` names the operator and the certificate: `ann (cli/cli)`.
    pub(crate) fn grpc(caller: Option<&str>, address: Option<IpAddr>) -> Self {
        Self::new(caller.map_or("grpc".into(), |caller| format!("grpc {caller}").into()), address)
    }

    fn new(interface: Cow<'static, str>, address: Option<IpAddr>) -> Self {
        Self { interface, address: address.unwrap_or(Ipv4Addr::UNSPECIFIED.into()) }
    }

    /// Unspecified (`0.0.0.0`) when it is not known.
    pub(crate) fn address(&self) -> IpAddr {
        self.address
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.interface)?;
        if self.address.is_unspecified() { Ok(()) } else { write!(f, " {}", self.address) }
    }
}

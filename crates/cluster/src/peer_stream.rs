//! A TLS connection to a peer, in either direction. It breaks when the peer's certificate is revoked or expires.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use rustls::pki_types::CertificateDer;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::TlsStream;
use tonic::transport::server::Connected;

use crate::{Identity, Peer, peer};

/// A connection whose peer has proved its name.
pub(crate) struct PeerStream {
    stream: TlsStream<TcpStream>,
    peer: Peer,
    certificate: CertificateDer<'static>,
    identity: Arc<Identity>,
    /// Version of `identity` by which the certificate was checked last.
    checked: u64,
}

impl PeerStream {
    /// # Errors
    /// When the peer has no certificate, or one that names no instance.
    pub(crate) fn new(
        stream: impl Into<TlsStream<TcpStream>>,
        identity: Arc<Identity>,
        checked: u64,
    ) -> io::Result<Self> {
        let stream = stream.into();
        let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let certificate = certificate.ok_or_else(|| io::Error::other("no certificate"))?.clone();
        let peer = peer::of_certificate(&certificate).map_err(io::Error::other)?;
        Ok(Self { stream, peer, certificate, identity, checked })
    }

    pub(crate) fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Fails if the certificate is no longer valid after a reload of CA or revocation list. Keep-alive packets make
    /// every connection come here within seconds.
    fn check(&mut self) -> io::Result<()> {
        let version = self.identity.version();
        if version != self.checked {
            self.identity.check_peer(&self.certificate)?;
            self.checked = version;
        }
        Ok(())
    }
}

impl Connected for PeerStream {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for PeerStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for PeerStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, data)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

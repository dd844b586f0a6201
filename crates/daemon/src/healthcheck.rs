//! `--healthcheck`: asks the daemon that runs with these settings whether it is ready, so that an image needs no
//! other program for its health check.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context as _, bail};

const TIMEOUT: Duration = Duration::from_secs(2);
/// Far longer than any answer of `/readyz`.
const MAX_BYTES: u64 = 4096;

/// Returns when `/readyz` at this admin address answers 200.
pub(crate) fn check_ready(admin: &str) -> anyhow::Result<()> {
    let mut address: SocketAddr = admin.parse().context("daemon.admin")?;
    if address.port() == 0 {
        bail!("daemon.admin has port 0, which a health check can not find; give it a port");
    }
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)
        .with_context(|| format!("nothing listens on {address}"))?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.write_all(format!("GET /readyz HTTP/1.0\r\nhost: {address}\r\n\r\n").as_bytes())?;
    let mut response = String::new();
    stream.take(MAX_BYTES).read_to_string(&mut response)?;
    if response.split(' ').nth(1) == Some("200") {
        return Ok(());
    }
    bail!("{}", response.lines().last().unwrap_or("no answer"))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// Answers one request with this text. Returns the port.
    fn serve_response(response_text: &'static str) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 512]).unwrap();
            stream.write_all(response_text.as_bytes()).unwrap();
        });
        port
    }

    #[test]
    fn healthcheck_accepts_only_status_200() {
        let ready = serve_response("HTTP/1.0 200 OK\r\n\r\nready\n");
        // A daemon that listens on all addresses is checked at the loopback address.
        check_ready(&format!("0.0.0.0:{ready}")).unwrap();
        let draining = serve_response("HTTP/1.0 503 Service Unavailable\r\n\r\ndraining\n");
        assert_eq!(check_ready(&format!("127.0.0.1:{draining}")).unwrap_err().to_string(), "draining");
        assert!(check_ready("127.0.0.1:0").unwrap_err().to_string().contains("port 0"));
    }
}

//! HTTP GET on a daemon's admin address.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

const LIMIT: Duration = Duration::from_secs(2);
/// Bound of a page; `/metrics` is the largest.
const MAX_BYTES: u64 = 8 << 20;

/// Body of a page with status 200.
///
/// # Errors
/// When the server cannot be reached within two seconds, or answers anything but 200.
pub async fn get(address: &str, path: &str) -> Result<String> {
    timeout(LIMIT, request(address, path))
        .await
        .with_context(|| format!("{address}{path}: no answer in {LIMIT:?}"))?
}

async fn request(address: &str, path: &str) -> Result<String> {
    let mut stream =
        TcpStream::connect(address).await.with_context(|| format!("cannot connect to {address}"))?;
    let head = format!("GET {path} HTTP/1.0\r\nhost: {address}\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    let mut bytes = Vec::new();
    stream.take(MAX_BYTES).read_to_end(&mut bytes).await?;
    let text = String::from_utf8(bytes).context("the answer is not text")?;
    let (head, body) = text.split_once("\r\n\r\n").context("the answer is not HTTP")?;
    let status = head.split(' ').nth(1).unwrap_or_default();
    if status != "200" {
        bail!("http://{address}{path} answered {status}: {}", body.trim());
    }
    Ok(body.to_owned())
}

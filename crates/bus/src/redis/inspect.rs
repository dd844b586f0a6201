//! A look at a Redis server for `shardkeep doctor`.

use std::time::Duration;

use tokio::time::timeout;

use super::{
    address::{RESPONSE_TIMEOUT, client},
    writer::{check_role, connect},
};

/// Connects as the bus does. Returns the server's address.
///
/// # Errors
/// The address and the reason why the bus does not work.
pub async fn inspect(url: &str) -> Result<String, String> {
    let client = client(url).map_err(|error| error.to_string())?;
    let address = client.get_connection_info().addr().to_string();
    let asked = async { check_role(&mut connect(&client).await?).await };
    match timeout(RESPONSE_TIMEOUT + Duration::from_secs(1), asked).await {
        Ok(Ok(())) => Ok(address),
        Ok(Err(error)) => Err(format!("{address}: {error}")),
        Err(_) => Err(format!("{address}: no answer")),
    }
}

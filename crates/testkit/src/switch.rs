//! An address that leads to one server and later to another, as a virtual address or a proxy does after a fail-over.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use parking_lot::Mutex;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    task::AbortHandle,
};

/// Forwards TCP connections. A connection stays at the server that it was opened to.
pub struct AddressSwitch {
    address: SocketAddr,
    target: Arc<Mutex<SocketAddr>>,
    task: AbortHandle,
}

impl AddressSwitch {
    /// # Panics
    /// When no port is free.
    pub async fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let address = listener.local_addr().expect("the listener is bound");
        let target = Arc::new(Mutex::new(target));
        let task = tokio::spawn(forward(listener, target.clone())).abort_handle();
        Self { address, target, task }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Leads new connections to `target`.
    pub fn switch_to(&self, target: SocketAddr) {
        *self.target.lock() = target;
    }
}

impl Drop for AddressSwitch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn forward(listener: TcpListener, target: Arc<Mutex<SocketAddr>>) {
    while let Ok((mut client, _)) = listener.accept().await {
        let target = *target.lock();
        tokio::spawn(async move {
            if let Ok(mut server) = TcpStream::connect(target).await {
                // Either side may close at any time.
                let _ = copy_bidirectional(&mut client, &mut server).await;
            }
        });
    }
}

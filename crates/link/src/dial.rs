//! Dials a backend at the address that the registry has for it now.

use futures::{StreamExt, future::BoxFuture};
use shardkeep_rpc::link::{self as proto, backend_frame, link_client::LinkClient};
use shardkeep_types::DaemonKind;
use tonic::Status;

use crate::gateway::{BackendFrames, Dial, GatewayStream};
use shardkeep_cluster::{Directory, MESSAGE_LIMIT, Node};

/// Dials the registered address of an instance.
pub struct NodeDialer {
    pub node: Node,
    pub directory: Directory,
    pub kind: DaemonKind,
    pub name: String,
}

impl Dial for NodeDialer {
    fn dial(&self, outbound: GatewayStream) -> BoxFuture<'_, Result<BackendFrames, Status>> {
        Box::pin(async move {
            let instance =
                self.directory.get(&self.name).ok_or_else(|| Status::unavailable("not in the registry"))?;
            let mut client = LinkClient::new(self.node.channel(self.kind, &instance.grpc_address))
                .max_decoding_message_size(MESSAGE_LIMIT)
                .max_encoding_message_size(MESSAGE_LIMIT);
            let (kind, name) = (self.kind, self.name.clone());
            let frames = client.open(outbound).await?.into_inner();
            Ok(frames.map(move |frame| verify_sender(frame?, kind, &name)).boxed())
        })
    }
}

/// Checks that the hello comes from the dialled instance, because its address may belong to another one by now. The
/// peer's certificate has proved the kind.
fn verify_sender(
    frame: proto::BackendFrame,
    kind: DaemonKind,
    name: &str,
) -> Result<proto::BackendFrame, Status> {
    if let Some(backend_frame::Frame::Hello(hello)) = &frame.frame {
        let backend = hello.backend.clone().unwrap_or_default();
        if backend.kind != kind.as_str() || backend.name != name {
            return Err(Status::failed_precondition("another instance answers at this address"));
        }
    }
    Ok(frame)
}

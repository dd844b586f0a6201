//! How a gateway reaches a backend: wherever the registry says that it is now.

use futures::{StreamExt, future::BoxFuture, stream::BoxStream};
use shardkeep_rpc::link::{self as proto, backend_frame, link_client::LinkClient};
use shardkeep_types::DaemonKind;
use tonic::Status;

use crate::gateway::GatewayStream;
use shardkeep_cluster::{Directory, MESSAGE_LIMIT, Node};

/// Frames that a backend says.
pub type BackendFrames = BoxStream<'static, Result<proto::BackendFrame, Status>>;

/// Opens a stream to the backend, wherever it is now.
pub trait Dial: Send + Sync {
    fn dial(&self, outbound: GatewayStream) -> BoxFuture<'_, Result<BackendFrames, Status>>;
}

/// Dials the address that the registry tells for an instance.
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

/// Checks that a hello is of the instance that was dialled: its address may have gone to another since. The kind is
/// what the peer's certificate says.
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

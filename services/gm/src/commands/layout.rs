//! Parts that the commands about spaces and sectors share.

use shardkeep_cluster::Instance;
use shardkeep_rpc::world::{
    ChangeLayoutReply, ChangeLayoutRequest, Partition, Sector, StatusRequest, change_layout_request::Change,
};
use shardkeep_types::WorldId;
use tonic::{Code, Status};

use super::command::CommandContext;
use crate::{error::CommandError, peers::peer_error};

/// Asks the leading world to change its layout. The call is not repeated, because it is not idempotent.
pub(super) async fn change_layout(
    context: &CommandContext<'_>,
    world: WorldId,
    change: Change,
) -> Result<ChangeLayoutReply, CommandError> {
    let daemon = context.peers().world(world)?;
    let request = context.request(ChangeLayoutRequest { change: Some(change) });
    let mut client = context.peers().world_client(&daemon);
    let reply = client.change_layout(request).await.map_err(|status| layout_error(&daemon, status))?;
    Ok(reply.into_inner())
}

/// The layout of a world, with the number of avatars in each sector.
pub(super) async fn fetch_layout(
    context: &CommandContext<'_>,
    world: WorldId,
) -> Result<Partition, CommandError> {
    let daemon = context.peers().world(world)?;
    let client = context.peers().world_client(&daemon);
    let status = context
        .call(&client, &StatusRequest {}, |mut client, request| async move { client.status(request).await })
        .await
        .map_err(peer_error(&daemon))?;
    Ok(status.partition.unwrap_or_default())
}

/// `x 0–16, y 0–32`, without the last cells.
pub(crate) fn cells_text(sector: &Sector) -> String {
    let cells = sector.cells.unwrap_or_default();
    format!("x {}–{}, y {}–{}", cells.x0, cells.x1, cells.y0, cells.y1)
}

fn layout_error(daemon: &Instance, status: Status) -> CommandError {
    match status.code() {
        Code::NotFound => CommandError::NotFound(status.message().to_owned()),
        Code::InvalidArgument => CommandError::Malformed(status.message().to_owned()),
        _ => peer_error(daemon)(status),
    }
}

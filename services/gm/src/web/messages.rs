//! What messages cost the gateways: how many, how large, how much time.

use axum::{
    extract::{Query, State},
    response::Html,
};
use shardkeep_rpc::gateway::Cost;

use super::{
    Site,
    caller::Caller,
    error::WebError,
    html::{Markup, html},
    layout::{self, Flash, meter},
};
use crate::{
    costs::{self, bytes, seconds},
    role::Right,
};

pub(crate) async fn page(
    State(site): State<Site>,
    caller: Caller,
    Query(flash): Query<Flash>,
) -> Result<Html<String>, WebError> {
    caller.require(Right::SeeCluster)?;
    let (costs, gateways) = costs::fetch_totals(&site.console.peers).await;
    let all = costs.iter().map(|cost| cost.microseconds).sum::<u64>().max(1);
    let rows: Markup = costs.iter().map(|cost| row(cost, all)).collect();
    let empty =
        costs.is_empty().then(|| html!("<p class=\"empty\">No gateway has carried a message yet.</p>"));
    let body = html!(
        "<div data-live=\"messages\">{}<p class=\"hint\">Of {} gateways, each since its start. One message in 64 is "
        "timed, by the clock on the wall: a busy machine adds to it.</p><div class=\"scroll\"><table><thead><tr><th>Message<th>Received<th>Bytes<th>Sent<th>Bytes"
        "<th>Time<th>Share of the time</tr></thead><tbody>{}</tbody></table></div></div>";
        empty, gateways, rows,
    );
    Ok(layout::page(&site, &caller, "/messages", &flash, body).await)
}

fn row(cost: &Cost, all: u64) -> Markup {
    let share = cost.microseconds as f64 / all as f64;
    html!(
        "<tr><th scope=\"row\">{}<td>{}<td>{}<td>{}<td>{}<td>{}<td class=\"load\">{}</tr>";
        cost.name, cost.received, bytes(cost.received_bytes), cost.sent, bytes(cost.sent_bytes),
        seconds(cost.microseconds), meter(share, &format!("{:.0} %", share * 100.0)),
    )
}

//! The cost of messages at the gateways: number, size and time.

use axum::extract::{Query, State};
use maud::{Markup, html};
use shardkeep_rpc::gateway::Cost;

use super::{
    caller::Caller,
    elements::meter,
    error::WebError,
    layout::{self, Flash},
    live_part::LivePart,
    site::Site,
};
use crate::{
    costs::{self, bytes, seconds},
    role::Right,
};

const HEADINGS: [&str; 7] =
    ["Message", "Received", "Bytes received", "Sent", "Bytes sent", "Time", "Share of the time"];

pub(crate) async fn page(
    State(site): State<Site>,
    caller: Caller,
    Query(flash): Query<Flash>,
) -> Result<Markup, WebError> {
    let parts = parts(&site, &caller).await?;
    let body = html! {
        p.hint {
            "The sum over all gateways since the start of each. One message in 64 is timed by the wall clock, so the "
            "times are too long on a busy machine."
        }
        (parts[0].in_table(&HEADINGS, "No gateway has relayed a message yet."))
    };
    Ok(layout::page(&site, &caller, "/messages", &flash, Some("/live/messages"), body).await)
}

pub(crate) async fn parts(site: &Site, caller: &Caller) -> Result<Vec<LivePart>, WebError> {
    caller.require(Right::SeeCluster)?;
    let (costs, _) = costs::fetch_totals(site.console().peers()).await;
    let all = costs.iter().map(|cost| cost.microseconds).sum::<u64>().max(1);
    let rows = costs.iter().map(|cost| (cost.opcode.to_string(), row(cost, all)));
    Ok(vec![LivePart::new("messages", rows)])
}

fn row(cost: &Cost, all: u64) -> Markup {
    let share = cost.microseconds as f64 / all as f64;
    html! {
        tr data-key=(cost.opcode) {
            th scope="row" { (cost.name) }
            td data-label="Received" { (cost.received) }
            td data-label="Bytes received" { (bytes(cost.received_bytes)) }
            td data-label="Sent" { (cost.sent) }
            td data-label="Bytes sent" { (bytes(cost.sent_bytes)) }
            td data-label="Time" { (seconds(cost.microseconds)) }
            td.load data-label="Share of the time" { (meter(share, &format!("{:.0} %", share * 100.0))) }
        }
    }
}

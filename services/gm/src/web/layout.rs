//! The navigation around each page, and the forms that send commands.

use maud::{Markup, html};
use serde::Deserialize;

use super::{caller::Caller, document::document, elements::hidden, site::Site};
use crate::role::Right;

/// The pages: path, title, and the right to see the page.
const PAGES: [(&str, &str, Right); 9] = [
    ("/", "Overview", Right::SeeCluster),
    ("/worlds", "Worlds", Right::SeeCluster),
    ("/players", "Players", Right::SeePlayers),
    ("/map", "Live map", Right::SeeMap),
    ("/chat", "Chat", Right::SeeChat),
    ("/messages", "Messages", Right::SeeCluster),
    ("/audit", "Audit", Right::SeeAudit),
    ("/logs", "Logs", Right::SeeLogs),
    ("/operators", "Operators", Right::SeeOperators),
];

/// The query `?done=<number>` after a form: the audit entry whose result the page shows.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Flash {
    done: Option<u64>,
}

/// A page with navigation and the result of the last command. `live` is the URL of the stream that updates the page.
pub(crate) async fn page(
    site: &Site,
    caller: &Caller,
    path: &str,
    flash: &Flash,
    live: Option<&str>,
    body: Markup,
) -> Markup {
    let title = PAGES.iter().find(|(at, ..)| *at == path).map_or("Console", |(_, title, _)| title);
    let notice = notice(site, caller, flash).await;
    document(
        title,
        &html! {
            (header(caller, path))
            main data-stream=[live] {
                (notice.unwrap_or_default())
                h1 { (title) }
                p #stale .notice.warn hidden {
                    "This page no longer updates itself. " a href="" { "Reload it" } "."
                }
                (body)
            }
        },
    )
}

fn header(caller: &Caller, path: &str) -> Markup {
    let links = PAGES.iter().filter(|(_, _, right)| caller.may(*right));
    html! {
        header {
            a.brand href="/" { img src="/static/icon.svg" alt="" width="22" height="22"; "Shardkeep" }
            nav aria-label="Pages" {
                @for (at, title, _) in links {
                    a href=(at) aria-current=[(*at == path).then_some("page")] { (title) }
                }
            }
            div.who {
                a href="/password" title="Change password" {
                    (caller.session().operator()) " " small { (caller.session().role()) }
                }
                form method="post" action="/sign-out" { (csrf(caller)) button.quiet { "Sign out" } }
            }
        }
    }
}

/// The result of the command that the operator has just sent.
async fn notice(site: &Site, caller: &Caller, flash: &Flash) -> Option<Markup> {
    let audit = site.console().audit();
    let entry = audit.entry(flash.done?, caller.session().operator()).await.ok()??;
    let class = if entry.outcome == "done" { "good" } else { "bad" };
    let result = if entry.result.is_empty() { &entry.outcome } else { &entry.result };
    Some(html! {
        p class={ "notice " (class) } role="status" { strong { (entry.invocation.command) } " " (result) }
    })
}

/// The hidden field that proves a form comes from a page of the console.
pub(crate) fn csrf(caller: &Caller) -> Markup {
    hidden("csrf", caller.session().csrf())
}

/// A form that sends a command and returns to the page `back`. An operator without the right gets no form.
pub(crate) fn command(
    caller: &Caller,
    right: Right,
    command: &str,
    back: &str,
    fields: &Markup,
    button: &str,
) -> Option<Markup> {
    caller.may(right).then(|| {
        html! {
            form.command method="post" action={ "/do/" (command) } {
                (csrf(caller))
                (hidden("back", back))
                (fields)
                label { "Reason" input name="reason" required maxlength="500" autocomplete="off"; }
                button { (button) }
            }
        }
    })
}

/// Forms that appear after a click on `summary`. Nothing if the operator may use none of them.
pub(crate) fn collapsible(summary: &str, forms: impl IntoIterator<Item = Option<Markup>>) -> Markup {
    let forms: Vec<Markup> = forms.into_iter().flatten().collect();
    html! {
        @if !forms.is_empty() {
            details.act {
                summary { (summary) }
                div { @for form in forms { (form) } }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn collapsible_without_forms_is_omitted() {
        assert!(collapsible("Act", [None, None]).0.is_empty());
    }
}

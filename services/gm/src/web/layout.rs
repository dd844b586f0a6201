//! What every page has around it, and the small pieces many pages use.

use axum::response::Html;
use serde::Deserialize;
use shardkeep_store::audit;
use shardkeep_types::UtcDateTime;

use super::{
    Site,
    caller::Caller,
    html::{Markup, html},
};
use crate::role::Right;

/// The pages: where, what, and who may see them.
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

/// `?done=<number>`: after a form, the audit entry to show the result of.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Flash {
    done: Option<u64>,
}

/// A page for a visitor: navigation, the result of the command before, and the body.
pub(crate) async fn page(
    site: &Site,
    caller: &Caller,
    path: &str,
    flash: &Flash,
    body: Markup,
) -> Html<String> {
    let title = PAGES.iter().find(|(at, ..)| *at == path).map_or("Console", |(_, title, _)| title);
    let links: Markup = PAGES
        .iter()
        .filter(|(_, _, right)| caller.may(*right))
        .map(|(at, title, _)| match *at == path {
            true => html!("<a href=\"{}\" aria-current=\"page\">{}</a>"; at, title),
            false => html!("<a href=\"{}\">{}</a>"; at, title),
        })
        .collect();
    let header = html!(
        "<header><a class=\"brand\" href=\"/\"><img src=\"/static/icon.svg\" alt=\"\" width=\"22\" height=\"22\">"
        "Shardkeep</a><nav aria-label=\"Pages\">{}</nav>"
        "<div class=\"who\"><a href=\"/password\" title=\"Change password\">{} <small>{}</small></a>"
        "<form method=\"post\" action=\"/sign-out\">{}<button class=\"quiet\">Sign out</button></form></div></header>";
        links, caller.session.operator, caller.session.role, csrf(caller),
    );
    let notice = notice(site, caller, flash).await;
    document(title, &html!("{}<main>{}<h1>{}</h1>{}</main>"; header, notice, title, body))
}

/// A page for nobody in particular.
pub(crate) fn page_without_navigation(title: &str, body: &Markup) -> Html<String> {
    document(
        title,
        &html!(
            "<main class=\"bare\"><p class=\"brand\"><img src=\"/static/icon.svg\" alt=\"\" width=\"28\" height=\"28\">"
            "Shardkeep</p>{}</main>"; body,
        ),
    )
}

fn document(title: &str, body: &Markup) -> Html<String> {
    let page = html!(
        "<!DOCTYPE html><html lang=\"en\"><head><meta charset=\"utf-8\">"
        "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">"
        "<meta name=\"color-scheme\" content=\"light dark\"><title>{} · Shardkeep</title>"
        "<link rel=\"icon\" href=\"/static/icon.svg\" type=\"image/svg+xml\">"
        "<link rel=\"stylesheet\" href=\"/static/style.css\"><script src=\"/static/live.js\" defer></script>"
        "</head><body>{}</body></html>"; title, body,
    );
    Html(page.into_string())
}

/// The result of a command that this operator has just given.
async fn notice(site: &Site, caller: &Caller, flash: &Flash) -> Option<Markup> {
    let number = flash.done?;
    let page = audit::page(&site.console.database, number.checked_add(1)?, &caller.session.operator, 1)
        .await
        .ok()?;
    let entry = page.into_iter().next().filter(|entry| entry.id == number)?;
    let class = if entry.outcome == "done" { "good" } else { "bad" };
    Some(html!(
        "<p class=\"notice {}\" role=\"status\"><strong>{}</strong> {}</p>";
        class, entry.invocation.command, if entry.result.is_empty() { entry.outcome } else { entry.result },
    ))
}

/// The hidden field that proves a form is ours.
pub(crate) fn csrf(caller: &Caller) -> Markup {
    html!("<input type=\"hidden\" name=\"csrf\" value=\"{}\">"; caller.session.csrf())
}

/// A form that gives a command and comes back to `back`; nothing for who may not give it.
pub(crate) fn command(
    caller: &Caller,
    right: Right,
    command: &str,
    back: &str,
    fields: &Markup,
    button: &str,
) -> Option<Markup> {
    caller.may(right).then(|| {
        html!(
            "<form method=\"post\" action=\"/do/{}\" class=\"command\">{}"
            "<input type=\"hidden\" name=\"back\" value=\"{}\">{}"
            "<label>Reason <input name=\"reason\" required maxlength=\"500\" autocomplete=\"off\"></label>"
            "<button>{}</button></form>";
            command, csrf(caller), back, fields, button,
        )
    })
}

pub(crate) fn hidden(name: &str, value: &str) -> Markup {
    html!("<input type=\"hidden\" name=\"{}\" value=\"{}\">"; name, value)
}

/// Forms behind a button, so that tables stay readable.
pub(crate) fn collapsible(summary: &str, forms: impl IntoIterator<Item = Option<Markup>>) -> Option<Markup> {
    let forms: Vec<Markup> = forms.into_iter().flatten().collect();
    let none = forms.is_empty();
    let forms: Markup = forms.into_iter().collect();
    (!none)
        .then(|| html!("<details class=\"act\"><summary>{}</summary><div>{}</div></details>"; summary, forms))
}

/// A moment as the browser shows it in its own time zone; in UTC without scripts.
pub(crate) fn time_element(ms: u64) -> Markup {
    let text = utc(ms);
    html!("<time datetime=\"{}\">{}</time>"; text, text)
}

/// `2 d 3 h`, `5 min`.
pub(crate) fn duration_text(ms: u64) -> String {
    let seconds = ms / 1000;
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds / 3600 % 24),
    }
}

/// As browsers parse it.
fn utc(ms: u64) -> String {
    let UtcDateTime { year, month, day, hour, minute, second } = UtcDateTime::from_unix_ms(ms);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Of a whole, in words that a meter shows too.
pub(crate) fn meter(value: f64, label: &str) -> Markup {
    html!("<meter min=\"0\" max=\"1\" high=\"0.8\" optimum=\"0\" value=\"{}\">{}</meter><span>{}</span>"; value, label, label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_durations_are_formatted() {
        assert_eq!(utc(1_795_310_437_123), "2026-11-22T01:20:37Z");
        assert_eq!(utc(951_782_400_000), "2000-02-29T00:00:00Z");
        assert_eq!((duration_text(59_999), duration_text(61_000)), ("59 s".into(), "1 min".into()));
        assert_eq!(
            (duration_text(3_600_000 * 2), duration_text(86_400_000 * 3)),
            ("2 h 0 min".into(), "3 d 0 h".into())
        );
    }

    #[test]
    fn collapsible_without_forms_is_omitted() {
        assert!(collapsible("Act", [None, None]).is_none());
    }
}

//! The HTML document around each page.

use maud::{DOCTYPE, Markup, html};

pub(crate) fn document(title: &str, body: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " · Shardkeep" }
                link rel="icon" href="/static/icon.svg" type="image/svg+xml";
                link rel="stylesheet" href="/static/style.css";
                script src="/static/live.js" defer {}
            }
            body { (body) }
        }
    }
}

/// A page without navigation, for browsers that are not signed in and for errors.
pub(crate) fn plain_page(title: &str, body: &Markup) -> Markup {
    document(
        title,
        &html! {
            main.bare {
                p.brand { img src="/static/icon.svg" alt="" width="28" height="28"; "Shardkeep" }
                (body)
            }
        },
    )
}

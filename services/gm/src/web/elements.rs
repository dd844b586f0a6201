//! Small pieces of markup that many pages use.

use maud::{Markup, html};
use shardkeep_types::utc_second;

pub(crate) fn hidden(name: &str, value: &str) -> Markup {
    html! { input type="hidden" name=(name) value=(value); }
}

/// An input for a number, with a label.
pub(crate) fn number_input(label: &str, name: &str, min: u32, value: u32) -> Markup {
    html! { label { (label) input type="number" name=(name) min=(min) value=(value) required; } }
}

/// A time. The browser shows it in its own time zone; without scripts it is in UTC.
pub(crate) fn time_element(ms: u64) -> Markup {
    let text = utc_second(ms);
    html! { time datetime=(text) { (text) } }
}

/// The time since `ms`. The browser counts it, so the markup stays the same while time passes.
pub(crate) fn age_element(ms: u64) -> Markup {
    let text = utc_second(ms);
    html! { time data-age datetime=(text) { "since " (text) } }
}

/// A coloured label for the state of something.
pub(crate) fn state(class: &str, text: &str) -> Markup {
    html! { span class={ "state " (class) } { (text) } }
}

/// A share from 0 to 1 as a bar with a text.
pub(crate) fn meter(value: f64, text: &str) -> Markup {
    html! {
        meter min="0" max="1" high="0.8" optimum="0" value=(format_args!("{value:.3}")) { (text) }
        span { (text) }
    }
}

pub(crate) fn bad_notice(text: &str) -> Markup {
    html! { p.notice.bad { (text) } }
}

pub(crate) fn empty_hint(text: &str) -> Markup {
    html! { p.empty { (text) } }
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

/// Percent-encodes a query value.
pub(crate) fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    text.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_formatted_with_two_units() {
        let shown = [59_999, 61_000, 3_600_000 * 2, 86_400_000 * 3].map(duration_text);
        assert_eq!(shown, ["59 s", "1 min", "2 h 0 min", "3 d 0 h"]);
    }
}

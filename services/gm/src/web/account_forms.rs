//! Forms with commands for an account.

use maud::{Markup, html};

use super::{
    caller::Caller,
    elements::{hidden, number_input},
    layout::command,
};
use crate::{role::Right, token::Token};

/// All forms that the operator may use. `back` is the page to return to.
pub(crate) fn account_forms(caller: &Caller, account: &str, back: &str) -> Vec<Option<Markup>> {
    let name = hidden("account", account);
    // Sending the same form twice credits the account once.
    let key = Token::new().map(|token| token.expose().to_owned()).unwrap_or_default();
    let credit = html! {
        (name)
        (hidden("key", &key))
        (number_input("Hours (the account becomes prepaid)", "hours", 1, 10))
    };
    vec![
        command(caller, Right::SeeAddresses, "sessions", back, &name, "List sessions"),
        command(caller, Right::Kick, "kick", back, &name, "Kick"),
        command(caller, Right::Kick, "log-out", back, &name, "Log out everywhere"),
        ban_form(caller, account, back),
        command(caller, Right::Unban, "unban", back, &name, "Lift ban"),
        command(caller, Right::Credit, "credit", back, &credit, "Credit play time"),
    ]
}

/// A form that bans an account.
pub(crate) fn ban_form(caller: &Caller, account: &str, back: &str) -> Option<Markup> {
    let fields = html! {
        (hidden("account", account))
        (number_input("Hours (0: permanently)", "hours", 0, 24))
    };
    command(caller, Right::Ban, "ban", back, &fields, "Ban account")
}

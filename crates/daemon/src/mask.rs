//! Hides secrets in settings before anybody sees them: by the name of the key, and inside URLs.

use toml::{Table, Value};

const SECRET_WORDS: [&str; 5] = ["password", "secret", "token", "pepper", "credential"];
const MASK: &str = "***";

/// The same table with `***` in place of passwords and other secrets.
pub(crate) fn masked(table: &Table) -> Table {
    table
        .iter()
        .map(|(key, value)| {
            let secret = SECRET_WORDS.iter().any(|word| key.contains(word));
            (key.clone(), if secret { hidden(value) } else { masked_value(value) })
        })
        .collect()
}

/// Numbers and flags (`token_lifetime = 60`) tell nothing.
fn hidden(value: &Value) -> Value {
    match value {
        Value::String(_) | Value::Array(_) | Value::Table(_) => Value::String(MASK.into()),
        other => other.clone(),
    }
}

fn masked_value(value: &Value) -> Value {
    match value {
        Value::String(text) => Value::String(masked_url(text)),
        Value::Array(items) => Value::Array(items.iter().map(masked_value).collect()),
        Value::Table(table) => Value::Table(masked(table)),
        other => other.clone(),
    }
}

/// `scheme://user:password@host` without the password, whatever the password holds.
fn masked_url(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    let Some((login, place)) = rest.rsplit_once('@') else { return text.to_owned() };
    let Some((user, _)) = login.split_once(':') else { return text.to_owned() };
    format!("{scheme}://{user}:{MASK}@{place}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_secrets_are_masked() {
        let table: Table = r#"
            store = "postgres://game:p@ss:word@db:5432/game"
            plain = "sqlite:var/login.db"
            admin_password = "hunter2"
            token_lifetime = 60
            [nested]
            redis = ["redis://:secret@cache:6379"]
        "#
        .parse()
        .unwrap();
        let shown = masked(&table).to_string();
        for secret in ["p@ss", "word@", "hunter2", "secret@"] {
            assert!(!shown.contains(secret), "{shown}");
        }
        for plain in
            ["postgres://game:***@db:5432/game", "sqlite:var/login.db", "60", "redis://:***@cache:6379"]
        {
            assert!(shown.contains(plain), "{shown}");
        }
    }
}

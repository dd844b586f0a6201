//! Hides the secrets of settings: values whose key names a secret, and secrets inside URLs.

use shardkeep_types::mask_url;
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

/// Numbers and flags such as `token_lifetime = 60` are no secrets.
fn hidden(value: &Value) -> Value {
    match value {
        Value::String(_) | Value::Array(_) | Value::Table(_) => Value::String(MASK.into()),
        other => other.clone(),
    }
}

fn masked_value(value: &Value) -> Value {
    match value {
        Value::String(text) => Value::String(mask_url(text)),
        Value::Array(items) => Value::Array(items.iter().map(masked_value).collect()),
        Value::Table(table) => Value::Table(masked(table)),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_secrets_are_masked() {
        let table: Table = r#"
            store = "postgres://game:p@ss:word@db:5432/game"
            query = "postgres://db:5432/game?user=game&password=hunter3"
            plain = "sqlite:var/login.db"
            admin_password = "hunter2"
            token_lifetime = 60
            [nested]
            redis = ["redis://:secret@cache:6379"]
        "#
        .parse()
        .unwrap();
        let shown = masked(&table).to_string();
        for secret in ["p@ss", "word@", "hunter2", "hunter3", "secret@"] {
            assert!(!shown.contains(secret), "{shown}");
        }
        for plain in
            ["postgres://game:***@db:5432/game", "sqlite:var/login.db", "60", "redis://:***@cache:6379"]
        {
            assert!(shown.contains(plain), "{shown}");
        }
    }
}

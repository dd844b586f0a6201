//! The `store` setting of a daemon.

use std::path::Path;

/// URL of the store. An empty setting or `sqlite` is `file` in the daemon's data folder.
pub fn store_url(setting: &str, data_dir: &Path, file: &str) -> String {
    match setting {
        "" | "sqlite" => format!("sqlite:{}", data_dir.join(file).display()),
        url => url.to_owned(),
    }
}

/// # Errors
/// When the setting names no engine; the message begins with the key.
pub fn check_store(setting: &str) -> Result<(), String> {
    let known = ["sqlite:", "postgres://", "postgresql://"];
    if matches!(setting, "" | "sqlite") || known.iter().any(|scheme| setting.starts_with(scheme)) {
        Ok(())
    } else {
        Err("store: must be sqlite:<path> or postgres://…".into())
    }
}

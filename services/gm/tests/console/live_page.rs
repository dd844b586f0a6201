//! The script that updates pages in place, in a real browser.

use std::{path::Path, process::Command};

/// Checks that `live_page.html` prints.
const CHECKS: usize = 12;

#[test]
fn live_page_keeps_selection_and_open_forms_while_rows_change() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/console/live_page.html");
    let profile = tempfile::tempdir().unwrap();
    let browser = Command::new("chromium")
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files", "--dump-dom"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(format!("file://{}", page.display()))
        .output();
    let Ok(output) = browser else {
        println!("skipped: chromium is not installed");
        return;
    };
    let printed = String::from_utf8_lossy(&output.stdout);
    let passed = printed.matches("ok: ").count();
    assert!(
        passed == CHECKS && !printed.contains("FAILED: "),
        "{passed} of {CHECKS} checks passed:\n{printed}"
    );
}

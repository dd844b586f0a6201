//! The limits of a query, enforced by SQLite itself: an authorizer that allows reads of the view `log` only, and bounds on
//! the length of values and statements.
#![allow(
    unsafe_code,
    reason = "sqlx offers neither sqlite3_limit nor sqlite3_set_authorizer; the calls are in this file alone"
)]

use std::{
    ffi::{CStr, c_char, c_int, c_void},
    ptr,
};

use libsqlite3_sys as ffi;
use sqlx::{SqliteConnection, sqlite::LockedSqliteHandle};

/// Longest text, blob or row. A record is far shorter.
const MAX_VALUE_BYTES: c_int = 1 << 20;
/// Longest statement.
const MAX_SQL_BYTES: c_int = 64 << 10;
/// Deepest expression, and most terms of a compound SELECT. The view `log` has a term for each day.
const MAX_EXPRESSION_DEPTH: c_int = 100;
const MAX_COMPOUND_TERMS: c_int = 50;
const MAX_PATTERN_BYTES: c_int = 1_000;

/// Result of an authorizer that refuses the statement.
const DENY: c_int = ffi::SQLITE_DENY;
const ALLOW: c_int = ffi::SQLITE_OK;

/// Bounds lengths, and allows the statements that are prepared from now on to read the view `log` and nothing else.
pub(crate) async fn restrict(connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    let mut handle = connection.lock_handle().await?;
    for (limit, value) in [
        (ffi::SQLITE_LIMIT_LENGTH, MAX_VALUE_BYTES),
        (ffi::SQLITE_LIMIT_SQL_LENGTH, MAX_SQL_BYTES),
        (ffi::SQLITE_LIMIT_EXPR_DEPTH, MAX_EXPRESSION_DEPTH),
        (ffi::SQLITE_LIMIT_COMPOUND_SELECT, MAX_COMPOUND_TERMS),
        (ffi::SQLITE_LIMIT_LIKE_PATTERN_LENGTH, MAX_PATTERN_BYTES),
    ] {
        // SAFETY: the handle is open and locked; the call takes any limit and any value.
        unsafe { ffi::sqlite3_limit(handle.as_raw_handle().as_ptr(), limit, value) };
    }
    set_authorizer(&mut handle, authorize_query);
    Ok(())
}

/// Allows the statements that the full-text index prepares while a query runs. The query itself is prepared already.
pub(crate) async fn allow_index_reads(connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    set_authorizer(&mut connection.lock_handle().await?, authorize_index);
    Ok(())
}

type Authorizer = unsafe extern "C" fn(
    *mut c_void,
    c_int,
    *const c_char,
    *const c_char,
    *const c_char,
    *const c_char,
) -> c_int;

fn set_authorizer(handle: &mut LockedSqliteHandle<'_>, authorizer: Authorizer) {
    // SAFETY: the handle is open and locked; the callback is a function that lives as long as the process and takes no user
    // data.
    unsafe {
        ffi::sqlite3_set_authorizer(handle.as_raw_handle().as_ptr(), Some(authorizer), ptr::null_mut());
    }
}

unsafe extern "C" fn authorize_query(
    _: *mut c_void,
    action: c_int,
    first: *const c_char,
    second: *const c_char,
    database: *const c_char,
    accessor: *const c_char,
) -> c_int {
    // SAFETY: SQLite passes null or strings that end with zero and live during the call.
    let [first, second, database, accessor] =
        unsafe { [text(first), text(second), text(database), text(accessor)] };
    let allowed = match action {
        ffi::SQLITE_SELECT | ffi::SQLITE_RECURSIVE => true,
        ffi::SQLITE_FUNCTION => !matches!(second, "load_extension" | "fts5" | "fts5_source_id"),
        ffi::SQLITE_READ => may_read(first, second, database, accessor),
        _ => false,
    };
    if allowed { ALLOW } else { DENY }
}

/// The view itself, tables that exist in the statement only, and the tables under the view. Counting rows reads no column,
/// and SQLite then names no view.
fn may_read(table: &str, column: &str, database: &str, accessor: &str) -> bool {
    match database {
        "" => true,
        "temp" => table == "log",
        "main" => matches!(table, "json_each" | "json_tree"),
        _ => match accessor {
            "log" => matches!(table, "log" | "log_text"),
            _ => table == "log" && column.is_empty(),
        },
    }
}

unsafe extern "C" fn authorize_index(
    _: *mut c_void,
    action: c_int,
    first: *const c_char,
    second: *const c_char,
    database: *const c_char,
    accessor: *const c_char,
) -> c_int {
    // SAFETY: as above.
    let [table, column, database, accessor] =
        unsafe { [text(first), text(second), text(database), text(accessor)] };
    let allowed = match action {
        ffi::SQLITE_SELECT | ffi::SQLITE_RECURSIVE | ffi::SQLITE_FUNCTION => true,
        ffi::SQLITE_READ => {
            may_read(table, column, database, accessor) || table == "log" || table.starts_with("log_text")
        }
        // The index looks for changes by other connections.
        ffi::SQLITE_PRAGMA => table == "data_version",
        _ => false,
    };
    if allowed { ALLOW } else { DENY }
}

unsafe fn text<'a>(pointer: *const c_char) -> &'a str {
    if pointer.is_null() {
        return "";
    }
    // SAFETY: the caller passes a string of SQLite, which ends with zero.
    unsafe { CStr::from_ptr(pointer) }.to_str().unwrap_or("?")
}

//! Operators of the console and their sessions. Owned by `gm`. Passwords are argon2id hashes, and tokens are stored
//! as hashes only, so that a copy of the database gives no access.

use crate::{Database, Error, Row, sql, transact};

/// SHA-256 of a token.
pub type TokenHash = [u8; 32];

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operator {
    pub name: String,
    pub role: String,
    /// PHC string; absent when the operator signs in by one-time links only.
    pub password: Option<String>,
    pub created_ms: u64,
}

/// A session of a browser or program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    pub operator: String,
    /// The operator's present role, not the one at sign-in.
    pub role: String,
    pub csrf: String,
    /// Signed in by a one-time link: the operator must set a password first.
    pub by_link: bool,
    pub created_ms: u64,
    pub seen_ms: u64,
}

/// The values of a new session.
#[derive(Debug, Clone, Copy)]
pub struct NewSession<'a> {
    pub token: TokenHash,
    pub operator: &'a str,
    pub csrf: &'a str,
    pub by_link: bool,
    pub now_ms: u64,
}

pub async fn get(database: &Database, name: &str) -> Result<Option<Operator>, Error> {
    let select = sql("SELECT name, role, password, created_ms FROM operators WHERE name = $1");
    database.fetch_optional(select.bind(name)).await?.map(operator).transpose()
}

pub async fn list(database: &Database) -> Result<Vec<Operator>, Error> {
    let select = sql("SELECT name, role, password, created_ms FROM operators ORDER BY name");
    database.fetch_all(select).await?.into_iter().map(operator).collect()
}

/// Creates an operator, or changes the role and, if given, the password of an existing one. A new password ends the
/// operator's sessions.
pub async fn put(
    database: &Database,
    name: &str,
    role: &str,
    password: Option<&str>,
    now_ms: u64,
) -> Result<(), Error> {
    let upsert = sql("INSERT INTO operators (name, role, password, created_ms) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (name) DO UPDATE SET role = excluded.role, \
         password = COALESCE(excluded.password, operators.password)");
    let upsert = upsert.bind(name).bind(role).bind(password.map(str::to_owned)).bind(now_ms);
    let end = sql("DELETE FROM operator_sessions WHERE operator = $1").bind(name);
    transact!(database, |tx| async {
        tx.execute(upsert.clone()).await?;
        if password.is_some() {
            tx.execute(end.clone()).await?;
        }
        Ok::<(), Error>(())
    })
}

/// Creates an operator unless the name exists. Returns whether it did.
pub async fn create_if_absent(
    database: &Database,
    name: &str,
    role: &str,
    now_ms: u64,
) -> Result<bool, Error> {
    let insert = sql("INSERT INTO operators (name, role, password, created_ms) VALUES ($1, $2, NULL, $3) \
         ON CONFLICT (name) DO NOTHING");
    Ok(database.execute(insert.bind(name).bind(role).bind(now_ms)).await? > 0)
}

/// Sets the password of an existing operator and ends all its sessions.
pub async fn set_password(database: &Database, name: &str, password: &str) -> Result<bool, Error> {
    let update = sql("UPDATE operators SET password = $2 WHERE name = $1").bind(name).bind(password);
    let end = sql("DELETE FROM operator_sessions WHERE operator = $1").bind(name);
    transact!(database, |tx| async {
        let changed = tx.execute(update.clone()).await?;
        tx.execute(end.clone()).await?;
        Ok::<bool, Error>(changed > 0)
    })
}

/// Removes the operator with all its sessions and links. The audit stays.
pub async fn remove(database: &Database, name: &str) -> Result<bool, Error> {
    let statements = [
        sql("DELETE FROM operator_sessions WHERE operator = $1"),
        sql("DELETE FROM operator_links WHERE operator = $1"),
        sql("DELETE FROM operators WHERE name = $1"),
    ];
    transact!(database, |tx| async {
        let mut removed = 0;
        for statement in &statements {
            removed = tx.execute(statement.clone().bind(name)).await?;
        }
        Ok::<bool, Error>(removed > 0)
    })
}

pub async fn open_session(database: &Database, new: NewSession<'_>) -> Result<(), Error> {
    let insert =
        sql("INSERT INTO operator_sessions (token_hash, operator, csrf, by_link, created_ms, seen_ms) \
         VALUES ($1, $2, $3, $4, $5, $5)");
    let insert = insert.bind(new.token).bind(new.operator).bind(new.csrf).bind(new.by_link).bind(new.now_ms);
    database.execute(insert).await.map(drop)
}

/// The session of a token, if its operator still exists.
pub async fn session(database: &Database, token: TokenHash) -> Result<Option<Session>, Error> {
    let select = sql("SELECT s.operator, o.role, s.csrf, s.by_link, s.created_ms, s.seen_ms \
         FROM operator_sessions s JOIN operators o ON o.name = s.operator WHERE s.token_hash = $1");
    let Some(mut row) = database.fetch_optional(select.bind(token)).await? else { return Ok(None) };
    Ok(Some(Session {
        operator: row.take()?,
        role: row.take()?,
        csrf: row.take()?,
        by_link: row.take()?,
        created_ms: row.take()?,
        seen_ms: row.take()?,
    }))
}

/// Records that a session is in use.
pub async fn touch_session(database: &Database, token: TokenHash, now_ms: u64) -> Result<(), Error> {
    let update = sql("UPDATE operator_sessions SET seen_ms = $2 WHERE token_hash = $1 AND seen_ms < $2");
    database.execute(update.bind(token).bind(now_ms)).await.map(drop)
}

pub async fn close_session(database: &Database, token: TokenHash) -> Result<(), Error> {
    database.execute(sql("DELETE FROM operator_sessions WHERE token_hash = $1").bind(token)).await.map(drop)
}

/// Removes sessions last used before `seen_ms` or created before `created_ms`, and expired links.
pub async fn sweep(database: &Database, seen_ms: u64, created_ms: u64, now_ms: u64) -> Result<u64, Error> {
    let sessions = sql("DELETE FROM operator_sessions WHERE seen_ms < $1 OR created_ms < $2");
    let swept = database.execute(sessions.bind(seen_ms).bind(created_ms)).await?;
    let links = sql("DELETE FROM operator_links WHERE expires_ms < $1");
    Ok(swept + database.execute(links.bind(now_ms)).await?)
}

pub async fn create_link(
    database: &Database,
    token: TokenHash,
    operator: &str,
    expires_ms: u64,
) -> Result<(), Error> {
    let insert = sql("INSERT INTO operator_links (token_hash, operator, expires_ms) VALUES ($1, $2, $3)");
    database.execute(insert.bind(token).bind(operator).bind(expires_ms)).await.map(drop)
}

/// Uses a link up, and returns the operator that it signs in.
pub async fn use_link(database: &Database, token: TokenHash, now_ms: u64) -> Result<Option<String>, Error> {
    let delete = sql("DELETE FROM operator_links WHERE token_hash = $1 RETURNING operator, expires_ms");
    let Some(mut row) = database.execute_returning(delete.bind(token)).await?.into_iter().next() else {
        return Ok(None);
    };
    let (operator, expires_ms): (String, u64) = (row.take()?, row.take()?);
    Ok((now_ms < expires_ms).then_some(operator))
}

fn operator(mut row: Row) -> Result<Operator, Error> {
    Ok(Operator { name: row.take()?, role: row.take()?, password: row.take()?, created_ms: row.take()? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Schema;

    async fn open_database() -> (tempfile::TempDir, Database) {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", folder.path().join("gm.db").display());
        (folder, Database::open(&url, Schema::Gm).await.unwrap())
    }

    #[tokio::test]
    async fn link_works_once_before_expiry() {
        let (_folder, database) = open_database().await;
        create_link(&database, [1; 32], "admin", 100).await.unwrap();
        create_link(&database, [2; 32], "admin", 100).await.unwrap();
        assert_eq!(use_link(&database, [1; 32], 99).await.unwrap().as_deref(), Some("admin"));
        assert_eq!(use_link(&database, [1; 32], 99).await.unwrap(), None);
        assert_eq!(use_link(&database, [2; 32], 100).await.unwrap(), None);
    }

    #[tokio::test]
    async fn session_ends_on_password_change_removal_or_expiry() {
        let (_folder, database) = open_database().await;
        let open = |number: u8, now_ms| NewSession {
            token: [number; 32],
            operator: "ann",
            csrf: "c",
            by_link: false,
            now_ms,
        };
        assert!(create_if_absent(&database, "ann", "viewer", 1).await.unwrap());
        assert!(!create_if_absent(&database, "ann", "admin", 2).await.unwrap());
        open_session(&database, open(1, 10)).await.unwrap();
        put(&database, "ann", "moderator", None, 3).await.unwrap();
        assert_eq!(session(&database, [1; 32]).await.unwrap().unwrap().role, "moderator");
        touch_session(&database, [1; 32], 20).await.unwrap();
        assert_eq!(session(&database, [1; 32]).await.unwrap().unwrap().seen_ms, 20);

        assert!(set_password(&database, "ann", "$argon2id$…").await.unwrap());
        assert_eq!(session(&database, [1; 32]).await.unwrap(), None);
        open_session(&database, open(2, 30)).await.unwrap();
        assert_eq!(sweep(&database, 31, 0, 0).await.unwrap(), 1);
        open_session(&database, open(3, 30)).await.unwrap();
        assert!(remove(&database, "ann").await.unwrap());
        assert_eq!(session(&database, [3; 32]).await.unwrap(), None);
        assert!(!remove(&database, "ann").await.unwrap());
    }
}

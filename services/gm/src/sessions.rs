//! Sessions of signed-in operators, in browsers and programs. A session ends when it is unused, when it is too old,
//! when the password changes, and when the operator is removed.

use std::time::Duration;

use shardkeep_store::{
    Database, Error,
    operators::{self, NewSession},
};

use crate::{
    role::Role,
    token::{NoRandomness, Token, constant_time_eq},
};

/// The time of the last use is written at most this often.
const TOUCH_MS: u64 = 15_000;

/// The session of an operator.
#[derive(Debug, Clone)]
pub(crate) struct OperatorSession {
    token: Token,
    operator: String,
    role: Role,
    csrf: String,
    by_link: bool,
}

impl OperatorSession {
    pub(crate) fn operator(&self) -> &str {
        &self.operator
    }

    /// The operator's role. Before a password is set it is the lowest one.
    pub(crate) fn role(&self) -> Role {
        if self.by_link { Role::Viewer } else { self.role }
    }

    /// The operator came by a one-time link and must set a password before anything else.
    pub(crate) fn is_by_link(&self) -> bool {
        self.by_link
    }

    /// The token that each form of this session carries, so that other sites cannot send one.
    pub(crate) fn csrf(&self) -> &str {
        &self.csrf
    }

    pub(crate) fn csrf_matches(&self, token: &str) -> bool {
        constant_time_eq(&self.csrf, token)
    }
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum SessionError {
    #[error(transparent)]
    Store(#[from] Error),
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
}

#[derive(Clone)]
pub(crate) struct Sessions {
    database: Database,
    idle_ms: u64,
    lifetime_ms: u64,
}

impl Sessions {
    pub(crate) fn new(database: Database, idle: Duration, session_lifetime: Duration) -> Self {
        let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Self { database, idle_ms: ms(idle), lifetime_ms: ms(session_lifetime) }
    }

    pub(crate) async fn open(
        &self,
        operator: &str,
        by_link: bool,
        now_ms: u64,
    ) -> Result<Token, SessionError> {
        let (token, csrf) = (Token::new()?, Token::new()?);
        let new = NewSession { token: token.hash(), operator, csrf: csrf.expose(), by_link, now_ms };
        operators::open_session(&self.database, new).await?;
        Ok(token)
    }

    /// The session of a token, unless it has ended. `used` is false for requests that a page sends by itself: they do
    /// not keep a session alive.
    pub(crate) async fn find(
        &self,
        token: Token,
        used: bool,
        now_ms: u64,
    ) -> Result<Option<OperatorSession>, Error> {
        let Some(session) = operators::session(&self.database, token.hash()).await? else { return Ok(None) };
        let idle = now_ms.saturating_sub(session.seen_ms);
        if idle > self.idle_ms || now_ms.saturating_sub(session.created_ms) > self.lifetime_ms {
            operators::close_session(&self.database, token.hash()).await?;
            return Ok(None);
        }
        if used && idle > TOUCH_MS {
            operators::touch_session(&self.database, token.hash(), now_ms).await?;
        }
        // A role that a newer version has stored gets the fewest rights.
        let role = session.role.parse().unwrap_or(Role::Viewer);
        let (operator, csrf, by_link) = (session.operator, session.csrf, session.by_link);
        Ok(Some(OperatorSession { token, operator, role, csrf, by_link }))
    }

    /// The session as it is now, or `None` when it has ended.
    pub(crate) async fn refresh(
        &self,
        session: &OperatorSession,
        now_ms: u64,
    ) -> Result<Option<OperatorSession>, Error> {
        self.find(session.token.clone(), false, now_ms).await
    }

    pub(crate) async fn close(&self, session: &OperatorSession) -> Result<(), Error> {
        operators::close_session(&self.database, session.token.hash()).await
    }

    /// Deletes ended sessions and expired links. Returns how many.
    pub(crate) async fn sweep(&self, now_ms: u64) -> Result<u64, Error> {
        let since = |age_ms: u64| now_ms.saturating_sub(age_ms);
        operators::sweep(&self.database, since(self.idle_ms), since(self.lifetime_ms), now_ms).await
    }

    /// Maximum duration of a session in seconds.
    pub(crate) fn lifetime_s(&self) -> u32 {
        u32::try_from(self.lifetime_ms / 1000).unwrap_or(u32::MAX)
    }

    /// Seconds after which an unused session ends.
    pub(crate) fn idle_s(&self) -> u32 {
        u32::try_from(self.idle_ms / 1000).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use shardkeep_store::Schema;

    use super::*;

    const MINUTE: u64 = 60_000;

    async fn sessions() -> (tempfile::TempDir, Sessions) {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", folder.path().join("gm.db").display());
        let database = Database::open(&url, Schema::Gm).await.unwrap();
        operators::create_if_absent(&database, "ann", "moderator", 0).await.unwrap();
        let minutes = |minutes| Duration::from_millis(minutes * MINUTE);
        (folder, Sessions::new(database, minutes(30), minutes(120)))
    }

    #[tokio::test]
    async fn session_idle_too_long_expires() {
        let (_folder, sessions) = sessions().await;
        let token = sessions.open("ann", false, 0).await.unwrap();
        let found = |used, minute| sessions.find(token.clone(), used, minute * MINUTE);
        assert_eq!(found(true, 29).await.unwrap().unwrap().role, Role::Moderator);
        assert!(found(false, 58).await.unwrap().is_some());
        assert!(
            found(false, 60).await.unwrap().is_none(),
            "a page that refreshes itself does not keep it alive"
        );
    }

    #[tokio::test]
    async fn session_in_use_expires_at_maximum_lifetime() {
        let (_folder, sessions) = sessions().await;
        let token = sessions.open("ann", false, 0).await.unwrap();
        for minute in (0..=120).step_by(20) {
            assert!(sessions.find(token.clone(), true, minute * MINUTE).await.unwrap().is_some());
        }
        assert!(sessions.find(token, true, 121 * MINUTE).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn unknown_token_finds_no_session() {
        let (_folder, sessions) = sessions().await;
        sessions.open("ann", false, 0).await.unwrap();
        assert!(sessions.find(Token::new().unwrap(), true, 0).await.unwrap().is_none());
    }
}

//! Sign-in by password or by one-time link. Each attempt is counted, logged and audited.

use std::time::{Duration, Instant};

use shardkeep_daemon::unix_millis;
use shardkeep_names::is_plain_line;
use shardkeep_store::{Database, operators};
use shardkeep_types::Secret;
use tracing::{info, warn};

use crate::{
    audit_log::{AuditLog, Verdict},
    metrics,
    origin::Origin,
    password::{PasswordError, Passwords},
    role::Role,
    sessions::{OperatorSession, SessionError, Sessions},
    throttle::Throttle,
    token::Token,
};

/// The operator that the certificate of the command line can sign in.
const ADMIN: &str = "admin";
/// No operator has a longer name.
const MAX_NAME_BYTES: usize = 64;

#[derive(Debug, thiserror::Error)]
pub(crate) enum SignInError {
    /// The operator is unknown or the password is wrong. The text does not tell which.
    #[error("wrong name or password")]
    WrongCredentials,
    #[error("the current password is wrong")]
    WrongCurrentPassword,
    #[error("too many attempts; try again in {0} s")]
    Throttled(u64),
    #[error("this link has been used or has expired; make a new one with `shardkeep gm link`")]
    LinkUsed,
    #[error(transparent)]
    Password(#[from] PasswordError),
    #[error(transparent)]
    Session(#[from] SessionError),
    #[error("the operators' store failed: {0}")]
    Store(#[from] shardkeep_store::Error),
}

impl SignInError {
    fn label(&self) -> &'static str {
        match self {
            Self::WrongCredentials | Self::WrongCurrentPassword => "wrong",
            Self::Throttled(_) => "throttled",
            Self::LinkUsed => "link_used",
            Self::Password(_) => "password",
            Self::Session(_) => "session",
            Self::Store(_) => "store",
        }
    }
}

/// An operator who has just signed in.
pub(crate) struct SignedIn {
    pub(crate) token: Token,
    pub(crate) operator: String,
    pub(crate) role: Role,
}

/// Proves the identity of operators and opens their sessions.
pub(crate) struct SignIn {
    database: Database,
    sessions: Sessions,
    audit: AuditLog,
    passwords: Passwords,
    throttle: Throttle,
    /// Public address of the console, without a trailing slash.
    url: String,
    link_lifetime: Duration,
}

impl SignIn {
    pub(crate) fn new(
        database: Database,
        sessions: Sessions,
        audit: AuditLog,
        url: String,
        link_lifetime: Duration,
    ) -> Self {
        let (passwords, throttle) = (Passwords::new(), Throttle::default());
        Self { database, sessions, audit, passwords, throttle, url, link_lifetime }
    }

    pub(crate) async fn by_password(
        &self,
        operator: &str,
        password: Secret<String>,
        from: &Origin,
    ) -> Result<SignedIn, SignInError> {
        // No operator has such a name, and it does not belong into logs and the audit.
        let operator = if is_possible_name(operator) { operator } else { "" };
        let result = self.check_password(operator, password, from).await;
        self.record(operator, "sign in", from, result.as_ref().err()).await;
        let role = result?;
        let token = self.sessions.open(operator, false, unix_millis()).await?;
        Ok(SignedIn { token, operator: operator.to_owned(), role })
    }

    async fn check_password(
        &self,
        operator: &str,
        password: Secret<String>,
        from: &Origin,
    ) -> Result<Role, SignInError> {
        self.throttle.attempt_password(operator, from.address(), Instant::now()).map_err(throttled)?;
        let known = operators::get(&self.database, operator).await?;
        let hash = known.as_ref().and_then(|known| known.password.clone());
        let verified = self.passwords.verify(password, hash).await?;
        let known = known.filter(|_| verified).ok_or(SignInError::WrongCredentials)?;
        self.throttle.password_accepted(operator, from.address(), Instant::now());
        Ok(known.role.parse().unwrap_or(Role::Viewer))
    }

    /// Makes a link that signs `operator` in once, to set a password.
    pub(crate) async fn one_time_link(&self, operator: &str) -> Result<String, SignInError> {
        let token = Token::new().map_err(SessionError::from)?;
        let lifetime_ms = u64::try_from(self.link_lifetime.as_millis()).unwrap_or(u64::MAX);
        let expires_ms = unix_millis().saturating_add(lifetime_ms);
        operators::create_link(&self.database, token.hash(), operator, expires_ms).await?;
        Ok(format!("{}/link/{}", self.url, token.expose()))
    }

    /// Makes a link for the operator `admin`, and the operator if it does not exist.
    pub(crate) async fn admin_link(&self, from: &Origin) -> Result<String, SignInError> {
        operators::create_if_absent(&self.database, ADMIN, Role::Admin.as_str(), unix_millis()).await?;
        let link = self.one_time_link(ADMIN).await?;
        self.record(ADMIN, "make a one-time link", from, None).await;
        Ok(link)
    }

    /// Uses up a link. The session may do nothing but set a password.
    pub(crate) async fn by_link(&self, token: &str, from: &Origin) -> Result<Token, SignInError> {
        let operator = self.use_link(token, from).await?;
        Ok(self.sessions.open(&operator, true, unix_millis()).await?)
    }

    /// Uses up a link and sets the password of its operator. The link stays valid if the password is refused.
    pub(crate) async fn by_link_with_password(
        &self,
        token: &str,
        password: Secret<String>,
        from: &Origin,
    ) -> Result<SignedIn, SignInError> {
        let hash = self.hash(password).await?;
        let operator = self.use_link(token, from).await?;
        self.store_password(&operator, &hash, from).await?;
        let known = operators::get(&self.database, &operator).await?;
        let role = known.and_then(|known| known.role.parse().ok()).unwrap_or(Role::Viewer);
        let token = self.sessions.open(&operator, false, unix_millis()).await?;
        Ok(SignedIn { token, operator, role })
    }

    async fn use_link(&self, token: &str, from: &Origin) -> Result<String, SignInError> {
        let used = self.try_link(token, from).await;
        match &used {
            Ok(operator) => self.record(operator, "sign in by one-time link", from, None).await,
            // No operator is known, and the audit is kept for operators: counted and logged only.
            Err(error) => self.count_and_log("", "sign in by one-time link", from, Some(error)),
        }
        used
    }

    async fn try_link(&self, token: &str, from: &Origin) -> Result<String, SignInError> {
        self.throttle.attempt_link(from.address(), Instant::now()).map_err(throttled)?;
        let token = Token::parse(token).ok_or(SignInError::LinkUsed)?;
        let operator = operators::use_link(&self.database, token.hash(), unix_millis()).await?;
        operator.ok_or(SignInError::LinkUsed)
    }

    /// Sets a new password for the operator of `session` and opens a new session. All other sessions end. Without a
    /// one-time link the current password is needed, under the same throttle and audit as a sign-in.
    pub(crate) async fn change_password(
        &self,
        session: &OperatorSession,
        current: Secret<String>,
        new: Secret<String>,
        from: &Origin,
    ) -> Result<Token, SignInError> {
        let operator = session.operator();
        if !session.is_by_link() {
            let checked = self.check_password(operator, current, from).await.map_err(|error| match error {
                SignInError::WrongCredentials => SignInError::WrongCurrentPassword,
                other => other,
            });
            self.record(operator, "prove the current password", from, checked.as_ref().err()).await;
            checked?;
        }
        let hash = self.hash(new).await?;
        self.store_password(operator, &hash, from).await?;
        Ok(self.sessions.open(operator, false, unix_millis()).await?)
    }

    /// The form in which a password is stored.
    pub(crate) async fn hash(&self, password: Secret<String>) -> Result<String, PasswordError> {
        self.passwords.hash(password).await
    }

    async fn store_password(&self, operator: &str, hash: &str, from: &Origin) -> Result<(), SignInError> {
        operators::set_password(&self.database, operator, hash).await?;
        info!(operator, origin = %from, "password set");
        self.audit.record(operator, from, "set the password", Verdict::Done, "").await;
        Ok(())
    }

    async fn record(&self, operator: &str, action: &str, from: &Origin, error: Option<&SignInError>) {
        self.count_and_log(operator, action, from, error);
        match error {
            None => self.audit.record(operator, from, action, Verdict::Done, "").await,
            // Counted and logged only: a flood must not fill the audit.
            Some(SignInError::Throttled(_)) => {}
            Some(error) => {
                self.audit.record(operator, from, action, Verdict::Denied, &error.to_string()).await;
            }
        }
    }

    fn count_and_log(&self, operator: &str, action: &str, from: &Origin, error: Option<&SignInError>) {
        metrics::sign_in(error.map_or("ok", SignInError::label));
        match error {
            None => info!(operator, origin = %from, "{action}"),
            // The daemon limits warnings by their place in the code. A flood of these must not hide the other refusals.
            Some(error @ SignInError::Throttled(_)) => {
                warn!(operator, origin = %from, %error, "{action}: throttled");
            }
            Some(error) => warn!(operator, origin = %from, %error, "{action}: refused"),
        }
    }
}

fn is_possible_name(operator: &str) -> bool {
    operator.len() <= MAX_NAME_BYTES && is_plain_line(operator)
}

fn throttled(wait: Duration) -> SignInError {
    SignInError::Throttled(wait.as_secs().max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operator_name_with_controls_or_too_long_is_impossible() {
        assert!(is_possible_name("ann-2"));
        assert!(["a\nb", "a\u{202e}b", &"x".repeat(65)].iter().all(|name| !is_possible_name(name)));
    }
}

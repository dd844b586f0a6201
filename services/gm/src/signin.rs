//! Signing in, by password or by one-time link. Every attempt is counted, logged and audited.

use std::{borrow::Cow, fmt, net::IpAddr, time::Instant};

use shardkeep_store::{audit, operators};
use shardkeep_types::Secret;
use tracing::{info, warn};

use crate::{
    clock::now_ms, console::Console, metrics, password::PasswordError, role::Role, sessions::SessionError,
    token::Token,
};

/// The operator that one-time links of this machine sign in.
pub(crate) const ADMIN: &str = "admin";
/// Longer names are nobody's.
pub(crate) const MAX_NAME_BYTES: usize = 64;

#[derive(Debug, thiserror::Error)]
pub(crate) enum SignInError {
    /// Unknown operator or wrong password: nobody is told which.
    #[error("wrong name or password")]
    WrongCredentials,
    #[error("too many attempts; try again in {0} s")]
    Throttled(u64),
    #[error("this link has been used or is too old; make a new one with `shardkeep gm link`")]
    LinkUsed,
    #[error(transparent)]
    Password(#[from] PasswordError),
    #[error(transparent)]
    Session(#[from] SessionError),
    #[error("the operators' store: {0}")]
    Store(#[from] shardkeep_store::Error),
}

impl SignInError {
    fn label(&self) -> &'static str {
        match self {
            Self::WrongCredentials => "wrong",
            Self::Throttled(_) => "throttled",
            Self::LinkUsed => "link_used",
            Self::Password(_) => "password",
            Self::Session(_) => "session",
            Self::Store(_) => "store",
        }
    }
}

impl Console {
    /// A token for an operator who knows the password.
    pub(crate) async fn sign_in(
        &self,
        operator: &str,
        password: Secret<String>,
        from: Origin,
    ) -> Result<(Token, Role), SignInError> {
        let result = self.try_password(operator, password, from.address).await;
        self.record_sign_in(operator, "sign in", &from, result.as_ref().err()).await;
        result
    }

    async fn try_password(
        &self,
        operator: &str,
        password: Secret<String>,
        address: IpAddr,
    ) -> Result<(Token, Role), SignInError> {
        if operator.len() > MAX_NAME_BYTES {
            return Err(SignInError::WrongCredentials);
        }
        let throttled = |wait: std::time::Duration| SignInError::Throttled(wait.as_secs().max(1));
        self.throttle.attempt(operator, address, Instant::now()).map_err(throttled)?;
        let known = operators::get(&self.database, operator).await?;
        let hash = known.as_ref().and_then(|known| known.password.clone());
        let verified = self.passwords.verify(password, hash).await?;
        let known = known.filter(|_| verified).ok_or(SignInError::WrongCredentials)?;
        self.throttle.succeeded(operator, address, Instant::now());
        let token = self.sessions.open(operator, false, now_ms()).await?;
        Ok((token, known.role.parse().unwrap_or(Role::Viewer)))
    }

    /// A link that signs `operator` in once, to set a password.
    pub(crate) async fn one_time_link(&self, operator: &str) -> Result<String, SignInError> {
        let token = Token::new().map_err(SessionError::from)?;
        let lives = u64::try_from(self.config.link.as_millis()).unwrap_or(u64::MAX);
        operators::create_link(&self.database, token.hash(), operator, now_ms().saturating_add(lives))
            .await?;
        Ok(format!("{}/link/{}", self.url, token.expose()))
    }

    /// A link for the first sign-in on this machine, as the operator `admin`, who is made if there is none.
    pub(crate) async fn admin_link(&self, from: &Origin) -> Result<String, SignInError> {
        operators::create_if_absent(&self.database, ADMIN, Role::Admin.as_str(), now_ms()).await?;
        let link = self.one_time_link(ADMIN).await?;
        self.record_sign_in(ADMIN, "make a one-time link", from, None).await;
        Ok(link)
    }

    /// Uses a link up: a session that may do nothing but set a password.
    pub(crate) async fn follow_link(&self, token: &str, from: Origin) -> Result<Token, SignInError> {
        let operator = self.use_link(token, from).await?;
        Ok(self.sessions.open(&operator, true, now_ms()).await?)
    }

    /// Uses a link up and sets its operator's password at once. A password that will not do leaves the link as it is.
    pub(crate) async fn set_first_password(
        &self,
        token: &str,
        password: Secret<String>,
        from: Origin,
    ) -> Result<(Token, String, Role), SignInError> {
        let hash = self.passwords.hash(password).await?;
        let operator = self.use_link(token, from.clone()).await?;
        operators::set_password(&self.database, &operator, &hash).await?;
        self.record_password_change(&operator, &from).await;
        let role = operators::get(&self.database, &operator).await?.and_then(|known| known.role.parse().ok());
        let token = self.sessions.open(&operator, false, now_ms()).await?;
        Ok((token, operator, role.unwrap_or(Role::Viewer)))
    }

    async fn use_link(&self, token: &str, from: Origin) -> Result<String, SignInError> {
        let throttled = |wait: std::time::Duration| SignInError::Throttled(wait.as_secs().max(1));
        // Operators' names are not empty: links have a bucket of their own.
        self.throttle.attempt("", from.address, Instant::now()).map_err(throttled)?;
        let token = Token::parse(token).ok_or(SignInError::LinkUsed)?;
        let operator = operators::use_link(&self.database, token.hash(), now_ms()).await?;
        let Some(operator) = operator else {
            metrics::sign_in(SignInError::LinkUsed.label());
            return Err(SignInError::LinkUsed);
        };
        self.throttle.succeeded("", from.address, Instant::now());
        self.record_sign_in(&operator, "sign in by one-time link", &from, None).await;
        Ok(operator)
    }

    async fn record_sign_in(&self, operator: &str, action: &str, from: &Origin, error: Option<&SignInError>) {
        let outcome = error.map_or("ok", SignInError::label);
        metrics::sign_in(outcome);
        let shown: String = operator.chars().take(MAX_NAME_BYTES).collect();
        match error {
            None => info!(operator = %shown, origin = %from, "{action}"),
            Some(error) => warn!(operator = %shown, origin = %from, %error, "{action} refused"),
        }
        if matches!(error, Some(SignInError::Throttled(_))) {
            // Counted and logged, but a flood must not fill the audit.
            return;
        }
        self.record_audit_entry(shown, action, from, error).await;
    }

    /// Somebody has set a password of their own.
    pub(crate) async fn record_password_change(&self, operator: &str, from: &Origin) {
        info!(operator, origin = %from, "password set");
        self.record_audit_entry(operator.to_owned(), "set the password", from, None).await;
    }

    /// Into the audit, of what is no command.
    async fn record_audit_entry(
        &self,
        operator: String,
        action: &str,
        from: &Origin,
        error: Option<&SignInError>,
    ) {
        let invocation = audit::Invocation {
            at_ms: now_ms(),
            operator,
            origin: from.to_string(),
            command: action.to_owned(),
            reason: String::new(),
        };
        let (outcome, result) = error.map_or(("done", String::new()), |error| ("denied", error.to_string()));
        let written = match audit::begin(&self.database, &invocation).await {
            Ok(id) => audit::finish(&self.database, id, outcome, &result).await,
            Err(error) => Err(error),
        };
        if let Err(error) = written {
            warn!(%error, "`{action}` is missing in the audit");
        }
    }
}

/// Where a request came from.
#[derive(Debug, Clone)]
pub(crate) struct Origin {
    /// `web`, or `grpc` and the name in the caller's certificate.
    pub(crate) interface: Cow<'static, str>,
    /// Unspecified when it is not known.
    pub(crate) address: IpAddr,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.interface)?;
        if self.address.is_unspecified() { Ok(()) } else { write!(f, " {}", self.address) }
    }
}

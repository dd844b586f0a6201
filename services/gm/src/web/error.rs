//! Errors of web requests and their pages.

use axum::{
    http::StatusCode,
    response::{IntoResponse, Redirect, Response},
};
use maud::html;
use tracing::error;

use super::document::plain_page;
use crate::{
    error::CommandError,
    role::{Right, Role},
    sessions::SessionError,
    sign_in::SignInError,
};

#[derive(Debug, thiserror::Error)]
pub(crate) enum WebError {
    #[error("sign in first")]
    NotSignedIn,
    #[error("set a password first")]
    PasswordNotSet,
    #[error("this page needs the role {}; you are {actual_role}", right.minimum_role())]
    Forbidden { right: Right, actual_role: Role },
    #[error("this form has expired; go back, reload the page and send the form again")]
    Csrf,
    #[error("this page does not exist")]
    NotFound,
    #[error("too many browsers show the live map; close one or try again later")]
    TooManyViewers,
    #[error("too many pages are open; close one or try again later")]
    TooManyLivePages,
    #[error("{0}")]
    Form(String),
    #[error(transparent)]
    Command(#[from] CommandError),
    #[error(transparent)]
    SignIn(#[from] SignInError),
    #[error("the operators' store failed: {0}")]
    Store(#[from] shardkeep_store::Error),
}

impl From<SessionError> for WebError {
    fn from(error: SessionError) -> Self {
        Self::SignIn(error.into())
    }
}

impl WebError {
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::NotSignedIn | Self::PasswordNotSet => StatusCode::UNAUTHORIZED,
            Self::Forbidden { .. } | Self::Csrf => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::TooManyViewers | Self::TooManyLivePages => StatusCode::SERVICE_UNAVAILABLE,
            Self::Form(_) => StatusCode::BAD_REQUEST,
            Self::Command(error) => command_status(error),
            Self::SignIn(error) => sign_in_status(error),
            Self::Store(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

fn sign_in_status(error: &SignInError) -> StatusCode {
    match error {
        SignInError::Throttled(_) => StatusCode::TOO_MANY_REQUESTS,
        SignInError::WrongCredentials | SignInError::WrongCurrentPassword | SignInError::LinkUsed => {
            StatusCode::UNAUTHORIZED
        }
        SignInError::Password(_) => StatusCode::BAD_REQUEST,
        SignInError::Session(_) | SignInError::Store(_) => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

fn command_status(error: &CommandError) -> StatusCode {
    match error {
        CommandError::Denied { .. } => StatusCode::FORBIDDEN,
        CommandError::NoReason | CommandError::Malformed(_) => StatusCode::BAD_REQUEST,
        CommandError::NotFound(_) => StatusCode::NOT_FOUND,
        CommandError::NoneRunning(_) | CommandError::Peer { .. } => StatusCode::BAD_GATEWAY,
        CommandError::Store(_) => StatusCode::INTERNAL_SERVER_ERROR,
        CommandError::Busy => StatusCode::SERVICE_UNAVAILABLE,
        CommandError::TimedOut => StatusCode::GATEWAY_TIMEOUT,
    }
}

impl IntoResponse for WebError {
    fn into_response(self) -> Response {
        match self {
            Self::NotSignedIn => return Redirect::to("/sign-in").into_response(),
            Self::PasswordNotSet => return Redirect::to("/password").into_response(),
            _ => {}
        }
        let status = self.status();
        if status.is_server_error() {
            error!(error = %self, "a web request failed");
        }
        let body = html! {
            section.card.narrow {
                h1 { (status.canonical_reason().unwrap_or("Error")) }
                p { (self) }
                p { a.button href="/" { "Overview" } }
            }
        };
        (status, plain_page("Error", &body)).into_response()
    }
}

pub(crate) async fn not_found() -> WebError {
    WebError::NotFound
}

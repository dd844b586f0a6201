//! Pages that say what went wrong and how to go on.

use axum::{
    http::StatusCode,
    response::{IntoResponse, Redirect, Response},
};
use tracing::error;

use super::{html::html, layout};
use crate::{
    error::CommandError,
    role::{Right, Role},
    sessions::SessionError,
    signin::SignInError,
};

#[derive(Debug, thiserror::Error)]
pub(crate) enum WebError {
    #[error("sign in first")]
    NotSignedIn,
    #[error("set a password first")]
    PasswordNotSet,
    #[error("this page needs the role {}; you are {actual_role}", right.minimum_role())]
    Forbidden { right: Right, actual_role: Role },
    #[error("this form is out of date: go back, load the page again and repeat what you did")]
    Csrf,
    #[error("there is nothing here")]
    NotFound,
    #[error("as many people as may watch the map are watching it; try again later")]
    TooManyViewers,
    #[error("{0}")]
    Form(String),
    #[error("the present password is another one")]
    WrongCurrentPassword,
    #[error(transparent)]
    Command(#[from] CommandError),
    #[error(transparent)]
    SignIn(#[from] SignInError),
    #[error("the operators' store: {0}")]
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
            Self::NotSignedIn | Self::PasswordNotSet | Self::WrongCurrentPassword => StatusCode::UNAUTHORIZED,
            Self::Forbidden { .. } | Self::Csrf => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::TooManyViewers => StatusCode::SERVICE_UNAVAILABLE,
            Self::Form(_) => StatusCode::BAD_REQUEST,
            Self::Command(error) => command_status(error),
            Self::SignIn(SignInError::Throttled(_)) => StatusCode::TOO_MANY_REQUESTS,
            Self::SignIn(SignInError::WrongCredentials | SignInError::LinkUsed) => StatusCode::UNAUTHORIZED,
            Self::SignIn(SignInError::Password(_)) => StatusCode::BAD_REQUEST,
            Self::SignIn(SignInError::Session(_) | SignInError::Store(_)) | Self::Store(_) => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
        }
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
            error!(error = %self, "a page failed");
        }
        let body = html!(
            "<section class=\"card narrow\"><h1>{}</h1><p>{}</p>"
            "<p><a class=\"button\" href=\"/\">To the overview</a></p></section>";
            status.canonical_reason().unwrap_or("Error"), self.to_string(),
        );
        (status, layout::page_without_navigation("Error", &body)).into_response()
    }
}

pub(crate) async fn not_found() -> WebError {
    WebError::NotFound
}

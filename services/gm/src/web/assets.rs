//! Style sheet, scripts and icon. They are part of the binary.

use axum::{
    extract::Path,
    http::header,
    response::{IntoResponse, Response},
};

use super::error::WebError;

pub(crate) async fn file(Path(name): Path<String>) -> Result<Response, WebError> {
    let (kind, content) = match name.as_str() {
        "style.css" => ("text/css; charset=utf-8", include_str!("../../static/style.css")),
        "live.js" => ("text/javascript; charset=utf-8", include_str!("../../static/live.js")),
        "map.js" => ("text/javascript; charset=utf-8", include_str!("../../static/map.js")),
        "icon.svg" => ("image/svg+xml", include_str!("../../static/icon.svg")),
        _ => return Err(WebError::NotFound),
    };
    let headers = [(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "max-age=300")];
    Ok((headers, content).into_response())
}

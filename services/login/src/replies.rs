//! How requests of players are decoded and answered.

use shardkeep_connection::Connection;
use shardkeep_wire::{Message, WireError};

use crate::error::LoginError;

pub(crate) fn decode<P: Default + prost::Message>(message: &Message) -> Result<P, LoginError> {
    Ok(message.decode().map_err(WireError::from)?)
}

/// The reply to a request, with its opcode and number.
pub(crate) fn reply(request: &Message, payload: &impl prost::Message) -> Result<Message, LoginError> {
    let number = request.head.request().ok_or(LoginError::Malformed("not a request"))?;
    Ok(Message::reply(request.opcode, number, payload))
}

/// Answers a request with an error. The connection stays open.
pub(crate) fn refuse(
    connection: &mut Connection,
    request: &Message,
    error: &LoginError,
) -> Result<(), LoginError> {
    if let Some(answer) = error.answer() {
        let number = request.head.request().unwrap_or_default();
        connection.queue(&Message::error_reply(number, &answer))?;
    }
    Ok(())
}

/// Why a connection ends, and the request that the last message answers.
pub(crate) struct End {
    pub(crate) error: LoginError,
    pub(crate) request: Option<u32>,
}

impl<E: Into<LoginError>> From<E> for End {
    fn from(error: E) -> Self {
        Self { error: error.into(), request: None }
    }
}

/// Ends the connection with an error as the reply to `request`.
pub(crate) fn end_with(request: &Message) -> impl FnOnce(LoginError) -> End + '_ {
    move |error| End { error, request: request.head.request() }
}

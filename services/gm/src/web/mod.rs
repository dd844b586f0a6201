//! The web pages of the console. The pages are rendered here, and their forms become the same commands that gRPC
//! takes. Each page except the sign-in needs a session, and each form carries the token of its session.

mod account_forms;
mod action;
mod assets;
mod audit;
mod caller;
mod chat;
mod document;
mod elements;
mod error;
mod layout;
mod live_part;
mod live_stream;
mod logs;
mod map;
mod messages;
mod operators;
mod overview;
mod password;
mod players;
mod search;
mod server;
mod sign_in;
mod site;
mod worlds;

pub(crate) use server::serve;

//! One account for each player over several regions. The home region's login servers keep the store of the centre and serve
//! it. Every region calls the centre, over gRPC or in its own process: for names that are not active in it, before every
//! change of what proves an account, and for the changes of other regions. All of this is off unless the settings name a
//! region.

pub(crate) mod accounts;
mod batch;
pub(crate) mod config;
mod convert;
pub(crate) mod error;
mod feed;
pub(crate) mod follow;
pub(crate) mod join;
pub(crate) mod overview;
mod remote;
pub(crate) mod service;
pub(crate) mod store;
mod unreadable_accounts;

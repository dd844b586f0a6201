//! Accounts: their store and its copy of the centre, second factors, registration, revocations, and the gRPC service of
//! operators.

pub(crate) mod authority;
pub(crate) mod causes;
pub(crate) mod own_account;
pub(crate) mod presence;
pub(crate) mod queries;
pub(crate) mod regional_copy;
pub(crate) mod registration;
pub(crate) mod revocations;
pub(crate) mod second_factor;
pub(crate) mod secret_cipher;
pub(crate) mod service;
pub(crate) mod session;
pub(crate) mod session_ender;
pub(crate) mod verifiers;

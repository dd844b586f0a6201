//! Black-box tests of a daemon: settings, lifecycle and admin endpoints.

mod lifecycle;
mod service;
mod settings;

//! Black-box tests of a daemon's shape: its settings, its life, and what it shows of itself.

mod lifecycle;
mod service;
mod settings;

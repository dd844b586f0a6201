//! Black-box tests of a daemon's shape: its settings, its life, and what it shows of itself.

mod life;
mod service;
mod settings;

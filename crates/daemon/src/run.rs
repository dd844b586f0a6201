//! From arguments to exit code: [`main`] for processes, [`launch`] for a daemon inside a test.

use std::{ffi::OsString, process::ExitCode};

use crate::{Bound, Daemon, Service, Settings};

/// The whole `main` of a daemon: arguments from the process.
pub fn main<S: Service>() -> ExitCode {
    main_with_args::<S>(std::env::args_os())
}

/// Like [`main`]; the first argument is the name of the program.
pub fn main_with_args<S: Service>(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let _ = args;
    todo!()
}

/// A daemon that runs inside this process: the same as under [`main`], but without signals or a global logger.
pub struct Running {
    daemon: Daemon,
    life: tokio::task::JoinHandle<anyhow::Result<()>>,
}

/// Starts a daemon on the present runtime.
///
/// # Errors
/// When the admin address can not be bound.
pub async fn launch<S: Service>(settings: Settings<S::Config>) -> anyhow::Result<Running> {
    let _ = settings;
    todo!()
}

impl Running {
    pub fn daemon(&self) -> &Daemon {
        &self.daemon
    }

    /// Waits until the daemon is ready, and tells its addresses.
    ///
    /// # Errors
    /// When it ended before it was ready.
    pub async fn ready(&mut self) -> anyhow::Result<Bound> {
        todo!()
    }

    /// Drains it and waits for its end.
    ///
    /// # Errors
    /// When the daemon failed.
    pub async fn stop(self) -> anyhow::Result<()> {
        todo!()
    }
}

//! Command-line options for a player's lane (transport), and for the certificate authority that the player trusts.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use shardkeep_client::{
    Config,
    lanes::{Connector, Lane, Trust},
};

use crate::data_dir::DataDir;

#[derive(Debug, Args)]
pub struct LaneArgs {
    /// How to reach login and gateways: tcp, quic, ws or wss
    #[arg(long, default_value = "tcp")]
    lane: Lane,
    /// PEM file of the trusted authority for quic and wss; by default the local cluster's authority, and elsewhere any
    /// certificate (the proofs of password and ticket authenticate the server)
    #[arg(long)]
    ca: Option<PathBuf>,
    /// Name that the certificate must bear
    #[arg(long, requires = "ca")]
    server_name: Option<String>,
}

impl LaneArgs {
    /// `local`: the cluster of this machine, if that is where the player goes.
    pub fn choose(&self, mut config: Config, local: Option<&DataDir>) -> Result<Config> {
        let local = local.map(|dir| dir.tls().join("ca.pem")).filter(|ca| ca.exists());
        let trust = match self.ca.as_ref().or(local.as_ref()) {
            Some(ca) => Trust::authority(ca, self.server_name.as_deref())?,
            None => Trust::AnyCertificate,
        };
        config.lanes = vec![self.lane];
        config.connector = Connector::new(&trust)?;
        Ok(config)
    }
}

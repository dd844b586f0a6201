//! A gateway of a measure's own, beside those of the cluster: with room for as many sessions as a process may have files.

use std::{
    path::Path,
    process::{Child, Command, Stdio},
};

use anyhow::Result;
use shardkeep_cluster::certs;
use shardkeep_testkit::{Announcement, wait_until};
use shardkeep_types::{DaemonKind, WorldId};

use crate::fixture::Fixture;

pub struct Gateway {
    process: Child,
    pub announcement: Announcement,
}

impl Gateway {
    /// Starts it with this name; its address ends with `host`.
    pub async fn start(fixture: &Fixture, folder: &Path, name: &str, host: usize) -> Result<Self> {
        let tls = fixture.cluster.data_dir().join("tls");
        let files = certs::issue(&tls, DaemonKind::Gateway, name, WorldId(0))?;
        let announce = folder.join(format!("{name}.json"));
        let registry = fixture.cluster.announcement("registry-1")?.grpc;
        let settings = format!(
            "[daemon]\nname = {name:?}\nannounce = {announce:?}\ndata_dir = {folder:?}\n[log]\nfilter = \"warn\"\n\
             [cluster]\nregistries = [{registry:?}]\nca = {:?}\ncert = {:?}\nkey = {:?}\n\
             [gateway]\nlisten = \"127.0.0.{}:0\"\ncapacity = 20000\nmax_connections = 20000\n\
             max_connections_per_address = 20000\n",
            files.ca, files.cert, files.key, host,
        );
        let config = folder.join(format!("{name}.toml"));
        std::fs::write(&config, settings)?;
        let mut command = Command::new(shardkeep_testkit::binary()?);
        command.args(["daemon", "--supervised", "gateway", "--config"]).arg(&config);
        // It drains when this process ends and the pipe closes.
        let process = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn()?;
        let announcement = wait_until("a gateway starts", async || {
            Ok(std::fs::read(&announce).ok().and_then(|text| serde_json::from_slice(&text).ok()))
        });
        let announcement = announcement.await?;
        Ok(Self { process, announcement })
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

//! Decides for creatures, outside the tick of the zones. Zones send perceptions in batches and get intents. A zone
//! that loses its stream opens another one to any replica. A replica stores only the memories of creatures, which
//! may be lost.

mod config;
mod error;
mod load;
mod metrics;
mod think;
mod thinker;

use shardkeep_cluster::Node;
use shardkeep_daemon::{Daemon, Service, Settings};
use shardkeep_types::DaemonKind;
use tonic::service::Routes;

pub use config::Config;
pub use error::AiError;
pub use load::BusyTime;
pub use think::ThinkService;
pub use thinker::Thinker;

pub struct Ai;

impl Service for Ai {
    const KIND: DaemonKind = DaemonKind::Ai;
    type Config = Config;

    async fn run(settings: Settings<Config>, daemon: Daemon) -> anyhow::Result<()> {
        metrics::describe();
        let node = Node::join(&settings, &daemon, Self::KIND).await?;
        let busy = BusyTime::default();
        let service = ThinkService::new(settings.service, busy.clone(), daemon.draining());
        node.serve(Routes::new(service.into_server()));
        load::report(&node, &busy, &daemon.draining()).await;
        Ok(())
    }
}

//! This daemon as a member of the cluster.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use ::metrics::gauge;
use anyhow::{Context, bail};
use parking_lot::Mutex;
use shardkeep_daemon::{ClusterConfig, Daemon, Settings, unix_millis};
use shardkeep_rpc::control::control_server::ControlServer;
use shardkeep_types::{DaemonKind, InstanceId, WorldId};
use tokio::{net::TcpListener, sync::watch};
use tokio_util::sync::CancellationToken;
use tonic::{service::Routes, transport::Channel};
use tonic_health::{ServingStatus, server::HealthReporter};
use tracing::{error, info, warn};

use crate::{
    Dialer, Directory, Identity, Instance, Leadership, REGION_ATTRIBUTE, State,
    advertise::AdvertisedHost,
    control::ControlService,
    directory, incarnation,
    leases::Leases,
    log_collector, metrics,
    registration::{self, RegistrationKey},
    server,
};

/// The certificate files are read again this often.
const RELOAD_INTERVAL: Duration = Duration::from_secs(2);

/// Handle to this instance's membership; clones are the same instance.
#[derive(Clone)]
pub struct Node {
    inner: Arc<Inner>,
}

struct Inner {
    id: InstanceId,
    daemon: Daemon,
    identity: Arc<Identity>,
    dialer: Dialer,
    host: AdvertisedHost,
    config: ClusterConfig,
    /// The bound socket, until [`Node::serve`] takes it.
    listener: Mutex<Option<TcpListener>>,
    announcement: watch::Sender<Instance>,
    leases: Leases,
    registration_key: RegistrationKey,
    directories: Mutex<HashMap<DaemonKind, Directory>>,
}

impl Node {
    /// Takes the identity from the certificate files, binds the gRPC socket and starts registering as STARTING with
    /// every registry.
    ///
    /// # Errors
    /// When the certificate is missing, unreadable or of another instance, or the address is taken.
    pub async fn join<C: Sync>(
        settings: &Settings<C>,
        daemon: &Daemon,
        kind: DaemonKind,
    ) -> anyhow::Result<Self> {
        metrics::describe();
        let identity = Arc::new(load_identity(settings, kind)?);
        let address = &settings.daemon.grpc;
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("gRPC: can not listen on {address} (daemon.grpc moves it)"))?;
        let bound = listener.local_addr()?;
        let registries = &settings.cluster.registries;
        let configured = settings.daemon.advertise_host.as_deref();
        let host = AdvertisedHost::new(configured, bound.ip(), registries);
        let grpc_address = host.with_port(bound.port());
        daemon.set_grpc_address(&grpc_address);
        info!(address = %bound, advertised = grpc_address, "gRPC bound");
        let dialer = Dialer::new(identity.clone());
        let name = settings.daemon.name.clone();
        // A registry need not ask itself.
        let others = registries.iter().filter(|registry| **registry != grpc_address);
        let others = others.map(|registry| dialer.channel(DaemonKind::Registry, registry));
        let incarnation = incarnation::choose(others, kind, &name, unix_millis()).await;
        let instance = Instance {
            world: settings.cluster.world(),
            grpc_address,
            admin_address: host.admin_address(&daemon.bound().admin),
            version: env!("CARGO_PKG_VERSION").into(),
            attributes: region(&settings.cluster),
            ..Instance::new(InstanceId { kind, name, incarnation }, State::Starting)
        };
        let node = Self {
            inner: Arc::new(Inner {
                id: instance.id.clone(),
                daemon: daemon.clone(),
                dialer,
                identity,
                host,
                config: settings.cluster.clone(),
                listener: Mutex::new(Some(listener)),
                announcement: watch::Sender::new(instance),
                leases: Leases::new(daemon.clone()),
                registration_key: RegistrationKey::generate()?,
                directories: Mutex::default(),
            }),
        };
        node.keep_registered();
        let reload = reload_certificates(node.inner.identity.clone(), daemon.finished());
        daemon.spawn_infrastructure("certificates", reload);
        log_collector::start(daemon, &settings.log, node.dialer(), || node.directory(DaemonKind::Logs));
        Ok(node)
    }

    fn keep_registered(&self) {
        for address in &self.inner.config.registries {
            self.register_with(address);
        }
        let node = self.clone();
        self.inner.daemon.spawn_infrastructure("draining state", async move {
            node.inner.daemon.draining().cancelled().await;
            node.set_state(State::Draining);
            Ok(())
        });
    }

    /// Keeps this instance registered with one more registry: a registry's way to appear in its own list.
    pub fn register_with(&self, registry: &str) {
        let inner = &self.inner;
        let timing =
            registration::LeaseTiming { heartbeat: inner.config.heartbeat, lease: inner.config.lease };
        let channel = self.channel(DaemonKind::Registry, registry);
        let handle = registration::RegistrationHandle {
            announcement: inner.announcement.subscribe(),
            leases: inner.leases.clone(),
            daemon: inner.daemon.clone(),
            key: inner.registration_key.clone(),
        };
        let run = registration::run(registry.to_owned(), channel, handle, timing);
        inner.daemon.spawn_infrastructure("registration", run);
    }

    fn registries(&self) -> impl Iterator<Item = (String, Channel)> {
        let addresses = self.inner.config.registries.iter();
        addresses.map(|address| (address.clone(), self.channel(DaemonKind::Registry, address)))
    }

    pub fn id(&self) -> &InstanceId {
        &self.inner.id
    }

    pub fn world(&self) -> WorldId {
        self.inner.config.world()
    }

    /// `host:port` as advertised.
    pub fn grpc_address(&self) -> String {
        self.inner.announcement.borrow().grpc_address.clone()
    }

    /// This instance as it registers at the moment.
    pub fn instance(&self) -> Instance {
        self.inner.announcement.borrow().clone()
    }

    /// Address at which clients reach a socket of this daemon. `configured` is the daemon's setting `host:port`, in
    /// which port 0 stands for the bound port. Without it, the address follows the bound address and the advertised
    /// host.
    pub fn advertise(&self, configured: Option<&str>, bound: SocketAddr) -> String {
        self.inner.host.client_address(configured, bound)
    }

    /// Tells the registries (and the announce file) where players reach this instance.
    pub fn set_client_address(&self, address: String) {
        self.inner.daemon.set_client_address(&address);
        self.announce(|instance| instance.client_address = address);
    }

    /// Sets the load, from 0.0 (idle) to 1.0 (full). The next heartbeat carries it.
    pub fn set_load(&self, load: f64) {
        self.inner.announcement.send_if_modified(|instance| {
            instance.load = load;
            false
        });
    }

    /// Tells the registries whether this instance leads its world.
    pub fn set_leadership(&self, leadership: Leadership) {
        self.announce(|instance| instance.leadership = leadership);
    }

    /// Sets an attribute of this kind of daemon in the registries.
    pub fn set_attribute(&self, key: &str, value: String) {
        self.announce(|instance| {
            instance.attributes.insert(key.to_owned(), value);
        });
    }

    pub fn daemon(&self) -> &Daemon {
        &self.inner.daemon
    }

    pub(crate) fn has_registries(&self) -> bool {
        !self.inner.config.registries.is_empty()
    }

    fn set_state(&self, state: State) {
        // A drain that began before the service was up must not be undone.
        self.announce(|instance| instance.state = instance.state.max(state));
    }

    fn announce(&self, change: impl FnOnce(&mut Instance)) {
        self.inner.announcement.send_if_modified(|instance| {
            let before = instance.clone();
            change(instance);
            *instance != before
        });
    }

    /// Serves these gRPC services beside `Control` and health, with mutual TLS and the access table. Marks the
    /// instance UP, and the daemon ready once a registry knows that. Call it once; it serves until the daemon has
    /// finished.
    pub fn serve(&self, routes: Routes) {
        let inner = &self.inner;
        let Some(listener) = inner.listener.lock().take() else {
            error!("Node::serve was called twice");
            return;
        };
        let (reporter, health) = tonic_health::server::health_reporter();
        let routes = routes
            .add_service(health)
            .add_service(ControlServer::new(ControlService { daemon: inner.daemon.clone() }));
        let (identity, world, finished) = (inner.identity.clone(), self.world(), inner.daemon.finished());
        inner.daemon.spawn_infrastructure("gRPC server", async move {
            server::serve(listener, identity, world, routes, finished).await.context("gRPC server")
        });
        inner.daemon.spawn_infrastructure("health", report_health(reporter, inner.daemon.clone()));
        self.set_state(State::Up);
        inner.daemon.spawn_infrastructure("readiness", self.clone().become_ready());
    }

    /// A daemon that no registry knows cannot be found, so it must not count as ready: an upgrade would go on and drain
    /// the replica that works. Without registries in the settings the daemon is ready at once.
    async fn become_ready(self) -> anyhow::Result<()> {
        let inner = &self.inner;
        if !inner.config.registries.is_empty() {
            let draining = inner.daemon.draining();
            if draining.run_until_cancelled(inner.leases.wait_until_known_up()).await.is_none() {
                return Ok(());
            }
        }
        inner.daemon.ready();
        Ok(())
    }

    /// Live view of the instances of a kind. All callers share one watch per registry.
    pub fn directory(&self, kind: DaemonKind) -> Directory {
        let mut directories = self.inner.directories.lock();
        let directory = directories.entry(kind).or_insert_with(|| self.follow(kind));
        let mut directory = directory.clone();
        directory.snapshot();
        directory
    }

    fn follow(&self, kind: DaemonKind) -> Directory {
        let daemon = &self.inner.daemon;
        let registries: Vec<_> = self.registries().collect();
        let (writer, directory) =
            directory::DirectoryWriter::new(kind, registries.len(), self.inner.config.lease);
        for (at, (_, channel)) in registries.into_iter().enumerate() {
            daemon.spawn_infrastructure(
                "directory",
                directory::follow(writer.clone(), at, channel, daemon.finished()),
            );
        }
        directory
    }

    /// Cached, lazily connecting channel to a peer of this kind; see [`Dialer::channel`]. Deadlines are set per call,
    /// by [`tonic::Request::set_timeout`].
    pub fn channel(&self, kind: DaemonKind, grpc_address: &str) -> Channel {
        self.inner.dialer.channel(kind, grpc_address)
    }

    pub fn dialer(&self) -> &Dialer {
        &self.inner.dialer
    }
}

fn load_identity<C>(settings: &Settings<C>, kind: DaemonKind) -> anyhow::Result<Identity> {
    let ClusterConfig { ca, cert, key, world, .. } = &settings.cluster;
    let mut identity = Identity::load(ca, cert, key).context(
        "no identity: every daemon needs a certificate (`shardkeep certs` makes them; cluster.ca, cluster.cert and \
         cluster.key name the files)",
    )?;
    let name = &settings.daemon.name;
    identity.set_replica_name(name);
    let peer = identity.peer();
    if peer.kind != kind || peer.name != *name || peer.world.0 != *world {
        bail!(
            "{} is the certificate of {}, this is {kind}/{name} of world {world}",
            cert.display(),
            peer.uri()
        );
    }
    Ok(identity)
}

fn region(config: &ClusterConfig) -> BTreeMap<String, String> {
    let named = (!config.region.is_empty()).then(|| (REGION_ATTRIBUTE.to_owned(), config.region.clone()));
    named.into_iter().collect()
}

/// Puts new certificate files in force, and reports when the certificate expires.
async fn reload_certificates(identity: Arc<Identity>, stop: CancellationToken) -> anyhow::Result<()> {
    loop {
        gauge!(metrics::CERTIFICATE_EXPIRY).set(identity.expires() as f64);
        tokio::select! {
            () = tokio::time::sleep(RELOAD_INTERVAL) => {}
            () = stop.cancelled() => return Ok(()),
        }
        match identity.reload() {
            Ok(false) => {}
            Ok(true) => {
                info!(expires = identity.expires(), "certificate files have changed and are in force");
            }
            Err(error) => warn!(
                error = format!("{error:#}"),
                "new certificate files are unusable; the previous ones stay in force"
            ),
        }
    }
}

async fn report_health(reporter: HealthReporter, daemon: Daemon) -> anyhow::Result<()> {
    reporter.set_service_status("", ServingStatus::Serving).await;
    daemon.draining().cancelled().await;
    reporter.set_service_status("", ServingStatus::NotServing).await;
    Ok(())
}

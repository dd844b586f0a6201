//! Doubles of daemons: one of each kind that a test of another daemon needs.

mod backend;
mod billing;
mod cluster;
mod database;
mod gateway;
mod gateway_link;
mod login;
mod registry;
mod world;

pub use backend::FakeBackend;
pub use billing::{FakeBilling, PLAY_TIME_LEFT_MS};
pub use cluster::FakeCluster;
pub use database::{FakeDatabase, ReplyMode};
pub use gateway::{FakeGateway, GatewayCall};
pub use gateway_link::FakeGatewayLink;
pub use login::FakeLogin;
pub use registry::FakeRegistry;
pub use world::FakeWorld;

/// Calls that no test makes. This is what `async_trait` makes of an `async fn`, which it does not see inside a macro.
macro_rules! unimplemented_calls {
    ($($name:ident($request:ty) -> $reply:ty;)+) => {$(
        fn $name<'life0, 'async_trait>(
            &'life0 self,
            _: tonic::Request<$request>,
        ) -> futures::future::BoxFuture<'async_trait, Result<tonic::Response<$reply>, tonic::Status>>
        where
            'life0: 'async_trait,
            Self: 'async_trait,
        {
            Box::pin(std::future::ready(Err(tonic::Status::unimplemented(stringify!($name)))))
        }
    )+};
}
use unimplemented_calls;

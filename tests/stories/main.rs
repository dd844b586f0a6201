//! Stories over a whole cluster of real processes: what a player lives through, and what dies meanwhile. One module
//! each; `ARCHITECTURE.md` says what must hold in them all.

mod accounts;
mod border;
mod config_typos;
mod crashes;
mod dashboards;
mod drain;
mod flood;
mod gateways;
mod hostile;
mod hunt;
mod interop;
mod lanes;
mod link_cut;
mod login;
mod meeting;
mod operator;
mod regions;
mod restart;
mod second_store;
mod slow_client;
mod standing;
mod storm;
mod tickets;

//! Stories over a whole cluster of real processes: what a player lives through, and what dies meanwhile. One module
//! each; `ARCHITECTURE.md` says what must hold in them all.

mod accounts;
mod alerts;
mod attack;
mod border;
mod clock_set_back;
mod config_typos;
mod connection_cut;
mod crashes;
mod dashboards;
mod database_failover;
mod dns_pool_switch;
mod drain;
mod full_disk;
mod gateways;
mod idle_player;
mod interop;
mod lanes;
mod login;
mod loot;
mod malicious_client;
mod operator;
mod regions;
mod replica_with_other_store;
mod restart;
mod slow_client;
mod tickets;
mod two_players;

//! Stories over a whole cluster of real processes: players play while daemons drain, crash or are attacked. One module
//! for each story.

mod accounts;
mod alerts;
mod attack;
mod border;
mod clock_set_back;
mod config_typos;
mod connection_cut;
mod crashes;
mod creatures;
mod dashboards;
mod database_failover;
mod dns_pool_switch;
mod drain;
mod full_disk;
mod gateways;
mod idle_player;
mod interop;
mod journal;
mod lanes;
mod login;
mod long;
mod loot;
mod malicious_client;
mod operator;
mod partition;
mod player_events;
mod regions;
mod replica_with_other_store;
mod restart;
mod slow_client;
mod spaces;
mod tickets;
mod two_players;
mod up;

//! Black-box tests: a real `login` process, players over TCP, operators over gRPC, and doubles of other daemons.
//! Each module tests one subject.

mod accounts;
mod cluster;
mod duplicates;
mod hostile;
mod logins;
mod own_account;
mod player;
mod regions;
mod registration;
mod revocations;
mod storm;
mod update;
mod worlds;

//! Black-box tests: a real `login` process, players over TCP, operators over gRPC, and stand-ins for the daemons it
//! talks to. One module per story.

mod accounts;
mod cluster;
mod hostile;
mod logins;
mod player;
mod stand_ins;
mod storm;
mod worlds;

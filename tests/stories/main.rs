//! Stories over a whole cluster of real processes: what a player lives through, and what dies meanwhile. One module
//! each; `ARCHITECTURE.md` says what must hold in them all.

mod meeting;
mod restart;

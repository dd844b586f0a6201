//! Releases as others see them: the published vectors, and what fuzzers have found.

mod corpus;
mod vectors;

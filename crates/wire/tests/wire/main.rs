//! Framing as others see it: the published vectors, and what fuzzers have found.

mod corpus;
mod vectors;

#![doc = include_str!("../README.md")]
//!
//! The protocol between the VMM and the agent in its guest: every word, type and limit of it, once.
//!
//! The guest starts every exchange: one [`Request`] line, one answer line, which begins with [`OK`] or [`FAIL`]. Lines
//! travel by the I/O ports of [`wire`]. What a guest is for stands in the answer to `hello`, a [`Hello`] as JSON. A guest
//! is not trusted: the reader of a line checks it.
//!
//! This crate formats and parses requests and defines what the JSON answers hold; it does no I/O and depends on serde
//! alone.

mod counters;
pub mod exchange;
pub mod exit;
mod expected;
mod hello;
mod request;
pub mod started;
pub mod wire;
pub mod witness;

pub use counters::{Counters, FunctionTraffic, RAM, Traffic};
pub use expected::{Address, Arrival, Expected, Other, Path, PathKind};
pub use hello::{END_OF_INPUT, Hello, Input, Mode, Module};
pub use request::{CaseEnd, Expectation, MAX_QUOTE, Request, RequestError};

/// What the agent's lines on the console begin with.
pub const AGENT_SAYS: &str = "peerdma agent: ";
/// First word of an answer to a request that was carried out. What was asked for follows, if anything was.
pub const OK: &str = "ok";
/// First word of an answer to a request that was not; the reason follows.
pub const FAIL: &str = "fail";

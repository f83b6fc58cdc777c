//! What the DMA engines share: descriptors in progress, their accesses, and how channels take
//! turns.
//!
//! A channel owns a [`DataPath`]: the [`Job`] in progress, the read that it waits for and its
//! staging buffer. What a descriptor means, which phase follows which, and what a failure does to
//! the channel is each engine's own.

mod bus;
mod job;
mod path;
mod turns;

pub(super) use bus::Bus;
pub(super) use job::{Access, Buffer, CHUNK, Job, Phase, Task};
pub(super) use path::{DataPath, ReadEnd, WriteEnd, complete};
pub(super) use turns::{Budget, Flow, in_turn};

//! The control channel: what an interactive guest's user asks and tells the VMM while it runs.
//!
//! Requests come from clients of a socket ([`server`]) in the process that the user has started. Those about the guest go
//! on to where it runs ([`link`]), which may be a nested test host, and are carried out there ([`Controlled`]); findings have
//! arrived here as events, and are answered here.

pub mod client;
mod guest;
pub mod link;
pub mod message;
pub mod server;

pub use guest::Controlled;

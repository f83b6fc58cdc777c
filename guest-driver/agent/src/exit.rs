//! How a guest ends.

pub use guest_protocol::exit::*;

/// Why the agent gives up, and the code the guest ends with.
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
pub struct Failure {
    /// One of the codes of this module.
    pub code: u8,
    /// A sentence for the person at the console.
    pub reason: String,
}

impl Failure {
    /// A failure with the given code and reason.
    pub fn new(code: u8, reason: impl Into<String>) -> Self {
        Self { code, reason: reason.into() }
    }
}

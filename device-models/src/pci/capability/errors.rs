//! The errors of the transaction layer and the messages about them (section 6.2).

/// An uncorrectable error that a function detects (section 7.8.4.2). The discriminant is its bit
/// in the AER registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum UncorrectableError {
    /// A TLP marked as carrying bad data arrived.
    PoisonedTlp = 12,
    /// A completion did not come in time.
    CompletionTimeout = 14,
    /// A request broke the completer's programming model.
    CompleterAbort = 15,
    /// A completion arrived that the function does not wait for.
    UnexpectedCompletion = 16,
    /// A TLP breaks the rules of its format.
    MalformedTlp = 18,
    /// The function does not take this request.
    UnsupportedRequest = 20,
    /// Access Control Services forbid it.
    AcsViolation = 21,
}

impl UncorrectableError {
    /// Its bit in Uncorrectable Error Status, Mask and Severity.
    #[must_use]
    pub const fn bit(self) -> u32 {
        1 << self.number()
    }

    /// The number of that bit, as the First Error Pointer has it.
    #[must_use]
    pub const fn number(self) -> u32 {
        self as u32
    }

    /// Whether, when it is not fatal, it is only advised of: another agent knows better how bad
    /// it is (section 6.2.3.2.4). The completer of a non-posted request says so by the status of
    /// its completion; an unexpected completion may belong to another function.
    pub(super) const fn is_advisory(self, request: RequestKind) -> bool {
        match self {
            Self::UnexpectedCompletion => true,
            Self::UnsupportedRequest | Self::CompleterAbort | Self::AcsViolation => {
                matches!(request, RequestKind::NonPosted)
            }
            Self::PoisonedTlp | Self::CompletionTimeout | Self::MalformedTlp => false,
        }
    }
}

/// Whether the requester of a request waits for a completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RequestKind {
    /// Memory writes and messages, interrupts among them.
    Posted,
    /// Reads, atomics, configuration.
    NonPosted,
}

/// An error message on its way to the root port (section 2.2.8.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorMessage {
    /// ERR_COR: correctable, advisory ones among them.
    Correctable,
    /// ERR_NONFATAL: a transaction is lost.
    NonFatal,
    /// ERR_FATAL: the link or function is no longer reliable.
    Fatal,
}

/// An unsuccessful completion that a requester received (section 7.5.1.1.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Abort {
    /// Status Unsupported Request: the Status register calls it master abort.
    Unsupported,
    /// Status Completer Abort: the Status register calls it target abort.
    Completer,
}

/// The side of a bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// Towards the root; an endpoint's only side.
    Primary,
    /// Away from the root.
    Secondary,
}

//! Codes of the device that pass through the user interface unchanged: see `guest-driver/peerdma_regs.h`, which a test
//! compares with this.

/// Declares codes and the table that the drift test compares.
macro_rules! codes {
    ($($(#[$meta:meta])* $name:ident = $value:literal;)*) => {
        $($(#[$meta])* pub const $name: u32 = $value;)*

        /// Every code: its name in the header without `PEERDMA_`, and its value here.
        pub fn codes() -> Vec<(&'static str, u32)> {
            vec![$((stringify!($name), $name),)*]
        }
    };
}

codes! {
    /// Everything that the device can know of went well.
    STATUS_SUCCESS = 0;
    /// A read ended as an unsupported request.
    STATUS_UNSUPPORTED_REQUEST = 1;
    /// A read ended as a completer abort.
    STATUS_COMPLETER_ABORT = 2;
    /// A read was never answered.
    STATUS_TIMEOUT = 3;
    /// The descriptor makes no sense.
    STATUS_BAD_DESCRIPTOR = 4;
    /// The driver ended it.
    STATUS_ABORTED = 5;
    /// A comparison found a difference.
    STATUS_MISMATCH = 6;
    /// The channel did not halt.
    HALT_NONE = 0;
    /// The ring makes no sense.
    HALT_BAD_RING = 1;
    /// Bus mastering is off: nothing was emitted.
    HALT_BUS_MASTER = 2;
    /// The descriptor could not be read: unsupported request.
    HALT_FETCH_UNSUPPORTED = 3;
    /// The descriptor could not be read: completer abort.
    HALT_FETCH_ABORT = 4;
    /// The descriptor could not be read: completion timeout.
    HALT_FETCH_TIMEOUT = 5;
}

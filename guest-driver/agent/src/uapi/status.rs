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
    /// Offset of channel 0's block in the register BAR.
    CHANNEL_BASE = 0x1000;
    /// Bytes from one channel's block to the next.
    CHANNEL_STRIDE = 0x1000;
    /// In a channel's block: the misbehaviour asked for.
    CH_FAULT = 0xa0;
    /// Its argument.
    CH_FAULT_ARG = 0xa4;
    /// Its DMA address, low half.
    CH_FAULT_LO = 0xa8;
    /// Its DMA address, high half.
    CH_FAULT_HI = 0xac;
    /// No misbehaviour.
    FAULT_NONE = 0;
    /// No completion record and no interrupt.
    FAULT_REFUSE_COMPLETION = 1;
    /// Both come late.
    FAULT_DELAY_COMPLETION = 2;
    /// The record's cookie is inverted.
    FAULT_CORRUPT_COOKIE = 3;
    /// The first byte is wrong.
    FAULT_CORRUPT_DATA = 4;
    /// A write that no descriptor named.
    FAULT_STRAY_WRITE = 5;
    /// What was written last is still in the device when the completion is reported.
    FAULT_WRITE_BACK = 6;
}

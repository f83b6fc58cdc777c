//! How a guest ends: the codes that the agent hands to the VMM.
//!
//! A user's own command ends the guest with its own status, so the agent's failures sit high, where few programs put
//! theirs. The agent prints the reason on the console first, and passes it behind the code: that
//! shows the VMM that the code is the agent's.

/// Every test passed or was skipped, or the user's command succeeded.
pub const SUCCESS: u8 = 0;
/// At least one test failed.
pub const TESTS_FAILED: u8 = 1;
/// The arguments on the command line make no sense.
pub const USAGE: u8 = 2;
/// A test did not end.
pub const HANG: u8 = 119;
/// The agent itself panicked: a bug in it.
pub const PANIC: u8 = 120;
/// A file system that nothing works without could not be mounted.
pub const MOUNT: u8 = 121;
/// The VMM answered with something that is not an answer, or not at all in the middle of a conversation.
pub const PROTOCOL: u8 = 122;
/// A module could not be loaded, or a driver not bound anew.
pub const MODULE: u8 = 123;
/// The console or a child process could not be set up.
pub const PROCESS: u8 = 124;
/// A process in the guest asked for it to be powered off before the work was done.
pub const INTERRUPTED: u8 = 125;
/// The command exists but cannot be executed; a shell uses the same code.
pub const NOT_EXECUTABLE: u8 = 126;
/// The command was not found; a shell uses the same code.
pub const NOT_FOUND: u8 = 127;

//! First process and test program of a peerdma guest.
//!
//! One static program does both: as `/init` it sets the system up, asks the VMM what this guest is
//! for and ends the guest with an exit code; as `guest-agent test` it runs the tests by hand. It links nothing but the
//! standard library and thin system-call wrappers, because it lies in the initramfs of every guest and runs where
//! every instruction is emulated twice.

pub mod cases;
pub mod command_line;
pub mod device;
pub mod exit;
pub mod init;
pub mod ktap;
pub mod lab;
pub mod partner;
pub mod sys;
pub mod uapi;

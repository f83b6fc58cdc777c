#![doc = include_str!("../crate.md")]
//!
//! First process and test program of a peerdma guest.
//!
//! [`init::run`] is a guest's first process: it sets the system up, asks the VMM what this guest is for and ends the
//! guest with an exit code. [`command_line::run`] is the program `guest-agent` at a guest's prompt, which runs tests
//! by hand. Both are in the program `peerdma`, which lies in every guest. They use nothing but the standard library and
//! thin system-call wrappers, because they run where every instruction may be emulated twice.

pub mod cases;
pub mod command_line;
pub mod device;
pub mod exit;
pub mod files;
pub mod init;
pub mod ktap;
pub mod partner;
pub mod sys;
pub mod uapi;
pub mod vmm;

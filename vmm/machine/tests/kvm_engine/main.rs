//! The machine on this computer's real KVM, driven by programs of plain integer code that need no kernel. They run
//! even where KVM emulates all code at CPL 0.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod beside;
mod delayed;
mod ending;
mod harness;
mod interrupts;
mod memory;
mod mmio;
mod ports;
mod program;
mod smp;

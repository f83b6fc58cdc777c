//! The device in a system: no VMM, no guest, no KVM.

// Numbers of tests are small.
#![allow(clippy::cast_possible_truncation)]

mod bench;
mod between_devices;
mod copies;
mod edges;
mod errors;
mod faults;
mod hostile;
mod resets;
mod rig;
mod scripted;

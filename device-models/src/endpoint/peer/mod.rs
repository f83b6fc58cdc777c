//! The peer device: local memory in a BAR, and DMA channels that move data between it, guest memory and other devices.

pub mod regs;

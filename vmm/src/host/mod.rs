//! This machine: what it has, and where on it a guest can run.

mod kvm_payload;
pub mod kvm_probe;

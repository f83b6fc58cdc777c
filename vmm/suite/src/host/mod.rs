//! This machine: what it has, and where on it a guest can run. Uses no other module of the crate.

pub mod choice;
pub mod ctrl_c;
pub mod qemu;
pub mod terminal;
pub mod tools;

use peerdma_machine::kvm_probe::{self, KvmProbe};

use self::choice::KvmState;

/// What KVM is good for here, found out by running payloads in it.
pub fn kvm_state() -> KvmState {
    let probe = kvm_probe::probe(kvm_probe::LIMIT);
    match &probe {
        KvmProbe::Absent(why) => KvmState::Absent(why.clone()),
        probe if probe.works() => KvmState::Works,
        probe => KvmState::Broken(probe.to_string()),
    }
}

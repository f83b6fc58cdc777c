//! This machine: what it has, and where on it a guest can run.

pub mod choice;
pub mod doctor;
pub mod interrupt;
mod kvm_payload;
pub mod kvm_probe;
pub mod nested;
pub mod qemu;
pub mod terminal;
pub mod tools;

use self::choice::KvmState;
use self::kvm_probe::KvmProbe;

/// What KVM is good for here, found out by running payloads in it.
pub fn kvm_state() -> KvmState {
    let probe = kvm_probe::probe(kvm_probe::LIMIT);
    match &probe {
        KvmProbe::Absent(why) => KvmState::Absent(why.clone()),
        probe if probe.works() => KvmState::Works,
        probe => KvmState::Broken(probe.to_string()),
    }
}

//! Building machines around a program, and a bus that remembers what was asked of it.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kvm_ioctls::{Kvm, VmFd};
use libtest_mimic::{Completion, Trial};
use peerdma_machine::protocol_port::ExitOnly;
use peerdma_machine::{
    Backends, CpuProfile, DeviceBus, FlatProgram, Machine, MachineConfig, MappedMemory, Platform,
    ProtocolHandler, RunEnd, Workload, layout,
};
use vm_memory::MmapRegion;

/// A program that takes longer hangs. Generous: the computer may be busy.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

/// How a test ends that does not panic.
pub(crate) type Ran = Result<(), Skipped>;

/// Why a test cannot run on this computer.
#[derive(Debug)]
pub(crate) struct Skipped(String);

/// A test by the name that `cargo test` shows. One that cannot run is ignored, with the reason.
pub(crate) fn trial(module: &str, name: &str, test: fn() -> Ran) -> Trial {
    let name = match module.split_once("::") {
        Some((_, module)) => format!("{module}::{name}"),
        None => name.to_owned(),
    };
    Trial::ignorable_test(name, move || {
        Ok(match test() {
            Ok(()) => Completion::Completed,
            Err(Skipped(reason)) => Completion::ignored_with(format!("SKIP: {reason}")),
        })
    })
}

/// Whether this computer's KVM makes VMs at all. Asks without code of ours, whose mistakes must not skip its tests.
fn have_kvm() -> Ran {
    let unusable = |error| Skipped(format!("KVM makes no VM here: {error}"));
    Kvm::new().and_then(|kvm| kvm.create_vm()).map(drop).map_err(unusable)
}

/// A VM without interrupt controllers.
pub(crate) fn bare_vm() -> Result<VmFd, Skipped> {
    have_kvm()?;
    Ok(Kvm::new().and_then(|kvm| kvm.create_vm()).unwrap())
}

/// A platform to run a program on.
pub(crate) fn platform(vcpus: u8) -> Result<Platform, Skipped> {
    have_kvm()?;
    Ok(Platform::new(vcpus, 16).unwrap())
}

/// A machine that will run `code`.
pub(crate) fn machine(
    platform: Platform,
    code: Vec<u8>,
    bus: Arc<dyn DeviceBus>,
    backends: Backends,
) -> Machine {
    let program = FlatProgram { code, address: 0x10_0000, stack: 0x20_0000 };
    let config = MachineConfig {
        workload: Workload::Flat(program),
        cpu_profile: CpuProfile::default(),
        pci: None,
    };
    Machine::new(platform, config, bus, backends).unwrap()
}

/// Only `exit` is answered.
pub(crate) fn quiet() -> Backends {
    with_port(ExitOnly)
}

pub(crate) fn with_port(port: impl ProtocolHandler + 'static) -> Backends {
    Backends { console: Box::new(io::sink()), protocol: Box::new(port) }
}

/// Runs `code` on one vCPU.
pub(crate) fn run(
    code: Vec<u8>,
    bus: Arc<dyn DeviceBus>,
    backends: Backends,
) -> Result<RunEnd, Skipped> {
    let platform = platform(1)?;
    Ok(machine(platform, code, bus, backends).run(Some(LIMIT)).unwrap())
}

/// Sees that a program ended well.
#[track_caller]
pub(crate) fn expect_success(outcome: &RunEnd) {
    match outcome {
        RunEnd::Exit(0) => {}
        RunEnd::Exit(check) => panic!("check {check} of the program failed"),
        other => panic!("{other}"),
    }
}

/// What a CPU did on the bus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    ConfigRead(u16, u16, usize),
    ConfigWrite(u16, u16, Vec<u8>),
    Read(u64, usize),
    Write(u64, Vec<u8>),
}

/// Base of the registers of [`FakeBus`], in the 32-bit window.
pub(crate) const REGISTERS: u64 = 0xC000_0000;

/// 4 KiB of registers at [`REGISTERS`] that hold what is written; configuration space likewise, the same for all
/// functions; memory that configuration register 0x10 of function 0 maps at the address of its value times 1 MiB, in
/// ECAM for reads only.
#[derive(Debug, Default)]
pub(crate) struct FakeBus {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    log: Vec<Access>,
    registers: Vec<u8>,
    config: Vec<u8>,
    memory: Option<MappedMemory>,
    epoch: u64,
    region: Option<Arc<MmapRegion>>,
}

impl FakeBus {
    pub(crate) fn new() -> Arc<Self> {
        let state = State { registers: vec![0; 4096], config: vec![0; 4096], ..State::default() };
        Arc::new(Self { state: Mutex::new(state) })
    }

    /// A bus with device memory that is not mapped yet.
    pub(crate) fn with_memory(region: Arc<MmapRegion>) -> Arc<Self> {
        let bus = Self::new();
        bus.state.lock().unwrap().region = Some(region);
        bus
    }

    /// What has been done since the last call.
    pub(crate) fn take_log(&self) -> Vec<Access> {
        std::mem::take(&mut self.state.lock().unwrap().log)
    }
}

fn place(base: u64, address: u64, len: usize) -> Option<std::ops::Range<usize>> {
    let start = usize::try_from(address.checked_sub(base)?).ok()?;
    let end = start.checked_add(len)?;
    (end <= 4096).then_some(start..end)
}

impl DeviceBus for FakeBus {
    fn config_read(&self, function: u16, offset: u16, data: &mut [u8]) {
        let mut state = self.state.lock().unwrap();
        state.log.push(Access::ConfigRead(function, offset, data.len()));
        data.copy_from_slice(&state.config[place(0, offset.into(), data.len()).unwrap()]);
    }

    fn config_write(&self, function: u16, offset: u16, data: &[u8]) {
        let mut state = self.state.lock().unwrap();
        state.log.push(Access::ConfigWrite(function, offset, data.to_vec()));
        state.config[place(0, offset.into(), data.len()).unwrap()].copy_from_slice(data);
        if offset == 0x10 {
            let mib = data.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte));
            let address = mib << 20;
            let memory = state.region.clone().filter(|_| mib != 0);
            let writable = !layout::ECAM.contains(&address);
            state.memory = memory.map(|memory| MappedMemory { address, memory, writable });
            state.epoch += 1;
        }
    }

    fn mmio_read(&self, address: u64, data: &mut [u8]) {
        let mut state = self.state.lock().unwrap();
        state.log.push(Access::Read(address, data.len()));
        match place(REGISTERS, address, data.len()) {
            Some(place) => data.copy_from_slice(&state.registers[place]),
            None => data.fill(0xFF),
        }
    }

    fn mmio_write(&self, address: u64, data: &[u8]) {
        let mut state = self.state.lock().unwrap();
        state.log.push(Access::Write(address, data.to_vec()));
        if let Some(place) = place(REGISTERS, address, data.len()) {
            state.registers[place].copy_from_slice(data);
        }
    }

    fn memory_epoch(&self) -> u64 {
        self.state.lock().unwrap().epoch
    }

    fn memory(&self) -> Vec<MappedMemory> {
        self.state.lock().unwrap().memory.clone().into_iter().collect()
    }
}

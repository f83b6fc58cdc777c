//! The machine as a whole: built, run once, dropped.

use std::fmt;
use std::io::Write;
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use super::bus::{DeviceBus, DirectMap};
use super::control::{Control, StopHandle};
use super::cpuid::CpuProfile;
use super::debug::DebugHandle;
use super::error::MachineError;
use super::fault::RunEnd;
use super::layout;
use super::memory::GuestRam;
use super::platform::Platform;
use super::ports::Ports;
use super::protocol_port::{ProtocolHandler, ProtocolPort};
use super::serial::{IrqLine, SerialPort};
use super::slots::MemorySlots;
use super::vcpu::Vcpu;
use crate::boot::acpi::{self, AcpiConfig, PciConfig};
use crate::boot::{self, Entry, KernelBoot};
use crate::jitter::Stalls;

/// How long the end of a run waits for the console's sink.
const CONSOLE_DRAIN: Duration = Duration::from_secs(2);

/// What runs in the machine.
#[derive(Debug)]
pub enum Workload {
    /// A kernel, with ACPI tables.
    Kernel(Box<KernelBoot>),
    /// Bare machine code, for tests of the machine itself.
    Flat(FlatProgram),
}

/// Machine code that starts at CPL 0 in long mode, with the lowest 4 GiB mapped to themselves.
#[derive(Clone, Debug)]
pub struct FlatProgram {
    /// The code.
    pub code: Vec<u8>,
    /// Where it is loaded and starts, below 4 GiB.
    pub address: u64,
    /// Initial stack pointer.
    pub stack: u64,
}

/// Configuration of a machine.
#[derive(Debug)]
pub struct MachineConfig {
    /// What runs.
    pub workload: Workload,
    /// The look of the processor.
    pub cpu_profile: CpuProfile,
    /// The host bridge as ACPI describes it; `None`: the kernel sees no PCI.
    pub pci: Option<PciConfig>,
}

/// Where the guest's output goes, and what answers the guest protocol.
pub struct Backends {
    /// Takes what the guest writes to its serial console.
    pub console: Box<dyn Write + Send>,
    /// Answers at the protocol port.
    pub protocol: Box<dyn ProtocolHandler>,
}

impl fmt::Debug for Backends {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backends").finish_non_exhaustive()
    }
}

/// What all vCPU threads share.
pub(crate) struct Shared {
    pub(crate) bus: Arc<dyn DeviceBus>,
    pub(crate) slots: Arc<MemorySlots>,
    pub(crate) ports: Ports,
    pub(crate) control: Arc<Control>,
    pub(crate) ram: GuestRam,
}

/// A machine that is ready to run.
pub struct Machine {
    shared: Arc<Shared>,
    vcpus: Vec<Vcpu>,
    stalls: Option<Stalls>,
}

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Machine").field("vcpus", &self.vcpus.len()).finish_non_exhaustive()
    }
}

impl Machine {
    /// Loads the workload and wires everything up.
    ///
    /// # Errors
    /// [`MachineError`]: what is wrong with the configuration, or what the host refused.
    pub fn new(
        platform: Platform,
        config: MachineConfig,
        bus: Arc<dyn DeviceBus>,
        backends: Backends,
    ) -> Result<Self, MachineError> {
        let ram = platform.ram().clone();
        let entry = load(&ram, config.workload, platform.vcpu_count(), config.pci)?;

        let irq = IrqLine::new()?;
        platform.wire(irq.event(), layout::COM1_GSI)?;
        let ports = Ports {
            serial: SerialPort::new(irq, backends.console)?,
            protocol: Mutex::new(ProtocolPort::new(backends.protocol)),
        };
        let slots = Arc::new(platform.memory_slots()?);
        let map: Weak<dyn DirectMap> = Arc::<MemorySlots>::downgrade(&slots);
        bus.attach(map);
        slots.follow(&*bus)?;
        let vcpus = platform.vcpus(config.cpu_profile, &entry)?;
        let control = Arc::new(Control::default());
        Ok(Self {
            shared: Arc::new(Shared { bus, slots, ports, control, ram }),
            vcpus,
            stalls: None,
        })
    }

    /// Lets the virtual processors stand still now and then.
    #[must_use]
    pub fn with_stalls(self, stalls: Option<Stalls>) -> Self {
        Self { stalls, ..self }
    }

    /// Ends the run from any thread.
    pub fn stop_handle(&self) -> StopHandle {
        StopHandle(Arc::clone(&self.shared.control))
    }

    /// Has the virtual processors stand still and looks at them, from any thread.
    pub fn debug_handle(&self) -> DebugHandle {
        DebugHandle::new(Arc::clone(&self.shared))
    }

    /// Feeds the serial console.
    pub fn console_input(&self) -> ConsoleInput {
        ConsoleInput(Arc::clone(&self.shared))
    }

    /// Runs the guest until it ends, or is ended, or `limit` has passed, which counts as
    /// [`RunEnd::Stopped`]. No thread of the machine is left when this returns.
    ///
    /// # Errors
    /// [`MachineError::Host`] when the vCPU threads cannot be started.
    pub fn run(self, limit: Option<Duration>) -> Result<RunEnd, MachineError> {
        let control = Arc::clone(&self.shared.control);
        let mut threads = Vec::new();
        let mut failed = None;
        for vcpu in self.vcpus {
            match vcpu.start(Arc::clone(&self.shared), self.stalls.as_ref()) {
                Ok(thread) => threads.push(thread),
                Err(error) => {
                    failed = Some(error);
                    control.finish(RunEnd::Stopped);
                    break;
                }
            }
        }
        let deadline = limit.and_then(|limit| Instant::now().checked_add(limit));
        let outcome = control.wait(deadline);
        control.finish(RunEnd::Stopped);
        for thread in threads {
            // A panic has been made an outcome already.
            drop(thread.join());
        }
        self.shared.ports.serial.finish(CONSOLE_DRAIN);
        match failed {
            Some(error) => Err(error),
            None => Ok(outcome.unwrap_or(RunEnd::Stopped)),
        }
    }
}

/// Feeds the serial console. Clones feed the same one.
#[derive(Clone)]
pub struct ConsoleInput(Arc<Shared>);

impl fmt::Debug for ConsoleInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConsoleInput").finish_non_exhaustive()
    }
}

impl ConsoleInput {
    /// Queues input for the guest and returns how many bytes there was room for. Never blocks on the guest.
    pub fn send(&self, data: &[u8]) -> usize {
        self.0.ports.serial.input(data)
    }
}

fn load(
    ram: &GuestRam,
    workload: Workload,
    vcpus: u8,
    pci: Option<PciConfig>,
) -> Result<Entry, MachineError> {
    match workload {
        Workload::Kernel(kernel) => {
            acpi::install(ram.memory(), &AcpiConfig { vcpus, pci })?;
            Ok(boot::load(*kernel, ram)?)
        }
        Workload::Flat(program) => {
            Ok(boot::load_flat(ram, &program.code, program.address, program.stack)?)
        }
    }
}

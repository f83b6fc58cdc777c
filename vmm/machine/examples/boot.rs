//! Boots a kernel with a serial console and nothing else: a check of the machine by itself.
//!
//! Usage: `boot KERNEL [INITRAMFS] [-- COMMAND LINE]`. Prints how the run ended and how long it took.

use std::error::Error;
use std::fs::File;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use peerdma_machine::boot::acpi::{HostBridgeConfig, OscControl, PciConfig};
use peerdma_machine::boot::{KernelBoot, Protocol};
use peerdma_machine::protocol_port::ExitOnly;
use peerdma_machine::{
    Backends, CpuProfile, DeviceBus, Machine, MachineConfig, MappedMemory, Platform, RunEnd,
    Workload,
};

/// Guest RAM.
const RAM_MIB: u32 = 512;
/// A guest that takes longer hangs.
const LIMIT: Duration = Duration::from_secs(120);

/// A host bridge at 00:00.0 and nothing behind it.
struct HostBridge;

impl DeviceBus for HostBridge {
    fn config_read(&self, function: u16, offset: u16, data: &mut [u8]) {
        let mut space = [0_u8; 64];
        space[..4].copy_from_slice(&0x0001_1AE0_u32.to_le_bytes());
        space[8..12].copy_from_slice(&0x0600_0000_u32.to_le_bytes());
        for (at, byte) in (usize::from(offset)..).zip(data) {
            *byte = if function == 0 { space.get(at).copied().unwrap_or(0) } else { 0xFF };
        }
    }
    fn config_write(&self, _: u16, _: u16, _: &[u8]) {}
    fn mmio_read(&self, _: u64, data: &mut [u8]) {
        data.fill(0xFF);
    }
    fn mmio_write(&self, _: u64, _: &[u8]) {}
    fn memory_epoch(&self) -> u64 {
        0
    }
    fn memory(&self) -> Vec<MappedMemory> {
        Vec::new()
    }
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    env_logger::init();
    let begin = Instant::now();
    let mut files = Vec::new();
    let mut arguments = std::env::args().skip(1);
    files.extend(arguments.by_ref().take_while(|argument| argument != "--"));
    let command_line = arguments.collect::<Vec<_>>().join(" ");
    let Some(kernel) = files.first() else {
        eprintln!("usage: boot KERNEL [INITRAMFS] [-- COMMAND LINE]");
        return Ok(ExitCode::from(2));
    };
    let protocol =
        if std::env::var_os("LINUX64").is_some() { Protocol::Linux64 } else { Protocol::Auto };
    let kernel = KernelBoot {
        kernel: File::open(kernel)?.into(),
        initramfs: files.get(1).map(File::open).transpose()?.map(Into::into),
        command_line,
        protocol,
    };
    let vcpus = std::env::var("VCPUS").ok().and_then(|text| text.parse().ok()).unwrap_or(2);
    let platform = Platform::new(vcpus, RAM_MIB)?;
    let config = MachineConfig {
        workload: Workload::Kernel(Box::new(kernel)),
        cpu_profile: CpuProfile::default(),
        pci: Some(PciConfig {
            host_bridges: vec![HostBridgeConfig::only(15)],
            virtio_iommu: None,
            osc: OscControl::default(),
        }),
    };
    let backends = Backends { console: Box::new(std::io::stdout()), protocol: Box::new(ExitOnly) };
    let machine = Machine::new(platform, config, Arc::new(HostBridge), backends)?;
    eprintln!("boot: loaded in {:?}", begin.elapsed());
    let outcome = machine.run(Some(LIMIT))?;
    eprintln!("boot: {outcome}, after {:?}", begin.elapsed());
    Ok(match outcome {
        RunEnd::PowerOff => ExitCode::SUCCESS,
        RunEnd::Exit(code) => ExitCode::from(u8::try_from(code).unwrap_or(1)),
        _ => ExitCode::FAILURE,
    })
}

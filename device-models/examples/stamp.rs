//! A whole device in one file: given a DMA address, it writes the next number there and interrupts.
//!
//! `docs/add-a-device.md` goes through it. `cargo run -p device-models --example stamp` shows it at
//! work, and `make test` runs its test.

use device_models::endpoint::{Endpoint, Kind, Progress, ResetKind, Setup, SetupError};
use device_models::fabric::{InterruptSink, Port, Purpose, WriteOutcome};
use device_models::iommu::NoIommu;
use device_models::pci::{BarDescription, BarKind, Bdf, FunctionDescription, MsixTable, PcieKind};
use device_models::system::{Function, System, Topology};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap, VolatileSlice};

/// What a topology would call it: one line in `KINDS`.
const KIND: Kind = Kind { name: "stamp", about: "stamps numbers; option first = a number", make };

fn make(setup: &Setup<'_>) -> Result<Box<dyn Endpoint>, SetupError> {
    setup.known_options(&["first"])?;
    let first = setup.number("first", &(0..=u32::MAX), 1)?;
    Ok(Box::new(Stamp {
        attachment: setup.attachment,
        first,
        next: first,
        wanted: None,
        notified: true,
    }))
}

#[derive(Debug)]
struct Stamp {
    attachment: PcieKind,
    first: u32,
    next: u32,
    /// Where the next stamp goes.
    wanted: Option<u64>,
    /// No interrupt is owed.
    notified: bool,
}

impl Endpoint for Stamp {
    fn description(&self) -> FunctionDescription {
        let bar = |index, size| BarDescription { index, size, kind: BarKind::Memory32 };
        FunctionDescription {
            vendor: 0x1af4,
            device: 0x10f1,
            class: 0x08_8000,
            bars: vec![bar(0, 4096), bar(1, MsixTable::bar_size(1))],
            msix_vectors: 1,
            msix_bar: 1,
            flr: true,
            pcie: Some(self.attachment),
            ..FunctionDescription::default()
        }
    }

    /// Register 0, 4 bytes: the next number.
    fn register_read(&mut self, bar: u8, offset: u64, data: &mut [u8]) {
        if bar == 0 && offset == 0 {
            data.iter_mut().zip(self.next.to_le_bytes()).for_each(|(byte, value)| *byte = value);
        }
    }

    /// Register 8, 8 bytes: where it goes. Only remembers; the work is done in `step`.
    fn register_write(&mut self, bar: u8, offset: u64, data: &[u8]) {
        if let (0, 8, Ok(address)) = (bar, offset, data.try_into()) {
            self.wanted = Some(u64::from_le_bytes(address));
        }
    }

    fn step(&mut self, port: &mut Port<'_>) -> Progress {
        if !self.notified {
            // Held back: once more in a later step.
            self.notified = !matches!(port.raise(0), WriteOutcome::Retry { .. });
            return Progress::Worked;
        }
        let Some(address) = self.wanted else { return Progress::Idle };
        let mut number = self.next.to_le_bytes();
        match port.write(Purpose::Data, address, &VolatileSlice::from(&mut number[..])) {
            WriteOutcome::Retry { .. } => return Progress::Worked,
            WriteOutcome::Posted { .. } => {
                (self.next, self.notified) = (self.next.wrapping_add(1), false)
            }
            // Bus mastering is off: real devices drop it, too.
            WriteOutcome::NotEmitted => {}
        }
        self.wanted = None;
        Progress::Worked
    }

    fn reset(&mut self, _kind: ResetKind) {
        (self.next, self.wanted, self.notified) = (self.first, None, true);
    }
}

#[derive(Debug, Default)]
struct Interrupts;

impl InterruptSink for Interrupts {
    fn signal_msi(&mut self, address: u64, data: u32) {
        println!("interrupt: {data:#x} to {address:#x}");
    }
}

/// Two stamps by a system with the device and 1 MiB of RAM, and no guest: what memory holds then.
fn two_stamps() -> Result<[u32; 2], Box<dyn std::error::Error>> {
    let options = [("first".to_owned(), "41".to_owned())].into();
    let attachment = PcieKind::RootComplexIntegratedEndpoint;
    let device = (KIND.make)(&Setup { attachment, acs: None, options: &options })?;
    let ram = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 1 << 20)])?;
    let topology = Topology::of(vec![Function::boxed(5, "stamp0", device)]);
    let mut system = System::new(topology, &ram, Box::new(NoIommu), Box::new(Interrupts))?;
    // What firmware does: an address for BAR 0, memory decoding and bus mastering on.
    let bdf = Bdf::new(0, 5, 0);
    system.config_write(bdf, 0x10, 4, 0xc000_0000);
    system.config_write(bdf, 0x04, 2, 0x6);
    for address in [0x1000_u64, 0x2ffe] {
        system.mmio_write(0xc000_0008, &address.to_le_bytes());
        while system.step() == Progress::Worked {}
    }
    Ok([ram.read_obj(GuestAddress(0x1000))?, ram.read_obj(GuestAddress(0x2ffe))?])
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("stamped: {:?}", two_stamps()?);
    Ok(())
}

#[test]
fn stamps_arrive_also_across_a_page() {
    assert_eq!(two_stamps().unwrap(), [41, 42]);
}

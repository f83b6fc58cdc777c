//! A system with guest RAM behind the IOMMU, and a device of the bench's own that issues what the bench asks for.

use std::sync::{Arc, Mutex};

use device_models::endpoint::{Endpoint, Progress, ResetKind};
use device_models::fabric::{InterruptSink, Port};
use device_models::iommu::VirtioIommu;
use device_models::iommu::virtio::VirtioIommuConfig;
use device_models::pci::firmware::HostResources;
use device_models::pci::{Bdf, BridgeDescription, FunctionDescription, PortKind};
use device_models::system::{Function, System, Topology};
use vm_memory::{GuestAddress, GuestMemoryMmap};

pub const RAM: u64 = 256 << 20;
/// IOVAs begin here; the RAM page of a mapping is another one than its neighbour's.
pub const IOVA: u64 = 0x1_0000_0000;
const DOMAIN: u32 = 1;
const READ_AND_WRITE: u32 = 3;

#[derive(Debug)]
pub struct NoInterrupts;

impl InterruptSink for NoInterrupts {
    fn signal_msi(&mut self, _address: u64, _data: u32) {}
}

/// What the device does in its next step.
type Work = Box<dyn FnOnce(&mut Port<'_>) + Send>;

/// A device without registers.
#[derive(Default, Clone)]
pub struct Issuer(Arc<Mutex<Option<Work>>>);

impl std::fmt::Debug for Issuer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Issuer")
    }
}

impl Endpoint for Issuer {
    fn description(&self) -> FunctionDescription {
        FunctionDescription { vendor: 0x1af4, device: 0x10f1, ..FunctionDescription::default() }
    }

    fn register_read(&mut self, _bar: u8, _offset: u64, _data: &mut [u8]) {}

    fn register_write(&mut self, _bar: u8, _offset: u64, _data: &[u8]) {}

    fn step(&mut self, port: &mut Port<'_>) -> Progress {
        match self.0.lock().map(|mut work| work.take()) {
            Ok(Some(work)) => {
                work(port);
                Progress::Worked
            }
            _ => Progress::Idle,
        }
    }

    fn reset(&mut self, _kind: ResetKind) {}
}

pub struct Rig {
    pub system: System,
    pub ram: GuestMemoryMmap<()>,
    issuer: Issuer,
}

impl Rig {
    /// `mappings` mappings of `size` bytes each, in a scattered order of RAM.
    pub fn new(mappings: u64, size: u64) -> Self {
        // Some more behind it, for a witness.
        let ram = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), to_usize(RAM + (4 << 20)))])
            .expect("RAM for the bench");
        let issuer = Issuer::default();
        let port = BridgeDescription::new(PortKind::RootPort);
        let place = Function::bridge(
            4,
            "port0",
            port,
            vec![Function::endpoint(0, "issuer", issuer.clone())],
        );
        let topology = Topology::of(vec![place]);
        let mut iommu = VirtioIommu::new(VirtioIommuConfig::default());
        let features = iommu.offered_features();
        iommu.accept_features(features.bits());
        let mut system =
            System::new(topology, &ram, Box::new(iommu), Box::new(NoInterrupts)).expect("a system");
        let resources = HostResources {
            buses: 0..=15,
            memory: 0xc000_0000..=0xdfff_ffff,
            prefetchable: 0x10_0000_0000..=0x1f_ffff_ffff,
        };
        system.run_firmware(&resources).expect("the device fits");
        system.config_write(Bdf::new(1, 0, 0), 4, 2, 6);
        let endpoint = u32::from(Bdf::new(1, 0, 0).0);
        let iommu = system.virtio_iommu().expect("it was given one");
        iommu.attach(DOMAIN, endpoint, 0).expect("attached");
        for index in 0..mappings {
            let first = iova(index, size);
            iommu
                .map(DOMAIN, first, first + size - 1, physical(index, size), READ_AND_WRITE)
                .expect("mapped");
        }
        // The pages exist before anything is measured.
        for page in (0..RAM).step_by(4096) {
            let _ = vm_memory::Bytes::write_obj(&ram, 1u8, GuestAddress(page));
        }
        Self { system, ram, issuer }
    }

    /// Lets the device do `work` within one step, and gives back what it found.
    pub fn issue<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Port<'_>) -> T + Send + 'static,
    ) -> T {
        let (done, result) = std::sync::mpsc::channel();
        let work: Work = Box::new(move |port| {
            let _ = done.send(work(port));
        });
        *self.issuer.0.lock().expect("one thread") = Some(work);
        assert_eq!(self.system.step(), Progress::Worked);
        result.recv().expect("the step has ended")
    }
}

/// The IOVA of mapping `index`: mappings lie side by side.
pub fn iova(index: u64, size: u64) -> u64 {
    IOVA + index * size
}

/// The RAM behind it: neighbours in IOVA are strangers in RAM.
pub fn physical(index: u64, size: u64) -> u64 {
    let places = RAM / size;
    (index * 40503 % places) * size
}

pub fn to_usize(value: u64) -> usize {
    usize::try_from(value).expect("a 64-bit machine")
}

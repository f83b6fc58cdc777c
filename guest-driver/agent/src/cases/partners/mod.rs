//! Code that was not written here: buffers shared with the kernel's own exporters and importers,
//! and the kernel's own tests.
//!
//! All of it needs modules or programs that only some scenarios carry, so none of it is among the positive tests.

mod benchmark;
mod buffers;
mod known;
mod kselftest;
mod kunit;
mod refusals;
mod tap;
mod user_space;
mod vfio;

use super::Kind::Partner;
use super::faults::{IOMMU_FAULT, PORT_ERROR, class};
use super::ioat;
use super::need::Need;
use super::{Case, Stop, Verdict, ensure};
use crate::device::{DEVICE, VENDOR};
use crate::partner::{buffer, iommufd, vfio as device};
use crate::sys::kernel_config;
use crate::sys::pci::Function;
use crate::uapi;
use rustix::io::Errno;

const HEAP: Need = Need::File(buffer::SYSTEM_HEAP, "CONFIG_DMABUF_HEAPS_SYSTEM");
const UDMABUF: Need = Need::File(buffer::UDMABUF, "CONFIG_UDMABUF");
const IOMMUFD: Need = Need::File(iommufd::PATH, "CONFIG_IOMMUFD");
pub(super) const VFIO: Need = Need::File(device::DRIVER_FOLDER, "CONFIG_VFIO_PCI");
const P2P: Need = Need::Feature(uapi::FEATURE_P2PDMA, "CONFIG_PCI_P2PDMA");
/// What lending a device to user space takes. Without translation there is no address space to put it into.
const LENT: &[Need] = &[Need::Peers, P2P, Need::Translated, IOMMUFD, VFIO];
/// The same for an I/OAT engine, which ioatdma gives away. A GiB of memory and copies within seconds are too much for a
/// kernel that checks its every access.
const LENT_IOAT: &[Need] =
    &[Need::Vmm, Need::Peers, Need::Translated, Need::Unchecked, IOMMUFD, VFIO, ioat::DRIVER];
/// The same for engines that ioatdma would not take.
const LENT_BROKEN: &[Need] =
    &[Need::Vmm, Need::Peers, Need::Translated, Need::Unchecked, IOMMUFD, VFIO];

pub(super) const CASES: &[Case] = &[
    Case::new("partners", "udmabuf-and-both-devices", Partner, &[Need::Peers, UDMABUF], |bench| {
        buffers::file(bench, &[(0, 64 << 10)])
    }),
    Case::new(
        "partners",
        "udmabuf-of-scattered-pages",
        Partner,
        &[Need::Peers, UDMABUF],
        |bench| buffers::file(bench, &[(128 << 10, 16 << 10), (0, 8 << 10), (64 << 10, 20 << 10)]),
    ),
    Case::new("partners", "dma-heap-and-both-devices", Partner, &[Need::Peers, HEAP], |bench| {
        buffers::heap(bench, uapi::IMPORT_PEER2PEER)
    }),
    Case::new(
        "partners",
        "dma-heap-and-a-static-importer",
        Partner,
        &[Need::Peers, HEAP],
        |bench| buffers::heap(bench, uapi::IMPORT_STATIC),
    ),
    Case::new("partners", "vgem-and-both-devices", Partner, &[Need::Peers], buffers::vgem),
    Case::new(
        "partners",
        "vgem-takes-pages-not-device-memory",
        Partner,
        &[Need::Peers, P2P, UDMABUF],
        refusals::vgem,
    ),
    Case::new(
        "partners",
        "iommufd-takes-vfio-only",
        Partner,
        &[Need::Peers, P2P, IOMMUFD, UDMABUF],
        refusals::iommufd,
    ),
    Case::new("partners", "vfio-exports-peer0-to-our-driver", Partner, LENT, |bench| {
        vfio::export(bench, 0)
    }),
    Case::new("partners", "vfio-exports-peer1-to-our-driver", Partner, LENT, |bench| {
        vfio::export(bench, 1)
    }),
    Case::new("partners", "vfio-refuses-who-cannot-let-go", Partner, LENT, vfio::refusals),
    Case::new("partners", "vfio-reset-takes-memory-back", Partner, LENT, vfio::reset),
    Case::new("partners", "vfio-memory-decode-off-revokes", Partner, LENT, vfio::memory_off),
    Case::new("partners", "vfio-close-revokes-for-good", Partner, LENT, vfio::closed),
    Case::new("partners", "vfio-exports-two-ranges", Partner, LENT, vfio::two_ranges),
    Case::new(
        "partners",
        "iommufd-imports-the-vfio-export",
        Partner,
        LENT,
        user_space::through_iommufd,
    ),
    Case::new("partners", "p2pmem-allocate", Partner, &[Need::Peers], buffers::p2pmem),
    Case::new("kselftest-dmabuf", "dmabuf-heap", Partner, &[HEAP], |bench| {
        kselftest::run(bench, "dmabuf-heap")
    }),
    Case::new("kselftest-dmabuf", "udmabuf", Partner, &[UDMABUF], |bench| {
        kselftest::run(bench, "udmabuf")
    }),
    Case::new("kselftest-iommufd", "iommufd", Partner, &[IOMMUFD, Need::Unchecked], |bench| {
        // It maps a page of a mock queue as if that were a device's: the kernel finds RAM and says so.
        bench.expect_message("x86/PAT: iommufd:");
        kselftest::run(bench, "iommufd")
    }),
    Case::new("kselftest-vfio", "vfio-pci-device", Partner, LENT, |bench| {
        kselftest::run_with_device(bench, "vfio_pci_device_test")
    }),
    Case::new("kselftest-vfio", "vfio-dma-mapping", Partner, LENT, |bench| {
        kselftest::run_with_device(bench, "vfio_dma_mapping_test")
    }),
    Case::new("kselftest-vfio", "vfio-dma-mapping-mmio", Partner, LENT, |bench| {
        kselftest::run_with_device(bench, "vfio_dma_mapping_mmio_test")
    }),
    Case::new("kselftest-vfio", "vfio-iommufd-setup", Partner, LENT, |bench| {
        kselftest::run_with_device(bench, "vfio_iommufd_setup_test")
    }),
    Case::new("kselftest-vfio-ioat", "vfio-pci-device", Partner, LENT_IOAT, |bench| {
        kselftest::run_with_ioat(bench, "vfio_pci_device_test", &[])
    }),
    Case::new("kselftest-vfio-ioat", "vfio-dma-mapping", Partner, LENT_IOAT, |bench| {
        kselftest::run_with_ioat(bench, "vfio_dma_mapping_test", &[])
    }),
    Case::new("kselftest-vfio-ioat", "vfio-pci-driver", Partner, LENT_IOAT, |bench| {
        // Copies from and to where nothing is mapped are among the tests.
        bench.expect(class::UNMAPPED, 1, None)?;
        bench.expect_messages(IOMMU_FAULT);
        bench.expect_messages(PORT_ERROR);
        let but_small_pages = ["-V", kselftest::SMALL_PAGES];
        kselftest::run_with_ioat(bench, "vfio_pci_driver_test", &but_small_pages)
    }),
    Case::new("kselftest-vfio-ioat", "vfio-pci-driver-small-pages", Partner, LENT_IOAT, |bench| {
        bench.expect(class::UNMAPPED, 0, None)?;
        bench.expect_messages(IOMMU_FAULT);
        bench.expect_messages(PORT_ERROR);
        kselftest::run_small_pages(bench)
    }),
    Case::new("kselftest-vfio-ioat-broken", "corrupted-data", Partner, LENT_BROKEN, |bench| {
        kselftest::must_notice(
            bench,
            0,
            "memcpy_success",
            "memcmp(self->src, self->dst, self->size)",
        )
    }),
    Case::new("kselftest-vfio-ioat-broken", "dropped-interrupt", Partner, LENT_BROKEN, |bench| {
        kselftest::must_notice(bench, 1, "send_msi", "Test terminated by timeout")
    }),
    Case::new("kselftest-vfio-ioat-broken", "hidden-completion", Partner, LENT_BROKEN, |bench| {
        kselftest::must_notice(bench, 2, "memcpy_success", "Test terminated by timeout")
    }),
    Case::new("kunit-dmabuf", "dma-buf-fence", Partner, &[], |bench| {
        kunit::run(bench, "dma-buf-fence")
    }),
    Case::new("kunit-dmabuf", "dma-buf-fence-chain", Partner, &[], |bench| {
        kunit::run(bench, "dma-buf-fence-chain")
    }),
    Case::new("kunit-dmabuf", "dma-buf-fence-unwrap", Partner, &[], |bench| {
        kunit::run(bench, "dma-buf-fence-unwrap")
    }),
    Case::new("kunit-dmabuf", "dma-buf-resv", Partner, &[], |bench| {
        kunit::run(bench, "dma-buf-resv")
    }),
    Case::new("dma-map-benchmark", "one-page", Partner, benchmark::NEEDS, |bench| {
        benchmark::run(bench, &["-t", "1"])
    }),
    Case::new("dma-map-benchmark", "one-page-two-threads", Partner, benchmark::NEEDS, |bench| {
        benchmark::run(bench, &["-t", "2"])
    }),
    Case::new("dma-map-benchmark", "list-of-sixteen-pages", Partner, benchmark::NEEDS, |bench| {
        benchmark::run(bench, &["-m", "1", "-g", "16"])
    }),
];

/// What vfio-pci says whenever it takes a device and resets it.
pub(super) const VFIO_SAYS: &[&str] = &[
    // Because of allow_unsafe_interrupts, which is set: virtio-iommu does not remap interrupts.
    "MSI interrupts are not secure",
    ": resetting",
    ": reset done",
];

/// The PCI function of the peer device `instance`, whatever driver it has: instances count in the order of addresses.
fn function(instance: usize) -> Result<Function, Stop> {
    let mut peers = Function::all()?.into_iter().filter(|function| function.is(VENDOR, DEVICE));
    peers
        .nth(instance)
        .ok_or_else(|| Stop::Fail(format!("there is no peer device number {instance} on the bus")))
}

/// A call that older kernels do not know is a SKIP, unless this kernel's configuration has what the call came with.
fn unless_unknown(errno: Errno, what: &str) -> Stop {
    const OPTION: &str = "CONFIG_VFIO_PCI_DMABUF";
    match (errno, kernel_config::option(OPTION)) {
        (Errno::NOTTY, None) => Stop::Skip(format!("this kernel lacks {what} ({OPTION})")),
        _ => Stop::Fail(format!("{what} failed: {errno}")),
    }
}

/// The call must have been refused, for this reason.
fn refused<T>(what: &str, result: Result<T, Errno>, expected: Errno) -> Verdict {
    let found = result.err();
    ensure!(
        found == Some(expected),
        "{what}: {}, not {expected}",
        found.map_or("accepted".to_owned(), |errno| format!("refused with {errno}"))
    );
    Ok(())
}

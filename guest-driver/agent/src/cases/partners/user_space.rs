//! Both devices assigned to user space: iommufd maps the BAR of one into the address space of the
//! other.

use super::super::lane::traffic_goes_on;
use super::super::{Bench, Verdict, ensure};
use super::vfio::export_range;
use super::{VFIO_SAYS, function, refused};
use crate::device::{Pattern, Peer};
use crate::partner::binding::Lent;
use crate::partner::iommufd::AddressSpace;
use crate::partner::user_driver::{Location, UserDriver};
use crate::partner::vfio::{DRIVER, Device};
use rustix::io::Errno;

/// The BAR with the local memory.
const BAR: u32 = 2;
const OFFSET: u64 = 2 << 20;
const LENGTH: usize = 32 << 10;
/// Where things lie in the address space: far from RAM, BARs and interrupts.
const RINGS: u64 = 0x10_0000_0000;
const WINDOW: u64 = 0x20_0000_0000;

/// peer0's BAR, exported by vfio-pci and mapped by iommufd, is written and read by peer1.
pub(super) fn through_iommufd(bench: &mut Bench<'_>) -> Verdict {
    bench.close_peers();
    bench.expect_messages(VFIO_SAYS);
    let lent = [Lent::new(function(0)?, DRIVER)?, Lent::new(function(1)?, DRIVER)?];
    let space = AddressSpace::new()?;
    let exporter = Device::open(&lent[0].function, &space)?;
    let user = Device::open(&lent[1].function, &space)?;
    let dma_buf = export_range(&exporter, OFFSET, LENGTH)?;
    space.map_file(&dma_buf, LENGTH as u64, WINDOW)?;

    let (there, here) = (exporter.view(BAR, OFFSET, LENGTH)?, user.view(BAR, 0, LENGTH)?);
    let mut driver = UserDriver::new(&user, &space, RINGS)?;
    let (inward, outward) = (Pattern::new(90), Pattern::new(91));
    there.store(0..LENGTH, inward);
    driver.copy(Location::Address(WINDOW + 7), Location::Local(0), 20_000)?;
    here.expect(0..20_000, inward, 7)?;
    here.store(0..LENGTH, outward);
    driver.copy(Location::Local(0), Location::Address(WINDOW + 9), 20_000)?;
    there.expect(9..20_009, outward, 0)?;
    there.expect(0..9, inward, 0)?;

    // A dma-buf of two ranges has no single physical address to ask for.
    let two = exporter.export(BAR, &[(0, 4096), (8192, 4096)])?;
    let result = space.map_file(&two, 8192, WINDOW + (1 << 30));
    refused("an export of two ranges, by iommufd", result, Errno::OPNOTSUPP)?;

    space.unmap(WINDOW, LENGTH as u64)?;
    ensure!(space.unmap(WINDOW, LENGTH as u64).is_err(), "the window was there after its unmap");
    drop(driver);
    drop((there, here, two, dma_buf, exporter, user, space));
    for (instance, lent) in (0..).zip(lent) {
        lent.give_back(&Peer::path(instance))?;
    }
    bench
        .note("peer1, driven from user space, wrote and read peer0's BAR where iommufd had put it");
    traffic_goes_on(bench)
}

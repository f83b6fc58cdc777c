//! The same copies by the I/OAT engine, beside the peer device's in the same system.

use device_models::endpoint::Progress;
use device_models::endpoint::ioat::regs::{bars, channel, descriptor, status};
use peerdma_topology::Topology;
use vm_memory::{Bytes, GuestAddress};

use crate::clock::Stopwatch;
use crate::copies::{Bench, CHUNK, COPIES, DOMAIN, Direction, IOVA, RECORDS, RINGS, place};
use crate::report::{Figure, Goal, Report, median};

pub fn run(report: &mut Report, rounds: usize) {
    let mut bench = Bench::new(Topology::load("ioat").expect("a preset"));
    let registers = bring_up(&mut bench);
    for (name, length, goal) in [
        ("64 KiB copies by I/OAT, RAM to RAM", CHUNK, 0.8),
        ("4 KiB copies by I/OAT, RAM to RAM", 4096, 0.8),
    ] {
        let (mut ratios, mut rates) = (Vec::new(), Vec::new());
        checked(&mut bench, registers, length);
        for round in 0..rounds {
            let peer = |bench: &mut Bench| bench.checked_of(Direction::RemoteToRemote, length);
            let (own, peer) = if round % 2 == 0 {
                let own = checked(&mut bench, registers, length);
                (own, peer(&mut bench))
            } else {
                let peer = peer(&mut bench);
                (checked(&mut bench, registers, length), peer)
            };
            ratios.push(peer / own);
            rates.push((COPIES * length) as f64 / own / 1e9);
        }
        report.add(Figure {
            name,
            value: median(ratios),
            unit: "of the peer's",
            compared_with: "the peer device, the same copies",
            goal: Goal::AtLeast(goal),
            rate: Some((median(rates), "GB/s")),
        });
    }
}

/// Firmware's and driver's part; gives where the first channel's registers are.
fn bring_up(bench: &mut Bench) -> u64 {
    let function = bench.system.function("ioat0").expect("the preset has one");
    let map = bench.system.address_map().clone();
    let node = map.node(function);
    let bar = node.bars.iter().find(|bar| bar.index == bars::REGISTERS).expect("its registers");
    bench.system.config_write(node.requester, 4, 2, 6);
    let iommu = bench.system.virtio_iommu().expect("the default machine has one");
    iommu.attach(DOMAIN, u32::from(node.requester.0), 0).expect("attached");
    let registers = bar.range.first + bars::CHANNEL_STRIDE;
    bench.system.mmio_write(registers + channel::COMPLETION, &RECORDS.to_le_bytes());
    registers
}

/// All copies by the engine, in seconds.
fn checked(bench: &mut Bench, registers: u64, length: u64) -> f64 {
    let at = |index: u64| RINGS + 64 * index;
    for index in 0..COPIES {
        let head = length | u64::from(descriptor::COMPLETION) << 32;
        let remote = |salt| IOVA + place(index, salt) * CHUNK;
        let words = [head, remote(0), remote(1), at(index + 1), 0, 0, 0, 0].map(u64::to_le_bytes);
        bench
            .ram
            .write_slice(words.as_flattened(), GuestAddress(at(index)))
            .expect("the chain is in RAM");
    }
    bench.system.mmio_write(registers + channel::CHAIN, &at(0).to_le_bytes());
    let count = u16::try_from(COPIES).expect("DMACOUNT has 16 bits");
    let start = Stopwatch::start();
    bench.system.mmio_write(registers + channel::COUNT, &count.to_le_bytes());
    while bench.system.step() == Progress::Worked {}
    let seconds = start.seconds();
    let record: u64 = bench.ram.read_obj(GuestAddress(RECORDS)).expect("the record is in RAM");
    assert_eq!(record, at(COPIES - 1) | status::DONE);
    seconds
}

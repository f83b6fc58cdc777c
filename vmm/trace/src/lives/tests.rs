use device_models::fabric::{CompletionStatus, Kind, Purpose, WitnessInput};
use device_models::witness::Builder;
use guest_protocol::witness::{Kind as Reported, flags, record};

use super::*;
use crate::event::{FunctionName, Header, TlpRun, TransactionResult};

const PEER: u16 = 0x100;

struct World {
    lives: Lives,
    context: Context,
    number: u64,
}

impl World {
    fn new() -> Self {
        let function = |name: &str, requester| FunctionName { name: name.into(), requester };
        let functions = vec![function("virtio-iommu", 8), function("peer0", PEER)];
        let header = Header { functions, ..Header::nothing() };
        let context = Context::new(&header, Duration::ZERO);
        Self { lives: Lives::default(), context, number: 0 }
    }

    /// What an entry at this time, in nanoseconds, changes: a line each.
    fn entry(&mut self, time: u64, event: Event) -> Vec<String> {
        self.number += 1;
        let time = Duration::from_nanos(time);
        let entry = Entry { number: self.number, time, interface: 0, event };
        let mut changes = Vec::new();
        self.lives.follow(&entry, &self.context, &mut changes);
        let words = |change: &Change| match change {
            Change::Begins(life) => {
                let Life { by, function, address, length, begun, .. } = &**life;
                format!(
                    "{} {function} {address:#x}+{length:#x} from {}",
                    by.name(),
                    begun.as_nanos()
                )
            }
            Change::Ends(life, time) => {
                format!("{} {:#x} to {}", life.by.name(), life.address, time.as_nanos())
            }
        };
        changes.iter().map(words).collect()
    }

    fn attach(&mut self, time: u64, clock: u64) {
        let data = clock.to_le_bytes().to_vec();
        assert!(self.entry(time, Event::Witness { kind: WitnessInput::Attach, data }).is_empty());
    }

    /// A witness record that was made at `clock` and read at `time`.
    fn record(&mut self, time: u64, clock: u64, record: Builder) -> Vec<String> {
        let data = record.put_u64(record::TIME, clock).bytes().to_vec();
        self.entry(time, Event::Witness { kind: WitnessInput::Record, data })
    }

    fn iommu(&mut self, time: u64, request: &[u8], status: u8) -> Vec<String> {
        let run = |kind, data: &[u8]| {
            Event::Transaction(TlpRun {
                sequence: 1,
                requester: 8,
                function: Some(0),
                kind,
                purpose: Purpose::VirtQueue,
                address: 0x1000,
                length: data.len() as u64,
                tlp_limit: 256,
                outcome: TransactionResult::Failed(CompletionStatus::Success),
                verdict: None,
                digest: None,
                data: Some(data.to_vec()),
            })
        };
        // A descriptor and an index come in between, and nothing is said before the answer.
        assert!(self.entry(time, run(Kind::MemoryRead, &[3; 16])).is_empty());
        assert!(self.entry(time, run(Kind::MemoryRead, request)).is_empty());
        assert!(self.entry(time, run(Kind::MemoryWrite, &[0; 8])).is_empty());
        self.entry(time, run(Kind::MemoryWrite, &[status, 0, 0, 0]))
    }
}

fn of(kind: Reported, address: u64, length: u64) -> Builder {
    Builder::new(kind)
        .put_u64(record::ADDRESS, address)
        .put_u64(record::LENGTH, length)
        .put(record::FUNCTION, &u32::from(PEER).to_le_bytes())
}

fn attach(domain: u32) -> Vec<u8> {
    [&[1, 0, 0, 0][..], &domain.to_le_bytes(), &u32::from(PEER).to_le_bytes(), &[0; 8]].concat()
}

fn map(domain: u32, first: u64, last: u64) -> Vec<u8> {
    let ends = [first.to_le_bytes(), last.to_le_bytes(), [0; 8]].concat();
    [&[3, 0, 0, 0][..], &domain.to_le_bytes(), &ends, &[3, 0, 0, 0]].concat()
}

fn unmap(domain: u32, first: u64, last: u64) -> Vec<u8> {
    let ends = [first.to_le_bytes(), last.to_le_bytes()].concat();
    [&[4, 0, 0, 0][..], &domain.to_le_bytes(), &ends, &[0; 4]].concat()
}

#[test]
fn a_mapping_lives_by_the_guest_s_clock() {
    let mut world = World::new();
    world.attach(1000, 50);
    assert_eq!(
        world.record(1900, 250, of(Reported::Map, 0x1000, 0x1000)),
        ["kernel peer0 0x1000+0x1000 from 1200"]
    );
    // Another of the same addresses: the older one ends first.
    assert_eq!(world.record(1900, 300, of(Reported::Map, 0x1000, 0x1000)).len(), 1);
    assert_eq!(
        world.record(2000, 450, of(Reported::Unmap, 0x1000, 0x1000)),
        ["kernel 0x1000 to 1400"]
    );
    // A clock is not believed to be ahead, or behind the mapping's beginning.
    assert_eq!(
        world.record(2100, 9000, of(Reported::Unmap, 0x1000, 0x1000)),
        ["kernel 0x1000 to 2100"]
    );
    assert_eq!(world.record(2200, 800, of(Reported::Map, 0x1000, 0x1000)).len(), 1);
    assert_eq!(
        world.record(2200, 0, of(Reported::Unmap, 0x1000, 0x1000)),
        ["kernel 0x1000 to 1750"]
    );
    assert!(world.record(2200, 0, of(Reported::Unmap, 0x1000, 0x1000)).is_empty());
}

#[test]
fn one_unmap_may_end_several_and_unbinding_ends_all() {
    let mut world = World::new();
    for address in [0x1000, 0x2000, 0x3000, 0x8000] {
        assert_eq!(world.record(5, 0, of(Reported::Map, address, 0x1000)).len(), 1);
    }
    assert_eq!(
        world.record(7, 0, of(Reported::Unmap, 0x2000, 0x2000)),
        ["kernel 0x2000 to 7", "kernel 0x3000 to 7"]
    );
    assert!(world.record(7, 0, of(Reported::Unmap, 0x4000, 0x2000)).is_empty());
    assert!(world.record(7, 0, of(Reported::Map, u64::MAX, 0x2000)).is_empty());
    assert_eq!(world.record(9, 0, of(Reported::Unbind, 0, 0)).len(), 2);
    assert_eq!(world.lives.kernel.len(), 0);
}

#[test]
fn a_table_of_a_dma_buf_ends_as_a_whole() {
    let mut world = World::new();
    let segment = |address, flags: u8| {
        let one = of(Reported::BufferMap, address, 0x1000).put_u64(record::GROUP, 77);
        one.put_u64(record::BUFFER, 4).put(record::FLAGS, &[flags])
    };
    let group = |kind, address| of(kind, address, 0).put_u64(record::GROUP, 77);
    assert_eq!(
        world.record(1, 0, segment(0x1000, flags::MORE)),
        ["dma-buf peer0 0x1000+0x1000 from 1"]
    );
    assert_eq!(world.record(2, 0, segment(0x9000, 0)).len(), 1);
    assert_eq!(world.record(3, 0, segment(0x4000, 0)).len(), 1);
    assert_eq!(
        world.record(4, 0, group(Reported::BufferUnmap, 0x1000)),
        ["dma-buf 0x1000 to 4", "dma-buf 0x9000 to 4"]
    );
    let release = of(Reported::Release, 0, 0).put_u64(record::BUFFER, 4);
    assert_eq!(world.record(5, 0, release), ["dma-buf 0x4000 to 5"]);
    assert!(world.record(6, 0, group(Reported::Detach, 0)).is_empty());
    assert_eq!(world.lives.kernel.len(), 0);
}

#[test]
fn requests_count_once_the_iommu_has_served_them() {
    let mut world = World::new();
    assert!(world.iommu(1, &attach(5), 0).is_empty());
    assert_eq!(world.iommu(2, &map(5, 0x1000, 0x1fff), 0), ["IOMMU peer0 0x1000+0x1000 from 2"]);
    assert!(world.iommu(3, &map(5, 0x1000, 0x2fff), 4).is_empty());
    assert_eq!(world.iommu(3, &map(6, 0x1000, 0x1fff), 0).len(), 1);
    assert_eq!(world.iommu(4, &map(5, 0x4000, 0x4fff), 0).len(), 1);
    assert_eq!(world.iommu(5, &unmap(5, 0, 0x3fff), 0), ["IOMMU 0x1000 to 5"]);
    assert!(world.iommu(5, &unmap(5, 0x4000, 0x4fff), 5).is_empty());
    assert!(world.iommu(5, &unmap(5, 0x4001, 0x4000), 0).is_empty());
    // The endpoint goes to another domain: nothing is left in its own.
    assert_eq!(world.iommu(6, &attach(6), 0), ["IOMMU 0x4000 to 6"]);
    assert_eq!(world.lives.domains.len(), 1);
    assert_eq!(world.iommu(7, &map(9, 0, 1), 0), ["IOMMU domain 9 0x0+0x2 from 7"]);
}

#[test]
fn more_mappings_than_are_followed_are_counted() {
    let mut world = World::new();
    for number in 0..MAX_LIVE as u64 + 3 {
        world.record(1, 0, of(Reported::Map, number << 12, 0x1000));
    }
    assert_eq!((world.lives.kernel.len(), world.lives.missed()), (MAX_LIVE, 3));
    world.record(2, 0, of(Reported::Unmap, 0, 0x1000));
    assert_eq!(world.record(2, 0, of(Reported::Map, 0, 0x1000)).len(), 1);
}

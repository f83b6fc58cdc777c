//! A trace with an entry of each kind.

#![allow(dead_code, reason = "each test uses what it needs")]

use std::path::Path;
use std::time::Duration;

use device_models::checker::FindingClass;
use device_models::fabric::{CompletionStatus, Kind, Purpose, RouteKind, WitnessInput};
use device_models::witness::{Builder, Bytes};
use guest_protocol::witness as record;
use peerdma_topology::assembly::SystemConfig;
use peerdma_trace::{
    ConfigAccess, Destination, Event, FindingEvent, FunctionName, Header, Payload, TestMark,
    TestResult, TlpRun, TransactionResult, Writer,
};

pub(crate) fn run(sequence: u64, address: u64, length: u64) -> TlpRun {
    TlpRun {
        sequence,
        requester: 0x100,
        function: Some(0),
        kind: Kind::MemoryWrite,
        purpose: Purpose::Data,
        address,
        length,
        tlp_limit: 256,
        outcome: TransactionResult::Delivered {
            route: RouteKind::BusAddress,
            address: 0x40_0000_0000,
            target: Destination::Memory { function: 1, offset: 0x40 },
        },
        verdict: None,
        digest: Some(0x1234_5678),
        data: None,
    }
}

fn witness(kind: WitnessInput, data: &[u8]) -> Event {
    Event::Witness { kind, data: data.to_vec() }
}

/// A witness record: a dma-buf mapped for the peer.
pub(crate) fn mapped() -> Bytes {
    Builder::new(record::Kind::BufferMap)
        .put_u64(record::record::TICKET, 3)
        .put_u64(record::record::TIME, 2_000_000)
        .put_u64(record::record::ADDRESS, 0x40_0000_0000)
        .put_u64(record::record::LENGTH, 0x1_0000)
        .put_u64(record::record::GROUP, 0xffff_8880_0012_3400)
        .put_u64(record::record::BUFFER, 7)
        .put(record::record::FUNCTION, &0x100_u32.to_le_bytes())
        .put(record::record::PID, &812_u32.to_le_bytes())
        .put(record::record::TASK, b"importer")
        .bytes()
}

/// One entry of each kind.
pub(crate) fn events() -> Vec<Event> {
    let failed = TlpRun {
        kind: Kind::MemoryRead,
        requester: 0x0208,
        outcome: TransactionResult::Failed(CompletionStatus::UnsupportedRequest),
        verdict: Some(FindingClass::Stale),
        digest: None,
        ..run(5, 0xdead_b003, 5)
    };
    let access = ConfigAccess { function: 0x100, offset: 4, length: 2, value: 6 };
    let mark = |result| Event::Test(TestMark { name: "unmap race".into(), result });
    vec![
        mark(None),
        Event::ConfigWrite(access),
        Event::ConfigRead(access),
        Event::RegisterWrite { address: 0x41_0000_1008, data: vec![1, 2, 3, 4] },
        Event::RegisterRead { address: 0xc000_1000, data: vec![9; 8] },
        Event::Step { function: 0 },
        Event::Transaction(run(1, 0x40_0000_0ff2, 1000)),
        Event::Transaction(TlpRun {
            purpose: Purpose::DescriptorFetch,
            digest: None,
            data: Some(vec![7; 64]),
            ..run(4, 0x1000, 64)
        }),
        Event::Transaction(failed),
        Event::Finding(FindingEvent {
            class: "iommu.stale".into(),
            note: false,
            transaction: Some(5),
            function: "peer1".into(),
            text: "#5 stale mapping".into(),
        }),
        Event::CpuPush { function: 1 },
        Event::Outside { function: 1, data: vec![1, 2] },
        Event::Unplug { port: 0x20 },
        Event::Plug { port: 0x20 },
        Event::FenceSeen { requester: 0x100 },
        Event::DelayPosted { requester: 0x100, target: None, delay: "pushed".into() },
        witness(WitnessInput::Attach, &9_u64.to_le_bytes()),
        witness(WitnessInput::Drain, &[]),
        witness(WitnessInput::Record, &mapped()),
        witness(WitnessInput::Detach, &[]),
        Event::Other { kind: 16, body: vec![1; 20] },
        mark(Some(TestResult::Failed)),
    ]
}

pub(crate) fn write(path: &Path) {
    let function = |name: &str, requester| FunctionName { name: name.into(), requester };
    let header = Header {
        system: SystemConfig::default(),
        ram: vec![(0, 1 << 20)],
        functions: vec![function("peer0", 0x100), function("peer1", 0x208)],
        payload: Payload::Digest,
        part: false,
    };
    let file = std::fs::File::create(path).unwrap();
    let mut writer = Writer::new(file, &header, Duration::from_secs(1_700_000_000)).unwrap();
    for (event, number) in events().iter().zip(0..) {
        let time = Duration::from_secs(1_700_000_000) + Duration::from_micros(number);
        writer.append(event, time).unwrap();
        writer.flush().unwrap();
    }
    let count = writer.events();
    writer.append(&Event::End { events: count }, Duration::from_secs(1_700_000_001)).unwrap();
    writer.finish().unwrap();
}

/// A trace of many frames, of 20 entries each, with data that is hardly compressed.
pub(crate) fn write_long(path: &Path, frames: usize) {
    let header = Header {
        system: SystemConfig::default(),
        ram: vec![(0, 1 << 20)],
        functions: Vec::new(),
        payload: Payload::Full,
        part: false,
    };
    let file = std::fs::File::create(path).unwrap();
    let mut writer = Writer::new(file, &header, Duration::from_secs(1)).unwrap();
    let mut random = 1_u64;
    for number in 0..frames as u64 * 20 {
        let mut byte = || {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            random.to_be_bytes()[0]
        };
        let data = Some((0..150).map(|_| byte()).collect());
        let run = TlpRun { data, ..run(number, 0x1000, 256) };
        writer.append(&Event::Transaction(run), Duration::from_secs(1)).unwrap();
        if number % 20 == 19 {
            writer.flush().unwrap();
        }
    }
    let events = writer.events();
    writer.append(&Event::End { events }, Duration::from_secs(2)).unwrap();
    writer.finish().unwrap();
}

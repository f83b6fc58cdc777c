use device_models::checker::{Cause, FindingClass, Severity};
use device_models::fabric::{
    CompletionStatus, FunctionId, InterruptSink, Kind as Operation, Purpose, RouteKind,
};
use device_models::iommu::virtio::Request;
use device_models::witness::Builder;
use guest_protocol::witness::record;
use peerdma_topology::assembly::SystemConfig;
use vm_memory::{GuestAddress, GuestMemoryMmap};

use super::*;

struct NoInterrupts;

impl InterruptSink for NoInterrupts {
    fn signal_msi(&mut self, _address: u64, _data: u32) {}
}

/// The two peers of a topology, and the names of all of its functions.
fn peers() -> ([(FunctionId, Bdf); 2], Vec<String>) {
    let ram = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap();
    let system =
        SystemConfig::default().build(&ram, Box::new(NoInterrupts), std::io::empty()).unwrap();
    let names = system.address_map().functions().map(|(_, node)| node.name.to_string()).collect();
    let peer = |name: &str| {
        let function = system.function(name).unwrap();
        (function, system.address_map().node(function).requester)
    };
    ([peer("peer0"), peer("peer1")], names)
}

fn transaction(
    (function, requester): (FunctionId, Bdf),
    sequence: u64,
    address: u64,
) -> Transaction {
    Transaction {
        sequence,
        requester,
        function,
        kind: Operation::MemoryWrite,
        purpose: Purpose::Data,
        address,
        length: 64,
        tlp_limit: 256,
    }
}

fn ram() -> Delivery {
    let target = Some(Target::Memory { memory: 0, offset: 0, function: None });
    Delivery::Delivered { route: RouteKind::Memory, target, address: 0 }
}

fn finding(about: Transaction, has_transaction: bool) -> Finding {
    Finding {
        class: FindingClass::Stale,
        severity: Severity::Finding,
        cause: Cause::Function,
        transaction: has_transaction.then_some(about),
        requester: about.requester,
        function: "peer0".into(),
        explanation: String::new(),
    }
}

fn reported(kind: Kind, of: Bdf, buffer: u64) -> Record {
    Record::of(
        &Builder::new(kind)
            .put_u64(record::ADDRESS, 0x1000)
            .put_u64(record::LENGTH, 0x20)
            .put(record::DIRECTION, &[2])
            .put(record::FUNCTION, &u32::from(of.0).to_le_bytes())
            .put_u64(record::BUFFER, buffer)
            .put(record::PID, &7u32.to_le_bytes())
            .put(record::TASK, b"insmod")
            .bytes(),
    )
}

#[test]
fn the_last_five_events_of_the_function_come_in_their_order() {
    let ([one, other], names) = peers();
    let mut history = History::new(names);
    history.record(&reported(Kind::Bind, one.1, 0));
    history.iommu(3, &Request::Attach { domain: 9, endpoint: one.1.0.into(), flags: 0 });
    history.iommu(4, &Request::Attach { domain: 8, endpoint: other.1.0.into(), flags: 0 });
    let map = |domain| Request::Map { domain, virt_start: 0, virt_end: 1, phys_start: 2, flags: 3 };
    history.iommu(5, &map(9));
    history.iommu(6, &map(8));
    history.record(&reported(Kind::Map, one.1, 0));
    history.record(&reported(Kind::Map, other.1, 0));
    history.request(&transaction(one, 1, 0x1000), &ram());
    history.request(&transaction(other, 2, 0x1000), &ram());
    // It goes on, in two requests, and is one event with the first.
    history.request(&Transaction { length: 448, ..transaction(one, 3, 0x1040) }, &ram());
    history.record(&reported(Kind::Unmap, one.1, 0));
    // The request that is found fault with has been seen.
    let late = transaction(one, 9, 0x5000);
    history.request(&late, &Delivery::Failed(CompletionStatus::UnsupportedRequest));
    let expected = [
        "IOMMU: request #3 ATTACH domain=9 endpoint=0x0100 flags=0x0",
        "IOMMU: request #5 MAP domain=9 virt=0x0..=0x1 phys=0x2 flags=0x3",
        "kernel: mapped 32 bytes at 0x1000 (DMA_FROM_DEVICE) by pid 7 (insmod)",
        "#1 MWr addr=0x1000 len=512 (data) in 3 requests: RAM",
        "kernel: unmapped 32 bytes at 0x1000 (DMA_FROM_DEVICE) by pid 7 (insmod)",
    ];
    assert_eq!(history.before(&finding(late, true)), expected);
    // What is about no request is about a function all the same.
    let all = history.before(&finding(late, false));
    assert_eq!(all.last().unwrap(), "#9 MWr addr=0x5000 len=64 (data): failed (UR)");
    assert_eq!((all.len(), &all[..4]), (EVENTS, &expected.map(String::from)[1..]));
}

#[test]
fn requests_that_do_not_go_on_are_events_of_their_own() {
    let ([one, other], names) = peers();
    let mut history = History::new(names);
    let bar = Target::Memory { memory: 1, offset: 0, function: Some(other.0) };
    let bar = Delivery::Delivered { route: RouteKind::Memory, target: Some(bar), address: 0 };
    history.request(&transaction(one, 1, 0x1000), &ram());
    history.request(&transaction(one, 2, 0x1044), &ram());
    history.request(&transaction(one, 3, 0x1080), &bar);
    let read = Transaction { kind: Operation::MemoryRead, ..transaction(one, 4, 0x10c0) };
    history.request(&read, &bar);
    let before = history.before(&finding(transaction(one, 5, 0), true));
    assert_eq!(
        before,
        [
            "#1 MWr addr=0x1000 len=64 (data): RAM",
            "#2 MWr addr=0x1044 len=64 (data): RAM",
            "#3 MWr addr=0x1080 len=64 (data): BAR of peer1",
            "#4 MRd addr=0x10c0 len=64 (data): BAR of peer1",
        ]
    );
}

#[test]
fn what_happens_to_a_buffer_concerns_those_that_are_attached() {
    let ([one, other], names) = peers();
    let mut history = History::new(names);
    history.record(&reported(Kind::Attach, one.1, 37));
    history.record(&reported(Kind::Attach, other.1, 38));
    history.record(&reported(Kind::Invalidate, Bdf(0xffff), 37));
    let before = |of: (FunctionId, Bdf)| history.before(&finding(transaction(of, 5, 0), true));
    assert_eq!(before(one).last().unwrap(), "kernel: invalidated dma-buf 37 by pid 7 (insmod)");
    assert_eq!(before(other), ["kernel: attached to dma-buf 38 by pid 7 (insmod)"]);
}

#[test]
fn a_guest_that_names_every_function_and_domain_takes_bounded_room() {
    let (_, names) = peers();
    let mut history = History::new(names);
    for number in 0..=u16::MAX {
        history.record(&reported(Kind::Map, Bdf(number), 0));
        history.record(&reported(Kind::Attach, Bdf(1), number.into()));
        let domain = number.into();
        history.iommu(0, &Request::Attach { domain, endpoint: domain, flags: 0 });
    }
    assert!(history.reported.len() <= MAX_RINGS && history.iommu.len() <= MAX_RINGS);
    assert!(history.domains.len() <= MAX_RINGS);
    assert!(history.reported.values().all(|reported| reported.buffers.len() <= MAX_BUFFERS));
}

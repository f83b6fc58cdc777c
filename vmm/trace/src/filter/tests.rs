use super::*;
use crate::event::{
    ConfigAccess, Destination, FindingEvent, FunctionName, Payload, TestResult, TlpRun,
    TransactionResult,
};
use device_models::checker::FindingClass;
use device_models::fabric::{CompletionStatus, Kind, Purpose, RouteKind, WitnessInput};
use device_models::witness::Builder;
use guest_protocol::witness::{self as told, record};
use peerdma_topology::assembly::SystemConfig;

fn header() -> Header {
    let function = |name: &str, requester| FunctionName { name: name.into(), requester };
    Header {
        system: SystemConfig::default(),
        ram: Vec::new(),
        functions: vec![function("peer0", 0x100), function("peer1", 0x200)],
        payload: Payload::None,
        part: false,
    }
}

fn entry(number: u64, event: Event) -> Entry {
    Entry { number, time: Duration::from_millis(1000 + number * 100), interface: 0, event }
}

fn run() -> TlpRun {
    TlpRun {
        sequence: 10,
        requester: 0x100,
        function: Some(0),
        kind: Kind::MemoryWrite,
        purpose: Purpose::Data,
        address: 0x1000,
        length: 0x300,
        tlp_limit: 256,
        outcome: TransactionResult::Delivered {
            route: RouteKind::BusAddress,
            address: 0x9000,
            target: Destination::Memory { function: 1, offset: 0 },
        },
        verdict: Some(FindingClass::Stale),
        digest: None,
        data: None,
    }
}

fn fits(terms: &[&str], entry: &Entry) -> bool {
    let mut context = Context::new(&header(), Duration::from_secs(1));
    context.test = Some("unmap, then write".into());
    Filter::new(terms).unwrap().fits(entry, &context)
}

#[test]
fn terms_choose_transactions() {
    let delivered = entry(3, Event::Transaction(run()));
    for (term, wanted) in [
        ("function=peer0", true),
        ("function=peer1", true),
        ("function=peer2", false),
        ("function=peer2,01:00.0", true),
        ("requester=peer1", false),
        ("requester=01:00.0", true),
        ("target=peer1", true),
        ("target=02:00.0", true),
        ("target=ram", false),
        ("address=0x12ff", true),
        ("address=0x1300", false),
        ("address=0xfff", false),
        ("address=0xf00-0x1000", true),
        ("address=0x9100-", true),
        ("kind=mwr", true),
        ("kind=MRd,finding", false),
        ("kind!=MRd", true),
        ("purpose=data", true),
        ("route=bus-address", true),
        ("status=SC", true),
        ("status=UR,CA", false),
        ("finding=any", true),
        ("finding=iommu", true),
        ("finding=iommu.stale", true),
        ("finding!=any", false),
        ("test=unmap*", true),
        ("test=unmap, then write", true),
        ("test=unmap", false),
        ("time=0.3", true),
        ("time=0.29", false),
        ("time=0-0.3s", true),
        ("time=0.31-", false),
        ("entry=3", true),
        ("entry=-2", false),
        ("tlp=12", true),
        ("tlp=13", false),
        ("tlp=0-10", true),
    ] {
        assert_eq!(fits(&[term], &delivered), wanted, "{term}");
    }
    assert!(fits(&["kind=MWr", "function=peer0"], &delivered));
    assert!(!fits(&["kind=MWr", "function=peer3"], &delivered));
    let outcome = TransactionResult::Failed(CompletionStatus::UnsupportedRequest);
    let failed = entry(4, Event::Transaction(TlpRun { outcome, verdict: None, ..run() }));
    for (term, wanted) in [
        ("status=UR", true),
        ("route=bus-address", false),
        ("finding=any", false),
        ("target=peer1", false),
        ("address=0x9000", false),
    ] {
        assert_eq!(fits(&[term], &failed), wanted, "{term}");
    }
}

#[test]
fn terms_choose_other_entries() {
    let finding = |class: &str, note| {
        Event::Finding(FindingEvent {
            class: class.into(),
            note,
            transaction: Some(7),
            function: "peer1".into(),
            text: "x".into(),
        })
    };
    let config = ConfigAccess { function: 0x200, offset: 4, length: 2, value: 6 };
    let record = |kind| {
        let data = Builder::new(kind)
            .put_u64(record::ADDRESS, 0x7000)
            .put_u64(record::LENGTH, 0x1000)
            .put_u64(record::BUFFER, 7)
            .put(record::FUNCTION, &0x200_u32.to_le_bytes())
            .bytes();
        Event::Witness { kind: WitnessInput::Record, data: data.to_vec() }
    };
    let mapped = || record(told::Kind::BufferMap);
    for (event, term, wanted) in [
        (finding("pci.no-target", false), "kind=finding", true),
        (finding("pci.no-target", true), "kind=finding", false),
        (finding("pci.no-target", true), "kind=note", true),
        (finding("pci.no-target", false), "finding=pci", true),
        (finding("pci.no-target", false), "function=02:00.0", true),
        (finding("pci.no-target", false), "tlp=7", true),
        (Event::ConfigWrite(config), "function=peer1", true),
        (Event::ConfigWrite(config), "function=peer0", false),
        (Event::Step { function: 1 }, "function=peer1", true),
        (mapped(), "kind=witness", true),
        (mapped(), "record=buffer-map", true),
        (mapped(), "record=map", false),
        (mapped(), "buffer=7", true),
        (mapped(), "buffer=8-", false),
        (mapped(), "function=peer1", true),
        (mapped(), "function=peer0", false),
        (mapped(), "address=0x7fff", true),
        (mapped(), "address=0x8000", false),
        // Where its address is that of a fence.
        (record(told::Kind::FenceAdd), "address=0x7fff", false),
        (Event::Step { function: 9 }, "function=peer1", false),
        (Event::RegisterWrite { address: 0x1000, data: vec![0; 4] }, "address=0x1003", true),
        (Event::RegisterWrite { address: 0x1000, data: vec![0; 4] }, "address=0x1004", false),
    ] {
        assert_eq!(fits(&[term], &entry(1, event)), wanted, "{term}");
    }
}

#[test]
fn a_test_reaches_from_its_begin_to_its_end() {
    let mut context = Context::new(&header(), Duration::ZERO);
    let mark = |result| entry(1, Event::Test(TestMark { name: "a".into(), result }));
    let filter = Filter::new(&["test=a"]).unwrap();
    let other = entry(1, Event::Step { function: 0 });
    let mut seen = Vec::new();
    for entry in [&other, &mark(None), &other, &mark(Some(TestResult::Passed)), &other] {
        context.follow(entry);
        seen.push(filter.fits(entry, &context));
        context.leave(entry);
    }
    assert_eq!(seen, [false, true, true, true, false]);
}

#[test]
fn a_term_that_makes_no_sense_is_an_error() {
    for (term, what) in [
        ("peer0", "a filter is KEY=VALUE"),
        ("colour=red", "there is no key \"colour\""),
        ("kind=TLP", "there is no kind \"TLP\"; there are MRd"),
        ("purpose=zz", "there is no purpose \"zz\"; there are descriptor, data"),
        ("route=nowhere", "there is no route \"nowhere\"; there are memory"),
        ("status=OK", "there is no status \"OK\"; there are SC, UR"),
        ("finding=iommu.st", "there is no class or group \"iommu.st\""),
        ("function=", "there is no value"),
        ("address=x", "is not a number or a range"),
        ("address=", "is not a number or a range"),
        ("address=-", "is not a number or a range"),
        ("address=5-4", "is not a number or a range"),
        ("record=mapped", "there is no witness record \"mapped\"; there are loaded, map"),
        ("buffer=x", "is not a number or a range"),
        ("time=nan", "is not a number of seconds"),
        ("time=1e40", "is not a number of seconds"),
    ] {
        let error = Filter::new(&[term]).unwrap_err().to_string();
        assert!(error.contains(what), "{error}");
    }
    // Every key that is documented is one.
    for (key, _) in KEYS {
        let value = match *key {
            "kind" => "MRd",
            "record" => "map",
            "purpose" => "DATA",
            "route" => "memory",
            "status" => "sc",
            "finding" => "iommu",
            _ => "1",
        };
        assert!(Filter::new(&[format!("{key}={value}")]).is_ok(), "{key}");
    }
    assert!(KINDS.iter().all(|kind| Filter::new(&[format!("kind={kind}")]).is_ok()));
}

#[test]
fn a_function_that_a_trace_has_not_got_is_an_error() {
    let check = |term: &str| {
        let filter = Filter::new(&[term]).unwrap();
        filter.check(&header()).map_err(|error| error.to_string())
    };
    for term in ["function=peer0", "requester!=peer1", "target=ram", "target=05:00.0", "kind=MRd"] {
        assert_eq!(check(term), Ok(()), "{term}");
    }
    for term in ["function=peer9", "requester=peer0,peer9", "requester=ram"] {
        let error = check(term).unwrap_err();
        assert!(error.contains("the trace has no \"") && error.contains("peer0, "), "{error}");
    }
}

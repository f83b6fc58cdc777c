use device_models::fabric::{CompletionStatus, Purpose, RouteKind, WitnessInput};
use proptest::prelude::*;

use device_models::checker::FindingClass;
use device_models::fabric::Kind;

use super::*;
use crate::event::{
    ConfigAccess, Destination, Event, FindingEvent, TestMark, TestResult, TlpRun, TransactionResult,
};
use crate::names::{self, PURPOSES, ROUTES, STATUSES};

fn encoded(number: u64, event: &Event) -> Vec<u8> {
    let mut bytes = Vec::new();
    put(number, event, &mut bytes);
    bytes
}

fn run() -> impl Strategy<Value = TlpRun> {
    let outcome = prop_oneof![
        (0..STATUSES.len()).prop_map(|at| TransactionResult::Failed(STATUSES[at].0)),
        (0..ROUTES.len(), any::<u64>(), destination()).prop_map(|(route, address, target)| {
            TransactionResult::Delivered { route: ROUTES[route], address, target }
        }),
    ];
    let classes = FindingClass::ALL.len();
    let whole = (any::<u64>(), any::<u16>(), any::<bool>(), 0..PURPOSES.len());
    let place = (any::<u64>(), prop_oneof![0..10_000_u64, any::<u64>()], 6..13_u32);
    let kept = (
        proptest::option::of(0..classes),
        any::<Option<u32>>(),
        proptest::option::of(proptest::collection::vec(any::<u8>(), 0..64)),
        any::<Option<u16>>(),
    );
    (whole, place, outcome, kept).prop_map(|(whole, place, outcome, kept)| {
        let (sequence, requester, write, purpose) = whole;
        let (address, length, limit) = place;
        let (class, digest, data, function) = kept;
        TlpRun {
            sequence,
            requester,
            function: function.filter(|number| *number != u16::MAX),
            kind: if write { Kind::MemoryWrite } else { Kind::MemoryRead },
            purpose: PURPOSES[purpose],
            address,
            length,
            // 0: not known.
            tlp_limit: if limit < 7 { 0 } else { 1 << limit },
            outcome,
            verdict: class.map(|class| FindingClass::ALL[class]),
            digest,
            data: data.map(|mut data| {
                data.truncate(usize::try_from(length).unwrap_or(usize::MAX));
                data
            }),
        }
    })
}

fn destination() -> impl Strategy<Value = Destination> {
    prop_oneof![
        Just(Destination::Window),
        any::<u64>().prop_map(|offset| Destination::Ram { offset }),
        any::<(u16, u64)>().prop_map(|(function, offset)| Destination::Memory { function, offset }),
        any::<(u16, u8, u64)>().prop_map(|(function, bar, offset)| Destination::Registers {
            function,
            bar,
            offset
        }),
    ]
}

fn event() -> impl Strategy<Value = Event> {
    let config = (
        any::<u16>(),
        0..1024_u16,
        prop_oneof![Just((0, 1)), Just((3, 1)), Just((2, 2)), Just((0, 4))],
        any::<u32>(),
    )
        .prop_map(|(function, dword, (skip, length), value)| ConfigAccess {
            function,
            offset: dword * 4 + skip,
            length,
            value,
        });
    let register = (any::<u64>(), proptest::collection::vec(any::<u8>(), 1..9));
    let function = (0..=u32::MAX).prop_map(|number| number as usize);
    prop_oneof![
        4 => run().prop_map(Event::Transaction),
        1 => config.clone().prop_map(Event::ConfigWrite),
        1 => config.prop_map(Event::ConfigRead),
        1 => register.clone().prop_map(|(address, data)| Event::RegisterWrite { address, data }),
        1 => register.prop_map(|(address, data)| Event::RegisterRead { address, data }),
        1 => function.clone().prop_map(|function| Event::Step { function }),
        1 => function.clone().prop_map(|function| Event::CpuPush { function }),
        1 => (function, any::<Vec<u8>>())
            .prop_map(|(function, data)| Event::Outside { function, data }),
        1 => any::<u16>().prop_map(|port| Event::Unplug { port }),
        1 => any::<u16>().prop_map(|port| Event::Plug { port }),
        1 => any::<u16>().prop_map(|requester| Event::FenceSeen { requester }),
        1 => (any::<u16>(), any::<Option<u16>>(), ".*").prop_map(|(requester, target, delay)| {
            Event::DelayPosted { requester, target, delay }
        }),
        1 => (0..FindingClass::ALL.len(), any::<bool>(), any::<Option<u64>>(), ".*", ".*").prop_map(
            |(class, note, transaction, function, text)| Event::Finding(FindingEvent {
                class: FindingClass::ALL[class].name().to_owned(),
                note,
                transaction: transaction.filter(|number| *number != u64::MAX),
                function,
                text,
            })
        ),
        1 => (".*", 0..4_usize).prop_map(|(name, result)| Event::Test(TestMark {
            name,
            result: [
                None,
                Some(TestResult::Passed),
                Some(TestResult::Failed),
                Some(TestResult::Skipped),
            ][result],
        })),
        1 => (0..WitnessInput::ALL.len(), proptest::collection::vec(any::<u8>(), 128)).prop_map(
            |(kind, mut data)| {
                let kind = WitnessInput::ALL[kind];
                data.truncate(names::witness_bytes(kind));
                Event::Witness { kind, data }
            }
        ),
        1 => (16..0xfe_u8, any::<Vec<u8>>()).prop_map(|(kind, body)| Event::Other { kind, body }),
        1 => any::<u64>().prop_map(|entries| Event::Lost { entries }),
        1 => any::<u64>().prop_map(|events| Event::End { events }),
        1 => any::<u64>().prop_map(|events| Event::Cut { events }),
    ]
}

proptest! {
    #[test]
    fn what_is_put_is_taken(number: u64, event in event()) {
        let bytes = encoded(number, &event);
        let (header, again) = take(&bytes).unwrap();
        prop_assert_eq!(header.number, number);
        match (&event, &again) {
            // Alignment is not said of a run of no bytes whose address is at the end of all addresses.
            (Event::Transaction(run), Event::Transaction(again)) => prop_assert_eq!(run, again),
            _ => prop_assert_eq!(&event, &again),
        }
    }

    #[test]
    fn an_entry_that_is_cut_or_flipped_gives_an_error_or_another_entry(
        event in event(),
        cut: proptest::sample::Index,
        flip: proptest::sample::Index,
        bit in 0..8_u8,
    ) {
        let whole = encoded(7, &event);
        let part = &whole[..cut.index(whole.len())];
        if let Ok((_, shorter)) = take(part) {
            prop_assert_ne!(&shorter, &event);
        }
        let mut flipped = whole.clone();
        flipped[flip.index(whole.len())] ^= 1 << bit;
        // The frame's checksum finds this; here only nothing may go wrong.
        if let Ok((_, Event::Transaction(run))) = take(&flipped) {
            prop_assert!(run.tlps().take(10).all(|(_, _, length)| length <= 4096));
        }
    }

    #[test]
    fn any_bytes_give_an_error_or_an_entry(bytes: Vec<u8>, kind: u8) {
        let _ = take(&bytes);
        let mut bytes = bytes;
        bytes.splice(0..0, [VERSION, kind]);
        let _ = take(&bytes);
    }

    #[test]
    fn tlps_are_those_that_the_device_models_count(
        address in 0..u64::MAX - (1 << 24),
        length in 1..100_000_u64,
        limit in 7..13_u32,
    ) {
        let run = sample(address, length, 1 << limit);
        let tlps: Vec<_> = run.tlps().collect();
        prop_assert_eq!(tlps.len() as u64, run.tlp_count().unwrap());
        let mut next = address;
        for (index, (sequence, start, bytes)) in tlps.iter().enumerate() {
            prop_assert_eq!((*sequence, *start), (5 + index as u64, next));
            let last = next + u64::from(*bytes) - 1;
            prop_assert_eq!(next >> limit, last >> limit, "a TLP crosses a boundary");
            next = last + 1;
        }
        prop_assert_eq!(next, address + length);
    }
}

fn sample(address: u64, length: u64, tlp_limit: u32) -> TlpRun {
    TlpRun {
        sequence: 5,
        requester: 0x100,
        function: Some(3),
        kind: Kind::MemoryWrite,
        purpose: Purpose::Data,
        address,
        length,
        tlp_limit,
        outcome: TransactionResult::Delivered {
            route: RouteKind::BusAddress,
            address,
            target: Destination::Memory { function: 4, offset: 0x40 },
        },
        verdict: None,
        digest: Some(0x1234_5678),
        data: None,
    }
}

#[test]
fn an_entry_lies_in_the_file_as_the_documentation_says() {
    let run = TlpRun { verdict: Some(FindingClass::Stale), ..sample(0x1000_0ff0, 0x40, 256) };
    let bytes = encoded(0x0102, &Event::Transaction(run));
    let wanted = [
        // Version, kind, class (iommu.stale), flags (digest), number.
        "01 01 0012 00000001 0000000000000102",
        // Number of the first TLP, bytes, TLPs, limit, status, route, purpose, kind of target, BAR, dwords.
        "0000000000000005 0000000000000040 00000002 0100 00 03 01 02 00 03",
        // Requester and target by number, address and offset there, digest.
        "0003 0004 0000000010000ff0 0000000000000040 12345678",
        // MWr, 3 dwords, 4 dwords of data: the first of two TLPs ends at the multiple of 256.
        "40000004 010005ff 10000ff0",
    ];
    let digits: String = wanted.concat().replace(' ', "");
    let wanted: Vec<u8> = (0..digits.len() / 2)
        .map(|at| u8::from_str_radix(&digits[at * 2..at * 2 + 2], 16).unwrap())
        .collect();
    assert_eq!(bytes, wanted);
}

#[test]
fn what_does_not_fit_together_is_refused() {
    let good = encoded(1, &Event::Transaction(sample(0x1000, 512, 128)));
    assert!(take(&good).is_ok());
    // The number of TLPs, the limit, status, route, purpose, kind of target, dwords, and the TLP's type, length, tag.
    for (at, value) in [
        (35, 5),
        (36, 3),
        (37, 1),
        (39, 9),
        (40, 9),
        (41, 4),
        (43, 4),
        (68, 0x44),
        (71, 1),
        (74, 9),
    ] {
        let mut bytes = good.clone();
        bytes[at] = value;
        assert!(take(&bytes).is_err(), "byte {at} = {value}");
    }
    let status = TlpRun {
        outcome: TransactionResult::Failed(CompletionStatus::CompleterAbort),
        ..sample(0x1000, 512, 128)
    };
    let mut bytes = encoded(1, &Event::Transaction(status));
    bytes[38] = 2;
    assert_eq!(take(&bytes).unwrap_err(), Invalid::Field("a completion status"));
    let mut bytes = encoded(1, &Event::Step { function: 1 });
    bytes[0] = VERSION + 1;
    assert_eq!(take(&bytes).unwrap_err(), Invalid::Version(VERSION + 1));
    bytes[0] = VERSION;
    bytes.push(0);
    assert_eq!(take(&bytes).unwrap_err(), Invalid::TooLong);
}

#[test]
fn a_cpu_accesses_no_more_than_8_bytes() {
    for (length, possible) in [(0, false), (1, true), (8, true), (9, false), (70_000, false)] {
        let event = Event::RegisterWrite { address: 0xc000_0000, data: vec![0xff; length] };
        assert_eq!(take(&encoded(1, &event)).is_ok(), possible, "{length}");
    }
}

//! Traces that no recorder wrote: an error that says where, and never a panic, a hang, or memory out of proportion.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::io::{BufRead, BufReader, Cursor, Read, Write};
use std::time::Duration;

use device_models::fabric::{Kind, Purpose, RouteKind};
use peerdma_topology::assembly::SystemConfig;
use peerdma_trace::{
    Destination, Ending, Event, FunctionName, Header, Payload, Reader, Session, TlpRun, TraceError,
    TransactionResult, Writer,
};
use proptest::prelude::*;
use proptest::sample;

fn header() -> Header {
    let function = |name: &str, requester| FunctionName { name: name.into(), requester };
    Header {
        system: SystemConfig::default(),
        ram: vec![(0, 1 << 20)],
        functions: vec![function("peer0", 0x100), function("peer1", 0x200)],
        payload: Payload::Digest,
        part: false,
    }
}

fn run(sequence: u64) -> Event {
    Event::Transaction(TlpRun {
        sequence,
        requester: 0x100,
        function: Some(0),
        kind: Kind::MemoryWrite,
        purpose: Purpose::Data,
        address: 0x1000 + sequence * 64,
        length: 64,
        tlp_limit: 256,
        outcome: TransactionResult::Delivered {
            route: RouteKind::BusAddress,
            address: 0x1000,
            target: Destination::Memory { function: 1, offset: 0 },
        },
        verdict: None,
        digest: Some(7),
        data: None,
    })
}

/// A trace with this many entries in each of its frames, and its frames.
fn trace(frames: usize, entries: usize) -> (Vec<u8>, Vec<Vec<u8>>) {
    let mut writer = Writer::new(Vec::new(), &header(), Duration::from_secs(1)).unwrap();
    for frame in 0..frames {
        for entry in 0..entries {
            let number = (frame * entries + entry) as u64;
            writer.append(&run(number), Duration::from_secs(2)).unwrap();
        }
        writer.flush().unwrap();
    }
    let events = writer.events();
    writer.append(&Event::End { events }, Duration::from_secs(3)).unwrap();
    let bytes = writer.finish().unwrap();
    let mut parts = Vec::new();
    let mut rest = &bytes[..];
    while !rest.is_empty() {
        let size = zstd::zstd_safe::find_frame_compressed_size(rest).unwrap();
        let (part, behind) = rest.split_at(size);
        parts.push(part.to_vec());
        rest = behind;
    }
    (bytes, parts)
}

fn read_all(mut reader: Reader<impl BufRead>) -> Result<(usize, Option<Ending>), TraceError> {
    let mut count = 0;
    for entry in reader.by_ref() {
        entry?;
        count += 1;
    }
    assert!(reader.next().is_none());
    Ok((count, reader.ending().cloned()))
}

/// Reads all there is, once as it is and once unpacked ahead: both find the same.
fn read(bytes: &[u8]) -> Result<(usize, Option<Ending>), TraceError> {
    let plain = Reader::new(bytes).and_then(read_all);
    let ahead = Reader::ahead(Cursor::new(bytes.to_vec())).and_then(read_all);
    match (&plain, &ahead) {
        (Ok(plain), Ok(ahead)) => assert_eq!(plain, ahead),
        (plain, ahead) => assert_eq!(
            plain.as_ref().map_err(ToString::to_string),
            ahead.as_ref().map_err(ToString::to_string)
        ),
    }
    plain
}

fn unpack(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    zstd::stream::read::Decoder::new(bytes).unwrap().read_to_end(&mut out).unwrap();
    out
}

fn pack(bytes: &[u8]) -> Vec<u8> {
    zstd::stream::encode_all(bytes, 1).unwrap()
}

/// Replays it in steps, and looks at everything where it ends.
fn step_through(reader: Reader<Cursor<Vec<u8>>>) {
    let Ok(mut session) = Session::new(reader) else { return };
    while let Ok(Some(_)) = session.step() {}
    assert!(!session.topology().is_empty());
    for name in session.functions() {
        assert!(session.registers(&name).is_some() && session.mappings(&name, 0).is_some());
    }
    let _ = session.finish();
}

#[test]
fn a_trace_reads_packed_and_unpacked() {
    let (bytes, parts) = trace(3, 10);
    // The header's frame, three of entries, one with the end mark, and the seek table.
    assert_eq!(parts.len(), 6);
    assert_eq!(read(&bytes).unwrap(), (31, Some(Ending::Complete)));
    assert_eq!(read(&unpack(&bytes)).unwrap(), (31, Some(Ending::Complete)));
    let table = zeekstd::SeekTable::from_seekable(&mut Cursor::new(&bytes)).unwrap();
    assert_eq!(table.num_frames(), 5);
    assert_eq!(table.size_decomp(), unpack(&bytes).len() as u64);
}

#[test]
fn frames_that_are_missing_or_in_another_order_are_noticed() {
    let (_, parts) = trace(4, 10);
    let assemble =
        |order: &[usize]| order.iter().flat_map(|&at| parts[at].clone()).collect::<Vec<_>>();
    let error = |order: &[usize]| read(&assemble(order)).unwrap_err().to_string();
    assert_eq!(read(&assemble(&[0, 1, 2, 3, 4, 5, 6])).unwrap().0, 41);
    // The second frame of entries begins behind the header's and the first.
    let second = parts[0].len() + parts[1].len();
    for order in [vec![0, 1, 3, 4, 5, 6], vec![0, 1, 3, 2, 4, 5, 6], vec![0, 1, 3]] {
        let error = error(&order);
        assert!(error.contains("entry 21 comes where 11 must"), "{error}");
        assert!(error.starts_with("entry 11, at byte "), "{error}");
        assert!(error.contains(&format!("in the frame at byte {second}")), "{error}");
    }
    assert!(error(&[0, 1, 2, 2, 3]).contains("entry 11 comes where 21 must"));
    assert!(error(&[0, 0]).contains("a second section begins"));
    assert!(error(&[0, 1, 2, 3, 4, 5, 2]).contains("behind the end mark"));
    assert!(matches!(Reader::new(&assemble(&[1, 2])[..]), Err(TraceError::NotATrace(_))));
    // Without the seek table nothing of what was recorded is missing.
    assert_eq!(read(&assemble(&[0, 1, 2, 3, 4, 5])).unwrap(), (41, Some(Ending::Complete)));
    let truncated = read(&assemble(&[0, 1, 2, 3, 4])).unwrap();
    assert!(matches!(truncated, (40, Some(Ending::Truncated { .. }))), "{truncated:?}");
}

#[test]
fn every_cut_reads_to_its_end_and_says_so() {
    let (bytes, parts) = trace(3, 10);
    let whole: usize = parts[..5].iter().map(Vec::len).sum();
    for cut in 0..bytes.len() {
        match read(&bytes[..cut]) {
            Err(TraceError::NotATrace(_)) => assert!(cut < 2, "{cut}"),
            Err(TraceError::CutInHeader) => assert!(cut < parts[0].len(), "{cut}"),
            Err(error) => panic!("cut at {cut}: {error}"),
            Ok((count, Some(Ending::Complete))) => assert!(cut >= whole && count == 31, "{cut}"),
            Ok((31, Some(Ending::Truncated { place, .. }))) => {
                // The end mark is there, but not the end of its frame.
                assert!(cut < whole && place.entry == 32, "{cut}");
            }
            Ok((count, Some(Ending::Truncated { place, .. }))) => {
                // Whatever frame is whole is read; of the next one perhaps a part.
                let flushed = |frames: usize| parts[..=frames].iter().map(Vec::len).sum::<usize>();
                let frames = (0..=3).rev().find(|&frames| cut >= flushed(frames));
                assert!(count >= frames.unwrap_or(0) * 10, "{cut}: {count}");
                assert_eq!(place.entry, count as u64 + 1);
                assert!(place.frame <= cut as u64);
            }
            Ok(other) => panic!("cut at {cut}: {other:?}"),
        }
    }
}

#[test]
fn a_flipped_bit_is_noticed_wherever_it_is() {
    let (bytes, parts) = trace(2, 10);
    let table = parts.last().unwrap().len();
    let mut damaged = 0;
    for at in 0..bytes.len() - table {
        for bit in [0, 3, 7] {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << bit;
            match read(&flipped) {
                Err(_) => damaged += 1,
                Ok((_, Some(Ending::Truncated { .. }))) => {}
                // Reserved bits of a frame's header may be anything.
                Ok((count, ending)) => assert_eq!((count, ending), (21, Some(Ending::Complete))),
            }
        }
    }
    assert!(damaged > bytes.len(), "{damaged} of {}", bytes.len() * 3);
}

#[test]
fn lengths_are_not_believed() {
    let plain = unpack(&trace(1, 3).0);
    // The last block is the end mark; its length stands at its beginning.
    let length = u32::from_be_bytes(*plain.last_chunk().unwrap()) as usize;
    let at = plain.len() - length + 4;
    for (wrong, what) in [
        (0, "is not possible"),
        (8, "is not possible"),
        (13, "is not possible"),
        (u32::MAX - 3, "is longer than 262144"),
        (1 << 19, "is longer than 262144"),
    ] {
        let mut bytes = plain.clone();
        bytes[at..at + 4].copy_from_slice(&u32::to_be_bytes(wrong));
        for bytes in [pack(&bytes), bytes] {
            let error = read(&bytes).unwrap_err().to_string();
            assert!(error.contains(what), "{wrong}: {error}");
        }
    }
    // One that the file does not have is the end of the file.
    let mut bytes = plain;
    bytes[at..at + 4].copy_from_slice(&u32::to_be_bytes(1 << 17));
    assert!(matches!(read(&bytes).unwrap(), (3, Some(Ending::Truncated { .. }))));
}

#[test]
fn a_file_that_unpacks_to_gigabytes_is_not_unpacked_to_its_end() {
    // A megabyte of zeros, many times: 60 bytes each.
    let one = pack(&vec![0; 1 << 20]);
    let mut bomb = trace(1, 3).1[0].clone();
    (0..4096).for_each(|_| bomb.write_all(&one).unwrap());
    let error = read(&bomb).unwrap_err().to_string();
    assert!(error.contains("a block of 0 bytes is not possible"), "{error}");
    assert!(matches!(Reader::new(&one[..]), Err(TraceError::NotATrace(_))));
}

#[test]
fn another_version_is_named() {
    let mut plain = unpack(&trace(1, 1).0);
    let tags = b"\0\x0c\0\x08peerdma\0\0\0\0\0";
    let at = plain.windows(16).position(|window| window == tags).unwrap() + 16;
    assert_eq!(plain[at], 1);
    plain[at] = 2;
    let error = Reader::new(&pack(&plain)[..]).unwrap_err().to_string();
    assert_eq!(
        error,
        "the trace has format version 2, this program reads version 1; record it again"
    );
    for (other, what) in [
        (&b""[..], "it is empty"),
        (b"hello", "it is not a zstd file"),
        (b"{\"format\":", "JSON format of an earlier version"),
        (b"\x28\xb5\x2f\xfd", "the trace is cut within its header"),
        (b"\x0a\x0d\x0d\x0a\0\0", "the trace is cut within its header"),
        (&pack(b"hello"), "this is not a trace made with --record: a block is cut"),
        (&pack(b"hello, world"), "this is not a trace made with --record"),
        (&pack(b""), "this is not a trace made with --record: it is empty"),
    ] {
        let error = Reader::new(other).unwrap_err().to_string();
        assert!(error.contains(what), "{error}");
    }
}

#[test]
fn a_cut_within_the_header_is_named() {
    let (bytes, parts) = trace(1, 10);
    let header = parts[0].len();
    let plain = unpack(&parts[0]);
    let packed = (2..header).map(|cut| &bytes[..cut]);
    for cut in packed.chain((4..plain.len()).map(|cut| &plain[..cut])) {
        match Reader::new(cut).map(Iterator::collect::<Vec<_>>) {
            Err(TraceError::CutInHeader) => {}
            // Only the checksum of the header's frame is missing.
            Ok(entries) if cut.len() + 8 > header => assert!(entries.is_empty()),
            other => panic!("{} of {header} bytes: {other:?}", cut.len()),
        }
    }
    assert!(Reader::new(&bytes[..header]).is_ok() && Reader::new(&plain[..]).is_ok());
}

#[test]
fn the_place_of_damage_is_in_the_frame_that_is_damaged() {
    let (bytes, parts) = trace(4, 100);
    let mut begin = 0;
    // The header's frame gives no place, and behind the last comes the seek table.
    for (index, part) in parts.iter().enumerate().take(parts.len() - 1) {
        for at in (4..part.len()).filter(|_| index > 0) {
            let mut damaged = bytes.clone();
            damaged[begin + at..].iter_mut().take(8).for_each(|byte| *byte ^= 0xff);
            match read(&damaged) {
                Err(TraceError::Damaged { place, .. }) => {
                    assert_eq!(place.frame, begin as u64, "byte {at} of frame {index}");
                }
                // An end mark that is there may have lost its checksum, or the file ends in a frame.
                Ok((_, ending)) => assert_ne!(ending, None, "byte {at} of frame {index}"),
                Err(error) => panic!("byte {at} of frame {index}: {error}"),
            }
        }
        begin += part.len();
    }
}

#[test]
fn what_is_compressed_takes_little_room() {
    let (bytes, _) = trace(10, 10_000);
    let each = bytes.len() as f64 / 100_000.0;
    assert!(each < 24.0, "{each} bytes an entry");
}

proptest! {
    #[test]
    fn any_change_of_an_unpacked_trace_gives_entries_or_an_error(
        changes in proptest::collection::vec((any::<sample::Index>(), any::<u8>()), 1..8),
        cut: sample::Index,
    ) {
        let mut plain = unpack(&trace(1, 20).0);
        for (at, value) in changes {
            let at = at.index(plain.len());
            plain[at] = value;
        }
        let _ = read(&plain);
        plain.truncate(plain.len() / 2 + cut.index(plain.len() / 2));
        let _ = read(&plain);
        if let Ok(reader) = Reader::new(BufReader::new(Cursor::new(plain.clone()))) {
            let _ = peerdma_trace::replay(reader);
        }
        if let Ok(reader) = Reader::new(Cursor::new(plain)) {
            step_through(reader);
        }
    }
}

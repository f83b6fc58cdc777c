//! Perfetto's own messages read an export: tracks, nested slices, instants, and flows from a doorbell to the interrupt.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![cfg(feature = "perfetto")]

mod bench;

use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use bench::{Bench, DATA, descriptor, open};
use device_models::endpoint::peer::regs::{flags, opcode};
use device_models::fabric::WitnessInput;
use device_models::witness::Builder;
use guest_protocol::witness::{Kind, record};
use peerdma_topology::assembly::SystemConfig;
use peerdma_trace::{
    Context, Entry, Event, FunctionName, Header, Payload, Perfetto, RecordOptions, TestMark,
    TestResult,
};

/// Prints a line for each packet, from the messages that the Python package `perfetto` brings.
const SCRIPT: &str = r#"
import sys
try:
    from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import Trace
except ImportError:
    print("SKIP")
    sys.exit()
trace = Trace()
trace.ParseFromString(open(sys.argv[1], "rb").read())
tracks = {}
events = []
for packet in trace.packet:
    assert packet.trusted_packet_sequence_id == 1
    if packet.HasField("track_descriptor"):
        track = packet.track_descriptor
        assert track.uuid and track.uuid not in tracks
        parent = tracks[track.parent_uuid] + " > " if track.parent_uuid else ""
        tracks[track.uuid] = parent + track.name
    else:
        assert packet.track_event.track_uuid in tracks
        events.append(packet)
# Perfetto sorts by time, and leaves what has the same as it is in the file.
events.sort(key=lambda packet: packet.timestamp)
depths = dict.fromkeys(tracks, 0)
for packet in events:
    track = packet.track_event.track_uuid
    depths[track] += {1: 1, 2: -1, 3: 0}[packet.track_event.type]
    assert depths[track] in (0, 1), (tracks[track], packet)
if "lanes" in sys.argv:
    events = [packet for packet in events if packet.track_event.track_uuid >> 32]
for packet in events:
    event = packet.track_event
    flows = ["+%d" % flow for flow in event.flow_ids]
    flows += ["-%d" % flow for flow in event.terminating_flow_ids]
    kind = {1: "begin", 2: "end", 3: "instant"}[event.type]
    print(packet.timestamp, tracks[event.track_uuid], kind, event.name, *flows)
"#;

/// What the script prints of an export; none where the package is missing.
fn parsed(export: &[u8], which: &str) -> Option<String> {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().write_all(export).unwrap();
    let mut command = Command::new("python3");
    let output = command.arg("-c").arg(SCRIPT).arg(file.path()).arg(which).output();
    let text = output.map(|output| {
        let err = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{err}");
        String::from_utf8(output.stdout).unwrap()
    });
    match text.as_deref() {
        Err(_) | Ok("SKIP\n") => {
            let name = std::thread::current().name().unwrap_or("test").to_owned();
            let line = format!("SKIP {name}: no python3 with the package perfetto\n");
            std::io::stderr().write_all(line.as_bytes()).unwrap();
            None
        }
        Ok(_) => text.ok(),
    }
}

fn export(trace: &Path) -> Vec<u8> {
    let mut reader = open(trace);
    let names = reader.interfaces();
    let mut context = Context::new(reader.header(), reader.begun());
    let mut perfetto = Perfetto::new(Vec::new(), reader.header(), &names).unwrap();
    for entry in reader.by_ref() {
        let entry = entry.unwrap();
        context.follow(&entry);
        perfetto.add(&entry, &context, true).unwrap();
        context.leave(&entry);
    }
    perfetto.finish().unwrap()
}

/// The picture of an export, where there is something to draw it with.
fn draw(export: &[u8]) {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../ci/draw-export.py");
    let python = |arguments: &[&str]| Command::new("python3").args(arguments).output().unwrap();
    if !Path::new(script).exists() || !python(&["-c", "import matplotlib"]).status.success() {
        let line = "SKIP the picture of an export: no python3 with the package matplotlib\n";
        std::io::stderr().write_all(line.as_bytes()).unwrap();
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (file, picture) = (folder.path().join("x"), folder.path().join("x.svg"));
    std::fs::write(&file, export).unwrap();
    let output = python(&[script, file.to_str().unwrap(), picture.to_str().unwrap()]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let picture = std::fs::read_to_string(picture).unwrap();
    for part in ["<!-- peer0 -->", "<!-- doorbell (register write) -->", "<!-- interrupts -->"] {
        assert!(picture.contains(part), "{part}");
    }
}

#[test]
fn a_flow_leads_from_a_doorbell_to_its_interrupt() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace");
    let mut bench = Bench::new(&path, RecordOptions::default());
    bench.enable_interrupts();
    let memory = bench.bar("peer1", 2);
    let mark = |result| TestMark { name: "a".into(), result };
    bench.recording.mark(mark(None));
    let copy = descriptor(opcode::COPY, flags::INTERRUPT, DATA, memory, 64);
    // A register of the other peer does not ring this one's.
    let other = bench.bar("peer1", 0) + 0x28;
    bench.run_and(&[copy], |system| {
        system.mmio_write(other, &[1; 4]);
    });
    bench.recording.mark(mark(Some(TestResult::Passed)));
    bench.recording.finish().unwrap();
    let Some(text) = parsed(&export(&path), "all") else { return };
    let lines: Vec<_> = text.lines().map(|line| line.split_once(' ').unwrap().1).collect();
    let begin = lines.iter().position(|line| *line == "tests begin a").unwrap();
    let other = lines.iter().position(|line| line.contains("register write to peer1 ")).unwrap();
    let doorbell = lines[other - 1].strip_prefix("cpu instant register write to peer0 +").unwrap();
    assert!(begin < other, "{text}");
    let about: Vec<_> = lines.iter().filter(|line| line.ends_with(&doorbell.to_owned())).collect();
    let wanted = [
        "cpu instant register write to peer0 +",
        "peer0 instant MRd descriptor +",
        "peer0 instant MRd data +",
        "peer0 instant MWr data +",
        "peer0 instant MWr completion-record +",
        "peer0 instant MWr completion-record +",
        "interrupts instant MWr interrupt -",
    ];
    assert_eq!(about, wanted.map(|line| format!("{line}{doorbell}")).iter().collect::<Vec<_>>());
    let turn = lines.iter().position(|line| *line == "peer0 begin turn").unwrap();
    let end = lines.iter().skip(turn).position(|line| line.trim_end() == "peer0 end").unwrap();
    assert!(lines[turn..turn + end].contains(about[2]), "{text}");
    assert!(lines.iter().any(|line| line.trim_end() == "tests end"), "{text}");
    draw(&export(&path));
}

/// Mappings of two functions that overlap, as the witness reports them, and one that is never unmapped.
#[test]
fn mappings_are_slices_below_their_function() {
    let function = |name: &str, requester| FunctionName { name: name.into(), requester };
    let header = Header {
        system: SystemConfig::default(),
        ram: Vec::new(),
        functions: vec![function("peer0", 0x100), function("peer1", 0x208)],
        payload: Payload::None,
        part: false,
    };
    let record = |kind, requester: u32, address| {
        let record = Builder::new(kind)
            .put_u64(record::ADDRESS, address)
            .put_u64(record::LENGTH, 64)
            .put(record::FUNCTION, &requester.to_le_bytes());
        Event::Witness { kind: WitnessInput::Record, data: record.bytes().to_vec() }
    };
    let (map, unmap) = (Kind::Map, Kind::Unmap);
    let events = [
        (0, record(map, 0x100, 0x1000)),
        (0, record(map, 0x100, 0x2000)),
        (0, record(map, 0x208, 0x1000)),
        (1, Event::Step { function: 0 }),
        (0, record(unmap, 0x100, 0x1000)),
        (0, record(map, 0x100, 0x3000)),
        (0, record(unmap, 0x100, 0x2000)),
        (0, record(unmap, 0x100, 0x3000)),
        (0, record(map, 0x100, 0x4000)),
        (0, record(unmap, 0x208, 0x1000)),
        (0, Event::End { events: 10 }),
    ];
    let export = |kept: &dyn Fn(&Event) -> bool| {
        let names = ["witness", "peer0", "peer1"].map(String::from);
        let mut perfetto = Perfetto::new(Vec::new(), &header, &names).unwrap();
        let mut context = Context::new(&header, Duration::ZERO);
        for ((interface, event), number) in events.iter().cloned().zip(1..) {
            let kept = kept(&event);
            let entry = Entry { number, time: Duration::from_nanos(number), interface, event };
            context.follow(&entry);
            perfetto.add(&entry, &context, kept).unwrap();
        }
        parsed(&perfetto.finish().unwrap(), "lanes")
    };
    let Some(all) = export(&|_| true) else { return };
    let lane = "peer0 > peer0: mapped, kernel";
    assert_eq!(
        all,
        format!(
            "1 {lane} begin 0x1000, 64 bytes
2 {lane} begin 0x2000, 64 bytes
3 peer1 > peer1: mapped, kernel begin 0x1000, 64 bytes
5 {lane} end \n6 {lane} begin 0x3000, 64 bytes
7 {lane} end \n8 {lane} end \n9 {lane} begin 0x4000, 64 bytes
10 peer1 > peer1: mapped, kernel end \n"
        )
    );
    // Only a turn of peer0 is kept: what is mapped for it then, from its beginning to its end.
    let part = export(&|event| matches!(event, Event::Step { .. })).unwrap();
    assert_eq!(
        part,
        format!(
            "1 {lane} begin 0x1000, 64 bytes
2 {lane} begin 0x2000, 64 bytes
5 {lane} end \n7 {lane} end \n"
        )
    );
}

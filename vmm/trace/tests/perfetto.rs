//! Perfetto's own messages read an export: tracks, nested slices, instants, and flows from a doorbell to the interrupt.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![cfg(feature = "perfetto")]

mod sample;

use std::io::Write;
use std::process::Command;
use std::time::Duration;

use device_models::fabric::Purpose;
use peerdma_trace::{Context, Entry, Event, Perfetto, TestMark, TestResult};

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
for packet in trace.packet:
    assert packet.trusted_packet_sequence_id == 1
    if packet.HasField("track_descriptor"):
        tracks[packet.track_descriptor.uuid] = packet.track_descriptor.name
        continue
    event = packet.track_event
    flows = ["+%d" % flow for flow in event.flow_ids]
    flows += ["-%d" % flow for flow in event.terminating_flow_ids]
    kind = {1: "begin", 2: "end", 3: "instant"}[event.type]
    print(packet.timestamp, tracks[event.track_uuid], kind, event.name, *flows)
"#;

#[test]
fn perfetto_s_messages_read_an_export() {
    let run = |sequence, purpose| {
        Event::Transaction(peerdma_trace::TlpRun { purpose, ..sample::run(sequence, 0x1000, 64) })
    };
    let mark = |result| Event::Test(TestMark { name: "a".into(), result });
    let events = [
        (1, mark(None)),
        (0, Event::RegisterWrite { address: 0x1000, data: vec![1] }),
        (2, Event::Step { function: 0 }),
        (2, run(1, Purpose::DescriptorFetch)),
        (2, Event::Step { function: 0 }),
        (2, run(2, Purpose::Data)),
        (2, run(3, Purpose::Interrupt)),
        (1, mark(Some(TestResult::Passed))),
        (2, Event::Step { function: 0 }),
        (2, run(4, Purpose::Data)),
        (0, Event::End { events: 10 }),
    ];
    let names = ["cpu", "tests", "peer0"].map(String::from);
    let mut perfetto = Perfetto::new(Vec::new(), &names).unwrap();
    for ((interface, event), number) in events.into_iter().zip(1..) {
        let time = Duration::from_nanos(number);
        perfetto.add(&Entry { number, time, interface, event }, &Context::default()).unwrap();
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().write_all(&perfetto.finish().unwrap()).unwrap();
    let output = Command::new("python3").arg("-c").arg(SCRIPT).arg(file.path()).output();
    let text = output.map(|output| {
        let err = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{err}");
        String::from_utf8(output.stdout).unwrap()
    });
    match text.as_deref() {
        Err(_) | Ok("SKIP\n") => {
            let line =
                "SKIP perfetto_s_messages_read_an_export: no python3 with the package perfetto\n";
            std::io::stderr().write_all(line.as_bytes()).unwrap();
            return;
        }
        Ok(_) => {}
    }
    let wanted = "1 tests begin a
2 cpu instant register write +2
3 peer0 begin turn
4 peer0 instant MWr descriptor +2
5 peer0 end 
5 peer0 begin turn
6 peer0 instant MWr data +2
7 peer0 instant MWr interrupt -2
8 tests end 
9 peer0 end 
9 peer0 begin turn
10 peer0 instant MWr data
11 peer0 end 
11 cpu instant end
";
    assert_eq!(text.unwrap(), wanted);
}

use super::*;
use crate::reader::{Ending, Reader};

fn first_line(version: u32, rest: &str) -> String {
    let system = serde_json::to_string(&Header::nothing().system).unwrap();
    let ram = "[[0,1048576]]";
    format!(
        "{{\"format\":\"peerdma-trace\",\"version\":{version},\"lab\":{system},\"ram\":{ram}}}\n{rest}"
    )
}

const LINES: &str = r#"{"event":"config-write","function":32,"offset":4,"length":2,"value":6}
{"event":"register-write","address":3221229576,"data":"00000100"}
{"event":"step","function":3}
{"event":"transaction","sequence":0,"requester":256,"kind":"MRd","purpose":"descriptor","address":65536,"length":4,"outcome":{"delivered":{"route":"memory","address":65536,"target":"ram+0x10000"}},"data":"020004ff"}
{"event":"transaction","sequence":1,"requester":256,"kind":"MWr","purpose":"data","address":65536,"length":64,"outcome":{"delivered":{"route":"bus-address","address":65536,"target":"memory of function 4+0x40"}}}
{"event":"transaction","sequence":2,"requester":256,"kind":"MWr","purpose":"data","address":65536,"length":4,"outcome":{"delivered":{"route":"through-host-bridge","address":7,"target":"function 5 BAR0+0x28"}},"data":"00000000"}
{"event":"transaction","sequence":3,"requester":256,"kind":"MWr","purpose":"interrupt","address":4276092928,"length":4,"outcome":{"delivered":{"route":"interrupt","address":4276092928,"target":""}},"data":"21000000"}
{"event":"transaction","sequence":4,"requester":256,"kind":"MRd","purpose":"data","address":2147483648,"length":16,"outcome":{"failed":"UR"}}
{"event":"finding","class":"pci.no-target","note":true,"text":"words"}
{"event":"delay-posted","requester":256,"target":512,"delay":"pushed"}
"#;

fn converted(text: &str) -> Result<(Vec<u8>, u64, bool), ConvertError> {
    let mut out = Vec::new();
    let (events, whole) = convert(text.as_bytes(), &mut out)?;
    Ok((out, events, whole))
}

#[test]
fn what_the_earlier_version_wrote_is_read() {
    let end = "{\"event\":\"end\",\"events\":10}\n";
    let (bytes, events, whole) = converted(&first_line(4, &format!("{LINES}{end}"))).unwrap();
    assert_eq!((events, whole), (10, true));
    let mut reader = Reader::new(&bytes[..]).unwrap();
    assert_eq!(reader.header().ram, [(0, 1 << 20)]);
    assert!(reader.header().functions.iter().any(|function| function.name == "peer1"));
    let all: Vec<_> = reader.by_ref().map(|entry| entry.unwrap().event.to_string()).collect();
    let wanted = [
        "configuration write of 2 bytes, 0x6, at 00:04.0+0x4",
        "register write of 00000100 at 0xc0001008",
        "turn of function 3",
        "#0 01:00.0 MRd descriptor addr=0x10000 len=4 delivered by memory to 0x10000 (ram+0x10000) data=020004ff",
        "#1 01:00.0 MWr data addr=0x10000 len=64 delivered by bus-address to 0x10000 (memory of function 4+0x40)",
        "#2 01:00.0 MWr data addr=0x10000 len=4 delivered by through-host-bridge to 0x7 (function 5 BAR0+0x28) data=00000000",
        "#3 01:00.0 MWr interrupt addr=0xfee00000 len=4 delivered by interrupt to 0xfee00000 (interrupt window) data=21000000",
        "#4 01:00.0 MRd data addr=0x80000000 len=16 failed: UR",
        "note: words",
        "posted writes of 01:00.0 to 02:00.0 stay under way: pushed",
        "end after 10 entries",
    ];
    assert_eq!(all, wanted);
    assert_eq!(reader.ending(), Some(&Ending::Complete));
}

#[test]
fn witness_records_of_version_5_are_read() {
    let record = format!("0201{}", "00".repeat(126));
    let lines = [
        r#"{"event":"witness","kind":"attach","data":"0100000000000000"}"#,
        r#"{"event":"witness","kind":"drain","data":""}"#,
        &format!(r#"{{"event":"witness","kind":"record","data":"{record}"}}"#),
        r#"{"event":"witness","kind":"detach","data":""}"#,
        r#"{"event":"end","events":4}"#,
    ];
    let (bytes, events, whole) = converted(&first_line(5, &(lines.join("\n") + "\n"))).unwrap();
    assert_eq!((events, whole), (4, true));
    let all: Vec<_> = Reader::new(&bytes[..]).unwrap().map(|entry| entry.unwrap().event).collect();
    let data = |kind, data: Vec<u8>| Event::Witness { kind, data };
    assert_eq!(all[0], data(WitnessInput::Attach, vec![1, 0, 0, 0, 0, 0, 0, 0]));
    assert_eq!(all[1], data(WitnessInput::Drain, Vec::new()));
    let Event::Witness { kind: WitnessInput::Record, data: kept } = &all[2] else {
        panic!("{}", all[2])
    };
    assert_eq!((kept.len(), &kept[..3]), (128, &[2, 1, 0][..]));
    assert_eq!(all[3], data(WitnessInput::Detach, Vec::new()));
    for (line, what) in [
        (lines[2].replace("\"0201", "\"01"), "other bytes"),
        (lines[1].replace("drain", "drown"), "unknown word"),
        (lines[3].replace("\"\"", "\"00\""), "other bytes"),
    ] {
        let error = converted(&first_line(5, &(line + "\n"))).unwrap_err().to_string();
        assert!(error.contains(what), "{error}");
    }
}

#[test]
fn a_cut_file_is_converted_to_its_end() {
    let whole = first_line(4, LINES);
    let (bytes, events, complete) = converted(&whole[..whole.len() - 5]).unwrap();
    assert_eq!((events, complete), (9, false));
    let mut reader = Reader::new(&bytes[..]).unwrap();
    assert_eq!(reader.by_ref().filter(Result::is_ok).count(), 9);
    assert!(matches!(reader.ending(), Some(Ending::Truncated { .. })));
    let limit = first_line(4, "{\"event\":\"cut\",\"events\":0}\n");
    let (bytes, _, complete) = converted(&limit).unwrap();
    let mut reader = Reader::new(&bytes[..]).unwrap();
    assert!(complete && reader.by_ref().all(|entry| entry.is_ok()));
    assert_eq!(reader.ending(), Some(&Ending::Cut));
}

#[test]
fn other_files_are_refused() {
    for other in ["", "hello\n", "{\"format\":\"pcap\"}\n", "{\"format\":\"peerdma-trace\"}\n"] {
        let error = converted(other).unwrap_err();
        assert!(
            matches!(error, ConvertError::NotATrace(_) | ConvertError::Version(0)),
            "{other:?}: {error}"
        );
    }
    for version in [3, 6] {
        assert!(matches!(converted(&first_line(version, "")), Err(ConvertError::Version(_))));
    }
    let ram = first_line(4, "").replace("[[0,1048576]]", "[[0,18446744073709551615]]");
    assert!(converted(&ram).unwrap_err().to_string().contains("RAM that no guest has"));
}

#[test]
fn a_line_that_makes_no_sense_is_named() {
    for (line, what) in [
        ("{}", "missing field"),
        (r#"{"event":"register-write","address":0,"data":"000000000000000000"}"#, "1 to 8 bytes"),
        (r#"{"event":"register-write","address":0,"data":"0"}"#, "odd number"),
        (r#"{"event":"outside","function":0,"data":"0g"}"#, "invalid digit"),
    ] {
        let error =
            converted(&first_line(4, &format!("{{\"event\":\"step\",\"function\":3}}\n{line}\n")));
        let error = error.unwrap_err().to_string();
        assert!(error.starts_with("line 3 is not an event: ") && error.contains(what), "{error}");
        assert!(error.len() < 300, "{error}");
    }
    let bad = LINES.replace("memory of function 4", "memory of function -4");
    assert!(converted(&first_line(4, &bad)).unwrap_err().to_string().contains("its target"));
}

#[test]
fn a_line_without_end_is_not_read_to_its_end() {
    let endless = || io::BufReader::new(io::Read::chain(&b"{"[..], io::repeat(b'x')));
    assert!(matches!(convert(endless(), io::sink()), Err(ConvertError::NotATrace(_))));
    let first = first_line(4, "");
    let error =
        convert(io::BufReader::new(io::Read::chain(first.as_bytes(), endless())), io::sink());
    let error = error.unwrap_err().to_string();
    assert_eq!(error, "line 2 is not an event: it is longer than 262144 bytes");
}

proptest::proptest! {
    #[test]
    fn any_change_of_a_file_gives_a_trace_or_an_error(
        changes in proptest::collection::vec(
            (proptest::prelude::any::<proptest::sample::Index>(), proptest::prelude::any::<u8>()),
            1..6,
        ),
        cut: proptest::sample::Index,
    ) {
        let mut text = first_line(5, LINES).into_bytes();
        for (at, value) in changes {
            let at = at.index(text.len());
            text[at] = value;
        }
        let mut out = Vec::new();
        if convert(&text[..], &mut out).is_ok() {
            // What was converted can be read, and replayed or not.
            let reader = Reader::new(io::Cursor::new(out)).unwrap();
            let _ = replay::replay(reader);
        }
        text.truncate(cut.index(text.len()));
        let _ = convert(&text[..], io::sink());
    }
}

//! Malformed input, by accident and on purpose.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::{Duration, Instant};

use peerdma_capture::{Machine, read};
use proptest::prelude::*;

/// Something of every form that is read.
const SEED: &str = include_str!("mixed.txt");

fn survives(bytes: &[u8]) {
    if let Ok(machine) = read(bytes) {
        // What is read is a record that can be read again: in order, with parents and without circles.
        let text = machine.to_json().unwrap();
        assert_eq!(Machine::from_json(&text).unwrap(), machine);
    }
}

#[test]
fn the_seed_has_something_of_every_form() {
    let machine = read(SEED.as_bytes()).unwrap();
    for source in ["hex dump", "lspci", "lspci -t", "script"] {
        assert!(machine.source.contains(source), "{}", machine.source);
    }
    survives(SEED.as_bytes());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn mutated_text_is_read_or_refused(
        changes in prop::collection::vec((any::<prop::sample::Index>(), 0_u8..6, any::<u8>()), 1..40),
    ) {
        let mut bytes = SEED.as_bytes().to_vec();
        for (index, what, byte) in changes {
            if bytes.is_empty() {
                break;
            }
            let at = index.index(bytes.len());
            match what {
                0 => bytes[at] = byte,
                1 => { bytes.remove(at); }
                2 => bytes.insert(at, b'\n'),
                3 => bytes.truncate(at.max(bytes.len() / 2)),
                4 => {
                    // A piece from elsewhere.
                    let piece = bytes[at..(at + usize::from(byte)).min(bytes.len())].to_vec();
                    let to = usize::from(byte) * 31 % bytes.len();
                    bytes.splice(to..to, piece);
                }
                _ => {
                    let end = (at + usize::from(byte)).min(bytes.len());
                    bytes.drain(at..end);
                }
            }
        }
        survives(&bytes);
    }

    #[test]
    fn noise_is_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        survives(&bytes);
    }
}

/// Reads `text`, which takes a bounded time. A debug build on a busy machine is slow; what grows with the square of the
/// input takes minutes.
fn quickly(text: &str) {
    let start = Instant::now();
    let _ = read(text.as_bytes());
    assert!(start.elapsed() < Duration::from_secs(40), "{:?}", start.elapsed());
}

#[test]
fn large_input_takes_bounded_time() {
    const LENGTH: usize = 1 << 20;
    let repeat = |piece: &str| piece.repeat(LENGTH / piece.len());
    quickly(&repeat("a"));
    quickly(&repeat("\n"));
    quickly(&repeat("x\n"));
    quickly(&repeat("> "));
    quickly(&repeat("|"));
    quickly(&repeat("Capabilities: ["));
    quickly(&format!("00:00.0 PCI bridge: x\n{}", repeat("00: 86 80\n")));
    quickly(&format!("00:00.0 PCI bridge: x\n{}", repeat("ACSCtl: SrcValid+\n")));
    quickly(&format!("00:00.0 Host bridge: x\n{}", repeat("ReqRedir+\n")));
    quickly(&format!("-[0000:00]-+-00.0\n{}", repeat("           +-01.0-[01]--+-00.0\n")));
    quickly(&repeat("[".repeat(4000).as_str()));
}

#[test]
fn many_bridges_with_wide_ranges_and_virtual_functions_take_bounded_time() {
    let mut text = String::new();
    for bus in 0..=255 {
        for device in 0..32 {
            text += &format!(
                "{bus:02x}:{device:02x}.0 PCI bridge: x\n\tBus: primary={bus:02x}, secondary=ff, subordinate=ff\n\
                 \tCapabilities: [160 v1] Single Root I/O Virtualization\n\t\tIOVCtl: Enable+\n\
                 \t\tInitial VFs: 1, Number of VFs: 65535, x\n\t\tVF offset: 1, stride: 1, x\n"
            );
        }
    }
    quickly(&text);
}

#[test]
fn too_much_is_refused_with_the_line() {
    let mut text = String::new();
    for segment in 0..3 {
        for bus in 0..=255 {
            for device in 0..32 {
                for function in 0..8 {
                    text +=
                        &format!("{segment:04x}:{bus:02x}:{device:02x}.{function} PCI bridge: x\n");
                }
            }
        }
    }
    let error = read(text.as_bytes()).unwrap_err().to_string();
    assert!(error.contains("line 65537") && error.contains("65536"), "{error}");
    let error = read(&vec![b'a'; (64 << 20) + 1]).unwrap_err().to_string();
    assert!(error.contains("64 MiB"), "{error}");
}

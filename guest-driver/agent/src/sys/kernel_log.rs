//! The kernel's log, judged as it grows.

use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use std::os::fd::OwnedFd;

/// One record of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// 0 (emergency) to 7 (debug).
    pub level: u8,
    /// Its text; continuation lines left out.
    pub text: String,
}

/// Levels up to this one (warning) are looked at.
const WARNING: u8 = 4;

/// What is about us: the driver, the peer devices and the ports above them, the IOMMU, the entropy device.
const SUBJECTS: &[&str] = &[
    "peerdma",
    "pci 0000:",
    "pcieport",
    "pci_bus",
    "virtio",
    "viommu",
    "iommu",
    "AER",
    "dma-buf",
    "dma_buf",
    "DMA-API",
    "ioatdma",
    "dmatest",
    "dma dma",
];

/// What never belongs in a log, whatever it is about: the kernel's own alarms.
const ALARMS: &[&str] = &[
    "WARNING:",
    "BUG:",
    "Oops",
    "KASAN",
    "UBSAN",
    "possible circular locking",
    "possible recursive locking",
    "inconsistent lock state",
    "suspicious RCU usage",
    "INFO: task",
    "soft lockup",
    "rcu_preempt detected stalls",
    "unreferenced object",
    "scheduling while atomic",
    "irq event",
    "nobody cared",
];

/// A message that every boot gives and that says nothing against us, with the reason why it is let pass.
struct Tolerated {
    part: &'static str,
    #[expect(dead_code, reason = "for the reader")]
    reason: &'static str,
}

const TOLERATED: &[Tolerated] = &[
    Tolerated {
        part: "loading out-of-tree module taints kernel",
        reason: "our module is built outside the kernel's tree, and so is a user's",
    },
    Tolerated {
        part: "module verification failed",
        reason: "a distribution's kernel wants signatures; ours has none",
    },
];

/// In the text of a record of ours, which stands where the kernel has overwritten some of its own
/// before we came: what they said is unknown, so it counts as a complaint.
pub const OVERWRITTEN: &str = "peerdma agent: records of the kernel's log were overwritten";

/// Reads `/dev/kmsg` from where it stopped last.
#[derive(Debug)]
pub struct KernelLog {
    fd: OwnedFd,
    /// The number of the next record.
    next: u64,
}

impl KernelLog {
    /// From the first record still there.
    ///
    /// # Errors
    /// When the kernel has no `/dev/kmsg` (`CONFIG_PRINTK`) or does not let us.
    pub fn open() -> rustix::io::Result<Self> {
        Ok(Self {
            fd: open(
                "/dev/kmsg",
                OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC,
                Mode::empty(),
            )?,
            next: 0,
        })
    }

    /// All records since the last call, and one of our own in the place of any that are lost.
    pub fn drain(&mut self) -> Vec<Record> {
        let mut records = Vec::new();
        // As large as the kernel's own limit for a record with its dictionary.
        let mut buffer = [0; 8192];
        loop {
            match rustix::io::read(&self.fd, &mut buffer) {
                Ok(length) if length > 0 => {
                    let line = String::from_utf8_lossy(&buffer[..length]);
                    records.extend(follow(&mut self.next, &line));
                }
                // Records were overwritten before we came; the next read goes on with the oldest left, whose number shows
                // how many.
                Err(Errno::PIPE | Errno::INTR) => {}
                _ => return records,
            }
        }
    }

    /// Leaves a line of ours in the log, so that a reader sees which messages belong to which test.
    pub fn mark(&self, text: &str) {
        // Level debug: in the log, but not on the serial console, where every character costs an exit.
        let _ = rustix::io::write(&self.fd, format!("<7>peerdma agent: {text}\n").as_bytes());
    }
}

/// The record in `line`, behind one for those that are missing before it.
fn follow(next: &mut u64, line: &str) -> Vec<Record> {
    let Some((number, record)) = parse(line) else { return Vec::new() };
    let lost = number.saturating_sub(*next);
    *next = number + 1;
    let loss =
        (lost > 0).then(|| Record { level: WARNING, text: format!("{OVERWRITTEN}: {lost}") });
    loss.into_iter().chain([record]).collect()
}

/// A record, and its number since the kernel's start.
fn parse(line: &str) -> Option<(u64, Record)> {
    let (head, text) = line.split_once(';')?;
    let mut fields = head.split(',');
    let priority: u32 = fields.next()?.parse().ok()?;
    let number = fields.next()?.parse().ok()?;
    let text = text.lines().next().unwrap_or_default();
    Some((number, Record { level: u8::try_from(priority & 7).ok()?, text: text.to_owned() }))
}

/// The records that speak against us, without those that the test expects.
pub fn complaints<'a>(records: &'a [Record], expected: &[&str]) -> Vec<&'a Record> {
    let holds = |text: &str, parts: &[&str]| parts.iter().any(|part| text.contains(part));
    records
        .iter()
        .filter(|record| {
            let alarm = record.level <= WARNING && holds(&record.text, ALARMS);
            let about_us = record.level <= WARNING && holds(&record.text, SUBJECTS);
            (alarm || about_us)
                && !holds(&record.text, expected)
                && !TOLERATED.iter().any(|tolerated| record.text.contains(tolerated.part))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(level: u8, text: &str) -> Record {
        Record { level, text: text.into() }
    }

    #[test]
    fn records_are_parsed() {
        assert_eq!(
            parse("4,507,1234,-;pci 0000:01:00.0: x\n SUBSYSTEM=pci\n"),
            Some((507, record(4, "pci 0000:01:00.0: x")))
        );
        // The facility sits above the lower three bits.
        assert_eq!(parse("12,1,1,-;user").map(|(_, record)| record.level), Some(4));
        assert_eq!(parse("rubbish"), None);
    }

    #[test]
    fn records_that_were_overwritten_are_a_complaint() {
        let mut next = 0;
        assert_eq!(follow(&mut next, "6,0,1,-;first"), [record(6, "first")]);
        assert_eq!(follow(&mut next, "6,1,1,-;second"), [record(6, "second")]);
        let after = follow(&mut next, "6,44,1,-;and so on");
        assert_eq!(after.len(), 2);
        assert!(after[0].text.ends_with(": 42"), "{after:?}");
        assert_eq!(complaints(&after, &[]), [&after[0]]);
        assert_eq!(complaints(&after, &[OVERWRITTEN]), [] as [&Record; 0]);
        assert_eq!(follow(&mut next, "6,45,1,-;last"), [record(6, "last")]);
    }

    #[test]
    fn only_what_speaks_against_us_is_a_complaint() {
        let log = [
            record(6, "pci 0000:01:00.0: BAR 2 assigned"),
            record(4, "pci 0000:01:00.0: can't do it"),
            record(4, "another driver: hm"),
            record(4, "WARNING: CPU: 0 PID: 1 at kernel/x.c"),
            record(4, "peerdma: loading out-of-tree module taints kernel."),
            record(4, "pcieport 0000:00:04.0: AER: Uncorrectable (Non-Fatal) error"),
        ];
        let found: Vec<_> =
            complaints(&log, &["AER: Uncorrectable"]).iter().map(|r| r.text.as_str()).collect();
        assert_eq!(
            found,
            ["pci 0000:01:00.0: can't do it", "WARNING: CPU: 0 PID: 1 at kernel/x.c"]
        );
    }
}

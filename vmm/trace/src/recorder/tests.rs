use std::sync::{Condvar, Mutex};
use std::time::Instant;

use device_models::checker::{Cause, FindingClass, Severity};
use device_models::fabric::{CompletionStatus, Kind, Purpose};

use super::*;
use crate::reader::{Ending, Reader};

/// A disk that a test opens, closes and fills.
#[derive(Debug, Clone, Default)]
struct Disk(Arc<(Mutex<DiskState>, Condvar)>);

#[derive(Debug, Default)]
struct DiskState {
    bytes: Vec<u8>,
    closed: bool,
    room: Option<usize>,
}

impl Disk {
    fn close(&self, closed: bool) {
        self.0.0.lock().unwrap().closed = closed;
        self.0.1.notify_all();
    }

    fn bytes(&self) -> Vec<u8> {
        self.0.0.lock().unwrap().bytes.clone()
    }
}

impl Write for Disk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.0.1.wait_while(self.0.0.lock().unwrap(), |it| it.closed).unwrap();
        let room = state.room.map_or(usize::MAX, |room| room.saturating_sub(state.bytes.len()));
        if room == 0 {
            return Err(io::Error::from_raw_os_error(28));
        }
        let count = bytes.len().min(room);
        state.bytes.extend(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn begin(disk: &Disk, options: RecordOptions) -> Recording {
    Recording::new(Box::new(disk.clone()), &Header::nothing(), options).unwrap()
}

/// Adds entries with what zstd cannot make small.
fn fill(recording: &Recording, seed: u64, entries: u64) {
    let mut state = seed;
    for _ in 0..entries {
        let data = (0..512)
            .flat_map(|_| peerdma_support::random::next(&mut state).to_be_bytes())
            .collect();
        recording.0.append(Event::Outside { function: 0, data });
    }
}

/// How many entries are read, and how they end.
fn read(bytes: &[u8]) -> (u64, u64, Option<Ending>) {
    let mut reader = Reader::new(bytes).unwrap();
    let mut count = 0;
    for entry in reader.by_ref() {
        count += u64::from(matches!(entry.unwrap().event, Event::Outside { .. }));
    }
    (count, reader.lost(), reader.ending().cloned())
}

/// Files of a ring in memory, and the most that they ever had together.
#[derive(Debug, Clone, Default)]
struct Ring(Arc<Mutex<([Vec<u8>; RING_FILES], usize)>>);

#[derive(Debug)]
struct RingSlot(Ring, usize);

impl Slots for Ring {
    fn begin(&mut self, slot: usize) -> io::Result<Box<dyn Output>> {
        self.0.lock().unwrap().0[slot].clear();
        Ok(Box::new(RingSlot(self.clone(), slot)))
    }
}

impl Write for RingSlot {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let (files, most) = &mut *self.0.0.lock().unwrap();
        files[self.1].extend(bytes);
        *most = (*most).max(files.iter().map(Vec::len).sum());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_ring_keeps_the_newest_entries_within_its_size() {
    let size = 4 << 20;
    let options = RecordOptions { ring: Some(size), ..RecordOptions::default() };
    for (entries, count, overwritten) in [(10, 1, false), (300, 2, false), (5000, 4, true)] {
        let ring = Ring::default();
        let recording =
            Recording::ring(Box::new(ring.clone()), &Header::nothing(), options).unwrap();
        fill(&recording, 4, entries);
        let summary = recording.finish().unwrap();
        let (files, most) = &*ring.0.lock().unwrap();
        let RingFiles { newest, .. } = summary.files;
        assert_eq!(summary.files, RingFiles { count, newest, overwritten });
        assert_eq!(summary.events, entries);
        assert!(*most as u64 <= size, "{most}");
        assert_eq!(summary.bytes, files.iter().map(Vec::len).sum::<usize>() as u64);
        // From the oldest to the newest no entry is missing.
        let order = (1..=count).map(|step| (newest + step) % count);
        let mut next = None;
        for slot in order {
            let mut reader = Reader::new(&files[slot][..]).unwrap();
            assert_eq!(reader.header().part, next.is_some() || overwritten);
            for entry in reader.by_ref() {
                let entry = entry.unwrap();
                // The mark at the end of a file has the number of the next one's first entry.
                if !matches!(entry.event, Event::Cut { .. }) {
                    assert_eq!(
                        next.replace(entry.number + 1).unwrap_or(entry.number),
                        entry.number
                    );
                }
            }
            let ending = if slot == newest { Ending::Complete } else { Ending::Cut };
            assert_eq!(reader.ending(), Some(&ending), "{slot}");
            crate::check_seek_table(&mut io::Cursor::new(&files[slot])).unwrap();
        }
        assert_eq!(next, Some(entries + 2));
    }
}

#[test]
fn the_files_of_a_ring_are_named_after_the_first() {
    let names = [0, 1, 3].map(|slot| ring_file(Path::new("a/b.pcapng.zst"), slot));
    assert_eq!(names, ["a/b.pcapng.zst", "a/b.2.pcapng.zst", "a/b.4.pcapng.zst"].map(Path::new));
    assert_eq!(ring_file(Path::new("x"), 1), Path::new("x.2"));
}

#[test]
fn devices_wait_for_a_slow_disk_and_nothing_is_lost() {
    let disk = Disk::default();
    let recording = begin(&disk, RecordOptions::default());
    disk.close(true);
    let filler = {
        let recording = recording.clone();
        // More than may wait.
        std::thread::spawn(move || fill(&recording, 1, 4000))
    };
    while !recording.0.is_full() {
        std::thread::sleep(Duration::from_millis(5));
    }
    std::thread::sleep(Duration::from_millis(300));
    disk.close(false);
    filler.join().unwrap();
    let summary = recording.finish().unwrap();
    assert!(summary.stalls > 0 && summary.stalled > Duration::ZERO, "{summary:?}");
    assert_eq!((summary.events, summary.lost, summary.cut), (4000, 0, false));
    let bytes = disk.bytes();
    assert_eq!(summary.bytes, bytes.len() as u64);
    assert_eq!(read(&bytes), (4000, 0, Some(Ending::Complete)));
}

#[test]
fn a_lossy_recording_never_waits_and_counts_what_it_drops() {
    let disk = Disk::default();
    let recording = begin(&disk, RecordOptions { lossy: true, ..RecordOptions::default() });
    disk.close(true);
    fill(&recording, 1, 6000);
    disk.close(false);
    // The writer has caught up.
    let begun = Instant::now();
    while disk.bytes().len() < 8 << 20 && begun.elapsed() < Duration::from_secs(20) {
        std::thread::sleep(Duration::from_millis(5));
    }
    fill(&recording, 2, 1000);
    let summary = recording.finish().unwrap();
    assert_eq!(summary.stalls, 0);
    assert!(summary.lost > 1000, "{summary:?}");
    let (count, lost, ending) = read(&disk.bytes());
    assert_eq!(ending, Some(Ending::Complete));
    assert_eq!(lost, summary.lost);
    // Of those that were dropped some may be marks of earlier gaps.
    assert!(count + lost >= 7000 && count + lost < 7100, "{count} {lost}");
}

#[test]
fn what_a_full_disk_took_is_read_to_its_end() {
    for room in [3000, 1 << 20, 3_333_333] {
        let disk = Disk::default();
        disk.0.0.lock().unwrap().room = Some(room);
        let recording = begin(&disk, RecordOptions::default());
        fill(&recording, 3, 2000);
        let error = recording.finish().unwrap_err();
        assert_eq!(error.raw_os_error(), Some(28));
        let (count, _, ending) = read(&disk.bytes());
        assert!(
            count >= (room as u64 / 4300).saturating_sub(280) && count < 2000,
            "{room}: {count}"
        );
        assert!(matches!(ending, Some(Ending::Truncated { .. })), "{ending:?}");
    }
}

#[test]
fn what_was_recorded_is_in_the_file_after_a_moment() {
    let disk = Disk::default();
    let recording = begin(&disk, RecordOptions::default());
    // A program that is killed at once leaves a header.
    assert_eq!(read(&disk.bytes()).0, 0);
    for round in 1..4 {
        fill(&recording, round, 10);
        let begun = Instant::now();
        while read(&disk.bytes()).0 < round * 10 {
            assert!(begun.elapsed() < Duration::from_secs(10), "round {round}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    let bytes = disk.bytes();
    assert!(matches!(read(&bytes).2, Some(Ending::Truncated { .. })));
    // It is not finished: its thread ends by itself, and marks no end.
    drop(recording);
    let begun = Instant::now();
    while Arc::strong_count(&disk.0) > 1 {
        assert!(begun.elapsed() < Duration::from_secs(10));
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(disk.bytes(), bytes);
}

#[test]
fn a_disk_that_takes_nothing_holds_the_devices_up_for_a_bounded_time() {
    let disk = Disk::default();
    let recording = begin(&disk, RecordOptions::default());
    disk.close(true);
    let begun = Instant::now();
    fill(&recording, 1, 10_000);
    assert!(begun.elapsed() < Duration::from_secs(60));
    let error = recording.finish().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    disk.close(false);
}

/// A device may take the time before it is told what was wrong with its request.
#[test]
fn a_finding_is_at_its_transaction_where_a_value_from_outside_comes_in_between() {
    let header = Header { ram: vec![(0, 1 << 20)], ..Header::nothing() };
    let system = crate::replay::build(&header).unwrap();
    let (function, node) = system.address_map().functions().last().unwrap();
    let transaction = Transaction {
        sequence: 5,
        requester: node.requester,
        function,
        kind: Kind::MemoryRead,
        purpose: Purpose::Data,
        address: 0x1000,
        length: 64,
        tlp_limit: 512,
    };
    let finding = Finding {
        class: FindingClass::Stale,
        severity: Severity::Finding,
        cause: Cause::Function,
        transaction: Some(transaction),
        function: "peer0".into(),
        requester: transaction.requester,
        explanation: "x".into(),
    };
    let outside = Event::Outside { function: 0, data: vec![1] };
    let step = Event::Step { function: 0 };
    // A turn of its own ends what belongs together.
    for (between, marked) in [(vec![outside; 3], true), (vec![step], false)] {
        let disk = Disk::default();
        let recording = begin(&disk, RecordOptions::default());
        let status = CompletionStatus::UnsupportedRequest;
        recording.recorder().transaction(&transaction, &Delivery::Failed(status), None);
        between.iter().for_each(|event| recording.0.append(event.clone()));
        recording.recorder().finding(&finding);
        recording.finish().unwrap();
        let reader = Reader::new(io::Cursor::new(disk.bytes())).unwrap();
        let all: Vec<_> = reader.map(|entry| entry.unwrap().event).collect();
        let Event::Transaction(run) = &all[0] else { panic!("{all:?}") };
        assert_eq!(run.verdict, marked.then_some(FindingClass::Stale));
        assert_eq!(all[1..=between.len()], between);
        assert!(matches!(all[between.len() + 1], Event::Finding(_)), "{all:?}");
    }
}

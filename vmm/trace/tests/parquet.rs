//! DuckDB answers the questions of docs/traces.md over exports of real recordings.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![cfg(feature = "parquet")]

mod bench;

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::Command;

use bench::{Bench, DATA, NOWHERE, descriptor, open};
use device_models::endpoint::peer::regs::{channel, flags, layout_of_bars as layout, opcode};
use peerdma_trace::{Context, Filter, Parquet, RecordOptions};

/// Asks each question in its argument, a file each, and prints the answer: columns, rows, and an empty line.
const SCRIPT: &str = r#"
import sys
try:
    import duckdb
except ImportError:
    print("SKIP")
    sys.exit()
for name in sys.argv[1:]:
    answer = duckdb.sql(open(name).read())
    print(",".join(answer.columns))
    for row in answer.fetchall():
        print(*row, sep="|")
    print()
"#;

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/traces.md");

fn skip(reason: &str) {
    let line = format!("SKIP duckdb_answers_the_documented_questions: {reason}\n");
    std::io::stderr().write_all(line.as_bytes()).unwrap();
}

/// Copies of `bytes` to the peer with an interrupt each, and a write into nowhere.
fn record(path: &Path, bytes: u32) {
    let mut bench = Bench::new(path, RecordOptions::default());
    bench.enable_interrupts();
    let memory = bench.bar("peer1", 2);
    bench.run(&[
        descriptor(opcode::COPY, flags::INTERRUPT, DATA, memory, bytes),
        descriptor(opcode::COPY, flags::SOURCE_LOCAL, 0, NOWHERE, 16),
    ]);
    bench.recording.finish().unwrap();
}

fn export(trace: &Path, out: &Path, terms: &[&str]) {
    let mut reader = open(trace);
    let (interfaces, filter) = (reader.interfaces(), Filter::new(terms).unwrap());
    let mut context = Context::new(reader.header(), reader.begun());
    let name = trace.file_name().unwrap().to_str().unwrap();
    let file = File::create(out).unwrap();
    let mut parquet = Parquet::new(file, name, reader.header(), reader.begun()).unwrap();
    for entry in reader.by_ref() {
        let entry = entry.unwrap();
        context.follow(&entry);
        let source = &interfaces[entry.interface as usize];
        let kept = filter.fits(&entry, &context);
        parquet.add(&entry, source, &context, kept).unwrap();
        context.leave(&entry);
    }
    parquet.finish().unwrap();
}

/// The answers; none where DuckDB is missing.
fn ask(folder: &Path, questions: &[String]) -> Option<Vec<Vec<String>>> {
    let mut command = Command::new("python3");
    command.arg("-c").arg(SCRIPT).current_dir(folder);
    for (index, question) in questions.iter().enumerate() {
        let file = folder.join(format!("{index}.sql"));
        fs::write(&file, question).unwrap();
        command.arg(file);
    }
    let Ok(output) = command.output() else {
        skip("no python3");
        return None;
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    if text == "SKIP\n" {
        skip("no python3 with the package duckdb");
        return None;
    }
    let answers = text.split_terminator("\n\n");
    Some(answers.map(|it| it.lines().map(str::to_owned).collect()).collect())
}

#[test]
fn duckdb_answers_the_documented_questions() {
    let Ok(page) = fs::read_to_string(PAGE) else {
        return skip("the documents are not part of the package");
    };
    let blocks = page.split("```sql\n").skip(1);
    let mut questions: Vec<String> =
        blocks.map(|block| block.split("```").next().unwrap().to_owned()).collect();
    assert_eq!(questions.len(), 3);
    questions.push("SELECT * FROM 'traces/a.parquet' WHERE kind = 'finding'".into());
    questions.push(
        "SELECT DISTINCT function, target_bar, target_offset FROM 'traces/*.parquet' WHERE kind = 'register-read'".into(),
    );
    questions.push("SELECT count(*), max(doorbell) FROM 'part.parquet'".into());
    questions
        .push("SELECT max(doorbell), min(begun) > '2020-01-01' FROM 'traces/a.parquet'".into());
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("traces")).unwrap();
    for (name, bytes) in [("a", 0x3000), ("b", 0x100)] {
        let trace = folder.path().join(name);
        record(&trace, bytes);
        export(&trace, &folder.path().join(format!("traces/{name}.parquet")), &[]);
    }
    export(&folder.path().join("a"), &folder.path().join("part.parquet"), &["purpose=data"]);
    let Some(answers) = ask(folder.path(), &questions) else { return };
    // Data is read and written, and written to nowhere; two descriptors and completion records; one interrupt.
    let routes = &answers[0];
    assert_eq!(routes[0], "trace,function,route,transactions,bytes");
    assert!(routes.contains(&"a|peer0|through-host-bridge|1|12288".to_owned()), "{routes:#?}");
    assert!(routes.contains(&"b|peer0|through-host-bridge|1|256".to_owned()), "{routes:#?}");
    assert!(routes.contains(&"a|peer0|interrupt|1|4".to_owned()), "{routes:#?}");
    assert_eq!(answers[1][0], "finding,function,times,traces,example");
    assert!(answers[1][1].starts_with("pci.no-target|peer0|2|2|#"), "{:#?}", answers[1]);
    assert_eq!(answers[1].len(), 2);
    let latencies = &answers[2];
    assert_eq!(latencies[0], "trace,function,interrupts,median_us,longest_us");
    assert_eq!(latencies.len(), 3, "{latencies:#?}");
    for row in &latencies[1..] {
        let cells: Vec<_> = row.split('|').collect();
        assert_eq!(cells[1..3], ["peer0", "1"]);
        let (median, longest): (f64, f64) = (cells[3].parse().unwrap(), cells[4].parse().unwrap());
        assert!(median > 0.0 && median <= longest && longest < 60e6, "{row}");
    }
    assert_eq!(answers[3].len(), 2, "{:#?}", answers[3]);
    assert_eq!(answers[4][1..], [format!("peer0|0|{}", layout::CHANNEL_BASE + channel::COMPLETED)]);
    // What a filter leaves out is still known: the doorbell of what it lets through.
    let (part, all) = (&answers[5][1], &answers[6][1]);
    let doorbell = all.strip_suffix("|True").unwrap();
    assert!(doorbell.parse::<u64>().unwrap() > 0);
    assert_eq!(*part, format!("3|{doorbell}"), "{part}");
}

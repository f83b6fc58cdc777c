//! A trace as a Parquet file, for questions over many of them: a row for each entry.
//!
//! Rows are written in groups, so that memory does not grow with the trace. docs/traces.md lists the columns.

mod columns;
mod row;

use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use parquet::basic::Compression;
use parquet::errors::ParquetError;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;

use self::columns::{COLUMNS, Values};
use self::row::Row;
use super::event::Header;
use super::filter::Context;
use super::flows::Flows;
use super::reader::Entry;

/// Rows of a group.
const ROWS: usize = 128 << 10;
/// Bytes of texts and data of a group, beyond which it ends sooner.
const BYTES: usize = 16 << 20;

/// Writes a trace as Parquet.
pub struct Parquet<W: Write + Send> {
    writer: SerializedFileWriter<W>,
    trace: String,
    /// Microseconds since 1970.
    begun: i64,
    flows: Flows,
    columns: Vec<Values>,
    rows: usize,
    bytes: usize,
}

impl<W: Write + Send> std::fmt::Debug for Parquet<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { trace, rows, .. } = self;
        f.debug_struct("Parquet").field("trace", trace).field("rows", rows).finish_non_exhaustive()
    }
}

impl<W: Write + Send> Parquet<W> {
    /// Begins one of the trace with this name and header, which was begun at this time since 1970.
    ///
    /// # Errors
    /// What `out` says.
    pub fn new(out: W, trace: &str, header: &Header, begun: Duration) -> io::Result<Self> {
        let mut message = "message entry {".to_owned();
        for (name, column) in &COLUMNS {
            message += &format!("optional {} {name}{};", column.physical(), column.logical());
        }
        message += "}";
        let schema = Arc::new(parse_message_type(&message).map_err(of_system)?);
        let properties = WriterProperties::builder()
            .set_created_by(concat!("peerdma ", env!("CARGO_PKG_VERSION")).to_owned())
            .set_compression(Compression::LZ4_RAW)
            // Indices of pages would stay in memory up to the end.
            .set_statistics_enabled(EnabledStatistics::Chunk)
            .set_offset_index_disabled(true)
            .build();
        let writer =
            SerializedFileWriter::new(out, schema, Arc::new(properties)).map_err(of_system)?;
        let begun = i64::try_from(begun.as_micros()).unwrap_or(i64::MAX);
        let columns = COLUMNS.iter().map(|(_, column)| column.values()).collect();
        let trace = trace.to_owned();
        Ok(Self { writer, trace, begun, flows: Flows::new(header), columns, rows: 0, bytes: 0 })
    }

    /// Takes notice of an entry, and adds it if it is `kept`. All entries of the trace must come, in their order.
    ///
    /// # Errors
    /// What the output says.
    pub fn add(
        &mut self,
        entry: &Entry,
        source: &str,
        context: &Context,
        kept: bool,
    ) -> io::Result<()> {
        let flow = self.flows.follow(entry, context);
        if !kept {
            return Ok(());
        }
        let row = Row::of(entry, context);
        let row =
            Row { trace: &self.trace, begun: self.begun, source, doorbell: flow.doorbell, ..row };
        let row = match flow.register {
            Some(register) => row.at(register, context),
            None => row,
        };
        for ((_, column), values) in COLUMNS.iter().zip(&mut self.columns) {
            self.bytes += column.push(&row, values);
        }
        self.rows += 1;
        if self.rows >= ROWS || self.bytes >= BYTES { self.group() } else { Ok(()) }
    }

    /// Writes what is left, and the file's end; gives back what it was written to.
    ///
    /// # Errors
    /// What the output says.
    pub fn finish(mut self) -> io::Result<W> {
        self.group()?;
        self.writer.into_inner().map_err(of_system)
    }

    fn group(&mut self) -> io::Result<()> {
        if self.rows == 0 {
            return Ok(());
        }
        let mut group = self.writer.next_row_group().map_err(of_system)?;
        for values in &mut self.columns {
            let Some(mut column) = group.next_column().map_err(of_system)? else { break };
            values.write(&mut column).and_then(|()| column.close()).map_err(of_system)?;
        }
        group.close().map_err(of_system)?;
        (self.rows, self.bytes) = (0, 0);
        Ok(())
    }
}

/// What the output says is within.
fn of_system(error: ParquetError) -> io::Error {
    match error {
        ParquetError::External(inner) => match inner.downcast::<io::Error>() {
            Ok(error) => *error,
            Err(error) => io::Error::other(error),
        },
        error => io::Error::other(error),
    }
}

#[cfg(test)]
mod tests {
    use parquet::file::reader::{FileReader, SerializedFileReader};

    use super::*;
    use crate::event::{Event, FindingEvent};

    fn groups(events: impl Iterator<Item = Event>) -> Vec<i64> {
        let mut file = tempfile::tempfile().unwrap();
        let mut parquet =
            Parquet::new(&mut file, "t", &Header::nothing(), Duration::from_secs(1)).unwrap();
        for (event, number) in events.zip(1..) {
            let entry = Entry { number, time: Duration::from_secs(2), interface: 0, event };
            parquet.add(&entry, "cpu", &Context::default(), true).unwrap();
        }
        parquet.finish().unwrap().flush().unwrap();
        let reader = SerializedFileReader::new(file).unwrap();
        reader.metadata().row_groups().iter().map(|group| group.num_rows()).collect()
    }

    #[test]
    fn a_group_ends_when_it_has_many_rows_or_bytes() {
        let steps = |count| std::iter::repeat_n(Event::Step { function: 0 }, count);
        assert_eq!(groups(steps(0)), [0; 0]);
        let rows = i64::try_from(ROWS).unwrap();
        assert_eq!(groups(steps(ROWS)), [rows]);
        assert_eq!(groups(steps(2 * ROWS + 1)), [rows, rows, 1]);
        let finding = |number: i64| {
            Event::Finding(FindingEvent {
                class: "x".into(),
                note: false,
                transaction: None,
                function: String::new(),
                text: format!("{number}{}", "x".repeat((64 << 10) - number.to_string().len())),
            })
        };
        let many = i64::try_from(BYTES >> 16).unwrap();
        assert_eq!(groups((0..many + 3).map(finding)), [many, 3]);
    }
}

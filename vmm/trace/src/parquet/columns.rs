//! The columns, and their values of one group of rows.

use parquet::data_type::{BoolType, ByteArray, ByteArrayType, DataType, Int64Type};
use parquet::errors::Result;
use parquet::file::writer::SerializedColumnWriter;

use super::row::Row;

/// Where a column's values come from, and by that of which type they are.
pub(super) enum Column {
    /// UTF-8.
    Text(for<'a> fn(&'a Row<'_>) -> Option<&'a str>),
    /// Bytes.
    Bytes(for<'a> fn(&'a Row<'_>) -> Option<&'a [u8]>),
    /// A number of 64 bits without a sign.
    Number(fn(&Row<'_>) -> Option<u64>),
    /// Microseconds since 1970.
    Time(fn(&Row<'_>) -> Option<i64>),
    /// Yes or no.
    Flag(fn(&Row<'_>) -> Option<bool>),
}

use Column::{Bytes, Flag, Number, Text, Time};

/// The columns. docs/traces.md explains each.
pub(super) const COLUMNS: [(&str, Column); 34] = [
    ("trace", Text(|row| Some(row.trace))),
    ("begun", Time(|row| Some(row.begun))),
    ("entry", Number(|row| Some(row.entry))),
    ("time_ns", Number(|row| Some(row.time_ns))),
    ("source", Text(|row| Some(row.source))),
    ("test", Text(|row| row.test)),
    ("kind", Text(|row| Some(row.kind))),
    ("function", Text(|row| row.function.as_deref())),
    ("requester", Text(|row| row.requester.as_deref())),
    ("purpose", Text(|row| row.purpose)),
    ("tlp", Number(|row| row.tlp)),
    ("tlps", Number(|row| row.tlps)),
    ("address", Number(|row| row.address)),
    ("length", Number(|row| row.length)),
    ("status", Text(|row| row.status)),
    ("route", Text(|row| row.route)),
    ("target", Text(|row| row.target.as_deref())),
    ("target_bar", Number(|row| row.target_bar)),
    ("target_address", Number(|row| row.target_address)),
    ("target_offset", Number(|row| row.target_offset)),
    ("digest", Number(|row| row.digest)),
    ("data", Bytes(|row| row.data)),
    ("doorbell", Number(|row| row.doorbell)),
    ("finding", Text(|row| row.finding)),
    ("note", Flag(|row| row.note)),
    ("text", Text(|row| row.text.as_deref())),
    ("result", Text(|row| row.result)),
    ("record", Text(|row| row.record)),
    ("direction", Text(|row| row.direction.as_deref())),
    ("guest_time_ns", Number(|row| row.guest_time_ns)),
    ("group", Number(|row| row.group)),
    ("buffer", Number(|row| row.buffer)),
    ("pid", Number(|row| row.pid)),
    ("task", Text(|row| row.task.as_deref())),
];

impl Column {
    /// The type in a message of Parquet's.
    pub(super) fn physical(&self) -> &'static str {
        match self {
            Text(_) | Bytes(_) => "byte_array",
            Number(_) | Time(_) => "int64",
            Flag(_) => "boolean",
        }
    }

    /// What that stands for.
    pub(super) fn logical(&self) -> &'static str {
        match self {
            Text(_) => " (STRING)",
            Number(_) => " (INTEGER(64,false))",
            Time(_) => " (TIMESTAMP(MICROS,true))",
            Bytes(_) | Flag(_) => "",
        }
    }

    /// Room for its values.
    pub(super) fn values(&self) -> Values {
        match self {
            Text(_) | Bytes(_) => Values::Bytes(List::default()),
            Number(_) | Time(_) => Values::Numbers(List::default()),
            Flag(_) => Values::Flags(List::default()),
        }
    }

    /// Adds the value of a row; how many bytes of text or data that is.
    pub(super) fn push(&self, row: &Row<'_>, values: &mut Values) -> usize {
        match (self, values) {
            (Text(of), Values::Bytes(list)) => list.push_bytes(of(row).map(str::as_bytes)),
            (Bytes(of), Values::Bytes(list)) => list.push_bytes(of(row)),
            // The bits stay the same; the schema says that there is no sign.
            (Number(of), Values::Numbers(list)) => list.push(of(row).map(u64::cast_signed)),
            (Time(of), Values::Numbers(list)) => list.push(of(row)),
            (Flag(of), Values::Flags(list)) => list.push(of(row)),
            // Room is made by the column itself.
            _ => 0,
        }
    }
}

/// The values of a column.
pub(super) enum Values {
    Bytes(List<ByteArray>),
    Numbers(List<i64>),
    Flags(List<bool>),
}

/// Those that are there, and for each row whether one is.
pub(super) struct List<T> {
    values: Vec<T>,
    levels: Vec<i16>,
}

impl<T> Default for List<T> {
    fn default() -> Self {
        Self { values: Vec::new(), levels: Vec::new() }
    }
}

impl<T> List<T> {
    fn push(&mut self, value: Option<T>) -> usize {
        self.levels.push(i16::from(value.is_some()));
        self.values.extend(value);
        0
    }
}

impl List<ByteArray> {
    fn push_bytes(&mut self, value: Option<&[u8]>) -> usize {
        // Most repeat the one before, and then share it.
        let value = match (self.values.last(), value) {
            (Some(last), Some(value)) if last.data() == value => Some((last.clone(), 0)),
            (_, value) => value.map(|value| (ByteArray::from(value.to_vec()), value.len())),
        };
        let length = value.as_ref().map_or(0, |(_, length)| *length);
        self.push(value.map(|(value, _)| value));
        length
    }
}

impl Values {
    /// Writes them, and is empty again.
    pub(super) fn write(&mut self, column: &mut SerializedColumnWriter<'_>) -> Result<()> {
        fn all<T: DataType>(
            list: &mut List<T::T>,
            column: &mut SerializedColumnWriter<'_>,
        ) -> Result<()> {
            column.typed::<T>().write_batch(&list.values, Some(&list.levels), None)?;
            list.values.clear();
            list.levels.clear();
            Ok(())
        }
        match self {
            Self::Bytes(list) => all::<ByteArrayType>(list, column),
            Self::Numbers(list) => all::<Int64Type>(list, column),
            Self::Flags(list) => all::<BoolType>(list, column),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table in the documentation, if that is there: a package has none.
    #[test]
    fn each_column_is_documented() {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/traces.md");
        let Ok(page) = std::fs::read_to_string(page) else {
            let line =
                "SKIP each_column_is_documented: the documents are not part of the package\n";
            std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes()).unwrap();
            return;
        };
        let (_, table) = page.split_once("| column | type | meaning |\n").unwrap();
        let rows = table.lines().skip(1).take_while(|line| line.starts_with('|'));
        let documented: Vec<_> = rows
            .flat_map(|row| {
                let cells: Vec<_> = row.split('|').map(str::trim).collect();
                let kind = cells[2].to_owned();
                let names: Vec<_> = cells[1].split(", ").collect();
                names.into_iter().map(move |name| format!("{name} {kind}")).collect::<Vec<_>>()
            })
            .collect();
        let columns = COLUMNS.iter().map(|(name, column)| {
            let kind = match column {
                Text(_) => "text",
                Bytes(_) => "bytes",
                Number(_) => "number",
                Time(_) => "time",
                Flag(_) => "yes or no",
            };
            format!("`{name}` {kind}")
        });
        assert_eq!(documented, columns.collect::<Vec<_>>());
    }
}

//! `peerdma trace convert`.

use std::fs::File;
use std::io::{self, BufReader, BufWriter};
use std::path::{Path, PathBuf};

use clap::Args;
use peerdma_support::say;
use peerdma_trace::{ConvertError, convert};

use super::super::replay::{failure, named, open_file};
use super::super::{Exit, Failure};
use super::output;

/// What to convert.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The trace in the JSON format
    #[arg(value_name = "OLD")]
    trace: PathBuf,
    /// Where the converted one goes
    #[arg(value_name = "NEW")]
    out: PathBuf,
}

pub(super) fn run(arguments: &Arguments) -> Result<u8, Failure> {
    let Arguments { trace, out } = arguments;
    let input = BufReader::new(open_file(trace)?);
    let file = Whole::create(out)?;
    let (events, whole) = convert(input, file.file()).map_err(|error| match error {
        ConvertError::Write(error) => Failure::environment(named(out, error)),
        ConvertError::Devices(error) => failure(trace, &error),
        ConvertError::Read(_) => Failure::environment(named(trace, error)),
        error => Failure::usage(named(trace, error)),
    })?;
    file.keep()?;
    if !whole {
        say!("the trace has no end mark: its recorder was killed, or the file was cut");
    }
    output::print(&format!("{events} entries\n"))?;
    Ok(Exit::Success as u8)
}

/// A file that appears when it is whole.
pub(super) struct Whole {
    file: tempfile::NamedTempFile,
    path: PathBuf,
}

impl Whole {
    pub(super) fn create(path: &Path) -> Result<Self, Failure> {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new("."));
        // What tempfile says has the name of a file in between.
        let failed = |error: io::Error| {
            let plain = std::fs::metadata(folder).err().unwrap_or_else(|| error.kind().into());
            Failure::environment(named(path, plain))
        };
        if path.is_dir() {
            return Err(Failure::usage(named(path, "it is a folder; name a file")));
        }
        let mut builder = tempfile::Builder::new();
        // As any other file that a program makes.
        let builder = builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let file = builder.tempfile_in(folder).map_err(failed)?;
        Ok(Self { file, path: path.to_owned() })
    }

    pub(super) fn file(&self) -> BufWriter<&File> {
        BufWriter::new(self.file.as_file())
    }

    pub(super) fn keep(self) -> Result<(), Failure> {
        let Self { file, path } = self;
        let kept = file.persist(&path).map_err(|error| io::Error::other(error.error));
        kept.map(drop).map_err(|error| Failure::environment(named(&path, error)))
    }
}

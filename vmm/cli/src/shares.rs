//! Where the time of a first run went: printed at its end.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::time::{Duration, Instant};

/// Names a file with what went on before this program ran, `SECONDS NAME` in each line: `make` writes it.
const VARIABLE: &str = "PEERDMA_SHARES";
/// Preparations that took less are not worth a word.
const WORTH_TELLING: Duration = Duration::from_secs(5);
/// No more of the file is read, in bytes.
const LIMIT: u64 = 4096;

/// Measures one part after the other.
#[derive(Debug)]
pub(super) struct Shares {
    begun: Instant,
    parts: Vec<(String, Duration)>,
}

impl Shares {
    /// Begins now, after what the variable's file has.
    pub(super) fn begin() -> Self {
        let before = std::env::var_os(VARIABLE).filter(|path| !path.is_empty());
        let parts = before.map(|path| earlier(Path::new(&path))).unwrap_or_default();
        Self { begun: Instant::now(), parts }
    }

    /// What went on since the last part is called `name`.
    pub(super) fn part(&mut self, name: &str) {
        let now = Instant::now();
        self.parts.push((name.to_owned(), now - self.begun));
        self.begun = now;
    }

    /// The line, unless all before the last part was quick.
    pub(super) fn line(&self) -> Option<String> {
        let (_, before) = self.parts.split_last()?;
        if before.iter().map(|(_, time)| *time).sum::<Duration>() < WORTH_TELLING {
            return None;
        }
        let all: Duration = self.parts.iter().map(|(_, time)| *time).sum();
        let parts = self.parts.iter().map(|(name, time)| (name, time.as_secs_f64().round()));
        let parts: Vec<_> = parts
            .filter(|(_, seconds)| *seconds >= 1.0)
            .map(|(name, seconds)| format!("{seconds} s for {name}"))
            .collect();
        Some(format!("{} s in all: {}", all.as_secs_f64().round(), parts.join(", ")))
    }
}

/// What another program measured, as far as it can be read. The file is used up: the next run has its own times.
fn earlier(path: &Path) -> Vec<(String, Duration)> {
    let mut text = String::new();
    let read = fs::File::open(path).and_then(|file| file.take(LIMIT).read_to_string(&mut text));
    if read.is_ok() {
        let _ = fs::remove_file(path);
    }
    let part = |line: &str| {
        let (seconds, name) = line.split_once(' ')?;
        Some((name.to_owned(), Duration::from_secs(seconds.parse().ok()?)))
    };
    text.lines().filter_map(part).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_run_that_prepared_for_long_is_worth_a_line() {
        let part = |name: &str, seconds| (name.to_owned(), Duration::from_secs_f64(seconds));
        let shares = |parts| Shares { begun: Instant::now(), parts };
        let quick = shares(vec![part("the kernel", 1.0), part("guests", 100.0)]);
        assert_eq!(quick.line(), None);
        let parts = vec![part("the program", 99.6), part("nothing", 0.2), part("guests", 7.5)];
        assert_eq!(
            shares(parts).line().unwrap(),
            "107 s in all: 100 s for the program, 8 s for guests"
        );
        assert_eq!(shares(Vec::new()).line(), None);
    }

    #[test]
    fn times_of_make_are_read_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("shares");
        fs::write(&path, "12 packages\nnonsense\n-3 x\n130 the program\n").unwrap();
        let seconds = Duration::from_secs;
        let expected =
            [("packages".to_owned(), seconds(12)), ("the program".to_owned(), seconds(130))];
        assert_eq!(earlier(&path), expected);
        assert_eq!(earlier(&path), []);
    }
}

//! A job: guests to run, with everything that running them needs. It is data, so that it can be handed to the same
//! program inside the nested test host.

use std::path::PathBuf;

use peerdma_machine::layout::COMMAND_LINE_CAPACITY;
use peerdma_topology::assembly::SystemConfig;
use peerdma_trace::RecordOptions;
use serde::{Deserialize, Serialize};

use super::exchange::Exchange;
use super::expectation::Expectation;
use super::hello::{self, Hello};
use crate::report::Setup;
use crate::stop::StopOn;
use crate::suppression::Suppression;

/// One guest's run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestRun {
    /// The scenario's name.
    pub name: String,
    /// Kernel parameters, one each.
    pub parameters: Vec<String>,
    /// Its initramfs, when it is not [`Job::initramfs`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initramfs: Option<PathBuf>,
    /// The answer to the guest's `hello`.
    pub hello: Hello,
    /// The devices.
    pub system: SystemConfig,
    /// The machine once more, as its report shows it; none where there is no report.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub setup: Option<Box<Setup>>,
    /// Guest RAM, in MiB.
    pub memory: u32,
    /// Virtual CPUs.
    pub cpus: u32,
    /// The guest is killed after this many seconds; none for an interactive guest.
    pub limit: Option<u64>,
    /// Fewer tests than this fail the run.
    pub at_least: usize,
    /// Findings that the command must or may bring about; of the lab's own tests, what each may.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub expectations: Vec<Expectation>,
    /// Findings that fail no test, each with the reason.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub suppressions: Vec<Suppression>,
    /// Findings at which the guest is frozen.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stop_on: Vec<StopOn>,
    /// Findings at which the guest is paused; only where there is a control channel, by which it can go on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pause_on: Vec<StopOn>,
    /// Whether a debugger may come; only for an interactive guest.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub gdb: bool,
    /// Where its console output goes besides; relative to [`Job::out`].
    pub console_log: Option<PathBuf>,
    /// Where the trace goes; relative to [`Job::record`].
    pub record: Option<PathBuf>,
    /// Whether the console is the user's terminal.
    pub interactive: bool,
    /// Whether each finding is reported, and those of one mistake not folded.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub all_findings: bool,
}

/// Guests to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// The guest kernel.
    pub kernel: PathBuf,
    /// The guest's initramfs.
    pub initramfs: PathBuf,
    /// The folder for console logs.
    pub out: PathBuf,
    /// The folder for traces.
    pub record: Option<PathBuf>,
    /// How they are recorded.
    #[serde(default)]
    pub recording: RecordOptions,
    /// How many guests run beside each other, at least 1.
    pub at_once: usize,
    /// The seed by which devices and processors stand still now and then; none if they do not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jitter: Option<u64>,
    /// What the interactive guest may fetch from this machine, and where its results go.
    #[serde(default, skip_serializing_if = "Exchange::is_empty")]
    pub exchange: Exchange,
    /// The guests, in the order in which they begin.
    pub runs: Vec<GuestRun>,
}

impl GuestRun {
    /// Whether all that the user put into it has room.
    ///
    /// # Errors
    /// What is too long.
    pub fn check(&self) -> Result<(), String> {
        hello::line(&self.hello).map_err(|error| error.to_string())?;
        let (length, most) = (self.command_line().len(), COMMAND_LINE_CAPACITY - 1);
        if length > most {
            return Err(format!(
                "the kernel's command line has {length} bytes, and {most} fit: give fewer or shorter parameters"
            ));
        }
        Ok(())
    }

    /// The kernel's command line.
    pub fn command_line(&self) -> String {
        self.parameters.join(" ")
    }
}

impl Job {
    /// How many seconds all guests may take together, one after the other; `None` if one of them has no limit.
    pub fn limit(&self) -> Option<u64> {
        self.runs.iter().try_fold(0_u64, |sum, run| Some(sum.saturating_add(run.limit?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hello::Mode;

    #[test]
    fn a_job_survives_the_way_into_the_test_host() {
        let run = GuestRun {
            name: "basic".into(),
            parameters: vec!["quiet".into()],
            initramfs: Some("/i2".into()),
            hello: Hello::new(Mode::Shell, "basic"),
            system: SystemConfig::default(),
            setup: None,
            memory: 512,
            cpus: 2,
            limit: Some(60),
            at_least: 3,
            expectations: vec!["iommu.stale:peer0".parse().unwrap()],
            suppressions: Suppression::parse_all("iommu.stale peer0 a* # why", "f").unwrap(),
            stop_on: vec!["finding".parse().unwrap(), "iommu.stale".parse().unwrap()],
            pause_on: vec!["fault".parse().unwrap()],
            gdb: true,
            console_log: Some("basic/console.log".into()),
            record: None,
            interactive: false,
            all_findings: true,
        };
        assert_eq!(run.check(), Ok(()));
        let long = |parameters| GuestRun { parameters, ..run.clone() };
        let just = long(vec!["x".repeat(2000), "y".repeat(46)]);
        assert_eq!((just.check(), just.command_line().len()), (Ok(()), 2047));
        let error = long(vec!["x".repeat(2000), "y".repeat(47)]).check().unwrap_err();
        assert!(error.contains("2048 bytes, and 2047 fit"), "{error}");
        let mut job = Job {
            kernel: "/k".into(),
            initramfs: "/i".into(),
            out: "/o".into(),
            record: None,
            recording: RecordOptions { limit: 7, ..RecordOptions::default() },
            at_once: 2,
            jitter: Some(u64::MAX),
            exchange: Exchange { results: Some("/r".into()), ..Exchange::default() },
            runs: vec![run.clone(), run],
        };
        let text = serde_json::to_string(&job).unwrap();
        assert_eq!(serde_json::from_str::<Job>(&text).unwrap(), job);
        assert_eq!(job.limit(), Some(120));
        job.runs[1].limit = None;
        assert_eq!(job.limit(), None);
    }
}

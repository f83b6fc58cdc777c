//! What this machine can do, line by line, with a fix for what it lacks.

use std::env;
use std::fmt;
use std::fs;
use std::path::PathBuf;

use peerdma_images::cache::Cache;
use peerdma_images::kernel::{self, Flavour, KernelRequest};
use peerdma_images::progress::Silent;
use peerdma_machine::kvm_probe::KvmProbe;
use serde::Serialize;

use crate::auto;
use crate::host::choice::{self, HostChoice, KvmState, Request};
use crate::host::qemu::{self, Qemu};
use crate::host::tools;
use crate::nested::{self, Recipe};
use crate::test_host::TestHostKernel;

/// Programs that building the guest's kernel and driver takes, and the Debian packages that have them.
const BUILD_TOOLS: &[(&str, &str)] = &[
    ("gcc", "gcc"),
    ("make", "make"),
    ("ld", "binutils"),
    ("flex", "flex"),
    ("bison", "bison"),
    ("bc", "bc"),
    ("perl", "perl"),
    ("xz", "xz-utils"),
    ("dpkg-deb", "dpkg"),
];
/// Programs that go into the guest.
const GUEST_TOOLS: &[(&str, &str)] = &[("busybox", "busybox-static"), ("lspci", "pciutils")];
/// Memory that a run takes at its peak, in MiB: the nested test host.
const MEMORY_MIB: u64 = 3500;
/// Room in the cache that sources and both kernels take, in MiB.
const DISK_MIB: u64 = 4096;

/// How a line of the table ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// It could be better, and there is a way without it.
    Note,
    /// It was not looked at.
    Skip,
    /// Something cannot be done.
    Fail,
}

/// One line of the table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was looked at.
    pub name: &'static str,
    /// How it is.
    pub level: Level,
    /// What was seen.
    pub detail: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

impl Check {
    fn ok(name: &'static str, detail: impl Into<String>) -> Self {
        Self { name, level: Level::Ok, detail: detail.into(), fix: None }
    }

    fn not(
        name: &'static str,
        level: Level,
        detail: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self { name, level, detail: detail.into(), fix: Some(fix.into()) }
    }
}

/// All lines, and what follows from them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diagnosis {
    /// The table.
    pub checks: Vec<Check>,
    /// Where guests will run; none if nowhere.
    pub place: Option<&'static str>,
    /// That, as a sentence with the reason.
    pub conclusion: String,
}

impl Diagnosis {
    /// Whether guests can be built and run.
    pub fn is_fit(&self) -> bool {
        self.place.is_some() && self.checks.iter().all(|check| check.level != Level::Fail)
    }
}

/// Looks at this machine. `prove` runs the payloads of [`kvm_probe`](peerdma_machine::kvm_probe) in a test host; it is asked where
/// guests will run in one.
pub fn diagnose(prove: impl FnOnce(&Qemu) -> Proof) -> Diagnosis {
    let kvm = crate::host::kvm_state();
    let qemu = Qemu::find();
    let mut checks = Vec::from(kvm_checks(&kvm));
    let needed = if kvm == KvmState::Works { Level::Note } else { Level::Fail };
    checks.push(match &qemu {
        Ok(qemu) => {
            let firmware =
                if qemu.quick_firmware().is_some() { "qboot" } else { "its own firmware (slower)" };
            let detail = format!(
                "{} ({}), -cpu {}, {firmware}",
                qemu.version,
                qemu.path.display(),
                qemu.cpu_model()
            );
            Check::ok("QEMU", detail)
        }
        Err(error) => Check::not("QEMU", needed, error.to_string(), "make setup"),
    });
    if let (true, Ok(qemu)) = (kvm != KvmState::Works, &qemu) {
        checks.push(emulation_check(prove(qemu), &qemu.cpu_model()));
    }
    let cache = Cache::open();
    checks.extend(cache_checks(cache.as_ref().map_err(ToString::to_string)));
    let is_there = |check: &Check| {
        matches!(check.name, "kernel (lab)" | "kernel (stock)") && check.level == Level::Ok
    };
    let built = checks.iter().any(is_there);
    checks.push(tools_check(
        "build tools",
        BUILD_TOOLS,
        if built { Level::Note } else { Level::Fail },
    ));
    checks.push(tools_check("guest tools", GUEST_TOOLS, Level::Fail));
    checks.push(memory_check(&fs::read_to_string("/proc/meminfo").unwrap_or_default()));
    let place = choice::decide(Request::Auto, Some(kvm), || qemu);
    let conclusion = match &place {
        Ok(place) => place.to_string(),
        Err(error) => error.to_string(),
    };
    Diagnosis { checks, place: place.ok().as_ref().map(HostChoice::name), conclusion }
}

/// What came of the payloads in a test host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proof {
    /// They ran, or its KVM does not open.
    Ran(KvmProbe),
    /// It did not come to that, although all is there; why.
    Lost(String),
    /// They were not run; why not.
    Skipped(String),
}

/// Runs the payloads in a test host that boots `kernel`, with `program`, this one, inside.
pub fn prove(qemu: &Qemu, kernel: TestHostKernel, program: PathBuf) -> Proof {
    let recipe = Recipe { qemu: qemu.clone(), kernel, program };
    let folder = match tempfile::tempdir() {
        Ok(folder) => folder,
        Err(error) => return Proof::Skipped(format!("there is no temporary folder: {error}")),
    };
    match nested::probe(&recipe, folder.path()) {
        Ok(probe) => Proof::Ran(probe),
        Err(error) => Proof::Lost(error.to_string()),
    }
}

fn emulation_check(proof: Proof, model: &str) -> Check {
    const NAME: &str = "emulated CPU";
    let fix = if env::var_os(qemu::CPU_VARIABLE).is_some_and(|model| !model.is_empty()) {
        format!("unset {}, which asks for {model}", qemu::CPU_VARIABLE)
    } else {
        format!("another QEMU, named by {}", qemu::VARIABLE)
    };
    match proof {
        Proof::Ran(probe) if probe.works() => Check::ok(NAME, format!("in a test host {probe}")),
        Proof::Ran(KvmProbe::Absent(_)) => {
            let why = format!(
                "a test host on {model} has no KVM: guests need SVM and nested paging (+svm,+npt)"
            );
            Check::not(NAME, Level::Fail, why, fix)
        }
        Proof::Ran(probe) => Check::not(NAME, Level::Fail, format!("in a test host {probe}"), fix),
        Proof::Lost(why) => Check::not(NAME, Level::Fail, why, fix),
        Proof::Skipped(why) => {
            let fix = "peerdma kernel build --kernel stock (or the first test does it), then peerdma doctor again";
            Check::not(NAME, Level::Skip, format!("not proved: {why}"), fix)
        }
    }
}

fn kvm_checks(state: &KvmState) -> [Check; 2] {
    match state {
        KvmState::Works => [
            Check::ok("KVM opens", "/dev/kvm"),
            Check::ok("KVM runs", "a payload of what kernels use came through"),
        ],
        KvmState::Broken(why) => [
            Check::ok("KVM opens", "/dev/kvm"),
            Check::not(
                "KVM runs",
                Level::Note,
                why,
                "nothing to do here: guests run in the nested test host instead",
            ),
        ],
        KvmState::Absent(why) => {
            let fix = "load kvm_intel or kvm_amd, and join the group kvm; without it guests run nested, more slowly";
            [
                Check::not("KVM opens", Level::Note, why, fix),
                Check::not("KVM runs", Level::Note, "it does not open", fix),
            ]
        }
    }
}

fn cache_checks(cache: Result<&Cache, String>) -> Vec<Check> {
    let cache = match cache {
        Ok(cache) => cache,
        Err(error) => {
            return vec![Check::not(
                "cache",
                Level::Fail,
                error,
                "set XDG_CACHE_HOME to a folder that can be written",
            )];
        }
    };
    let folder = cache.root().display();
    let mut checks = vec![match cache.available() {
        Ok(bytes) if bytes >> 20 >= DISK_MIB => {
            Check::ok("cache", format!("{folder}, {} GiB free", bytes >> 30))
        }
        Ok(bytes) => {
            let detail =
                format!("{folder}, {} MiB free; building kernels takes {DISK_MIB}", bytes >> 20);
            Check::not(
                "cache",
                Level::Note,
                detail,
                "make room, or set XDG_CACHE_HOME to a roomier place",
            )
        }
        Err(error) => Check::not(
            "cache",
            Level::Fail,
            error.to_string(),
            "set XDG_CACHE_HOME to another folder",
        ),
    }];
    let lab = format!(
        "peerdma kernel build (about {}); until then the stock kernel serves",
        auto::build_time()
    );
    let stock = "peerdma kernel build --kernel stock (a minute), or the first test without a lab kernel does it";
    for (name, flavour, command) in [
        ("kernel (lab)", Flavour::Lab, &*lab),
        ("kernel (stock)", Flavour::Stock, stock),
        (
            "kernel (debug)",
            Flavour::Debug,
            "peerdma kernel build --kernel debug, or the first test with --kernel debug does it",
        ),
        (
            "kernel (lts)",
            Flavour::Lts,
            "peerdma kernel build --kernel lts, or the first test with --kernel lts does it",
        ),
    ] {
        let found = kernel::find(cache, &KernelRequest::from_environment(flavour), &Silent);
        checks.push(match found {
            Ok(Some(kernel)) => Check::ok(name, format!("Linux {} in the cache", kernel.release)),
            Ok(None) => Check::not(name, Level::Note, "not in the cache yet", command),
            Err(error) => Check::not(name, Level::Note, error.to_string(), command),
        });
    }
    checks
}

fn tools_check(name: &'static str, tools: &[(&str, &str)], level: Level) -> Check {
    let missing: Vec<_> =
        tools.iter().filter(|(program, _)| tools::find(program).is_none()).collect();
    if missing.is_empty() {
        let all: Vec<_> = tools.iter().map(|(program, _)| *program).collect();
        return Check::ok(name, all.join(", "));
    }
    let programs: Vec<_> = missing.iter().map(|(program, _)| *program).collect();
    let packages: Vec<_> = missing.iter().map(|(_, package)| *package).collect();
    let fix = format!("make setup (packages {})", packages.join(", "));
    Check::not(name, level, format!("missing: {}", programs.join(", ")), fix)
}

fn memory_check(meminfo: &str) -> Check {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib: Option<u64> = line.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    match kib.map(|kib| kib >> 10) {
        Some(mib) if mib >= MEMORY_MIB => {
            Check::ok("memory", format!("{} GiB available", mib >> 10))
        }
        Some(mib) => {
            let detail = format!("{mib} MiB available; a run takes up to {MEMORY_MIB}");
            Check::not(
                "memory",
                Level::Note,
                detail,
                "close something, or run the tests on a larger machine",
            )
        }
        None => Check::not("memory", Level::Note, "unknown", "mount /proc"),
    }
}

impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.checks.iter().map(|check| check.name.len()).max().unwrap_or(0);
        for check in &self.checks {
            let mark = match check.level {
                Level::Ok => "ok  ",
                Level::Note => "note",
                Level::Skip => "skip",
                Level::Fail => "FAIL",
            };
            writeln!(f, "{mark}  {:width$}  {}", check.name, check.detail)?;
            if let Some(fix) = &check.fix {
                writeln!(f, "      {:width$}  fix: {fix}", "")?;
            }
        }
        writeln!(f, "\n{}", self.conclusion)
    }
}

#[cfg(test)]
mod tests {
    use peerdma_machine::kvm_probe::{Instruction, Verdict};

    use super::*;

    #[test]
    fn every_line_that_is_not_fine_has_a_fix() {
        let diagnosis = diagnose(|_| Proof::Skipped("a test".into()));
        for check in &diagnosis.checks {
            assert_eq!(check.level == Level::Ok, check.fix.is_none(), "{check:?}");
        }
        assert!(!diagnosis.conclusion.is_empty());
    }

    #[test]
    fn the_emulated_cpu_is_never_fine_without_proof() {
        let ran = |verdict| {
            let results =
                vec![(Instruction::Plain, Verdict::Works), (Instruction::UserPorts, verdict)];
            Proof::Ran(KvmProbe::Opened(results))
        };
        let check = |proof| emulation_check(proof, "qemu64");
        assert_eq!(check(ran(Verdict::Works)).level, Level::Ok);
        let fails = check(ran(Verdict::Fails("no answer".into())));
        assert_eq!(fails.level, Level::Fail);
        assert!(fails.detail.contains("port I/O at CPL 3 failed (no answer)"), "{}", fails.detail);
        let absent = check(Proof::Ran(KvmProbe::Absent("no /dev/kvm".into())));
        assert_eq!(absent.level, Level::Fail);
        assert!(absent.detail.contains("on qemu64 has no KVM"), "{}", absent.detail);
        assert_eq!(check(Proof::Lost("it hung".into())).level, Level::Fail);
        let skipped = check(Proof::Skipped("no kernel".into()));
        assert_eq!(
            (skipped.level, skipped.detail.as_str()),
            (Level::Skip, "not proved: no kernel")
        );
    }

    #[test]
    fn memory_is_read_from_the_kernel_s_table() {
        assert_eq!(memory_check("MemTotal: 1 kB\nMemAvailable:   8388608 kB\n").level, Level::Ok);
        assert_eq!(memory_check("MemAvailable:   1024 kB\n").level, Level::Note);
        assert_eq!(memory_check("").level, Level::Note);
    }

    #[test]
    fn missing_tools_are_named_with_their_package() {
        let check =
            tools_check("x", &[("no-such-tool", "its-package"), ("sh", "dash")], Level::Fail);
        assert_eq!(check.detail, "missing: no-such-tool");
        assert_eq!(check.fix.as_deref(), Some("make setup (packages its-package)"));
    }

    #[test]
    fn the_table_ends_with_where_and_why() {
        let diagnosis = Diagnosis {
            checks: kvm_checks(&KvmState::Broken("it stumbles".into())).into(),
            place: Some("nested"),
            conclusion: "guests run nested: it stumbles".into(),
        };
        let text = diagnosis.to_string();
        assert!(text.contains("note  KVM runs   it stumbles\n"), "{text}");
        assert!(text.ends_with("\nguests run nested: it stumbles\n"), "{text}");
        assert!(diagnosis.is_fit());
    }
}

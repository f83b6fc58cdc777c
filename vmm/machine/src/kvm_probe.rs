//! Is KVM usable? Answered by running code, because a KVM that opens and answers every query may still fail on the
//! first instruction that it has to emulate and cannot: on hosts whose own virtualisation is emulated, all guest code
//! at CPL 0 is such code.
//!
//! Each payload runs in a guest of its own, in long mode, on the same machine that boots kernels.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kvm_bindings::KVM_MAX_CPUID_ENTRIES;
use kvm_ioctls::Kvm;
use serde::{Deserialize, Serialize};

use super::kvm_payload as payload;
use crate::protocol_port::ExitOnly;
use crate::{
    Backends, CpuProfile, EmptyBus, FlatProgram, Machine, MachineConfig, MachineError, Platform,
    RunEnd, Workload,
};

/// What one payload may take on a processor. They run a few dozen instructions; a guest that takes longer hangs, or the
/// machine is busy.
pub const LIMIT: Duration = Duration::from_millis(50);
/// By how much more the second attempt may take of a payload that has not answered in its time.
const PATIENCE: u32 = 10;
const RAM_MIB: u32 = 4;
const LOAD_ADDRESS: u64 = 0x10_0000;
const STACK: u64 = 0x20_0000;

/// Instructions that every stock kernel executes at CPL 0, and that an emulating KVM fails on; and what the guest's agent
/// does at CPL 3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Instruction {
    /// Port output and integer code: what even a crippled KVM does.
    Plain,
    /// `cmpxchg16b`.
    Cmpxchg16b,
    /// `xsetbv`, `xsave`, `xrstor`, and what `cpuid` says about them.
    Xsave,
    /// `int3`, with a handler.
    Int3,
    /// `andn`, of BMI1.
    Andn,
    /// Port input and output at CPL 3, by permission of the task state segment's bitmap.
    UserPorts,
    /// A protocol call at CPL 3, its buffer in pages that SMAP keeps from CPL 0.
    UserCall,
}

impl Instruction {
    /// All, the plainest first.
    pub const ALL: [Self; 7] = [
        Self::Plain,
        Self::Cmpxchg16b,
        Self::Xsave,
        Self::Int3,
        Self::Andn,
        Self::UserPorts,
        Self::UserCall,
    ];

    /// As an assembler spells it, or what it is.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "out",
            Self::Cmpxchg16b => "cmpxchg16b",
            Self::Xsave => "xsave",
            Self::Int3 => "int3",
            Self::Andn => "andn",
            Self::UserPorts => "port I/O at CPL 3",
            Self::UserCall => "protocol call at CPL 3",
        }
    }

    fn code(self) -> Vec<u8> {
        match self {
            Self::Plain => payload::plain(),
            Self::Cmpxchg16b => payload::cmpxchg16b(),
            Self::Xsave => payload::xsave(),
            Self::Int3 => payload::int3(),
            Self::Andn => payload::andn(),
            Self::UserPorts => payload::user::ports(),
            Self::UserCall => payload::user::protocol_call(),
        }
    }
}

/// What became of one payload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// It ran and did what it should.
    Works,
    /// The processor, or KVM's idea of it, does not have it: no kernel will use it.
    NotThere,
    /// It did not run; what KVM said.
    Fails(String),
}

/// What KVM is good for on a machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum KvmProbe {
    /// There is no KVM to speak of; why, and the way out.
    Absent(String),
    /// It opens; what came of each instruction.
    Opened(Vec<(Instruction, Verdict)>),
}

impl KvmProbe {
    /// Whether stock kernels run.
    pub fn works(&self) -> bool {
        match self {
            Self::Absent(_) => false,
            Self::Opened(results) => {
                !results.iter().any(|(_, verdict)| matches!(verdict, Verdict::Fails(_)))
            }
        }
    }
}

impl fmt::Display for KvmProbe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let results = match self {
            Self::Absent(reason) => return f.write_str(reason),
            Self::Opened(results) => results,
        };
        let named = |wanted: fn(&Verdict) -> bool| {
            let names = results
                .iter()
                .filter(|(_, verdict)| wanted(verdict))
                .map(|(instruction, _)| instruction.name());
            names.collect::<Vec<_>>().join(", ")
        };
        let failed = named(|verdict| matches!(verdict, Verdict::Fails(_)));
        if failed.is_empty() {
            return write!(
                f,
                "KVM runs kernels: {} work",
                named(|verdict| *verdict == Verdict::Works)
            );
        }
        write!(f, "KVM opens but does not run stock kernels: {failed} failed")?;
        let first = results.iter().find_map(|(_, verdict)| match verdict {
            Verdict::Fails(why) => Some(why),
            _ => None,
        });
        first.map_or(Ok(()), |why| write!(f, " ({why})"))?;
        let absent = named(|verdict| *verdict == Verdict::NotThere);
        if absent.is_empty() { Ok(()) } else { write!(f, "; it does not offer {absent}") }
    }
}

/// Probes the KVM of the machine that this runs on. Never hangs: each payload has `limit`, and, where that was not enough,
/// ten times that once more.
pub fn probe(limit: Duration) -> KvmProbe {
    let features = match Features::of_host() {
        Ok(features) => features,
        Err(error) => return KvmProbe::Absent(error.to_string()),
    };
    let mut results = Vec::new();
    for instruction in Instruction::ALL {
        let verdict = if features.has(instruction) {
            patiently(instruction, limit)
        } else {
            Ok(Verdict::NotThere)
        };
        match verdict {
            Ok(verdict) => results.push((instruction, verdict)),
            Err(error) => return KvmProbe::Absent(error.to_string()),
        }
    }
    KvmProbe::Opened(results)
}

/// What the guest's processor would have.
struct Features {
    cmpxchg16b: bool,
    xsave: bool,
    bmi1: bool,
}

impl Features {
    fn of_host() -> Result<Self, MachineError> {
        let kvm = Kvm::new().map_err(|error| MachineError::KvmOpen(error.into()))?;
        let supported = kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES);
        let supported = supported.map_err(MachineError::kvm("KVM_GET_SUPPORTED_CPUID"))?;
        let leaf = |function| {
            supported.as_slice().iter().find(|entry| entry.function == function && entry.index == 0)
        };
        let (ecx1, ebx7) =
            (leaf(1).map_or(0, |entry| entry.ecx), leaf(7).map_or(0, |entry| entry.ebx));
        Ok(Self {
            cmpxchg16b: ecx1 & 1 << 13 != 0,
            xsave: ecx1 & 1 << 26 != 0,
            bmi1: ebx7 & 1 << 3 != 0,
        })
    }

    fn has(&self, instruction: Instruction) -> bool {
        match instruction {
            Instruction::Plain
            | Instruction::Int3
            | Instruction::UserPorts
            | Instruction::UserCall => true,
            Instruction::Cmpxchg16b => self.cmpxchg16b,
            Instruction::Xsave => self.xsave,
            Instruction::Andn => self.bmi1,
        }
    }
}

fn patiently(instruction: Instruction, limit: Duration) -> Result<Verdict, MachineError> {
    match run(instruction, limit)? {
        Some(verdict) => Ok(verdict),
        None => {
            let limit = limit * PATIENCE;
            let silent = || Verdict::Fails(format!("no answer in {} ms", limit.as_millis()));
            Ok(run(instruction, limit)?.unwrap_or_else(silent))
        }
    }
}

/// `None` when there was no answer in time.
fn run(instruction: Instruction, limit: Duration) -> Result<Option<Verdict>, MachineError> {
    let begin = Instant::now();
    let platform = Platform::new(1, RAM_MIB)?;
    let program = FlatProgram { code: instruction.code(), address: LOAD_ADDRESS, stack: STACK };
    let config = MachineConfig {
        workload: Workload::Flat(program),
        cpu_profile: CpuProfile::default(),
        pci: None,
    };
    let backends = Backends { console: Box::new(std::io::sink()), protocol: Box::new(ExitOnly) };
    let machine = Machine::new(platform, config, Arc::new(EmptyBus), backends)?;
    let outcome = machine.run(Some(limit))?;
    log::debug!("probe of {}: {outcome}, {:?}", instruction.name(), begin.elapsed());
    Ok(Some(match outcome {
        RunEnd::Exit(0) => Verdict::Works,
        RunEnd::Exit(_) => {
            Verdict::Fails("it did something else than the processor's manual says".into())
        }
        RunEnd::Stopped => return Ok(None),
        RunEnd::Fault(fault) => Verdict::Fails(fault.kind.to_string()),
        other => Verdict::Fails(other.to_string()),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_probe_answers_quickly_whatever_this_machine_is() {
        let begin = Instant::now();
        let probe = probe(LIMIT);
        let took = begin.elapsed();
        eprintln!("{probe} ({took:?})");
        match &probe {
            KvmProbe::Absent(reason) => assert!(!reason.is_empty()),
            KvmProbe::Opened(results) => {
                assert_eq!(results.first(), Some(&(Instruction::Plain, Verdict::Works)));
                assert_eq!(results.len(), Instruction::ALL.len());
            }
        }
        // The figure to meet is 200 ms; the rest is for busy machines.
        assert!(took < Duration::from_secs(10));
    }

    #[test]
    fn the_answer_names_what_failed() {
        let results = vec![
            (Instruction::Plain, Verdict::Works),
            (Instruction::Xsave, Verdict::Fails("suberror 1".into())),
            (Instruction::Andn, Verdict::NotThere),
        ];
        let probe = KvmProbe::Opened(results);
        assert!(!probe.works());
        let text = probe.to_string();
        assert!(text.contains("opens but does not run stock kernels: xsave failed"), "{text}");
        assert!(text.ends_with("it does not offer andn"), "{text}");
        let probe = KvmProbe::Opened(vec![
            (Instruction::Plain, Verdict::Works),
            (Instruction::Andn, Verdict::NotThere),
        ]);
        assert!(probe.works());
    }
}

//! All interleavings of two CPUs that map and unmap the same address: no correct program is blamed,
//! and no mistake goes unseen that can be seen.

use super::*;

const X: u64 = 0x1000;
const LENGTH: u64 = 64;

/// What a CPU does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    Map,
    /// Reported after the address is free, as `dma_unmap_phys()`.
    UnmapLate,
    /// Reported before the IOMMU knows, as `dma_unmap_sg()`.
    UnmapEarly,
    /// The device uses the address.
    Dma,
    /// The rings are emptied for some other reason.
    Drain,
}

/// What happens at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// The address is given out, and the IOMMU translates it.
    Take,
    /// The IOMMU serves the UNMAP.
    Untranslate,
    /// The address may be given out again.
    Free,
    Ticket,
    /// The record that got the last ticket is there.
    Commit(What),
    Dma,
    Drain,
}

fn steps(program: &[Operation]) -> Vec<Step> {
    use Step::{Commit, Free, Take, Ticket, Untranslate};
    let of = |operation: &Operation| match operation {
        Operation::Map => vec![Take, Ticket, Commit(What::Map)],
        Operation::UnmapLate => vec![Untranslate, Free, Ticket, Commit(What::Unmap)],
        Operation::UnmapEarly => vec![Ticket, Commit(What::Unmap), Untranslate, Free],
        Operation::Dma => vec![Step::Dma],
        Operation::Drain => vec![Step::Drain],
    };
    program.iter().flat_map(of).collect()
}

/// Two CPUs, each with its program, and the function that it works with.
struct Machine {
    rig: Rig,
    functions: [FunctionId; 2],
    /// Which CPU has the address, with an IOMMU.
    owner: Option<usize>,
    /// Whether the IOMMU translates it.
    translated: bool,
    ticket: u64,
    tickets: [u64; 2],
    rings: Vec<(u64, Said)>,
    /// Mappings that have been reported and whose unmap has not, by function, as far as the rings go.
    reported: [i32; 2],
}

#[derive(Debug, PartialEq, Eq)]
enum StepResult {
    Nothing,
    /// The device used the address; it was blamed; it may have gone unseen.
    Used {
        blamed: bool,
        excused: bool,
    },
}

impl Machine {
    fn new(iommu: bool, functions: [FunctionId; 2]) -> Self {
        let mut rig = Rig::new(iommu);
        rig.together = true;
        Self {
            rig,
            functions,
            owner: None,
            translated: false,
            ticket: 0,
            tickets: [0; 2],
            rings: Vec::new(),
            reported: [0; 2],
        }
    }

    fn drain(&mut self) {
        self.rings.sort_by_key(|(ticket, _)| *ticket);
        for (_, said) in std::mem::take(&mut self.rings) {
            self.rig.hear(said);
        }
    }

    fn step(&mut self, cpu: usize, step: Step) -> StepResult {
        let function = self.functions[cpu];
        match step {
            Step::Take => {
                self.owner = Some(cpu);
                self.translated = true;
            }
            Step::Untranslate => {
                self.translated = false;
                if self.rig.translated {
                    // As the fabric does when the IOMMU has served requests.
                    self.drain();
                    let page = AddressRange::new(X, 0x1000).unwrap();
                    self.rig.witness.translation_ended(page, |_| true);
                }
            }
            Step::Free => self.owner = None,
            Step::Ticket => {
                self.ticket += 1;
                self.tickets[cpu] = self.ticket;
            }
            Step::Commit(kind) => {
                let ticket = self.tickets[cpu];
                let said = say(kind, ticket).at(X, LENGTH).to(Direction::ToDevice).of(function);
                self.rings.push((ticket, said));
                self.reported[function.index()] += if kind == What::Map { 1 } else { -1 };
            }
            Step::Drain => self.drain(),
            Step::Dma => {
                self.drain();
                let range = AddressRange::new(X, LENGTH).unwrap();
                let judged = self.rig.witness.judge(function, READ, X, range, 1);
                let in_force = match self.rig.translated {
                    true => {
                        let owner = self.owner.map(|owner| self.functions[owner]);
                        self.translated && owner == Some(function)
                    }
                    false => self.reported[function.index()] > 0,
                };
                return StepResult::Used { blamed: judged != Judgement::Fine, excused: in_force };
            }
        }
        StepResult::Nothing
    }
}

/// Calls `run` with each order of the steps of two programs that is possible.
fn all(iommu: bool, programs: &[Vec<Step>; 2], run: &mut impl FnMut(&[usize])) {
    fn go(
        iommu: bool,
        programs: &[Vec<Step>; 2],
        at: [usize; 2],
        owned: bool,
        order: &mut Vec<usize>,
        run: &mut impl FnMut(&[usize]),
    ) {
        if at == [programs[0].len(), programs[1].len()] {
            return run(order);
        }
        for cpu in 0..2 {
            let Some(&step) = programs[cpu].get(at[cpu]) else { continue };
            // An IOMMU's addresses are given out once at a time.
            if iommu && step == Step::Take && owned {
                continue;
            }
            let owned = match step {
                Step::Take => true,
                Step::Free => false,
                _ => owned,
            };
            let mut next = at;
            next[cpu] += 1;
            order.push(cpu);
            go(iommu, programs, next, owned, order, run);
            order.pop();
        }
    }
    go(iommu, programs, [0, 0], false, &mut Vec::new(), run);
}

/// Runs all interleavings; those of CPU 0's uses of the address from number `correct` on are
/// mistakes. How many interleavings there were, and how many mistakes were seen.
fn try_all(
    iommu: bool,
    functions: [FunctionId; 2],
    programs: [&[Operation]; 2],
    correct: usize,
) -> (usize, usize) {
    let programs = programs.map(steps);
    let (mut orders, mut seen) = (0, 0);
    all(iommu, &programs, &mut |order| {
        orders += 1;
        let mut machine = Machine::new(iommu, functions);
        let (mut at, mut uses) = ([0, 0], [0, 0]);
        for &cpu in order {
            let outcome = machine.step(cpu, programs[cpu][at[cpu]]);
            at[cpu] += 1;
            let StepResult::Used { blamed, excused } = outcome else { continue };
            let allowed = cpu == 1 || uses[0] < correct;
            uses[cpu] += 1;
            if allowed {
                assert!(
                    !blamed,
                    "blamed for nothing: {iommu} {functions:?} {programs:?} {order:?}"
                );
            } else {
                assert!(blamed || excused, "unseen: {iommu} {functions:?} {programs:?} {order:?}");
                seen += usize::from(blamed);
            }
        }
        machine.drain();
        assert_eq!(machine.rig.witness.counters().unknown_unmaps, 0, "{programs:?} {order:?}");
        assert_eq!(machine.rig.witness.counters().live, 0, "{programs:?} {order:?}");
    });
    (orders, seen)
}

const UNMAPS: [Operation; 2] = [Operation::UnmapLate, Operation::UnmapEarly];

fn settings() -> impl Iterator<Item = (bool, [FunctionId; 2], Operation, Operation)> {
    let all = [false, true]
        .into_iter()
        .flat_map(|iommu| [[A, A], [A, B]].into_iter().map(move |functions| (iommu, functions)));
    all.flat_map(|(iommu, functions)| {
        UNMAPS.into_iter().flat_map(move |a| UNMAPS.map(|b| (iommu, functions, a, b)))
    })
}

#[test]
fn correct_programs_are_never_blamed() {
    use Operation::{Dma, Drain, Map};
    let mut orders = 0;
    for (iommu, functions, a, b) in settings() {
        let once: &[Operation] = &[Map, Dma, b];
        orders += try_all(iommu, functions, [&[Map, Dma, a], once], usize::MAX).0;
        orders += try_all(iommu, functions, [&[Map, Dma, a, Drain], &[Map, b]], usize::MAX).0;
        // The same CPU maps it once more.
        orders += try_all(iommu, functions, [&[Map, a, Map, Dma, a], &[Drain, Dma][..1]], 9).0;
        orders += try_all(iommu, functions, [&[Map, a], &[Map, b, Map, Dma, b]], usize::MAX).0;
    }
    assert!(orders > 50_000, "{orders}");
}

#[test]
fn a_use_after_the_unmap_is_seen() {
    use Operation::{Dma, Drain, Map};
    for (iommu, functions, a, b) in settings() {
        let (orders, seen) = try_all(iommu, functions, [&[Map, Dma, a, Dma], &[Map, b]], 1);
        assert!(seen > 0 && orders > seen / 2, "{iommu} {functions:?} {a:?} {b:?}");
        let (orders, seen) = try_all(iommu, functions, [&[Map, a, Dma], &[Drain]], 0);
        assert_eq!(orders, seen, "no other CPU has mapped it");
    }
}

#[test]
fn a_use_before_the_map_is_seen() {
    use Operation::{Dma, Map};
    for (iommu, functions, a, b) in settings() {
        let (_, seen) = try_all(iommu, functions, [&[Dma, Map, a], &[Map, b]], 0);
        assert!(seen > 0);
    }
}

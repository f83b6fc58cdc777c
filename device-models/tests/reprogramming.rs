//! A guest that reprograms bridges, and devices that are pulled, at the worst moment: nothing
//! crashes, requests fail as they do on hardware, and when everything is as before, everything
//! works as before.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod common;

use std::collections::BTreeSet;

use common::{Order, Saw, World};
use device_models::endpoint::Progress;
use device_models::fabric::{CompletionStatus, WriteOutcome};
use device_models::iommu::NoIommu;
use device_models::pci::Bdf;
use device_models::system::ConfigMapping;
use proptest::prelude::*;
use vm_memory::Bytes;

/// Bridges of [`World::switch`], from the root down.
const BRIDGES: [&str; 4] = ["port0", "up", "down0", "down1"];
/// Registers of a bridge that decide where requests go: command, bus numbers, windows, bridge
/// control.
const REGISTERS: [(u16, u8); 8] =
    [(0x04, 2), (0x18, 4), (0x20, 4), (0x24, 4), (0x28, 4), (0x2c, 4), (0x3e, 2), (0x08, 4)];

#[derive(Debug, Clone)]
enum Act {
    /// Write a register of a bridge, wherever its number has led it.
    Program { bridge: usize, register: usize, value: u32 },
    /// The ACS control of a downstream port.
    Acs { port: usize, value: u32 },
    /// A robot's DMA: to the other's BAR (or its own), a little off or not.
    Transfer { robot: usize, target: usize, bar: u8, offset: i32, length: usize, write: bool },
    /// What is below a bridge is pulled out of its slot, or plugged in again.
    Slot { bridge: usize, filled: bool },
    /// A robot is reset (function level).
    Reset { robot: usize },
    /// Let the system run a little.
    Step(u8),
}

fn value() -> impl Strategy<Value = u32> {
    // Small numbers and the neighbourhood of real windows find more than noise.
    prop_oneof![any::<u32>(), 0u32..8, 0xc000_0000u32..0xc080_0000, Just(0x0001_0100), Just(0)]
}

fn act() -> impl Strategy<Value = Act> {
    let program = (0..BRIDGES.len(), 0..REGISTERS.len(), value())
        .prop_map(|(bridge, register, value)| Act::Program { bridge, register, value });
    let acs = (2..4usize, 0u32..0x80).prop_map(|(port, value)| Act::Acs { port, value });
    let bars = prop_oneof![Just(0u8), Just(2), Just(4)];
    let transfer = (0..2usize, 0..2usize, bars, -16..4096i32, 1..5000usize, any::<bool>())
        .prop_map(|(robot, target, bar, offset, length, write)| Act::Transfer {
            robot,
            target,
            bar,
            offset,
            length,
            write,
        });
    let slot =
        (0..BRIDGES.len(), any::<bool>()).prop_map(|(bridge, filled)| Act::Slot { bridge, filled });
    let reset = (0..2usize).prop_map(|robot| Act::Reset { robot });
    let step = (1..20u8).prop_map(Act::Step);
    prop_oneof![3 => program, 1 => acs, 3 => transfer, 1 => slot, 1 => reset, 3 => step]
}

/// The registers of all bridges as the firmware left them.
fn snapshot(world: &mut World) -> Vec<(Bdf, u16, u8, u32)> {
    let mut saved = Vec::new();
    for name in BRIDGES {
        let bdf = world.bdf(name);
        for (offset, length) in REGISTERS {
            saved.push((bdf, offset, length, world.system.config_read(bdf, offset, length)));
        }
    }
    saved
}

/// What CPUs read of all configuration spaces without asking is what they would read. `places`
/// is where those are that answered once: where one does not answer now, its memory says so, for
/// users that still have it mapped.
fn mirrors_agree(world: &mut World, places: &[ConfigMapping]) -> bool {
    let mappings = world.system.config_mappings();
    let is_mapped =
        |place: &ConfigMapping| mappings.iter().any(|mapping| mapping.offset == place.offset);
    let dword = |mapping: &ConfigMapping, at: u16| {
        let slice = mapping.memory.slice(mapping.offset + u64::from(at), 4).unwrap();
        slice.read_obj::<u32>(0).unwrap()
    };
    // All registers of the header and of the capabilities that there are.
    let dwords = || (0..0x200u16).step_by(4);
    let hidden = |place: &ConfigMapping| dwords().all(|at| dword(place, at) == u32::MAX);
    places.iter().all(|place| is_mapped(place) || hidden(place))
        && mappings.iter().all(|mapping| {
            dwords().all(|at| dword(mapping, at) == world.system.config_read(mapping.bdf, at, 4))
        })
}

fn perform(world: &mut World, bars: &[[u64; 3]; 2], [acs, express]: [u16; 2], act: &Act) {
    match *act {
        Act::Program { bridge, register, value } => {
            let bdf = world.bdf(BRIDGES[bridge]);
            let (offset, length) = REGISTERS[register];
            world.system.config_write(bdf, offset, length, value);
        }
        Act::Acs { port, value } => {
            let bdf = world.bdf(BRIDGES[port]);
            world.system.config_write(bdf, acs + 6, 2, value);
        }
        Act::Transfer { robot, target, bar, offset, length, write } => {
            let address = bars[target][usize::from(bar / 2)].wrapping_add_signed(offset.into());
            world.order(
                robot,
                match write {
                    true => Order::Write { address, data: vec![0xa5; length] },
                    false => Order::Read { address, length },
                },
            );
        }
        Act::Slot { bridge, filled } => {
            // One that is not there, or is as it should be, says so.
            let bdf = world.bdf(BRIDGES[bridge]);
            let _ = if filled { world.system.plug(bdf) } else { world.system.unplug(bdf) };
        }
        Act::Reset { robot } => {
            let bdf = world.bdf(&format!("robot{robot}"));
            world.system.config_write(bdf, express + 8, 2, 1 << 15);
        }
        Act::Step(count) => {
            for _ in 0..count {
                if world.system.step() == Progress::Idle {
                    break;
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn bridges_reprogrammed_under_load_break_nothing(acts in prop::collection::vec(act(), 1..60)) {
        let mut world = World::switch(Box::new(NoIommu), true);
        world.system.share_config_spaces().unwrap();
        let places = world.system.config_mappings();
        prop_assert_eq!(places.len(), places.iter().map(|place| place.bdf).collect::<BTreeSet<_>>().len());
        prop_assert!(places.len() >= BRIDGES.len() + 2);
        let saved = snapshot(&mut world);
        let acs = world.acs("down0");
        let robot = world.bdf("robot0");
        let express = world.capability(robot, 0x10);
        let bars = [0, 1].map(|robot| [0, 2, 4].map(|bar| world.bar(robot, bar)));
        // Where the restored bridges route to; a function that was reset under another number keeps
        // that as its requester ID until the next configuration write to it.
        let robots = [0, 1].map(|robot| world.bdf(&format!("robot{robot}")));
        for act in &acts {
            perform(&mut world, &bars, [acs, express], act);
            prop_assert!(mirrors_agree(&mut world, &places), "after {act:?}");
        }
        // Whatever is under way ends.
        world.run();

        // From the root down, so that each bridge can be reached when its turn comes.
        for (bdf, offset, length, value) in saved {
            let _ = world.system.plug(bdf);
            world.system.config_write(bdf, offset, length, value);
        }
        for port in ["down0", "down1"] {
            let bdf = world.bdf(port);
            world.system.config_write(bdf, acs + 6, 2, 0);
        }
        world.run();
        for (robot, bars) in bars.iter().enumerate() {
            // A reset on the way has taken the BARs.
            let bdf = robots[robot];
            for (index, bar) in [0u16, 2, 4].into_iter().enumerate() {
                let [low, high] = [bars[index] & 0xffff_ffff, bars[index] >> 32]
                    .map(|half| u32::try_from(half).unwrap());
                world.system.config_write(bdf, 0x10 + 4 * bar, 4, low);
                if bar == 2 {
                    world.system.config_write(bdf, 0x14 + 4 * bar, 4, high);
                }
            }
            world.config_write(robot, common::COMMAND, 2, common::MEMORY_AND_MASTER);
        }
        world.log.classes();
        for (robot, other) in [(0, 1), (1, 0)] {
            let memory = world.bar(other, 2);
            let clean = Saw::Wrote(WriteOutcome::Posted { verdict: None });
            prop_assert_eq!(world.write(robot, memory, &[0x5a; 300]), clean);
            prop_assert_eq!(
                world.read(robot, memory, 300),
                Saw::Read(CompletionStatus::Success, vec![0x5a; 300])
            );
        }
        prop_assert!(world.log.classes().is_empty());
    }
}

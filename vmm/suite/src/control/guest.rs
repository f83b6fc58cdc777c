//! Carries out requests where the guest runs.

use std::sync::Arc;
use std::time::Instant;

use device_models::fabric::{
    AddressMap, BarTarget, FunctionId, MappedBar, Node, NodeKind, PostedDelay,
};
use device_models::pci::{AcsControl, Bdf};
use device_models::system::System;
use guest_protocol::RAM;
use peerdma_machine::runtime::{RuntimeBus, RuntimeCounters, traffic};
use peerdma_machine::{DebugHandle, RunEnd, StopHandle};
use peerdma_support::names::nearest_name;
use serde::Serialize;
use serde_json::Value;

use super::message::{
    Bar, Command, Function, FunctionMappings, FunctionTraffic, Listed, MAX_MAPPINGS, Machine,
    Register, Registers, Status, Traffic,
};
use crate::pause::Pauser;
use crate::port::SharedJudge;

/// Mappings that are listed where no number is given.
const MAPPINGS: usize = 64;

/// A guest under control.
#[derive(Debug)]
pub struct Controlled {
    /// Its scenario.
    pub scenario: String,
    /// When it was started.
    pub begun: Instant,
    /// Its devices.
    pub bus: Arc<RuntimeBus>,
    /// Its processors.
    pub machine: DebugHandle,
    /// Its end.
    pub stop: StopHandle,
    /// Its pauses.
    pub pauser: Pauser,
    /// Its findings.
    pub judge: SharedJudge,
}

impl Controlled {
    /// Carries out one request.
    ///
    /// # Errors
    /// Why not, in a sentence.
    pub fn answer(&self, command: &Command) -> Result<Value, String> {
        match command {
            Command::Status {} => {
                self.judge.lock().tell_grown();
                json(&self.status())
            }
            Command::Topology {} => json(&self.bus.with(|system| topology(system))),
            Command::Traffic {} => json(&self.traffic()),
            Command::Mappings { function, near, most } => {
                let near = near.as_deref().map(address).transpose()?;
                let most = most.unwrap_or(MAPPINGS).min(MAX_MAPPINGS);
                json(&self.bus.with(|system| mappings(system, function, near, most))?)
            }
            Command::Registers { function } => {
                json(&self.bus.with(|system| registers(system, function))?)
            }
            Command::Findings { .. } => Err("findings are not kept here".into()),
            Command::Pause {} => self.pause(),
            Command::Resume {} => self.pauser.resume().map(|()| Value::Null),
            Command::PowerOff {} => {
                self.stop.finish(RunEnd::PowerOff);
                Ok(Value::Null)
            }
            Command::Unplug { port } => {
                done(self.bus.unplug(self.requester(port)?))?;
                Ok(Value::Null)
            }
            Command::Plug { port } => {
                done(self.bus.plug(self.requester(port)?))?;
                Ok(Value::Null)
            }
            Command::Delay { requester, target, until } => {
                let delay: PostedDelay = done(until.parse())?;
                let target = match target.as_str() {
                    RAM => None,
                    name => Some(self.requester(name)?),
                };
                done(self.bus.delay_posted(self.requester(requester)?, target, delay))?;
                Ok(Value::Null)
            }
        }
    }

    fn pause(&self) -> Result<Value, String> {
        if self.machine.ended() {
            return Err("the guest has ended".into());
        }
        self.pauser.pause("by the user");
        // The step that was under way is over when the lock has been had.
        self.bus.with(|_| ());
        Ok(Value::Null)
    }

    fn milliseconds(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn status(&self) -> Status {
        let RuntimeCounters { counters, .. } = self.bus.counters();
        let reason = self.pauser.why();
        Status {
            scenario: self.scenario.clone(),
            state: if reason.is_some() { "paused" } else { "running" }.into(),
            reason,
            milliseconds: self.milliseconds(),
            processors: self.machine.vcpus(),
            transactions: counters.transactions,
            findings: counters.findings.values().sum(),
            iommu_mappings: counters.live_mappings,
        }
    }

    fn traffic(&self) -> Traffic {
        let (milliseconds, paused) = (self.milliseconds(), self.pauser.why().is_some());
        self.bus.with(|system| {
            let RuntimeCounters { counters, .. } = RuntimeCounters::of(system);
            let faults = system
                .virtio_iommu()
                .map_or(0, |iommu| iommu.reported_faults().saturating_add(iommu.dropped_faults()));
            Traffic {
                milliseconds,
                paused,
                functions: functions(system),
                iommu_requests: counters.iommu_requests,
                iommu_mappings: counters.live_mappings,
                iommu_faults: faults,
                findings: counters.findings.values().sum(),
            }
        })
    }

    fn requester(&self, name: &str) -> Result<Bdf, String> {
        self.bus.with(|system| {
            let map = system.address_map();
            Ok(map.node(function(map, name)?).requester)
        })
    }
}

fn json(value: &impl Serialize) -> Result<Value, String> {
    serde_json::to_value(value).map_err(|error| error.to_string())
}

fn done<T>(result: Result<T, impl std::fmt::Display>) -> Result<T, String> {
    result.map_err(|error| error.to_string())
}

/// An address with or without `0x`.
fn address(text: &str) -> Result<u64, String> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    u64::from_str_radix(digits, 16).map_err(|_| format!("{text:?} is not a hexadecimal address"))
}

/// The function with this name or number.
fn function(map: &AddressMap, name: &str) -> Result<FunctionId, String> {
    let number = name.parse::<Bdf>().ok();
    let is_it = |node: &Node| &*node.name == name || Some(node.requester) == number;
    let found = map.functions().find(|(_, node)| is_it(node)).map(|(id, _)| id);
    found.ok_or_else(|| {
        let names = map.functions().map(|(_, node)| &*node.name);
        match nearest_name(name, names) {
            Some(near) => format!("there is no function {name:?}; did you mean {near}?"),
            None => format!("there is no function {name:?}; `peerdma ctl topology` lists them"),
        }
    })
}

fn topology(system: &System) -> Machine {
    let map = system.address_map();
    let name = |id: FunctionId| map.node(id).name.to_string();
    let describe = |node: &Node| Function {
        name: node.name.to_string(),
        requester: node.requester.to_string(),
        kind: match node.kind {
            NodeKind::Endpoint => "endpoint",
            NodeKind::RootPort => "root-port",
            NodeKind::SwitchUpstream => "switch-upstream",
            NodeKind::SwitchDownstream => "switch-downstream",
        }
        .into(),
        parent: node.parent.map(name),
        bus_master: node.bus_master,
        memory_space: node.memory_enabled,
        operational: node.operational,
        link_down: node.link_down,
        buses: node.buses,
        acs: acs(node.acs),
        bars: node.bars.iter().map(bar).collect(),
    };
    Machine { functions: map.functions().map(|(_, node)| describe(node)).collect() }
}

/// The controls by the names that lspci has for them.
fn acs(controls: AcsControl) -> Vec<String> {
    let names = [
        (AcsControl::SOURCE_VALIDATION, "SrcValid"),
        (AcsControl::TRANSLATION_BLOCKING, "TransBlk"),
        (AcsControl::P2P_REQUEST_REDIRECT, "ReqRedir"),
        (AcsControl::P2P_COMPLETION_REDIRECT, "CmpltRedir"),
        (AcsControl::UPSTREAM_FORWARDING, "UpstreamFwd"),
        (AcsControl::P2P_EGRESS_CONTROL, "EgressCtrl"),
        (AcsControl::DIRECT_TRANSLATED_P2P, "DirectTrans"),
    ];
    let on = names.into_iter().filter(|(bit, _)| controls.contains(*bit));
    on.map(|(_, name)| name.to_owned()).collect()
}

fn bar(bar: &MappedBar) -> Bar {
    Bar {
        index: bar.index,
        first: format!("{:#x}", bar.range.first),
        last: format!("{:#x}", bar.range.last),
        kind: match bar.target {
            BarTarget::Memory(_) => "memory",
            BarTarget::Registers => "registers",
            BarTarget::Msix => "msi-x",
        }
        .into(),
    }
}

fn functions(system: &mut System) -> Vec<FunctionTraffic> {
    let map = Arc::clone(system.address_map());
    let mut all = Vec::new();
    for (id, node) in map.functions() {
        let of = *system.stats().of(id);
        let mappings = system.dma_mappings(id, None, 0).kernel.map(|listed| listed.all as u64);
        if of.tlps == 0 && of.findings == 0 && mappings.is_none_or(|count| count == 0) {
            continue;
        }
        let guest_protocol::Traffic { read: read_from, written: written_to } =
            traffic::of(system, id);
        all.push(FunctionTraffic {
            name: node.name.to_string(),
            requester: node.requester.to_string(),
            tlps: of.tlps,
            interrupts: of.interrupts,
            findings: of.findings,
            mappings,
            read: traffic::by_route(&of.bytes_read),
            written: traffic::by_route(&of.bytes_written),
            read_from,
            written_to,
        });
    }
    all
}

/// Bytes of configuration space that are shown, and how many in a line.
const HEADER: u16 = 64;
const LINE: u16 = 16;

fn registers(system: &mut System, name: &str) -> Result<Registers, String> {
    let map = Arc::clone(system.address_map());
    let id = function(&map, name)?;
    let node = map.node(id);
    let line = |start: u16| {
        let bytes = (start..start + LINE).map(|offset| system.config_peek(id, offset, 1));
        let bytes: Vec<_> = bytes.map(|byte| format!("{byte:02x}")).collect();
        format!("{start:02x}: {}", bytes.join(" "))
    };
    let configuration = (0..HEADER).step_by(usize::from(LINE)).map(line).collect();
    let named = system.named_registers(id).into_iter();
    let registers =
        named.map(|(name, value)| Register { name, value: format!("{value:#x}") }).collect();
    let (function, requester) = (node.name.to_string(), node.requester.to_string());
    Ok(Registers { function, requester, configuration, registers })
}

fn mappings(
    system: &mut System,
    name: &str,
    near: Option<u64>,
    most: usize,
) -> Result<FunctionMappings, String> {
    let map = Arc::clone(system.address_map());
    let id = function(&map, name)?;
    let node = map.node(id);
    let found = system.dma_mappings(id, near, most);
    let listed =
        |listed: device_models::system::Listed| Listed { all: listed.all, lines: listed.lines };
    Ok(FunctionMappings {
        function: node.name.to_string(),
        requester: node.requester.to_string(),
        kernel: found.kernel.map(listed),
        iommu: found.iommu.map(listed),
    })
}

#[cfg(test)]
mod tests {
    use device_models::fabric::InterruptSink;
    use peerdma_topology::assembly::SystemConfig;
    use vm_memory::{GuestAddress, GuestMemoryMmap};

    use super::*;

    struct NoInterrupts;

    impl InterruptSink for NoInterrupts {
        fn signal_msi(&mut self, _address: u64, _data: u32) {}
    }

    fn system() -> System {
        let ram = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap();
        SystemConfig::default().build(&ram, Box::new(NoInterrupts), std::io::empty()).unwrap()
    }

    #[test]
    fn functions_are_found_by_name_and_number() {
        let mut system = system();
        let machine = topology(&system);
        let peer = machine.functions.iter().find(|of| of.name == "peer0").unwrap();
        assert_eq!((peer.kind.as_str(), peer.parent.as_deref()), ("endpoint", Some("port0")));
        assert!(peer.bars.iter().any(|bar| bar.index == 2 && bar.kind == "memory"));
        let by_number = registers(&mut system, &peer.requester).unwrap();
        assert_eq!(by_number, registers(&mut system, "peer0").unwrap());
        let error = registers(&mut system, "pear0").unwrap_err();
        assert!(error.contains("did you mean peer0?"), "{error}");
        assert!(registers(&mut system, "7f:1f.7").unwrap_err().contains("ctl topology"));
    }

    #[test]
    fn registers_have_names_and_a_look_changes_nothing() {
        let mut system = system();
        let peer = registers(&mut system, "peer0").unwrap();
        assert!(peer.configuration[0].starts_with("00: f4 1a f0 10"), "{:?}", peer.configuration);
        let value = |name: &str| {
            let found = peer.registers.iter().find(|register| register.name == name);
            found.unwrap_or_else(|| panic!("{name} is not in {:?}", peer.registers)).value.clone()
        };
        assert_eq!((value("REG_MAGIC"), value("0.CH_TAIL")), ("0x414d4450".into(), "0x0".into()));
        assert_eq!(registers(&mut system, "peer0").unwrap(), peer);
        assert_eq!(registers(&mut system, "port0").unwrap().registers, []);
        assert_eq!(system.transactions(), 0);
    }

    #[test]
    fn mappings_are_null_where_nothing_is_known() {
        let mut system = system();
        let none = mappings(&mut system, "peer0", None, 5).unwrap();
        assert_eq!((none.kernel, none.iommu), (None, None));
        assert_eq!(address("0x10"), address("10"));
        assert!(address("x").unwrap_err().contains("not a hexadecimal address"));
    }
}

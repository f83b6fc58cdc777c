//! The presets, what Linux makes of them, and files that cannot be used.

use device_models::fabric::InterruptSink;
use vm_memory::{GuestAddress, GuestMemoryMmap};

use super::description::PciId;
use super::linux::{AddressKind, Guest, MapType, View};
use super::{Cpu, Drawing, Explanation, Format, Kind, Plan, Planned, Topology};
use crate::assembly::{IommuKind, IommuMode, PEER_IDS, PORT_IDS, SystemConfig};

#[derive(Debug)]
struct NoInterrupts;

impl InterruptSink for NoInterrupts {
    fn signal_msi(&mut self, _address: u64, _data: u32) {}
}

fn guest(iommu: IommuMode, parameters: &[&str]) -> Guest {
    let parameters = parameters.iter().map(|text| (*text).to_owned()).collect();
    Guest { iommu, cpu: Cpu::Neutral, parameters }
}

fn decide(topology: &Topology, guest: &Guest, a: &str, b: &str) -> (MapType, u32, AddressKind) {
    let plan = Plan::new(topology, guest.iommu.has_iommu()).unwrap();
    let view = View::new(&plan, guest);
    let (a, b) = (plan.find(a).unwrap(), plan.find(b).unwrap());
    let decision = view.decide(b, a);
    assert_eq!(view.decide(a, b).map, decision.map, "the same in both directions");
    (decision.map, decision.distance, view.address_kind(decision.map))
}

fn drawing(topology: &Topology, guest: &Guest) -> Drawing {
    let plan = Plan::new(topology, guest.iommu.has_iommu()).unwrap();
    Drawing::new(topology, &plan, guest).unwrap()
}

#[test]
fn the_default_is_the_preset_of_its_name() {
    assert_eq!(Topology::load("root-ports").unwrap(), Topology::default());
}

#[test]
fn the_firmware_gives_the_numbers_of_the_plan() {
    let ram = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap();
    for name in Topology::presets() {
        for topology in [Topology::load(name).unwrap(), Topology::load(name).unwrap().translated()]
        {
            for iommu in [IommuKind::Virtio, IommuKind::None] {
                let config =
                    SystemConfig { topology: topology.clone(), iommu, ..SystemConfig::default() };
                let system = config.build(&ram, Box::new(NoInterrupts), std::io::empty()).unwrap();
                let map = system.address_map();
                let mut built: Vec<_> = map
                    .functions()
                    .map(|(_, node)| (node.name.to_string(), node.requester, node.buses))
                    .collect();
                let plan = config.plan().unwrap();
                let mut planned: Vec<_> = plan
                    .functions
                    .iter()
                    .map(|function| (function.name.clone(), function.bdf, function.buses))
                    .collect();
                built.sort();
                planned.sort();
                assert_eq!(built, planned, "{}", topology.name);
            }
        }
    }
}

#[test]
fn linux_decides_about_the_presets_as_documented() {
    use AddressKind::{Bus, Iova, Physical, Refused};
    use MapType::{BusAddress, NotSupported, ThroughHostBridge};
    let off = "pci=disable_acs_redir=02:00.0;02:01.0";
    let one_off = "pci=disable_acs_redir=02:00.0";
    let strict = IommuMode::Strict;
    let none = IommuMode::None;
    let pt = IommuMode::Passthrough;
    for (name, iommu, parameters, expected) in [
        ("root-ports", strict, vec![], (ThroughHostBridge, 4, Iova)),
        ("root-ports", pt, vec![], (ThroughHostBridge, 4, Physical)),
        ("root-ports", none, vec![], (ThroughHostBridge, 4, Physical)),
        ("root-ports", none, vec!["swiotlb=force"], (ThroughHostBridge, 4, Refused)),
        ("switch", strict, vec![], (BusAddress, 4, Bus)),
        ("switch", none, vec!["swiotlb=force"], (BusAddress, 4, Bus)),
        ("switch-acs", strict, vec![], (ThroughHostBridge, 4, Iova)),
        ("switch-acs", pt, vec![], (ThroughHostBridge, 4, Physical)),
        ("switch-acs", none, vec![], (BusAddress, 4, Bus)),
        ("switch-acs", strict, vec![off], (BusAddress, 4, Bus)),
        ("switch-acs", strict, vec![one_off], (ThroughHostBridge, 4, Iova)),
        ("switch-acs", none, vec!["pci=config_acs=1xx@02:01.0"], (ThroughHostBridge, 4, Physical)),
        ("root-complex", strict, vec![], (ThroughHostBridge, 2, Iova)),
        ("two-bridges", strict, vec![], (ThroughHostBridge, 4, Iova)),
        ("refused", strict, vec![], (NotSupported, 4, Refused)),
    ] {
        let guest = guest(iommu, &parameters);
        for topology in [Topology::load(name).unwrap(), Topology::load(name).unwrap().translated()]
        {
            let found = decide(&topology, &guest, "peer0", "peer1");
            assert_eq!(found, expected, "{} {iommu:?} {parameters:?}", topology.name);
        }
    }
    let two = Topology::load("two-bridges").unwrap();
    for peer in ["peer0", "peer1"] {
        assert_eq!(decide(&two, &guest(strict, &[]), peer, "peer2").0, NotSupported);
    }
    let refused = Topology::load("refused").unwrap();
    let trusted = Guest { cpu: Cpu::TrustedForPeerToPeer, ..guest(strict, &[]) };
    assert_eq!(decide(&refused, &trusted, "peer0", "peer1").0, ThroughHostBridge);
}

fn groups(text: &str) -> Vec<Option<usize>> {
    let topology = Topology::parse("t", text).unwrap();
    let plan = Plan::new(&topology, true).unwrap();
    let guest = guest(IommuMode::Strict, &[]);
    let groups = View::new(&plan, &guest).groups();
    plan.peers().into_iter().map(|peer| groups[peer]).collect()
}

#[test]
fn groups_follow_from_acs_above() {
    let switch = include_str!("../topologies/switch.toml");
    let both = groups(switch);
    assert_ne!(both[0], both[1], "the root port has ACS: the switch's ports keep them apart");
    let bare = groups(&switch.replace("acs = \"standard\"", "acs = \"none\""));
    assert_eq!(bare[0], bare[1], "no ACS at the root port: all below is one group");
    let functions = "name = 't'\n[[host-bridge]]\nname = 'h'\nid = '1ae0:0001'\n[[root-port]]\nname = 'p'\n\
                     on = 'h'\ndevice = 4\n[[peer]]\nname = 'a'\nbelow = 'p'\n[[peer]]\nname = 'b'\nbelow = 'p'\n\
                     function = 1\n";
    let pair = groups(functions);
    assert_eq!(pair[0], pair[1], "two functions of one device without ACS");
    let apart = groups(&functions.replace("below = 'p'", "below = 'p'\nacs = 'RR CR'"));
    assert_ne!(apart[0], apart[1], "two functions of one device with ACS");
}

/// Vendor and device ID of a function.
fn ids(plan: &Plan, function: &Planned) -> PciId {
    let of = |(vendor, device)| PciId { vendor, device };
    match function.kind {
        Kind::HostBridge => plan.host_bridges[function.host_bridge].id,
        // virtio 1.2, 4.1.2.1: the kind of device, above 0x1040.
        Kind::Iommu => of((0x1af4, 0x1040 + 23)),
        Kind::Rng => of((0x1af4, 0x1040 + 4)),
        Kind::RootPort | Kind::SwitchUpstream | Kind::SwitchDownstream => of(PORT_IDS),
        Kind::Peer(_) => of(PEER_IDS),
        Kind::Endpoint(_, id) | Kind::Device(id) => id,
        Kind::OtherBridge => unreachable!("no topology has one"),
    }
}

#[test]
fn pictures_name_every_function_in_every_form() {
    let guest = guest(IommuMode::Strict, &[]);
    for name in Topology::presets() {
        let topology = Topology::load(name).unwrap().translated();
        let drawing = drawing(&topology, &guest);
        for format in [Format::Text, Format::Dot, Format::Svg, Format::Json] {
            let picture = drawing.to_text(format);
            let plan = Plan::new(&topology, true).unwrap();
            for function in &plan.functions {
                let Planned { bdf, name: function_name, .. } = function;
                let title = format!("{bdf} {function_name}");
                let from = picture.find(&title).unwrap_or_else(|| panic!("{format:?} {title}"));
                let title = picture[from..].split_inclusive(']').next().unwrap();
                let id = format!(" [{}]", ids(&plan, function));
                assert!(title.ends_with(&id) && title.len() < 80, "{name} {format:?} {title:?}");
            }
            assert!(picture.contains("0x1000000000"), "{name} {format:?} shows windows");
        }
        let toml = drawing.to_text(Format::Toml);
        assert_eq!(Topology::parse("again", &toml), Ok(topology).map_err(|()| unreachable!()));
    }
    let mut long = Topology::default();
    long.add(&format!("ioat,name={}", "n".repeat(32)).parse().unwrap()).unwrap();
    let svg = drawing(&long, &guest).to_text(Format::Svg);
    assert!(svg.contains("width=\"4") && !svg.contains("width=\"340\""), "boxes grow: {svg}");
    let acs = drawing(&Topology::load("switch-acs").unwrap(), &guest);
    assert!(acs.to_text(Format::Text).contains("ACS SV+ TB- RR+ CR+ UF+"));
}

#[test]
fn pictures_show_hot_plug_slots_and_no_empty_description() {
    let guest = guest(IommuMode::Strict, &[]);
    let slots = |name: &str, format| {
        let drawing = drawing(&Topology::load(name).unwrap(), &guest);
        drawing.to_text(format).matches("hot-plug slot").count()
    };
    for format in [Format::Text, Format::Dot, Format::Svg, Format::Json] {
        assert_eq!((slots("hot-plug", format), slots("root-ports", format)), (2, 0), "{format:?}");
    }
    let mut topology = Topology::default();
    let svg = |topology: &Topology| drawing(topology, &guest).to_text(Format::Svg);
    assert!(svg(&topology).contains(">root-ports: two peer devices"), "{}", svg(&topology));
    topology.description.clear();
    let text = drawing(&topology, &guest).to_text(Format::Text);
    assert!(text.starts_with("root-ports\n") && svg(&topology).contains(">root-ports<"), "{text}");
}

impl PartialEq for super::TopologyError {
    fn eq(&self, other: &Self) -> bool {
        self.to_string() == other.to_string()
    }
}

fn explained(topology: &Topology, guest: &Guest, a: &str, b: &str) -> Explanation {
    let iommu = guest.iommu.kind();
    let config = SystemConfig { topology: topology.clone(), iommu, ..SystemConfig::default() };
    Explanation::new(&config.plan_with_addresses().unwrap(), guest, a, b).unwrap()
}

fn explain(name: &str, guest: &Guest, a: &str, b: &str) -> String {
    explained(&Topology::load(name).unwrap(), guest, a, b).to_string()
}

#[test]
fn explanations_name_the_way_the_reason_and_the_knobs() {
    let strict = guest(IommuMode::Strict, &[]);
    let text = explain("switch-acs", &strict, "peer0", "04:00.0");
    for part in [
        "peer0 (03:00.0) -> peer1 (04:00.0): through the host bridge (PCI_P2PDMA_MAP_THRU_HOST_BRIDGE), distance 4",
        "02:00.0 down0          downstream port  ACS SV+ TB- RR+ CR+ UF+  redirects",
        "01:00.0 switch0        upstream port    no ACS  <- above both",
        "ACS redirects at down1 (02:01.0), down0 (02:00.0)",
        "--iommu none: bus address",
        "--append 'pci=disable_acs_redir=02:00.0;02:01.0': bus address",
        "--append 'pci=config_acs=100x1@02:00.0;100x1@02:01.0': bus address",
        "acs = \"none\" at down0, down1: bus address",
        "IOMMU groups: two",
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
    let text = explain("switch-acs", &guest(IommuMode::None, &[]), "peer0", "peer1");
    let on = "pci=config_acs=111x1@00:04.0;111x1@02:00.0;111x1@02:01.0";
    assert!(text.contains(&format!("--append '{on}': through the host bridge")), "{text}");
    // The advice costs nothing.
    let text = explain("switch-acs", &guest(IommuMode::None, &[on]), "peer0", "peer1");
    assert!(text.contains("through the host bridge") && !text.contains("Beware"), "{text}");
    let without_root_port = &on.replace("111x1@00:04.0;", "");
    let text =
        explain("switch-acs", &guest(IommuMode::None, &[without_root_port]), "peer0", "peer1");
    assert!(text.contains("Beware"), "{text}");
    let text = explain("switch", &strict, "peer0", "peer1");
    assert!(!text.contains("config_acs"), "{text}");
    assert!(text.contains("acs = \"standard\" at down0, down1: through the host bridge"), "{text}");
    let text = explain("two-bridges", &strict, "peer0", "peer2");
    for part in [
        "not supported",
        "distance -1",
        "root complex: bridge0 8086:3c00 -> bridge1 8086:3c00",
        "inside one bridge only, and these are two",
        "host bridge id = \"8086:2020\" at bridge0, bridge1; peer-routing = \"everywhere\" at bridge0, bridge1: through the",
        "cpu = \"trusted-for-peer-to-peer\"; peer-routing = \"everywhere\" at bridge0, bridge1: through the host bridge",
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
    // One port that redirects is enough for Linux, not for what enters by the other.
    let half = include_str!("../topologies/switch-acs.toml");
    let at = half.rfind("acs = \"standard\"").unwrap();
    let half = format!("{}{}", &half[..at], half[at..].replacen("standard", "none", 1));
    let half = Topology::parse("t", &half).unwrap();
    for (mode, a, b, straight) in [
        (IommuMode::Passthrough, "peer1", "peer0", true),
        (IommuMode::Passthrough, "peer0", "peer1", false),
        (IommuMode::Strict, "peer1", "peer0", false),
    ] {
        let text = self::explained(&half, &guest(mode, &[]), a, b).to_string();
        assert!(text.contains("through the host bridge"), "{text}");
        assert_eq!(text.contains("they go straight"), straight, "{text}");
    }
    // What the root complex does is not what Linux believes of it.
    let text = explain("refused", &strict, "peer0", "peer1");
    let advice = "host bridge id = \"8086:2020\" at host-bridge; peer-routing = \"everywhere\" at host-bridge: through";
    assert!(text.contains(advice) && !text.contains("Beware"), "{text}");
    let trusted = include_str!("../topologies/refused.toml");
    assert!(trusted.contains("peer-routing = \"nowhere\""));
    let mut trusted = Topology::parse("t", trusted).unwrap();
    trusted.host_bridges[0].id = "8086:2020".parse().unwrap();
    let text = self::explained(&trusted, &strict, "peer0", "peer1").to_string();
    assert!(text.contains("Beware: the root complex does not route between the two"), "{text}");
    let bare =
        include_str!("../topologies/switch-acs.toml").replacen("\"standard\"", "\"none\"", 1);
    let bare = Topology::parse("t", &bare).unwrap();
    let text = self::explained(&bare, &strict, "peer0", "peer1").to_string();
    assert!(text.contains("Beware: ACS Upstream Forwarding is off at port0 (00:04.0)"), "{text}");
    // There is no advice that would lead there either.
    let none = guest(IommuMode::None, &[]);
    let text = self::explained(&bare, &none, "peer0", "peer1").to_string();
    assert!(text.contains("bus address") && !text.contains("config_acs"), "{text}");
    assert!(!explain("switch-acs", &strict, "peer0", "peer1").contains("Beware"));
    let plan = Plan::new(&Topology::default(), true).unwrap();
    let error = Explanation::new(&plan, &strict, "peer0", "peer7").unwrap_err();
    assert!(
        error.to_string().contains("\"peer7\" is not a function")
            && error.to_string().contains("peer1")
    );
}

/// A file with one change, and the line and the words of the answer.
#[test]
fn files_that_cannot_be_used_are_refused_with_line_and_reason() {
    let switch = include_str!("../topologies/switch.toml");
    let check = |from: &str, to: &str, part: &str, line: usize| {
        let text = switch.replacen(from, to, 1);
        assert_ne!(text, switch, "{from:?}");
        let error = Topology::parse("f.toml", &text).unwrap_err().to_string();
        let line = format!("f.toml: line {line}: ");
        assert!(error.starts_with(&line) && error.contains(part), "{line:?} {part:?}: {error}");
    };
    check("below = \"port0\"", "bleow = \"port0\"", "unknown field `bleow`", 17);
    check("device = 4", "device = 4\ndevice = 5", "duplicate key", 13);
    check("below = \"port0\"", "below = \"down1\"", "loop", 17);
    check("name = \"peer1\"", "name = \"peer0\"", "there is another \"peer0\"", 34);
}

#[test]
fn a_wrong_value_is_named_where_it_stands() {
    let head = "name = 't'\n[[host-bridge]]\nname = 'h'\nid = '1ae0:0001'\n";
    let error =
        |rest: &str| Topology::parse("f", &format!("{head}{rest}")).unwrap_err().to_string();
    let peers = |count: usize| {
        (0..count)
            .map(|n| format!("[[peer]]\nname = 'p{n}'\nbelow = 'h'\ndevice = {}\n", n + 3))
            .collect::<String>()
    };
    assert!(Topology::parse("f", &format!("{head}{}", peers(16))).is_ok());
    for (rest, line, part) in [
        (peers(17), 70, "17 peer devices; the lab has room for 16"),
        ("first-bus = 1\n".into(), 5, "the first host bridge has bus 0"),
        ("memory = { first = 0xc0000000, last = 0xe00fffff }\n".into(), 5, "does not fit"),
        ("memory = { first = 0xc0000001, last = 0xc00fffff }\n".into(), 5, "whole MiB"),
        ("translation = 0x7fff_0000_0000\n".into(), 5, "does not fit"),
        ("translation = 5\n".into(), 5, "multiple of 1 MiB"),
        ("[[peer]]\nname = 'p'\nbelow = 'q'\n".into(), 7, "there is no \"q\""),
        ("[[peer]]\nname = 'p'\nbelow = 'h'\ndevice = 2\n".into(), 8, "the lab's own"),
        ("[[peer]]\nname = 'p'\nbelow = 'h'\ndevice = 32\n".into(), 8, "end at 31"),
        ("[[peer]]\nname = 'p'\nbelow = 'h'\ndevice = 4\nfunction = 1\n".into(), 9, "no function 0"),
        ("[[peer]]\nname = 'p q'\nbelow = 'h'\n".into(), 6, "is not a valid name"),
        ("[[endpoint]]\nname = 'e'\nkind = 'iota'\nbelow = 'h'\ndevice = 4\n".into(), 7, "there are ioat"),
        ("[[endpoint]]\nname = 'e'\nkind = 'ioat'\nbelow = 'h'\n".into(), 5, "the lab's own"),
        ("[[endpoint]]\nname = 'e'\nkind = 'ioat'\nbelow = 'q'\n".into(), 8, "there is no \"q\""),
        (
            "[[endpoint]]\nname = 'e'\nkind = 'ioat'\nbelow = 'h'\ndevice = 4\noptions = { channels = 9 }\n".into(),
            10,
            "channels is \"9\"; take 1 to 4",
        ),
        (
            "[[endpoint]]\nname = 'e'\nkind = 'ioat'\nbelow = 'h'\ndevice = 4\n[endpoint.options]\nmodel = 'atom'\n\
             channels = 9\n".into(),
            12,
            "channels is \"9\"",
        ),
        (
            "[[endpoint]]\nname = 'e'\nkind = 'ioat'\nbelow = 'h'\ndevice = 4\noptions.model = 'atom'\n\
             options.chanels = 1\n".into(),
            11,
            "no option \"chanels\"",
        ),
        (
            "[[endpoint]]\nname = 'e'\nkind = 'ioat'\nbelow = 'h'\ndevice = 4\noptions = { channels = true }\n".into(),
            10,
            "a text or a whole number",
        ),
        (
            "[[endpoint]]\nname = 'e'\nkind = 'ioat'\nbelow = 'h'\ndevice = 4\n[[peer]]\nname = 'p'\nbelow = 'e'\n".into(),
            12,
            "nothing hangs below it",
        ),
        (
            "[[root-port]]\nname = 'a'\non = 'h'\ndevice = 4\n[[root-port]]\nname = 'b'\non = 'h'\ndevice = 4\n".into(),
            10,
            "already",
        ),
        (
            "[[root-port]]\nname = 'a'\non = 'h'\ndevice = 4\nacs = 'SV XX'\n".into(),
            9,
            "\"XX\" is not an ACS control",
        ),
        (
            "[[root-port]]\nname = 'a'\non = 'h'\ndevice = 4\n[[switch]]\nname = 's'\nbelow = 'a'\n\
             [[switch.port]]\nname = 'd'\ndevice = 0\n[[peer]]\nname = 'p'\nbelow = 's'\n".into(),
            17,
            "it is a switch, name one of its ports",
        ),
        ("[[host-bridge]]\nname = 'i'\nid = 'ffff:0001'\n".into(), 7, "\"ffff:0001\""),
        (
            "[[root-port]]\nname = 'a'\non = 'h'\ndevice = 4\nacs = 'SV RR'\nacs-without-effect = 'RR CR UF'\n".into(),
            10,
            "the port does not have CR UF under `acs`",
        ),
        (
            "[[host-bridge]]\nname = 'i'\nid = '1ae0:0001'\nfirst-bus = 0\n".into(),
            8,
            "bus 0 is taken",
        ),
        (
            "[[host-bridge]]\nname = 'i'\nid = '1ae0:0001'\nmemory = { first = 0xc0000000, last = 0xc00fffff }\n".into(),
            8,
            "overlaps 0xc0000000 to 0xcfffffff of \"h\"",
        ),
    ] {
        let error = error(&rest);
        let line = format!("f: line {line}: ");
        assert!(error.starts_with(&line) && error.contains(part), "{line:?} {part:?}: {error}");
    }
    for (text, part) in [
        (
            "name = 't'\n[switch]\nname = 's'\n",
            "line 2: a table here, expected a list: each of its tables begins with [[...]]",
        ),
        ("[cpu]\n", "line 1: expected a word in quotes, not a table"),
        (
            "[[root-port]]\ndevice = 300\n",
            "line 2: invalid value: integer `300`, expected a whole number from 0 to 255",
        ),
        (
            "[[host-bridge]]\nmemory = 5\n",
            "line 2: invalid type: integer `5`, expected { first = ..., last = ... }",
        ),
        (
            "[[host-bridge]]\nfirst-bus = 99999999999999999999\n",
            "integer `99999999999999999999`, expected a whole number",
        ),
        ("[[peer]]\nlocal-memory = -1\n", "expected a whole number that is not negative"),
    ] {
        let error = Topology::parse("f", text).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
    let error = Topology::load("swich").unwrap_err().to_string();
    assert!(error.contains("did you mean \"switch\""), "{error}");
}

#[test]
fn what_a_port_does_not_do_changes_nothing_that_linux_decides() {
    let text = include_str!("../topologies/switch-acs.toml");
    let defect = "name = \"down1\"\nacs-without-effect = \"RR\"";
    let text = text.replacen("name = \"down1\"", defect, 1);
    let mut topology = Topology::parse("t", &text).unwrap();
    assert_eq!(Topology::parse("t", &toml::to_string(&topology).unwrap()).unwrap(), topology);
    let strict = guest(IommuMode::Strict, &[]);
    let explained = self::explained(&topology, &strict, "peer0", "peer1").to_string();
    for part in [
        "ACS SV+ TB- RR+ CR+ UF+ (RR without effect)",
        "through the host bridge",
        "acs = \"none\" at",
        "Beware: RR without effect at down1 (02:01.0)",
    ] {
        assert!(explained.contains(part), "{part:?} is not in\n{explained}");
    }
    let drawn = drawing(&topology, &strict).to_text(Format::Text);
    assert_eq!(drawn.matches("RR without effect").count(), 1, "{drawn}");
    let completions = Topology::parse("t", &text.replace("= \"RR\"", "= \"CR\"")).unwrap();
    let explained = self::explained(&completions, &strict, "peer0", "peer1").to_string();
    assert!(explained.contains("Beware: CR without effect at down1 (02:01.0)"), "{explained}");
    assert!(explained.contains("the data of reads goes straight"), "{explained}");
    // One more port is like the last.
    topology.add(&"ioat,below=switch0".parse().unwrap()).unwrap();
    let drawn = drawing(&topology, &strict).to_text(Format::Text);
    assert_eq!(drawn.matches("RR without effect").count(), 2, "{drawn}");
}

/// A file of the source tree, which no package holds: without the tree the test is skipped.
fn of_the_tree(path: &str) -> Option<String> {
    let tree = std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    if !tree.join("docs").exists() {
        let name = std::thread::current().name().unwrap_or("test").to_owned();
        let line = format!("SKIP {name}: {path} is not part of the package\n");
        // Not captured by libtest; `make test` counts it.
        std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes()).unwrap();
        return None;
    }
    Some(std::fs::read_to_string(tree.join(path)).unwrap())
}

#[test]
fn hardware_that_is_broken_on_purpose_is_explained() {
    let strict = guest(IommuMode::Strict, &[]);
    let Some(forwards) = of_the_tree("ci/broken/ignores-forwarding.toml") else { return };
    let forwards = Topology::parse("t", &forwards).unwrap();
    let explained = self::explained(&forwards, &strict, "peer0", "peer1").to_string();
    let beware = "Beware: ACS Upstream Forwarding is without effect at port0 (00:04.0)";
    assert!(explained.contains(beware), "{explained}");
    let Some(redirects) = of_the_tree("ci/broken/ignores-redirect.toml") else { return };
    let redirects = Topology::parse("t", &redirects).unwrap();
    let drawn = drawing(&redirects, &strict).to_text(Format::Text);
    assert_eq!(drawn.matches("RR without effect").count(), 2, "{drawn}");
}

#[test]
fn functions_of_one_device_do_not_reach_each_other_by_a_port_that_sends_nothing_back() {
    let text = include_str!("../topologies/switch.toml");
    let (text, _) = text.split_once("[[peer]]").unwrap();
    let peer = |function: u8| {
        format!("[[peer]]\nname = 'p{function}'\nbelow = 'down0'\nfunction = {function}\n")
    };
    let text = format!("{text}{}{}", peer(0), peer(1));
    let strict = guest(IommuMode::Strict, &[]);
    let explain = |text: &str| {
        let topology = Topology::parse("t", text).unwrap();
        self::explained(&topology, &strict, "p0", "p1").to_string()
    };
    let explained = explain(&text);
    assert!(
        explained.contains("Beware: both are functions of one device below down0 (02:00.0)"),
        "{explained}"
    );
    // With Upstream Forwarding the requests reach the IOMMU, which knows no bus address.
    let forwards = text.replace("acs = \"none\"", "acs = \"UF\"");
    let explained = explain(&forwards);
    let beware = "Beware: down0 (02:00.0) forwards the requests upstream, to the IOMMU";
    assert!(explained.contains(beware), "{explained}");
    let passthrough = guest(IommuMode::Passthrough, &[]);
    let topology = Topology::parse("t", &forwards).unwrap();
    let text = self::explained(&topology, &passthrough, "p0", "p1").to_string();
    assert!(!text.contains("Beware"), "{text}");
}

#[test]
fn the_example_in_the_documentation_works() {
    let Some(text) = of_the_tree("docs/topologies.md") else { return };
    let example = text.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let topology = Topology::parse("topologies.md", example).unwrap();
    let found = decide(&topology, &guest(IommuMode::Strict, &[]), "peer0", "peer1");
    assert_eq!(found.0, MapType::ThroughHostBridge, "one redirecting port is enough");
}

#[test]
fn completions_come_back_directly_where_nothing_redirects_them() {
    let switch = include_str!("../topologies/switch.toml");
    let text = switch.replacen("acs = \"none\"", "acs = \"RR\"", 1);
    let topology = Topology::parse("t", &text).unwrap();
    let plan = Plan::new(&topology, true).unwrap();
    let guest = guest(IommuMode::Strict, &[]);
    let view = View::new(&plan, &guest);
    let [a, b] = ["peer0", "peer1"].map(|name| plan.find(name).unwrap());
    assert_eq!(view.decide(a, b).map, MapType::ThroughHostBridge);
    let completions =
        |view: &View<'_>| [(a, b), (b, a)].map(|(a, b)| view.routes(a, b).completions.arrival);
    assert_eq!(completions(&view), [crate::Arrival::Switch; 2]);
    let plan = Plan::new(&Topology::load("switch-acs").unwrap(), true).unwrap();
    let view = View::new(&plan, &guest);
    assert_eq!(completions(&view), [crate::Arrival::RootComplex; 2]);
}

#[test]
fn a_name_is_short_and_has_no_control_characters() {
    let file = |name: &str, description: &str| {
        format!(
            "name = {name:?}\ndescription = {description:?}\n[[host-bridge]]\nname = 'h'\nid = '1ae0:0001'\n"
        )
    };
    assert!(Topology::parse("f", &file("t", &"x".repeat(200))).is_ok());
    for (text, part) in [
        (file(&"t".repeat(33), ""), "the name is one line of at most 32 bytes"),
        (file("t\t", ""), "the name is one line"),
        (file("t", &"x".repeat(201)), "the description is one line of at most 200 bytes"),
    ] {
        let error = Topology::parse("f", &text).unwrap_err().to_string();
        let line = if part.contains("description") { "f: line 2: " } else { "f: line 1: " };
        assert!(error.starts_with(line) && error.contains(part), "{error}");
    }
}

#[test]
fn devices_of_other_kinds_stand_beside_the_peers() {
    let topology = Topology::load("ioat").unwrap();
    let text = toml::to_string(&topology).unwrap();
    assert_eq!(toml::from_str::<Topology>(&text).unwrap(), topology, "numbers become texts, once");
    let plan = Plan::new(&topology, true).unwrap();
    assert_eq!(plan.peers().len(), 2, "Linux's numbers of peers are as without them");
    let guest = guest(IommuMode::Strict, &["pci=disable_acs_redir=pci:8086:0c50"]);
    let groups = View::new(&plan, &guest).groups();
    let of = |name: &str| groups[plan.find(name).unwrap()];
    assert_ne!(of("ioat0"), of("ioat1"));
    assert!(of("ioat0").is_some() && of("ioat1").is_some());
    let found = decide(&topology, &guest, "ioat0", "peer0");
    assert_eq!(found, (MapType::ThroughHostBridge, 4, AddressKind::Iova));
    let drawn = drawing(&topology, &guest).to_text(Format::Text);
    assert!(drawn.contains("03:00.0 ioat0 device [8086:2021]\n"), "{drawn}");
    assert!(Explanation::new(&plan, &guest, "ioat1", "peer1").is_ok());
}

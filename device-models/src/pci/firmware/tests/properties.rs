//! What holds for every assignment, on trees of any shape.

use proptest::prelude::*;

use super::*;

/// Checks an assignment against the registers: aligned, inside, apart, nested.
pub(super) fn check(tree: &mut Tree, assignment: &Assignment, host: &HostResources) {
    let mut all: Vec<RangeInclusive<u64>> = Vec::new();
    for entry in &assignment.functions {
        let config = tree.find(entry.function).unwrap();
        let programmed: Vec<_> = config.bars().map(|bar| bar.range().unwrap()).collect();
        let planned: Vec<_> = entry.bars.iter().map(|bar| bar.range.clone()).collect();
        assert_eq!(programmed, planned, "{}", entry.function);
        for bar in &entry.bars {
            let size = bar.range.end() - bar.range.start() + 1;
            assert_eq!(bar.range.start() % size, 0);
            let window = match bar.window {
                WindowKind::Memory => &host.memory,
                WindowKind::Prefetchable => &host.prefetchable,
            };
            assert!(inside(&bar.range, window));
            all.push(bar.range.clone());
        }
        if let Some((buses, windows)) = &entry.bridge {
            assert_eq!(config.bridge_buses(), Some(*buses));
            assert_eq!(&config.bridge_windows(), windows);
        }
    }
    all.sort_by_key(|range| *range.start());
    assert!(all.windows(2).all(|pair| pair[0].end() < pair[1].start()), "BARs overlap");
    for node in &tree.0 {
        nested(node);
    }
    for (i, one) in tree.0.iter().enumerate() {
        siblings_apart(one, &tree.0[i + 1..]);
    }
}

fn inside(inner: &RangeInclusive<u64>, outer: &RangeInclusive<u64>) -> bool {
    outer.contains(inner.start()) && outer.contains(inner.end())
}

/// What a function claims, as a bridge above it must forward it: memory, prefetchable.
fn claims(node: &Node) -> (Vec<RangeInclusive<u64>>, Vec<RangeInclusive<u64>>) {
    let Windows { memory, prefetchable } = node.config.bridge_windows();
    let (mut low, mut high) = (Vec::from_iter(memory), Vec::from_iter(prefetchable));
    for bar in node.config.bars() {
        if bar.prefetchable { &mut high } else { &mut low }.push(bar.range().unwrap());
    }
    (low, high)
}

fn nested(bridge: &Node) {
    let Windows { memory, prefetchable } = bridge.config.bridge_windows();
    for (i, node) in bridge.below.iter().enumerate() {
        let (low, high) = claims(node);
        assert!(low.iter().all(|range| inside(range, memory.as_ref().unwrap())));
        assert!(high.iter().all(|range| inside(range, prefetchable.as_ref().unwrap())));
        siblings_apart(node, &bridge.below[i + 1..]);
        nested(node);
    }
}

fn siblings_apart(one: &Node, others: &[Node]) {
    let all = |node: &Node| {
        let (low, high) = claims(node);
        [low, high].concat()
    };
    for other in others {
        for (a, b) in all(one).iter().flat_map(|a| all(other).into_iter().map(move |b| (a, b))) {
            assert!(a.end() < b.start() || b.end() < a.start(), "{a:x?} and {b:x?}");
        }
    }
}

fn endpoint() -> impl Strategy<Value = Node> {
    let bar = (12u32..28, 0u8..3).prop_map(|(shift, kind)| {
        let kind = match kind {
            0 => BarKind::Memory32,
            1 => BarKind::Memory64 { prefetchable: false },
            _ => BarKind::Memory64 { prefetchable: true },
        };
        (1u64 << shift, kind)
    });
    prop::collection::vec(bar, 0..4).prop_map(|bars| {
        let bars = bars.into_iter().take(3).zip([0, 2, 4]);
        let bars = bars.map(|((size, kind), index)| BarDescription { index, size, kind });
        let bars = bars.collect();
        let description = FunctionDescription { vendor: 1, bars, ..Default::default() };
        let config = ConfigSpace::endpoint(&description).unwrap();
        Node { devfn: 0, config, below: Vec::new() }
    })
}

/// What hangs on a link: a device, or a switch with more of them.
fn on_link() -> impl Strategy<Value = Node> {
    endpoint().prop_recursive(3, 12, 4, |inner| {
        prop::collection::vec(inner, 0..4).prop_map(|devices| {
            let ports = (0..)
                .zip(devices)
                .map(|(device, below)| port(device, PortKind::SwitchDownstream, vec![below]));
            port(0, PortKind::SwitchUpstream, ports.collect())
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_tree_is_assigned_well(devices in prop::collection::vec(on_link(), 0..5)) {
        let ports = (1..).zip(devices).map(|(device, below)| {
            port(device, PortKind::RootPort, vec![below])
        });
        let mut tree = Tree(std::iter::once(host_bridge()).chain(ports).collect());
        let host = HostResources { memory: 0x2000_0000..=0xffff_ffff, ..HOST };
        let mut again = tree.clone();
        match assign(&mut tree, &host) {
            Ok(assignment) => {
                check(&mut tree, &assignment, &host);
                prop_assert_eq!(assign(&mut again, &host), Ok(assignment));
            }
            Err(error) => {
                let no_space = matches!(error, FirmwareError::NoSpace { .. });
                prop_assert!(no_space, "{}", error);
            }
        }
    }
}

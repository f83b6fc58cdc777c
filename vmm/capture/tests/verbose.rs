//! `lspci -vvv` as people post it.

#![allow(clippy::unwrap_used, reason = "tests")]

use peerdma_capture::{
    Acs, Buses, Error, Header, Machine, Parent, PortType, Service, Space, Window,
};
use peerdma_capture::{Function, read};

/// A root port with a switch: the upstream port without ACS, one downstream port with, and two endpoints.
const ROOT: &str = "\
0000:3a:00.0 PCI bridge [0604]: Intel Corporation Sky Lake-E PCI Express Root Port A [8086:2030] (rev 04) (prog-if 00 [Normal decode])
\tControl: I/O- Mem+ BusMaster+ SpecCycle- MemWINV- VGASnoop- ParErr- Stepping- SERR- FastB2B- DisINTx+
\tStatus: Cap+ 66MHz- UDF- FastB2B- ParErr- DEVSEL=fast >TAbort- <TAbort- <MAbort- >SERR- <PERR- INTx-
\tLatency: 0, Cache Line Size: 32 bytes
\tInterrupt: pin A routed to IRQ 36
\tNUMA node: 0
\tIOMMU group: 29
\tBus: primary=3a, secondary=3b, subordinate=3e, sec-latency=0
\tI/O behind bridge: 0000f000-00000fff [disabled]
\tMemory behind bridge: b8000000-b9ffffff [size=32M]
\tPrefetchable memory behind bridge: 00000383fe0000000-00000383ff1ffffff [size=274M]
\tSecondary status: 66MHz- FastB2B- ParErr- DEVSEL=fast >TAbort- <TAbort- <MAbort- <SERR- <PERR-
\tBridgeCtl: Parity- SERR+ NoISA- VGA- VGA16- MAbort- >Reset- FastB2B-
\t\tPriDiscTmr- SecDiscTmr- DiscTmrStat- DiscTmrSERREn-
\tCapabilities: [40] Subsystem: Intel Corporation Sky Lake-E PCI Express Root Port A [8086:0000]
\tCapabilities: [60] MSI: Enable+ Count=1/2 Maskable+ 64bit-
\t\tAddress: fee00438  Data: 0000
\t\tMasking: 00000002  Pending: 00000000
\tCapabilities: [90] Express (v2) Root Port (Slot-), MSI 00
\t\tDevCap:\tMaxPayload 256 bytes, PhantFunc 0
\t\t\tExtTag- RBE+
\tCapabilities: [100 v1] Vendor Specific Information: ID=0002 Rev=0 Len=00c <?>
\tCapabilities: [110 v1] Access Control Services
\t\tACSCap:\tSrcValid+ TransBlk+ ReqRedir+ CmpltRedir+ UpstreamFwd+ EgressCtrl- DirectTrans-
\t\tACSCtl:\tSrcValid+ TransBlk- ReqRedir+ CmpltRedir+ UpstreamFwd+ EgressCtrl- DirectTrans-
\tCapabilities: [148 v1] Advanced Error Reporting
\tKernel driver in use: pcieport

";

const SWITCH: &str = "\
0000:3b:00.0 PCI bridge [0604]: PLX Technology, Inc. PEX 8747 48-Lane, 5-Port PCI Express Gen 3 (8.0 GT/s) Switch [10b5:8747] (rev ca) (prog-if 00 [Normal decode])
\tControl: I/O+ Mem+ BusMaster+ SpecCycle- MemWINV- VGASnoop- ParErr- Stepping- SERR- FastB2B- DisINTx-
\tStatus: Cap+ 66MHz- UDF- FastB2B- ParErr- DEVSEL=fast >TAbort- <TAbort- <MAbort- >SERR- <PERR- INTx-
\tRegion 0: Memory at b9f00000 (32-bit, non-prefetchable) [size=256K]
\tBus: primary=3b, secondary=3c, subordinate=3e, sec-latency=0
\tCapabilities: [68] Express (v2) Upstream Port, MSI 00
\tCapabilities: [100 v1] Device Serial Number ca-87-00-10-b5-df-0e-00
\tCapabilities: [148 v1] Virtual Channel
\tKernel driver in use: pcieport

0000:3c:08.0 PCI bridge [0604]: PLX Technology, Inc. PEX 8747 [10b5:8747] (rev ca) (prog-if 00 [Normal decode])
\tControl: I/O+ Mem+ BusMaster+ SpecCycle- MemWINV- VGASnoop- ParErr- Stepping- SERR- FastB2B- DisINTx-
\tStatus: Cap+ 66MHz- UDF- FastB2B- ParErr- DEVSEL=fast >TAbort- <TAbort- <MAbort- >SERR- <PERR- INTx-
\tBus: primary=3c, secondary=3d, subordinate=3d, sec-latency=0
\tCapabilities: [68] Express (v2) Downstream Port (Slot+), MSI 00
\tCapabilities: [520 v1] Access Control Services
\t\tACSCap:\tSrcValid+ TransBlk+ ReqRedir+ CmpltRedir+ UpstreamFwd+ EgressCtrl+ DirectTrans+
\t\tACSCtl:\tSrcValid- TransBlk- ReqRedir- CmpltRedir- UpstreamFwd- EgressCtrl- DirectTrans-
\tKernel driver in use: pcieport

";

const GPU: &str = "\
0000:3d:00.0 3D controller [0302]: NVIDIA Corporation GP100GL [Tesla P100 PCIe 16GB] [10de:15f8] (rev a1)
\tSubsystem: NVIDIA Corporation Device [10de:118f]
\tControl: I/O- Mem+ BusMaster+ SpecCycle- MemWINV- VGASnoop- ParErr- Stepping- SERR- FastB2B- DisINTx+
\tStatus: Cap+ 66MHz- UDF- FastB2B- ParErr- DEVSEL=fast >TAbort- <TAbort- <MAbort- >SERR- <PERR- INTx-
\tRegion 0: Memory at b8000000 (32-bit, non-prefetchable) [size=16M]
\tRegion 1: Memory at 383fe0000000 (64-bit, prefetchable) [size=16G]
\tRegion 3: Memory at 383ff0000000 (64-bit, prefetchable) [size=32M]
\tCapabilities: [60] Power Management version 3
\tCapabilities: [78] Express (v2) Endpoint, MSI 00
\tCapabilities: [100 v1] Virtual Channel
\tCapabilities: [2a0 v1] Address Translation Service (ATS)
\t\tATSCap:\tInvalidate Queue Depth: 00
\t\tATSCtl:\tEnable-, Smallest Translation Unit: 00
\tCapabilities: [600 v1] Vendor Specific Information: ID=0001 Rev=1 Len=024 <?>
\tKernel driver in use: nvidia
\tKernel modules: nvidia_drm, nvidia
";

fn whole() -> String {
    format!("{ROOT}{SWITCH}{GPU}")
}

fn machine(text: &str) -> Machine {
    read(text.as_bytes()).unwrap()
}

fn at<'a>(machine: &'a Machine, address: &str) -> &'a Function {
    machine.at(address.parse().unwrap()).unwrap_or_else(|| panic!("no {address}"))
}

/// What decides: parents, types, ACS.
fn decisive(machine: &Machine) -> Vec<(String, Parent, PortType, Acs)> {
    let of = |function: &Function| {
        (function.address.to_string(), function.parent, function.port, function.acs.clone())
    };
    machine.functions.iter().map(of).collect()
}

fn notes(machine: &Machine) -> String {
    machine.notes.iter().map(|note| format!("{note:?}\n")).collect()
}

#[test]
fn a_whole_listing_says_all_that_decides() {
    let machine = machine(&whole());
    let root = at(&machine, "3a:00.0");
    assert_eq!((root.vendor, root.device, root.class), (Some(0x8086), Some(0x2030), Some(0x0604)));
    assert_eq!(
        (root.header, root.port, root.parent),
        (Header::Bridge, PortType::RootPort, Parent::Root)
    );
    assert_eq!((root.iommu_group, root.numa_node), (Some(29), Some(0)));
    assert_eq!(root.driver.as_deref(), Some("pcieport"));
    let bridge = root.bridge.unwrap();
    assert_eq!(bridge.buses, Some(Buses { primary: 0x3a, secondary: 0x3b, subordinate: 0x3e }));
    assert_eq!(bridge.memory, Some(Window::Open { first: 0xb800_0000, last: 0xb9ff_ffff }));
    let Acs::Present { capabilities, control, egress } = &root.acs else { panic!("{root:?}") };
    let of = |flags: [bool; 7]| flags.map(Some);
    assert_eq!(capabilities.values(), of([true, true, true, true, true, false, false]));
    assert_eq!(control.values(), of([true, false, true, true, true, false, false]));
    assert_eq!(*egress, None);

    assert_eq!(at(&machine, "3b:00.0").acs, Acs::Absent);
    assert_eq!(at(&machine, "3b:00.0").port, PortType::Upstream);
    assert_eq!(at(&machine, "3c:08.0").parent, Parent::Below("3b:00.0".parse().unwrap()));
    let gpu = at(&machine, "3d:00.0");
    assert_eq!((gpu.port, &gpu.acs), (PortType::Endpoint, &Acs::Absent));
    assert_eq!((gpu.ats, gpu.pasid), (Service::Off, Service::Absent));
    assert_eq!((gpu.subsystem_vendor, gpu.subsystem_device), (Some(0x10de), Some(0x118f)));
    let bars: Vec<_> = gpu.bars.iter().map(|bar| (bar.index, bar.size.unwrap() >> 20)).collect();
    assert_eq!(bars, [(0, 16), (1, 16 << 10), (3, 32)]);
    assert_eq!(gpu.bars[1].space, Space::Memory { wide: true, prefetchable: true });
    assert_eq!(machine.roots.len(), 1);
    let about = machine.notes.iter().filter(|note| !note.functions.is_empty());
    assert_eq!(about.count(), 0, "{}", notes(&machine));
}

#[test]
fn how_it_is_posted_makes_no_difference() {
    let plain = machine(&whole());
    let each = |change: &dyn Fn(&str) -> String| -> String {
        whole().lines().map(|line| change(line) + "\n").collect()
    };
    let variants = [
        each(&|line| format!("    {line}")),
        each(&|line| format!("> {line}")),
        each(&|line| format!("> > {line}")),
        each(&|line| line.replace('\t', "        ")),
        each(&|line| line.replace('\t', "  ")),
        each(&|line| line.trim_start().to_owned()),
        each(&|line| format!("{line}\r")),
        each(&|line| format!("    17\t{line}")),
        each(&|line| format!("{line}   ")),
        format!("[CODE]{}[/CODE]", whole()),
        each(&|line| format!("{line}\n")),
        each(&|line| line.replace("0000:", "")),
        format!(
            "Hello,\nthis is the output: see below.\n\n```\n{}```\n\n[    3.1] pci 0000:3d:00.0: Adding\n",
            whole()
        ),
        each(&|line| wrap(line, 80, false)),
        each(&|line| wrap(line, 70, false).replace('=', "=3D").replace('\n', "=\n")),
        each(&|line| wrap(line, 72, true)),
        each(&|line| wrap(&format!("> {line}"), 78, false).replace('\n', "\n> ")),
    ];
    for text in variants {
        let read = machine(&text);
        assert_eq!(decisive(&read), decisive(&plain), "{text}");
        assert_eq!(at(&read, "3a:00.0").device, Some(0x2030), "{text}");
        assert_eq!(at(&read, "3d:00.0").bars, at(&plain, "3d:00.0").bars, "{text}");
        assert_eq!(at(&read, "3a:00.0").bridge, at(&plain, "3a:00.0").bridge, "{text}");
    }
    let mut bytes = b"\xff\xfe caf\xe9\n".to_vec();
    bytes.extend(whole().into_bytes());
    assert_eq!(decisive(&read(&bytes).unwrap()), decisive(&plain));
}

/// Breaks a line at `width` columns, as a terminal does, or before it at a space, as a mail does.
fn wrap(line: &str, width: usize, at_space: bool) -> String {
    let line = line.replace('\t', "        ");
    let mut parts = Vec::new();
    let mut rest = line.as_str();
    while rest.len() > width {
        let space = rest[..width].rfind(' ').filter(|at| at_space && *at > 24);
        let (part, next) = rest.split_at(space.map_or(width, |at| at + 1));
        parts.push(part);
        rest = next;
    }
    parts.push(rest);
    parts.join("\n")
}

#[test]
fn capabilities_that_were_not_readable_are_unknown() {
    let denied: String = whole()
        .lines()
        .filter(|line| !line.starts_with("\t\t"))
        .filter(|line| !line.starts_with("\tCapabilities: [") || line.contains("[90]"))
        .map(|line| {
            if line.contains("[90]") {
                "\tCapabilities: <access denied>\n".into()
            } else {
                format!("{line}\n")
            }
        })
        .collect();
    for text in [denied.clone(), denied.replace(" <access denied>", "")] {
        let machine = machine(&text);
        let root = at(&machine, "3a:00.0");
        assert_eq!((&root.acs, root.port), (&Acs::Unknown, PortType::Unknown));
        assert_eq!(root.bridge.unwrap().buses.unwrap().secondary, 0x3b);
        assert!(notes(&machine).contains("run it as root"), "{}", notes(&machine));
        // The others have capabilities, says their status register, but none is shown.
        assert_eq!(at(&machine, "3d:00.0").acs, Acs::Unknown);
        assert_eq!(at(&machine, "3d:00.0").parent, Parent::Below("3c:08.0".parse().unwrap()));
    }
}

#[test]
fn what_is_cut_is_unknown_and_not_absent() {
    let of = |text: &str| at(&machine(text), "3b:00.0").acs.clone();
    let cut = SWITCH.split("\tCapabilities: [100").next().unwrap();
    assert_eq!(of(&format!("{ROOT}{cut}")), Acs::Unknown);
    let rest = "\tKernel driver in use: pcieport\n";
    for mark in ["[...]", "...", "<snip>", "[snip]", "(truncated)", "--", "--More--"] {
        assert_eq!(of(&format!("{ROOT}{cut}{mark}\n{rest}{GPU}")), Acs::Unknown, "{mark}");
    }
    // Nearly the same, but whole: capabilities end without an extended one.
    assert_eq!(of(&format!("{ROOT}{cut}{rest}{GPU}")), Acs::Absent);
    // No function of this text shows one.
    let only: String = cut.lines().chain(rest.lines()).map(|line| format!("{line}\n")).collect();
    assert_eq!(of(&only), Acs::Unknown);
}

#[test]
fn a_cut_control_line_leaves_the_rest_unknown() {
    let text = ROOT.replace(
        "CmpltRedir+ UpstreamFwd+ EgressCtrl- DirectTrans-\n\tCapabilities: [148",
        "Cmplt\n\tCapabilities: [148",
    );
    assert_ne!(text, ROOT);
    let machine = machine(&text);
    let Acs::Present { capabilities, control, .. } = at(&machine, "3a:00.0").acs.clone() else {
        panic!()
    };
    assert!(capabilities.is_complete());
    assert_eq!(
        (control.sv, control.rr, control.cr, control.ec),
        (Some(true), Some(true), None, None)
    );
    let note = machine.notes.iter().find(|note| note.text.contains("CmpltRedir")).unwrap();
    assert_eq!(note.line, Some(25));
    let without: String =
        ROOT.lines().filter(|line| !line.contains("ACSC")).map(|l| format!("{l}\n")).collect();
    let machine = self::machine(&without);
    let Acs::Present { control, .. } = &at(&machine, "3a:00.0").acs else { panic!() };
    assert_eq!(control.rr, None);
}

#[test]
fn grepped_control_lines_are_enough_for_acs() {
    let text = "\
        $ for d in ...\n\
        0000:c0:01.1\n\
        \t\tACSCtl:\tSrcValid+ TransBlk- ReqRedir+ CmpltRedir+ UpstreamFwd+ EgressCtrl- DirectTrans-\n\
        c1:00.0:\n\
        ACSCtl: SrcValid- TransBlk- ReqRedir- CmpltRedir- UpstreamFwd- EgressCtrl- DirectTrans-\n\
        c2:00.0 PCI bridge: PMC-Sierra Inc. Device 4036\n\
        c3:00.0 ACSCtl: SrcValid- TransBlk- ReqRedir+ CmpltRedir- UpstreamFwd- EgressCtrl- DirectTrans-\n\
        c4:00.0 is where my card was\n";
    let machine = machine(text);
    let redirect = |address: &str| match &at(&machine, address).acs {
        Acs::Present { control, .. } => control.rr,
        _ => None,
    };
    assert_eq!(redirect("c0:01.1"), Some(true));
    assert_eq!(redirect("c1:00.0"), Some(false));
    assert_eq!(at(&machine, "c2:00.0").acs, Acs::Unknown);
    assert_eq!(
        (at(&machine, "c2:00.0").vendor, at(&machine, "c2:00.0").device),
        (Some(0x11f8), Some(0x4036))
    );
    assert_eq!(redirect("c3:00.0"), Some(true));
    assert_eq!(machine.functions.len(), 4);
}

#[test]
fn two_states_in_one_file_are_not_one_of_them() {
    let other = ROOT.replace(
        "ReqRedir+ CmpltRedir+ UpstreamFwd+ EgressCtrl- DirectTrans-\n\tCap",
        "ReqRedir- CmpltRedir+ UpstreamFwd+ EgressCtrl- DirectTrans-\n\tCap",
    );
    let machine = machine(&format!("{ROOT}{other}"));
    let Acs::Present { control, .. } = &at(&machine, "3a:00.0").acs else { panic!() };
    assert_eq!((control.rr, control.cr), (None, Some(true)));
    assert!(
        notes(&machine).contains("ACS control RR is stated in two ways"),
        "{}",
        notes(&machine)
    );
    let other = GPU.replace("[10de:15f8]", "[10de:15f9]");
    let error = read(format!("{GPU}\n{other}").as_bytes()).unwrap_err();
    assert!(matches!(error, Error::TwoMachines { before: 1, line: 18, .. }), "{error}");
}

#[test]
fn regions_of_virtual_functions_are_not_the_function_s_own() {
    let text = "\
0000:06:00.0 Ethernet controller [0200]: Intel Corporation Ethernet Controller X710 for 10GbE SFP+ [8086:1572] (rev 02)
\tControl: I/O- Mem+ BusMaster+
\tStatus: Cap+ 66MHz-
\tRegion 0: Memory at f8000000 (64-bit, prefetchable) [size=8M]
\tCapabilities: [a0] Express (v2) Endpoint, MSI 00
\tCapabilities: [160 v1] Single Root I/O Virtualization (SR-IOV)
\t\tIOVCap:\tMigration-, Interrupt Message Number: 000
\t\tIOVCtl:\tEnable+ Migration- Interrupt- MSE+ ARIHierarchy-
\t\tIOVSta:\tMigration-
\t\tInitial VFs: 64, Total VFs: 64, Number of VFs: 2, Function Dependency Link: 00
\t\tVF offset: 16, stride: 1, Device ID: 154c
\t\tRegion 0: Memory at 00000000f9000000 (64-bit, prefetchable)
\t\tRegion 3: Memory at 00000000f9400000 (64-bit, prefetchable)
\tKernel driver in use: i40e

0000:06:02.0 Ethernet controller [0200]: Intel Corporation Ethernet Virtual Function 700 Series [8086:154c] (rev 02)

0000:06:02.1 Ethernet controller [0200]: Intel Corporation Ethernet Virtual Function 700 Series [8086:154c] (rev 02)

0000:06:02.2 Ethernet controller [0200]: Intel Corporation Ethernet Virtual Function 700 Series [8086:154c] (rev 02)
";
    let machine = machine(text);
    let physical = at(&machine, "06:00.0");
    assert_eq!((physical.bars.len(), physical.virtual_functions), (1, Some(2)));
    let of = |address: &str| at(&machine, address).physical_function;
    assert_eq!(of("06:02.0"), Some(physical.address));
    assert_eq!(of("06:02.1"), Some(physical.address));
    assert_eq!(of("06:02.2"), None);
}

#[test]
fn nothing_is_found_in_what_is_something_else() {
    for text in
        ["", "\n\n", "Dear all,\nmy card is at 01:00.0 and slow: why?\n", "00: 86 80\n", "{", "[]"]
    {
        let error = read(text.as_bytes()).unwrap_err().to_string();
        assert!(error.contains("line") || error.contains("EOF"), "{error}");
    }
}

#[test]
fn a_line_whose_address_is_cut_ends_the_function_before_it() {
    let control = "\t\tACSCtl: SrcValid+ TransBlk- ReqRedir+ CmpltRedir+ UpstreamFwd+ EgressCtrl- DirectTrans-\n";
    let text = format!("00:01.0 PCI bridge: x\n0:02.0 PCI bridge: x\n{control}");
    let machine = machine(&text);
    assert_eq!(machine.functions.len(), 1);
    assert_eq!(at(&machine, "00:01.0").acs, Acs::Unknown);
    assert!(notes(&machine).contains("address cannot be read"), "{}", notes(&machine));
}

#[test]
fn circles_are_no_trees() {
    let of = |text: &str| {
        let machine = machine(text);
        // Reading the record would fail with a circle in it.
        assert_eq!(Machine::from_json(&machine.to_json().unwrap()).unwrap(), machine);
        machine.functions.iter().map(|function| function.parent).collect::<Vec<_>>()
    };
    let stated = "01:00.0/01:01.0 PCI bridge: x\n01:01.0/01:00.0 PCI bridge: x\n";
    assert_eq!(of(stated), [Parent::Unknown; 2]);
    let bus = |primary: &str, secondary: &str| {
        format!(
            "{primary}:00.0 PCI bridge: x\n\tBus: primary={primary}, secondary={secondary}, subordinate=06\n"
        )
    };
    let numbers = of(&format!("{}{}", bus("05", "03"), bus("03", "05")));
    assert_eq!(numbers, [Parent::Unknown, Parent::Below("03:00.0".parse().unwrap())]);
    assert_eq!(of(&bus("05", "05")), [Parent::Unknown]);
}

#[test]
fn an_extract_lacks_nothing_that_it_would_not_show() {
    let keep = |words: &[&str]| -> String {
        let lines = ROOT.lines().chain(SWITCH.lines());
        let kept = lines
            .filter(|line| line.starts_with('0') || words.iter().any(|word| line.contains(word)));
        kept.map(|line| format!("{line}\n")).collect()
    };
    for words in
        [&["Control:", "ACSCtl"][..], &["Control:"], &["Status:"], &["Kernel driver"], &["ACS"]]
    {
        let machine = machine(&keep(words));
        assert_eq!(at(&machine, "3b:00.0").acs, Acs::Unknown, "{words:?}");
    }
}

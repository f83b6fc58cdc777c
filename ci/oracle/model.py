"""A machine, read from a topology file and from what the firmware has programmed.

The file gives the tree, the ACS capabilities and what the root complex routes. Bus numbers, bridge
windows and BARs are what `peerdma topology --format json` prints: facts about the machine, checked
here for being a machine at all, and not a prediction that two programs could differ about.
"""

import re
import tomllib
from dataclasses import dataclass, field

# ACS controls (PCIe 6.0, 7.7.11.2 and 7.7.11.3), in the order of their bits.
ACS_BITS = {"SV": 0x01, "TB": 0x02, "RR": 0x04, "CR": 0x08, "UF": 0x10, "EC": 0x20, "DT": 0x40}
SV, TB, RR, CR, UF, EC, DT = ACS_BITS.values()

ROOT_PORT, UPSTREAM, DOWNSTREAM = "root-port", "upstream", "downstream"
ENDPOINT, INTEGRATED, CONVENTIONAL = "endpoint", "integrated", "conventional"


# The peer device; its local memory is BAR 2.
PEER = (0x1AF4, 0x10F0)
LOCAL_MEMORY = 2


@dataclass
class Window:
    first: int
    last: int

    def __contains__(self, address):
        return self.first <= address <= self.last


@dataclass
class HostBridge:
    name: str
    vendor: int
    device: int
    translation: int
    peer_routing: str
    first_bus: int
    last_bus: int
    windows: list = field(default_factory=list)


@dataclass(eq=False)
class Function:
    name: str
    kind: str
    bus: int
    devfn: int
    vendor: int
    device: int
    host: HostBridge
    parent: "Function | None" = None
    children: list = field(default_factory=list)
    acs_capability: int = 0
    acs_without_effect: int = 0
    # What Linux has programmed; kernel_parameters.program() sets it.
    acs_control: int = 0
    multifunction: bool = False
    secondary: int = 0
    subordinate: int = 0
    windows: list = field(default_factory=list)
    bars: dict = field(default_factory=dict)

    @property
    def bdf(self):
        return f"{self.bus:02x}:{self.devfn >> 3:02x}.{self.devfn & 7}"

    @property
    def effective(self):
        """The ACS controls that the hardware acts upon."""
        return self.acs_control & ~self.acs_without_effect

    def passes_down(self, address):
        return any(address in window for window in self.windows)

    def leads_to_bus(self, bus):
        return self.secondary <= bus <= self.subordinate

    def takes(self, address):
        return any(address in bar for bar in self.bars.values())

    def memory(self):
        """The first bus address of a peer device's local memory."""
        return self.bars[LOCAL_MEMORY].first

    def __repr__(self):
        return f"{self.name} ({self.bdf})"


@dataclass
class Machine:
    hosts: list
    functions: list  # in the order in which Linux finds them
    trusted_cpu: bool
    iommu: str = "strict"

    def named(self, name):
        return next(function for function in self.functions if function.name == name)

    def root_bus(self, host):
        return [f for f in self.functions if f.host is host and f.parent is None]

    def clients(self):
        """The functions that do DMA."""
        return [f for f in self.functions if f.bars]

    def providers(self):
        """Those of them that have memory to reach: the peer devices."""
        return [f for f in self.functions if (f.vendor, f.device) == PEER]


class Unreadable(Exception):
    """The drawing is not one of the machine in the file."""


def acs(text):
    if text == "none":
        return 0
    if text == "standard":
        return SV | TB | RR | CR | UF
    return sum(ACS_BITS[word] for word in set(text.split()))


TITLE = re.compile(r"([0-9a-f]{2}):([0-9a-f]{2})\.([0-7]) (\S+) ?(.*?) ?\[(\w{4}):(\w{4})\]$")
RANGE = re.compile(r"(BAR(\d)|memory|prefetchable) 0x([0-9a-f]+)-0x([0-9a-f]+)")
BUSES = re.compile(r"buses ([0-9a-f]{2})-([0-9a-f]{2})$")


def read(text, drawing, iommu):
    """The machine of a topology file's text and of its drawing as JSON."""
    file = tomllib.loads(text)
    declared = declarations(file)
    hosts = []
    functions = []
    bridges = {entry["name"]: entry for entry in file["host-bridge"]}
    for drawn in drawing["host_bridges"]:
        name, buses = drawn["title"].split(" ", 1)
        vendor, device = (int(part, 16) for part in bridges[name]["id"].split(":"))
        first, last = BUSES.match(buses).groups()
        host = HostBridge(
            name,
            vendor,
            device,
            bridges[name].get("translation", 0),
            bridges[name].get("peer-routing", "everywhere"),
            int(first, 16),
            int(last, 16),
        )
        host.windows = [Window(int(a, 16), int(b, 16)) for _, _, a, b in ranges(drawn)]
        hosts.append(host)
        scan(host, None, drawn["below"], host.first_bus, declared, functions)
    machine = Machine(hosts, functions, file.get("cpu") == "trusted-for-peer-to-peer", iommu)
    mark_multifunction(machine)
    check(machine, declared)
    return machine


def declarations(file):
    """What the file says of each function: kind, ACS capability, controls without effect."""
    result = {}
    for port in file.get("root-port", []):
        result[port["name"]] = (ROOT_PORT, port, "standard")
    for switch in file.get("switch", []):
        result[switch["name"]] = (UPSTREAM, switch, "none")
        for port in switch["port"]:
            result[port["name"]] = (DOWNSTREAM, port, "none")
    names = {bridge["name"] for bridge in file["host-bridge"]}
    for device in file.get("peer", []) + file.get("endpoint", []):
        kind = INTEGRATED if device["below"] in names else ENDPOINT
        result[device["name"]] = (kind, device, "none")
    return result


def ranges(drawn):
    found = (RANGE.match(line) for line in drawn["details"])
    return [match.groups() for match in found if match]


def scan(host, parent, nodes, bus, declared, functions):
    """Linux's order: all functions of a bus, then what is behind each bridge in turn."""
    here = []
    for node in nodes:
        number, device, function, name, _, vendor, identity = TITLE.match(node["title"]).groups()
        if int(number, 16) != bus:
            raise Unreadable(f"{name} is drawn on bus {number}")
        if name in declared:
            kind, entry, default = declared[name]
        else:
            kind, entry, default = (CONVENTIONAL if name == host.name else INTEGRATED), {}, "none"
        found = Function(
            name,
            kind,
            bus,
            int(device, 16) << 3 | int(function),
            int(vendor, 16),
            int(identity, 16),
            host,
            parent,
            acs_capability=acs(entry.get("acs", default)),
            acs_without_effect=acs(entry.get("acs-without-effect", "none")),
        )
        for _, bar, first, last in ranges(node):
            window = Window(int(first, 16), int(last, 16))
            if bar:
                found.bars[int(bar)] = window
            else:
                found.windows.append(window)
        for line in node["details"]:
            if match := BUSES.match(line):
                found.secondary, found.subordinate = (int(part, 16) for part in match.groups())
        if parent:
            parent.children.append(found)
        here.append((found, node))
    here.sort(key=lambda pair: pair[0].devfn)
    functions.extend(found for found, _ in here)
    for found, node in here:
        scan(host, found, node["below"], found.secondary, declared, functions)


def mark_multifunction(machine):
    devices = {}
    for function in machine.functions:
        devices.setdefault((function.bus, function.devfn >> 3), []).append(function)
    for together in devices.values():
        for function in together:
            function.multifunction = len(together) > 1


def check(machine, declared):
    """Numbers and windows that could not be those of a machine end the comparison."""
    missing = declared.keys() - {function.name for function in machine.functions}
    if missing:
        raise Unreadable(f"not drawn: {', '.join(sorted(missing))}")
    for function in machine.functions:
        above = function.parent.windows if function.parent else function.host.windows
        for window in function.windows + list(function.bars.values()):
            if not any(window.first in outer and window.last in outer for outer in above):
                raise Unreadable(f"{function}: {window} is not passed down to it")
        if function.kind in (ROOT_PORT, UPSTREAM, DOWNSTREAM):
            low = function.parent.secondary if function.parent else function.host.first_bus
            high = function.parent.subordinate if function.parent else function.host.last_bus
            if not low < function.secondary <= function.subordinate <= high:
                raise Unreadable(f"{function}: buses outside those of the bridge above")
    for owner in machine.functions:
        for other in machine.functions:
            if owner is not other and owner.parent is other.parent and owner.host is other.host:
                for one in owner.windows + list(owner.bars.values()):
                    for two in other.windows + list(other.bars.values()):
                        if one.first <= two.last and two.first <= one.last:
                            raise Unreadable(f"{owner} and {other} overlap")

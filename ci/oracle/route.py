"""The route that hardware gives a request and its completions, by the specification.

PCIe 6.0: routing by address and by ID (2.2.4), ACS (6.12, with table 6-11 for Request Redirect
together with Egress Control). Egress control vectors are zero after reset and Linux never writes
them, so that Egress Control forbids nothing and takes the effect of Request Redirect away.
A root complex routes between its ports as `peer-routing` says; what goes up is not translated by
a host bridge (`_TRA`), only what the CPUs and the root complex send down.
"""

from dataclasses import dataclass, field

import linux
from model import CR, EC, ROOT_PORT, RR, UF

TURNED_BACK = "pci.turned-back"
NO_TARGET = "pci.no-target"
REFUSED = "pci.peer-to-peer-refused"
UNMAPPED = "iommu.unmapped"


@dataclass
class Route:
    """Where a TLP went: the functions on its way, where it ended, and what stopped it."""

    path: list
    target: object = None
    fault: str | None = None
    at: object = None  # where the fault happened; None: in the root complex
    through_root_complex: bool = False
    translated: bool = False
    partly: bool = False  # other addresses of the same memory fare otherwise

    def lost(self, fault, at=None):
        self.fault = fault
        self.at = at
        return self


def request(machine, client, address, kind, provider):
    """A memory request by `client` for `address`, which is of this kind, or the provider's IOVA."""
    route = Route([client])
    iova = kind == linux.IOVA
    hit = (lambda windows: False) if iova else (lambda function: function.passes_down(address))
    port = client.parent
    while port:
        route.path.append(port)
        if port.kind == ROOT_PORT:
            break
        if hit(port):
            # Back to where it came from: only Upstream Forwarding takes it further.
            if not port.effective & UF:
                return route.lost(TURNED_BACK, port)
        else:
            upstream = port.parent
            peer = next((other for other in upstream.children if other is not port and hit(other)), None)
            redirected = port.effective & RR and not port.effective & EC
            if peer and not redirected:
                return descend(route, peer, address)
            if not peer and hit(upstream):
                return route.lost(NO_TARGET, upstream)
        route.path.append(port.parent)
        port = port.parent.parent
    return root_complex(machine, route, client, address, iova, provider)


def root_complex(machine, route, client, address, iova, provider):
    route.through_root_complex = True
    if linux.translated(machine, client):
        if not iova:
            return route.lost(UNMAPPED)
        route.translated = True
    if iova:
        host, address = provider.host, provider.memory()
    else:
        host = next((h for h in machine.hosts if holds(h, address - h.translation)), None)
        if host is None:
            return route.lost(NO_TARGET)
        address -= host.translation
    for function in machine.root_bus(host):
        if function.passes_down(address) or function.takes(address):
            if not peer_routing(client.host, host):
                return route.lost(REFUSED)
            # What came up through a root port goes back down through it only with Upstream
            # Forwarding, whatever became of the address in between, and the IOMMU looks first
            # (real root ports differ: docs/fidelity.md; guests have been asked).
            if function in route.path and function is not client and not function.effective & UF:
                return route.lost(TURNED_BACK, function)
            return descend(route, function, address)
    return route.lost(NO_TARGET)


def holds(host, address):
    return any(address in window for window in host.windows)


def peer_routing(origin, destination):
    """Both host bridges take a request as far as that."""
    settings = {origin.peer_routing, destination.peer_routing}
    if origin is not destination:
        return settings == {"everywhere"}
    return "nowhere" not in settings


def descend(route, function, address):
    """From a function that takes the address or passes it down, to the one that takes it."""
    while True:
        route.path.append(function)
        if function.takes(address):
            route.target = function
            return route
        below = [c for c in function.children if c.passes_down(address) or c.takes(address)]
        if not below:
            return route.lost(NO_TARGET, function)
        function = below[0]


def completion(machine, completer, requester):
    """The completions of a read, by the requester's ID."""
    route = Route([completer])
    bus = requester.bus
    port = completer.parent
    while port:
        route.path.append(port)
        if port.leads_to_bus(bus):
            if not port.effective & UF:
                return route.lost(TURNED_BACK, port)
        elif port.kind != ROOT_PORT:
            upstream = port.parent
            peer = next(
                (other for other in upstream.children if other is not port and other.leads_to_bus(bus)),
                None,
            )
            if peer and not port.effective & CR:
                return descend_by_id(route, peer, requester)
        if port.kind == ROOT_PORT:
            break
        route.path.append(port.parent)
        port = port.parent.parent
    route.through_root_complex = True
    for function in machine.root_bus(requester.host):
        if function is requester or function.secondary and function.leads_to_bus(bus):
            return descend_by_id(route, function, requester)
    return route.lost(NO_TARGET)


def descend_by_id(route, function, requester):
    while function is not requester:
        route.path.append(function)
        function = next(
            child
            for child in function.children
            if child is requester or child.secondary and child.leads_to_bus(requester.bus)
        )
    route.path.append(requester)
    route.target = requester
    return route

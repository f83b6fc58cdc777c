"""The whole answer about one pair: decision, groups, both routes, and what is wrong with them."""

from dataclasses import dataclass

import groups
import linux
import route
from model import EC, LOCAL_MEMORY, RR

WRONG_TARGET = "wrong-target"


@dataclass
class Verdict:
    decision: linux.Decision
    kind: str | None
    same_group: bool | None
    request: route.Route | None  # None where Linux gives no address
    completion: route.Route
    warnings: set
    notes: set

    @property
    def works(self):
        """Do requests reach the provider, and its completions the client?"""
        return self.request is not None and not self.lost

    @property
    def lost(self):
        """Does Linux give an address by which data is lost, or completions are?"""
        return self.request is not None and bool(self.request.fault or self.completion.fault)


def address(kind, provider):
    """The number that the device is given; that of an IOVA does not matter."""
    offset = provider.host.translation if kind == linux.PHYSICAL else 0
    return provider.memory() + offset


def request(machine, client, provider, kind):
    """The route of requests for all of the provider's memory; where it is not one, that of what is lost."""
    ways = [one_request(machine, client, provider, kind, at) for at in offsets(machine, provider, kind)]
    lost = next((way for way in ways if way.fault), ways[0])
    if any((way.fault, way.through_root_complex) != (lost.fault, lost.through_root_complex) for way in ways):
        lost.partly = True
    return lost


def offsets(machine, provider, kind):
    """Where in the provider's memory another range of addresses begins or ends, and 0."""
    if kind == linux.IOVA:
        return [0]
    size = provider.bars[LOCAL_MEMORY].last - provider.memory() + 1
    base = address(kind, provider)
    found = {0}
    for function in machine.functions:
        for window in function.windows + list(function.bars.values()):
            for edge in (window.first, window.last + 1):
                found |= {edge - base, edge + function.host.translation - base}
    return sorted(offset for offset in found if 0 <= offset < size)


def one_request(machine, client, provider, kind, offset):
    found = route.request(machine, client, address(kind, provider) + offset, kind, provider)
    if not found.fault and found.target is not provider:
        found.fault = WRONG_TARGET
    return found


def judge(machine, parameters, client, provider):
    decision = linux.decide(machine, provider, client)
    kind = linux.address_kind(machine, client, decision, parameters)
    asked = request(machine, client, provider, kind) if kind else None
    completion = route.completion(machine, provider, client)
    known = groups.groups(machine)
    same = None
    if client in known and provider in known:
        same = known[client] == known[provider]
    verdict = Verdict(decision, kind, same, asked, completion, set(), set())
    warn(verdict, machine, client, provider)
    return verdict


def warn(verdict, machine, client, provider):
    """The warnings and notes that this pair deserves, by their ids."""
    asked, completion = verdict.request, verdict.completion
    if asked:
        named = {
            route.TURNED_BACK: "turned-back",
            route.REFUSED: "root-complex-does-not-route",
            route.UNMAPPED: "bus-address-at-iommu",
            WRONG_TARGET: "address-of-another",
        }
        if asked.fault == route.TURNED_BACK and not asked.through_root_complex:
            # A switch took the CPUs' address for the bus address of what is on this side of it.
            number = address(verdict.kind, provider)
            others = [f for f in machine.functions if f.host is client.host and f.takes(number)]
            if others and provider not in others:
                named[route.TURNED_BACK] = "address-of-another"
        if asked.fault == route.REFUSED and verdict.kind == linux.BUS and provider.host.translation:
            # As an address of the CPUs' it is something else's, which is what was refused.
            named[route.REFUSED] = "address-of-another"
        if asked.fault:
            # Where addresses of one memory fare differently, some of them are something else's.
            other = "address-of-another" if asked.partly else named.get(asked.fault, "lost")
            verdict.warnings.add(other)
        elif completion.fault:
            verdict.warnings.add("completions-lost")
        straight = not asked.fault and not asked.through_root_complex
        if straight and verdict.decision.map_type == linux.THROUGH_HOST_BRIDGE:
            # Worth a warning where the user asked for redirected requests; Completion Redirect alone
            # never promised that.
            asked_for = any(f.acs_control & (RR | EC) for f in verdict.decision.redirecting)
            (verdict.warnings if asked_for else verdict.notes).add("goes-straight")
    if verdict.same_group is False and past_iommu(machine, client, provider):
        verdict.notes.add("groups-not-isolated")
    if verdict.decision.map_type == linux.NOT_SUPPORTED:
        # By VFIO, whose mappings are translated wherever there is an IOMMU, and by drivers that
        # map a BAR without asking p2pdma.
        vfio = linux.IOVA if linux.behind_iommu(machine, client) else linux.PHYSICAL
        driver = linux.IOVA if linux.translated(machine, client) else linux.PHYSICAL
        through = [
            name
            for name, kind in (("vfio", vfio), ("drivers", driver))
            if not completion.fault and not request(machine, client, provider, kind).fault
        ]
        if len(through) == 2:
            verdict.notes.add("hardware-routes")
        elif through:
            verdict.notes.add({"vfio": "vfio-routes", "drivers": "drivers-route"}[through[0]])


def past_iommu(machine, client, other):
    """Does a request by bus address reach the other function without the IOMMU seeing it?"""
    bar = other.bars.get(LOCAL_MEMORY) if other in machine.providers() else other.bars[min(other.bars)]
    direct = route.request(machine, client, bar.first, linux.BUS, other)
    return direct.target is other and not direct.through_root_complex

"""The whole answer about one pair: decision, route, groups, and what is wrong with it."""

from dataclasses import dataclass

import groups
import linux
import route


@dataclass
class Verdict:
    decision: linux.Decision
    kind: str | None
    same_group: bool | None
    request: route.Route | None
    completion: route.Route | None
    reach_past_iommu: bool

    @property
    def arrives(self):
        """Do requests reach the provider, and its completions the client?"""
        return self.request is not None and self.request.fault is None and self.completion is not None and (
            self.completion.fault is None
        )


def bus_address(function):
    return function.memory()


def physical_address(function):
    return function.memory() + function.host.translation


def address(kind, provider):
    """The number that the device is given; an IOVA has none that matters."""
    return physical_address(provider) if kind == linux.PHYSICAL else bus_address(provider)


def judge(machine, parameters, client, provider):
    decision = linux.decide(machine, provider, client)
    kind = linux.address_kind(machine, client, decision, parameters)
    request = completion = None
    if kind:
        request = route.request(machine, client, address(kind, provider), kind, provider)
        if request.fault is None and request.target is not provider:
            request.fault = "wrong-target"
        if request.fault is None:
            completion = route.completion(machine, provider, client)
    known = groups.groups(machine)
    same = None
    if client in known and provider in known:
        same = known[client] == known[provider]
    return Verdict(decision, kind, same, request, completion, past_iommu(machine, client, provider))


def past_iommu(machine, client, provider):
    """Does a request by bus address reach the provider without the IOMMU seeing it?"""
    direct = route.request(machine, client, bus_address(provider), linux.BUS, provider)
    return direct.target is provider and not direct.through_root_complex

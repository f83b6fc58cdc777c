"""Judges advice: what a change does to the pair that it is for, and to everything else."""

import copy
import itertools
import re

import groups
import judge
import linux
from adapter import Refused
from model import DT, SV, TB, UF

MODES = ("strict", "passthrough", "none")


class NotUnderstood(Exception):
    """A change in words that are not known here."""


def ports(file):
    return file.get("root-port", []) + [p for s in file.get("switch", []) for p in s["port"]]


def apply(change, file, iommu, line, hosts):
    """The machine with the change made. `hosts` names the host bridges of both ends."""
    file = copy.deepcopy(file)
    if match := re.fullmatch(r"--iommu (\w+)", change):
        return file, match[1], line
    if match := re.fullmatch(r"--append '(.*)' in place of the one that is there", change):
        name = match[1].partition("=")[2].partition("=")[0]
        for option in options(line):
            if option.startswith(name + "="):
                line = without(line, option)
        return file, iommu, f"{line} {match[1]}".strip()
    if match := re.fullmatch(r"--append '(.*)'", change):
        return file, iommu, f"{line} {match[1]}".strip()
    if match := re.fullmatch(r"without kernel parameter (.*)", change):
        return file, iommu, without(line, match[1])
    for part in change.split("; "):
        if match := re.fullmatch(r'(acs|acs-without-effect) = "([\w ]+)" at (.*)', part):
            names = set(match[3].split(", "))
            everything = ports(file) + file.get("peer", []) + file.get("endpoint", [])
            for entry in everything:
                if entry["name"] in names:
                    entry[match[1]] = match[2]
                    names.discard(entry["name"])
            if names:
                raise NotUnderstood(change)
        elif match := re.fullmatch(r'(?:host bridge )?(id|peer-routing) = "([\w:-]+)" at (.*)', part):
            names = set(match[3].split(", "))
            if not names <= set(hosts):
                raise NotUnderstood(change)
            for bridge in file["host-bridge"]:
                if bridge["name"] in names:
                    bridge[match[1]] = match[2]
        elif part == 'cpu = "trusted-for-peer-to-peer"':
            file["cpu"] = "trusted-for-peer-to-peer"
        else:
            raise NotUnderstood(change)
    return file, iommu, line


def options(line):
    return [option for word in line.split() for option in word.removeprefix("pci=").split(",")]


def without(line, parameter):
    """The command line without what stands in one `pci=`, or without one option of it."""
    if parameter in line.split():
        return " ".join(word for word in line.split() if word != parameter)
    words = []
    gone = False
    for word in line.split():
        kept = word.removeprefix("pci=").split(",")
        wanted = parameter.removeprefix("pci=")
        if wanted in kept:
            gone = True
            kept = [other for other in kept if other != wanted]
        if kept:
            words.append("pci=" + ",".join(kept))
    if not gone:
        raise NotUnderstood(f"without {parameter} in {line}")
    return " ".join(words)


class Survey:
    """All pairs of a machine, its groups, and which of them reach each other past the IOMMU."""

    def __init__(self, machine, parameters):
        self.machine = machine
        self.verdicts = {
            (client.name, provider.name): judge.judge(machine, parameters, client, provider)
            for client in machine.clients()
            for provider in machine.providers()
            if client is not provider
        }
        # Ports have groups, too; they do no DMA of their own that a merged group could expose.
        known = groups.groups(machine)
        self.groups = {f.name: known[f] for f in machine.clients() if f in known}
        # Registers of other devices count, too: whoever reaches them commands the device.
        self.past = {
            (one.name, other.name)
            for one in machine.clients()
            for other in machine.clients()
            if one is not other and judge.past_iommu(machine, one, other)
        }

    def apart(self, one, two):
        if one not in self.groups or two not in self.groups:
            return False
        return self.groups[one] != self.groups[two]

    def leaks(self):
        """The pairs that are in two groups, and reach each other past the IOMMU all the same."""
        return {(one, two) for one, two in self.past if self.apart(one, two)}


def costs(before, after, pair):
    """The ids of what a change costs."""
    found = set()
    if before.machine.iommu in ("strict", "lazy") and after.machine.iommu == "passthrough":
        found.add("passthrough")
    if before.machine.iommu != "none" and after.machine.iommu == "none":
        found.add("no-iommu")
    for other, verdict in before.verdicts.items():
        # The virtio functions of the machine access no device's memory.
        if other == pair or other not in after.verdicts or other[0].startswith("virtio-"):
            continue
        then = after.verdicts[other]
        if then.lost:
            # Also where Linux refused: what was an error becomes lost data.
            if not verdict.lost:
                found.add("other-pairs-lost")
        # Another IOMMU mode is another machine for everything, which its own cost says, and the
        # way back of the same two is no other pair.
        elif before.machine.iommu == after.machine.iommu and set(other) != set(pair):
            if then.decision.map_type != verdict.decision.map_type:
                found.add("other-pairs-change")
    if bypasses(after, pair) and not bypasses(before, pair):
        found.add("bypasses-iommu")
    if loses_controls(before, after):
        found.add("other-controls-lost")
    if before.groups and after.groups:
        for one, two in itertools.combinations(before.groups, 2):
            if before.apart(one, two) and not after.apart(one, two):
                found.add("groups-merge")
        if after.leaks() - before.leaks():
            found.add("groups-reach")
    return found


def loses_controls(before, after):
    """Does a parameter take controls away that have nothing to do with redirection?

    __pci_config_acs() starts from what the firmware had set wherever it matches a function, so that
    what pci_std_enable_acs() had added is lost. Without an IOMMU nobody had added anything.
    """
    if (before.machine.iommu == "none") != (after.machine.iommu == "none"):
        return False
    then = {f.name: f for f in after.machine.functions}
    return any(
        f.acs_capability == then[f.name].acs_capability
        and f.acs_control & ~then[f.name].acs_control & (SV | TB | UF | DT)
        for f in before.machine.functions
        if f.name in then
    )


def bypasses(survey, pair):
    """Does the pair's traffic pass by an IOMMU that translates for its client?"""
    request = survey.verdicts[pair].request
    translates = linux.translated(survey.machine, survey.machine.named(pair[0]))
    return translates and request is not None and not request.through_root_complex


def deserved(before, pair, survey_of, file, iommu, line):
    """Changes that must be offered, for each one the map type and address that it leads to."""
    now = before.verdicts[pair]
    for mode in MODES:
        if mode == iommu or {mode, iommu} == {"strict", "lazy"}:
            continue
        then = survey_of(file, mode, line).verdicts.get(pair)
        if then is None:
            continue  # The IOMMU's own function goes with the IOMMU.
        same = (then.decision.map_type, then.kind) == (now.decision.map_type, now.kind)
        if then.works and not (same and now.works):
            yield f"--iommu {mode}", then
    if now.decision.redirecting:
        names = ";".join(f.bdf for f in now.decision.redirecting)
        added = f"{line} pci=disable_acs_redir={names}".strip()
        then = survey_of(file, iommu, added).verdicts[pair]
        if then.works and then.decision.map_type == linux.BUS_ADDRESS:
            yield "disable_acs_redir", then


def differences(before, pair, answer, survey_of, file, iommu, line):
    """What is wrong with the advice about one pair."""
    client, provider = (before.machine.named(name) for name in pair)
    hosts = {client.host.name, provider.host.name}
    for offered in answer.advice:
        try:
            changed = apply(offered.change, file, iommu, line, hosts)
        except NotUnderstood as what:
            yield "advice not understood", str(what)
            continue
        try:
            after = survey_of(*changed)
        except Refused as why:
            yield "advice refused", f"{offered.change}: {why}"
            continue
        then = after.verdicts[pair]
        if (then.decision.map_type, then.kind) != (offered.map_type, offered.kind):
            got = f"{then.decision.map_type} by {then.kind}"
            yield "advice promise", f"{offered.change}: {offered.map_type} by {offered.kind}; it gives {got}"
        elif not then.works:
            fault = then.request and then.request.fault or then.completion.fault
            yield "advice loses data", f"{offered.change}: {fault}"
        expected = costs(before, after, pair)
        if "strict" not in (iommu, changed[1]) and "lazy" not in (iommu, changed[1]):
            # Nothing that translates is passed by; whether that is worth a word is a matter of taste.
            offered.costs.discard("bypasses-iommu")
        for cost in expected - offered.costs:
            yield f"cost {cost} missing", f"{offered.change}: {sorted(expected)}, not {sorted(offered.costs)}"
        for cost in offered.costs - expected:
            yield f"cost {cost} wrong", f"{offered.change}: {sorted(expected)}, not {sorted(offered.costs)}"
    changes = {offered.change for offered in answer.advice}
    for change, then in deserved(before, pair, survey_of, file, iommu, line):
        if not any(change in offered for offered in changes):
            leads = f"{then.decision.map_type} by {then.kind}"
            yield f"advice {change} missing", f"it leads to {leads}; offered: {sorted(changes)}"

"""IOMMU groups: pci_device_group() of drivers/iommu/iommu.c, and pci_acs_enabled()."""

from linux import behind_iommu
from model import CONVENTIONAL, CR, DOWNSTREAM, EC, INTEGRATED, ROOT_PORT, RR, SV, UF

REQUIRED = SV | RR | CR | UF
INTEL = 0x8086


def acs_enabled(function):
    """pci_acs_enabled(function, REQ_ACS_FLAGS)."""
    # pci_quirk_rciep_acs(), for every integrated endpoint of Intel's.
    if function.vendor == INTEL and function.kind == INTEGRATED:
        return True
    if function.kind == CONVENTIONAL:
        return False
    if function.kind not in (ROOT_PORT, DOWNSTREAM) and not function.multifunction:
        return True
    if not function.acs_capability:
        return False
    wanted = REQUIRED & (function.acs_capability | EC)
    return function.acs_control & wanted == wanted


def path_enabled(bridge):
    """pci_acs_path_enabled(bridge, NULL, REQ_ACS_FLAGS)."""
    while bridge:
        if not acs_enabled(bridge):
            return False
        bridge = bridge.parent
    return True


def groups(machine):
    """The group of each function behind the IOMMU, by a number that has no meaning of its own."""
    result = {}
    for function in machine.functions:
        if behind_iommu(machine, function):
            result[function] = device_group(machine, function, result)
    return result


def device_group(machine, function, known):
    top = function
    bridge = function.parent
    while bridge and not path_enabled(bridge):
        top = bridge
        if top in known:
            return known[top]
        bridge = bridge.parent
    if top in known:
        return known[top]
    if top.multifunction and not acs_enabled(top):
        for other in machine.functions:
            same = other.bus == top.bus and other.devfn >> 3 == top.devfn >> 3
            if same and other is not top and not acs_enabled(other) and other in known:
                return known[other]
    return len(set(known.values()))

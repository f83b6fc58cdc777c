"""What Linux 7.3 decides about a provider and a client: drivers/pci/p2pdma.c."""

from dataclasses import dataclass

from model import CR, EC, ROOT_PORT, RR

BUS_ADDRESS, THROUGH_HOST_BRIDGE, NOT_SUPPORTED = (
    "bus-address",
    "through-host-bridge",
    "not-supported",
)

# pci_p2pdma_whitelist[]: vendor, device (None: any), only inside one host bridge.
ALLOWED = [
    (0x8086, 0x3C00, True),
    (0x8086, 0x3C01, True),
    (0x8086, 0x2F00, True),
    (0x8086, 0x2F01, True),
    (0x8086, 0x2030, False),
    (0x8086, 0x2031, False),
    (0x8086, 0x2032, False),
    (0x8086, 0x2033, False),
    (0x8086, 0x2020, False),
    (0x8086, 0x09A2, False),
    # DSA and IAX of Sapphire Rapids, DSA of Granite Rapids D, DSA and IAA of Diamond Rapids.
    (0x8086, 0x0B25, False),
    (0x8086, 0x0CFE, False),
    (0x8086, 0x11FB, False),
    (0x8086, 0x1212, False),
    (0x8086, 0x1216, False),
    # QAT 4xxx, 401xx, 402xx, 420xx, 6xxx.
    (0x8086, 0x4940, False),
    (0x8086, 0x4942, False),
    (0x8086, 0x4944, False),
    (0x8086, 0x4946, False),
    (0x8086, 0x4948, False),
    (0x1AE0, None, False),
    (0x10DE, 0x2F95, False),
    (0x10DE, 0x2F96, False),
    (0x10DE, 0x2F97, False),
    (0x10DE, 0x2F98, False),
]


@dataclass
class Decision:
    map_type: str
    distance: int
    redirecting: list  # functions whose ACS controls redirect, in Linux's order


def redirects(function):
    """pci_bridge_has_acs_redir(): by the control register, whatever the hardware makes of it."""
    return bool(function.acs_control & (RR | CR | EC))


def host_bridge_allowed(machine, host, same):
    """__host_bridge_whitelist(), by the first function on the root bus."""
    first = machine.root_bus(host)[0]
    if first.devfn != 0 and first.kind != ROOT_PORT:
        return False
    for vendor, device, same_only in ALLOWED:
        if first.vendor == vendor and device in (None, first.device):
            return same or not same_only
    return False


def host_bridges_allowed(machine, one, two):
    if one is two:
        return host_bridge_allowed(machine, one, True)
    return all(host_bridge_allowed(machine, host, False) for host in (one, two))


def above(function):
    """The function itself and every bridge above it, from below."""
    while function:
        yield function
        function = function.parent


def decide(machine, provider, client):
    """calc_map_type_and_dist()."""
    redirecting = []
    up = list(above(client))
    for hops, function in enumerate(above(provider)):
        if redirects(function):
            redirecting.append(function)
        if function in up:
            break
    else:
        distance = len(list(above(provider))) + len(up)
        return through_host_bridge(machine, provider, client, distance, [])
    common = up.index(function)
    distance = hops + common
    redirecting += [below for below in up[:common] if redirects(below)]
    if not redirecting:
        return Decision(BUS_ADDRESS, distance, [])
    return through_host_bridge(machine, provider, client, distance, redirecting)


def through_host_bridge(machine, provider, client, distance, redirecting):
    if machine.trusted_cpu or host_bridges_allowed(machine, provider.host, client.host):
        return Decision(THROUGH_HOST_BRIDGE, distance, redirecting)
    return Decision(NOT_SUPPORTED, -1, redirecting)


IOVA, PHYSICAL, BUS = "iova", "physical", "bus"


def behind_iommu(machine, client):
    """viot_dev_iommu_init() leaves out the IOMMU's own function."""
    return machine.iommu != "none" and client.name != "virtio-iommu"


def translated(machine, client):
    """Do this device's DMA addresses go through a domain of the DMA API?"""
    return behind_iommu(machine, client) and machine.iommu in ("strict", "lazy")


def address_kind(machine, client, decision, parameters):
    """The kind of DMA address that the DMA API gives, or None where it refuses."""
    if decision.map_type == NOT_SUPPORTED:
        return None
    if decision.map_type == BUS_ADDRESS:
        return BUS
    if translated(machine, client):
        return IOVA
    # swiotlb_force_bounce: dma_direct_map_phys() cannot bounce device memory.
    return None if parameters.swiotlb_force else PHYSICAL

"""Random machines: topology files, IOMMU modes and kernel parameters.

    generate.py --seed SEED --count COUNT --out DIR

Everything that the format can say has its chance, the rare things a larger one than in the world.
"""

import argparse
import pathlib
import random

CONTROLS = ["SV", "TB", "RR", "CR", "UF", "EC", "DT"]
MODES = ["strict", "strict", "lazy", "passthrough", "none"]
BRIDGES = ["8086:2020", "8086:2020", "8086:2033", "8086:09a2", "1ae0:1234", "10de:2f96"]
SAME_BRIDGE_ONLY = ["8086:3c00", "8086:2f01", "8086:3c01"]
UNLISTED = ["8086:29c0", "8086:2f02", "1022:1480", "10de:2f99", "8086:4941"]
MIB = 1 << 20
GIB = 1 << 30


class Generator:
    """Draws one machine. The same seed and index draw the same one."""

    def __init__(self, seed, index):
        self.draw = random.Random(f"peerdma oracle {seed} {index}")
        self.name = f"oracle-{seed}-{index}"
        self.names = 0
        self.room = self.draw.choice([2, 3, 4, 6, 10])

    def chance(self, share):
        return self.draw.random() < share

    def fresh(self, kind):
        self.names += 1
        return f"{kind}{self.names}"

    def acs(self, standard, none):
        """A capability: `standard` or `none` with these shares, otherwise any set of controls."""
        at = self.draw.random()
        if at < standard:
            return "standard"
        if at < standard + none:
            return "none"
        kind = self.draw.random()
        if kind < 0.4:
            words = [c for c in CONTROLS[:5] if self.chance(0.75)]
        elif kind < 0.6:
            words = CONTROLS
        else:
            words = [c for c in CONTROLS if self.chance(0.5)]
        return " ".join(words) or "none"

    def port(self, entry, standard, none):
        entry["acs"] = self.acs(standard, none)
        if self.chance(0.03):
            words = entry["acs"].replace("standard", "SV TB RR CR UF").replace("none", "").split()
            idle = [word for word in words if self.chance(0.5)]
            if idle:
                entry["acs-without-effect"] = " ".join(idle)
        if self.chance(0.05):
            entry["hot-plug"] = True
        return entry

    def machine(self):
        self.file = {
            "name": self.name,
            "host-bridge": [],
            "root-port": [],
            "switch": [],
            "peer": [],
            "endpoint": [],
        }
        if self.chance(0.12):
            self.file["cpu"] = "trusted-for-peer-to-peer"
        # How much of ACS the machine has: a rack of one make, or anything.
        self.standard, self.none = self.draw.choice([(0.8, 0.1), (0.1, 0.8), (0.3, 0.3), (0, 0.1)])
        self.style = self.draw.choice(["plain", "plain", "far", "some", "alias", "alias", "shifted"])
        few = [1, 1, 1, 2, 2, 3] if self.style not in ("alias", "shifted") else [2, 2, 3]
        for number in range(self.draw.choice(few)):
            self.host_bridge(number)
        while len(self.file["peer"]) < 2:
            self.device(self.file["host-bridge"][-1]["name"], (self.root_slot(), 0))
        self.windows()
        return {k: v for k, v in self.file.items() if v != []}

    def host_bridge(self, number):
        ids = self.draw.choices([BRIDGES, SAME_BRIDGE_ONLY, UNLISTED], [0.7, 0.15, 0.15])[0]
        bridge = {"name": f"bridge{number}", "id": self.draw.choice(ids)}
        if self.chance(0.3):
            bridge["peer-routing"] = self.draw.choice(["everywhere", "same-bridge", "nowhere"])
        self.file["host-bridge"].append(bridge)
        # Devices 0 to 2 of the first root bus are the machine's own, device 0 of the others.
        self.slots = list(range(3 if number == 0 else 1, 32))
        for _ in range(self.draw.choice([1, 1, 2, 3])):
            slot = self.root_slot()
            functions = self.draw.choice([1, 1, 1, 1, 2, 3])
            for function in range(functions):
                if self.chance(0.12) and self.device(bridge["name"], (slot, function)):
                    continue
                port = {"name": self.fresh("port"), "on": bridge["name"], "device": slot}
                if function:
                    port["function"] = function
                self.file["root-port"].append(self.port(port, max(self.standard, 0.5), self.none / 2))
                self.below(port["name"], 0)
        for _ in range(self.draw.choice([0, 0, 0, 1, 1, 2])):
            slot = self.root_slot()
            for function in range(self.draw.choice([1, 1, 1, 2, 3])):
                if not self.device(bridge["name"], (slot, function)):
                    break

    def root_slot(self):
        """A free device number on the root bus of the host bridge at work."""
        return self.slots.pop(self.draw.randrange(len(self.slots)))

    def below(self, port, depth):
        """What hangs below a port: nothing, a device, or a switch with more of the same."""
        if self.room <= 0 or self.chance(0.06):
            return
        if self.chance([0.6, 0.35, 0.3, 0.2, 0][depth]):
            switch = {"name": self.fresh("switch"), "below": port, "port": []}
            self.file["switch"].append(switch)
            devices = sorted(self.draw.sample(range(0, 8), self.draw.choice([1, 2, 2, 3, 4])))
            for device in devices:
                down = {"name": self.fresh("down"), "device": device}
                switch["port"].append(self.port(down, self.standard, self.none))
            for down in switch["port"]:
                self.below(down["name"], depth + 1)
            return
        functions = [0]
        if self.chance(0.25):
            functions += sorted(self.draw.sample(range(1, 8), self.draw.choice([1, 1, 2])))
        for function in functions:
            if not self.device(port, (0, function)):
                break

    def device(self, below, where):
        """Adds a device; False if the machine has as many as the format takes."""
        device, function = where
        peer = self.chance(0.85)
        kind = "peer" if peer else "endpoint"
        if len(self.file[kind]) >= 14:
            return False
        entry = {"name": self.fresh("gpu" if peer else "ioat"), "below": below}
        if not peer:
            entry["kind"] = "ioat"
            if self.chance(0.3):
                entry["options"] = {"model": "atom"}
        if device:
            entry["device"] = device
        if function:
            entry["function"] = function
        entry["acs"] = self.acs(0.1, 0.6)
        if peer:
            entry["local-memory"] = self.draw.choice([1, 16, 64]) * MIB
        self.room -= 1
        self.file[kind].append(entry)
        return True

    def windows(self):
        """Translation, and windows that make one bridge's CPU addresses another's bus addresses."""
        style = self.style
        bridges = self.file["host-bridge"]
        if style == "far":
            for bridge in bridges:
                bridge["translation"] = 0x20_0000_0000
        if style == "some":
            for bridge in bridges:
                if self.chance(0.5):
                    bridge["translation"] = 0x20_0000_0000
        if style == "alias":
            for number, bridge in enumerate(bridges):
                bridge["prefetchable"] = {"first": 64 * GIB, "last": 96 * GIB - 1}
                bridge["translation"] = (len(bridges) - 1 - number) * 0x20_0000_0000
        if style == "shifted":
            # One bridge's CPU addresses are the next one's bus addresses, a little moved.
            places = zip((64, 128, 256), (64, 128, 128))
            for bridge, (first, translation) in zip(bridges, places):
                first = first * GIB + self.draw.choice([0, 1, 16, 32, 64, 80]) * MIB
                bridge["prefetchable"] = {"first": first, "last": first + 2 * GIB - 1}
                bridge["translation"] = translation * GIB

    # Kernel parameters, once the numbers of the functions are known.

    def command_line(self, functions):
        if self.chance(0.55):
            return ""
        options = []
        ports = [f for f in functions if f.acs_capability] or functions
        for _ in range(self.draw.choice([1, 1, 1, 2, 3])):
            at = self.draw.random()
            if at < 0.45:
                entries = [self.entry(ports) for _ in range(self.draw.randint(1, 3))]
                options.append("disable_acs_redir=" + ";".join(entries))
            elif at < 0.9:
                entries = [self.flags() + "@" + self.entry(ports) for _ in range(self.draw.randint(1, 3))]
                if self.chance(0.35):
                    # All ports, which have one ID.
                    entries = [self.flags() + "@pci:1b36:0"]
                options.append("config_acs=" + ";".join(entries))
            else:
                options.append("noats")
        if self.chance(0.3):
            return " ".join("pci=" + option for option in options)
        return "pci=" + ",".join(options)

    def flags(self):
        if self.chance(0.06):
            return self.draw.choice(["", "2", "1x1y", "10000000", "x0000000", "X1", "1 1", "0x1"])
        if self.chance(0.25):
            # Egress Control with and without Request Redirect, at ports that have both.
            return self.draw.choice(["1xx1xx", "1011xx", "1x01xx", "111111", "1xx0xx"])
        return "".join(self.draw.choice("01x") for _ in range(self.draw.choice([1, 3, 4, 5, 6, 7])))

    def entry(self, ports):
        function = self.draw.choice(ports)
        bus, slot, number = function.bus, function.devfn >> 3, function.devfn & 7
        at = self.draw.random()
        if at < 0.60:
            return f"{bus:02x}:{slot:02x}.{number}"
        if at < 0.66:
            return f"0000:{bus:02x}:{slot:02x}.{number}"
        if at < 0.72:
            return f"0x{bus:x}:{slot:x}.0x{number:x}"
        if at < 0.82:
            return f"{bus:x}:{slot + 32:x}.{number + 8 * self.draw.randint(0, 2):x}"
        if at < 0.90:
            path = f"{slot:02x}.{number}"
            above = function.parent
            while above and above.parent and self.chance(0.8):
                path = f"{above.devfn >> 3:02x}.{above.devfn & 7}/" + path
                above = above.parent
            if above:
                path = f"{above.bus:02x}:{above.devfn >> 3:02x}.{above.devfn & 7}/" + path
            else:
                path = f"{bus:02x}:" + path
            return path
        if at < 0.95:
            return self.draw.choice(
                [f"pci:{function.vendor:x}:{function.device:x}", "pci:0:0", "pci:1b36:0", "pci:1b36:c"]
            )
        return self.draw.choice(
            [
                "00:04",
                "zz:00.0",
                f"{bus:02x}:{slot:02x}.{number}x",
                f"1:{bus:02x}:{slot:02x}.{number}",
                f"1{bus:08x}:{slot:02x}.{number}",
                f"{bus:02x}:{slot:02x}.{number}/",
                "",
                "pci:1b36",
                f"{bus:02x}:{slot:02x}.{number}/00.0",
                "0x:4.0",
            ]
        )


def toml(machine):
    """The file's text. Tables in a fixed order, so that shrunk files stay readable."""
    lines = [f"{key} = {value(machine[key])}" for key in ("name", "description", "cpu") if key in machine]
    for kind in ("host-bridge", "root-port", "switch", "peer", "endpoint"):
        for entry in machine.get(kind, []):
            lines.append(f"[[{kind}]]")
            lines += [f"{key} = {value(v)}" for key, v in entry.items() if key != "port"]
            for port in entry.get("port", []):
                lines.append("[[switch.port]]")
                lines += [f"{key} = {value(v)}" for key, v in port.items()]
    return "\n".join(lines) + "\n"


def value(of):
    if isinstance(of, bool):
        return "true" if of else "false"
    if isinstance(of, int):
        return f"0x{of:x}" if of > 255 else str(of)
    if isinstance(of, dict):
        return "{ " + ", ".join(f"{key} = {value(v)}" for key, v in of.items()) + " }"
    return '"' + of.replace("\\", "\\\\").replace('"', '\\"') + '"'


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=10)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for index in range(arguments.count):
        text = toml(Generator(arguments.seed, index).machine())
        (arguments.out / f"{arguments.seed}-{index}.toml").write_text(text)


if __name__ == "__main__":
    main()

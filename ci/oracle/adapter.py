"""Runs the program under test, and turns what it prints into what the comparison works with."""

import json
import re
import subprocess
from dataclasses import dataclass, field

import linux

MAP_TYPES = {
    "PCI_P2PDMA_MAP_BUS_ADDR": linux.BUS_ADDRESS,
    "PCI_P2PDMA_MAP_THRU_HOST_BRIDGE": linux.THROUGH_HOST_BRIDGE,
    "PCI_P2PDMA_MAP_NOT_SUPPORTED": linux.NOT_SUPPORTED,
}
KINDS = {"bus address": linux.BUS, "IOVA": linux.IOVA, "CPU physical address": linux.PHYSICAL}
HEAD = re.compile(r".*\((PCI_P2PDMA_MAP_\w+)\), distance (-?\d+)$")


class Refused(Exception):
    """The program does not take this topology."""


@dataclass
class Answer:
    map_type: str
    distance: int
    kind: str | None
    same_group: bool | None  # None: not both have a group
    warnings: list = field(default_factory=list)
    advice: list = field(default_factory=list)  # (text, promised map type)


class Program:
    def __init__(self, path):
        self.path = path

    def run(self, *arguments):
        done = subprocess.run(
            [self.path, *arguments], capture_output=True, text=True, timeout=60, check=False
        )
        if done.returncode:
            raise Refused(done.stderr.strip())
        return done.stdout

    def drawing(self, file, iommu, line):
        append = ["--append", line] if line else []
        return json.loads(
            self.run("topology", str(file), "--format", "json", "--iommu", iommu, *append)
        )

    def explain(self, file, iommu, line, client, provider):
        append = ["--append", line] if line else []
        text = self.run(
            "explain", client, provider, "--topology", str(file), "--iommu", iommu, *append
        )
        return parse(text)


def parse(text):
    lines = text.splitlines()
    head = HEAD.match(lines[0])
    answer = Answer(MAP_TYPES[head[1]], int(head[2]), None, None)
    advice = False
    for line in lines[1:]:
        if advice and line.startswith("  "):
            change, _, promise = line.strip().rpartition(": ")
            answer.advice.append((change, promised(promise)))
        elif line.startswith("DMA address of the memory: "):
            answer.kind = KINDS.get(line.split(": ", 1)[1])
        elif line.startswith("IOMMU groups: "):
            rest = line.split(": ", 1)[1]
            answer.same_group = True if rest.startswith("one") else False if rest.startswith("two") else None
        elif line.startswith("Beware: "):
            answer.warnings.append(line.split(": ", 1)[1])
        elif line.startswith("What would change it:"):
            advice = True
    return answer


def promised(text):
    if text.startswith("bus address"):
        return linux.BUS_ADDRESS
    return linux.THROUGH_HOST_BRIDGE if text.startswith("through the host bridge") else None

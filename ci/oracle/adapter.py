"""Runs the program under test, and turns what it prints into what the comparison works with."""

import json
import subprocess
from dataclasses import dataclass

import linux

SCHEMA = "peerdma-explain/1"
KINDS = {"bus": linux.BUS, "iova": linux.IOVA, "physical": linux.PHYSICAL, "none": None}


class Refused(Exception):
    """The program does not take this topology."""


@dataclass
class Way:
    """What is said of the requests, or of the completions."""

    arrives: bool
    by: str  # "root-complex", "switch", "refused"
    finding: str | None
    at: str | None
    instead: str | None


@dataclass
class Advice:
    change: str
    map_type: str
    kind: str | None
    costs: set


@dataclass
class Answer:
    map_type: str
    distance: int
    kind: str | None
    redirects: set
    same_group: bool | None  # None: not both have a group
    requests: Way | None
    completions: Way | None
    warnings: set
    notes: set
    advice: list


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
        return answer(self.said(file, iommu, line, client, provider))

    def explain_all(self, file, iommu, line):
        """What is said of every pair of devices, by their names."""
        said = self.said(file, iommu, line, "--all")
        return {(pair["client"]["name"], pair["provider"]["name"]): answer(pair) for pair in said}

    def said(self, file, iommu, line, *which):
        append = ["--append", line] if line else []
        where = ["--topology", str(file), "--iommu", iommu, *append]
        return json.loads(self.run("explain", *which, "--json", *where))


def answer(said):
    if said["schema"] != SCHEMA:
        raise ValueError(f"schema {said['schema']}, not {SCHEMA}")
    decision, groups = said["decision"], said["groups"]
    both = groups["client"] is not None and groups["provider"] is not None
    return Answer(
        decision["map_type"],
        decision["distance"],
        KINDS[decision["address"]],
        set(decision["redirects"]),
        groups["client"] == groups["provider"] if both else None,
        way(said["requests"]),
        way(said["completions"]),
        {warning["id"] for warning in said["warnings"]},
        {note["id"] for note in said["notes"]},
        [
            Advice(
                advice["change"],
                advice["map_type"],
                KINDS[advice["address"]],
                {cost["id"] for cost in advice["costs"]},
            )
            for advice in said["advice"]
        ],
    )


def way(said):
    if said is None:
        return None
    instead = said["instead"]
    if isinstance(instead, dict):
        instead = instead["bdf"]
    return Way(said["arrives"], said["by"], said["finding"], said["at"], instead)

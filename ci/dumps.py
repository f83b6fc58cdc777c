"""Compares what a guest's own dumps lead to with what is explained from its topology."""

import json
import pathlib
import subprocess
import sys


def sections(console):
    """The dumps between the lines BEGIN NAME and END."""
    found, name = {}, None
    for line in console.replace("\r", "").split("\n"):
        if line.startswith("BEGIN "):
            name = line.split()[1]
            found[name] = []
        elif line == "END":
            name = None
        elif name:
            found[name].append(line)
    return {name: "\n".join(lines) + "\n" for name, lines in found.items()}


def main():
    peerdma, out, preset = sys.argv[1:]
    folder = pathlib.Path(out)
    expected = {}
    for pair in json.loads((folder / f"{preset}.json").read_text()):
        ends = pair["client"]["bdf"], pair["provider"]["bdf"]
        expected[ends] = pair["decision"]["map_type"], pair["decision"]["distance"]
    console = (folder / preset / "user" / "console.log").read_text(errors="replace")
    dumps = sections(console)
    wrong = 0
    for name in ("capture", "vvv", "xxxx"):
        path = folder / f"{preset}.{name}"
        path.write_text(dumps.get(name, ""))
        command = [peerdma, "explain", "--all", "--machine", path, "--only", "all", "--json", "--linux", "7.3"]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        if run.returncode != 0:
            print(f"dumps: {preset}: {name}: {run.stderr.strip()}")
            wrong += 1
            continue
        matrix = json.loads(run.stdout)
        address = {device["name"]: device["address"].removeprefix("0000:") for device in matrix["devices"]}
        found = {}
        for pair in matrix["pairs"]:
            ends = address[pair["client"]], address[pair["provider"]]
            found[ends] = pair["map_type"], pair["distance"]
        for ends, decision in expected.items():
            if found.get(ends) != decision:
                print(f"dumps: {preset}: {name}: {ends}: {found.get(ends)} instead of {decision}")
                wrong += 1
    print(f"dumps: {preset}: {len(expected)} pairs, 3 dumps, {wrong} wrong")
    return 1 if wrong or not expected else 0


sys.exit(main())

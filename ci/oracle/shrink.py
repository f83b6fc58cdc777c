"""A smaller machine that still shows a difference, found by leaving things out."""

import copy

KINDS = ("host-bridge", "root-port", "switch", "peer", "endpoint")
PLAIN = ("translation", "prefetchable", "peer-routing", "acs-without-effect", "hot-plug", "options", "cpu")


def smaller(file):
    """Machines with one thing less."""
    for kind in reversed(KINDS):
        for at in range(len(file.get(kind, []))):
            less = copy.deepcopy(file)
            gone = less[kind].pop(at)
            yield orphaned(less, names(gone))
    for at, switch in enumerate(file.get("switch", [])):
        for port in range(len(switch["port"])):
            less = copy.deepcopy(file)
            gone = less["switch"][at]["port"].pop(port)
            yield orphaned(less, {gone["name"]})
        # A switch in between: what hangs below its ports moves up.
        for port in switch["port"]:
            less = copy.deepcopy(file)
            less["switch"].pop(at)
            moved = [e for k in KINDS for e in less.get(k, []) if e.get("below") == port["name"]]
            for entry in moved:
                entry["below"] = switch["below"]
            yield orphaned(less, names(switch))
    if "cpu" in file:
        yield {key: value for key, value in file.items() if key != "cpu"}
    for kind in KINDS:
        for at, entry in enumerate(file.get(kind, [])):
            for where in [entry, *entry.get("port", [])]:
                for key in where:
                    if key in PLAIN:
                        yield without(file, kind, at, where, key)
                if where.get("acs", "none") != "none":
                    words = where["acs"].replace("standard", "SV TB RR CR UF").split()
                    for word in words:
                        rest = " ".join(other for other in words if other != word) or "none"
                        yield without(file, kind, at, where, "acs", rest)


def names(entry):
    return {entry["name"], *(port["name"] for port in entry.get("port", []))}


def orphaned(file, gone):
    """Takes out what hung below what is gone."""
    while gone:
        lost = set()
        for kind in KINDS:
            for entry in list(file.get(kind, [])):
                if entry.get("below", entry.get("on")) in gone:
                    file[kind].remove(entry)
                    lost |= names(entry)
        gone = lost
    return {key: value for key, value in file.items() if value != []}


def without(file, kind, at, where, key, instead=None):
    less = copy.deepcopy(file)
    entry = less[kind][at]
    target = next(e for e in [entry, *entry.get("port", [])] if e["name"] == where["name"])
    if instead is None:
        del target[key]
    else:
        target[key] = instead
    return less


def fewer(line):
    """Command lines with one option or one entry less."""
    options = [option for word in line.split() for option in word[4:].split(",")]
    for at, option in enumerate(options):
        rest = options[:at] + options[at + 1 :]
        yield "pci=" + ",".join(rest) if rest else ""
        name, _, entries = option.partition("=")
        entries = entries.split(";")
        if len(entries) > 1:
            for gone in range(len(entries)):
                kept = name + "=" + ";".join(entries[:gone] + entries[gone + 1 :])
                yield "pci=" + ",".join(options[:at] + [kept] + options[at + 1 :])


def shrink(file, line, what, still, tries=600):
    """`still` returns what the difference is, or None where it is gone."""
    progress = True
    while progress and tries > 0:
        progress = False
        candidates = [(file, other) for other in fewer(line)] + [(less, line) for less in smaller(file)]
        for less, other in candidates:
            tries -= 1
            found = still(less, other)
            if found is not None:
                file, line, what, progress = less, other, found, True
                break
            if tries <= 0:
                break
    return file, line, what

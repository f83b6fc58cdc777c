"""What the program under test says of a pair, beside what this directory says."""

import judge
import route

# Said of controls that the topology file declares to do nothing; that the file says so is no
# prediction, so the comparison does not ask for it.
NOT_COMPARED = {"redirect-without-effect"}


def of_decision(verdict, answer):
    decision = verdict.decision
    for name, mine, theirs in (
        ("map type", decision.map_type, answer.map_type),
        ("distance", decision.distance, answer.distance),
        ("kind of address", verdict.kind, answer.kind),
        ("same group", verdict.same_group, answer.same_group),
        ("redirects", {f.bdf for f in decision.redirecting}, answer.redirects),
    ):
        if mine != theirs:
            yield name, f"{mine} here, {theirs} there"


def expected_way(found, of_completions):
    """The fields of adapter.Way for a route: arrives, by, finding, at, instead."""
    if found.partly or found.fault == judge.WRONG_TARGET:
        at = found.at.bdf if found.at and found.fault == route.TURNED_BACK else None
        instead = found.target.bdf if found.fault == judge.WRONG_TARGET else None
        return False, "elsewhere", None, at, instead
    if found.fault:
        finding = "fabric.completion-timeout" if of_completions else found.fault
        at = found.at.bdf if found.at and found.fault == route.TURNED_BACK else None
        return False, "refused", finding, at, None
    return True, "root-complex" if found.through_root_complex else "switch", None, None, None


def of_route(name, found, way):
    if found is None or way is None:
        if (found is None) != (way is None):
            yield f"{name} said", f"{found} here, {way} there"
        return
    mine = expected_way(found, name == "completions")
    # Where the IOMMU or the root complex refuses, no port does; a hint at one is welcome.
    at = way.at if found.fault == route.TURNED_BACK else None
    theirs = (way.arrives, way.by, way.finding, at, way.instead)
    for field, one, two in zip(("arrive", "by", "finding", "at", "instead"), mine, theirs):
        if one != two:
            yield f"{name} {field}", f"{mine} here, {theirs} there"
            return


def of_pair(verdict, answer):
    """Every difference, each as a word for its kind and a sentence."""
    yield from of_decision(verdict, answer)
    yield from of_route("requests", verdict.request, answer.requests)
    # Where Linux gives no address there is no transfer, and nothing that could be completed.
    completion = verdict.completion if verdict.request is not None else None
    yield from of_route("completions", completion, answer.completions)
    for what, mine, theirs in (
        ("warning", verdict.warnings, answer.warnings - NOT_COMPARED),
        ("note", verdict.notes, answer.notes - NOT_COMPARED),
    ):
        for name in mine - theirs:
            yield f"{what} {name} missing", f"{sorted(mine)} here, {sorted(theirs)} there"
        for name in theirs - mine:
            yield f"{what} {name} not deserved", f"{sorted(mine)} here, {sorted(theirs)} there"

#!/usr/bin/env python3
"""Plants each wrong rule of planted.toml in a copy of the program: the comparison notices.

    planted.py [NAME...]     only rules whose name contains one of these
"""

import pathlib
import re
import shutil
import subprocess
import sys
import tomllib

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PLACE = ROOT / "target" / "planted"
TREE, BUILD = PLACE / "tree", PLACE / "build"
MACHINES = ["--count", "250", "--seed", "11"]


def copy():
    shutil.rmtree(TREE, ignore_errors=True)
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (TREE / name).parent.mkdir(parents=True, exist_ok=True)
            # With new times: cargo goes by them, and what the last run planted was newer.
            shutil.copy(ROOT / name, TREE / name)


def build():
    subprocess.run(
        [*"cargo build --quiet --locked -p peerdma --config profile.dev.opt-level=1".split()]
        + ["--target-dir", str(BUILD)],
        cwd=TREE,
        check=True,
    )
    return next(BUILD.glob("*/debug/peerdma"))


def noticed(program, kind, *more):
    """The first difference of this kind, or None; and what the comparison printed."""
    done = subprocess.run(
        [str(HERE / "compare.py"), *MACHINES, *more, "--program", str(program), "--until", kind],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    found = re.search(rf"^\S+: (?:{kind})\b.*", done.stdout, re.MULTILINE)
    return found and found[0], done.stdout + done.stderr


def main():
    rules = tomllib.loads((HERE / "planted.toml").read_text())["rule"]
    chosen = [r for r in rules if len(sys.argv) < 2 or any(a in r["name"] for a in sys.argv[1:])]
    copy()
    right_program = shutil.copy2(build(), PLACE / "right")
    missed = 0
    for rule in chosen:
        path = TREE / rule["file"]
        right = path.read_text()
        if right.count(rule["old"]) != 1:
            sys.exit(f"{rule['name']}: {rule['file']} does not have `{rule['old']}` once")
        path.write_text(right.replace(rule["old"], rule["new"]))
        try:
            found, output = noticed(build(), rule["notice"])
        finally:
            path.write_text(right)
        if found:
            # The right program must not differ in the same machine in the same way.
            index = found.split(":")[0].split("-")[1]
            kind = re.escape(found.split(": ")[1])
            if noticed(right_program, kind, "--only", index)[0]:
                found, output = None, f"the right program differs, too: {found}"
        print(f"{'noticed' if found else 'MISSED'}: {rule['name']}: {found or output[-400:]}", flush=True)
        missed += not found
    found, output = noticed(right_program, ".*")
    if found:
        print(f"without any of them there is a difference: {found}")
    print(f"{len(chosen) - missed} of {len(chosen)} noticed")
    sys.exit(1 if missed or found else 0)


if __name__ == "__main__":
    main()

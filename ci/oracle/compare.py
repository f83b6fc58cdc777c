#!/usr/bin/env python3
"""Random machines, judged twice: by `peerdma explain` and by this directory.

    compare.py [--count N] [--seed SEED] [--only INDEX] [--program target/peerdma]

Each difference is shrunk to the smallest machine that shows it. Exit status 1 if there was one.
"""

import argparse
import collections
import pathlib
import random
import re
import sys
import time

import adapter
import advice
import differences
import model
from generate import MODES, Generator, toml
from kernel_parameters import Parameters, program
from shrink import shrink

# In each machine, the pairs whose advice is judged; of each kind, the differences that are shown.
ADVISED = 4
SHOWN = 1


def machine_of(program_under_test, file, text, iommu, line):
    """The machine as Linux has programmed it, and the parameters."""
    drawing = program_under_test.drawing(file, iommu, line)
    machine = model.read(text, drawing, iommu)
    parameters = Parameters(line)
    program(machine, parameters)
    return machine, parameters


class Enough(Exception):
    """The kind of difference that was looked for has been found."""


class Comparison:
    def __init__(self, path, scratch, until):
        self.until = until
        self.program = adapter.Program(path)
        self.file = scratch / "machine.toml"
        self.pairs = 0
        self.refused = 0
        self.advised = 0
        self.seen = collections.Counter()
        self.surveys = {}

    def one(self, seed, index):
        self.surveys.clear()
        generator = Generator(seed, index)
        file = generator.machine()
        text = toml(file)
        self.file.write_text(text)
        iommu = generator.draw.choice(MODES)
        try:
            machine, _ = machine_of(self.program, self.file, text, iommu, "")
        except adapter.Refused as refused:
            self.refused += 1
            print(f"{seed}-{index}: refused: {refused}")
            return
        line = generator.command_line(machine.functions)
        try:
            machine = self.survey(file, iommu, line).machine
        except adapter.Refused as refused:
            self.refused += 1
            print(f"{seed}-{index}: refused: {refused} ({line})")
            return
        survey = self.survey(file, iommu, line)
        self.file.write_text(text)
        answers = self.program.explain_all(self.file, iommu, line)
        draw = random.Random(index)
        # The virtio functions do DMA, too, and can be asked about, but are not among all pairs.
        virtio = [pair for pair in survey.verdicts if pair[0].startswith("virtio-")]
        for pair in draw.sample(virtio, 1):
            answers[pair] = self.program.explain(self.file, iommu, line, *pair)
        advised = draw.sample(sorted(answers), min(ADVISED, len(answers)))
        for pair in survey.verdicts:
            if pair in answers:
                self.pairs += 1
                found = list(differences.of_pair(survey.verdicts[pair], answers[pair]))
                if pair in advised:
                    self.advised += len(answers[pair].advice)
                    found += self.advice(survey, pair, answers[pair], file, iommu, line)
                for kind, what in found:
                    self.report(seed, index, file, iommu, line, *pair, kind, what)
            elif pair not in virtio:
                self.report(seed, index, file, iommu, line, *pair, "pair missing", str(pair))

    def advice(self, survey, pair, answer, file, iommu, line):
        return advice.differences(survey, pair, answer, self.survey, file, iommu, line)

    def pair(self, file, iommu, line, client, provider):
        """The differences about one pair of one machine, for shrinking."""
        self.surveys.clear()
        survey = self.survey(file, iommu, line)
        pair = (client, provider)
        self.file.write_text(toml(file))
        answer = self.program.explain(self.file, iommu, line, client, provider)
        found = list(differences.of_pair(survey.verdicts[pair], answer))
        return found + list(self.advice(survey, pair, answer, file, iommu, line))

    def survey(self, file, iommu, line):
        """Every pair of a machine, judged here."""
        text = toml(file)
        key = (text, iommu, line)
        if key not in self.surveys:
            self.file.write_text(text)
            self.surveys[key] = advice.Survey(*machine_of(self.program, self.file, text, iommu, line))
        return self.surveys[key]

    def report(self, seed, index, file, iommu, line, client, provider, kind, what):
        self.seen[kind] += 1
        if self.until:
            if re.match(rf"(?:{self.until})\b", kind):
                print(f"{seed}-{index}: {kind}: {what}")
                raise Enough
            return
        if self.seen[kind] > SHOWN:
            return

        def still(smaller, parameters):
            try:
                found = self.pair(smaller, iommu, parameters, client, provider)
            except (adapter.Refused, StopIteration, KeyError, model.Unreadable):
                return None
            return next((text for name, text in found if name == kind), None)

        file, line, what = shrink(file, line, what, still)
        append = f" --append '{line}'" if line else ""
        print(f"\n{seed}-{index}: {kind}: {what}")
        print(f"# explain {client} {provider} --iommu {iommu}{append}")
        print(toml(file))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--only", type=int)
    parser.add_argument("--until", help="stop at the first difference of this kind, an expression")
    parser.add_argument("--program", default="target/peerdma")
    parser.add_argument("--scratch", type=pathlib.Path, default=pathlib.Path("target/oracle"))
    arguments = parser.parse_args()
    seed = arguments.seed if arguments.seed is not None else random.randrange(1_000_000)
    arguments.scratch.mkdir(parents=True, exist_ok=True)
    comparison = Comparison(arguments.program, arguments.scratch, arguments.until)
    started = time.monotonic()
    print(f"seed {seed}", flush=True)
    indices = [arguments.only] if arguments.only is not None else range(arguments.count)
    try:
        for index in indices:
            comparison.one(seed, index)
    except Enough:
        sys.exit(1)
    took = time.monotonic() - started
    print(
        f"seed {seed}: {len(indices)} machines, {comparison.refused} of them refused, "
        f"{comparison.pairs} pairs, {comparison.advised} pieces of advice, {sum(comparison.seen.values())} differences, {took:.1f} s"
    )
    for kind, count in comparison.seen.most_common():
        print(f"  {kind}: {count}")
    sys.exit(1 if comparison.seen else 0)


if __name__ == "__main__":
    main()

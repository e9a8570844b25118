#!/usr/bin/env python3
"""Random calls give the same bare, by the symbol door and by the system-call door, on both engines: random_calls.cpp makes
the same calls from the same seed, and says a number for each sequence's trace. Where one differs, both traces are shown.

RINGLET_RANDOM_CALLS: how many calls, about, in each of the four ways (250,000, so a million); RINGLET_RANDOM_SEED: the first
seed (1). `./dev test --all` makes a million in each."""

import difflib
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import checks
from checks import expect, run

PLAIN = os.path.join(checks.build, "tests", "random_calls")
LINKED = os.path.join(checks.build, "tests", "random_calls_linked")
ENGINES = [os.environ["RINGLET_ENGINE"]] if os.environ.get("RINGLET_ENGINE") else ["uring", "epoll"]
STEPS = 60  # calls of a sequence, about
FULL = os.environ.get("RINGLET_STRESS") == "full"
CALLS = int(os.environ.get("RINGLET_RANDOM_CALLS", "1000000" if FULL else "250000"))
FIRST = int(os.environ.get("RINGLET_RANDOM_SEED", "1"))
SEQUENCES_AT_ONCE = 400
checks.CHECK_SECONDS = 3000 if FULL else 750

WAYS = {
    "bare": lambda arguments, engine: ([PLAIN, *arguments], {}),
    "the symbol door": lambda arguments, engine: ([LINKED, *arguments], {"RINGLET_ENGINE": engine}),
    "the system-call door": lambda arguments, engine: (
        [checks.ringlet, "run", "--threads=fibers", "--engine", engine, "--", PLAIN, "--threads-are-fibers", *arguments], {}),
}


def said(way, engine, *arguments):
    command, variables = WAYS[way]([str(a) for a in arguments], engine)
    outcome = run(command, env=variables, seconds=250)
    text = outcome.out.decode(errors="replace")
    expect(outcome.status == 0, f"{way}, {engine}: ended with {outcome.status}: {outcome.err.decode(errors='replace')[-300:]} {text[-300:]}")
    return text


_bare = {}


def numbers(text):
    return dict(line.split() for line in text.splitlines())


def bare(first, sequences):
    if first not in _bare:
        _bare[first] = numbers(said("bare", None, first, sequences, STEPS))
    return _bare[first]


def show(seed, way, engine):
    traces = [said(*each, "--show", seed, 1, STEPS).splitlines() for each in (("bare", None), (way, engine))]
    return "\n".join(difflib.unified_diff(*traces, "bare", f"{way}, {engine}", n=2, lineterm=""))


def same(way, engine):
    calls, first, odd = 0, FIRST, 0
    while calls < CALLS:
        sequences = min(SEQUENCES_AT_ONCE, (CALLS - calls) // STEPS + 1)
        wanted, got = bare(first, sequences), numbers(said(way, engine, first, sequences, STEPS))
        differ = [seed for seed in wanted if seed != "calls" and wanted[seed] != got.get(seed)]
        expect(differ or wanted == got, "another number of calls, though every sequence saw the same")
        # The kernel is asked once more: on a busy machine its own answer was perhaps the odd one. What it then says, ours must have said.
        real = [seed for seed in differ if numbers(said("bare", None, seed, 1, STEPS))[seed] != got.get(seed)]
        expect(not real, f"{len(real)} sequences differ; of seed {real[0] if real else ''}:\n" + (show(real[0], way, engine) if real else ""))
        odd += len(differ)
        expect(odd <= 1 + calls / 10_000, f"the kernel itself was at odds with itself in {odd} sequences")
        calls += int(wanted["calls"])
        first += sequences
    print(f"{calls} calls, {way}, {engine}")


@checks.check("random calls: the same seed gives the same bare, another seed something else")
def _():
    first, again, other = (numbers(said("bare", None, seed, 20, STEPS)) for seed in (FIRST, FIRST, FIRST + 20))
    expect(first == again, "bare, two runs differ")
    expect(set(first.values()).isdisjoint(set(other.values()) - {other["calls"]}), "two seeds make the same calls")


for on in ENGINES:
    for door in list(WAYS)[1:]:
        checks.add_check(f"random calls: as bare by {door}, on {on}", lambda door=door, on=on: same(door, on))

checks.main()

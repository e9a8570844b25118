#!/usr/bin/env python3
"""A program can't tell: the conformance cases, as a plain threaded program, see the same under
`ringlet run --threads=fibers` (the system-call door) as bare, on both engines. hooks_tests compares the symbol door.

With --table, runs both doors on both engines and writes docs/transparency.md: calls by doors and engines.
"""

import collections
import difflib
import functools
import os
import re
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import checks
from checks import expect, run

PLAIN = os.path.join(checks.build, "tests", "conformance_plain")
HOOKS_TESTS = os.path.join(checks.build, "tests", "hooks_tests")
DOCUMENT = os.path.join(checks.source, "docs", "transparency.md")
ENGINES = [os.environ["RINGLET_ENGINE"]] if os.environ.get("RINGLET_ENGINE") else ["uring", "epoll"]
SECONDS = int(os.environ.get("RINGLET_CASE_SECONDS", 10))  # one case; bare it takes less than one


@functools.lru_cache(maxsize=None)
def listed():
    """Of each case, in the order of the files: its name, its rows, and why the symbol door and the system-call door differ from
    bare, where they are known to (tests/conformance/known_differences.cpp)."""
    said = subprocess.run([PLAIN, "--list"], capture_output=True, text=True, check=True, timeout=SECONDS).stdout
    return [line.split("\t") for line in said.splitlines()]


def known_differences(door):
    """Name of each case that must differ by this door ("symbol", "system-call") to the reason; so a surprise success is noticed."""
    column = {"symbol": 2, "system-call": 3}[door]
    return {row[0]: row[column] for row in listed() if row[column]}


def cases():
    """Name to rows."""
    names = {name: rows.split() for name, rows, *_ in listed()}
    expect(len(names) == len(listed()), "two cases have the same name")
    return names


class Seen:
    def __init__(self, outcome):
        text = outcome.out.decode(errors="replace")
        self.ended = outcome.status
        self.err = outcome.err.decode(errors="replace")
        whole = re.search(r"^CASE [^\n]*\n(.*?)^PACE\n(.*?)^COMPLAINT\n(.*?)^END\n", text, re.S | re.M)
        not_here = re.search(r"^NOT HERE (.*)$", text, re.M)
        self.not_here = not_here.group(1) if not_here else ""
        self.late = re.search(r"^LATE$", text, re.M) is not None
        self.text, self.pace, self.complaint = whole.groups() if whole else (text, "", "")


def see(case, engine=None):
    if engine is None:
        return Seen(run([PLAIN, "--", case], seconds=SECONDS))
    command = [checks.ringlet, "run", "--threads=fibers", "--engine", engine, "--", PLAIN, "--hooked", "--", case]
    return Seen(run(command, seconds=SECONDS))


class Broken(AssertionError):
    """It hangs or ends otherwise: no difference that could be known."""


def difference(case, engine):
    """What the program can tell, in words; empty if nothing. Only what a busy machine makes of the pace is asked again, where
    somebody was not run in time, and where bare's own second answer is another one."""
    for tries_left in (4, 3, 2, 1, 0):
        bare = see(case)
        if bare.not_here:
            raise checks.Skip(bare.not_here)
        try:
            ours = see(case, engine)
        except AssertionError as hangs:
            raise Broken(str(hangs)) from None
        expect(bare.ended == 0 and not bare.complaint, f"fails bare: {bare.ended} {bare.complaint}{bare.err}")
        if (ours.ended, ours.text, ours.err) != (bare.ended, bare.text, bare.err):
            # Where a helper of the bare run came too late (a time limit passed first), the kernel is at odds with itself.
            if tries_left and (bare.late or ours.late or see(case).text != bare.text):
                continue
            lines = difflib.unified_diff(bare.text.splitlines(), ours.text.splitlines(), "bare", "fibers", n=1, lineterm="")
            told = "\n".join(lines)
            if ours.ended != bare.ended or ours.err != bare.err:
                raise Broken(f"ended with {ours.ended}; {ours.err[-300:]}\n{told}")
            return told
        if (ours.pace, ours.complaint) == (bare.pace, bare.complaint):
            return ""
    return f"pace: {ours.pace.split()} instead of {bare.pace.split()}; {ours.complaint}"


# Known to differ by waiting on where bare has its answer.
WAITS_ON = {"signalfd: waits for a signal"}


def same_as_bare(case, engine):
    try:
        told = difference(case, engine)
    except Broken as broken:
        if case not in WAITS_ON:
            raise
        told = str(broken)
    if case in known_differences("system-call"):
        expect(told, "the same now: take it from known_differences.cpp, and write the table again (./dev compare)")
        return
    expect(not told, told)


def symbol_door(engine):
    """Name of each case to whether it passed: it is equal, or, if it is known to differ, it does."""
    variables = {"RINGLET_ENGINE": engine, "RINGLET_BUILD_DIR": checks.build}
    said = run([HOOKS_TESTS], env=variables, seconds=600).out.decode(errors="replace")
    found = {}
    for verdict, name in re.findall(r"^(PASS|FAIL) (.*?)(?: \(\d+\.\d s\))?$", said, re.M):
        found[name] = verdict == "PASS"
    return found


def cell(cases_of_row, equal):
    """In how many of these cases nothing differs."""
    n = sum(equal[case] for case in cases_of_row)
    return "all" if n == len(cases_of_row) else str(n)


def by_symbols(engine):
    """Name of each case to whether it is equal."""
    passed, known = symbol_door(engine), known_differences("symbol")
    return {case: passed.get(case, False) and case not in known for case in cases()}


def by_system_calls(engine):
    """The same."""
    equal = {}
    for case in cases():
        try:
            told = difference(case, engine)
        except Broken as broken:
            told = str(broken)
        equal[case] = not told
        if told:
            print(f"{case}, on {engine}: {told}", file=sys.stderr)
    return equal


def table():
    all_cases = cases()
    columns, differs = [], []
    for door, compared in (("symbol", by_symbols), ("system-call", by_system_calls)):
        known = known_differences(door)
        engines_of = collections.defaultdict(list)
        for engine in ("uring", "epoll"):
            equal = compared(engine)
            columns.append((f"{door} door, {engine}", equal))
            for case in all_cases:
                if not equal[case]:
                    engines_of[case].append(engine)
        differs += [f"- *{case}* ({door} door, {' and '.join(on)}): {known.get(case, 'not known yet')}" for case, on in engines_of.items()]
    of_row = collections.defaultdict(list)
    for case, rows in all_cases.items():
        for row in rows:
            of_row[row].append(case)
    head = ["call", "cases"] + [name for name, _ in columns]
    lines = ["# A program can't tell: calls by doors and engines", "",
             "Made by `tests/threads/transparency_test.py --table` (`./dev compare`): each case runs bare and hooked, and what it saw is",
             "compared: results, errno, bytes, and whether a call came back at once or waited (then others must have run meanwhile).",
             "A cell says in how many of the call's cases nothing differed.", "",
             "| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for row in sorted(of_row):
        lines.append(f"| `{row}` | {len(of_row[row])} | " + " | ".join(cell(of_row[row], equal) for _, equal in columns) + " |")
    totals = [f"{sum(equal.values())} of {len(all_cases)}" for _, equal in columns]
    lines.append(f"| **all {len(of_row)} calls** | {len(all_cases)} | " + " | ".join(totals) + " |")
    lines += ["", "What differs, and why:" if differs else "Nothing differs."]
    return "\n".join(lines + differs) + "\n"


def counted(document):
    """The calls that the table has, with their numbers of cases."""
    return {row: int(n) for row, n in re.findall(r"^\| `([^`]+)` \| (\d+) \|", document, re.M)}


if sys.argv[1:] == ["--table"]:
    made = table()
    with open(DOCUMENT, "w", encoding="utf-8") as f:
        f.write(made)
    print(made)
    sys.exit(0)

for each in cases():
    for on in ENGINES:
        checks.add_check(f"transparency: {each}: on {on}", lambda case=each, engine=on: same_as_bare(case, engine))


@checks.check("transparency: the table in docs has each call with the number of its cases")
def _():
    there = collections.Counter(row for rows in cases().values() for row in rows)
    with open(DOCUMENT, encoding="utf-8") as f:
        written = counted(f.read())
    expect(written == dict(there), f"write it again (./dev compare): {sorted(set(there.items()) ^ set(written.items()))}")


checks.main()

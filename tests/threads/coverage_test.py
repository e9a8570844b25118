#!/usr/bin/env python3
"""Every row of hooks/syscalls.def has a case: which calls the conformance cases and the battery make, bare, is seen by strace.
(That every row of hooks/calls.def has one is asked by conformance/table_test.cpp.)"""

import concurrent.futures
import os
import re
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import checks
from checks import expect, needs, run

PLAIN = os.path.join(checks.build, "tests", "conformance_plain")
BATTERY = os.path.join(checks.build, "tests", "battery")
SECONDS = 100
checks.CHECK_SECONDS = 600

# Rows that no case can make on this machine, and why. One that is made after all is told, so that it goes from here.
never_made = {}


def rows():
    with open(os.path.join(checks.source, "hooks", "syscalls.def"), encoding="utf-8") as f:
        return re.findall(r"^(?:WAITS|TELLS|THREADS|GUARDS)\((\w+),", f.read(), re.M)


def made_by(command, wanted, log):
    run(["strace", "-f", "-qq", "--seccomp-bpf", "-e", "trace=" + ",".join(wanted), "-o", log, *command], seconds=SECONDS)
    with open(log, encoding="utf-8", errors="replace") as f:
        return set(re.findall(r"^\d+ +(\w+)\(", f.read(), re.M))


@checks.check("coverage: every system call of the system-call door's table is made by a case")
def _():
    needs("strace")
    if run(["strace", "-qq", "-o", "/dev/null", "true"]).status != 0:
        raise checks.Skip("strace can't trace here")
    expect(os.path.exists(PLAIN) and os.path.exists(BATTERY), "the cases are not built")
    wanted = rows()
    expect(len(wanted) > 100, f"only {len(wanted)} rows found")
    listed = [line.split("\t")[0] for line in run([PLAIN, "--list"]).out.decode().splitlines()]
    cases = [[PLAIN, "--", name] for name in listed] + [[BATTERY, name] for name in run([BATTERY]).out.decode().split()]
    folder = checks.temporary_directory()
    logs = [os.path.join(folder, str(i)) for i in range(len(cases))]
    with concurrent.futures.ThreadPoolExecutor(4) as several:
        made = set().union(*several.map(made_by, cases, [wanted] * len(cases), logs))
    missing = [name for name in wanted if name not in made and name not in never_made]
    expect(not missing, f"no case makes {', '.join(missing)}: write one (tests/conformance, tests/threads/battery)")
    again = [name for name in never_made if name in made]
    expect(not again, f"made now: take from never_made: {', '.join(again)}")


checks.main()

#!/usr/bin/env python3
"""docs/behaviours.md names test cases; each name, or pattern, is one of a case that there is."""

import fnmatch
import glob
import os
import re
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import checks

case = re.compile(r'(?:\w*CASE\w*|CONFORMANCE\w*)\([^"]*"([^"]+)"')
quoted = re.compile(r"`([^`]+)`")


def names_of_cases():
    found = set()
    for path in glob.glob(os.path.join(checks.source, "tests", "**", "*.cpp"), recursive=True):
        with open(path, encoding="utf-8") as f:
            found.update(case.findall(f.read()))
    return found


def unknown(document, names):
    """What is quoted in a row's last column and looks like a case's name: a subject, a colon and a fact, or a pattern."""
    wrong = []
    for line in document.splitlines():
        if not re.match(r"\| \d+ \|", line):
            continue
        for text in quoted.findall(line.rstrip(" |").rpartition(" | ")[2]):
            if (": " in text or text.endswith("*")) and not fnmatch.filter(names, text.replace("[", "[[]")):
                wrong.append(f"{line.split('|')[1].strip()}: {text}")
    return wrong


@checks.check("behaviours: every case that docs/behaviours.md names is there")
def _():
    with open(os.path.join(checks.source, "docs", "behaviours.md"), encoding="utf-8") as f:
        wrong = unknown(f.read(), names_of_cases())
    checks.expect(not wrong, "\n  " + "\n  ".join(wrong))


@checks.check("behaviours: a name that is no case's would be noticed")
def _():
    checks.expect(unknown("| 1 | a fact | `nothing: of this name` |", names_of_cases()), "it passed")


checks.main()

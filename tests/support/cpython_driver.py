"""Runs one module of CPython's own tests and writes what became of each: `python3 cpython_driver.py LOG MODULE [LEFT OUT]...`.

A line for each test that begins ("begun ID") and ends ("ok|skipped|failed ID", with the reason behind a tab). No network, nothing that takes minutes:
the resources of CPython's own runner are all off, as there by default. Nothing in here knows of ringlet."""

import importlib
import sys
import unittest

from test import support

log = open(sys.argv[1], "a", buffering=1)
left_out = set(sys.argv[3:])


class Lines(unittest.TestResult):
    def line(self, what, test, why=""):
        log.write(f"{what} {test.id()}\t{why}\n")

    def startTest(self, test):
        super().startTest(test)
        self.line("begun", test)

    def addSuccess(self, test):
        self.line("ok", test)

    def addSkip(self, test, reason):
        self.line("skipped", test, reason)

    def addFailure(self, test, error):
        self.line("failed", test, " ".join(f"{error[0].__name__}: {error[1]}".split())[:300])

    addError = addFailure

    def addExpectedFailure(self, test, error):
        self.line("ok", test)

    def addUnexpectedSuccess(self, test):
        self.line("failed", test, "unexpected success")

    def addSubTest(self, test, subtest, error):
        if error:
            self.addFailure(test, error)


def each(tests):
    for test in tests:
        if isinstance(test, unittest.TestSuite):
            yield from each(test)
        elif test.id() not in left_out:
            yield test


def by_class(tests):
    """The same tests without those left out, in suites as unittest has them, so that the fixtures of classes are run."""
    return unittest.TestSuite(each(tests))


# What asks for the network there needs this machine alone.
support.use_resources = ["network"] if sys.argv[2] == "test_socketserver" else []
support.verbose = 0
loaded = unittest.defaultTestLoader.loadTestsFromModule(importlib.import_module("test." + sys.argv[2]))
by_class(loaded).run(Lines())
log.write("whole\n")

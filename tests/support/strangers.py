"""Strangers' programs, unmodified, with and without us.

Each runs bare once, then under `ringlet run`: alone, as a user would start it, and on each engine with a second fiber
for company (company.cpp), since a program that is alone on its thread has its calls left to libc. Compared are stdout, byte
by byte, and the exit status.

A stranger that is known to fail is listed with the reason; when it works after all, that is a failure, so that somebody
strikes it off the list.
"""

import os

import checks
from checks import Skip, add_check, expect, expect_equal, needs, ringlet, run

ways = ["alone", "uring", "epoll"]
company = os.path.join(checks.build, "tests", "libcompany.so")
known_failures = {}  # "name of the check": "why"

scratch = checks.temporary_directory()
python = "/usr/bin/python3" if os.path.exists("/usr/bin/python3") else "python3"

_bare = {}


def under(way):
    """The words before a command's own. The second object comes after the launcher, which it is no company for."""
    if way == "alone":
        return [ringlet, "run"]
    preload = os.path.join(checks.build, "hooks", "libringlet-preload.so")
    return [ringlet, "run", "--engine", way, "env", f"LD_PRELOAD={preload}:{company}"]


def why_not(way):
    if way not in _bare:
        got = run([*under(way), "true"])
        _bare[way] = "" if got.status == 0 else got.err.decode().strip()
    return _bare[way]


def compare(name, command, *, wanted=0, prepare=None, out=None, clean=None, **options):
    """Makes a check for each way: the command's stdout and status are what they are without us; and `wanted` (a status or
    several), so that two equal failures do not pass for a success. `out`, too, if given. `clean` runs before each."""

    def one(way):
        if prepare:
            prepare()
        words = command() if callable(command) else command
        needs(words[0])
        if why_not(way):
            raise Skip(why_not(way))
        if name not in _bare:
            if clean:
                clean()
            _bare[name] = run(words, **options)
        bare = _bare[name]
        expect(bare.status in (wanted if isinstance(wanted, tuple) else (wanted,)), f"bare, it ended with {bare.status}: {bare.err[-300:]!r}")
        if out is not None:
            expect_equal(bare.out[:200], out[:200], "stdout, bare")
        if clean:
            clean()
        got = run([*under(way), *words], **options)
        expect_equal(got.status, bare.status, f"exit status (stderr: {got.err[-300:]!r})")
        if got.out != bare.out:
            raise AssertionError(f"stdout differs: {len(got.out)} bytes instead of {len(bare.out)}; {got.out[:120]!r} instead of {bare.out[:120]!r}")

    for way in ways:
        add_stranger(f"{name} ({way})", lambda way=way: one(way))


def add_stranger(name, function):
    def known():
        try:
            function()
        except Skip:
            raise
        except AssertionError as error:
            raise Skip(f"known failure: {known_failures[name]} ({str(error)[:120]})")
        raise AssertionError("works now, though it is listed as a known failure: strike it off the list")

    add_check(name, known if name in known_failures else function)


def script(text):
    return [python, "-c", text]


def shell(text):
    return ["sh", "-c", text]

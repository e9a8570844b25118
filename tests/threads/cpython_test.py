#!/usr/bin/env python3
"""CPython's own tests of threads, sockets, signals and children (libpython3.11-testsuite) have the same outcome under
`ringlet run --threads=fibers` as bare, test by test. What differs is listed here with its reason; what is listed and is the same
is a failure, too, so that somebody strikes it off the list.

It takes minutes: in `./dev test --all`, where the package is installed. `cpython_test.py MODULE` runs one.
A test that fails bare tells nothing. A test that hangs is ended with its module, and the rest is run without it.
"""

import importlib.util
import os
import signal
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import checks
from checks import Skip, add_check, expect
from threaded import ENGINES, all_of_them, under

python = "/usr/bin/python3"
driver = os.path.join(checks.source, "tests", "support", "cpython_driver.py")
modules = """
    test_select test_poll test_epoll test_selectors test_socket test_ssl test_time test_sched
    test_thread test_threading test_threading_local test_threadsignals test_queue test_signal test_eintr
    test_subprocess test_popen test_pty test_wait3 test_wait4 test_fork1 test_posix test_fcntl
    test_socketserver test_httpservers test_httplib test_urllib2_localnet test_xmlrpc test_asyncore test_asynchat
    test_ftplib test_poplib test_smtplib test_telnetlib test_imaplib test_concurrent_futures
""".split()
checks.CHECK_SECONDS = 900
SILENT_SECONDS = 90  # of one test: then it hangs
MOST_HANGS = 4

# test: reason.
known_differences = {}


def outcomes(module, way, without=()):
    """What became of each test of a module: {id: (outcome, reason)}."""
    seen, left_out = {}, list(without)
    with tempfile.TemporaryDirectory(prefix="ringlet-cpython.") as folder:
        log = os.path.join(folder, "log")
        while True:
            work = tempfile.mkdtemp(dir=folder)
            open(log, "w").close()
            process = subprocess.Popen([*under(way), python, driver, log, module, *left_out], cwd=work, start_new_session=True,
                                       stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=open(os.path.join(folder, "err"), "w"))
            status, size, since = None, 0, time.monotonic()
            while status is None and time.monotonic() < since + SILENT_SECONDS:
                try:
                    status = process.wait(1)
                except subprocess.TimeoutExpired:
                    if os.path.getsize(log) != size:
                        size, since = os.path.getsize(log), time.monotonic()
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            process.wait()
            begun, whole = None, False
            with open(log) as f:
                for line in f:
                    words = line.rstrip("\n").partition("\t")
                    what, _, name = words[0].partition(" ")
                    if what == "whole":
                        whole = True
                    elif what == "begun":
                        begun = name
                    elif seen.get(name, ("ok",))[0] != "failed":
                        seen[name] = (what, words[2])
                        begun = None if begun == name else begun
            if whole:
                return seen
            with open(os.path.join(folder, "err"), errors="replace") as f:
                said = f.read()[-300:]
            expect(begun, f"{way}: {module} ended with {status} between two tests: {said}")
            seen[begun] = ("failed", "hung" if status is None else f"the process ended with {status}: {said}")
            left_out = [*left_out, begun, *(name for name in seen if name not in left_out and name != begun)]
            expect(sum(1 for o in seen.values() if o[1] == "hung") < MOST_HANGS, f"{way}: {module} hangs again and again: {[n for n, o in seen.items() if o[1] == 'hung']}")


_bare = {}


def compare(module, engine):
    if module not in _bare:
        _bare[module] = outcomes(module, "bare")
    bare = _bare[module]
    ours = outcomes(module, engine, [name for name, outcome in bare.items() if outcome[1] == "hung"])
    expect(any(outcome[0] == "ok" for outcome in bare.values()), "bare, no test was run to its end")
    different, surprises = [], []
    for name in sorted({*bare, *ours}):
        was, now = bare.get(name, ("did not run", "")), ours.get(name, ("did not run", ""))
        if was[0] == "failed":
            continue
        if was[0] != now[0] and name not in known_differences:
            different.append(f"{name}: {now[0]} ({now[1]}), bare {was[0]}")
        if was[0] == now[0] and name in known_differences:
            surprises.append(name)
    print(f"{module}, {engine}: {len(ours)} tests, {sum(o[0] == 'ok' for o in ours.values())} ok, {sum(o[0] == 'skipped' for o in ours.values())} skipped; "
          f"failed bare: {[n for n, o in bare.items() if o[0] == 'failed']}")
    expect(not different, "\n  ".join(["not as bare:", *different]))
    expect(not surprises, f"as bare now, though listed as different: strike them off the list: {surprises}")


def one(module, engine):
    if not importlib.util.find_spec("test.test_threading"):
        raise Skip("libpython3.11-testsuite is not installed")
    if not importlib.util.find_spec(f"test.{module}"):
        raise Skip(f"this Python has no {module}")
    compare(module, engine)


if all_of_them or len(sys.argv) > 1 and sys.argv[1]:
    for name in modules:
        for each in ENGINES:
            add_check(f"cpython: {name} as bare, on {each}", lambda name=name, each=each: one(name, each))

checks.main()

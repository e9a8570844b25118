#!/usr/bin/env python3
"""gdb's commands of hooks/gdb/ringlet-gdb.py: fibers with their backtraces, live and from a core file, of a program that
links ringlet and of a stranger whose threads are fibers."""

import os
import re
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import checks
from checks import Skip, build, expect, needs, run

COMMANDS = os.path.join(checks.source, "hooks", "gdb", "ringlet-gdb.py")
PARKED = os.path.join(build, "tests", "parked")
scratch = checks.temporary_directory()

# Its threads rest in a lock, a read and a sleep; main in a read of its input.
THREADS = """
import os, socket, sys, threading, time
ours, theirs = socket.socketpair()
lock = threading.Lock()
lock.acquire()
for f in (lambda: theirs.recv(1)), lock.acquire, lambda: time.sleep(1000): threading.Thread(target=f, daemon=True).start()
time.sleep(0.01)
print("ready", flush=True)
os.read(0, 1)
os._exit(0)
"""


class Program:
    """Runs until the end of the `with`; it has said that it is ready."""

    def __init__(self, *command, **variables):
        self.command, self.variables = command, variables

    def __enter__(self):
        self.process = subprocess.Popen(self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        env={**os.environ, **self.variables})
        said = self.process.stdout.readline()
        expect(said == b"ready\n", f"{self.command[0]} said {said}")
        return self.process.pid

    def __exit__(self, *_):
        self.process.stdin.close()
        try:
            self.process.wait(20)
        finally:
            self.process.kill()
            self.process.wait()
            self.process.stdout.close()


def gdb(*arguments):
    needs("gdb")
    got = run(["gdb", "-q", "-batch", "-nx", "-ex", "set debuginfod enabled off", "-ex", "set width 0", *arguments], seconds=100)
    text = got.out.decode(errors="replace") + got.err.decode(errors="replace")
    if "Operation not permitted" in text:
        raise Skip("gdb can't trace here")
    if "Scripting in the \"Python\" language is not supported" in text:
        raise Skip("this gdb has no Python")
    return text


def ask(*commands):
    return ["-ex", f"source {COMMANDS}", *sum((["-ex", c] for c in commands), [])]


def expect_linked(text):
    for line in (r"hub 1 on thread 1 \(LWP \d+\), asleep, fibers: 3", r"  0 +main +parked in read\(fd 0\) for \d+\.\d+ s",
                 r"  1 +on-event +parked in event.* on 0x\w+ for \d", r"  2 +asleep +parked in sleep for \d", r"ringlet hub 1"):
        expect(re.search(line, text), f"no line like {line!r} in:\n{text[-4000:]}")
    parts = re.split(r"(?m)^[* ] (?=\d+ )", text.split("BACKTRACES")[1])
    for name, function in (("main ", "rest_in_read"), ("on-event", "rest_on_event"), ("asleep", "rest_in_sleep")):
        part = [p for p in parts if name in p.splitlines()[0]]
        expect(len(part) == 1 and function in part[0] and "#0 " in part[0], f"{name} has no {function} in its backtrace:\n{text[-6000:]}")
    expect(re.search(r"rest_in_read.*\n.* main ", parts[1]), f"main's backtrace does not reach main:\n{parts[1]}")


LINKED = ask("ringlet fibers", "info threads", "echo BACKTRACES\\n", "ringlet backtrace all")


@checks.check("gdb: lists the fibers of a program that links ringlet, with their backtraces")
def _():
    with Program(PARKED) as pid:
        expect_linked(gdb("-p", str(pid), *LINKED))


@checks.check("gdb: lists them from a core file")
def _():
    # gcore gives a mapping up at the first page that it cannot read, and guards within one are such; the kernel does not.
    core = os.path.join(scratch, "core")
    with Program(PARKED, RINGLET_GUARDS="mprotect") as pid:
        said = gdb("-p", str(pid), "-ex", f"gcore {core}")
        expect(os.path.exists(core), f"gdb made no core: {said}")
    expect_linked(gdb(PARKED, core, *LINKED))


@checks.check("gdb: the debugged program goes on as before")
def _():
    with Program(PARKED) as pid:
        gdb("-p", str(pid), *LINKED)
        with open(f"/proc/{pid}/stat") as f:
            state = f.read().rsplit(")", 1)[1].split()[0]
        expect(state in "SR", f"its state is {state}")


def expect_threads(text):
    tids = re.findall(r"  \d+ +tid (\d+) +\S+ +parked in (\S+)", text.split("BACKTRACES")[0])
    ours = [what for tid, what in tids if int(tid) >= 0x10000000]
    expect(len(ours) == 3 and sum(w.startswith("futex") for w in ours) == 1 and any(w.startswith("recv") for w in ours),
           f"not three threads in futex, recv and sleep:\n{text[-4000:]}")
    expect("ringlet hub 1" in text, f"info threads names no hub:\n{text[-4000:]}")
    parts = re.split(r"(?m)^[* ] (?=\d+ )", text.split("BACKTRACES")[1])
    threads = [p for p in parts if re.match(r"[1-9]\d* +tid", p)]
    expect(len(threads) == 3 and all("clone3" in p or "start_thread" in p for p in threads),
           f"a thread's backtrace does not reach its begin:\n{text[-6000:]}")


@checks.check("gdb: lists the threads of a stranger that are fibers, live and from a core file")
def _():
    needs("/usr/bin/python3")
    if not os.path.exists(os.path.join(build, "tests", "patch_tests")):
        raise Skip("built without an instruction decoder: threads stay threads")
    core = os.path.join(scratch, "core.threads")
    with Program(checks.ringlet, "run", "--threads=fibers", "--", "/usr/bin/python3", "-c", THREADS,
                 RINGLET_GUARDS="mprotect") as pid:
        expect_threads(gdb("-p", str(pid), *LINKED, "-ex", f"gcore {core}"))
    expect_threads(gdb("/usr/bin/python3", core, *LINKED))


checks.main()

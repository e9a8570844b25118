#!/usr/bin/env python3
"""Plain threaded programs print the same under `ringlet run --threads=fibers` as bare, with the same exit status and
nothing on stderr, and the kernel sees no thread of theirs. The cases are in battery/."""

import os
import re
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import checks
from checks import expect, expect_equal, run

BATTERY = os.path.join(checks.build, "tests", "battery")
ENGINES = [os.environ["RINGLET_ENGINE"]] if os.environ.get("RINGLET_ENGINE") else ["uring", "epoll"]
SECONDS = 50  # one run; a check has two at most, and is stopped by checks.py at 120

# What the threads mode can't do, with the reason: such a case must fail, so that a surprise success is noticed.
known_failures = {}


def fibers(command, engine, **more):
    return run([checks.ringlet, "run", "--threads=fibers", "--engine", engine, *more.pop("options", []), "--", *command],
               seconds=SECONDS, **more)


def same_as_bare(case, engine):
    bare = run([BATTERY, case], seconds=SECONDS)
    ours = fibers([BATTERY, case], engine)
    got = (ours.status, ours.out.decode(), ours.err.decode())
    wanted = (bare.status, bare.out.decode(), bare.err.decode())
    if (case, engine) in known_failures:
        expect(got != wanted, "it works now: take it from known_failures")
        return
    expect_equal(got, wanted, case)
    expect("not so" not in wanted[1], f"fails bare, too: {wanted[1]}")


if os.path.exists(BATTERY):
    cases = subprocess.run([BATTERY], capture_output=True, text=True, check=True, timeout=SECONDS).stdout.split()
    for engine in ENGINES:
        for case in cases:
            checks.add_check(f"threads: {case.replace('_', ' ')}: as bare, on {engine}",
                             lambda case=case, engine=engine: same_as_bare(case, engine))


@checks.check("threads: the battery is whole")
def _():
    expect(os.path.exists(BATTERY), "tests/battery is not built")
    expect(len(cases) >= 40, f"only {len(cases)} cases")


PYTHON = """
import concurrent.futures, http.server, os, queue, subprocess, threading, urllib.request
class answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = (self.path * 10).encode()
        self.send_response(200); self.send_header("Content-Length", str(len(body))); self.end_headers(); self.wfile.write(body)
    def log_message(self, *a): pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), answers)
server.socket.listen(1000)
serving = threading.Thread(target=server.serve_forever); serving.start()
def get(i): return urllib.request.urlopen(f"http://127.0.0.1:{server.server_address[1]}/{i}").read().decode()
together = threading.Barrier(200)
def client(i):
    together.wait()
    return get(i)
with concurrent.futures.ThreadPoolExecutor(200) as pool:
    right = list(pool.map(client, range(200))) == [f"/{i}" * 10 for i in range(200)]
    kernel_threads = len(os.listdir("/proc/self/task"))
server.shutdown(); serving.join()
items = queue.Queue(3); got = []
def consume():
    while (item := items.get()) is not None: got.append(item)
consumer = threading.Thread(target=consume); consumer.start()
for i in range(1000): items.put(i)
items.put(None); consumer.join()
said = []
t = threading.Thread(target=lambda: said.append(subprocess.check_output("echo child; exit 0", shell=True))); t.start(); t.join()
print(right, got == list(range(1000)), said, kernel_threads <= int(os.environ["MOST_KERNEL_THREADS"]))
"""


def python_threads(engine):
    # uring: the hub's alone. epoll: and the helpers that do what has no readiness.
    got = fibers(["/usr/bin/python3", "-c", PYTHON], engine, env={"MOST_KERNEL_THREADS": "3"})
    expect_equal((got.status, got.out.decode(), got.err.decode()), (0, "True True [b'child\\n'] True\n", ""), "python3")


for engine in ENGINES:
    checks.add_check(f"threads: python3's http server, pool of 200 and queue, on at most 3 kernel threads, on {engine}",
                     lambda engine=engine: (checks.needs("/usr/bin/python3"), python_threads(engine)))


SPINNERS = """
import threading, time
stop = False
turns = [0] * 4
def spin(i):
    while not stop: turns[i] += 1
threads = [threading.Thread(target=spin, args=(i,)) for i in range(4)]
for t in threads: t.start()
# A second of the processor's, however busy the machine is.
end = time.monotonic() + 40
while time.process_time() < 1 and time.monotonic() < end: time.sleep(0.1)
stop = True
for t in threads: t.join()
shares = [n / sum(turns) for n in turns]
print("fair" if min(shares) > 0.08 and max(shares) < 0.6 else shares)
"""


def python_spins(engine):
    got = fibers(["/usr/bin/python3", "-c", SPINNERS], engine, options=["--report"])
    expect_equal((got.status, got.out.decode()), (0, "fair\n"), "python3")
    times = int(got.err.decode().split("made to give way: ")[1].split()[0])
    expect(times >= 20, f"gave way {times} times in a second")


for engine in ENGINES:
    checks.add_check(f"threads: four of python3 that compute have fair shares, and main wakes in time, on {engine}",
                     lambda engine=engine: (checks.needs("/usr/bin/python3"), python_spins(engine)))


@checks.check("threads: nobody is made to give way who does not keep others waiting")
def _():
    got = fibers([BATTERY, "mutex_and_condition"], ENGINES[0], options=["--report"])
    expect(b"made to give way: " in got.err, f"it said {got.err}")
    expect(int(got.err.split(b"made to give way: ")[1].split()[0]) <= 5, f"it said {got.err}")


@checks.check("threads: a bare setresuid of one thread stops the program, in words")
def _():
    code = ("import ctypes, threading, time\n"
            "c = ctypes.CDLL(None)\n"
            "t = threading.Thread(target=lambda: c.syscall(117, -1, -1, -1)); t.start(); t.join()\nprint('went on')")
    got = fibers(["/usr/bin/python3", "-c", code], ENGINES[0])
    expect_equal((got.status, got.out), (125, b""), "status and output")
    expect(b"setresuid" in got.err and b"--threads=native" in got.err, f"it said {got.err}")


# Beyond the kernel's pid_max and what max_map_count lets it have of stacks.
MANY = 100_000 if os.environ.get("RINGLET_STRESS") == "full" else 40_000


@checks.check(f"threads: {MANY} threads at once, with stacks of 8 MB and their guards")
def _():
    with open("/proc/meminfo") as f:
        available = next(int(line.split()[1]) for line in f if line.startswith("MemAvailable:"))
    if available < MANY * 30:
        raise checks.Skip(f"{MANY} threads want {MANY * 30 >> 10} MB, and only {available >> 10} MB are there")
    got = fibers([BATTERY, "many_threads_at_once"], ENGINES[0], env={"BATTERY_THREADS": str(MANY)})
    expect_equal((got.status, got.out, got.err), (0, b"all 1\n", b""), "it")


@checks.check("threads: --report tells of threads, switches, calls that parked, memory, sites")
def _():
    got = fibers([BATTERY, "mutex_and_condition"], ENGINES[0], options=["--report"])
    expect_equal((got.status, got.out), (0, b"turn 2000\n"), "status and output")
    for line in (r"threads made fibers: 10;", r"switches: [1-9]\d{2,}; entries into the kernel to submit or wait: [1-9]\d*; peak memory: [1-9]\d* MiB",
                 r"libc\S*: system calls led to us: [1-9]\d+, left native: [1-9]\d+", r"calls that parked:.* futex [1-9]\d{2,}"):
        expect(re.search(line, got.err.decode()), f"no line like {line!r}: {got.err.decode()}")


BLOCKS = """
import os, threading, time, ctypes
libc = ctypes.CDLL(None)
ends = os.pipe()
def waits(): os.read(ends[0], 1)
t = threading.Thread(target=waits); t.start()
data = b"x" * 2_000_000
def hold():
    end = time.process_time() + 0.2
    while time.process_time() < end: libc.memcmp(data, data[:-1] + b"x", len(data))
h = threading.Thread(target=hold, name="holds"); h.start(); h.join()
os.write(ends[1], b"x"); t.join()
print("done")
"""


@checks.check("threads: --report tells who kept the others waiting, and where")
def _():
    checks.needs("/usr/bin/python3")
    got = fibers(["/usr/bin/python3", "-c", BLOCKS], ENGINES[0], options=["--report"])
    expect_equal((got.status, got.out), (0, b"done\n"), "status and output")
    kept = re.search(r"ringlet: thread \d+ '.*' kept the others waiting for \d+\.\d ms:\n(ringlet:     .*\n)+", got.err.decode())
    expect(kept, f"it said {got.err.decode()}")


@checks.check("threads: --door chooses, and does not go with the other's threads")
def _():
    for door, fibers_made in (("syscall", True), ("symbol", False)):
        got = run([checks.ringlet, "run", "--door", door, "--report", "--", BATTERY, "mutex_and_condition"], seconds=SECONDS)
        expect_equal((got.status, got.out, b"threads made fibers: 10;" in got.err), (0, b"turn 2000\n", fibers_made), f"--door {door}")
        twin = run(["env", f"LD_PRELOAD={checks.build}/hooks/libringlet-preload.so", f"RINGLET_DOOR={door}", "RINGLET_THREADS=fibers", "RINGLET_REPORT=1",
                    BATTERY, "mutex_and_condition"], seconds=SECONDS)
        expect_equal((twin.status, twin.out, b"threads made fibers: 10;" in twin.err), (0, b"turn 2000\n", fibers_made), f"RINGLET_DOOR={door}")
    got = run([checks.ringlet, "run", "--door=symbol", "--threads=fibers", "--", "/bin/true"])
    expect(got.status == 125 and b"--threads native" in got.err, f"status {got.status}, it said {got.err}")
    got = run([checks.ringlet, "run", "--door=back", "--", "/bin/true"])
    expect(got.status == 125 and b"symbol and syscall" in got.err, f"status {got.status}, it said {got.err}")


@checks.check("threads: of a program with Go code they stay as they are, with one line that says why")
def _():
    got = fibers([os.path.join(checks.build, "tests", "gopher")], ENGINES[0], options=["--report"])
    expect_equal((got.status, got.out), (0, b"a thread\n"), "status and output")
    expect(got.err.count(b"\n") == 1 and b"threads stay as they are: there is Go code in it" in got.err, f"it said {got.err}")


@checks.check("threads: a program with one thread is left as it is")
def _():
    got = fibers(["/bin/sh", "-c", "grep -c syscall-entry /proc/$$/maps; exit 4"], ENGINES[0])
    expect_equal((got.status, got.err), (4, b""), "status and stderr")


checks.main()

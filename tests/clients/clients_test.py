#!/usr/bin/env python3
"""Stock client libraries in fibers of one thread, against real servers: requests at once take about as long as one; the
library's own timeout, its cancel and ours, a server that goes and comes back. cases.cpp says what is checked; the *yield ratio*
(yield_ratio.hpp) is how much of the time that requests waited their fibers were parked.

With --table, measures every library on both engines and writes the tables in docs/clients.md and README.md.
"""

import os
import socket
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import checks
import client_servers as servers
from checks import Skip, add_check, expect

CLIENTS = os.path.join(checks.build, "tests", "clients")
ENGINES = [os.environ["RINGLET_ENGINE"]] if os.environ.get("RINGLET_ENGINE") else ["uring", "epoll"]
CASES = {
    "together": "requests at once take about as long as one",
    "timeout": "its own timeout is its own error, and others run meanwhile",
    "cancel": "its own cancel, a timeout scope and a kill end the request",
    "silent": "a kill ends a wait for a server that takes the connection and is silent",
    "restart": "the server goes in the middle of requests, and comes back",
}
# Library: its server, and what to install where it was not built.
LIBRARIES = {
    "libcurl, HTTP/1.1": (servers.Nginx, "libcurl4-openssl-dev"),
    "libcurl, by name": (servers.Nginx, "libcurl4-openssl-dev"),
    "libcurl, HTTP/2 over TLS": (servers.Nginx, "libcurl4-openssl-dev"),
    "OpenSSL": (servers.Nginx, "libssl-dev"),
    "cpp-httplib": (servers.Nginx, "libcpp-httplib-dev"),
    "libpq": (servers.PostgreSQL, "libpq-dev"),
    "libmariadb": (servers.MariaDB, "libmariadb-dev"),
    "hiredis": (servers.Redis, "libhiredis-dev"),
    "libmemcached": (servers.Memcached, "libmemcached-dev"),
    "libssh2": (servers.Ssh, "libssh2-1-dev"),
    "sqlite3": (servers.Lock, "libsqlite3-dev"),
}
LOWEST_RATIO = 0.9  # of every library that is not known to block the thread
# While its hundred look-up threads begin and end, each in memory that is mapped for it, the thread that starts them waits for
# the lock of the process's memory map (in mmap, mprotect, brk), the longer the busier the machine is. Otherwise as by address.
BLOCKS = "libcurl, by name"
BEGIN_MARK, END_MARK = "<!-- clients: begin -->", "<!-- clients: end -->"
MOST_THREADS = {"sqlite3": 70}  # where the page cache cannot be asked, helpers read files under epoll: 64 at most
FEW_THREADS = 4  # of all others: the program's own, and those that look up names

CONTROL = "what blocks the thread"  # not a library: it must fail

# Library: its version, and facts of its own.
listed = subprocess.run([CLIENTS], capture_output=True, text=True, check=True).stdout
built = {name: (version, facts) for name, version, *facts in (line.split("\t") for line in listed.splitlines())}


def name_for_here(name):
    """The name, if it leads to 127.0.0.1, so that names are looked up, too; else the address."""
    try:
        found = {address[4][0] for address in socket.getaddrinfo(name, None, socket.AF_INET)}
    except OSError:
        found = set()
    return name if found == {"127.0.0.1"} else "127.0.0.1"


# libcurl knows localhost without asking; this machine's own name it asks for, in a thread of its own.
HOST, MACHINE = name_for_here("localhost"), name_for_here(socket.gethostname())


class Silent:
    """Takes connections and says nothing."""

    listening = socket.create_server(("127.0.0.1", 0), backlog=200)
    port = listening.getsockname()[1]


class Ended(Exception):
    """A case's program failed; what it measured until then."""

    def __init__(self, why, said):
        super().__init__(why)
        self.said = said


def run(library, case, engine, server=None):
    """Runs a case; stops and starts the server as it says. What it measured: name to text."""
    told = dict(server.variables() if server else {}, CLIENTS_SILENT=Silent.port, CLIENTS_HOST=HOST, CLIENTS_MACHINE=MACHINE)
    if case == "silent":
        told = {name: Silent.port if isinstance(value, int) else value for name, value in told.items()}
    variables = dict(os.environ, RINGLET_ENGINE=engine, **{name: str(value) for name, value in told.items()})
    with tempfile.TemporaryFile() as err:
        process = subprocess.Popen([CLIENTS, library, case], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=err,
                                   env=variables, text=True)
        said, stopped = {}, False
        try:
            for line in process.stdout:
                wish = line.rstrip("\n")
                if wish in ("stop", "start"):
                    getattr(server, wish)()
                    stopped = wish == "stop"
                    process.stdin.write("\n")
                    process.stdin.flush()
                else:
                    name, _, value = wish.partition(" ")
                    said[name] = value
            process.wait()
        finally:  # also when the check is out of time
            process.kill()
            process.wait()
            if stopped:
                server.start()
        err.seek(0)
        if process.returncode != 0:
            raise Ended(f"ended with {process.returncode}: {err.read().decode(errors='replace')[-3000:]}", said)
    print(f"# {library}, {case}, {engine}: " + ", ".join(f"{name} {value}" for name, value in said.items()), flush=True)
    return said


def tried(library, case, engine):
    kind, package = LIBRARIES[library]
    if library == BLOCKS and MACHINE == "127.0.0.1":
        raise Skip(f"this machine's name, {socket.gethostname()}, does not lead to 127.0.0.1")
    if library not in built:
        raise Skip(f"{package} is not installed: tests/clients is built without it")
    try:
        return run(library, case, engine, kind.get())
    except Ended as why:
        raise AssertionError(str(why))


def check(library, case, engine):
    said = tried(library, case, engine)
    if case == "together" and library != BLOCKS:
        ratio = float(said["ratio"])
        expect(ratio >= LOWEST_RATIO, f"its fibers were parked for only {ratio} of the time that they waited")
        expect(float(said["threads"]) <= MOST_THREADS.get(library, FEW_THREADS), f"{said['threads']} kernel threads")


def control(engine):
    try:
        run(CONTROL, "together", engine)
    except Ended as ended:
        expect("in a row" in str(ended), f"it failed otherwise: {ended}")
        expect(float(ended.said["ratio"]) < 0.1, f"its yield ratio is {ended.said['ratio']}")
        return
    raise AssertionError("it passed")


def between_marks(document, table):
    """The document with this table in the place that is marked for it."""
    path = os.path.join(checks.source, document)
    with open(path, encoding="utf-8") as f:
        text = f.read()
    begin, end = text.index(BEGIN_MARK) + len(BEGIN_MARK), text.index(END_MARK)
    if table is None:
        return text[begin:end]
    with open(path, "w", encoding="utf-8") as f:
        f.write(text[:begin] + "\n" + table + text[end:])
    return table


def rows_of(table):
    lines = ["| " + " | ".join(row) + " |" for row in table]
    lines.insert(1, "|" + " --- |" * len(table[0]))
    return "\n".join(lines) + "\n"


def write_tables():
    short = [["library", "requests at once", "one takes, ms", "all take, ms", "yield ratio, uring", "yield ratio, epoll"]]
    long = [[*short[0], "most stack, kB", "handle after its own timeout", "handle after an interruption"]]
    for library in LIBRARIES:
        uring, epoll = (tried(library, "together", engine) for engine in ("uring", "epoll"))
        either = lambda name: f"{float(uring[name]):.0f}, {float(epoll[name]):.0f}"
        ratios = [f"{float(said['ratio']):.3f}" for said in (uring, epoll)]
        count = f"{float(uring['requests']):.0f}"
        stack = f"{max(float(said['stack']) for said in (uring, epoll)) / 1024:.0f}"
        short.append([library, count, either("one"), either("all"), *ratios])
        then = ["", ""] if library == BLOCKS else [tried(library, case, "uring")["then"] for case in ("timeout", "cancel")]
        long.append([f"{library} ({built[library][0]})", count, either("one"), either("all"), *ratios, stack, *then])
    print(between_marks("docs/clients.md", rows_of(long)))
    between_marks("README.md", rows_of(short))


if sys.argv[1:] == ["--table"]:
    write_tables()
    sys.exit(0)

for each in LIBRARIES:
    for on in ENGINES:
        for one, fact in CASES.items():
            if one == "together" or each != BLOCKS and (one, each) != ("silent", "sqlite3"):  # which connects to nobody
                add_check(f"{each}: {fact}: on {on}", lambda library=each, case=one, engine=on: check(library, case, engine))
        for own in built.get(each, ("", []))[1]:
            add_check(f"{each}: {own}: on {on}", lambda library=each, case=own, engine=on: check(library, case, engine))
for on in ENGINES:
    add_check(f"clients: {CONTROL} is noticed, and has no yield ratio: on {on}", lambda engine=on: control(engine))


@checks.check("clients: every library that was built is in the list")
def _():
    expect(set(built) == {CONTROL} | set(built) & set(LIBRARIES), f"not in it: {sorted(set(built) - set(LIBRARIES))}")


@checks.check("clients: the tables in the documents have every library")
def _():
    for document in ("docs/clients.md", "README.md"):
        missing = [library for library in LIBRARIES if f"| {library} " not in between_marks(document, None)]
        expect(not missing, f"not in {document}: {missing}; write it again (clients_test.py --table)")


checks.main()

"""What the tests of threads as fibers share: a program is run bare and with its threads as fibers, while its threads are
counted as the kernel has them; and an upstream server that answers only when so many are waiting at once.
"""

import collections
import os
import selectors
import signal
import socket
import subprocess
import threading
import time

import checks
from checks import expect, expect_equal

ENGINES = [os.environ["RINGLET_ENGINE"]] if os.environ.get("RINGLET_ENGINE") else ["uring", "epoll"]
MOST_KERNEL_THREADS = 3  # hubs + 2
all_of_them = os.environ.get("RINGLET_STRESS") == "full"  # ./dev test --all: the large ones, too

Seen = collections.namedtuple("Seen", "status out err threads")


def under(way):
    """The words before a command's own: for "bare" none, else the way is an engine."""
    return [] if way == "bare" else [checks.ringlet, "run", "--threads=fibers", "--engine", way, "--"]


def kernel_threads(pid):
    """How many threads the kernel has for a process, but for those of its own that serve a ring (iou-wrk-..., iou-sqp-...)."""
    return len([name for name in thread_names(pid) if not name.startswith("iou-")])


def thread_names(pid):
    names = []
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/comm") as f:
                names.append(f.read().strip())
    except OSError:
        pass  # one of them, or all, have ended
    return names


class Counting:
    """Counts a process's kernel threads all the time: the most at any moment that was looked at."""

    def __init__(self, pid, meanwhile):
        self.pid, self.meanwhile, self.most, self.ends = pid, meanwhile, 0, threading.Event()
        self.thread = threading.Thread(target=self.count, daemon=True)
        self.thread.start()

    def count(self):
        while not self.ends.wait(0.002):
            self.most = max(self.most, kernel_threads(self.pid))
            self.meanwhile()

    def end(self):
        self.ends.set()
        self.thread.join()
        return self.most


def watch(command, way, *, seconds=50, input=b"", env=None, cwd=None, meanwhile=lambda: None):
    """Runs a command to its end: what it said, how it ended, and the most kernel threads that it was seen with. `meanwhile` is
    called now and then, by another thread."""
    process = subprocess.Popen([*under(way), *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               env={**os.environ, **(env or {})}, cwd=cwd, start_new_session=True)
    counting = Counting(process.pid, meanwhile)
    try:
        out, err = checks.ends_in_time(process, [*under(way), *command], input, seconds)
    finally:
        most = counting.end()
    return Seen(process.returncode, out, err, most)


def expect_few(threads, what):
    expect(threads <= MOST_KERNEL_THREADS, f"{what}: {threads} kernel threads instead of at most {MOST_KERNEL_THREADS}")


_bare = {}


def as_bare(name, command, engine, *, wanted=0, of=lambda seen: seen.out, few=True, **options):
    """The command says and ends as it does bare (which must end with `wanted`), with few kernel threads. `of` is what is
    compared of its output."""
    if name not in _bare:
        seen = watch(command, "bare", **options)
        expect_equal(seen.status, wanted, f"status, bare (stderr: {seen.err[-300:]!r})")
        _bare[name] = seen
    bare = _bare[name]
    ours = watch(command, engine, **options)
    expect_equal(ours.status, bare.status, f"status (stderr: {ours.err[-400:]!r})")
    expect_equal(ours.err, bare.err, "stderr")
    if of(ours) != of(bare):
        raise AssertionError(f"it said {of(ours)[:300]!r} instead of {of(bare)[:300]!r}")
    if few:
        expect(bare.threads > MOST_KERNEL_THREADS, f"bare, it was seen with {bare.threads} threads only: this proves nothing")
        expect_few(ours.threads, name)


class Server:
    """A server under test: started when entered, ended by SIGTERM when left, and then what it said and how it ended."""

    def __init__(self, command, way, *, port, seconds=20, env=None, ends_with=(0, -15), stop=signal.SIGTERM, pid=None):
        self.way, self.port, self.seconds, self.ends_with, self.stop, self.pid_file = way, port, seconds, ends_with, stop, pid
        self.command = [*under(way), *command]
        self.env = {**os.environ, **(env or {})}

    def __enter__(self):
        self.process = checks.serve(self.command, ready=lambda: checks.port_answers(self.port), seconds=self.seconds, env=self.env)
        return self

    @property
    def pid(self):
        return self.pid_file() if self.pid_file else self.process.pid

    @property
    def kernel_threads(self):
        return kernel_threads(self.pid)

    def __exit__(self, kind, *_):
        if kind is None:
            expect(self.process.poll() is None, f"{self.command[0]} has ended by itself, with {self.process.poll()}")
        self.process.send_signal(self.stop)
        try:
            self.status = self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            if kind is None:
                raise AssertionError(f"{self.way}: it did not end within 20 s of signal {self.stop}")
            return
        if kind is None:
            expect(self.status in self.ends_with, f"{self.way}: it ended with {self.status}")


class Upstream:
    """Answers HTTP requests, but holds each until `together` of them wait: then all of them were there at once. `meanwhile`
    is called at that moment. A request's answer is a function of its path."""

    def __init__(self, together=1, meanwhile=lambda: None):
        self.together, self.meanwhile, self.moments = together, meanwhile, 0
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self.port = self.listener.getsockname()[1]
        self.ends = False
        self.problem = None

    @staticmethod
    def body(path):
        return (path * 10).encode()

    def __enter__(self):
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, kind, *_):
        self.ends = True
        self.thread.join(10)
        self.listener.close()
        if kind is None and self.problem:
            raise self.problem

    def serve(self):
        select, heard, waiting = selectors.DefaultSelector(), {}, []
        self.listener.setblocking(False)
        select.register(self.listener, selectors.EVENT_READ)
        while not self.ends:
            for key, _ in select.select(0.1):
                if key.fileobj is self.listener:
                    try:
                        connection, _ = self.listener.accept()
                    except OSError:
                        continue
                    heard[connection] = b""
                    select.register(connection, selectors.EVENT_READ)
                    continue
                connection = key.fileobj
                try:
                    data = connection.recv(65536)
                except OSError:
                    data = b""
                heard[connection] += data
                if data and b"\r\n\r\n" not in heard[connection]:
                    continue
                select.unregister(connection)
                head = heard.pop(connection)
                if data:
                    waiting.append((connection, head.split(b" ", 2)[1].decode()))
                else:
                    connection.close()
            if waiting and len(waiting) >= self.together:
                try:
                    self.meanwhile()
                except AssertionError as problem:
                    self.problem = problem
                self.moments += 1
                for connection, path in waiting:
                    body = self.body(path)
                    connection.setblocking(True)
                    try:
                        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (len(body), body))
                    except OSError:
                        pass
                    connection.close()
                waiting = []
        for connection in [*heard, *(c for c, _ in waiting)]:
            connection.close()


def ask(port, text, seconds=60):
    """A connection on which this was asked."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=seconds)
    connection.sendall(text)
    return connection


def rest(connection):
    """All that comes until the end of the connection."""
    parts = []
    while data := connection.recv(65536):
        parts.append(data)
    connection.close()
    return b"".join(parts)


def wait_until(fact, seconds, what):
    end = time.monotonic() + seconds
    while not fact():
        expect(time.monotonic() < end, f"not within {seconds} s: {what}")
        time.sleep(0.01)

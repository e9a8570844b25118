#!/usr/bin/env python3
"""Each example prints what its examples/expected/NAME.txt says; times are compared as numbers, not as text."""

import os
import re
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import checks
from checks import expect, expect_equal, run

EXPECTED = os.path.join(checks.source, "examples", "expected")


def program(name):
    path = os.path.join(checks.build, "examples", name)
    checks.needs(path)
    return path


def expected(name):
    return open(os.path.join(EXPECTED, name + ".txt")).read()


def output_of(command, engine, status=0):
    got = run(command, env={"RINGLET_ENGINE": engine}, seconds=60)
    expect_equal(got.status, status, "exit status of %s (%r)" % (command, got.err))
    return got.out.decode()


def prints_as_expected(name, engine=None, status=0):
    expect_equal(output_of([program(name)], engine, status), expected(name), "output")


def sleepers(engine):
    begin = time.monotonic()
    prints_as_expected("sleepers", engine)
    seconds = time.monotonic() - begin
    expect(2.9 <= seconds < 3.9, "sleeps of 3 s and 1 s together took %.2f s" % seconds)


def three_urls(engine):
    got = output_of([program("three_urls")], engine)
    without_times = lambda text: re.sub(r"\d+\.\d+", "N", text)
    # Those that run together end in any order.
    expect_equal(sorted(without_times(got).splitlines()), sorted(without_times(expected("three_urls")).splitlines()), "output")
    in_a_row, together, _ = map(float, re.findall(r"\d+\.\d+", got))
    expect(in_a_row >= 0.85, "three waits of 0.3 s in a row took %.2f s" % in_a_row)
    expect(together < 0.7 * in_a_row, "together they took %.2f s, in a row %.2f s" % (together, in_a_row))


def echo_server(engine):
    import subprocess
    environment = dict(os.environ, **({"RINGLET_ENGINE": engine} if engine else {}))
    server = subprocess.Popen([program("echo_server")], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True, env=environment)
    try:
        port = server.stdout.readline().rsplit(":", 1)[1].strip()
        got = output_of([program("echo_server"), port, "100", "hello, fibers"], engine)
        expect_equal(got, expected("echo_server"), "output")
        big = output_of([program("echo_server"), port, "20", "x" * 100000], engine)
        expect_equal(big, "20 clients, 6000000 bytes came back right of 6000000\n", "output with more than a socket holds")
        expect_equal(strangers_echo(int(port)), 50 * 3, "lines that python's threads got back")
        expect_equal(server.poll(), None, "the server's status while it is wanted")
    finally:
        server.terminate()
        server.wait(10)
        server.stdout.close()


def strangers_echo(port):
    """Clients without fibers: threads of python, in step, so that all are connected at once."""
    import socket
    import threading
    right = []
    together = threading.Barrier(50, timeout=20)

    def client(n):
        with socket.create_connection(("127.0.0.1", port), timeout=20) as s:
            file = s.makefile("rwb")
            together.wait()
            for turn in range(3):
                line = b"client %d, turn %d\n" % (n, turn)
                file.write(line)
                file.flush()
                if file.readline() == line:
                    right.append(line)

    threads = [threading.Thread(target=client, args=(n,)) for n in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return len(right)


def process_pool(engine):
    got = output_of([program("process_pool")], engine)
    times = re.compile(r"\d+\.\d+")
    expect_equal(times.sub("N", got), expected("process_pool"), "output")
    serial, parallel, mapped, loop = map(float, times.findall(got))
    expect(serial >= 0.8 and loop >= 0.8, "eight waits of 0.1 s in a row took %.2f s and %.2f s" % (serial, loop))
    expect(parallel < 0.6 * serial, "four workers took %.2f s, in a row %.2f s" % (parallel, serial))
    expect(mapped < 0.6 * loop, "a map took %.2f s, a loop %.2f s" % (mapped, loop))


def load_tester(engine):
    """Against a real nginx."""
    import socket
    import subprocess
    import tempfile
    checks.needs("nginx")
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        with open(os.path.join(folder, "index.html"), "w") as f:
            f.write("x" * 1000)
        os.chmod(folder, 0o755)
        conf = os.path.join(folder, "nginx.conf")
        with open(conf, "w") as f:
            f.write("""daemon off; master_process off; pid %s/pid; error_log %s/error.log;
events { worker_connections 512; }
http { access_log off; client_body_temp_path %s/a; proxy_temp_path %s/b; fastcgi_temp_path %s/c; uwsgi_temp_path %s/d; scgi_temp_path %s/e;
server { listen 127.0.0.1:%d; root %s; keepalive_requests 1000; } }
""" % (*[folder] * 7, port, folder))
        server = subprocess.Popen(["nginx", "-e", os.path.join(folder, "error.log"), "-c", conf, "-p", folder], stdin=subprocess.DEVNULL)
        try:
            for _ in range(200):
                expect_equal(server.poll(), None, "nginx's status")
                try:
                    socket.create_connection(("127.0.0.1", port), timeout=1).close()
                    break
                except ConnectionRefusedError:
                    time.sleep(0.05)
            got = output_of([program("load_tester"), "http://127.0.0.1:%d/" % port, "3000", "3", "20"], engine)
            lines = got.splitlines()
            expect_equal(lines[0], "3000 good answers to 3000 requests, from 3 processes with 20 fibers each", "first line")
            took = [float(line.split()[1]) for line in lines[3:]]
            expect_equal(len(took), 7, "rows of the table")
            expect_equal(took, sorted(took), "times, the slower the later")
            missing = run([program("load_tester"), "http://127.0.0.1:%d/no" % port, "10", "2", "2"], env={"RINGLET_ENGINE": engine}, seconds=60)
            expect_equal(missing.status, 1, "status when nothing is good")
            expect("10 failed: status 404" in missing.out.decode(), missing.out)
        finally:
            server.terminate()
            server.wait(10)
    nobody = run([program("load_tester"), "http://127.0.0.1:%d/" % port, "4", "2", "2"], env={"RINGLET_ENGINE": engine}, seconds=60)
    expect("4 failed: connect: Connection refused" in nobody.out.decode(), nobody.out)


# Those that want msgpack-cxx.
of_processes = ["processes", "process_queue", "process_pipe", "process_manager", "shared_array", "pipeline", "correspondence", "prefork_server", "spawned"]

# Whose output is the same on every run.
exact = ["actors", "bounded_semaphore", "events", "futures", "hub_server", "hubs", "line_server", "locks", "pools", "producer_consumer", "programs", "queues", "scopes",
         "thread_pool", "timeouts"]


checks.add_check("switching: prints what it should", lambda: prints_as_expected("switching"))
checks.add_check("generator: prints what it should", lambda: prints_as_expected("generator"))
for engine in (None, "epoll"):
    suffix = " (%s)" % engine if engine else ""
    for name in exact + of_processes:
        checks.add_check("%s: prints what it should%s" % (name, suffix), lambda name=name, engine=engine: prints_as_expected(name, engine))
    checks.add_check("signal_fibers: prints what it should, and ends as Ctrl-C ends a program" + suffix,
                     lambda engine=engine: prints_as_expected("signal_fibers", engine, 128 + 2))
    checks.add_check("sleepers: the second ends first, together they take as long as the longest" + suffix,
                     lambda engine=engine: sleepers(engine))
    checks.add_check("three_urls: together they take as long as one" + suffix, lambda engine=engine: three_urls(engine))
    checks.add_check("process_pool: prints what it should, and four workers are faster than one" + suffix, lambda engine=engine: process_pool(engine))
    checks.add_check("load_tester: a table of what nginx answered, and what failed" + suffix, lambda engine=engine: load_tester(engine))
    checks.add_check("echo_server: every byte comes back to many clients" + suffix, lambda engine=engine: echo_server(engine))
checks.main()

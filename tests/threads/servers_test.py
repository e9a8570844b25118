#!/usr/bin/env python3
"""Threaded servers of Debian's, unmodified, under `ringlet run --threads=fibers`: right answers to hundreds of connections that
are held at the same moment, with at most hubs + 2 kernel threads at that moment, and a clean end. And siege, a client with
hundreds of threads. Programs that work and end are in programs_test.py.

What ./dev does not install is tried where it is found, and SKIPPED else; the large ones (mariadbd, apache2) in `./dev test --all`.
Each server is tried bare, too: what it can't do there is no fault of ours.
"""

import os
import re
import shutil
import ssl
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import checks
from checks import add_check, expect, expect_equal, needs
from threaded import ENGINES, Server, Upstream, all_of_them, ask, expect_few, kernel_threads, rest, under, wait_until, watch

scratch = checks.temporary_directory()
os.chmod(scratch, 0o755)
microhttpd = os.path.join(checks.build, "tests", "microhttpd_server")


def server(name, function, *needed, ways=("bare", *ENGINES)):
    for way in ways:
        add_check(f"threads: {name}, {way if way == 'bare' else 'on ' + way}", lambda way=way: (needs(*needed), function(way)))


def expect_few_unless_bare(way, threads, what, at_least):
    if way == "bare":
        expect(threads >= at_least, f"{what}: only {threads} kernel threads, so it has no thread for each: this proves nothing")
    else:
        expect_few(threads, what)


def written(name, text):
    path = os.path.join(scratch, name)
    with open(path, "w") as f:
        f.write(text)
    return path


def through_proxy(proxy, count, way):
    """So many requests through a proxy, all held by the upstream until the last has come."""
    seen = []
    with Upstream(count, meanwhile=lambda: seen.append(proxy.kernel_threads)) as upstream:
        asked = [ask(proxy.port, b"GET http://127.0.0.1:%d/%d HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n" % (upstream.port, i)) for i in range(count)]
        for i, connection in enumerate(asked):
            head, _, body = rest(connection).partition(b"\r\n\r\n")
            expect(head.split(b"\r\n")[0].split()[1:2] == [b"200"], f"request {i}: {head[:200]!r}")
            expect_equal(body, upstream.body(f"/{i}"), f"request {i}")
        expect_equal(upstream.moments, 1, "times that all were there")
    expect_few_unless_bare(way, seen[0], "with all connections open", count)


# --- proxies ----------------------------------------------------------------------------------------------------------


def tinyproxy(way):
    port = checks.free_port()
    settings = written(f"tinyproxy-{way}", f"Port {port}\nListen 127.0.0.1\nTimeout 60\nMaxClients 1200\nLogLevel Critical\nLogFile \"{scratch}/tinyproxy.log\"\n")
    with Server(["tinyproxy", "-d", "-c", settings], way, port=port) as proxy:
        through_proxy(proxy, 1000, way)


server("tinyproxy: 1,000 connections at once", tinyproxy, "tinyproxy")


def privoxy(way):
    port = checks.free_port()
    settings = written(f"privoxy-{way}", f"listen-address 127.0.0.1:{port}\nmax-client-connections 600\nlisten-backlog 1000\ntoggle 1\nlogdir {scratch}\nlogfile privoxy.log\n")
    with Server(["privoxy", "--no-daemon", settings], way, port=port, ends_with=(15,)) as proxy:
        through_proxy(proxy, 300, way)


server("privoxy: 300 connections at once", privoxy, "privoxy")


def certificate():
    path = os.path.join(scratch, "certificate.pem")
    if not os.path.exists(path):
        made = checks.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost", "-keyout", path, "-out", path + ".crt"])
        expect_equal(made.status, 0, f"openssl ({made.err[-200:]!r})")
        with open(path, "a") as key, open(path + ".crt") as crt:
            key.write(crt.read())
    return path


def stunnel(way):
    count, port, seen = 300, checks.free_port(), []
    with Upstream(count, meanwhile=lambda: seen.append(proxy.kernel_threads)) as upstream:
        settings = written(f"stunnel-{way}", f"foreground = yes\npid =\ndebug = err\n[s]\naccept = 127.0.0.1:{port}\nconnect = 127.0.0.1:{upstream.port}\ncert = {certificate()}\nTIMEOUTclose = 0\n")
        with Server(["stunnel4", settings], way, port=port) as proxy:
            trust = ssl.create_default_context(cafile=certificate() + ".crt")
            trust.check_hostname = False
            asked = []
            for i in range(count):
                connection = trust.wrap_socket(ask(port, b""), suppress_ragged_eofs=True)
                connection.sendall(b"GET /%d HTTP/1.0\r\n\r\n" % i)
                asked.append(connection)
            for i, connection in enumerate(asked):
                expect_equal(rest(connection).partition(b"\r\n\r\n")[2], upstream.body(f"/{i}"), f"request {i}")
            expect_few_unless_bare(way, seen[0], "with all connections open", count)


server("stunnel4: 300 TLS connections at once", stunnel, "stunnel4", "openssl")

# --- HTTP servers -----------------------------------------------------------------------------------------------------


def libmicrohttpd(way):
    if not os.path.exists(microhttpd):
        raise checks.Skip("libmicrohttpd-dev is not installed: tests/microhttpd_server is not built")
    count, port = 900, checks.free_port()
    with Server([microhttpd, str(port)], way, port=port, ends_with=(0,)) as served:
        asked = [ask(port, b"GET /%d HTTP/1.1\r\nHost: h\r\n" % i) for i in range(count)]  # not whole yet: each thread waits
        if way == "bare":
            wait_until(lambda: served.kernel_threads >= count, 20, "a thread for each connection")
        for i, connection in enumerate(asked):
            connection.sendall(b"\r\n")
        for i, connection in enumerate(asked):
            expect_equal(connection.recv(65536).partition(b"\r\n\r\n")[2], b"/%d" % i * 10, f"request {i}")
        expect_few_unless_bare(way, served.kernel_threads, "with all connections open", count)
        for i, connection in enumerate(asked):  # and once more, each on its own
            connection.sendall(b"GET /again%d HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n" % i)
        for i, connection in enumerate(asked):
            expect_equal(rest(connection).partition(b"\r\n\r\n")[2], b"/again%d" % i * 10, f"second request {i}")


server("libmicrohttpd: 900 connections, a thread for each", libmicrohttpd)


def siege(way):
    home = os.path.join(scratch, "siege")
    os.makedirs(home, exist_ok=True)
    settings = written("siegerc", f"logging = false\nverbose = false\nshow-logfile = false\nlimit = 1000\nprotocol = HTTP/1.1\nparser = false\njson_output = true\ncolor = off\nlogfile = {home}/log\n")
    with Upstream() as upstream:
        done = watch(["siege", "-R", settings, "-c", "500", "-r", "4", "-b", f"http://127.0.0.1:{upstream.port}/siege"], way, env={"HOME": home}, seconds=100)
        expect_equal(done.status, 0, f"status ({done.err[-200:]!r})")
        said = dict(re.findall(rb'"([a-z_]+)":\s*([0-9.]+)', done.out))
        expect_equal([said.get(b"transactions"), said.get(b"failed_transactions")], [b"2000", b"0"], f"what siege counted ({done.out[-600:]!r})")
        expect_few_unless_bare(way, done.threads, "siege", 400)


server("siege: 500 users", siege, "siege")


def apache(way):
    root = os.path.join(scratch, f"apache-{way}")
    shutil.rmtree(root, ignore_errors=True)
    os.makedirs(os.path.join(root, "htdocs"))
    os.chmod(root, 0o755)
    with open(os.path.join(root, "htdocs", "page"), "wb") as f:
        f.write(os.urandom(100_000))
    port = checks.free_port()
    modules = "/usr/lib/apache2/modules"
    settings = written(f"apache-{way}.conf", f"""
ServerRoot {root}
PidFile {root}/pid
Listen 127.0.0.1:{port}
ServerName localhost
User www-data
Group www-data
LoadModule mpm_worker_module {modules}/mod_mpm_worker.so
LoadModule authz_core_module {modules}/mod_authz_core.so
DocumentRoot {root}/htdocs
ErrorLog {root}/error.log
StartServers 1
ServerLimit 1
ThreadLimit 300
ThreadsPerChild 300
MaxRequestWorkers 300
MinSpareThreads 1
MaxSpareThreads 300
KeepAlive On
EnableSendfile On
""")

    def child():
        with open(f"/proc/{served.process.pid}/task/{served.process.pid}/children") as f:
            return [int(p) for p in f.read().split()]

    with Server(["apache2", "-DFOREGROUND", "-f", settings], way, port=port, ends_with=(0,)) as served:
        done = checks.run(["ab", "-q", "-k", "-c", "250", "-n", "20000", f"http://127.0.0.1:{port}/page"], seconds=60)
        expect_equal(done.status, 0, f"ab ({done.err[-200:]!r})")
        told = {k: int(v) for k, v in re.findall(rb"^(Complete requests|Failed requests|HTML transferred):\s+(\d+)", done.out, re.M)}
        expect_equal(told, {b"Complete requests": 20000, b"Failed requests": 0, b"HTML transferred": 2_000_000_000}, "what ab counted")
        got = checks.run(["curl", "-sS", f"http://127.0.0.1:{port}/page"])
        with open(os.path.join(root, "htdocs", "page"), "rb") as f:
            expect(got.out == f.read(), "the page is not what it is")
        most = max(kernel_threads(p) for p in child())
        expect_few_unless_bare(way, most, "apache2's child", 300)
    with open(os.path.join(root, "error.log")) as f:
        said = [line for line in f if ":notice]" not in line]
    expect_equal(said, [], "what apache2 complained of")


def mariadb(way):
    root = os.path.join(scratch, f"mariadb-{way}")
    shutil.rmtree(root, ignore_errors=True)
    os.makedirs(root)
    shutil.chown(root, "mysql", "mysql")
    sock, port = os.path.join(root, "s"), checks.free_port()
    made = checks.run(["mariadb-install-db", "--no-defaults", "--user=mysql", f"--datadir={root}/data", "--auth-root-authentication-method=normal", "--skip-test-db"], seconds=60)
    expect_equal(made.status, 0, f"mariadb-install-db ({made.err[-300:]!r})")
    command = ["mariadbd", "--no-defaults", "--user=mysql", f"--datadir={root}/data", f"--socket={sock}", f"--port={port}", "--bind-address=127.0.0.1",
               "--max-connections=600", "--innodb-buffer-pool-size=64M", f"--log-error={root}/error.err", f"--pid-file={root}/pid", "--thread-handling=one-thread-per-connection"]
    with Server(command, way, port=port, ends_with=(0,), seconds=40) as served:
        ask_sql = lambda text: checks.run(["mariadb", "--no-defaults", "-uroot", f"-S{sock}", "-N", "-e", text])
        most = []
        done = watch(["mariadb-slap", "--no-defaults", "-uroot", f"-S{sock}", "--auto-generate-sql", "--auto-generate-sql-load-type=mixed", "--auto-generate-sql-secondary-indexes=1",
                      "--concurrency=500", "--number-of-queries=10000", "--no-drop", "--create-schema=slap"], "bare", seconds=90, meanwhile=lambda: most.append(served.kernel_threads))
        expect_equal((done.status, done.err), (0, b""), "mysqlslap")
        counted = ask_sql("select count(*) from slap.t1; select variable_value from information_schema.global_status where variable_name = 'max_used_connections'")
        expect_equal(counted.status, 0, f"mariadb ({counted.err!r})")
        expect(int(counted.out.split()[1]) >= 400, f"connections at once: {counted.out!r}")
        checked = ask_sql("check table slap.t1 extended")
        expect(checked.out.strip().endswith(b"OK"), f"check table: {checked.out!r}")
        if way != "epoll":  # there, helpers do what has no readiness: its files' reads and syncs
            expect_few_unless_bare(way, max(most), "mariadbd", 400)
    with open(os.path.join(root, "error.err")) as f:
        said = f.read()
    expect("Shutdown complete" in said, f"no clean shutdown: {said[-400:]}")
    expect("[ERROR]" not in said, f"it complained: {[l for l in said.splitlines() if 'ERROR' in l]}")


if all_of_them:
    server("apache2 with mpm_worker, 250 connections of ab", apache, "apache2", "ab")
    server("mariadbd with 500 connections of mysqlslap", mariadb, "mariadbd", "mariadb-slap", "mariadb-install-db")

checks.main()

#!/usr/bin/env python3
"""The crawler against a small site full of traps.

A threaded server on loopback counts every request, so that each case can say not only which pages were found and how
they ended, but also that nothing was asked for twice and nothing that must not be asked for at all. Cases run the
program as a user would and read its JSON lines; each has its own server and its own time limit.
"""

import gzip
import http.server
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import checks

# RINGLET_TEST_CRAWL: another crawler with the same command line, to tell its faults from the runtime's.
CRAWL = os.environ.get("RINGLET_TEST_CRAWL") or os.path.join(checks.build, "examples", "crawl")
TIME_LIMIT_S = 60
engine = None  # of the case that runs now; None: the library's own choice


def fnv1a(data):
    value = 14695981039346656037
    for byte in data:
        value = ((value ^ byte) * 1099511628211) & 0xFFFFFFFFFFFFFFFF
    return "fnv1a64:%016x" % value


HUGE = b"<a href='from-huge.html'>early link</a>" + b"<p>much text</p>" * 40000

# path -> (status, headers, body) or a function of the site that gives the same.
ROBOTS = b"""User-agent: *
Disallow: /site/private/
Allow: /site/private/open.html
Disallow: /*.secret$

User-agent: nobody
Disallow: /
"""

INDEX = b"""<!doctype html><html><head><title>traps</title><link rel=stylesheet href=style.css>
<link rel="next" href="next.html"></head><body>
<a href="a.html">one</a> <a href="a.html">twice</a> <a href="a.html#part">fragment</a> <a href="#top">same page</a>
<a href="./sub/../a.html">dots</a> <a href="%61.html">escape</a> <a href="HTTP://127.0.0.1:PORT/site/a.html">absolute</a>
<a href="sub/b.html">down</a> <a href="../outside.html">up and out</a> <a href="/">root</a>
<a href="q?x=1">query</a> <a href="q?x=2&amp;y=3">query</a> <a href="q?x=1#z">query again</a>
<a href="redirect">redirect</a> <a href="redirect-out">leaves</a> <a href="loop1">loop</a> <a href="chain0">long chain</a>
<a href="missing.html">404</a> <a href="flaky.html">500 once</a> <a href="busy.html">503 once</a> <a href="bad.html">500 always</a>
<a href="private/secret.html">forbidden</a> <a href="private/open.html">allowed</a> <a href="x.secret">forbidden</a>
<a href="http://localhost:PORT/site/offsite.html">other host</a> <a href="https://127.0.0.1:PORT/site/tls.html">other scheme</a>
<a href="mailto:x@example.com">mail</a> <a href="javascript:alert(1)">script</a> <a href="ftp://127.0.0.1/x">ftp</a>
<a href="huge.html">huge</a> <a href="slow.html">slow</a> <a href="broken.html">broken</a> <a href="cut.html">cut off</a>
<a href="data.bin">not html</a> <a href="based.html">base</a> <a href="gzip.html">gzip</a> <a href="empty.html">empty</a>
<a href=" spaced name.html
">space</a> <a href="caf\xc3\xa9.html">accent</a> <a href="refresh.html">refresh</a>
</body></html>"""


class Site:
    """The pages, and a count of what was asked for."""

    def __init__(self, robots=(200, {"Content-Type": "text/plain"}, ROBOTS)):
        self.requests = {}
        self.lock = threading.Lock()
        self.in_flight = self.peak = 0
        html = {"Content-Type": "text/html; charset=utf-8"}
        page = lambda body: (200, html, body)
        self.pages = {
            "/robots.txt": robots,
            "/": page(b"root"),
            "/outside.html": page(b"outside the directory"),
            "/site/index.html": lambda: page(INDEX.replace(b"PORT", str(self.port).encode())),
            "/site/a.html": page(b"<a href=index.html>back</a><a href=deep/1.html>deeper</a>"),
            "/site/sub/b.html": page(b"<a href=../a.html>up</a><a href=../../site/sub/c.html>c</a><a href=../../../../x>far up</a>"),
            "/site/sub/c.html": page(b"leaf"),
            "/site/deep/1.html": page(b"<a href=2.html>deeper</a>"),
            "/site/deep/2.html": page(b"<a href=3.html>deeper</a>"),
            "/site/deep/3.html": page(b"the bottom"),
            "/site/next.html": page(b"by link rel=next"),
            "/site/q?x=1": page(b"one"),
            "/site/q?x=2&y=3": page(b"two"),
            "/site/redirect": (302, {"Location": "target.html#here"}, b"<a href=not-read.html>"),
            "/site/target.html": page(b"target"),
            "/site/redirect-out": lambda: (301, {"Location": "http://localhost:%d/site/elsewhere.html" % self.port}, b""),
            "/site/loop1": (307, {"Location": "/site/loop2"}, b""),
            "/site/loop2": (308, {"Location": "/site/loop1"}, b""),
            "/site/bad.html": (500, html, b"<a href=not-read.html>"),
            "/site/flaky.html": lambda: page(b"well at last") if self.asked("/site/flaky.html") > 1 else (500, html, b"oops"),
            "/site/busy.html": lambda: page(b"free now") if self.asked("/site/busy.html") > 1 else (503, {"Retry-After": "1"}, b""),
            "/site/private/open.html": page(b"open"),
            "/site/private/secret.html": page(b"must not be asked for"),
            "/site/x.secret": page(b"must not be asked for"),
            "/site/huge.html": page(HUGE),
            "/site/from-huge.html": page(b"found before it got too large"),
            "/site/slow.html": lambda: (time.sleep(4), page(b"too late"))[1],
            "/site/broken.html": page(b"<html><p><b><a href='from-broken.html'>x</b></p><table><a href=\"from-broken2.html\"></i"
                                      b"<td></table></body></p><!-- <a href=not-read.html> <a href=not-read.html"),
            "/site/from-broken.html": page(b"x"),
            "/site/from-broken2.html": page(b"\x00\xff\xfe <a href=\x01>"),
            "/site/cut.html": (200, dict(html, **{"Content-Length": "5000"}), b"<a href=not-read.html>"),
            "/site/data.bin": (200, {"Content-Type": "application/octet-stream"}, b"<a href=not-read.html>"),
            "/site/based.html": page(b"<base href='/site/elsewhere/'><a href=leaf.html>leaf</a>"),
            "/site/elsewhere/leaf.html": page(b"leaf"),
            "/site/gzip.html": (200, dict(html, **{"Content-Encoding": "gzip"}), gzip.compress(b"<a href=from-gzip.html>z</a>")),
            "/site/from-gzip.html": page(b"unpacked"),
            "/site/empty.html": page(b""),
            "/site/spaced%20name.html": page(b"spaced"),
            "/site/caf%C3%A9.html": page(b"accent"),
            "/site/refresh.html": page(b"<meta http-equiv=refresh content='0; url=from-refresh.html'>"),
            "/site/from-refresh.html": page(b"refreshed"),
        }
        for n in range(14):
            self.pages["/site/chain%d" % n] = (301, {"Location": "chain%d" % (n + 1)}, b"")
        for n in range(100):
            self.pages["/wait/%d" % n] = lambda: (time.sleep(0.5), page(b"waited"))[1]

    def asked(self, path):
        with self.lock:
            return self.requests.get(path, 0)

    def answer(self, path):
        with self.lock:
            self.requests[path] = self.requests.get(path, 0) + 1
            self.in_flight += 1
            self.peak = max(self.peak, self.in_flight)
        try:
            found = self.pages.get(path, (404, {"Content-Type": "text/html"}, b"<a href=not-read.html>not found</a>"))
            return found() if callable(found) else found
        finally:
            with self.lock:
                self.in_flight -= 1

    def __enter__(self):
        site = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 30

            def do_GET(self):
                status, headers, body = site.answer(self.path)
                self.send_response_only(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                if "Content-Length" not in headers:
                    self.send_header("Content-Length", str(len(body)))
                elif int(headers["Content-Length"]) != len(body):
                    self.close_connection = True
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 512

            def handle_error(self, *_):
                pass  # clients that gave up are part of the test

        self.server = Server(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        self.base = "http://127.0.0.1:%d" % self.port
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


def environment():
    return dict(os.environ, RINGLET_ENGINE=engine) if engine else None


class Result:
    def __init__(self, code, stdout, stderr, summary):
        self.code, self.stderr = code, stderr
        self.lines = [json.loads(line) for line in stdout.splitlines()]
        self.summary = summary
        self.by_path = {}
        for line in self.lines:
            path = "/" + line["url"].split("/", 3)[3]
            assert path not in self.by_path, "two lines for " + path
            self.by_path[path] = line


def crawl(*arguments, hard_files=None, **how):
    directory = tempfile.mkdtemp(prefix="crawl-test-")
    try:
        summary_file = os.path.join(directory, "summary.json")

        def limit():
            if hard_files:
                resource.setrlimit(resource.RLIMIT_NOFILE, (hard_files, hard_files))

        done = subprocess.run([CRAWL, "--summary", summary_file, *map(str, arguments)], stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True, timeout=TIME_LIMIT_S,
                              preexec_fn=limit, env=environment(), **how)
        summary = json.load(open(summary_file)) if os.path.exists(summary_file) else None
        return Result(done.returncode, done.stdout, done.stderr, summary)
    finally:
        shutil.rmtree(directory)


def equal(got, wanted, what):
    assert got == wanted, "%s: got %r, wanted %r" % (what, got, wanted)


TRAPS = ["--timeout", "1.5", "--retries", "1", "--backoff", "0.05", "--max-bytes", "100k"]

# path -> (status, error, tries)
WANTED = {
    "/site/index.html": (200, None, 1), "/site/a.html": (200, None, 1), "/site/sub/b.html": (200, None, 1),
    "/site/sub/c.html": (200, None, 1), "/site/deep/1.html": (200, None, 1), "/site/deep/2.html": (200, None, 1),
    "/site/deep/3.html": (200, None, 1), "/site/next.html": (200, None, 1), "/site/q?x=1": (200, None, 1),
    "/site/q?x=2&y=3": (200, None, 1), "/site/redirect": (302, None, 1), "/site/target.html": (200, None, 1),
    "/site/redirect-out": (301, None, 1), "/site/loop1": (307, None, 1), "/site/loop2": (308, None, 1),
    "/site/missing.html": (404, "http_4xx", 1), "/site/flaky.html": (200, None, 2), "/site/busy.html": (200, None, 2),
    "/site/bad.html": (500, "http_5xx", 2), "/site/private/open.html": (200, None, 1),
    "/site/private/secret.html": (0, "robots", 0), "/site/x.secret": (0, "robots", 0),
    "/site/huge.html": (200, "too_large", 1), "/site/from-huge.html": (200, None, 1), "/site/slow.html": (0, "timeout", 2),
    "/site/broken.html": (200, None, 1), "/site/from-broken.html": (200, None, 1),
    "/site/from-broken2.html": (200, None, 1), "/site/cut.html": (200, "connection", 2), "/site/data.bin": (200, None, 1),
    "/site/based.html": (200, None, 1), "/site/elsewhere/leaf.html": (200, None, 1), "/site/gzip.html": (200, None, 1),
    "/site/from-gzip.html": (200, None, 1), "/site/empty.html": (200, None, 1),
    "/site/spaced%20name.html": (200, None, 1), "/site/caf%C3%A9.html": (200, None, 1),
    "/site/refresh.html": (200, None, 1), "/site/from-refresh.html": (200, None, 1),
}
for _n in range(10):
    WANTED["/site/chain%d" % _n] = (301, None, 1)
WANTED["/site/chain10"] = (301, "redirects", 1)


def check_traps(site, result, extra=()):
    """Pages, how they ended, and that the server saw each request once per try and no other."""
    wanted = dict(WANTED, **dict(extra))
    got = {path: (line["status"], line["error"], line["tries"]) for path, line in result.by_path.items()}
    strange = {path: (got.get(path), wanted.get(path)) for path in set(got) | set(wanted) if got.get(path) != wanted.get(path)}
    assert not strange, "pages (got, wanted): %r" % strange
    requests = {path: tries for path, (_, _, tries) in wanted.items() if tries}
    requests["/robots.txt"] = 1
    equal({path: n for path, n in site.requests.items() if requests.get(path) != n}, {}, "requests beyond the wanted ones")
    equal(set(requests) - set(site.requests), set(), "requests that were never made")


def case_traps(concurrency):
    with Site() as site:
        result = crawl(site.base + "/site/index.html", "-c", concurrency, *TRAPS)
        check_traps(site, result)
        equal(result.code, 0, "exit status")
        for path, line in result.by_path.items():
            if line["status"] == 200 and not line["error"] and path != "/site/gzip.html" and not callable(site.pages[path]):
                body = site.pages[path][2]
                equal((line["bytes"], line["hash"]), (len(body), fnv1a(body)), path)
        gzip_line = result.by_path["/site/gzip.html"]
        equal(gzip_line["bytes"], len(b"<a href=from-gzip.html>z</a>"), "decoded size")
        equal(result.by_path["/site/redirect"]["redirect"], site.base + "/site/target.html", "redirect")
        equal(result.by_path["/site/a.html"]["links"], 2, "links of a.html")
        equal(result.by_path["/site/data.bin"]["type"], "application/octet-stream", "type")
        summary = result.summary
        fetched = sum(1 for _, error, _ in WANTED.values() if error != "robots")
        bad = sum(1 for _, error, _ in WANTED.values() if error not in (None, "robots"))
        equal((summary["pages"], summary["succeeded"], summary["robots"], summary["queued"]),
              (fetched, fetched - bad, 2, 0), "summary")
        equal(summary["errors"], {"http_4xx": 1, "http_5xx": 1, "too_large": 1, "timeout": 1, "connection": 1,
                                  "redirects": 1, "robots": 2}, "errors by class")
        equal(summary["bytes"], sum(line["bytes"] for line in result.lines), "bytes")
        assert summary["peak_in_flight"] <= concurrency, summary
        assert "errors       connection 1" in result.stderr, result.stderr
        assert summary["seconds"] >= 1.4, "the pause the server asked for by Retry-After: %r" % summary


def case_scope_host():
    with Site() as site:
        result = crawl(site.base + "/site/index.html", "--scope", "host", *TRAPS)
        check_traps(site, result, {"/": (200, None, 1), "/outside.html": (200, None, 1), "/x": (404, "http_4xx", 1)})


def case_ignore_robots():
    with Site() as site:
        result = crawl(site.base + "/site/index.html", "--ignore-robots", "-d", 1, "-c", 50, *TRAPS)
        equal(result.by_path["/site/private/secret.html"]["status"], 200, "the forbidden page")
        equal(site.asked("/robots.txt"), 0, "requests of robots.txt")


def case_depth():
    for depth, wanted in ((0, 1), (1, None), (2, None)):
        with Site() as site:
            result = crawl(site.base + "/site/a.html", "-d", depth, "-c", 8, *TRAPS)
            if depth == 0:
                equal(set(result.by_path), {"/site/a.html"}, "depth 0")
            if depth == 1:
                equal(set(result.by_path), {"/site/a.html", "/site/index.html", "/site/deep/1.html"}, "depth 1")
            if depth == 2:
                assert "/site/deep/2.html" in result.by_path and "/site/deep/3.html" not in result.by_path
            assert all(line["depth"] <= depth for line in result.lines)


def case_max_pages():
    for concurrency in (1, 16):
        with Site() as site:
            result = crawl(site.base + "/site/index.html", "-n", 7, "-c", concurrency, *TRAPS)
            equal(sum(1 for line in result.lines if line["error"] != "robots"), 7, "pages")
            assert result.summary["queued"] > 0


def case_robots_errors():
    for robots, status in (((500, {}, b""), None), ((404, {}, b"User-agent: *\nDisallow: /"), 200),
                           ((301, {"Location": "/moved-robots"}, b""), 200)):
        with Site(robots=robots) as site:
            site.pages["/moved-robots"] = (200, {}, b"User-agent: *\nDisallow: /site/a\n")
            result = crawl(site.base + "/site/sub/b.html", *TRAPS)
            line = result.by_path["/site/sub/b.html"]
            equal(line["status"] or None, status, "status with robots.txt %r" % (robots,))
            equal(result.code, 0 if status else 1, "exit status")
            if robots[0] == 500:
                equal((line["error"], site.asked("/robots.txt"), site.asked("/site/sub/b.html")), ("robots", 2, 0), "500")
            if robots[0] == 301:
                equal(site.asked("/moved-robots"), 1, "redirected robots.txt")


def case_nobody_listens():
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # bound, not listening: refused
        url = "http://127.0.0.1:%d/" % held.getsockname()[1]
        result = crawl(url, "--ignore-robots", "-r", 1, "--backoff", 0.01)
        equal((result.code, result.lines[0]["error"], result.lines[0]["tries"]), (1, "connect", 2), "refused")
        result = crawl(url, "-r", 0)
        equal((result.code, result.lines[0]["error"]), (1, "robots"), "robots.txt out of reach forbids all")
        assert "robots.txt could not be read, which forbids all: connect: " in result.stderr, result.stderr


def case_save():
    directory = tempfile.mkdtemp(prefix="crawl-test-")
    try:
        with Site() as site:
            result = crawl(site.base + "/site/index.html", "-c", 8, "--save", directory, *TRAPS)
            check_traps(site, result)
            saved = 0
            for path, line in result.by_path.items():
                if line["status"] != 200 or line["error"]:
                    assert "file" not in line, line
                    continue
                data = open(line["file"], "rb").read()
                equal(fnv1a(data), line["hash"], path)
                assert os.path.realpath(line["file"]).startswith(os.path.realpath(directory) + "/"), line["file"]
                saved += 1
            equal(sum(len(files) for _, _, files in os.walk(directory)), saved, "files")
    finally:
        shutil.rmtree(directory)


def case_list_of_urls():
    with Site() as site, tempfile.NamedTemporaryFile("w", suffix=".txt") as listed:
        for n in range(100):
            listed.write("%s/wait/%d\n" % (site.base, n))
        listed.write("# a comment\n\n%s/wait/0#again\r\n%s/site/redirect\n" % (site.base, site.base))
        listed.flush()
        begin = time.monotonic()
        result = crawl("--urls", listed.name, "-c", 101)
        seconds = time.monotonic() - begin
        equal(len(result.lines), 101, "pages")
        equal([line["url"] for line in result.lines if line["error"]], [], "errors")
        equal(site.asked("/site/target.html"), 0, "redirects are not followed")
        equal(result.summary["peak_in_flight"], 101, "transfers in flight")
        assert site.peak >= 90, "the server saw at most %d requests at once" % site.peak
        assert seconds < 15, "100 waits of half a second together took %.1f s" % seconds


def case_few_files():
    with Site() as site, tempfile.NamedTemporaryFile("w", suffix=".txt") as listed:
        for n in range(100):
            listed.write("%s/wait/%d\n" % (site.base, n))
        listed.flush()
        # 160 descriptors: too few for three a fiber, and even for one.
        result = crawl("--urls", listed.name, "-c", 100, hard_files=160)
        if os.geteuid() != 0 or "lowered" in result.stderr:  # root may be able to raise its own limit
            assert "concurrency lowered from 100 to 32" in result.stderr, result.stderr
            equal(result.summary["peak_in_flight"], 32, "transfers in flight")
        equal((len(result.lines), result.summary["errors"]), (100, {}), "all pages, no error")
        # 260: one a fiber fits.
        result = crawl("--urls", listed.name, "-c", 100, hard_files=260)
        equal((result.summary["peak_in_flight"], result.summary["errors"]), (100, {}), "one descriptor a fiber")


def case_interrupt():
    with Site() as site, tempfile.NamedTemporaryFile("w", suffix=".txt") as listed:
        for n in range(100):
            listed.write("%s/wait/%d\n" % (site.base, n))
        listed.flush()
        process = subprocess.Popen([CRAWL, "--urls", listed.name, "-c", "4", "-q"], stdout=subprocess.PIPE, text=True,
                                   env=environment())
        try:
            time.sleep(1.5)
            process.send_signal(signal.SIGINT)
            out, _ = process.communicate(timeout=20)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        lines = [json.loads(line) for line in out.splitlines()]
        equal(process.returncode, 0, "exit status")
        assert 4 <= len(lines) <= 40, "%d pages" % len(lines)
        equal([line for line in lines if line["error"]], [], "errors")


def case_reader_goes_away():
    with Site() as site:
        process = subprocess.Popen([CRAWL, site.base + "/site/index.html", "-q", *TRAPS], stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, text=True, env=environment())
        process.stdout.close()
        try:
            code = process.wait(timeout=30)
            equal(code, 1, "exit status")
            assert "could not be written" in process.stderr.read()
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
            process.stderr.close()


def case_usage():
    for arguments, words in (
            ([], "no URL"), (["127.0.0.1/x"], "write http://127.0.0.1/x"), (["ftp://127.0.0.1/"], "not a URL"),
            (["--depth", "-1", "http://127.0.0.1/"], "--depth -1"), (["-c", "0", "http://127.0.0.1/"], "--concurrency 0"),
            (["-c", "many", "http://127.0.0.1/"], "give a whole number"), (["--timeout", "nan", "http://127.0.0.1/"], "--timeout"),
            (["--scope", "all", "http://127.0.0.1/"], "give dir or host"), (["--what"], "no such option"),
            (["--output"], "its value is missing"), (["--urls", "/nonexistent/file"], "/nonexistent/file"),
            (["--urls", "/dev/null"], "no URL in it"), (["-o", "/nonexistent/x", "http://127.0.0.1/"], "--output"),
            (["--save", "/dev/null/x", "http://127.0.0.1/"], "--save"), (["--agent", "1/2", "http://127.0.0.1/"], "--agent"),
            (["--ignore-robots", "http://192.0.2.1/"], "is not this machine"), (["--max-bytes", "1x", "http://127.0.0.1/"], "--max-bytes"),
    ):
        result = crawl(*arguments)
        equal((result.code, result.lines), (2, []), "exit status of %r" % arguments)
        assert words in result.stderr, "%r said: %s" % (arguments, result.stderr)
    equal(subprocess.run([CRAWL, "--help"], stdout=subprocess.DEVNULL, timeout=20).returncode,
          0, "--help")


CASES = [
    ("crawl: every trap, one fiber", lambda: case_traps(1)),
    ("crawl: every trap, four fibers", lambda: case_traps(4)),
    ("crawl: every trap, more fibers than pages", lambda: case_traps(100)),
    ("crawl: --scope host goes above the start's directory", case_scope_host),
    ("crawl: --ignore-robots asks for no robots.txt", case_ignore_robots),
    ("crawl: --depth is exact", case_depth),
    ("crawl: --max-pages is exact", case_max_pages),
    ("crawl: robots.txt missing allows, failing forbids, moved is followed", case_robots_errors),
    ("crawl: a refused connection is an error of its class", case_nobody_listens),
    ("crawl: --save keeps the bytes", case_save),
    ("crawl: --urls fetches a list, all at once", case_list_of_urls),
    ("crawl: too few descriptors lower the concurrency and lose nothing", case_few_files),
    ("crawl: an interrupt finishes what is in flight", case_interrupt),
    ("crawl: a reader that goes away ends the crawl", case_reader_goes_away),
    ("crawl: bad usage says cause and cure", case_usage),
]


def add(name, case, wanted_engine):
    def run():
        global engine
        engine = wanted_engine
        checks.needs(CRAWL)
        case()

    checks.add_check(name + (" (%s)" % wanted_engine if wanted_engine else ""), run)


for wanted_engine in (None, "epoll"):
    for name, case in CASES:
        if "usage" not in name or not wanted_engine:
            add(name, case, wanted_engine)
checks.main()

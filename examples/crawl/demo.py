"""The crawler at work: is it right, is it quick, does it lose nothing with ten thousand fibers?

usage: demo BUILD_DIR

The HTML documentation of Python is served by nginx on three ports of 127.0.0.1: at once, with 100 ms, and with 2 s added
to each answer (echo_sleep of nginx's echo module: a timer each, so the server waits for free).

 1. The crawler finds all pages from the first one; so does wget. Same pages, same bytes, or the demo fails.
 2. The same pages with 100 ms each, as a list: one fiber, then 200. At least 50 times as fast, or the demo fails.
 3. 1,000 and 10,000 requests of 2 s each, all at once: each answered, each with the right bytes, and all of them open at
    one moment by the server's own count.

Nothing but loopback is used; what is started is ended by its process id, and its files are removed, however this ends.
"""

import atexit
import filecmp
import glob
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

SPEED_UP_WANTED = 50
LIST_LENGTH = 550  # with 100 ms each and one fiber, about a minute
ECHO_MODULES = ("/usr/lib/nginx/modules/ngx_http_echo_module.so", "/usr/lib64/nginx/modules/ngx_http_echo_module.so")
MANY = (1000, 10000)

rows = []  # (what, wanted, got, held)


def say(text=""):
    print(text, flush=True)


def give_up(text):
    say("demo: " + text)
    sys.exit(1)


def record(what, wanted, got, held):
    rows.append((what, wanted, got, held))
    say("   %s %s: %s" % ("ok  " if held else "FAIL", what, got))


def fnv1a(data):
    value = 14695981039346656037
    for byte in data:
        value = ((value ^ byte) * 1099511628211) & 0xFFFFFFFFFFFFFFFF
    return "fnv1a64:%016x" % value


# --- the server -------------------------------------------------------------------------------------------------------

CONFIGURATION = """
daemon off;
worker_processes 2;
worker_rlimit_nofile %(files)d;
pid %(temp)s/nginx.pid;
error_log %(temp)s/error.log warn;
%(user)s
load_module %(module)s;
events { worker_connections 16384; }
http {
  types { text/html html htm; text/css css; text/javascript js; image/png png; image/svg+xml svg; text/plain txt; }
  default_type application/octet-stream;
  log_format open '$connections_active';
  access_log off;
  sendfile on;
  tcp_nodelay on;
  open_file_cache max=4000 inactive=300s;
  open_file_cache_valid 300s;
  keepalive_requests 1000000;
  client_body_temp_path %(temp)s/body;
  proxy_temp_path %(temp)s/proxy;
  fastcgi_temp_path %(temp)s/fastcgi;
  uwsgi_temp_path %(temp)s/uwsgi;
  scgi_temp_path %(temp)s/scgi;
  server {
    listen 127.0.0.1:%(port0)d backlog=16384;
    root %(root)s;
    location / { try_files $uri $uri/index.html =404; }
  }
  server {
    listen 127.0.0.1:%(port1)d backlog=16384;
    root %(root)s;
    location = /robots.txt { return 404; }
    location / { echo_sleep 0.1; echo_exec @page; }
    location @page { try_files $uri $uri/index.html =404; }
  }
  server {
    listen 127.0.0.1:%(port2)d backlog=16384;
    root %(root)s;
    location = /robots.txt { return 404; }
    location / { echo_sleep 2; echo_exec @page; }
    location @page { access_log %(temp)s/open.log open; try_files $uri $uri/index.html =404; }
  }
}
"""


def find_documentation():
    for place in ["/usr/share/doc/python3/html", *sorted(glob.glob("/usr/share/doc/python3*-doc/html"))]:
        if os.path.exists(os.path.join(place, "index.html")):
            return os.path.realpath(place)
    give_up("no HTML documentation of Python in /usr/share/doc; install python3-doc")


def free_ports(count):
    held = [socket.socket() for _ in range(count)]
    for s in held:
        s.bind(("127.0.0.1", 0))
    ports = [s.getsockname()[1] for s in held]
    for s in held:
        s.close()
    return ports


def end(process):
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def start_server(root, temp):
    nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if not nginx:
        give_up("no nginx; install nginx-light")
    module = next((m for m in ECHO_MODULES if os.path.exists(m)), None)
    if not module:
        give_up("nginx has no echo module, which adds the delay; install libnginx-mod-http-echo")
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = 65536 if hard == resource.RLIM_INFINITY else min(hard, 65536)
    ports = free_ports(3)
    with open(os.path.join(temp, "nginx.conf"), "w") as file:
        file.write(CONFIGURATION % dict(files=files, temp=temp, module=module, root=root, port0=ports[0], port1=ports[1],
                                        port2=ports[2], user="user nobody nogroup;" if os.geteuid() == 0 else ""))
    server = subprocess.Popen([nginx, "-p", temp, "-c", file.name, "-e", os.path.join(temp, "error.log")],
                              stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    atexit.register(end, server)
    until = time.monotonic() + 20
    while time.monotonic() < until and server.poll() is None:
        try:
            for port in ports:
                socket.create_connection(("127.0.0.1", port), timeout=5).close()
            return ["http://127.0.0.1:%d/" % port for port in ports]
        except OSError:
            time.sleep(0.05)
    give_up("nginx did not start: " + open(os.path.join(temp, "error.log")).read()[-600:])


# --- the crawler ------------------------------------------------------------------------------------------------------

class Crawl:
    """One run of the crawler: its lines by path, its summary."""

    def __init__(self, program, temp, arguments, seconds, engine=None):
        lines, summary = os.path.join(temp, "lines.jsonl"), os.path.join(temp, "summary.json")
        environment = dict(os.environ, **({"RINGLET_ENGINE": engine} if engine else {}))
        try:
            done = subprocess.run([program, "-o", lines, "--summary", summary, "--quiet", *map(str, arguments)], timeout=seconds,
                                  stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment)
        except subprocess.TimeoutExpired:
            give_up("crawl %s did not end in %d s" % (" ".join(map(str, arguments)), seconds))
        if done.stderr:
            say("   " + done.stderr.strip().replace("\n", "\n   "))
        if not os.path.exists(summary):
            give_up("crawl %s ended with status %d" % (" ".join(map(str, arguments)), done.returncode))
        self.summary = json.load(open(summary))
        self.pages = [json.loads(line) for line in open(lines)]
        self.seconds = self.summary["seconds"]

    def memory(self):
        return "%.0f MB" % (self.summary["peak_rss_kb"] / 1024)


def write_list(temp, urls):
    name = os.path.join(temp, "urls.txt")
    with open(name, "w") as file:
        file.writelines(url + "\n" for url in urls)
    return name


# --- the three parts --------------------------------------------------------------------------------------------------

def files_below(directory, wanted):
    out = {}
    for place, _, names in os.walk(directory):
        for name in names:
            path = os.path.join(place, name)
            relative = os.path.relpath(path, directory)
            if wanted(relative):
                out[relative] = path
    return out


def by_wget(base, directory):
    start = base + "index.html"
    common = ["--no-config", "--quiet", "--recursive", "--level=inf", "--no-parent", "--no-host-directories", "--tries=2",
              "--timeout=30", "--no-hsts", "--no-proxy", "--directory-prefix=" + directory, start]
    if shutil.which("wget"):
        command = ["wget", *common]
    elif shutil.which("wget2"):
        command = ["wget2", "--max-threads=1", *common]
    else:
        give_up("no independent client to compare with; install wget")
    begin = time.monotonic()
    try:
        done = subprocess.run(command, timeout=120, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        give_up(command[0] + " did not end in 120 s")
    if done.returncode not in (0, 8):  # 8: some link was answered by an error, as the crawler reports, too
        give_up("%s ended with status %d" % (command[0], done.returncode))
    is_html = lambda name: name.split("?")[0].endswith((".html", ".htm"))
    return command[0], files_below(directory, is_html), time.monotonic() - begin


def part_right(program, root, base, temp):
    say("\n1. All that can be reached, against an independent client")
    ours_in, theirs_in = os.path.join(temp, "ours"), os.path.join(temp, "theirs")
    got = Crawl(program, temp, [base + "index.html", "--concurrency", 32, "--save", ours_in], 120)
    ours = {os.path.relpath(page["file"], ours_in): page["file"] for page in got.pages
            if page["type"] == "text/html" and page["status"] == 200 and not page["error"]}
    say("   crawl: %d HTML pages, %.1f MB, %.2f s, errors: %s" % (
        len(ours), got.summary["bytes"] / 1e6, got.seconds,
        ", ".join(page["url"][len(base) - 1:] + " " + page["error"] for page in got.pages if page["error"]) or "none"))
    client, theirs, seconds = by_wget(base, theirs_in)
    say("   %s: %d HTML pages, %.2f s (with images and scripts)" % (client, len(theirs), seconds))
    only = sorted(set(ours) ^ set(theirs))
    record("HTML pages found by crawl and by %s" % client, "the same", "%d and %d" % (len(ours), len(theirs)),
           not only and len(ours) > 100)
    for name in only[:10]:
        say("        only by %s: %s" % ("crawl" if name in ours else client, name))
    different = [name for name in set(ours) & set(theirs) if not filecmp.cmp(ours[name], theirs[name], shallow=False)]
    served = [name for name in ours if not filecmp.cmp(ours[name], os.path.join(root, name), shallow=False)]
    record("pages whose bytes differ from %s's, from the served files" % client, "0, 0", "%d, %d" % (len(different), len(served)),
           not different and not served)
    on_disk = files_below(root, lambda name: name.endswith(".html"))
    say("   (%d HTML files lie on the disk)" % len(on_disk))
    shutil.rmtree(ours_in)
    shutil.rmtree(theirs_in)
    return sorted("/" + name for name in ours)


def fingerprint(crawl, base):
    return {page["url"][len(base) - 1:]: (page["status"], page["bytes"], page.get("hash"), page["error"]) for page in crawl.pages}


def part_quick(program, paths, base, temp):
    paths = paths[:LIST_LENGTH]
    say("\n2. %d pages with 100 ms added to each: one fiber, then 200" % len(paths))
    listed = write_list(temp, [base + path[1:] for path in paths])
    alone = Crawl(program, temp, ["--urls", listed, "--concurrency", 1], 180)
    say("   1 fiber: %.2f s, %.1f pages/s, %s" % (alone.seconds, alone.summary["pages_per_second"], alone.memory()))
    runs = []
    for _ in range(3):
        runs.append(Crawl(program, temp, ["--urls", listed, "--concurrency", 200], 60))
        say("   200 fibers: %.2f s, %.0f pages/s, %s" % (runs[-1].seconds, runs[-1].summary["pages_per_second"], runs[-1].memory()))
    middle = sorted(runs, key=lambda run: run.seconds)[1]
    same = all(fingerprint(run, base) == fingerprint(alone, base) for run in runs)
    well = len(alone.pages) == len(paths) and not alone.summary["errors"]
    record("pages, bytes and statuses of both", "the same", "the same" if same and well else "different", same and well)
    factor = alone.seconds / middle.seconds
    record("speed-up by 200 fibers (the middle of 3 runs)", ">= %d" % SPEED_UP_WANTED,
           "%.0f (%.2f s / %.2f s)" % (factor, alone.seconds, middle.seconds), factor >= SPEED_UP_WANTED)


def part_many(program, root, base, temp):
    say("\n3. Slow answers (2 s each), all at once")
    name = next(n for n in ("about.html", "copyright.html", "index.html") if os.path.exists(os.path.join(root, n)))
    body = open(os.path.join(root, name), "rb").read()
    right = (200, len(body), fnv1a(body), None)
    log = os.path.join(temp, "open.log")
    engines = [os.environ.get("RINGLET_ENGINE")]
    runs = [(count, engines[0]) for count in MANY]
    if not engines[0]:
        runs.append((MANY[-1], "epoll"))
    for count, engine in runs:
        listed = write_list(temp, ["%s%s?n=%d" % (base, name, n) for n in range(count)])
        os.truncate(log, 0)
        got = Crawl(program, temp, ["--urls", listed, "--concurrency", count, "--timeout", 60], 90, engine)
        pages = fingerprint(got, base)
        wrong = [path for path, page in pages.items() if page != right]
        missing = count - len(pages)
        open_at_once = max((int(line) for line in open(log)), default=0)
        suffix = " (engine %s)" % engine if engine else ""
        say("   %d requests%s: %.2f s, %s at most; by the server's count %d connections open at once" % (
            count, suffix, got.seconds, got.memory(), open_at_once))
        for path in wrong[:3]:
            say("        %s: %r" % (path, pages[path]))
        record("%d at once%s: missing, wrong" % (count, suffix), "0, 0", "%d, %d; %.1f s, %s" % (
            missing, len(wrong), got.seconds, got.memory()), missing == 0 and not wrong)
        in_flight = min(open_at_once, got.summary["peak_in_flight"])
        record("%d at once%s: in flight at one moment" % (count, suffix), str(count), str(in_flight), in_flight >= count)


def main():
    if len(sys.argv) != 2:
        give_up("usage: demo BUILD_DIR")
    program = os.path.join(os.path.abspath(sys.argv[1]), "examples", "crawl")
    if not os.access(program, os.X_OK):
        give_up(program + " is not there; build it (./dev build), with libcurl4-openssl-dev and libxml2-dev installed")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    begin = time.monotonic()
    root = find_documentation()
    temp = tempfile.mkdtemp(prefix="ringlet-demo.")
    atexit.register(shutil.rmtree, temp, ignore_errors=True)
    os.chmod(temp, 0o755)
    at_once, slow, very_slow = start_server(root, temp)
    say("Serving %s by nginx: %s, with 100 ms %s, with 2 s %s" % (root, at_once, slow, very_slow))

    paths = part_right(program, root, at_once, temp)
    part_quick(program, paths, slow, temp)
    part_many(program, root, very_slow, temp)

    say("\n%-60s %-9s  %s" % ("", "wanted", "got"))
    for what, wanted, got, held in rows:
        say("%-60s %-9s  %-34s %s" % (what, wanted, got, "ok" if held else "FAILED"))
    failed = sum(1 for row in rows if not row[3])
    say("\n%s (%.0f s)" % ("All of it held." if not failed else "%d of %d did not hold." % (failed, len(rows)),
                         time.monotonic() - begin))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
"""Strangers' programs, unmodified, with and without us: what they say and how they end must be the same.

How they are compared: tests/support/strangers.py. The servers are started here; those of databases, and their clients, are in
databases_test.py. For failing cases (refused, 404, no such host) the status tells most. That the hooks were in place at all is
asked of the loader: LD_DEBUG=bindings tells which names a program bound to our object.
"""

import gzip
import hashlib
import http.server
import os
import shutil
import socketserver
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import checks
import strangers
from checks import Skip, expect, expect_equal, needs, run
from strangers import add_stranger, compare, script, shell, under, ways, why_not

scratch = strangers.scratch

# --- servers ----------------------------------------------------------------------------------------------------------

big = b"".join(hashlib.sha256(str(i).encode()).digest() for i in range(100_000))  # 3.2 MB that do not compress
small = b"".join(b"line %d\n" % i for i in range(100))
repositories = os.path.join(scratch, "repositories")
held = threading.Event()  # ends /hang


class Pages(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, body, status=200, **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_GET(self):
        path, _, query = self.path.partition("?")
        if path.startswith("/smart/"):
            self.git_backend(path[len("/smart"):], query)
        elif path.startswith("/dumb/"):
            self.file(os.path.join(repositories, path[len("/dumb/"):]))
        elif path == "/small":
            self.answer(small)
        elif path == "/big":
            self.answer(big)
        elif path == "/zipped":
            self.answer(gzip.compress(small, mtime=0), Content_Encoding="gzip")
        elif path == "/moved":
            self.answer(b"", 302, Location="/small")
        elif path == "/slow":
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for i in range(5):
                self.wfile.write(b"7\r\nchunk %d\r\n" % i)
                self.wfile.flush()
                time.sleep(0.05)
            self.wfile.write(b"0\r\n\r\n")
        elif path == "/hang":
            held.wait(30)
            self.close_connection = True
        elif path == "/cut":  # promises more than it sends
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"only this")
            self.close_connection = True
        else:
            self.answer(b"there is no such page\n", 404)

    do_HEAD = do_GET

    def do_POST(self):
        path, _, query = self.path.partition("?")
        if path.startswith("/smart/"):
            return self.git_backend(path[len("/smart"):], query)
        data = self.body()
        self.answer(b"%d %s\n" % (len(data), hashlib.sha256(data).hexdigest().encode()))

    do_PUT = do_POST

    def body(self):
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            data = b""
            while size := int(self.rfile.readline(), 16):
                data += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return data
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def file(self, path):
        try:
            with open(path, "rb") as f:
                self.answer(f.read())
        except OSError:
            self.answer(b"", 404)

    def git_backend(self, path, query):
        """Git's own CGI program, which is what a real server runs."""
        data = self.body() if self.command == "POST" else b""
        env = {"PATH": os.environ["PATH"], "GIT_PROJECT_ROOT": repositories, "GIT_HTTP_EXPORT_ALL": "1", "PATH_INFO": path, "QUERY_STRING": query,
               "REQUEST_METHOD": self.command, "CONTENT_TYPE": self.headers.get("Content-Type", ""), "CONTENT_LENGTH": str(len(data)),
               "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""), "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
               "REMOTE_ADDR": "127.0.0.1"}
        out = subprocess.run(["git", "http-backend"], input=data, env=env, capture_output=True).stdout
        head, _, body = out.partition(b"\r\n\r\n")
        fields = dict(line.split(": ", 1) for line in head.decode().splitlines() if ": " in line)
        status = int(fields.pop("Status", "200").split()[0])
        self.answer(body, status, **{k.replace("-", "_"): v for k, v in fields.items() if k != "Content-Length"})


class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, *_):
        pass  # clients that go away early are part of the test


pages = Server(("127.0.0.1", 0), Pages)
threading.Thread(target=pages.serve_forever, daemon=True).start()
site = f"http://127.0.0.1:{pages.server_port}"
nobody = f"http://127.0.0.1:{checks.free_port()}"  # where nobody listens


def make_repository():
    needs("git")
    if os.path.exists(repositories):
        return
    env = {"GIT_AUTHOR_DATE": "2020-01-01T00:00:00Z", "GIT_COMMITTER_DATE": "2020-01-01T00:00:00Z", "HOME": scratch}
    for name in ("AUTHOR", "COMMITTER"):
        env |= {f"GIT_{name}_NAME": "a", f"GIT_{name}_EMAIL": "a@localhost"}
    work = os.path.join(scratch, "work")

    def git(*words):
        got = run(["git", "-C", work, *words], env=env)
        expect_equal(got.status, 0, f"git {words[0]} ({got.err!r})")

    os.makedirs(work)
    git("init", "-q", "-b", "main")
    for i in range(20):
        for j in range(10):
            with open(os.path.join(work, f"file{j}"), "w") as f:
                f.write(f"{i} {j}\n" * 200)
        git("add", ".")
        git("commit", "-q", "-m", f"commit {i}")
    os.makedirs(repositories)
    git("clone", "-q", "--bare", work, os.path.join(repositories, "r.git"))
    expect_equal(run(["git", "-C", os.path.join(repositories, "r.git"), "update-server-info"]).status, 0, "update-server-info")


class Redis:
    """A redis-server for the tests, started when first asked for."""

    process = None

    @classmethod
    def socket(cls):
        needs("redis-server", "redis-cli")
        path = os.path.join(scratch, "redis.sock")
        if cls.process is None:
            cls.process, cls.port = start_redis(path, [])
        return path


def start_redis(path, prefix):
    port = checks.free_port()
    command = [*prefix, "redis-server", "--port", str(port), "--bind", "127.0.0.1", "--unixsocket", path, "--save", "", "--appendonly", "no", "--dir", scratch]
    ready = lambda: os.path.exists(path) and subprocess.run(["redis-cli", "-s", path, "ping"], capture_output=True).stdout == b"PONG\n"
    return checks.serve(command, ready=ready), port


# --- the hooks are in place ---------------------------------------------------------------------------------------------


def check_bindings(name, command, names):
    def one():
        needs(command[0])
        log = os.path.join(scratch, f"bindings-{name}")
        run([*under("alone"), *command], env={"LD_DEBUG": "bindings", "LD_DEBUG_OUTPUT": log, "LD_BIND_NOW": "1"})
        bound = set()
        for file in os.listdir(scratch):
            if file.startswith(f"bindings-{name}."):
                with open(os.path.join(scratch, file), errors="replace") as f:
                    for line in f:
                        if "libringlet-preload.so" in line.split(" to ")[-1] and "`" in line:
                            bound.add(line.split("`")[1].split("'")[0])
        missing = set(names) - bound
        expect(not missing, f"not bound to ours: {sorted(missing)}; bound: {sorted(bound)}")

    add_stranger(f"hooks: {name} is bound to them", one)


check_bindings("curl", ["curl", "-s", site + "/small"], ["poll", "recv", "send", "connect", "socket", "close"])
check_bindings("wget", ["wget", "-qO-", site + "/small"], ["read", "select", "connect", "socket"])
check_bindings("redis-cli", ["redis-cli", "-p", "1", "ping"], ["read", "connect", "poll"])
check_bindings("python3", script("import socket, time, select"), ["recv", "poll", "clock_nanosleep"])



def check_engine(way, wanted):
    def one():
        if why_not(way):
            raise Skip(why_not(way))
        text = "import os, time; time.sleep(0.01); os.system(f'ls -l /proc/{os.getpid()}/fd')"
        got = run([*under(way), *script(text)])
        expect(wanted in got.out.decode(), f"after a sleep, {way}'s descriptor is not among {got.out!r}")
        expect("anon_inode" not in run(script(text)).out.decode(), "there is one without us, too")

    add_stranger(f"hooks: a sleeping python3 waits in the {way} engine", one)


check_engine("uring", "[io_uring]")
check_engine("epoll", "[eventpoll]")

# --- the strangers ------------------------------------------------------------------------------------------------------

compare("curl: fetches a page", ["curl", "-sS", site + "/small"], out=small)
compare("curl: fetches three megabytes", ["curl", "-sS", site + "/big"], out=big)
compare("curl: fetches what comes in slow chunks", ["curl", "-sS", site + "/slow"])
compare("curl: follows a redirect and unpacks", ["curl", "-sSL", "--compressed", site + "/moved", site + "/zipped"], out=small + small)
compare("curl: fetches eight at a time", ["curl", "-sS", "-Z", "--parallel-max", "8", "-o", os.path.join(scratch, "p#1"), "-w", "%{http_code}\n", site + "/small?[1-40]"])
compare("curl: posts from stdin", ["curl", "-sS", "--data-binary", "@-", site + "/post"], input=big)
compare("curl: uploads with a chunked body", ["curl", "-sS", "-T", "-", site + "/put"], input=big)
compare("curl: a refused connection is 7", ["curl", "-sS", nobody], wanted=7)
compare("curl: a 404 is 22 with -f", ["curl", "-sSf", site + "/nowhere"], wanted=22)
compare("curl: no such host is 6", ["curl", "-sS", "http://no-such-host.invalid/"], wanted=6)
compare("curl: a timeout is 28", ["curl", "-sS", "--max-time", "1", site + "/hang"], wanted=28)
compare("curl: a body cut short is 18", ["curl", "-sS", site + "/cut"], wanted=18)

compare("wget: fetches a page", ["wget", "-qO-", site + "/small"], out=small)
compare("wget: fetches three megabytes", ["wget", "-qO-", site + "/big"], out=big)
compare("wget: a 404 is 8", ["wget", "-qO-", site + "/nowhere"], wanted=8)
compare("wget: a refused connection is 4", ["wget", "-qO-", "--tries=1", nobody], wanted=4)
compare("wget: no such host is 4", ["wget", "-qO-", "--tries=1", "http://no-such-host.invalid/"], wanted=4)
compare("wget: a timeout is 4", ["wget", "-qO-", "--tries=1", "--timeout=1", site + "/hang"], wanted=4)
compare("wget2: fetches pages with threads", ["wget2", "-q", "-O-", "--max-threads=4", *(f"{site}/small?{i}" for i in range(8))], out=small * 8)
compare("wget2: a refused connection", ["wget2", "-q", "-O-", "--tries=1", nobody], wanted=(0, 4))


def redis(*words):
    return lambda: ["redis-cli", "-s", Redis.socket(), *words]


def flush():
    run(["redis-cli", "-s", Redis.socket(), "flushall"])


compare("redis-cli: asks and answers", redis("ping"), out=b"PONG\n")
compare("redis-cli: over TCP", lambda: [Redis.socket(), "redis-cli", "-p", str(Redis.port), "ping"][1:], out=b"PONG\n")
compare("redis-cli: sets from stdin and reads back", redis(), clean=flush, input=b"set a 1\nincr a\nget a\nlrange x 0 -1\nkeys *\n")
compare("redis-cli: a blocking pop times out", redis("blpop", "none", "1"))
compare("redis-cli: repeats in intervals", redis("-r", "3", "-i", "0.1", "ping"), out=b"PONG\n" * 3)
compare("redis-cli: loads ten thousand keys through a pipe", redis("--pipe"), clean=flush,
        input=b"".join(b"SET key%d value%d\r\n" % (i, i) for i in range(10000)))
compare("redis-cli: a megabyte goes in and comes back", lambda: shell(f"redis-cli -s {Redis.socket()} -x set big && redis-cli -s {Redis.socket()} get big | sha256sum"),
        clean=flush, input=big[:1_000_000])
compare("redis-cli: a refused connection is 1", ["redis-cli", "-p", nobody.rsplit(":", 1)[1], "ping"], prepare=Redis.socket, wanted=1)

compare("python3: sleeps", script("import time; a = time.monotonic(); time.sleep(0.2); print(0.2 <= time.monotonic() - a < 2)"), out=b"True\n")
compare("python3: talks to itself over threads and sockets", script("""
import socket, threading
server = socket.create_server(('127.0.0.1', 0))
def echo():
    for _ in range(5):
        c, _a = server.accept()
        with c:
            while data := c.recv(1000):
                c.sendall(data)
t = threading.Thread(target=echo); t.start()
for i in range(5):
    with socket.create_connection(server.getsockname()) as c:
        c.settimeout(10)
        c.sendall(b'%d' % i * 50000); c.shutdown(socket.SHUT_WR)
        got = b''
        while data := c.recv(65536): got += data
        print(i, len(got))
t.join()
"""))
compare("python3: selects and polls", script("""
import os, select, socket
a, b = socket.socketpair()
print(select.select([a], [], [], 0.05)); b.send(b'x')
print([s is a for s in select.select([a], [], [], 5)[0]])
p = select.poll(); p.register(a, select.POLLIN); print([e for _, e in p.poll(1000)])
e = select.epoll(); e.register(a, select.EPOLLIN); print([e for _, e in e.poll(1)])
a.recv(1); print(p.poll(50), e.poll(0.05))
r, w = os.pipe(); os.close(w); print(os.read(r, 5))
"""))
compare("python3: runs subprocesses", script("""
import subprocess
print(subprocess.run(['sh', '-c', 'cat; exit 3'], input=b'in' * 50000, capture_output=True).returncode)
print(len(subprocess.check_output(['seq', '20000'])))
try: subprocess.run(['sleep', '20'], timeout=0.2)
except subprocess.TimeoutExpired: print('timeout')
with subprocess.Popen(['cat'], stdin=-1, stdout=-1) as c: print(c.communicate(b'x' * 300000)[0] == b'x' * 300000)
"""))
compare("python3: many threads, locks and queues", script("""
import queue, threading, time
from concurrent.futures import ThreadPoolExecutor
q, total, lock = queue.Queue(10), 0, threading.Lock()
def work():
    global total
    while (n := q.get()) is not None:
        with lock: total += n
        time.sleep(0.0001)
threads = [threading.Thread(target=work) for _ in range(20)]
for t in threads: t.start()
for n in range(1000): q.put(n)
for t in threads: q.put(None)
for t in threads: t.join()
with ThreadPoolExecutor(16) as pool: print(total, sum(pool.map(lambda n: time.sleep(0.001) or n, range(200))))
"""), out=b"499500 19900\n")
compare("python3: asyncio, a server and a hundred clients", script("""
import asyncio
async def echo(r, w):
    w.write(await r.readline()); await w.drain(); w.close()
async def client(port, i):
    r, w = await asyncio.open_connection('127.0.0.1', port)
    w.write(b'%d\\n' % i); got = await r.readline(); w.close(); return int(got)
async def main():
    s = await asyncio.start_server(echo, '127.0.0.1', 0)
    port = s.sockets[0].getsockname()[1]
    print(sum(await asyncio.gather(*(client(port, i) for i in range(100)))))
    p = await asyncio.create_subprocess_exec('sh', '-c', 'echo sub; exit 4', stdout=-1)
    print(await p.communicate(), p.returncode); s.close()
asyncio.run(main())
"""))
compare("python3: multiprocessing by fork and by spawn", script("""
import multiprocessing as m, os, sys
if __name__ == '__main__':
    c = m.get_context('fork')
    with c.Pool(3) as p: print(p.map(abs, range(-5, 5)))
    q = c.Queue(); x = c.Process(target=lambda: q.put('child')); x.start(); print(q.get()); x.join(); print(x.exitcode)
    pid = os.fork()
    if pid == 0: os._exit(7)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""))
compare("python3: fetches with urllib from threads", script(f"""
import threading, urllib.request
def fetch(i): got[i] = len(urllib.request.urlopen('{site}/small?%d' % i).read())
got = [0] * 20; threads = [threading.Thread(target=fetch, args=(i,)) for i in range(20)]
for t in threads: t.start()
for t in threads: t.join()
print(got)
"""))
compare("python3: signals, alarms and interrupted sleeps", script("""
import signal, time, os
signal.signal(signal.SIGALRM, lambda *a: print('alarm'))
signal.setitimer(signal.ITIMER_REAL, 0.1); time.sleep(0.3); print('slept')
class Stop(Exception): pass
def stop(*a): raise Stop
signal.signal(signal.SIGALRM, stop); signal.setitimer(signal.ITIMER_REAL, 0.1)
try: os.read(os.pipe()[0], 1)
except Stop: print('stopped')
"""), out=b"alarm\nslept\nstopped\n")
compare("python3: an exception's status is 1", script("raise SystemExit('no')"), wanted=1)
compare("python3: death by its own signal", script("import os, signal; os.kill(os.getpid(), signal.SIGTERM)"), wanted=-15)


def clone(kind):
    target = os.path.join(scratch, "clone")
    text = f"git clone -q {site}/{kind}/r.git {target} && git -C {target} log --format='%H %s' && git -C {target} fsck --strict 2>/dev/null && cat {target}/file3"
    return dict(command=shell(text), prepare=make_repository, clean=lambda: shutil.rmtree(target, ignore_errors=True))


compare("git: clones over smart http", **clone("smart"))
compare("git: clones over dumb http", **clone("dumb"))
compare("git: no such repository is 128", ["git", "clone", "-q", site + "/smart/none.git", os.path.join(scratch, "none")], prepare=make_repository, wanted=128)
compare("git: a refused connection is 128", ["git", "ls-remote", nobody + "/r.git"], wanted=128)

compare("sh: a pipeline of five", shell("seq 200000 | gzip -c | gunzip -c | sort -rn | sha256sum"))
compare("sh: background jobs and wait", shell("for i in 1 2 3 4 5; do (sleep 0.1; exit $i) & done; wait $!; echo $?; wait; echo done"), out=b"5\ndone\n")
compare("bash: reads lines, substitutes processes, times out", ["bash", "-c", "while read -r a; do echo \"<$a>\"; done < <(seq 50); read -t 0.2 x < <(sleep 1); echo $?; coproc cat; echo hi >&${COPROC[1]}; read -r l <&${COPROC[0]}; echo $l"])
compare("tar: packs through a pipe", shell(f"cd {checks.source} && tar --sort=name --mtime=@0 -cf - include | tar -tf - | sha256sum"))
compare("perl: forks, pipes and selects", ["perl", "-e", "pipe(R,W); if (!fork) { close R; select(undef,undef,undef,0.1); print W \"child\\n\"; exit 5 } close W; $l=<R>; wait; print $l, $?>>8, \"\\n\""],
        out=b"child\n5\n")


def redis_server_check(way):
    needs("redis-server", "redis-cli", "redis-benchmark")
    if why_not(way):
        raise Skip(why_not(way))
    path = os.path.join(scratch, f"server-{way}.sock")
    process, _ = start_redis(path, under(way))
    got = run(["redis-benchmark", "-s", path, "-n", "5000", "-c", "20", "-P", "4", "-q", "-t", "set,get,lpush,incr"])
    expect_equal(got.status, 0, f"redis-benchmark ({got.err!r})")
    expect_equal(run(["redis-cli", "-s", path, "set", "k", "v"]).out, b"OK\n", "set")
    run(["redis-cli", "-s", path, "bgsave"])  # a fork of the server
    expect_equal(run(["redis-cli", "-s", path, "get", "k"]).out, b"v\n", "get, after a fork")
    run(["redis-cli", "-s", path, "shutdown", "nosave"])
    expect_equal(process.wait(10), 0, "the server's exit status")


def nginx_check(way):
    nginx = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if not nginx:
        raise Skip("nginx is not installed")
    needs("curl")
    if why_not(way):
        raise Skip(why_not(way))
    port = checks.free_port()
    place = os.path.join(scratch, f"nginx-{way}")
    os.makedirs(os.path.join(place, "html"))
    os.chmod(scratch, 0o755)
    with open(os.path.join(place, "html", "big"), "wb") as f:
        f.write(big)
    with open(os.path.join(place, "nginx.conf"), "w") as f:
        temp = "".join(f"{kind}_temp_path {place}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        f.write(f"worker_processes 2; daemon off; pid {place}/pid; error_log {place}/error.log; events {{ worker_connections 256; }}\n"
                f"http {{ access_log off; {temp} server {{ listen 127.0.0.1:{port}; root {place}/html; }} }}\n"
                + ("user root;\n" if os.geteuid() == 0 else ""))
    process = checks.serve([*under(way), nginx, "-p", place, "-c", os.path.join(place, "nginx.conf"), "-e", os.path.join(place, "error.log")],
                           ready=lambda: checks.port_answers(port))
    got = run(["curl", "-sS", "-Z", "--parallel-max", "10", *(word for i in range(20) for word in (f"http://127.0.0.1:{port}/big", "-o", os.path.join(place, f"got{i}")))])
    expect_equal(got.status, 0, f"curl ({got.err!r})")
    for i in range(20):
        with open(os.path.join(place, f"got{i}"), "rb") as f:
            expect(f.read() == big, f"page {i} differs")
    expect_equal(run(["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", f"http://127.0.0.1:{port}/none"]).out, b"404", "a missing page")
    process.terminate()
    expect_equal(process.wait(10), 0, "nginx's exit status")


for way in ways:
    add_stranger(f"redis-server: serves twenty clients and forks ({way})", lambda way=way: redis_server_check(way))
    add_stranger(f"nginx: serves from two worker processes ({way})", lambda way=way: nginx_check(way))

try:
    checks.main()
finally:
    held.set()

#!/usr/bin/env python3
"""Threaded programs of Debian's, unmodified, say and end under `ringlet run --threads=fibers` as they do bare, and the kernel
sees at most hubs + 2 threads of theirs. Here those that do their work and end; servers_test.py has the servers.

What ./dev does not install is tried where it is found, and SKIPPED else; the large ones (node, Java) in `./dev test --all`.
"""

import hashlib
import os
import shutil
import socket
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import checks
from checks import add_check, expect, expect_equal, needs
from threaded import ENGINES, all_of_them, as_bare, expect_few, under, watch, Upstream

scratch = checks.temporary_directory()
python = "/usr/bin/python3"


def program(name, function, *needed):
    for engine in ENGINES:
        add_check(f"threads: {name}, on {engine}", lambda engine=engine: (needs(*needed), function(engine)))


# --- Python -----------------------------------------------------------------------------------------------------------

PYTHON_SERVER = """
import http.server, socket, threading
COUNT = 2000
class answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        together.wait()  # so all of them are here at once
        body = (self.path * 10).encode()
        self.send_response(200); self.send_header("Content-Length", str(len(body))); self.end_headers(); self.wfile.write(body)
    def log_message(self, *a): pass
together = threading.Barrier(COUNT)
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), answers)
server.socket.listen(4096)
serving = threading.Thread(target=server.serve_forever); serving.start()
right = [False] * COUNT
def client(i):
    with socket.create_connection(server.server_address) as s:
        s.sendall(b"GET /%d HTTP/1.0\\r\\n\\r\\n" % i)
        got = b""
        while data := s.recv(65536): got += data
    right[i] = got.endswith(b"\\r\\n\\r\\n" + b"/%d" % i * 10) and got.startswith(b"HTTP/1.0 200 ")
clients = [threading.Thread(target=client, args=(i,)) for i in range(COUNT)]
for t in clients: t.start()
for t in clients: t.join()
server.shutdown(); serving.join(); server.server_close()
print(right.count(True), "right")
"""

PYTHON_POOLS = """
import concurrent.futures, queue, threading, time
with concurrent.futures.ThreadPoolExecutor(200) as pool:
    together = threading.Barrier(200)
    print(sorted(pool.map(lambda i: (together.wait(20) >= 0) * i, range(200))) == list(range(200)))
    try: pool.submit(lambda: 1 / 0).result()
    except ZeroDivisionError as e: print(e)
    late = pool.submit(time.sleep, 0.3)
    try: late.result(0.01)
    except concurrent.futures.TimeoutError: print("late")
    done, rest = concurrent.futures.wait([late, pool.submit(int)], return_when=concurrent.futures.FIRST_COMPLETED)
    print(len(done), len(rest))
    print([f.result() for f in concurrent.futures.as_completed([pool.submit(pow, 2, i) for i in range(1)])])
for kind in (queue.Queue, queue.LifoQueue, queue.PriorityQueue, lambda n: queue.SimpleQueue()):
    items, got = kind(3), []
    def consume():
        while (item := items.get()) < 10 ** 6: got.append(item)
    consumers = [threading.Thread(target=consume) for _ in range(20)]
    for c in consumers: c.start()
    for i in range(1000): items.put(i)
    while not items.empty(): time.sleep(0.001)
    for c in consumers: items.put(10 ** 6)
    for c in consumers: c.join()
    print(sorted(got) == list(range(1000)))
try: queue.Queue().get(timeout=0.05)
except queue.Empty: print("empty")
full = queue.Queue(1); full.put(1)
try: full.put(2, timeout=0.05)
except queue.Full: print("full")
"""

program("python3: an HTTP server and 2,000 clients, a thread each", lambda engine: as_bare("server", [python, "-c", PYTHON_SERVER], engine), python)
program("python3: concurrent.futures and queue", lambda engine: as_bare("pools", [python, "-c", PYTHON_POOLS], engine), python)

# --- Ruby -------------------------------------------------------------------------------------------------------------

RUBY = """
require 'socket'; require 'timeout'
server = TCPServer.new('127.0.0.1', 0)
serving = Thread.new { loop { s = server.accept; Thread.new(s) { |c| c.write(c.gets * 3); c.close } } }
got = (0...300).map { |i| Thread.new { s = TCPSocket.new('127.0.0.1', server.addr[1]); s.puts(i.to_s); r = s.read; s.close; r } }.map(&:value)
p got == (0...300).map { |i| "#{i}\\n" * 3 }
serving.kill; serving.join; p serving.alive?
q = SizedQueue.new(3); m = Mutex.new; all = []
takers = (0...50).map { Thread.new { while (x = q.pop) != :end; m.synchronize { all << x }; end } }
1000.times { |i| q << i }; 50.times { q << :end }; takers.each(&:join)
p all.sort == (0...1000).to_a
begin; Timeout.timeout(0.05) { Queue.new.pop }; rescue Timeout::Error, fatal => e; p e.class; end
begin; Thread.new { raise ArgumentError, 'from a thread' }.tap { |t| t.report_on_exception = false }.join; rescue ArgumentError => e; p e.message; end
c = ConditionVariable.new; ready = false
t = Thread.new { m.synchronize { c.wait(m) until ready }; :woken }
m.synchronize { ready = true; c.signal }; p t.value
p Thread.new { `echo child` }.value
p Thread.new { Thread.current[:x] = 1; sleep 0.01; Thread.current[:x] }.value
"""
program("ruby: a server, queues, timeouts, conditions and children in threads", lambda engine: as_bare("ruby", ["ruby", "-e", RUBY], engine), "ruby")

# --- curl, xz, git ----------------------------------------------------------------------------------------------------


def own_name():
    """A name for 127.0.0.1; curl asks nobody about localhost."""
    try:
        return socket.gethostname() if socket.gethostbyname(socket.gethostname()).startswith("127.0.0.1") else "localhost"
    except OSError:
        return "localhost"


def curl(engine):
    with Upstream() as upstream:
        asked = [f"http://{own_name()}:{upstream.port}/{i}" for i in range(8)]
        as_bare(f"curl {upstream.port}", ["curl", "-sS", *asked], engine, few=False)
        as_bare(f"curl -Z {upstream.port}", ["curl", "-sS", "-Z", "--no-progress-meter", *[w for i, a in enumerate(asked) for w in ("-o", os.path.join(scratch, f"curl{i}"), a)]], engine, few=False)
        for i in range(8):
            with open(os.path.join(scratch, f"curl{i}"), "rb") as f:
                expect_equal(f.read(), Upstream.body(f"/{i}"), f"page {i}")
        ours = watch(["curl", "-sS", asked[3]], engine)
        expect_equal((ours.status, ours.out), (0, Upstream.body("/3")), "curl")
        expect_few(ours.threads, "curl")
    nowhere = ["curl", "-sS", "http://no-such-host.invalid/"]
    as_bare("curl: no host", nowhere, engine, wanted=6, few=False)
    told = checks.run([*under(engine)[:-1], "--report", "--", *nowhere])
    expect(b"threads made fibers: 1;" in told.err, f"its resolver's thread was no fiber: {told.err!r}")


program("curl: names by its resolver's thread", curl, "curl")

big = b"".join(hashlib.sha256(str(i).encode()).digest() + b"the same again and again" for i in range(110_000))  # 6 MB


def xz(engine):
    command = ["xz", "-T4", "-1", "--block-size=1MiB", "-c"]
    as_bare("xz", command, engine, input=big)
    packed = watch(command, engine, input=big).out
    expect_equal(hashlib.sha256(watch(["xz", "-dc"], "bare", input=packed).out).digest(), hashlib.sha256(big).digest(), "unpacked bare")
    as_bare("xz -d", ["xz", "-dc", "-T4"], engine, input=packed, of=lambda seen: hashlib.sha256(seen.out).digest())


program("xz -T4: packs and unpacks six megabytes", xz, "xz")


def repository():
    folder = os.path.join(scratch, "repository")
    if os.path.exists(folder):
        return folder
    os.makedirs(folder)
    git = lambda *words, **more: expect_equal(checks.run(["git", "-C", folder, *words], env={
        "HOME": scratch, **{f"GIT_{who}_{what}": "a@localhost" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}}, **more).status, 0, f"git {words[0]}")
    git("init", "-q", "-b", "main")
    for i in range(6):
        for j in range(120):
            with open(os.path.join(folder, f"file{j}"), "w") as f:
                f.write("".join(hashlib.sha256(f"{j} {k} {i if k % 40 == 0 else 0}".encode()).hexdigest() + "\n" for k in range(200)))
        git("add", ".")
        git("commit", "-q", "-m", f"commit {i}")
    return folder


def git(engine):
    folder = repository()
    at = ["git", "-C", folder]
    objects = watch([*at, "rev-list", "--objects", "--all", "--no-object-names"], "bare").out
    # Which threads get which objects is chance, and so are the deltas: what is in the pack is not.
    pack = watch([*at, "-c", "pack.threads=4", "pack-objects", "-q", "--no-reuse-delta", "--stdout"], engine, input=objects)
    expect_equal((pack.status, pack.err), (0, b""), "pack-objects")
    expect_few(pack.threads, "pack-objects")
    for way in ("bare", engine):
        into = os.path.join(scratch, f"{engine}-{way}.git")
        shutil.rmtree(into, ignore_errors=True)
        expect_equal(watch(["git", "init", "-q", "--bare", into], "bare").status, 0, "git init")
        indexed = watch(["git", "-C", into, "-c", "pack.threads=4", "index-pack", "--stdin", "--threads=4", "--strict"], way, input=pack.out)
        expect_equal((indexed.status, indexed.err), (0, b""), f"index-pack, {way}")
        if way != "bare":
            expect_few(indexed.threads, "index-pack")
            expect_equal(indexed.out, before, "index-pack")
        before = indexed.out
        listed = watch(["git", "-C", into, "cat-file", "--batch-all-objects", "--batch-check=%(objectname)"], "bare").out
        expect_equal(sorted(listed.split()), sorted(objects.split()), f"the objects in the pack, {way}")
    as_bare("git grep", [*at, "-c", "grep.threads=4", "grep", "-c", "a1b2"], engine, of=lambda seen: seen.out, few=False)
    # As a user has it: the program starts others of its kind, which have threads, too.
    copy = os.path.join(scratch, f"copy-{engine}")
    shutil.rmtree(copy, ignore_errors=True)
    cloned = watch(["git", "-c", "pack.threads=4", "clone", "-q", "--no-local", folder, copy], engine)
    expect_equal((cloned.status, cloned.out, cloned.err), (0, b"", b""), "clone")
    expect_equal(watch(["git", "-C", copy, "fsck", "--full"], "bare").status, 0, "fsck of the clone")
    repacked = watch(["git", "-C", copy, "-c", "pack.threads=4", "repack", "-a", "-d", "-f", "-q"], engine)
    expect_equal((repacked.status, repacked.out, repacked.err), (0, b"", b""), "repack")
    expect_equal(watch(["git", "-C", copy, "fsck", "--full"], "bare").status, 0, "fsck after the repack")


program("git: pack-objects, index-pack, grep, clone and repack with four threads", git, "git")

# --- node, Java -------------------------------------------------------------------------------------------------------

NODE = """
const { Worker, isMainThread, parentPort, workerData } = require('worker_threads');
const crypto = require('crypto'), fs = require('fs'), dns = require('dns').promises;
(async () => {
  const ask = i => new Promise((good, bad) => {
    const w = new Worker(`const { parentPort, workerData } = require('worker_threads');
      parentPort.on('message', n => { parentPort.postMessage(require('crypto').createHash('sha256').update(String(n)).digest('hex')); parentPort.close(); });`,
      { eval: true, workerData: i });
    w.once('message', good); w.once('error', bad); w.postMessage(i);
  });
  const got = await Promise.all([...Array(8).keys()].map(ask));
  console.log(got.every((h, i) => h === crypto.createHash('sha256').update(String(i)).digest('hex')));
  const shared = new Int32Array(new SharedArrayBuffer(4));
  const w = new Worker(`const { workerData } = require('worker_threads'); Atomics.store(workerData, 0, 7); Atomics.notify(workerData, 0);`, { eval: true, workerData: shared });
  await new Promise(r => w.once('exit', r));
  console.log(Atomics.load(shared, 0));
  console.log((await fs.promises.readFile('/etc/hostname')).length > 0, (await dns.lookup('localhost')).address !== undefined);
  const keys = await Promise.all([...Array(8).keys()].map(i => new Promise(r => crypto.pbkdf2('p', 's' + i, 1000, 16, 'sha256', (e, k) => r(k.toString('hex'))))));
  console.log(keys.length, new Set(keys).size);
})();
"""

JAVA = """
import java.io.*; import java.net.*; import java.util.*; import java.util.concurrent.*; import java.util.stream.*;
public class Threaded {
  public static void main(String[] a) throws Exception {
    ServerSocket server = new ServerSocket(0, 1000, InetAddress.getLoopbackAddress());
    Thread serving = new Thread(() -> { try { while (true) { Socket s = server.accept(); new Thread(() -> { try (s) {
      String line = new BufferedReader(new InputStreamReader(s.getInputStream())).readLine(); s.getOutputStream().write((line + line + "\\n").getBytes()); } catch (IOException e) { } }).start(); } } catch (IOException e) { } });
    serving.start();
    CyclicBarrier together = new CyclicBarrier(200);
    ExecutorService pool = Executors.newFixedThreadPool(200);
    List<Future<Boolean>> asked = new ArrayList<>();
    for (int i = 0; i < 200; ++i) { final int n = i; asked.add(pool.submit(() -> { together.await(); try (Socket s = new Socket(server.getInetAddress(), server.getLocalPort())) {
      s.getOutputStream().write((n + "\\n").getBytes()); return (n + "" + n).equals(new BufferedReader(new InputStreamReader(s.getInputStream())).readLine()); } })); }
    int right = 0; for (Future<Boolean> f : asked) if (f.get(60, TimeUnit.SECONDS)) ++right;
    System.out.println(right);
    pool.shutdown(); System.out.println(pool.awaitTermination(20, TimeUnit.SECONDS));
    server.close(); serving.join();
    System.out.println(IntStream.range(0, 1_000_000).parallel().filter(i -> i % 7 == 0).count());
    List<byte[]> garbage = new ArrayList<>(); for (int i = 0; i < 20000; ++i) { garbage.add(new byte[10000]); if (garbage.size() > 100) garbage.clear(); } System.gc();
    Process p = new ProcessBuilder("echo", "child").start(); System.out.println(new String(p.getInputStream().readAllBytes()).trim() + p.waitFor());
  }
}
"""


def java(engine):
    if not os.path.exists(os.path.join(scratch, "Threaded.class")):
        with open(os.path.join(scratch, "Threaded.java"), "w") as f:
            f.write(JAVA)
        made = checks.run(["javac", "-d", scratch, os.path.join(scratch, "Threaded.java")], seconds=100)
        expect_equal(made.status, 0, f"javac ({made.err!r})")
    as_bare("java", ["java", "-cp", scratch, "Threaded"], engine)


if all_of_them:
    program("node: worker_threads, shared memory and libuv's pool", lambda engine: as_bare("node", ["node", "-e", NODE], engine), "node")
    program("OpenJDK: a server and 200 clients, pools, parallel streams, garbage, a child", java, "java", "javac")

checks.main()

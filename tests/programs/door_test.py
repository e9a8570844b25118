#!/usr/bin/env python3
"""Strangers' programs behind the system-call door, with a dispatcher that passes every call on: all of libc's system
calls go by our slots and entry, and nothing may be seen of it: same stdout, same stderr, same exit status as bare; under
strace and gdb, too.

That the door was open is asked of the kernel: pages of libc's code are the process's own then.
"""

import http.server
import os
import re
import sys
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import checks
from checks import Skip, add_check, check, expect, expect_equal, needs, run

preload = os.path.join(checks.build, "hooks", "libringlet-preload.so")
scratch = checks.temporary_directory()
python = "/usr/bin/python3" if os.path.exists("/usr/bin/python3") else "python3"
door = {"LD_PRELOAD": preload, "RINGLET_DOOR": "syscall"}


def symbols_of_preload():
    with open(preload, "rb") as f:
        return f.read()


if b"RINGLET_DOOR" not in symbols_of_preload() or b"ringlet_patch_entry" not in symbols_of_preload():
    print("SKIPPED door: this build has no instruction decoder")
    print("RESULT passed=0 failed=0 skipped=1")
    sys.exit(0)


class Pages(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        body = b"page " * 20000
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Pages)
threading.Thread(target=server.serve_forever, daemon=True).start()
port = server.server_address[1]

bash_script = """
for i in 1 2 3 4 5; do echo "$i: $(echo $i | sed s/$i/x$i/ | cat)"; done
f() { (exit $1); echo "status $?"; }
f 0; f 7; f 255
cat <(echo substituted) | tr a-z A-Z
sleep 0.01 & wait $!; echo waited $?
kill -TERM $BASHPID & wait; echo after
trap 'echo trapped' USR1; kill -USR1 $$; ulimit -n; umask; cd /; pwd
read -t 0.01 line </dev/zero; [[ -e /etc/passwd ]] && exec sh -c 'echo the end; exit 3'
"""
python_threads = """
import threading, queue, os, subprocess, socket, tempfile, concurrent.futures, time
q = queue.Queue(); out = []
def work():
    while True:
        n = q.get()
        if n is None: return
        out.append(n * n); q.task_done()
threads = [threading.Thread(target=work) for _ in range(20)]
for t in threads: t.start()
for n in range(500): q.put(n)
q.join()
for t in threads: q.put(None)
for t in threads: t.join()
print(sum(out))
print(subprocess.run(['sh', '-c', 'echo child; exit 4'], capture_output=True))
a, b = socket.socketpair(); a.sendall(b'x' * 1000); print(len(b.recv(4096)))
with tempfile.TemporaryFile() as f: f.write(b'abc'); f.seek(0); print(f.read())
with concurrent.futures.ThreadPoolExecutor(8) as pool: print(sum(pool.map(lambda n: n + 1, range(100))))
e = threading.Event(); print(e.wait(0.01)); print(socket.gethostbyname('127.0.0.1'))
pid = os.fork()
if pid == 0: os._exit(9)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
try: os.open('/nowhere/at/all', os.O_RDONLY)
except OSError as error: print(error)
raise SystemExit(5)
"""
perl_script = r"""
my @kids; for my $i (1..5) { my $p = fork; if (!$p) { exit $i } push @kids, $p } my $s = 0; for (@kids) { waitpid $_, 0; $s += $? >> 8 } print "$s\n";
open my $f, "-|", "echo from a pipe" or die; print <$f>; close $f; local $SIG{ALRM} = sub { print "alarm\n" }; alarm 1; select undef, undef, undef, 5; print `ls /etc/passwd`;
select(undef, undef, undef, 0.01); print -s "/etc/passwd" > 0 ? "there\n" : "empty\n"; exit 6
"""

programs = {
    "ls": (["/bin/ls", "-l", "/usr/share"], ["ls"]),
    "ls, of nothing": (["/bin/ls", "/nowhere/at/all"], ["ls"]),
    "cat, of standard input": (["/bin/cat"], ["cat"]),
    "bash with forks, signals, exec": (["/bin/bash", "-c", bash_script], ["bash"]),
    "python3 with threads, children, sockets": ([python, "-c", python_threads], ["python3"]),
    "perl with forks, pipes, an alarm": (["perl", "-e", perl_script], ["perl"]),
    "git": (["git", "-C", checks.source, "log", "-n", "20", "--stat", "--oneline"], ["git"]),
    "curl": (["curl", "-sS", f"http://127.0.0.1:{port}/", f"http://localhost:{port}/"], ["curl"]),
    "curl, of nobody": (["curl", "-sS", "http://127.0.0.1:1/"], ["curl"]),
    "xz with threads": (["sh", "-c", "head -c 3000000 /dev/zero | xz -T2 | xz -dc | cksum"], ["xz"]),
    "sort, find": (["sh", "-c", "find /usr/share/perl* /usr/lib/python3 | sort -r | cksum"], ["sort", "find"]),
}


def make(command, wanted):
    def body():
        needs(*wanted)
        given = b"some input\n" * 1000
        bare = run(command, input=given)
        behind = run(command, input=given, env=door)
        expect_equal(behind.status, bare.status, "exit status")
        expect_equal(behind.out[-500:], bare.out[-500:], "end of stdout")
        expect(behind.out == bare.out, "stdout differs")
        expect_equal(behind.err, bare.err, "stderr")

    return body


for name, (command, wanted) in programs.items():
    add_check(f"door: {name} does the same behind it", make(command, wanted))


@check("door: it was open: libc's code is the process's own")
def _():
    def own_kilobytes(env):
        kilobytes, is_libc = 0, False
        for line in run(["/bin/cat", "/proc/self/smaps"], env=env).out.decode().splitlines():
            if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
                is_libc = " r-xp " in line and ("libc.so.6" in line or "patched code" in line)
            elif is_libc and line.startswith("Private_Dirty:"):
                kilobytes += int(line.split()[1])
        return kilobytes

    expect_equal(own_kilobytes({}), 0, "bare, kilobytes of libc's code that are its own")
    expect(own_kilobytes(door) > 100, f"only {own_kilobytes(door)} kilobytes of libc's code are its own")


@check("door: strace of a program behind it shows the calls of the program")
def _():
    needs("strace", "perl")
    log = os.path.join(scratch, "strace")
    script = "print getppid() > 0 ? 'yes' : 'no'; exit 4"
    if run(["strace", "-o", log, "/bin/true"]).status != 0:
        raise Skip("strace can't trace here")
    r = run(["strace", "-f", "-E", f"LD_PRELOAD={preload}", "-E", "RINGLET_DOOR=syscall", "-o", log, "perl", "-e", script])
    expect_equal((r.status, r.out), (4, b"yes"), "status and output")
    with open(log) as f:
        text = f.read()
    expect("getppid()" in text and "exit_group(4)" in text, "the log lacks the calls")
    expect("PROT_READ|PROT_WRITE|PROT_EXEC" not in text, "something was writable and executable at once")


@check("door: gdb walks from the entry through libc to main")
def _():
    needs("gdb", "perl")
    script = os.path.join(scratch, "parent.pl")
    with open(script, "w") as f:
        f.write("print getppid() > 0 ? 'yes' : 'no'")
    r = run(["gdb", "-q", "-batch", "-nx", "-ex", "set startup-with-shell off", "-ex", "set breakpoint pending on", "-ex", "set debuginfod enabled off",
             "-ex", f"set environment LD_PRELOAD {preload}", "-ex", "set environment RINGLET_DOOR syscall",
             "-ex", "break ringlet_patch_entry if $rax == 110", "-ex", "run",
             *sum([["-ex", "echo \\n", "-ex", "bt", "-ex", "stepi 7"] for _ in range(9)], []),  # stepi's own line may have no end
             "--args", "perl", script], seconds=100)
    text = r.out.decode(errors="replace")
    if "ptrace: Operation not permitted" in text + r.err.decode(errors="replace"):
        raise Skip("gdb can't trace here")
    walks = re.split(r"^#0 ", text, flags=re.M)[1:]
    expect(len(walks) == 9, f"{len(walks)} backtraces instead of 9:\n{text[-2000:]}\n{r.err.decode()[-1000:]}")
    for walk in walks:
        is_inside = "ringlet" in walk.splitlines()[0]  # the last may have come out
        expect(re.search(r" main ", walk) and ("getppid" in walk or not is_inside), f"a backtrace that does not reach main: #0 {walk}")
    expect("ringlet_patch_entry" in walks[0], "the first is not at the entry")
    expect(sum("ringlet" in walk.splitlines()[0] for walk in walks) >= 6, f"too few are inside of the door:\n{text[-3000:]}")


@check("door: under Valgrind it stays closed, with one line that says why")
def _():
    needs("valgrind")
    r = run(["valgrind", "-q", "--trace-children=no", "/bin/echo", "hello"], env=door, seconds=100)
    expect_equal((r.status, r.out), (0, b"hello\n"), "status and output")
    lines = [l for l in r.err.decode().splitlines() if l.startswith("ringlet:")]
    expect_equal(len(lines), 1, "lines of ours")
    expect("Valgrind" in lines[0], lines[0])


checks.main()

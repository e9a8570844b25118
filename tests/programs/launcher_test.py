#!/usr/bin/env python3
"""The launcher: what it refuses and why, and that what it starts cannot tell it was started by it."""

import os
import signal
import stat
import struct
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import checks
from checks import Skip, check, expect, expect_equal, ringlet, run

scratch = checks.temporary_directory()
preload = os.path.join(checks.build, "hooks", "libringlet-preload.so")


def path(name):
    return os.path.join(scratch, name)


def write(name, content, mode=0o755):
    with open(path(name), "wb") as f:
        f.write(content)
    os.chmod(path(name), mode)
    return path(name)


def refused(command, status, *texts):
    """The launcher ends with that status, says nothing on stdout and one line with these texts on stderr."""
    got = run([ringlet, "run", *command])
    expect_equal(got.status, status, f"exit status ({got.err!r})")
    expect_equal(got.out, b"", "stdout")
    text = got.err.decode()
    expect(text.startswith("ringlet: ") and text.count("\n") == 1, f"not one line by ringlet: {text!r}")
    for wanted in texts:
        expect(wanted in text, f"{wanted!r} is not in {text!r}")


def elf_header(*, bits=64, order=1, machine=62, kind=2):
    """A header and nothing else; 62 is x86-64, kind 2 an executable at a fixed address, 3 a position-independent one."""
    ident = b"\x7fELF" + bytes([2 if bits == 64 else 1, order, 1, 0]) + bytes(8)
    end = "<" if order == 1 else ">"
    return ident + struct.pack(end + "HHIQQQIHHHHHH", kind, machine, 1, 0, 0, 0, 0, 64, 56, 0, 64, 0, 0)


def with_interpreter(interpreter):
    """An x86-64 program whose only segment names its loader."""
    text = interpreter.encode() + b"\0"
    head = b"\x7fELF" + bytes([2, 1, 1, 0]) + bytes(8) + struct.pack("<HHIQQQIHHHHHH", 3, 62, 1, 0, 64, 0, 0, 64, 56, 1, 64, 0, 0)
    return head + struct.pack("<IIQQQQQQ", 3, 4, 64 + 56, 0, 0, len(text), len(text), 1) + text


def native_only():
    if os.uname().machine != "x86_64":
        raise Skip("the crafted ELF headers are for x86-64")


@check("run: a missing program is 127, as env has it")
def _():
    refused(["no-such-program-here"], 127, "no-such-program-here", "in no directory of PATH")
    refused([path("nothing")], 127, "no such file")
    expect_equal(run(["env", "no-such-program-here"]).status, 127, "env's own status")


@check("run: a file that is not executable is 126")
def _():
    name = write("plain", b"#!/bin/sh\necho hello\n", 0o644)
    if os.geteuid() == 0:
        expect(not os.access(name, os.X_OK), "root may not execute without any x bit")
    refused([name], 126, "not executable", "chmod +x")


@check("run: a directory is 126")
def _():
    refused([scratch], 126, "directory")


@check("run: a static program is refused with cause and cure")
def _():
    code = write("empty.c", b"int main(void){return 0;}\n")
    for name, flags in (("static", ["-static"]), ("static-pie", ["-static-pie"])):
        built = subprocess.run(["gcc", *flags, "-x", "c", code, "-o", path(name)], capture_output=True)
        if built.returncode:
            raise Skip("no static libc here: " + built.stderr.decode()[-100:])
        expect_equal(run([path(name)]).status, 0, f"the {name} program itself")
        refused([path(name)], 126, "static program", "dynamically linked")


@check("run: an ELF file of another processor, class or byte order is refused")
def _():
    native_only()
    refused([write("arm", elf_header(machine=183))], 126, "aarch64", "x86-64")
    refused([write("bits32", elf_header(bits=32, machine=3))], 126, "32-bit", "i386")
    refused([write("big-endian", elf_header(order=2, machine=22))], 126, "s390")


@check("run: an object file is refused")
def _():
    native_only()
    refused([write("object", elf_header(kind=1))], 126, "not a program")


@check("run: a musl program is refused")
def _():
    native_only()
    refused([write("musl", with_interpreter("/lib/ld-musl-x86_64.so.1"))], 126, "musl", "glibc")


@check("run: a program whose loader is missing is refused by the loader's name")
def _():
    native_only()
    refused([write("lost", with_interpreter("/lib64/ld-linux-lost.so.2"))], 126, "/lib64/ld-linux-lost.so.2")


@check("run: a truncated or lying ELF file is refused, not believed")
def _():
    native_only()
    refused([write("short", b"\x7fELF")], 126)
    whole = with_interpreter("/lib64/ld-linux-x86-64.so.2")
    for cut in (20, 64, 100):
        refused([write(f"cut{cut}", whole[:cut])], 126)
    lying = bytearray(whole)
    struct.pack_into("<Q", lying, 32, 1 << 62)  # its segments begin far outside of it
    refused([write("lying", bytes(lying))], 126)


@check("run: text without #! is refused, with the command that would do")
def _():
    refused([write("text", b"echo hello\n")], 126, "#!", "ringlet run sh")
    refused([write("empty", b"")], 126)


@check("run: setuid to another user is refused, since the loader would ignore us")
def _():
    if os.geteuid() != 0:
        raise Skip("only root can make a file of another user")
    place = checks.build if os.statvfs(scratch).f_flag & os.ST_NOSUID else scratch
    name = os.path.join(place, "setuid-true")
    with open("/bin/true", "rb") as f, open(name, "wb") as g:
        g.write(f.read())
    try:
        os.chown(name, 1, 1)
        os.chmod(name, 0o4755)
        refused([name], 126, "setuid", "LD_PRELOAD")
        os.chmod(name, 0o2755)
        refused([name], 126, "setgid")
        os.chmod(name, 0o755)
        expect_equal(run([ringlet, "run", name]).status, 0, "the same file without the bits")
    finally:
        os.unlink(name)


@check("run: file capabilities are refused for other users than root")
def _():
    if os.geteuid() != 0:
        raise Skip("only root can set file capabilities")
    name = path("capable")
    with open("/bin/true", "rb") as f:
        write("capable", f.read())
    os.chmod(scratch, 0o755)
    try:
        # VFS_CAP_REVISION_2, effective, CAP_NET_BIND_SERVICE permitted
        os.setxattr(name, "security.capability", struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0))
    except OSError as error:
        raise Skip(f"this file system holds no capabilities ({error})")
    expect_equal(run([ringlet, "run", name]).status, 0, "as root")
    with open(ringlet, "rb") as f:  # the build tree may be closed to user nobody
        readable = write("ringlet-for-nobody", f.read())
    got = subprocess.run([readable, "run", name], capture_output=True, user=65534, group=65534)
    expect_equal((got.returncode, b"file capabilities" in got.stderr), (126, True), f"as nobody ({got.stderr!r})")


@check("run: a script runs when its interpreter can be hooked")
def _():
    got = run([ringlet, "run", write("script", b"#!/bin/sh\necho \"$0 $1\"\n"), "an argument"])
    expect_equal((got.status, got.out), (0, f"{path('script')} an argument\n".encode()), "outcome")
    got = run([ringlet, "run", write("by-env", b"#!/usr/bin/env python3\nprint('by env')\n")])
    expect_equal((got.status, got.out), (0, b"by env\n"), "outcome by env")


@check("run: a script is refused for its interpreter's reasons")
def _():
    refused([write("orphan", b"#!/no/such/interpreter\n")], 126, "/no/such/interpreter", "no such file")
    refused([write("loop", f"#!{path('loop')}\n".encode())], 126, "without end")
    refused([write("nameless", b"#!\n")], 126, "no interpreter")
    native_only()
    inner = write("inner", elf_header(machine=183))
    refused([write("outer", f"#!{inner}\n".encode())], 126, inner, "aarch64")
    refused([write("env-lost", b"#!/usr/bin/env no-such-interpreter\n")], 127, "no-such-interpreter")


@check("run: exit statuses are the program's")
def _():
    for status in (0, 1, 7, 125, 126, 127, 255):
        expect_equal(run([ringlet, "run", "sh", "-c", f"exit {status}"]).status, status, "status")


@check("run: death by a signal is the program's")
def _():
    for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV, signal.SIGPIPE):
        got = run([ringlet, "run", "sh", "-c", f"ulimit -c 0; kill -{int(number)} $$"])
        expect_equal(got.status, -number, "status")


@check("run: the process id stays the same, so signals reach the program")
def _():
    process = subprocess.Popen([ringlet, "run", "sh", "-c", "trap 'exit 9' TERM; echo $$; while :; do read -r x || exit 1; done"],
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        expect_equal(int(process.stdout.readline()), process.pid, "process id")
        process.send_signal(signal.SIGTERM)
        expect_equal(process.wait(10), 9, "status by the program's own trap")
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


@check("run: stdin, stdout and stderr are the program's")
def _():
    data = bytes(range(256)) * 1000
    got = run([ringlet, "run", "sh", "-c", "cat; echo to-stderr >&2"], input=data)
    expect(got.out == data, "stdout is not what went in at stdin")
    expect_equal(got.err, b"to-stderr\n", "stderr")


@check("run: arguments arrive as they were, argv[0] too")
def _():
    words = ["two words", "", "-x", "--", "tab\there", "*", "$HOME", "\xe9"]
    got = run([ringlet, "run", "printf", "[%s]\\n", *words])
    expect_equal(got.out, "".join(f"[{w}]\n" for w in words).encode(), "arguments")
    got = run([ringlet, "run", "sh", "-c", "tr '\\0' '\\n' </proc/$$/cmdline | head -n 1"])
    expect_equal(got.out, b"sh\n", "argv[0]")


@check("run: -- ends the launcher's own options")
def _():
    expect_equal(run([ringlet, "run", "--", "printf", "%s", "--engine"]).out, b"--engine", "arguments")
    refused(["--", "--engine"], 127, "'--engine'")


@check("run: options become variables, and the object is first in LD_PRELOAD")
def _():
    show = ["sh", "-c", "echo $RINGLET_ENGINE/$RINGLET_LEAVE_OUT/$RINGLET_STACK_SIZE; echo $LD_PRELOAD"]
    clean = {"LD_PRELOAD": None}
    got = run([ringlet, "run", "--engine", "epoll", "--leave-out=dns", "--stack-size", "128K", *show], env=clean)
    expect_equal(got.out.decode(), f"epoll/dns/128K\n{preload}\n", "variables")
    other = next((f for f in ("/lib/x86_64-linux-gnu/libm.so.6", "/lib/aarch64-linux-gnu/libm.so.6") if os.path.exists(f)), None)
    if other:
        got = run([ringlet, "run", *show], env={"LD_PRELOAD": other})
        expect_equal(got.out.decode().splitlines()[-1], f"{preload}:{other}", "what was preloaded before stays")
    got = run([ringlet, "run", ringlet, "run", *show], env=clean)
    expect_equal(got.out.decode().splitlines()[-1], preload, "a launcher under a launcher adds nothing")


@check("run: what it does not understand is 125 and names the nearest")
def _():
    refused(["--engin", "epoll", "true"], 125, "--engin", "did you mean '--engine'", "ringlet run --help")
    refused(["--engine", "epol", "true"], 125, "did you mean 'epoll'")
    refused(["--engine"], 125, "wants a value")
    refused(["--stack-size", "much", "true"], 125, "RINGLET_STACK_SIZE", "much")
    refused([], 125, "which program")
    got = run([ringlet, "rum", "true"])
    expect_equal((got.status, b"did you mean 'run'" in got.err), (125, True), f"unknown verb ({got.err!r})")
    expect_equal(run([ringlet]).status, 125, "no verb")


@check("run: --engine uring where io_uring is refused is 125 with the cause")
def _():
    no_uring = os.path.join(checks.build, "tests", "no_uring")
    got = run([no_uring, ringlet, "run", "--engine", "uring", "true"])
    expect_equal(got.status, 125, f"status ({got.err!r})")
    expect(b"EPERM" in got.err and b"seccomp" in got.err, f"no cause in {got.err!r}")


@check("run: a preload object that is not there is 125 and says where it was looked for")
def _():
    got = run([ringlet, "run", "true"], env={"RINGLET_PRELOAD": "/no/such/object.so"})
    expect_equal((got.status, b"/no/such/object.so" in got.err), (125, True), f"outcome ({got.err!r})")
    with open(ringlet, "rb") as f:
        lonely = write("ringlet", f.read())
    os.chmod(lonely, os.stat(lonely).st_mode | stat.S_IXUSR)
    got = run([lonely, "run", "true"])
    if got.status == 0:
        raise Skip("ringlet is installed on this system")
    expect_equal((got.status, b"libringlet-preload.so" in got.err and scratch.encode() in got.err), (125, True), f"outcome ({got.err!r})")


@check("help: each verb has one, on stdout, and the version is there")
def _():
    for command in (["--help"], ["run", "--help"], ["info", "--help"], ["calls", "--help"]):
        got = run([ringlet, *command])
        expect_equal((got.status, got.err), (0, b""), f"{command}")
        expect(got.out.startswith(b"usage: ringlet"), f"{command}: {got.out!r}")
    expect(run([ringlet, "--version"]).out.startswith(b"ringlet "), "--version")


@check("calls: lists each hooked call once")
def _():
    got = run([ringlet, "calls"])
    names = [line.split()[0] for line in got.out.decode().splitlines()]
    expect_equal(len(names), len(set(names)), "names")
    for name in ("recv", "sleep", "poll", "getaddrinfo", "pread64"):
        expect(name in names, f"{name} is not listed")


@check("info: tells the engine and why, also where io_uring is refused")
def _():
    got = run([ringlet, "info"], env={"RINGLET_ENGINE": None})
    expect_equal(got.status, 0, f"status ({got.err!r})")
    for wanted in (b"would be used", b"io_uring_disabled", b"seccomp", b"open files", b"guards of stacks"):
        expect(wanted in got.out, f"{wanted!r} is not in it")
    no_uring = os.path.join(checks.build, "tests", "no_uring")
    got = run([no_uring, ringlet, "info"], env={"RINGLET_ENGINE": None})
    expect(b"epoll: io_uring_setup: EPERM" in got.out, f"under the filter: {got.out!r}")
    expect_equal(got.err.count(b"io_uring is refused"), 1, "lines that tell of the fallback")


@check("info PROGRAM: tells what the system-call door would do, and with --sites each system call")
def _():
    checks.needs("curl")
    got = run([ringlet, "info", "curl"])
    expect_equal(got.status, 0, "status")
    text = got.out.decode().split("system-call door")[1]
    if "without an instruction decoder" in text:
        raise checks.Skip("this build has no instruction decoder")
    expect("would open" in text and "yes" in text.splitlines()[1], text)
    expect("libc.so.6" in text and "patched" in text, text)
    sites = run([ringlet, "info", "--sites", "curl"])
    expect_equal(sites.status, 0, "status with --sites")
    lines = sites.out.decode().split("system-call door")[1]
    for name in ("futex", "clone3", "rt_sigreturn"):  # wait4's number is a variable in glibc 2.41
        expect(f" {name} " in lines, f"no line for {name}")
    expect("refused" not in lines, lines)
    expect_equal(run([ringlet, "info", "--sites"]).status, 125, "--sites of nothing")


@check("info PROGRAM: tells what a program is, and which of its blocking calls are hooked")
def _():
    checks.needs("curl")
    got = run([ringlet, "info", "curl"])
    expect_equal(got.status, 0, f"status ({got.err!r})")
    text = got.out.decode()
    hooked, _, not_hooked = text.partition("not hooked")
    expect("works" in text and " recv" in hooked and " poll" in hooked, text)
    expect(" fread" in not_hooked, text)
    expect_equal(run([ringlet, "info", "no-such-program-here"]).status, 127, "a missing program")


checks.main()

"""What the script tests share: a check is a function, its name a fact, and its outcome a line.

Same lines as the doctest binaries print (tests/support/main.cpp): PASS name, FAIL name: why, SKIPPED name: why, and at
the end RESULT passed=N failed=N skipped=N. A check that takes longer than its time fails. Servers that are started here
get a free port of 127.0.0.1, and are ended by their process id when the script ends, however it ends.
"""

import atexit
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback

import standing

CHECK_SECONDS = 120  # one check, whatever it runs; a script may set it
build = os.environ.get("RINGLET_BUILD_DIR") or os.path.abspath("build")
source = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
ringlet = os.path.join(build, "hooks", "launcher", "ringlet")


class Skip(Exception):
    """Leaves a check; its text is the reason that is shown."""


class OutOfTime(AssertionError):
    """The check's own time is over, wherever it was."""


_checks = []


def check(name):
    """Makes a function a check of that name."""

    def add(function):
        _checks.append((name, function))
        return function

    return add


def add_check(name, function):
    _checks.append((name, function))


def expect(condition, text):
    if not condition:
        raise AssertionError(text)


def expect_equal(got, wanted, what):
    if got != wanted:
        raise AssertionError(f"{what}: {got!r} instead of {wanted!r}")


def needs(*programs):
    for program in programs:
        if not shutil.which(program):
            raise Skip(f"{program} is not installed")


class Outcome:
    def __init__(self, status, out, err):
        self.status, self.out, self.err = status, out, err


def _end_group(group):
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        pass


def ends_in_time(process, command, input=b"", seconds=60):
    """Stdout and stderr of a process that leads a session of its own, once it has ended. If it does not, by its own time or by
    the check's, the failure says where everybody of the session stood. They are ended then, as they are by whatever else
    ends this call: an interrupt, or the command, which may leave somebody behind."""
    try:
        return process.communicate(input, timeout=seconds)
    except (subprocess.TimeoutExpired, OutOfTime) as late:
        signal.alarm(0)  # what is asked now is bounded
        why = f"did not end in {seconds} s" if isinstance(late, subprocess.TimeoutExpired) else str(late)
        stood = standing.standing(process.pid, os.path.join(build, "logs"))
        _end_group(process.pid)
        out, err = process.communicate()
        shown = " ".join(" ".join(map(str, command)).split())[:300]  # on one line: what reports failures shows no more
        raise AssertionError(f"{why}: {shown}; stderr: {err[-300:]!r}; stdout: {out[-100:]!r}; "
                             f"it stood: {stood}") from None
    finally:
        _end_group(process.pid)
        process.wait()


def run(command, *, env=None, input=b"", seconds=60, cwd=None):
    """Runs a command to its end: status (-N for signal N, as subprocess has it), stdout, stderr. It gets a session of its
    own, so that a grandchild that hangs on is ended, too."""
    variables = dict(os.environ)
    for name, value in (env or {}).items():
        if value is None:
            variables.pop(name, None)
        else:
            variables[name] = value
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               env=variables, cwd=cwd, start_new_session=True)
    out, err = ends_in_time(process, command, input, seconds)
    return Outcome(process.returncode, out, err)


_servers = []


@atexit.register
def _end_servers():
    for process in _servers:
        if process.poll() is None:
            process.terminate()
    for process in _servers:
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def serve(command, *, ready, seconds=20, **options):
    """Starts a server; waits until ready() is true."""
    log = tempfile.TemporaryFile()
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, **options)
    _servers.append(process)
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        if ready():
            return process
        time.sleep(0.02)
    log.seek(0)
    raise AssertionError(f"the server {command[0]} is not ready after {seconds} s: {log.read()[-400:]!r}")


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def port_answers(port):
    with socket.socket() as s:
        s.settimeout(1)
        return s.connect_ex(("127.0.0.1", port)) == 0


def temporary_directory():
    path = tempfile.mkdtemp(prefix="ringlet-test.")
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path


def main():
    """Runs the checks whose name contains the first argument (all without one) and reports."""
    wanted = sys.argv[1] if len(sys.argv) > 1 else ""
    passed = failed = skipped = 0

    def out_of_time(*_):
        raise OutOfTime(f"took longer than {CHECK_SECONDS} s")

    def told_to_end(number, _):
        sys.exit(128 + number)  # by way of every finally

    signal.signal(signal.SIGALRM, out_of_time)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, told_to_end)
    for name, function in _checks:
        if wanted.lower() not in name.lower():
            continue
        begun = time.monotonic()
        signal.alarm(CHECK_SECONDS)
        try:
            function()
        except Skip as reason:
            skipped += 1
            print(f"SKIPPED {name}: {reason}")
        except AssertionError as error:
            failed += 1
            print(f"FAIL {name}: {error}")
        except Exception:
            failed += 1
            print(f"FAIL {name}: {traceback.format_exc()}")
        else:
            passed += 1
            took = time.monotonic() - begun
            print(f"PASS {name}" + (f" ({took:.1f} s)" if took >= 0.5 else ""))
        finally:
            signal.alarm(0)
        sys.stdout.flush()
    print(f"RESULT passed={passed} failed={failed} skipped={skipped}", flush=True)
    sys.exit(1 if failed else 0)

#!/usr/bin/env python3
"""A command that does not end in time says where it stood: the failure's text is all that a hang in CI leaves behind."""

import os
import re
import shutil
import signal
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import checks
import standing
from checks import Skip, expect, run

# It has a child; and a second thread, which has a name. Both of its threads wait, each in a call of its own.
WAITS = """
import os, subprocess, threading, time
def second():
    open('/proc/thread-self/comm', 'w').write('the-second')
    time.sleep(1000)
child = subprocess.Popen(['sleep', '1000'])
threading.Thread(target=second, daemon=True).start()
print('child', child.pid, flush=True)
os.read(os.pipe()[0], 1)
"""


def failure_of(prepare=lambda seconds: None, **options):
    """The failure's text; with more time if the program had not got to where it waits."""
    for seconds in (2, 10, 40):
        prepare(seconds)
        try:
            run([sys.executable, "-c", WAITS], **{"seconds": seconds, **options})
        except AssertionError as failure:
            if "the-second" in str(failure):
                return str(failure)
    raise AssertionError("a command that waits for ever has ended, or was not said to wait")


def is_alive(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as f:
            return f.read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def expect_told(text):
    for wanted in ("'child ", "the-second", "process", "(sleep 1000)", "S (sleeping)"):
        expect(wanted in text, f"{wanted!r} is not in {text}")
    path = re.search(r"all of it: (\S+)$", text).group(1)
    with open(path, encoding="utf-8") as f:
        all_of_it = f.read()
    os.unlink(path)
    expect("the-second" in all_of_it and "\n" not in text, f"the file says {all_of_it}; the text {text}")
    child = int(re.search(r"'child (\d+)", text).group(1))
    end = time.monotonic() + 10
    while is_alive(child):  # killed; whoever adopted it has yet to be told
        expect(time.monotonic() < end, f"{child} was left behind")
        time.sleep(0.01)
    return all_of_it


@checks.check("late: a command that is out of its time says where each thread of each of its processes stood")
def _():
    text = failure_of()
    expect(re.match(r"did not end in \d+ s: ", text), text)
    all_of_it = expect_told(text)
    if os.path.exists("/usr/include/x86_64-linux-gnu/asm/unistd_64.h") and os.uname().machine == "x86_64":
        for call in ("in read(", "nanosleep("):
            expect(call in text, f"{call!r} is not in {text}")
    if not shutil.which("gdb"):
        raise Skip("gdb is not installed: frames were not looked for")
    if "Operation not permitted" in all_of_it:
        raise Skip("gdb can't trace here: frames were not looked for")
    expect(re.search(r"the-second [^|]*: \S+ < ", text), f"no frames in {text}")


@checks.check("late: so does a command that is under way when the check's own time ends")
def _():
    text = failure_of(signal.alarm, seconds=100)
    expect(text.startswith(f"took longer than {checks.CHECK_SECONDS} s: "), text)
    expect_told(text)


@checks.check("late: who is gone when it is asked is no error")
def _():
    expect(standing.standing(2**22 + 1, "/nowhere") == "nobody of it was left", "a session that never was")


checks.main()

"""Where the processes of a session stand, asked before they are killed: "did not end in N s" alone tells nobody why.

A line a thread: its name, the kernel's word for its state, the call and the kernel function that it waits in, and, if gdb
is there, its innermost frames. All that gdb said, the fibers' backtraces included, is in a file whose path is told. Asking
changes nothing that the failure is about: it has failed already. Always true: it ends, within GDB_SECONDS a process.
"""

import glob
import os
import re
import shutil
import subprocess

GDB_SECONDS = 20
MOST_PROCESSES = 4  # of which gdb is asked
SHOWN_THREADS = 12  # of a process, in the text; the file has all
FRAMES = 12

_here = os.path.dirname(os.path.abspath(__file__))
_fibers = os.path.join(_here, "..", "..", "hooks", "gdb", "ringlet-gdb.py")


def _text(path):
    """What a file of /proc says: nothing, if the thread has just ended or this kernel has no such file."""
    try:
        with open(path, "rb") as f:
            return f.read().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def _numbers():
    """System calls by number, from the system's own header: Debian 13 has those of other processors beside it."""
    own = f"/usr/include/{os.uname().machine}-linux-gnu/asm/unistd_64.h"
    found = re.findall(r"#define __NR_(\w+) (\d+)\n", _text(own) + "\n")
    return {int(number): name for name, number in found}


def processes_of(session):
    """The session's processes, by id: whoever was started in it and has not left it."""
    found = []
    for path in glob.glob("/proc/[0-9]*/stat"):
        fields = _text(path).rpartition(")")[2].split()  # state, parent, group, session ...
        if len(fields) > 3 and int(fields[3]) == session and fields[0] not in "ZX":
            found.append(int(path.split("/")[2]))
    return sorted(found)


def _call_of(said, names):
    number = said.split(" ", 1)[0]
    if not number.lstrip("-").isdigit():
        return said or "?"  # "running"
    arguments = said.split()[1:7]
    return f"in {names.get(int(number), 'call ' + number)}({', '.join(arguments)})" if int(number) >= 0 else "in no call"


def threads_of(process, names):
    """Thread id -> what /proc knows of it."""
    found = {}
    for folder in sorted(glob.glob(f"/proc/{process}/task/[0-9]*"), key=lambda path: int(path.rsplit("/", 1)[1])):
        state = re.search(r"^State:\s*(.*)$", _text(folder + "/status"), re.M)
        place = _text(folder + "/wchan")
        found[int(folder.rsplit("/", 1)[1])] = " ".join(filter(None, [
            _text(folder + "/comm"), state.group(1) if state else "?", _call_of(_text(folder + "/syscall"), names),
            f"at {place}" if place not in ("", "0") else ""]))
    return found


def _asked_of_gdb(process):
    command = ["gdb", "-q", "-nx", "-batch", "-iex", "set auto-load python-scripts off", "-iex", "set debuginfod enabled off",
               "-p", str(process), "-ex", "set width 0", "-ex", f"thread apply all bt {FRAMES}",
               "-ex", f"source {_fibers}", "-ex", "ringlet backtrace all"]
    asked = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        return asked.communicate(timeout=GDB_SECONDS)[0].decode(errors="replace")
    except subprocess.TimeoutExpired:
        asked.kill()
        return asked.communicate()[0].decode(errors="replace") + f"\ngdb did not end in {GDB_SECONDS} s\n"


def _frames(said):
    """Thread id -> the names of its frames, innermost first, from `thread apply all bt`."""
    found, thread = {}, None
    for line in said.splitlines():
        if head := re.match(r"Thread \d+ .*?(?:LWP |process )(\d+)", line):
            thread = found.setdefault(int(head.group(1)), [])
        elif (frame := re.match(r"#\d+\s+(?:0x[0-9a-f]+ in )?(.+?)(?: \(|$)", line)) and thread is not None:
            thread.append(frame.group(1))
        elif not line.strip():
            thread = None
    return found


def standing(session, folder):
    """One line for a failure's text, with the path of the file that has everything."""
    names, said, all_said = _numbers(), [], []
    for index, process in enumerate(processes_of(session)):
        command, threads = _text(f"/proc/{process}/cmdline"), threads_of(process, names)
        gdb = _asked_of_gdb(process) if shutil.which("gdb") and index < MOST_PROCESSES else ""
        frames = _frames(gdb)
        lines = [f"{thread}: {what}" + (f": {' < '.join(frames[thread])}" if frames.get(thread) else "")
                 for thread, what in threads.items()]
        more = [f"and {len(lines) - SHOWN_THREADS} more"] if len(lines) > SHOWN_THREADS else []
        said.append(f"process {process} ({' '.join(command[:100].split())}): " + " | ".join(lines[:SHOWN_THREADS] + more))
        all_said += [f"process {process}: {command}", *lines, gdb]
    if not said:
        return "nobody of it was left"
    os.makedirs(folder, exist_ok=True)
    file = os.path.join(folder, f"stood-{session}.txt")
    with open(file, "w", encoding="utf-8") as f:
        f.write("\n".join(all_said) + "\n")
    return "; ".join(said) + f"; all of it: {file}"

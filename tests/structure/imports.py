#!/usr/bin/env python3
"""The core never calls a name that the hooks replace: else, under the hooks, the runtime would wait in itself.

Asked of the linker's result, not of the source: the undefined symbols of libringlet.so against the rows of
hooks/calls.def. What is allowed is listed here with its reason.
"""

import glob
import os
import re
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import checks

# name -> why it cannot make the runtime wait in its own hook.
allowed = {
    "sigaction": "for SIGSEGV only (src/context/overflow.cpp), and that one is passed through",
}


def hooked_names():
    row = re.compile(r"^(SUSPENDS|SHAPED|VARIADIC|OBSERVES|OFFLOADS)\([^,]+,\s*(\w+)\s*,|^(ALIAS|ALIAS_UNDECLARED|SPECIAL)\((\w+)\s*,")
    names = set()
    with open(os.path.join(checks.source, "hooks", "calls.def"), encoding="utf-8") as f:
        for line in f:
            if found := row.match(line):
                names.add(found.group(2) or found.group(4))
    return names


def undefined_names(library):
    listed = subprocess.run(["nm", "-D", "--undefined-only", library], capture_output=True, text=True, check=True).stdout
    return {line.split()[-1].split("@")[0] for line in listed.splitlines() if line.strip()}


@checks.check("imports: the table of hooked names is read whole")
def _():
    names = hooked_names()
    for name in ("recv", "poll", "open", "pread64", "close", "vfork" if os.uname().machine == "x86_64" else "sleep"):
        checks.expect(name in names, f"{name} is not among the {len(names)} names read")
    listed = subprocess.run([checks.ringlet, "calls"], capture_output=True, text=True, check=True).stdout
    compiled = {line.split()[0] for line in listed.splitlines()}
    checks.expect(compiled <= names, f"compiled, but not read: {sorted(compiled - names)}")


@checks.check("imports: libringlet.so calls no name that the hooks replace")
def _():
    libraries = glob.glob(os.path.join(checks.build, "src", "libringlet.so*"))
    library = next((l for l in libraries if os.path.isfile(l) and not l.endswith(".p") and ".symbols" not in l), None)
    checks.expect(library, f"no libringlet.so in {checks.build}/src")
    undefined = undefined_names(library)
    checks.expect(len(undefined) > 20, f"nm found only {len(undefined)} undefined symbols")
    wrong = undefined & hooked_names() - set(allowed)
    checks.expect(not wrong, f"it calls {', '.join(sorted(wrong))}: use base/sys.hpp, or list the name in {os.path.basename(__file__)} with the reason")
    stale = set(allowed) - undefined
    checks.expect(not stale, f"allowed, but not called any more: {', '.join(sorted(stale))}")


checks.main()

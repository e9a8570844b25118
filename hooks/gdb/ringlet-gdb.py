"""gdb commands for programs that run on ringlet, live or from a core file, linked or under `ringlet run`:

    ringlet fibers               every hub, and what each of its fibers does
    ringlet backtrace ID|all     where a fiber stands, as gdb's own backtrace shows it

`info threads` names the kernel threads that are hubs. gdb must know the program and its libraries; debug information of
ringlet itself is not needed: a table in the library says where its fields lie (src/hub/debug.hpp). x86-64.

A fiber that rests is shown by an unwinder: while a backtrace of it is taken, what gdb takes for the caller of the thread's
innermost frame is the place where the fiber rests. Nothing in the process is changed.
"""

import re
import struct
import time

import gdb
import gdb.unwinder

VERSION = b"ringlet-debug-1"
PHASES = ["to begin later", "not begun", "ready", "running", "parked", "finished"]
MOST_FIBERS = 1_000_000


def read(address, size):
    return bytes(gdb.selected_inferior().read_memory(address, size))


def word(address):
    return struct.unpack("<Q", read(address, 8))[0]


def text(address, most=200):
    if address == 0:
        return ""
    got = b""
    while len(got) < most:  # piece by piece: what follows may not be mapped
        byte = read(address + len(got), 1)
        if byte == b"\0":
            break
        got += byte
    return got.decode(errors="replace")


class Table:
    """ringlet_debug_table, as the process has it."""

    def __init__(self):
        try:
            at = int(gdb.parse_and_eval("(unsigned long)&ringlet_debug_table"))
        except gdb.error:
            raise gdb.GdbError("this program has no ringlet in it (no symbol ringlet_debug_table)")
        try:
            head = read(at, 24)
        except gdb.MemoryError:
            raise gdb.GdbError("the program does not run, and this is no core file")
        version = head[:16].rstrip(b"\0")
        if version != VERSION:
            raise gdb.GdbError(f"these commands are for {VERSION.decode()}, the program has {version.decode(errors='replace')!r}")
        most, self.not_shown = struct.unpack("<II", head[16:])
        at += 24
        fields = struct.unpack("<20I", read(at, 80))
        (self.hub_fibers, self.hub_running, self.hub_turn_time, self.hub_switches, self.hub_asleep, self.hub_own,
         self.link, self.step, self.waiting, self.since, self.id, self.name, self.resume_at,
         self.sp, self.image, self.has_run, self.what, self.whom, self.fd, _) = fields
        at += 80
        self.thread_id, self.thread_name, self.thread_name_size, _, self.hubs_own = struct.unpack("<IIIIQ", read(at, 24))
        at += 24
        self.hubs = []
        for each in struct.iter_unpack("<QQq", read(at, 24 * most)):
            if each[0]:
                self.hubs.append(Hub(self, len(self.hubs) + 1, *each))


class Hub:
    def __init__(self, table, number, address, main_fiber, os_id):
        self.table, self.number, self.address, self.os_id = table, number, address, os_id
        self.main_fiber = main_fiber
        self.running = word(address + table.hub_running)
        self.asleep = read(address + table.hub_asleep, 1) != b"\0"
        self.turn_time = word(address + table.hub_turn_time)

    def thread(self):
        for thread in gdb.selected_inferior().threads():
            if self.os_id in (thread.ptid[1], thread.ptid[2]):
                return thread
        return None

    def now(self):
        """Of a live process on this machine it is now; of a core file, and of another machine, the hub's last turn."""
        connection = getattr(gdb.selected_inferior(), "connection", None)  # gdb 12
        if connection is not None and connection.type == "native":
            return max(time.clock_gettime_ns(time.CLOCK_MONOTONIC), self.turn_time)
        return self.turn_time

    def fibers(self):
        table = self.table
        yield Fiber(self, self.main_fiber)
        head = self.address + table.hub_fibers
        at = word(head)
        for _ in range(MOST_FIBERS):
            if at == head or at == 0:
                return
            yield Fiber(self, at - table.link)
            at = word(at)


class Fiber:
    def __init__(self, hub, address):
        table = hub.table
        self.hub, self.address = hub, address
        self.is_main = address == hub.main_fiber
        self.id = 0 if self.is_main else word(address + table.id)
        self.step = read(address + table.step, 1)[0]
        self.is_running = address == hub.running
        self.tid, self.name = None, "main" if self.is_main else ""
        place = word(address + table.resume_at)
        image = word(place + table.image)
        if table.thread_name_size and image and image != table.hubs_own:
            self.tid = struct.unpack("<i", read(image + table.thread_id, 4))[0]
            self.name = text(image + table.thread_name, table.thread_name_size)
        elif not self.is_main:
            start, size = struct.unpack("<QQ", read(address + table.name, 16))
            self.name = read(start, min(size, 200)).decode(errors="replace") if size else f"fiber-{self.id}"
        self.sp = word(place + table.sp) if not self.is_running else 0
        self.has_run = self.is_main or read(place + table.has_run, 1) != b"\0"

    def label(self):
        return f"{self.id}" if len(self.hub.table.hubs) == 1 else f"{self.hub.number}.{self.id}"

    def state(self, now):
        if self.is_running:
            return "running"
        said = PHASES[self.step] if self.step < len(PHASES) else f"in state {self.step}"
        if said == "running":  # it has switched to a greenlet, or is on its way
            said = "ready"
        if said != "parked":
            return said
        table = self.hub.table
        waiter = word(self.address + table.waiting)
        if waiter == 0:
            return "parked"
        said = "parked in " + text(word(waiter + table.what))
        fd = struct.unpack("<i", read(waiter + table.fd, 4))[0]
        whom = word(waiter + table.whom)
        if fd >= 0:
            said += f"(fd {fd})"
        if whom:
            said += f" on {whom:#x}"
        return said + f" for {max(0, now - word(self.address + table.since)) / 1e9:.3f} s"

    def registers(self):
        """Where it rests, as Boost.Context's jump_fcontext has left it: r12-r15, rbx, rbp, the return address."""
        _, r12, r13, r14, r15, rbx, rbp, rip = struct.unpack("<8Q", read(self.sp, 64))
        return {"rip": rip, "rsp": self.sp + 64, "rbp": rbp, "rbx": rbx, "r12": r12, "r13": r13, "r14": r14, "r15": r15}


class FrameId:
    def __init__(self, sp, pc):
        self.sp, self.pc = sp, pc


class RestingFiber(gdb.unwinder.Unwinder):
    """Makes the innermost frame of the selected thread look as if a fiber's resting place had called it."""

    def __init__(self):
        super().__init__("ringlet-fiber")
        self.registers = None
        self.top = None

    def __call__(self, frame):
        if self.registers is None:
            return None
        sp, pc = int(frame.read_register("rsp")), int(frame.read_register("rip"))
        if (sp, pc) != self.top:
            return None
        # gdb takes a caller whose frame lies lower for a broken stack: so this one lies lowest.
        made = frame.create_unwind_info(FrameId(gdb.Value(self.registers["rsp"] - 256), gdb.Value(pc)))
        whole = gdb.lookup_type("unsigned long")
        for name, value in self.registers.items():
            kind = frame.read_register(name).type
            made.add_saved_register(name, gdb.Value(value).cast(whole).cast(kind))
        return made

    def backtrace(self, registers):
        frame = gdb.newest_frame()
        self.top = int(frame.read_register("rsp")), int(frame.read_register("rip"))
        self.registers = registers
        gdb.invalidate_cached_frames()
        try:
            own = 1  # and what is inlined into it
            frame = gdb.newest_frame()
            while frame.type() == gdb.INLINE_FRAME:
                own, frame = own + 1, frame.older()
            return own, gdb.execute("backtrace", to_string=True)
        finally:
            self.registers = None
            gdb.invalidate_cached_frames()


unwinder = RestingFiber()
gdb.unwinder.register_unwinder(None, unwinder, replace=True)


def backtrace_of(fiber):
    thread = fiber.hub.thread()
    if thread is None:
        return "    its hub's thread is not among gdb's threads\n"
    before = gdb.selected_thread()
    frame_before = gdb.selected_frame()
    try:
        thread.switch()
        if fiber.is_running:
            return indented(gdb.execute("backtrace", to_string=True))
        if fiber.sp == 0 or not fiber.has_run:
            return "    it has not begun\n"
        own, shown = unwinder.backtrace(fiber.registers())
    finally:
        before.switch()
        if frame_before.is_valid():
            frame_before.select()
    # The first frames are the thread's own; the numbers begin behind them.
    lines = []
    for line in shown.splitlines():
        number = re.match(r"#(\d+) *", line)
        if not number:
            lines.append(line)
        elif "make_fcontext" in line:  # the stack's begin; what gdb finds beyond is nobody's
            break
        elif int(number[1]) >= own:
            lines.append(f"#{int(number[1]) - own:<3}" + line[number.end():])
    return indented("\n".join(lines))


def indented(lines):
    return "".join(f"    {line}\n" for line in lines.splitlines())


def wanted_fibers(table, which):
    everyone = [fiber for hub in table.hubs for fiber in hub.fibers()]
    if which == "all":
        return everyone
    found = [fiber for fiber in everyone if which in (fiber.label(), str(fiber.tid))]
    if not found:
        raise gdb.GdbError(f"there is no fiber {which!r}; `ringlet fibers` lists them")
    return found


def line_of(fiber, now):
    mark = "*" if fiber.is_running else " "
    tid = f"tid {fiber.tid}" if fiber.tid is not None else ""
    return f"{mark} {fiber.label():<8} {tid:<14} {fiber.name:<16} {fiber.state(now)}"


class Ringlet(gdb.Command):
    """Commands for programs that run on ringlet: fibers, backtrace."""

    def __init__(self):
        super().__init__("ringlet", gdb.COMMAND_STACK, prefix=True)


class Fibers(gdb.Command):
    """Lists every hub, and what each of its fibers does, since when."""

    def __init__(self):
        super().__init__("ringlet fibers", gdb.COMMAND_STACK)

    def invoke(self, argument, from_tty):
        table = Table()
        name_threads(table)
        if not table.hubs:
            print("no hub: nothing has been spawned yet")
        for hub in table.hubs:
            thread, now = hub.thread(), hub.now()
            fibers = list(hub.fibers())
            print(f"hub {hub.number} on thread {thread.num if thread else '?'} (LWP {hub.os_id}), "
                  f"{'asleep' if hub.asleep else 'awake'}, fibers: {len(fibers)}")
            for fiber in fibers:
                print(line_of(fiber, now))
        if table.not_shown:
            print(f"and {table.not_shown} hubs for which the table has no room")


class Backtrace(gdb.Command):
    """Shows where a fiber stands: ringlet backtrace ID (as `ringlet fibers` gives it, or a thread's tid), or all."""

    def __init__(self):
        super().__init__("ringlet backtrace", gdb.COMMAND_STACK)

    def invoke(self, argument, from_tty):
        which = argument.strip()
        if not which:
            raise gdb.GdbError("of which fiber? ringlet backtrace ID, or all")
        for fiber in wanted_fibers(Table(), which):
            print(line_of(fiber, fiber.hub.now()))
            print(backtrace_of(fiber), end="")


def name_threads(table):
    for hub in table.hubs:
        thread = hub.thread()
        if thread:
            thread.name = f"ringlet hub {hub.number}"


def at_stop(*_):
    try:
        name_threads(Table())
    except (gdb.error, gdb.GdbError):
        pass


Ringlet()
Fibers()
Backtrace()
gdb.execute("alias ringlet bt = ringlet backtrace")
gdb.events.stop.connect(at_stop)
# The watcher's signal, by which a thread that computes is made to give way: no news to whoever debugs.
gdb.execute("handle SIG64 nostop noprint pass", to_string=True)
if gdb.selected_inferior().threads():
    at_stop()

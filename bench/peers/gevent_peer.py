"""gevent: a greenlet for each connection, by its own sockets (no monkey patching), and for each fiber."""

import sys

try:
    import gevent
    from gevent import queue, socket
except ImportError:
    sys.exit(77)

import peer


def converse(connection, size: int) -> None:
    buffer = bytearray(size)
    view = memoryview(buffer)
    try:
        while got := connection.recv_into(buffer):
            connection.sendall(view[:got])
    except OSError:
        pass
    connection.close()


def serve(size: int) -> None:
    listener = socket.socket(fileno=peer.LISTENER)
    while True:
        connection, _ = listener.accept()
        gevent.spawn(converse, connection, size)


def together(count: int, n: int, each, *arguments) -> int:
    times = peer.share(n, count)

    def body():
        for _ in range(times):
            each(*arguments)

    gevent.joinall([gevent.spawn(body) for _ in range(count)])
    return times * count


def nothing():
    pass


def spawn(n: int) -> int:
    for _ in range(n):
        gevent.spawn(nothing).join()
    return n


def spawn_100(n: int) -> int:
    times = peer.share(n, 100)
    for _ in range(times):
        gevent.joinall([gevent.spawn(nothing) for _ in range(100)])
    return times * 100


def hand_over(n: int) -> int:
    there, back = queue.Queue(1), queue.Queue(1)

    def answer():
        for _ in range(n):
            back.put(there.get())

    other = gevent.spawn(answer)
    for i in range(n):
        there.put(i)
        back.get()
    other.join()
    return n


others = []


def arm_others() -> None:
    loop = gevent.get_hub().loop
    while len(others) < peer.ARMED:
        others.append(loop.timer(7200))
        others[-1].start(nothing)


def arm_and_cancel(n: int) -> int:
    arm_others()
    loop = gevent.get_hub().loop
    for _ in range(n):
        timer = loop.timer(3600)
        timer.start(nothing)
        timer.stop()
        timer.close()
    return n


def limits(n: int) -> int:
    arm_others()
    for _ in range(n):
        timeout = gevent.Timeout(3600)
        timeout.start()
        timeout.close()
    return n


peer.run(serve, {
    "yield2": lambda n: together(2, n, gevent.sleep, 0),
    "yield1000": lambda n: together(peer.CROWD, n, gevent.sleep, 0),
    "spawn": spawn,
    "spawn100": spawn_100,
    "queue": hand_over,
    "sleep1000": lambda n: together(peer.CROWD, n, gevent.sleep, 0.001),
    "timer": arm_and_cancel,
    "timeout": limits,
})

#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""A server without libgapless, for tests: it takes inherited sockets, says what it was given, and answers.

  --dump FILE        writes what it was started with (see `facts()`) to FILE.GENERATION.WORKER as JSON
  --signals FILE     appends a line for each USR1, HUP, WINCH: "GENERATION WORKER NAME"
  --ready HOW        notify (the default: READY=1 on NOTIFY_SOCKET), einhorn, none
  --fd N             serves this descriptor too (an {fd:NAME} of the configuration)
  --version TEXT     what it answers as its version
  --orphans N        starts N processes that outlive their parent: orphans for PID 1
  --notify TEXT      sends this to NOTIFY_SOCKET as well
  --exit-after-ready CODE   exits with CODE once it has said that it is ready
  --ignore-term      does not end on TERM
  --watchdog FILE    says WATCHDOG=1 as often as WATCHDOG_USEC and WATCHDOG_PID want it, until FILE.WORKER exists

On stream and seqpacket sockets it answers each connection with a line of JSON, as HTTP where the peer speaks it; on
datagram sockets it answers the sender. TERM and QUIT end it with 0 after what it is doing.
"""

import argparse
import json
import os
import resource
import selectors
import signal
import socket
import stat
import sys
import time


def open_descriptors():
    """{descriptor: what it is}, of those that were open when it started."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            mode = os.fstat(int(name)).st_mode
            link = os.readlink(f"/proc/self/fd/{name}")
        except OSError:  # the descriptor that listed the directory
            continue
        found[int(name)] = {"link": link, "socket": stat.S_ISSOCK(mode)}
        if stat.S_ISSOCK(mode):
            with socket.socket(fileno=os.dup(int(name))) as twin:
                found[int(name)]["family"] = int(twin.family)
                found[int(name)]["type"] = int(twin.type)
                address = twin.getsockname()
                found[int(name)]["address"] = address.decode() if isinstance(address, bytes) else address
    return found


def facts():
    mask = os.umask(0)
    os.umask(mask)
    with open("/proc/self/status", encoding="utf-8") as status:
        fields = dict(line.rstrip("\n").split(":\t", 1) for line in status if ":\t" in line)
    names = [name for name in dir(resource) if name.startswith("RLIMIT_")]
    return {
        "argv": sys.argv,
        "env": dict(os.environ),
        "pid": os.getpid(),
        "ppid": os.getppid(),
        "pgid": os.getpgid(0),
        "uid": os.getresuid(),
        "gid": os.getresgid(),
        "groups": os.getgroups(),
        "cwd": os.getcwd(),
        "umask": mask,
        "nice": os.nice(0),
        "rlimits": {name: resource.getrlimit(getattr(resource, name)) for name in names},
        "capabilities": {key: int(fields[key], 16) for key in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")},
        "signals": {key: int(fields[key], 16) for key in ("SigBlk", "SigIgn")},
    }


def write_whole(path, value):
    with open(path + ".new", "w", encoding="utf-8") as file:
        json.dump(value, file)
    os.rename(path + ".new", path)


def tell_notify_socket(text):
    address = os.environ["NOTIFY_SOCKET"]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
        client.connect("\0" + address[1:] if address.startswith("@") else address)
        client.sendall(text.encode())


def tell_einhorn():
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.connect(os.environ["EINHORN_SOCK_PATH"])
        client.sendall(json.dumps({"command": "worker:ack", "pid": os.getpid()}).encode() + b"\n")
        client.recv(1)  # until it is taken


def make_orphans(count):
    for _ in range(count):
        if os.fork() == 0:
            if os.fork() == 0:
                time.sleep(0.05)
            os._exit(0)
        os.wait()


class Server:
    def __init__(self, options, descriptors):
        self.options = options
        self.ending = False
        self.selector = selectors.DefaultSelector()
        self.wake, self.waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(self.waker)
        self.selector.register(self.wake, selectors.EVENT_READ, None)
        for descriptor in descriptors:
            listener = socket.socket(fileno=descriptor)
            listener.setblocking(False)
            self.selector.register(listener, selectors.EVENT_READ, listener)

        self.watchdog_s = None
        if options.watchdog and os.environ.get("WATCHDOG_PID") == str(os.getpid()):
            self.watchdog_s = int(os.environ["WATCHDOG_USEC"]) / 1e6 / 4

    def say_watchdog(self):
        if self.watchdog_s and not os.path.exists(f"{self.options.watchdog}.{os.environ['GAPLESS_WORKER']}"):
            tell_notify_socket("WATCHDOG=1")

    def answer(self, listener):
        return json.dumps({
            "fd": listener.fileno(),
            "pid": os.getpid(),
            "generation": os.environ.get("GAPLESS_GENERATION"),
            "worker": os.environ.get("GAPLESS_WORKER"),
            "version": self.options.version,
        }) + "\n"

    def serve_one(self, listener):
        if listener.type == socket.SOCK_DGRAM:
            _, sender = listener.recvfrom(65536)
            if sender:
                listener.sendto(self.answer(listener).encode(), sender)
            return
        try:
            client, _ = listener.accept()
        except BlockingIOError:
            return
        with client:
            client.settimeout(10)
            asked = client.recv(65536)
            answer = self.answer(listener)
            if asked.startswith(b"GET "):
                answer = f"HTTP/1.1 200 OK\r\nContent-Length: {len(answer)}\r\nConnection: close\r\n\r\n{answer}"
            client.sendall(answer.encode())

    def run(self):
        while not self.ending:
            self.say_watchdog()
            for key, _ in self.selector.select(self.watchdog_s):
                if key.data is None:
                    os.read(self.wake, 4096)
                else:
                    try:
                        self.serve_one(key.data)
                    except OSError as error:
                        print(f"worker.py: {error}", file=sys.stderr)

    def end(self, *_):
        self.ending = True


def main():
    inherited = open_descriptors()  # before anything here opens one
    parser = argparse.ArgumentParser()
    for name in ("dump", "signals", "version", "notify", "watchdog"):
        parser.add_argument("--" + name)
    parser.add_argument("--ready", choices=["notify", "einhorn", "none"], default="notify")
    parser.add_argument("--fd", type=int, action="append", default=[])
    parser.add_argument("--orphans", type=int, default=0)
    parser.add_argument("--exit-after-ready", type=int)
    parser.add_argument("--ignore-term", action="store_true")
    options, extra = parser.parse_known_args()
    me = f"{os.environ.get('GAPLESS_GENERATION')} {os.environ.get('GAPLESS_WORKER')}"

    if options.dump:
        write_whole(f"{options.dump}.{me.replace(' ', '.')}", {**facts(), "descriptors": inherited, "extra": extra})

    count = int(os.environ["LISTEN_FDS"]) if os.environ.get("LISTEN_PID") == str(os.getpid()) else 0
    server = Server(options, sorted({*range(3, 3 + count), *options.fd}))

    def record(number, _):
        with open(options.signals, "a", encoding="utf-8") as file:
            file.write(f"{me} {signal.Signals(number).name}\n")

    if options.signals:
        for number in (signal.SIGUSR1, signal.SIGHUP, signal.SIGWINCH):
            signal.signal(number, record)
    signal.signal(signal.SIGTERM, signal.SIG_IGN if options.ignore_term else server.end)
    signal.signal(signal.SIGQUIT, server.end)
    make_orphans(options.orphans)

    if options.notify:
        tell_notify_socket(options.notify)
    if options.ready == "notify":
        tell_notify_socket("READY=1")
    elif options.ready == "einhorn":
        tell_einhorn()
    if options.exit_after_ready is not None:
        sys.exit(options.exit_after_ready)
    server.run()


if __name__ == "__main__":
    main()

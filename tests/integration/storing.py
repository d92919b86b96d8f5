#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""A server that keeps its state in the descriptor store of its service manager, as sd_pid_notify_with_fds(3) and
sd_listen_fds_with_names(3) tell. It knows nothing of gapless. What it keeps: a counter in a memory file, and client
connections that ask for it.

A client sends lines and gets a line of JSON for each:
  what              its pid, the names that it has inherited, FDSTORE; where the descriptors lead
  count             adds one to the counter; its value
  keep              stores this connection: the next process goes on with it
  store NAME KIND…  stores one of each under NAME ("-": no FDNAME): memory:SIZE, pipe, pair, event, again (the last one), many:N
                    (N memory files at once)
  unpolled NAME KIND…   the same with FDPOLL=0
  remove NAME
  hang              closes its own ends of all pipes and pairs
  tell TEXT         sends that to the service manager; "|" separates lines
  barrier           waits until what was told before is done
"store", "unpolled", "remove" and "keep" wait, too; "tell" doesn't.
"""

import json
import os
import selectors
import signal
import socket


def listen_fds_with_names():
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return []
    count = int(os.environ["LISTEN_FDS"])
    return list(zip(os.environ["LISTEN_FDNAMES"].split(":"), range(3, 3 + count)))


def notify(text, descriptors=()):
    address = os.environ["NOTIFY_SOCKET"]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
        client.connect("\0" + address[1:] if address.startswith("@") else address)
        socket.send_fds(client, [text.encode()], descriptors)


def barrier():
    ours, theirs = os.pipe()
    notify("BARRIER=1", [theirs])
    os.close(theirs)
    os.read(ours, 1)  # its end: they have closed it
    os.close(ours)


class Server:
    def __init__(self):
        self.inherited = listen_fds_with_names()
        self.selector = selectors.DefaultSelector()
        self.ends = []
        self.last = None
        self.counter = None
        for name, descriptor in self.inherited:
            if name in ("web", "api"):
                self.watch(socket.socket(fileno=descriptor), self.accept)
            elif name == "client":
                self.watch(socket.socket(fileno=descriptor), self.serve)
            elif name == "counter":
                self.counter = descriptor
        if self.counter is None:
            self.counter = os.memfd_create("counter")
            os.ftruncate(self.counter, 8)
            notify("FDSTORE=1\nFDNAME=counter", [self.counter])

    def watch(self, channel, callback):
        channel.setblocking(False)
        self.selector.register(channel, selectors.EVENT_READ, callback)

    def accept(self, listener):
        try:
            client, _ = listener.accept()
        except BlockingIOError:
            return
        self.watch(client, self.serve)

    def serve(self, client):
        line = b""
        client.setblocking(True)
        while not line.endswith(b"\n"):
            byte = client.recv(1)
            if not byte:
                self.selector.unregister(client)
                client.close()
                return
            line += byte
        client.sendall(json.dumps(self.answer(client, line.decode().split())).encode() + b"\n")
        client.setblocking(False)

    def make(self, kind):
        kind, _, size = kind.partition(":")
        if kind == "again":
            return [self.last]
        if kind == "many":
            return [os.memfd_create(f"many{i}") for i in range(int(size))]
        if kind == "pipe":
            self.last, ours = os.pipe()
            self.ends.append(ours)
        elif kind == "pair":
            ours, theirs = socket.socketpair()
            self.last = theirs.detach()
            self.ends.append(ours.detach())
        elif kind == "event":
            self.last = os.eventfd(0)
        else:
            self.last = os.memfd_create("memory")
            os.ftruncate(self.last, int(size))
        return [self.last]

    def store(self, name, kinds, extra=""):
        for kind in kinds:
            made = self.make(kind)
            notify("FDSTORE=1" + ("" if name == "-" else f"\nFDNAME={name}") + extra, made)
            if kind.startswith("many"):
                for descriptor in made:
                    os.close(descriptor)
        barrier()

    def answer(self, client, words):
        verb, *rest = words
        if verb == "what":
            return {"pid": os.getpid(), "names": [name for name, _ in self.inherited], "FDSTORE": os.environ.get("FDSTORE"),
                    "NUMBERS": os.environ.get("NUMBERS"),
                    "links": [os.readlink(f"/proc/self/fd/{descriptor}") for _, descriptor in self.inherited]}
        if verb == "count":
            value = int.from_bytes(os.pread(self.counter, 8, 0), "little") + 1
            os.pwrite(self.counter, value.to_bytes(8, "little"), 0)
            return value
        if verb == "keep":
            notify("FDSTORE=1\nFDNAME=client", [client.fileno()])
            barrier()
        elif verb == "store":
            self.store(rest[0], rest[1:])
        elif verb == "unpolled":
            self.store(rest[0], rest[1:], "\nFDPOLL=0")
        elif verb == "remove":
            notify(f"FDSTOREREMOVE=1\nFDNAME={rest[0]}")
            barrier()
        elif verb == "hang":
            while self.ends:
                os.close(self.ends.pop())
        elif verb == "tell":
            notify(" ".join(rest).replace("|", "\n"))
        elif verb == "barrier":
            barrier()
        return "ok"

    def run(self):
        notify("READY=1")
        while True:
            for key, _ in self.selector.select():
                key.data(key.fileobj)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    Server().run()

#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""A server in Python whose state and connections move to its next version: HTTP/1.1, counters by name, one thread.

    PYTHONPATH=BUILD gapless run -l web=tcp:8080 -- ./counter.py
    PYTHONPATH=BUILD ./counter.py --port 8080           without gapless, on every address

    /count/NAME   adds one, and says the value
    /value/NAME   says it
    /forget/NAME  the counter isn't there any more
    /connection   "REQUESTS generation N": so many were answered on this connection before, by any version

--schema 1 keeps a value as decimal digits; --schema 2 as two integers of 8 bytes, the second the time of the last change, and knows
how to make one of the other. (A real server would have two programs; here one shows both.)

It is for one worker: of several, each would have counters of its own.
"""

import argparse
import errno
import selectors
import signal
import socket
import struct
import sys
import time

import gapless

HEAD_MAX = 16384
IDLE_GRACE_S = 1.0  # in a drain: what a kept connection has for one more request


class Counters(gapless.Segment):
    name = "counters"
    unknown = gapless.UNKNOWN_KEEP

    def __init__(self, schema):
        self.version = schema
        self.values = {}  # name: (value, time of the last change)
        if schema == 2:
            self.converters = {(1, 2): lambda text: struct.pack("<QQ", int(text), 0),
                               (2, 1): lambda pair: str(struct.unpack("<QQ", pair)[0]).encode()}

    def keys(self):
        return iter(list(self.values))

    def read(self, key):
        if key not in self.values:
            return None
        return struct.pack("<QQ", *self.values[key]) if self.version == 2 else str(self.values[key][0]).encode()

    def put(self, key, data):
        self.values[key] = struct.unpack("<QQ", data) if self.version == 2 else (int(data), 0)

    def remove(self, key):
        self.values.pop(key, None)

    def size(self):
        return len(self.values), 32 * len(self.values)

    def add(self, key):
        self.values[key] = (self.values.get(key, (0, 0))[0] + 1, int(time.time()))


class Client:
    """A connection. One request at a time: while there is an answer in `output` nothing is read."""

    def __init__(self, sock, listener, data=b"", requests=0):
        self.socket, self.listener, self.input, self.requests = sock, listener, bytearray(data), requests
        self.output = bytearray()
        self.held = False  # the answer waits until what it says is safe
        self.last = False  # it is the last one
        self.deadline = None
        sock.setblocking(False)


class Server(gapless.Hooks):
    def __init__(self, options):
        self.counters = Counters(options.schema)
        self.selector = selectors.DefaultSelector()
        self.clients = set()
        self.listeners = []
        self.serving = False    # requests are begun; else what comes is parked
        self.released = False   # another version has the state: connections go there
        self.ending = False
        self.worker = gapless.Worker(self, [self.counters], version=f"counter schema {options.schema}")
        if self.worker.managed:
            self.listeners = [(each.name, each.socket) for each in self.worker.listeners]
            if any(sock.type != socket.SOCK_STREAM for _, sock in self.listeners):
                self.worker.refuse(22, "it serves stream listeners alone")
                sys.exit("counter.py: it serves stream listeners alone")
        else:
            self.listeners = [("", socket.create_server(("", options.port), backlog=1024))]

    # -- the hooks, in their order

    def accept(self):
        self.serving = True
        self.watch_listeners(True)

    def own(self):
        self.serving, self.released = True, False
        self.watch_listeners(True)
        for client in list(self.clients):
            self.go_on(client)

    def freeze(self, timeout_ms):
        """A request here never waits in its midst, so nothing is running when this is called. What comes from now on stays in the
        sockets, and goes over with them."""
        self.serving = False
        self.watch_listeners(False)
        for client in self.clients:
            self.watch(client)
        self.worker.frozen()

    def release(self):
        self.serving, self.released = False, True
        self.watch_listeners(True)  # what still comes to this version is handed over, too
        for client in list(self.clients):
            self.go_on(client)

    def settled(self):
        for client in [each for each in self.clients if each.held]:
            client.held = False
            self.write(client)

    def take(self, connection):
        self.add(Client(connection.socket, connection.listener, connection.input, int(connection.state or b"0")))

    def drain(self, timeout_ms):
        self.ending = True
        self.watch_listeners(False)
        for _, sock in self.listeners:
            sock.close()
        self.listeners = []
        for client in self.clients:
            client.deadline = time.monotonic() + IDLE_GRACE_S

    def lost(self, reason):
        print(f"counter.py: {reason}", file=sys.stderr)

    # -- connections

    def watch(self, client):
        events = 0
        if client.output:
            events = 0 if client.held else selectors.EVENT_WRITE
        elif self.serving:
            events = selectors.EVENT_READ
        self.watch_socket(client.socket, events, client)

    def watch_socket(self, sock, events, data):
        key = self.selector.get_map().get(sock)
        if not events:
            if key:
                self.selector.unregister(sock)
        elif not key:
            self.selector.register(sock, events, data)
        elif key.events != events:
            self.selector.modify(sock, events, data)

    def watch_listeners(self, wanted):
        for name, sock in self.listeners:
            sock.setblocking(False)
            self.watch_socket(sock, selectors.EVENT_READ if wanted else 0, (name, sock))

    def accept_one(self, name, listener):
        try:
            self.add(Client(listener.accept()[0], name))
        except (BlockingIOError, ConnectionError):
            pass  # another worker was faster; the client has gone
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            self.watch_socket(listener, 0, None)  # the master has shut it down: the whole service ends

    def add(self, client):
        self.clients.add(client)
        if self.ending:
            client.deadline = time.monotonic() + IDLE_GRACE_S
        self.go_on(client)

    def close(self, client):
        self.watch_socket(client.socket, 0, None)
        self.clients.discard(client)
        client.socket.close()

    def read(self, client):
        try:
            data = client.socket.recv(HEAD_MAX)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        client.input += data
        if data:
            self.go_on(client)
        else:
            self.close(client)

    def write(self, client):
        try:
            del client.output[:client.socket.send(client.output)]
        except BlockingIOError:
            pass
        except OSError:
            self.close(client)
            return
        if client.output:
            self.watch(client)
        elif client.last:
            self.close(client)
        else:
            self.go_on(client)

    def go_on(self, client):
        """With the next request of a connection, if it is there, or hands the connection over."""
        if client.output:
            self.watch(client)  # its answer first
        elif self.released:
            self.watch_socket(client.socket, 0, None)
            self.clients.discard(client)
            self.worker.offer(client.socket, client.listener, bytes(client.input), str(client.requests).encode())
        elif self.serving and (end := client.input.find(b"\r\n\r\n")) >= 0:
            head = bytes(client.input[:end])
            if (answer := self.respond(client, head)):
                del client.input[:end + 4]
                self.answer(client, *answer)
            else:
                self.watch_socket(client.socket, 0, client)
        elif len(client.input) > HEAD_MAX:
            self.answer(client, 431, "too long", True)
        else:
            self.watch(client)

    def respond(self, client, head):
        """(status, body, whether it is the last) to the head of a request; None: it waits for `own`."""
        lines = head.decode("latin-1").split("\r\n")
        fields = {name.strip().lower(): value.strip().lower() for name, _, value in (line.partition(":") for line in lines[1:])}
        words = lines[0].split(" ")
        if len(words) != 3 or words[0] != "GET" or fields.keys() & {"content-length", "transfer-encoding"}:
            return 400, "only GET is known here", True
        last = self.ending or words[2] != "HTTP/1.1" or fields.get("connection") == "close"
        if words[1] == "/connection":
            return 200, f"{client.requests} generation {self.worker.generation}", last
        verb, _, name = words[1][1:].partition("/")
        key = name.encode("latin-1")
        if verb not in ("count", "value", "forget") or not key:
            return 404, "not found", last
        if verb != "value":
            if not self.worker.owned:
                return None  # another version's still: the traffic is switched a moment before
            if verb == "count":
                self.counters.add(key)
            else:
                self.counters.remove(key)
            self.worker.changed(self.counters, key)
        return 200, str(self.counters.values.get(key, (0, 0))[0]), last

    def answer(self, client, status, body, last):
        client.requests += 1
        client.last = last
        body += "\n"
        client.output += (f"HTTP/1.1 {status} {'OK' if status == 200 else 'Error'}\r\nContent-Type: text/plain\r\n"
                          f"Content-Length: {len(body)}\r\n{'Connection: close' + chr(13) + chr(10) if last else ''}\r\n"
                          f"{body}").encode("latin-1")
        # Also where nothing was changed: what it says may be of a change that isn't safe yet.
        client.held = not self.worker.settle()
        if client.held:
            self.watch(client)
        else:
            self.write(client)

    # -- the loop

    def run(self):
        self.worker.ready()
        self.selector.register(self.worker, selectors.EVENT_READ, self.worker)
        while not (self.ending and not self.clients and not self.worker.offers):
            for key, _ in self.selector.select(0.25):
                if key.fileobj.fileno() < 0 or key.data is self.worker:
                    continue  # closed by what came before it in this turn; or the last
                if not isinstance(key.data, Client):
                    self.accept_one(*key.data)
                elif key.data.output:
                    self.write(key.data)
                elif self.serving:
                    self.read(key.data)
            self.worker.dispatch()
            self.close_idle()
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it may come at once
        self.worker.done()
        self.worker.close()

    def close_idle(self):
        now = time.monotonic()
        for client in [each for each in self.clients if each.deadline and each.deadline < now]:
            if not client.output and not client.input:
                self.close(client)

    def stop(self, *_):
        if not self.ending:
            self.drain(0)


def main():
    parser = argparse.ArgumentParser(description="Counters by name, over HTTP.")
    parser.add_argument("--port", type=int, help="without gapless: serve there")
    parser.add_argument("--schema", type=int, choices=(1, 2), default=1)
    options = parser.parse_args()
    try:
        server = Server(options)
    except gapless.Error as error:
        sys.exit(f"counter.py: {error}")
    signal.signal(signal.SIGTERM, server.stop)
    server.run()


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: BSD-2-Clause
"""Exact clients of servers that don't speak HTTP: each attempt ends as answered or failed, and failed has a kind.

A protocol is a class with `begin(client)`, what comes before the first question (a greeting), and `ask(client)`, one question and its
answer. Either returns who answered, something that each generation says differently, or None. What isn't the right answer is a
`Wrong`.
"""

import contextlib
import dataclasses
import errno
import os
import socket
import struct
import threading
import time

import compat
import harness
from compat import Wrong

TIMEOUT_S = 5


def connection(target):
    """A connected socket: of tcp:HOST:PORT, udp:HOST:PORT or unix:/PATH."""
    kind, _, rest = target.partition(":")
    client = socket.socket(socket.AF_UNIX if kind == "unix" else socket.AF_INET,
                           socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM)
    try:
        client.settimeout(TIMEOUT_S)
        host, _, port = rest.rpartition(":")
        client.connect(rest if kind == "unix" else (host, int(port)))
    except BaseException:
        client.close()
        raise
    return client


def receive(client, size):
    """Exactly so many bytes."""
    data = b""
    while len(data) < size:
        more = client.recv(size - len(data))
        if not more:
            raise EOFError
        data += more
    return data


def receive_until(client, end, times=1):
    """Up to where `end` was there so many times. Nothing may come behind it."""
    data = b""
    while data.count(end) < times:
        more = client.recv(65536)
        if not more:
            raise EOFError
        data += more
    if not data.endswith(end):
        raise Wrong
    return data


def receive_line(client):
    """Byte by byte: more may come behind it."""
    line = b""
    while not line.endswith(b"\n"):
        line += receive(client, 1)
    return line


def field_of(text, name):
    """What stands behind a name in a line."""
    _, found, rest = text.partition(name)
    if not found:
        raise Wrong
    return rest.partition(b"\r\n")[0].decode()


class Exact:
    """Clients of a server that speaks this protocol: `rate` new connections a second, and `kept` on which one question follows the other."""

    def __init__(self, protocol, rate, kept=4):
        self.protocol, self.rate, self.kept = protocol, rate, kept

    def ask(self, target):
        """One question on a connection of its own: who answered."""
        with connection(target) as client:
            who = self.protocol.begin(client)
            return self.protocol.ask(client) or who

    def start(self, run, targets):
        """Puts load on; what it gives has enough() and stop(). It ends with the run."""
        load = ExactLoad(self, targets)
        run.addCleanup(load.stop)
        return load


class ExactLoad:
    THREADS = 8

    def __init__(self, clients, targets):
        self.clients, self.targets = clients, targets
        self.fresh, self.kept = compat.Count(), compat.Count()
        self.last = {"fresh": time.monotonic(), "kept": time.monotonic()}
        self.lock, self.end = threading.Lock(), threading.Event()
        self.threads = [threading.Thread(target=self._fresh, args=(number, self.THREADS / clients.rate), daemon=True)
                        for number in range(self.THREADS)]
        self.threads += [threading.Thread(target=self._keep, args=(number,), daemon=True) for number in range(clients.kept)]
        for thread in self.threads:
            thread.start()

    def enough(self, _):
        """Waits until there have been attempts for 0.4 s more."""
        wanted = self.fresh.attempted + 0.4 * self.clients.rate
        harness.wait_until(lambda: self.fresh.attempted >= wanted, "attempts")

    def stop(self):
        if not self.end.is_set():  # the last gap ends here: what is waited for below is no gap
            with self.lock:
                self._answered("fresh", self.fresh)
        self.end.set()
        for thread in self.threads:
            thread.join(harness.PATIENCE)
        if any(thread.is_alive() for thread in self.threads):
            raise AssertionError("a client did not end")
        return dataclasses.replace(self.fresh), dataclasses.replace(self.kept)

    def _attempt(self, name, count, work):
        """Does it, and books how it ended. True: it was answered."""
        kind = None
        try:
            who = work()
        except (Wrong, ValueError, IndexError, struct.error):
            kind = "wrong"
        except (EOFError, BrokenPipeError):
            kind = "cut"
        except ConnectionResetError:
            kind = "reset"
        except (ConnectionRefusedError, FileNotFoundError, BlockingIOError):
            kind = "refused"
        except TimeoutError:
            kind = "timeout"
        except OSError as error:
            kind = errno.errorcode.get(error.errno, "OSError")
        with self.lock:
            count.attempted += 1
            if kind:
                count.failed[kind] = count.failed.get(kind, 0) + 1
            else:
                count.by |= {who} - {None}
                self._answered(name, count)
        return kind is None

    def _answered(self, name, count):
        now = time.monotonic()
        count.gap_ms = max(count.gap_ms, 1000 * (now - self.last[name]))
        self.last[name] = now

    def _fresh(self, number, period):
        due = time.monotonic() + period * number / self.THREADS
        while not self.end.wait(max(0, due - time.monotonic())):
            target = self.targets[number % len(self.targets)]
            self._attempt("fresh", self.fresh, lambda: self.clients.ask(target))
            due = max(due + period, time.monotonic() - period)

    def _keep(self, number):
        target, client, protocol = self.targets[number % len(self.targets)], None, self.clients.protocol

        def work():
            nonlocal client
            who = None
            if client is None:
                client = connection(target)
                who = protocol.begin(client)
            return protocol.ask(client) or who

        while not self.end.wait(0.02):
            if not self._attempt("kept", self.kept, work) and client is not None:
                client.close()
                client = None
        if client is not None:
            client.close()


class Protocol:
    @staticmethod
    def begin(client):
        return None


class Redis(Protocol):
    """SET, GET and INFO in one go."""

    QUESTION = b"PING\r\nSET key value\r\nGET key\r\nINFO server\r\n"
    ANSWER = b"+PONG\r\n+OK\r\n$5\r\nvalue\r\n$"

    def ask(self, client):
        client.sendall(self.QUESTION)
        if receive(client, len(self.ANSWER)) != self.ANSWER:
            raise Wrong
        size = receive_line(client)
        info = receive(client, int(size) + 2)
        return field_of(info, b"config_file:")


class Memcached(Protocol):
    def ask(self, client):
        client.sendall(b"version\r\nset key 0 0 5\r\nvalue\r\nget key\r\nstats\r\n")
        answer = receive_until(client, b"END\r\n", 2)
        lines = answer.split(b"\r\n")
        if not lines[0].startswith(b"VERSION ") or lines[1:5] != [b"STORED", b"VALUE key 0 5", b"value", b"END"]:
            raise Wrong
        return field_of(answer, b"STAT pid ")


class Echo(Protocol):
    """The greeting is a line; then each line comes back."""

    def begin(self, client):
        return receive_until(client, b"\n").decode().strip()

    def ask(self, client):
        client.sendall(b"there and back\n")
        if receive(client, 15) != b"there and back\n":
            raise Wrong


class Dns(Protocol):
    """The TXT record of version.test."""

    def ask(self, client):
        number = os.urandom(2)
        question = number + bytes.fromhex("01000001000000000000") + b"\7version\4test\0" + bytes.fromhex("00100001")
        if client.type == socket.SOCK_DGRAM:
            client.send(question)
            answer = client.recv(4096)
        else:
            client.sendall(struct.pack("!H", len(question)) + question)
            answer = receive(client, struct.unpack("!H", receive(client, 2))[0])
        # One answer, no error; its data is behind the question: a name, type, class, lifetime, length, then text with its length.
        if answer[:2] != number or answer[3] & 15 or answer[6:8] != b"\0\1":
            raise Wrong
        text = answer[len(question) + 12:]
        return text[1:1 + text[0]].decode()


class Ssh(Protocol):
    """The banner, and the server's half of the key exchange's first step."""

    def begin(self, client):
        banner = receive_line(client)
        if not banner.startswith(b"SSH-2.0-OpenSSH"):
            raise Wrong
        client.sendall(b"SSH-2.0-gapless\r\n")
        size, _, kind = struct.unpack("!IBB", receive(client, 6))
        receive(client, size - 2)
        if kind != 20:  # SSH_MSG_KEXINIT
            raise Wrong
        return banner.decode().split()[-1]

    def ask(self, client):
        """A connection that is kept is asked nothing: it must still be there."""
        client.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            if not client.recv(1):
                raise EOFError
            raise Wrong
        client.settimeout(TIMEOUT_S)


class Postgres(Protocol):
    """A start without password as the user postgres, and one query."""

    def begin(self, client):
        start = struct.pack("!I", 196608) + b"user\0postgres\0database\0postgres\0\0"
        client.sendall(struct.pack("!I", len(start) + 4) + start)
        self._messages(client)

    def ask(self, client):
        query = b"select pg_postmaster_start_time()\0"
        client.sendall(b"Q" + struct.pack("!I", len(query) + 4) + query)
        rows = [body for kind, body in self._messages(client) if kind == b"D"]
        if len(rows) != 1:
            raise Wrong
        return rows[0][6:].decode()

    @staticmethod
    def _messages(client):
        """Those up to ReadyForQuery."""
        found = []
        while not found or found[-1][0] != b"Z":
            kind, size = struct.unpack("!cI", receive(client, 5))
            found.append((kind, receive(client, size - 4)))
            if kind == b"E":
                raise Wrong
        return found

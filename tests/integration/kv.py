# SPDX-License-Identifier: BSD-2-Clause
"""examples/kv and its checker, tests/helpers/kv_check: GAPLESS_KV and GAPLESS_KV_CHECK name the programs."""

import json
import os
import re
import signal
import subprocess

import harness

# What a report counts of mistakes.
WRONG = ("closed", "refused", "unanswered", "lost", "stale", "wrong")


class Client:
    """A connection that speaks the protocol by hand."""

    def __init__(self, address, timeout=None):
        self.socket = harness.connect(address, timeout)
        self.file = self.socket.makefile("rb")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.file.close()
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data)

    def line(self):
        """The next line of an answer, without its end."""
        line = self.file.readline()
        if not line.endswith(b"\r\n"):
            raise AssertionError(f"the connection ended after {line!r}")
        return line[:-2]

    def ask(self, line, value=None):
        """A request and the one line that answers it."""
        self.send(line + b"\r\n" + (value + b"\r\n" if value is not None else b""))
        return self.line()

    def set(self, key, value, flags=0, exptime=0):
        answer = self.ask(b"set %s %d %d %d" % (key, flags, exptime, len(value)), value)
        if answer != b"STORED":
            raise AssertionError(answer)

    def values(self):
        """Reads the answer of a get: {key: (flags, value)}, of a gets: {key: (flags, value, unique)}."""
        found = {}
        while (line := self.line()) != b"END":
            kind, key, flags, size, *unique = line.split(b" ")
            if kind != b"VALUE":
                raise AssertionError(line)
            value = self.file.read(int(size))
            if self.file.read(2) != b"\r\n":
                raise AssertionError("a value without its end")
            found[key] = (int(flags), value, *map(int, unique))
        return found

    def get(self, *keys):
        self.send(b"get " + b" ".join(keys) + b"\r\n")
        return {key: value for key, (_, value) in self.values().items()}

    def gets(self, *keys):
        self.send(b"gets " + b" ".join(keys) + b"\r\n")
        return self.values()

    def stats(self):
        self.send(b"stats\r\n")
        found = {}
        while (line := self.line()) != b"END":
            _, name, value = line.decode().split(" ", 2)
            found[name] = int(value) if value.isdigit() else value
        return found


class Server:
    """kv on a port, without gapless."""

    def __init__(self, case, *options):
        self.port = harness.free_port()
        self.address = ("127.0.0.1", self.port)
        self.log = case.dir / f"kv{len(case.started)}.log"
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen([harness.program("GAPLESS_KV"), "--port", str(self.port), *map(str, options)],
                                            stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            env=harness.environment())
        case.started.append(self)
        harness.wait_until(lambda: harness.tcp_sockets(self.port, harness.TCP_LISTEN), "kv to listen")

    def client(self):
        return Client(self.address)

    def stop(self):
        """TERM, and its exit status."""
        self.process.terminate()
        return self.process.wait(harness.PATIENCE)

    def finish(self):
        self.process.kill()
        self.process.wait(harness.PATIENCE)


class Check:
    """kv_check, until stop() or its own end."""

    def __init__(self, case, address, *options):
        self.log = harness.Log(case.dir / f"check{len(case.started)}.log")
        with open(self.log.path, "wb") as log:
            self.process = subprocess.Popen(
                [harness.program("GAPLESS_KV_CHECK"), "--to", "%s:%d" % address if isinstance(address, tuple) else f"unix:{address}",
                 *map(str, options)],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, text=True, env=harness.environment())
        case.started.append(self)

    def wait(self, phase):
        """"loading", "verifying": until that has begun."""
        self.log.wait(f"^{phase}$")

    def report(self):
        """Waits for its end. Its status and what it printed."""
        output, _ = self.process.communicate(timeout=3 * harness.PATIENCE)
        if self.process.returncode not in (0, 1):
            raise AssertionError(f"kv_check ended with {self.process.returncode}: {self.log.text()}")
        return self.process.returncode, json.loads(output)

    def stop(self):
        """Ends the load; the rest as report()."""
        self.process.send_signal(signal.SIGTERM)
        return self.report()

    def finish(self):
        self.process.kill()
        self.process.communicate()


def mistakes(report):
    """What went wrong, by its count; {}: nothing."""
    found = {key: report[key] for key in WRONG if report[key]}
    if report["incr_expected"] != report["incr_got"]:
        found["incr"] = report["incr_got"] - report["incr_expected"]
    return found

# SPDX-License-Identifier: BSD-2-Clause
"""What the tests of tracking and draining share: the exact server's record, its clients, and whether this machine has BPF.

GAPLESS_EXACT and GAPLESS_CLIENTS name the programs of tests/helpers/; GAPLESS_BPF=1 says that gapless was built with BPF.
"""

import json
import os
import pathlib
import re
import struct
import subprocess
import threading
import unittest

import harness

FIELDS = ("accepted", "open", "requests", "answers", "in_progress", "last_write_ns", "drain_signal_ns", "stop_signal_ns",
          "cut", "write_begun_ns")
CAPABILITIES = {"CAP_PERFMON": 38, "CAP_BPF": 39}
NUMBERS = ("connections", "in_flight", "requests", "bytes_in", "bytes_out")


def built_with_bpf():
    return os.environ.get("GAPLESS_BPF") == "1"


def why_no_bpf(capabilities=None):
    """Why the ebpf tracker (or what needs other capabilities) can't run here, None where it must: found out without asking gapless."""
    if not built_with_bpf():
        return "this build has no BPF"
    status = pathlib.Path("/proc/self/status").read_text()
    effective = int(re.search(r"CapEff:\s*(\w+)", status)[1], 16)
    missing = [name for name, bit in (capabilities or CAPABILITIES).items() if not effective >> bit & 1 and not effective >> 21 & 1]
    if missing:
        return f"not permitted: {', '.join(missing)}"
    release = tuple(map(int, re.match(r"(\d+)\.(\d+)", os.uname().release).groups()))
    if release < (6, 3):
        return f"Linux {os.uname().release} is older than 6.3"
    if not os.path.exists("/sys/kernel/btf/vmlinux"):
        return "the kernel has no BTF"
    return None


def needs_bpf(test):
    """Decorates what only the ebpf tracker can do."""
    reason = why_no_bpf()
    return unittest.skipIf(reason is not None, reason or "")(test)


def best_steering(spec):
    """The tier that a listener has which asks for none."""
    ebpf = why_no_bpf() is None
    if spec.startswith("tcp:"):
        return "ebpf" if ebpf else "cbpf"
    if spec.startswith("udp:") and ebpf:
        return "ebpf"
    return "path" if spec.startswith("unix:/") else "shared"


class Record:
    """What one worker of the exact server says of itself; it outlives the worker."""

    def __init__(self, prefix, generation=1, worker=0):
        self.path = pathlib.Path(f"{prefix}.{generation}.{worker}")

    def read(self):
        data = self.path.read_bytes() if self.path.exists() else b""
        return dict(zip(FIELDS, struct.unpack(f"<{len(FIELDS)}Q", data))) if len(data) == 8 * len(FIELDS) else {}

    def __getitem__(self, field):
        return self.read()[field]

    def wait(self, field, condition, timeout=None):
        """Waits until the field satisfies the condition, and returns it."""
        return harness.wait_until(lambda: (lambda read: field in read and condition(read[field]) and [read[field]])(
            self.read()), lambda: f"{field} of {self.path.name}, which says {self.read()}", timeout)[0]


class Server(harness.TestCase):
    """A case with the exact server as the worker of a gapless."""

    def setUp(self):
        super().setUp()
        self.dir.chmod(0o777)  # also nobody's gapless works there
        self.port = harness.free_port()
        self.address = ("127.0.0.1", self.port)
        self.records = self.dir / "record"

    def exact(self, mode, *options):
        return ["-l", f"tcp:127.0.0.1:{self.port}", "--", harness.program("GAPLESS_EXACT"), mode, str(self.records),
                *map(str, options)]

    def record(self, generation=1, worker=0):
        return Record(self.records, generation, worker)

    def clients(self, *options, timeout=None):
        """Runs the clients to their end; their report. Those that behave must all have been answered."""
        command = [harness.program("GAPLESS_CLIENTS"), *map(str, options), *map(str, self.address)]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
                              timeout=timeout or harness.PATIENCE)
        self.assertEqual((done.returncode, done.stderr), (0, ""), f"{command} {done.stdout}")
        return json.loads(done.stdout)


def workers(service):
    return [worker for generation in service["generations"] for worker in generation["workers"]]


def totals(gapless):
    """The numbers of all workers of the only service, added up. None: some number isn't known."""
    added = dict.fromkeys(NUMBERS, 0)
    for worker in workers(gapless.service()):
        for key in NUMBERS:
            if worker[key] is None:
                return None
            added[key] += int(worker[key])
    return added


class Watch(threading.Thread):
    """Reads the status all along and keeps what can't be right: numbers that are unknown, negative, beyond any reason,
    or that went back. Use as a context manager; `wrong` holds what was found."""

    PAUSE_S = 0.02

    def __init__(self, gapless, most):
        super().__init__(daemon=True)
        self.gapless, self.most = gapless, most
        self.wrong, self.samples, self.highest = [], 0, dict.fromkeys(NUMBERS, 0)
        self._last, self._end = {}, threading.Event()

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self._end.set()
        self.join()

    def run(self):
        while not self._end.wait(self.PAUSE_S):
            for worker in workers(self.gapless.service() or {"generations": []}):
                if worker["state"] == "ready":
                    self._judge(worker)
            self.samples += 1

    def _judge(self, worker):
        last = self._last.get(worker["pid"], worker)
        for key in NUMBERS:
            value = worker[key]
            if value is None or int(value) < 0 or key in ("connections", "in_flight") and int(value) > self.most:
                self.wrong.append(f"{key} of {worker['pid']} is {value}")
            elif key not in ("connections", "in_flight") and int(value) < int(last[key] or 0):
                self.wrong.append(f"{key} of {worker['pid']} went from {last[key]} to {value}")
            else:
                self.highest[key] = max(self.highest[key], int(value))
        self._last[worker["pid"]] = worker

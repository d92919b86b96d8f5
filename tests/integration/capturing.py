# SPDX-License-Identifier: BSD-2-Clause
"""What the tests of capture share: services whose server is tests/helpers/binder, which binds its own addresses and knows
nothing of gapless. GAPLESS_BINDER names the program; binder.h is its manual."""

import contextlib
import os
import pathlib
import re
import shlex
import signal
import socket

import exact
import harness

UPGRADES = int(os.environ.get("GAPLESS_TEST_UPGRADES", 3 if harness.SANITIZED else 10))
RATE = int(os.environ.get("GAPLESS_TEST_RATE", 200 if harness.SANITIZED else 2000))
LOAD_BEGUN = 20  # connections
QUICK = ("--drain-quiet", "50ms", "--drain-idle-grace", "0")
NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all", "--bounding-set=-all")


def process_status(pid):
    """/proc/PID/status as a dictionary."""
    text = pathlib.Path(f"/proc/{pid}/status").read_text()
    return dict(re.findall(r"(\w+):\s*(.*)", text))


def listening(port):
    """True if a connection to the port of 127.0.0.1 is accepted."""
    with contextlib.suppress(ConnectionRefusedError):
        harness.connect(("127.0.0.1", port)).close()
        return True
    return False


class TestCase(harness.TestCase):
    """A case with a port, in a directory in which nobody's gapless can work, too."""

    WRAPPER = ()
    FLAGS = ()  # of each gapless
    BINDER = ()  # of each server

    def setUp(self):
        super().setUp()
        self.dir.chmod(0o777)
        self.records = self.dir / "record"
        self.open_address()

    def open_address(self):
        """A new one, whose servers have records of their own."""
        self.port = harness.free_port()
        self.records = self.dir / f"record{self.port}"
        self.address = f"127.0.0.1:{self.port}"
        self.listen = self.target = f"tcp:{self.address}"

    def free_ports(self, count):
        """Some, of which none is the case's own."""
        ports = {}
        while len(ports) < count:
            port = harness.free_port()
            if port != self.port:
                ports[port] = True
        return list(ports)

    def binder(self, *options, at=None, records=None):
        """The command of a server that binds the case's address, or those that are given."""
        return [harness.program("GAPLESS_BINDER"), "--record", str(records or self.records), *self.BINDER,
                *map(str, options), *([self.address] if at is None else at)]

    def install(self, *command, before=""):
        """Makes this what the generations from the next one on run, behind a line of shell; what to start is self.installed()."""
        self.write("server", f"#!/bin/sh\n{before}\nexec {shlex.join(map(str, command))}\n", 0o755)

    def installed(self):
        return [str(self.dir / "server")]

    def begin(self, *arguments, **keywords):
        return self.start(*QUICK, *self.FLAGS, *arguments, wrapper=self.WRAPPER, **keywords)

    def bound(self, *arguments, command=None, **keywords):
        """Starts a gapless with a binder and waits until it serves. Without -l among the arguments it has no listener."""
        gapless = self.begin(*arguments, "--", *(command or self.binder()), **keywords)
        gapless.wait_serving(1)
        return gapless

    def load(self, rate=RATE // 4, targets=None):
        """Load on the case's address, or others; it is on when the servers say so."""
        before = self.accepted()
        return harness.Load(self, "--rate", rate, "--by-header", "X-Generation", *(targets or [self.target]),
                            begun=lambda: self.accepted() > before + LOAD_BEGUN)

    def accepted(self):
        """By all servers that the case has started."""
        names = (path.name.split(".") for path in self.dir.glob("record*.*.*"))
        return sum(exact.Record(self.dir / prefix, *which).read().get("accepted", 0) for prefix, *which in names)

    def record(self, generation=1, worker=0):
        return exact.Record(self.records, generation, worker)

    def assert_each_answered(self, report, generations, workers=1):
        """Nothing failed, each of the generations has answered, and whatever one accepted it has answered."""
        self.assert_clean(report)
        counts = {int(generation): each["count"] for generation, each in report["by"].items()}
        self.assertEqual(set(counts), set(generations))
        for generation in generations:
            def accepted_and_answered():
                records = [self.record(generation, worker).read() for worker in range(workers)]
                return [sum(record[key] for record in records) for key in ("accepted", "answers")], records

            # A server counts behind its answer.
            harness.wait_until(lambda: accepted_and_answered()[0] == [counts[generation]] * 2,
                               lambda: f"generation {generation} to have answered {counts[generation]}: {accepted_and_answered()}")

    def assert_upgrade_fails(self, gapless, generation, *words):
        """The upgrade that has been asked for ends so, in these words, and the new generation is gone."""
        line = gapless.log.wait("upgrade failed", generation=generation)
        harness.wait_until(lambda: len(gapless.service()["generations"]) == 1, "the failed generation to be gone")
        for word in words:
            self.assertRegex(line.fields["reason"], word)

    def kill_master(self, gapless):
        master = gapless.wait_master()
        os.kill(master, signal.SIGKILL)
        gapless.wait_master(but=master)
        harness.wait_until(gapless.service, "the next master to answer")

    def upgrade(self, gapless, generation):
        gapless.hup()
        gapless.wait_serving(generation)

    @staticmethod
    def held(gapless):
        """How many descriptors master and keeper have, but for the two by which the version before is held."""
        pinned = 2 if ((gapless.service() or {}).get("upgrade") or {}).get("previous") else 0
        return [len(harness.descriptors(pid)) - pinned for pid in (gapless.wait_master(), gapless.keeper_pid())]

    def assert_holds_no_more(self, gapless, before, fillers=0):
        harness.wait_until(lambda: all(now <= then + fillers for now, then in zip(self.held(gapless), before)),
                           lambda: f"no more descriptors than {before} (and {fillers}), {self.held(gapless)}: "
                                   f"{harness.descriptors(gapless.wait_master())} {harness.descriptors(gapless.keeper_pid())}")

    def ask(self):
        """A client that has sent its request and waits."""
        path = isinstance(self.target_address(), str)
        client = socket.socket(socket.AF_UNIX if path else socket.AF_INET)
        self.addCleanup(client.close)
        client.settimeout(harness.PATIENCE)
        client.connect(self.target_address())
        client.sendall(b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
        return client

    def target_address(self):
        return ("127.0.0.1", self.port)

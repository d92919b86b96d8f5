#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""Clients of kept connections at an upgrade: what an operator is told of them, and in which order a drain goes.

The server knows nothing of gapless and never says `Connection: close` by itself. USR2, its drain signal, is written down
with its time, and so is TERM, which ends it at once.
"""

import ctypes
import errno
import json
import os
import pathlib
import platform
import re
import shutil
import signal
import socket
import struct
import subprocess
import threading
import time
import unittest

import exact
import harness

NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all", "--bounding-set=-all")
QUIET = ("--drain-quiet", "50ms")
QUICK = (*QUIET, "--drain-idle-grace", "0")
ROOT = os.getuid() == 0 and shutil.which("setpriv")
# From what should end a wait to the end of it, where no figure of time is tested: a machine may be busy.
SLACK_S = 10.0 if harness.SANITIZED else 3.0
COUNTS = {"enlisted", "unlistable", "answers", "overwritten", "inserted", "already", "more", "not_http", "too_long",
          "in_doubt"}
CAP_NET_ADMIN = 12

# Of /long the head is longer than what is looked at. Writes down when its drain signal came.
LONG_HEADS = """#!/usr/bin/python3
import os, signal, socket, sys, threading, time

def told(*_):
    with open(sys.argv[1] + ".new", "w") as file:
        file.write(str(time.monotonic_ns()))
    os.rename(sys.argv[1] + ".new", sys.argv[1])

def serve(client):
    while data := client.recv(65536):
        more = "X-Long: " + 20000 * "x" + "\\r\\n" if b"/long" in data else ""
        client.sendall(f"HTTP/1.1 200 OK\\r\\n{more}Content-Length: 3\\r\\n\\r\\nok\\n".encode())
    client.close()

signal.signal(signal.SIGUSR2, told)
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
    address = os.environ["NOTIFY_SOCKET"]
    notify.sendto(b"READY=1", "\\0" + address[1:] if address[0] == "@" else address)
listener = socket.socket(fileno=3)
while True:
    threading.Thread(target=serve, args=listener.accept()[:1], daemon=True).start()
"""


def needs_keepalive(test):
    """Decorates what only the ebpf tracker with CAP_NET_ADMIN can do."""
    effective = int(re.search(r"CapEff:\s*(\w+)", pathlib.Path("/proc/self/status").read_text())[1], 16)
    allowed = effective >> CAP_NET_ADMIN & 1 or effective >> 21 & 1
    return exact.needs_bpf(unittest.skipUnless(allowed, "not permitted: CAP_NET_ADMIN")(test))


def now_ns():
    return time.monotonic_ns()


class Client:
    """A connection that is kept, with one request at a time."""

    def __init__(self, case):
        self.socket = harness.connect(case.address)
        case.addCleanup(self.socket.close)
        self.answers = 0
        self.due_ns = 0  # no answer can be there before

    def ask(self, path="/"):
        self.due_ns = now_ns() + int(path.partition("?")[2] or 0) * 1_000_000
        self.socket.sendall(f"GET {path} HTTP/1.1\r\nHost: test\r\n\r\n".encode())

    def answer(self):
        """Whether the answer says close; None: the connection has ended before it."""
        data = b""
        while b"\r\n\r\n" not in data:
            more = self.socket.recv(65536)
            if not more and not data:
                return None
            assert more, f"cut in the head: {data!r}"
            data += more
        head, _, body = data.partition(b"\r\n\r\n")
        length = int(re.search(rb"(?im)^content-length: (\d+)", head)[1])
        while len(body) < length:
            body += self.socket.recv(65536)
        assert len(body) == length, data
        self.answers += 1
        return b"connection: close" in head.lower().split(b"\r\n")

    def get(self, path="/"):
        self.ask(path)
        return self.answer()

    def leave(self):
        """Closes it; the moment before."""
        at_ns = now_ns()
        self.socket.close()
        return at_ns

    def reset(self):
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


class Busy(threading.Thread):
    """A client that asks again and again until it is told to close (or until `end`), and then leaves."""

    def __init__(self, client, path="/wait?10"):
        super().__init__(daemon=True)
        self.client, self.path = client, path
        self.told, self.left_ns, self.end = False, None, threading.Event()
        self.start()

    def run(self):
        while self.told is False and not self.end.is_set():
            self.told = self.client.get(self.path)
        self.left_ns = self.client.leave()


class Upgrade:
    """`gapless upgrade --json`, watched while it goes on."""

    def __init__(self, case, gapless):
        self.log = harness.Log(case.dir / f"upgrade{len(case.started)}.out")
        with open(self.log.path, "ab") as out:
            self.process = subprocess.Popen([harness.program("GAPLESS"), "upgrade", "--json", "--admin", gapless.admin],
                                            stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=harness.environment())
        case.started.append(self)

    def progress(self):
        """[(phase, text)]"""
        replies = [json.loads(line.text) for line in self.log.lines()]
        return [(reply["progress"]["phase"], reply["progress"]["text"]) for reply in replies if "progress" in reply]

    def wait(self, phase):
        harness.wait_until(lambda: phase in dict(self.progress()), lambda: f"phase {phase}: {self.progress()}")

    def end(self):
        """All that it said."""
        code = self.process.wait(harness.PATIENCE)
        assert code == 0, (code, self.log.text())
        return self.progress()

    def finish(self):
        self.process.kill()
        self.process.wait(harness.PATIENCE)


class KeepaliveCase(exact.Server):
    def run_exact(self, *flags, mode="threads", options="", wrapper=()):
        """With a drain signal; `options` are the listener's."""
        listen, address, *command = self.exact(mode)
        return self.serve("--drain-signal", "USR2", *flags, listen, address + options, *command, wrapper=wrapper)

    def kept(self):
        """A client that has had an answer."""
        client = Client(self)
        self.assertIs(client.get(), False)
        return client

    def slow(self, ms, generation=1):
        """A client whose request is being worked on."""
        client = Client(self)
        before = self.record(generation)["requests"]
        client.ask(f"/wait?{ms}")
        self.record(generation).wait("requests", lambda value: value > before)
        return client

    def switch(self, gapless, to=2):
        """By HUP; returns when that generation serves."""
        gapless.hup()
        harness.wait_until(lambda: gapless.generation() == to, "the switch")

    @staticmethod
    def status_of(gapless, generation=1):
        """Of one generation; None: it has gone."""
        found = [each for each in (gapless.service() or {"generations": []})["generations"] if each["id"] == generation]
        return found[0] if found else None

    def farewell(self, gapless, generation=1):
        return (self.status_of(gapless, generation) or {}).get("farewell") or dict.fromkeys(COUNTS, 0)

    def wait_farewell(self, gapless, generation=1, **counts):
        """Waits until the counts are these, at least."""
        harness.wait_until(lambda: all(self.farewell(gapless, generation)[key] >= value for key, value in counts.items()),
                           lambda: f"{counts} of generation {generation}: {self.farewell(gapless, generation)}")

    def drain_signal(self, generation=1, worker=0):
        return self.record(generation, worker).wait("drain_signal_ns", lambda value: value)

    def assert_no_drain_signal(self, generation=1, worker=0):
        self.assertEqual(self.record(generation, worker)["drain_signal_ns"], 0, "it got its drain signal too early")

    def wait_past(self, since_ns, after_s):
        """What is waited for is that something does not happen: only time can tell."""
        time.sleep(max(0, after_s - (now_ns() - since_ns) / 1e9))


class UnableTest(KeepaliveCase):
    """Where nobody tells the clients an upgrade says so, before it begins."""

    def upgrade(self, *flags, **keywords):
        """What an upgrade of the exact server says."""
        gapless = self.run_exact(*QUICK, *flags, **keywords)
        said = Upgrade(self, gapless).end()
        gapless.wait_serving(2)
        self.assertIn("spawn", dict(said))
        return gapless, said

    def assert_warns(self, gapless, said, *words):
        self.assertEqual([phase for phase, _ in said].count("keepalive"), 1, said)
        self.assertEqual(said[0][0], "keepalive", said)
        self.assertRegex(said[0][1], "^clients of kept connections may see them closed: .")
        keepalive = gapless.service()["keepalive"]
        self.assertIsNone(keepalive["name"])
        for word in words:
            self.assertIn(word, said[0][1])
            self.assertIn(word, keepalive["reason"])
        # For people, too.
        lines = gapless.verb("upgrade").stdout.splitlines()
        self.assertRegex(lines[0], r"^ +\d+\.\d\d s  \S+  keepalive: clients of kept connections may see them closed: .")

    @unittest.skipUnless(ROOT, "only root can become nobody")
    def test_nobody_is_told_why(self):
        self.assert_warns(*self.upgrade(wrapper=NOBODY), "ebpf tracker" if exact.built_with_bpf() else "no BPF")

    def test_another_tracker_is_the_reason(self):
        self.assert_warns(*self.upgrade("--tracker", "sock_diag"), "ebpf tracker" if exact.built_with_bpf() else "no BPF")

    @exact.needs_bpf
    def test_shared_listeners_are_the_reason(self):
        self.assert_warns(*self.upgrade(options=",steering=shared"), "steering shared")

    def test_who_has_turned_it_off_is_not_warned(self):
        gapless, said = self.upgrade("--drain-keepalive", "off")
        self.assertNotIn("keepalive", dict(said))
        self.assertIsNone(gapless.service()["keepalive"]["name"])
        self.assertIn("off", gapless.service()["keepalive"]["reason"])

    def test_native_workers_do_it_themselves(self):
        gapless = self.serve("--tracker", "sock_diag", "-l", f"tcp:127.0.0.1:{self.port}", "--", self.hello("one"))
        self.assertEqual(gapless.service()["keepalive"]["name"], "native")
        self.assertFalse(gapless.service()["keepalive"]["reason"])
        client = harness.connect(self.address)
        self.addCleanup(client.close)
        client.sendall(b"GET /slow?ms=%d HTTP/1.1\r\nHost: test\r\n\r\n" % harness.SLOW_MS)
        harness.wait_until(lambda: harness.established(self.port, gapless.worker_pids()[0]), "the request")
        upgrade = Upgrade(self, gapless)
        upgrade.wait("retire")
        old = self.status_of(gapless)
        self.assertEqual((old["state"], old["farewell"], old["idle_closed"]), ("draining", None, None))
        self.assertNotIn("keepalive", dict(upgrade.end()))

    def test_idle_connections_are_counted_without_it(self):
        """By sock_diag, and the drain signal goes at once."""
        gapless = self.run_exact("--tracker", "sock_diag", *QUIET, "--drain-idle-grace", "300ms")
        idle, slow = self.kept(), self.slow(harness.SLOW_MS)
        upgrade = Upgrade(self, gapless)
        upgrade.wait("retire")
        self.drain_signal()
        self.record().wait("in_progress", lambda value: value == 1)
        old = self.status_of(gapless)
        self.assertEqual((old["farewell"], old["idle_closed"]), (None, 0))
        self.assertIs(slow.answer(), False)
        slow.leave()
        self.assertEqual(upgrade.end()[-1], ("retire", "generation 1 has ended; it had 1 idle connection still"))
        self.assertIsNone(idle.answer())


@needs_keepalive
class KeepaliveTest(KeepaliveCase):
    # -- what is said

    def test_where_it_works_nobody_is_warned(self):
        gapless = self.run_exact(*QUICK)
        keepalive = gapless.service()["keepalive"]
        self.assertEqual((keepalive["name"], keepalive["reason"] or ""), ("ebpf", ""))
        client = self.kept()
        upgrade = Upgrade(self, gapless)
        phases = [phase for phase, _ in upgrade.end()]
        self.assertNotIn("keepalive", phases)
        self.assertEqual([phase for phase in phases if phase in ("spawn", "ready", "switch", "retire")],
                         ["spawn", "ready", "switch", "retire", "retire"])
        self.assertIsNone(client.answer())

    def test_status_log_and_upgrade_say_what_becomes_of_the_connections(self):
        gapless = self.run_exact(*QUIET, "--drain-idle-grace", "1s")
        idle, slow = [self.kept(), self.kept()], self.slow(harness.SLOW_MS)
        active = self.status_of(gapless)
        self.assertEqual((active["farewell"], active["idle_closed"]), (None, None))
        upgrade = Upgrade(self, gapless)
        upgrade.wait("retire")
        self.wait_farewell(gapless, enlisted=3)
        old = self.status_of(gapless)
        self.assertEqual((old["state"], old["idle_closed"]), ("draining", 0))
        self.assertEqual(old["farewell"].keys(), COUNTS)
        self.assertEqual(old["farewell"], {**dict.fromkeys(COUNTS, 0), "enlisted": 3})
        self.assertIs(slow.answer(), True)
        slow.leave()
        self.wait_farewell(gapless, inserted=1, answers=1)
        self.assertEqual(self.farewell(gapless), {**dict.fromkeys(COUNTS, 0), "enlisted": 3, "inserted": 1, "answers": 1})
        self.drain_signal()
        # Until it has ended, which is soon.
        harness.wait_until(lambda: (self.status_of(gapless) or {"idle_closed": 2})["idle_closed"] == 2, "the idle connections to be counted")
        self.assertEqual(upgrade.end()[-1], ("retire", "generation 1 has ended; it had 2 idle connections still"))
        gapless.log.wait("worker drained", generation=1, idle_closed=2)
        gapless.log.wait("generation ended", generation=1, idle_closed=2)
        for client in idle:
            self.assertIsNone(client.answer())
        new = self.status_of(gapless, 2)
        self.assertEqual((new["farewell"], new["idle_closed"]), (None, None))

    def test_without_idle_connections_there_is_nothing_to_say(self):
        gapless = self.run_exact(*QUIET)
        client = self.slow(harness.SLOW_MS)
        upgrade = Upgrade(self, gapless)
        self.assertIs(client.answer(), True)
        client.leave()
        self.assertEqual([text for phase, text in upgrade.end() if phase == "retire"], [""])
        gapless.log.wait("worker drained", generation=1, idle_closed=0)
        gapless.log.wait("generation ended", generation=1, idle_closed=0)

    # -- the order

    def test_drain_signal_waits_until_busy_clients_were_told_and_have_left(self):
        gapless = self.run_exact(*QUIET, "--drain-idle-grace", "1h")
        clients = [Busy(self.kept()) for _ in range(4)]
        harness.wait_until(lambda: all(busy.client.answers > 2 for busy in clients), "the clients to be busy")
        self.switch(gapless)
        for busy in clients:
            busy.join(harness.PATIENCE)
        self.assertEqual([busy.told for busy in clients], [True] * 4)
        self.assertGreater(self.drain_signal(), max(busy.client.due_ns for busy in clients))
        gapless.wait_serving(2)
        self.assertEqual(self.record()["cut"], 0)

    def test_drain_signal_waits_for_a_request_that_takes_long(self):
        gapless = self.run_exact(*QUIET, "--drain-idle-grace", "200ms")
        client = self.slow(harness.SLOW_MS)
        self.switch(gapless)
        self.assertIs(client.answer(), True)
        self.assertGreater(self.drain_signal(), client.due_ns)
        client.leave()
        gapless.wait_serving(2)

    def test_drain_signal_comes_when_idle_connections_have_had_their_grace(self):
        gapless = self.run_exact(*QUIET, "--drain-idle-grace", "700ms")
        client, began_ns = self.kept(), now_ns()
        self.switch(gapless)
        seen_ns = now_ns()
        told_ns = self.drain_signal()
        self.assertGreaterEqual(told_ns - began_ns, 700e6)
        self.assertLess(told_ns - seen_ns, 750e6 + SLACK_S * 1e9)
        self.assertEqual(self.record()["open"], 1, "it is the server that closes it, or the stop signal")
        gapless.wait_serving(2)
        self.assertIsNone(client.answer())

    def test_idle_client_that_leaves_is_not_waited_for(self):
        gapless = self.run_exact(*QUIET, "--drain-idle-grace", "1h")
        client = self.kept()
        self.switch(gapless)
        self.wait_past(now_ns(), 0.5)
        self.assert_no_drain_signal()
        left_ns = client.leave()
        self.assertGreater(self.drain_signal(), left_ns)
        gapless.wait_serving(2)

    def test_turned_off_the_drain_signal_comes_at_once(self):
        gapless = self.run_exact(*QUIET, "--drain-keepalive", "off")
        client = self.slow(harness.SLOW_MS)
        self.switch(gapless)
        self.drain_signal()
        self.record().wait("in_progress", lambda value: value == 1)
        self.assertIsNone(self.status_of(gapless)["farewell"])
        self.assertIs(client.answer(), False)
        client.leave()
        gapless.wait_serving(2)

    def test_what_is_no_http_by_tcp_gets_its_drain_signal_at_once(self):
        """There is nobody that could be told."""
        unix = str(self.dir / "web.sock")
        for address, listen, flags in ((self.address, f"tcp:127.0.0.1:{self.port}", ["--protocol", "stream"]),
                                       (unix, f"unix:{unix}", [])):
            self.records = self.dir / listen.partition(":")[0]
            gapless = self.serve("--drain-signal", "USR2", *QUIET, "--drain-idle-grace", "1h", "--drain-timeout", "4s", *flags,
                                 "-l", listen, "--", harness.program("GAPLESS_EXACT"), "threads", str(self.records))
            with harness.connect(address) as client:
                client.sendall(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
                self.assertEqual(harness.read_answer(client), (200, "ok\n"))
                self.switch(gapless)
                self.drain_signal()
            gapless.wait_serving(2)
            gapless.finish()

    def test_clients_that_cannot_be_told_are_not_waited_for(self):
        """The answers aren't HTTP, as those of a TLS server, and the client is always busy."""
        gapless = self.run_exact(*QUIET, "--drain-idle-grace", "1h", mode="banner")
        client = harness.connect(self.address)
        self.addCleanup(client.close)
        end, lines = threading.Event(), client.makefile("rb")

        def talk():
            while lines.readline() and not end.is_set():
                client.sendall(b"HELLO\r\n")
            client.close()
            lines.close()
        talker = threading.Thread(target=talk, daemon=True)
        talker.start()
        self.record().wait("answers", lambda value: value > 10)
        self.switch(gapless)
        self.drain_signal()
        counts = self.farewell(gapless)
        self.assertEqual((counts["overwritten"], counts["inserted"]), (0, 0))
        self.assertGreaterEqual(counts["not_http"], 1)
        self.assertEqual(counts["answers"], counts["not_http"])
        self.assertEqual(self.record()["stop_signal_ns"], 0, "its client is busy still")
        end.set()
        talker.join(harness.PATIENCE)
        gapless.wait_serving(2)
        self.assertEqual(self.record()["cut"], 0)
        # From now on that is known before an upgrade.
        self.assertIn("weren't HTTP", dict(Upgrade(self, gapless).end())["keepalive"])

    def test_beside_clients_that_cannot_be_told_the_others_have_the_grace_only(self):
        """A worker that is never idle: the head of each answer is too long to be looked at."""
        told_at = self.dir / "told"
        gapless = self.serve("--drain-signal", "USR2", *QUIET, "--drain-idle-grace", "700ms", "-l", f"tcp:127.0.0.1:{self.port}",
                             "--", self.write("server", LONG_HEADS, 0o755), told_at)
        idle, busy = self.kept(), Busy(Client(self), "/long")
        harness.wait_until(lambda: busy.client.answers > 2, "the client to be busy")
        began_ns = now_ns()
        self.switch(gapless)
        seen_ns = now_ns()
        self.wait_farewell(gapless, enlisted=2, too_long=1)
        told_ns = int(harness.wait_until(lambda: told_at.exists() and told_at.read_text(), "the drain signal"))
        self.assertGreaterEqual(told_ns - began_ns, 700e6)
        self.assertLess(told_ns - seen_ns, 700e6 + SLACK_S * 1e9)
        self.assertTrue(busy.is_alive(), "it is busy still")
        busy.end.set()
        busy.join(harness.PATIENCE)
        self.assertIs(busy.told, False)
        idle.leave()
        gapless.wait_serving(2)

    def test_stop_signal_comes_at_the_timeout_whatever_is_held(self):
        gapless = self.run_exact(*QUIET, "--drain-idle-grace", "1h", "--drain-timeout", "1s")
        client, began_ns = self.slow(60000), now_ns()
        self.switch(gapless)
        seen_ns = now_ns()
        stopped_ns = self.record().wait("stop_signal_ns", lambda value: value)
        self.assertGreaterEqual(stopped_ns - began_ns, 1e9)
        self.assertLess(stopped_ns - seen_ns, 1e9 + SLACK_S * 1e9)
        self.assert_no_drain_signal()
        gapless.log.wait("did not drain in time", generation=1)
        gapless.wait_serving(2)
        with self.assertRaises((AssertionError, ConnectionResetError)):
            self.assertIsNotNone(client.answer())

    def test_stop_of_the_service_while_it_is_held(self):
        """It is told then, before its listeners are closed, and goes on with what it has."""
        gapless = self.run_exact(*QUIET, "--drain-idle-grace", "1h")
        client = self.slow(harness.SLOW_MS)
        self.switch(gapless)
        harness.wait_until(lambda: self.status_of(gapless)["workers"][0]["state"] == "draining", "the drain to begin")
        gapless.signal(signal.SIGTERM)
        self.assertIsNotNone(client.answer(), "its request is cut")
        client.leave()
        self.drain_signal()
        self.assertEqual(gapless.wait_exit(), 0)
        self.assertEqual(self.record()["cut"], 0)

    # -- more than one upgrade, or master

    def kill_master(self, gapless):
        """Returns when the next one answers."""
        master = gapless.wait_master()
        os.kill(master, signal.SIGKILL)
        gapless.wait_master(but=master)
        harness.wait_until(gapless.service, "the next master to answer")

    def test_next_master_holds_the_drain_signal(self):
        gapless = self.run_exact(*QUIET, "--drain-idle-grace", "1h")
        idle, slow = self.kept(), self.slow(harness.SLOW_MS)
        self.switch(gapless)
        harness.wait_until(lambda: self.status_of(gapless)["workers"][0]["state"] == "draining", "the drain to begin")
        self.wait_farewell(gapless, enlisted=2)
        self.kill_master(gapless)
        self.assertEqual(self.farewell(gapless)["enlisted"], 2)
        self.assertIs(slow.answer(), True)
        slow.leave()
        self.assert_no_drain_signal()
        asked_ns = time.monotonic_ns()
        self.assertIs(idle.get(), True)
        self.assertGreater(self.drain_signal(), asked_ns)
        idle.leave()
        gapless.wait_serving(2)
        gapless.log.wait("worker drained", generation=1, idle_closed=0)

    def test_next_master_goes_on_telling(self):
        """A client waits to be accepted until the second master is there: only that one can have enlisted it."""
        gapless = self.run_exact(*QUIET, "--drain-idle-grace", "1h")
        idle = self.kept()
        old = gapless.worker_pids()[0]
        os.kill(old, signal.SIGSTOP)
        harness.wait_until(lambda: all((harness.stat_fields(task) or "?")[0] == "T" for task in os.listdir(f"/proc/{old}/task")),
                           "every thread to be stopped")
        late = Client(self)
        late.ask("/wait?1500")
        self.switch(gapless)
        self.wait_farewell(gapless, enlisted=1)
        self.kill_master(gapless)
        self.assertEqual(self.farewell(gapless)["enlisted"], 1)
        os.kill(old, signal.SIGCONT)
        self.assertIs(late.answer(), True)
        self.assertEqual(self.farewell(gapless)["enlisted"], 2)
        self.assert_no_drain_signal()
        self.assertIs(idle.get(), True)
        self.assertGreater(self.drain_signal(), idle.due_ns)
        for client in (idle, late):  # told and still there they'd have the grace of an hour, until the timeout
            client.leave()
        gapless.wait_serving(2)

    def test_master_that_is_killed_right_after_the_switch(self):
        gapless = self.run_exact(*QUIET, "--drain-idle-grace", "1h")
        clients = [Busy(self.kept()) for _ in range(4)]
        master = gapless.wait_master()
        gapless.hup()
        gapless.log.wait("upgrade committed", generation=2)
        os.kill(master, signal.SIGKILL)
        gapless.wait_master(but=master)
        for busy in clients:
            busy.join(harness.PATIENCE)
        self.assertEqual([busy.told for busy in clients], [True] * 4)
        self.assertGreater(self.drain_signal(), max(busy.client.due_ns for busy in clients))
        gapless.wait_serving(2)

    def test_two_upgrades_in_a_row(self):
        gapless = self.run_exact(*QUIET, "--drain-idle-grace", "1h")
        idle, first = self.kept(), self.slow(2500)
        self.switch(gapless, 2)
        second = self.slow(1500, generation=2)
        self.switch(gapless, 3)
        self.wait_farewell(gapless, 1, enlisted=2)
        self.wait_farewell(gapless, 2, enlisted=1)
        self.assertIsNone(self.status_of(gapless, 3)["farewell"])
        self.assertIs(second.answer(), True)
        self.assertGreater(self.drain_signal(2), second.due_ns)
        second.leave()
        self.assertIs(first.answer(), True)
        self.assert_no_drain_signal(1)
        self.assertIs(idle.get(), True)
        self.assertGreater(self.drain_signal(1), idle.due_ns)
        idle.leave()
        first.leave()
        gapless.wait_serving(3)
        self.assertIs(self.kept().get(), False)

    def test_both_upgrades_hear_of_the_idle_connections(self):
        """The first has been overtaken when the generation that it waits for ends."""
        gapless = self.run_exact(*QUIET, "--drain-idle-grace", "300ms")
        idle, slow = self.kept(), self.slow(harness.SLOW_MS)
        first = Upgrade(self, gapless)
        first.wait("retire")
        second = Upgrade(self, gapless)
        second.wait("retire")
        self.assertIs(slow.answer(), True)
        slow.leave()
        said = ("retire", "generation 1 has ended; it had 1 idle connection still")
        self.assertIn(said, first.end())
        self.assertIn(said, second.end())
        self.assertIsNone(idle.answer())

    # -- ends that nobody planned

    def test_worker_that_is_killed_while_its_clients_are_told(self):
        gapless = self.run_exact(*QUIET, "--drain-idle-grace", "1h")
        idle, slow = self.kept(), self.slow(60000)
        old = gapless.worker_pids()[0]
        self.switch(gapless)
        self.wait_farewell(gapless, enlisted=2)
        loaded = Loaded(gapless)
        self.assertEqual(loaded.enlisted(), 2)
        os.kill(old, signal.SIGKILL)
        gapless.wait_serving(2)
        for client in (idle, slow):
            with self.assertRaises((AssertionError, ConnectionResetError)):
                self.assertIsNotNone(client.answer())
        harness.wait_until(lambda: loaded.enlisted() == 0, lambda: f"{loaded.enlisted()} connections to leave the map")
        self.upgrade_still_works(gapless)

    def test_clients_that_reset_while_they_are_told(self):
        gapless = self.run_exact(*QUIET, "--drain-idle-grace", "1h")
        idle, slow, answered = self.kept(), self.slow(300), self.kept()
        self.switch(gapless)
        self.wait_farewell(gapless, enlisted=3)
        loaded = Loaded(gapless)
        self.assertEqual(loaded.enlisted(), 3)
        self.assertIs(answered.get(), True)
        for client in (idle, slow, answered):
            client.reset()
        self.drain_signal()
        gapless.wait_serving(2)
        harness.wait_until(lambda: loaded.enlisted() == 0, lambda: f"{loaded.enlisted()} connections to leave the map")
        self.upgrade_still_works(gapless)

    def upgrade_still_works(self, gapless):
        client = self.slow(harness.SLOW_MS, generation=2)
        self.switch(gapless, 3)
        self.assertIs(client.answer(), True)
        client.leave()
        gapless.wait_serving(3)
        self.assertEqual([line.text for line in gapless.complaints()], [])

    def test_nothing_stays_in_the_kernel(self):
        """Neither when gapless stops, nor when its main process is killed while clients are told."""
        for end in (signal.SIGTERM, signal.SIGKILL):
            gapless = self.run_exact(*QUIET, "--drain-idle-grace", "1h", "--drain-timeout", "1s")
            self.slow(60000)
            self.switch(gapless)
            self.wait_farewell(gapless, enlisted=1)
            loaded = Loaded(gapless)
            self.assertGreater(min(len(loaded.maps), len(loaded.programs)), 5)
            self.assertEqual(loaded.still_there(), (loaded.maps, loaded.programs))
            gapless.signal(end)
            gapless.wait_exit()
            harness.wait_until(lambda: loaded.still_there() == (set(), set()),
                               lambda: f"the kernel to let go of maps and programs {loaded.still_there()}")

    # -- fewer workers

    def test_clients_of_a_worker_that_is_scaled_away_are_told(self):
        gapless = self.run_exact("-n", "2", *QUIET, "--drain-idle-grace", "1h", options=",per_worker")
        clients = [[], []]
        while not all(clients):
            before = self.record(worker=1)["accepted"]
            client = self.kept()
            clients[self.record(worker=1)["accepted"] - before].append(client)
        stays, leaves = clients
        gapless.signal(signal.SIGTTOU)
        self.wait_farewell(gapless, enlisted=len(leaves))
        self.assertEqual([client.get() for client in stays], [False] * len(stays))
        self.assertEqual(self.farewell(gapless)["enlisted"], len(leaves))
        self.assert_no_drain_signal(worker=1)
        self.assertEqual([client.get() for client in leaves], [True] * len(leaves))
        self.assertGreater(self.drain_signal(worker=1), max(client.due_ns for client in leaves))
        for client in leaves:
            client.leave()
        self.assert_no_drain_signal(worker=0)
        harness.wait_until(lambda: len(gapless.worker_pids()) == 1, "one worker")
        self.assertIs(self.kept().get(), False)


class Loaded:
    """What a gapless has in the kernel, by id: of all that the machine has, since others may load something meanwhile."""

    BPF = {"x86_64": 321, "aarch64": 280}.get(platform.machine())
    MAP_GET_NEXT_KEY, PROG_GET_FD_BY_ID, MAP_GET_FD_BY_ID, PROG_QUERY = 4, 13, 14, 16
    SOCKHASH, SK_MSG_VERDICT = 18, 7

    def __init__(self, gapless):
        self.maps, self.programs, self.sockhash = set(), set(), None
        for pid in (gapless.keeper_pid(), gapless.wait_master()):
            for path in pathlib.Path(f"/proc/{pid}/fdinfo").iterdir():
                try:
                    info = dict(re.findall(r"(?m)^(map_id|map_type|prog_id):\s*(\d+)", path.read_text()))
                except FileNotFoundError:  # it was closed meanwhile
                    continue
                if "map_id" in info and "map_type" in info:
                    self.maps.add(int(info["map_id"]))
                    if int(info["map_type"]) == self.SOCKHASH:
                        self.sockhash = int(info["map_id"])
                elif "prog_id" in info:
                    self.programs.add(int(info["prog_id"]))
        self.programs |= self._of_sockhash()

    def _call(self, command, attributes):
        attributes = ctypes.create_string_buffer(attributes.ljust(128, b"\0"), 128)
        result = ctypes.CDLL(None, use_errno=True).syscall(self.BPF, command, attributes, 128)
        if result < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        return result, attributes.raw

    def _open(self, command, number):
        return self._call(command, struct.pack("=I", number))[0]

    def _of_sockhash(self):
        """The program on it has no descriptor."""
        fd, ids = self._open(self.MAP_GET_FD_BY_ID, self.sockhash), (ctypes.c_uint32 * 4)()
        try:
            # target_fd, attach_type, query_flags, attach_flags, prog_ids, prog_cnt
            raw = self._call(self.PROG_QUERY, struct.pack("=IIIIQI", fd, self.SK_MSG_VERDICT, 0, 0, ctypes.addressof(ids), 4))[1]
            return set(ids[:struct.unpack_from("=I", raw, 24)[0]])
        finally:
            os.close(fd)

    def enlisted(self):
        """How many connections the sockhash holds."""
        fd, count = self._open(self.MAP_GET_FD_BY_ID, self.sockhash), 0
        key, following = ctypes.create_string_buffer(8), ctypes.create_string_buffer(8)
        try:
            known = 0  # no key: the first one
            while True:
                # map_fd, key, next_key
                self._call(self.MAP_GET_NEXT_KEY, struct.pack("=IxxxxQQ", fd, known, ctypes.addressof(following)))
                count += 1
                key.raw, known = following.raw, ctypes.addressof(key)
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise
            return count
        finally:
            os.close(fd)

    def still_there(self):
        return tuple({number for number in numbers if self._exists(command, number)} for command, numbers in
                     ((self.MAP_GET_FD_BY_ID, self.maps), (self.PROG_GET_FD_BY_ID, self.programs)))

    def _exists(self, command, number):
        try:
            os.close(self._open(command, number))
            return True
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise
            return False


if __name__ == "__main__":
    harness.main(at_a_time=4)

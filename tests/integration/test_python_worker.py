#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""A worker that speaks the protocol itself, in Python (examples/python): its listeners, ready, drain, and what it refuses."""

import importlib.util
import os
import pathlib
import shlex
import signal
import subprocess
import threading
import unittest

import harness

COUNTER = pathlib.Path(__file__).resolve().parents[2] / "examples/python/counter.py"

# A counter.py that doesn't hear its master while a file is there.
# It hears nothing from the master while the file is there; which it makes itself when it says that.
LATE = """
import os, sys
sys.path.insert(0, {directory!r})
import counter, gapless
dispatch, tell = gapless.Worker.dispatch, gapless.Worker.tell
def tell_and_be_deaf(self, kind, *rest, **fields):
    tell(self, kind, *rest, **fields)
    if kind == {when!r}:
        open({deaf!r}, "w").close()
gapless.Worker.dispatch = lambda self: None if os.path.exists({deaf!r}) else dispatch(self)
gapless.Worker.tell = tell_and_be_deaf
counter.main()
"""


class PythonWorker(harness.TestCase):
    def setUp(self):
        super().setUp()
        self.path = os.environ.get("GAPLESS_PYTHONPATH")
        if not self.path:
            raise unittest.SkipTest("protoc (protobuf-compiler) was missing at build time")
        for module, package in (("google.protobuf", "python3-protobuf"), ("xxhash", "python3-xxhash")):
            try:
                found = importlib.util.find_spec(module)
            except ModuleNotFoundError:
                found = None
            if not found:
                raise unittest.SkipTest(f"{package} is missing")
        self.port = harness.free_port()
        self.address = ("127.0.0.1", self.port)

    def install_counter(self, *options, command=COUNTER):
        """What the service's command is from now on."""
        command = ["env", f"PYTHONPATH={self.path}", "PYTHONDONTWRITEBYTECODE=1", "/usr/bin/python3", command, *options]
        return self.write("server", f"#!/bin/sh\nexec {shlex.join(map(str, command))}\n", 0o755)

    def serve_counter(self, *flags, options=()):
        return self.serve("-l", f"web=tcp:127.0.0.1:{self.port}", *flags, "--", self.install_counter(*options))

    def get(self, path):
        return harness.http_get(self.address, path)

    def ask(self, client, path):
        """On a connection that is kept."""
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
        return harness.read_answer(client)


class ServingTest(PythonWorker):
    def test_it_takes_its_listeners_and_serves(self):
        gapless = self.serve_counter("-n", "2")
        self.assertEqual(self.get("/connection"), (200, "0 generation 1\n"))
        self.assertEqual(len(gapless.worker_pids()), 2)
        for pid in gapless.worker_pids():
            listening = [each for each in harness.descriptors(pid).values() if each.startswith("socket:")]
            self.assertEqual(len(listening), 2, "the listener and the channel")
        self.assertEqual(gapless.terminate(), 0)
        self.assertEqual(gapless.complaints(), [])

    def test_upgrade_under_load_loses_nothing(self):
        gapless = self.serve_counter("-n", "2")
        load = harness.Load(self, "--rate", 200, f"http://127.0.0.1:{self.port}/value/load")
        for generation in (2, 3):
            self.install_counter()
            gapless.upgrade_by_hup()
            self.assertEqual(self.get("/connection"), (200, f"0 generation {generation}\n"))
        self.assert_clean(load.stop())
        self.assertEqual(len(gapless.log.find("worker drained")), 4)

    def test_kept_connection_is_answered_while_it_drains(self):
        gapless = self.serve_counter()
        with harness.connect(self.address) as client:
            self.assertEqual(self.ask(client, "/count/a"), (200, "1\n"))
            gapless.signal(signal.SIGTERM)
            gapless.log.wait("stopping")
            self.assertEqual(self.ask(client, "/count/a"), (200, "2\n"))
            self.assertEqual(client.recv(100), b"", "the connection ends after that answer")
        self.assertEqual(gapless.wait_exit(), 0)

    def test_it_serves_on_while_the_master_is_replaced(self):
        gapless = self.serve_counter()
        self.get("/count/a")
        master = gapless.wait_master()
        os.kill(master, signal.SIGKILL)
        self.assertEqual(self.get("/count/a"), (200, "2\n"))
        gapless.wait_master(but=master)
        harness.wait_until(gapless.service, "the next master to answer")
        self.assertEqual(self.get("/count/a"), (200, "3\n"))
        gapless.upgrade_by_hup()
        self.assertEqual(self.get("/connection"), (200, "0 generation 2\n"))


class Counting(threading.Thread):
    """A client on a connection that it keeps: counts its own counter up until it is told to stop."""

    def __init__(self, case, name):
        super().__init__(daemon=True)
        self.case, self.name, self.count, self.failure = case, name, 0, None
        self.generations, self._ended = set(), threading.Event()
        self.start()

    def run(self):
        try:
            with harness.connect(self.case.address) as client:
                while not self._ended.is_set():
                    answer = self.case.ask(client, f"/count/{self.name}")
                    self.count += 1
                    if answer != (200, f"{self.count}\n"):
                        raise AssertionError(f"{answer} in place of {self.count}")
                    self.generations.add(self.case.ask(client, "/connection")[1].split()[-1])
        except (AssertionError, OSError) as error:
            self.failure = error

    def stop(self):
        self._ended.set()
        self.join(harness.PATIENCE)


class StateTest(PythonWorker):
    def serve_one(self, *options, observe=None):
        return self.serve("-l", f"web=tcp:127.0.0.1:{self.port}", "--drain-timeout", "10s", "--", self.install_counter(*options),
                          observe=observe)

    def clients(self, count):
        clients = [Counting(self, f"client{i}") for i in range(count)]
        self.addCleanup(lambda: [client.stop() for client in clients])
        return clients

    def assert_counted(self, clients):
        for client in clients:
            client.stop()
            self.assertIsNone(client.failure)
            self.assertEqual(self.get(f"/value/{client.name}"), (200, f"{client.count}\n"))

    def wait_counting(self, clients, more=5):
        """Each client has counted so much further."""
        marks = [client.count + more for client in clients]
        harness.wait_until(lambda: all(client.count >= mark or client.failure for client, mark in zip(clients, marks)),
                           "the clients to count on")

    def test_counters_and_kept_connections_go_over(self):
        gapless = self.serve_one("--schema", "1")
        with harness.connect(self.address) as client:
            self.ask(client, "/count/a")
            self.ask(client, "/count/b")
            self.ask(client, "/forget/b")
            client.sendall(b"GET /count/a HTTP/1.1\r\nHo")
            self.install_counter("--schema", "2")
            gapless.upgrade_by_hup()
            client.sendall(b"st: test\r\n\r\n")
            self.assertEqual(harness.read_answer(client), (200, "2\n"))
            self.assertEqual(self.ask(client, "/connection"), (200, "4 generation 2\n"))
        self.assertEqual(self.get("/value/b"), (200, "0\n"))

    def test_no_count_is_lost_or_doubled_and_no_connection_cut_by_upgrades(self):
        gapless = self.serve_one("--schema", "1")
        clients = self.clients(8)
        for schema in (1, 2, 2, 1, 2):
            self.wait_counting(clients)
            self.install_counter("--schema", schema)
            gapless.upgrade_by_hup()
        self.wait_counting(clients)
        self.assert_counted(clients)
        for client in clients:
            self.assertIn("6", client.generations)

    def test_rollback_brings_back_what_has_changed_since(self):
        gapless = self.serve_one("--schema", "1", observe="60s")
        clients = self.clients(4)
        self.install_counter("--schema", "2")
        self.wait_counting(clients)
        gapless.hup()
        gapless.log.wait("traffic switched")
        self.wait_counting(clients, 50)
        done = gapless.verb("rollback")
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.wait_counting(clients)
        self.assert_counted(clients)
        for client in clients:
            self.assertEqual(client.generations, {"1", "2"})
        self.assertEqual(self.get("/connection"), (200, "0 generation 1\n"))

    def test_no_answered_count_is_lost_when_the_new_version_crashes(self):
        gapless = self.serve_one("--schema", "1", observe="60s")
        answered = 0
        self.install_counter("--schema", "2")
        gapless.hup()
        gapless.log.wait("traffic switched")
        with harness.connect(self.address) as client:
            for _ in range(200):
                self.assertEqual(self.ask(client, "/count/a"), (200, f"{answered + 1}\n"))
                answered += 1
            for pid in gapless.worker_pids(generation=2):
                os.kill(pid, signal.SIGKILL)
        gapless.wait_serving(1)
        self.assertEqual(self.get("/value/a"), (200, f"{answered}\n"))

    def test_change_that_comes_before_the_new_version_hears_that_it_owns_waits(self):
        deaf = self.dir / "deaf"
        gapless = self.serve_one()
        self.assertEqual(self.get("/count/a"), (200, "1\n"))
        self.install_counter(command=self.write("late.py", LATE.format(directory=str(COUNTER.parent), deaf=str(deaf), when="imported")))
        gapless.hup()
        gapless.log.wait("traffic switched")
        with harness.connect(self.address) as client:
            client.sendall(b"GET /count/a HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
            harness.wait_until(lambda: harness.established(self.port, gapless.worker_pids(generation=2)[0]), "it to be accepted")
            self.assertEqual(self.get("/value/a"), (200, "1\n"), "what only reads doesn't wait")
            deaf.unlink()
            self.assertEqual(harness.read_answer(client), (200, "2\n"))

    def test_connection_that_a_standby_hands_over_before_it_hears_that_it_owns_again_is_answered(self):
        """Nobody else is left who could take it."""
        deaf = self.dir / "deaf"
        script = self.write("late.py", LATE.format(directory=str(COUNTER.parent), deaf=str(deaf), when=None))
        self.install_counter(command=script)
        gapless = self.serve("-l", f"web=tcp:127.0.0.1:{self.port}", "--", str(self.dir / "server"), observe="60s")
        with harness.connect(self.address) as client:
            self.assertEqual(self.ask(client, "/connection"), (200, "0 generation 1\n"))
            self.install_counter()
            gapless.hup()
            gapless.log.wait("traffic switched")
            self.assertEqual(self.ask(client, "/connection"), (200, "1 generation 2\n"), "the old version hands connections over")
        deaf.touch()
        os.kill(gapless.worker_pids(generation=2)[0], signal.SIGKILL)
        gapless.log.wait("upgrade rolled back")
        with harness.connect(self.address) as client:
            harness.wait_until(lambda: harness.established(self.port, gapless.worker_pids(generation=1)[0]), "it to be accepted")
            deaf.unlink()
            self.assertEqual(self.ask(client, "/connection"), (200, "0 generation 1\n"))


class RefusalTest(PythonWorker):
    def test_what_it_refuses_reaches_the_operator(self):
        command = self.install_counter()
        gapless = self.start("-l", f"udp:127.0.0.1:{harness.free_port(kind=2)}", "--restart", "no", "--", command)
        line = gapless.log.wait("worker failed")
        self.assertIn("it serves stream listeners alone", line.fields["reason"])
        self.assertNotEqual(gapless.wait_exit(), 0)

    def test_version_that_fails_before_ready_leaves_the_old_one(self):
        gapless = self.serve_counter()
        self.get("/count/a")
        self.install_counter("--no-such-option")
        gapless.hup()
        gapless.log.wait("upgrade failed")
        self.assertEqual(self.get("/count/a"), (200, "2\n"))


class AloneTest(PythonWorker):
    def test_it_runs_without_gapless(self):
        self.install_counter("--port", self.port)
        server = subprocess.Popen([str(self.dir / "server")], env=harness.environment())
        try:
            harness.wait_until(lambda: harness.tcp_sockets(self.port, harness.TCP_LISTEN), "it to listen")
            self.assertEqual(self.get("/count/a"), (200, "1\n"))
            server.terminate()
            self.assertEqual(server.wait(harness.PATIENCE), 0)
        finally:
            server.kill()
            server.wait()


if __name__ == "__main__":
    harness.main(at_a_time=3)

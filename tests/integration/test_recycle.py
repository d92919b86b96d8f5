#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""Workers that are replaced one by one without an upgrade and without a loss (recycle.*), those that hang (watchdog), and what old
generations that drain may have (drain.max_age, drain.max_memory)."""

import os
import signal

import capturing
import harness

RATE = 200 if harness.SANITIZED else 1000


class RecycleTest(harness.TestCase):
    def setUp(self):
        super().setUp()
        self.port = harness.free_port()
        self.address = ("127.0.0.1", self.port)
        self.listen = ["-l", f"web=tcp:127.0.0.1:{self.port}"]

    def load(self, port=None, *what):
        port = port or self.port
        return harness.Load(self, *(what or ("--rate", RATE)), f"tcp:127.0.0.1:{port}", begun=lambda: harness.established(port))

    def wait_replaced(self, gapless, times=1, workers=2):
        """Waits until each worker has left so often, each time behind a successor that was ready; no crash is among them."""
        for worker in range(workers):
            harness.wait_until(
                lambda worker=worker: len(gapless.log.find("worker ended", worker=worker)) >= times,
                lambda: f"each of the workers to be replaced {times} times:\n{gapless.log.text()[-3000:]}")
        self.assertEqual(gapless.log.find("worker is started again"), [])

    def assert_recycled(self, gapless, *loads, reason):
        """By this reason, one at a time, and nobody noticed."""
        self.assertTrue(gapless.log.find("worker is recycled")[0].fields["reason"].startswith(reason), gapless.log.text())
        for load in loads:
            self.assert_clean(load.stop(), at_least=10)
        under_way = 0
        for line in gapless.log.lines():
            under_way += (line.message == "worker gets a successor") - (line.message == "worker ended")
            self.assertLessEqual(under_way, 1, "two are replaced at a time")
        self.assertEqual([line.text for line in gapless.complaints() if "the master died" not in line.text], [])

    def test_workers_are_replaced_by_requests_by_memory_with_own_sockets_and_by_a_drain_signal(self):
        services = {}
        for reason, spec, flags in [
                ("it has had ", "", ["-n", 2, "--recycle-requests", 100, "--", self.hello("one")]),
                # Its sockets are each a worker's and its successor's.
                ("it has ", ",per_worker=yes", ["-n", 2, "--recycle-memory", "1MiB", "--", self.hello("one")]),
                ("it is ", "", ["-n", 1, "--recycle-age", "1s", "--drain-signal", "QUIT", *self.worker()])]:
            port = harness.free_port()
            services[reason] = gapless = self.serve("-l", f"tcp:127.0.0.1:{port}{spec}", *flags)
            gapless.first, gapless.loads = gapless.worker_pids(), [self.load(port), self.load(port, "--keepalive", 4)]
        for reason, gapless in services.items():
            self.wait_replaced(gapless, workers=len(gapless.first))
            self.assert_recycled(gapless, *gapless.loads, reason=reason)
            harness.wait_until(lambda pids=gapless.first: not any(map(harness.is_alive, pids)), "the first workers to be gone")
            self.assertEqual(gapless.generation(), 1)

    def test_workers_that_are_so_old_are_replaced_and_a_later_master_goes_on(self):
        gapless = self.serve(*self.listen, "-n", 2, "--recycle-age", "1s", "--", self.hello("one"))
        load = self.load()
        gapless.log.wait("worker gets a successor")
        os.kill(gapless.wait_master(), signal.SIGKILL)
        self.wait_replaced(gapless)
        self.assert_recycled(gapless, load, reason="it is ")
        harness.wait_until(lambda: len(gapless.worker_pids()) == 2, "two workers again")

    def test_successor_that_never_gets_ready_leaves_the_old_workers(self):
        server = self.hello("one")
        gapless = self.serve(*self.listen, "-n", 2, "--recycle-age", "1s", "--ready-timeout", "300ms", "--", server)
        first = gapless.worker_pids()
        self.write("server", "#!/bin/sh\nexec sleep 60\n", 0o755)
        load = self.load()
        line = gapless.log.wait("recycling failed, the old worker stays")
        self.assertEqual(line.level, "error")
        self.assertIn("was not ready within 300ms", line.fields["reason"])
        harness.wait_until(lambda: gapless.worker_pids() == first, "the old workers to be alone")
        self.assert_clean(load.stop())
        self.assertEqual(gapless.service()["state"], "serving")

    def test_upgrade_that_begins_meanwhile_drops_the_replacement(self):
        gapless = self.serve(*self.listen, "--recycle-age", "1s", "--", self.hello("one"))
        self.write("server", "#!/bin/sh\nexec sleep 60\n", 0o755)
        load = self.load()
        gapless.log.wait("worker gets a successor")
        harness.wait_until(lambda: len(gapless.worker_pids()) == 2, "the successor")
        old, successor = gapless.worker_pids()
        go_on = self.dir / "go"
        self.write("server", f"#!/bin/sh\nuntil [ -e {go_on} ]; do sleep 0.01; done\n"
                   f"exec {harness.program('GAPLESS_HELLO')} --version-name two\n", 0o755)
        gapless.hup()
        harness.wait_until(lambda: gapless.worker_pids(generation=1) == [old], "the old worker to be alone")
        self.assertEqual(gapless.generation(), 1)
        go_on.touch()
        gapless.wait_serving(2)
        self.assertFalse(harness.is_alive(old) or harness.is_alive(successor))
        self.assert_clean(load.stop())
        self.assertEqual(harness.version_at(self.address)[0], "two")
        self.assertEqual(gapless.log.find("recycling failed"), [])

    def test_successor_takes_the_place_of_a_worker_that_crashes_meanwhile(self):
        gapless = self.serve(*self.listen, "--recycle-age", "1s", "--", self.hello("one"))
        go_on = self.dir / "go"
        self.write("server", f"#!/bin/sh\nuntil [ -e {go_on} ]; do sleep 0.01; done\n"
                   f"exec {harness.program('GAPLESS_HELLO')} --version-name late\n", 0o755)
        gapless.log.wait("worker gets a successor")
        harness.wait_until(lambda: len(gapless.worker_pids()) == 2, "the successor")
        old, successor = gapless.worker_pids()
        os.kill(old, signal.SIGKILL)
        harness.wait_until(lambda: gapless.worker_pids() == [successor], "the successor to be alone")
        with harness.connect(self.address) as client:  # waits in the queue
            client.sendall(b"GET /version HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
            go_on.touch()
            self.assertEqual(harness.read_answer(client)[1].split()[0], "late")

    def test_workers_that_cannot_leave_alone(self):
        gapless = self.serve(*self.listen, "--recycle-age", "1s", *self.worker())
        probed = self.serve("-l", "tcp:127.0.0.1:0", "--recycle-age", "1s", "--ready-probe", "http:/version", "--", self.hello("one"))
        reason = gapless.log.wait("worker can't leave alone: all are replaced").fields["reason"]
        self.assertIn("accept from the same sockets", reason)
        self.assertIn("ready.probe", probed.log.wait("worker can't leave alone: all are replaced").fields["reason"])
        self.assertEqual(gapless.log.find("worker gets a successor") + probed.log.find("worker gets a successor"), [])

    # -- caps on what drains

    def slow_request(self, *flags):
        """A service that is upgraded while its first version is busy with a request of an hour, which is in vain; the service."""
        port = harness.free_port()
        gapless = self.serve("-l", f"tcp:127.0.0.1:{port}", "--drain-timeout", 0, "--stop-grace", "100ms", *flags, "--",
                             self.hello("one"))
        client = harness.connect(("127.0.0.1", port))
        self.addCleanup(client.close)
        client.sendall(b"GET /slow?ms=3600000 HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
        harness.wait_until(lambda: harness.established(port, gapless.worker_pids()[0]), "the request to be accepted")
        gapless.hup()
        return gapless

    def test_what_drains_for_too_long_or_has_too_much_memory_is_ended(self):
        old = self.slow_request("--drain-max-age", "500ms")
        big = self.slow_request("--drain-max-memory", "1MiB")
        old.wait_serving(2)
        line = old.log.wait("drain.max_age", generation=1)
        self.assertEqual(line.fields["max_age_ms"], "500")
        self.assertGreaterEqual(int(line.fields["drains_ms"]), 500)
        self.assertIn("1 request in flight", line.fields["cut"])
        big.wait_serving(2)
        line = big.log.wait("drain.max_memory", generation=1)
        self.assertEqual(line.fields["max_kib"], "1024")
        self.assertGreater(int(line.fields["all_kib"]), 1024)
        self.assertEqual(line.fields["all_kib"], line.fields["has_kib"])
        self.assertIn("1 request in flight", big.log.wait("worker gets the stop signal").fields["cut"])

    # -- the watchdog

    def test_worker_that_stops_saying_watchdog_is_replaced(self):
        silent = self.dir / "silent"
        gapless = self.serve(*self.listen, "-n", 2, "--watchdog", "400ms", *self.worker("--watchdog", silent))
        hangs, goes_on = gapless.worker_pids()
        load = self.load()
        mark = gapless.log.mark()
        (self.dir / "silent.0").touch()
        self.assertIn("worker 0 has not said WATCHDOG=1 for 400 ms",
                      gapless.log.wait("worker failed", worker=0).fields["reason"])
        (self.dir / "silent.0").unlink()
        self.assertIn("signal 6", gapless.log.wait("worker ended", worker=0).fields["how"])
        gapless.log.wait("worker ready", after=mark, worker=0)
        report = load.stop()
        self.assertEqual(report["outcomes"].get("refused", 0), 0, report["outcomes"])
        self.assertTrue(harness.is_alive(goes_on) and not harness.is_alive(hangs))
        self.assertEqual(gapless.log.find("worker failed", worker=1), [])
        self.assertEqual(self.dump(worker=1)["env"]["WATCHDOG_USEC"], "400000")
        self.assertEqual(self.dump(worker=1)["env"]["WATCHDOG_PID"], str(goes_on))

    def test_worker_that_says_that_it_hangs_or_wants_to_be_watched(self):
        wants, says = (self.start("-l", "tcp:127.0.0.1:0", *self.worker("--notify", text))
                       for text in ("WATCHDOG_USEC=200000", "WATCHDOG=trigger"))
        self.assertIn("for 200 ms", wants.log.wait("worker failed").fields["reason"])
        wants.log.wait("worker is started again")
        self.assertIn("WATCHDOG=trigger", says.log.wait("worker failed").fields["reason"])


class CapturedTest(capturing.TestCase):
    """A server that binds its own address and knows nothing: each has a socket of its own."""

    BPF = os.environ.get("GAPLESS_BPF") == "1"
    STEERING = ("ebpf", "cbpf") if BPF else ("cbpf",)

    def begin_with(self, steering):
        self.open_address()
        gapless = self.bound("-n", 2, "--steering", steering, "--recycle-age", "1s")
        kept = [harness.Load(self, "--keepalive", 4, self.target, begun=lambda: True)] if self.BPF else []  # they are told to close
        return gapless, self.port, self.load(), *kept

    def test_captured_workers_are_replaced(self):
        for gapless, port, *loads in list(map(self.begin_with, self.STEERING)):
            for worker in range(2):
                gapless.log.wait("worker ended", worker=worker)
            for load in loads:
                self.assert_clean(load.stop(), at_least=10)
            self.assertEqual(gapless.generation(), 1)
            harness.wait_until(lambda port=port: len(harness.tcp_sockets(port, harness.TCP_LISTEN)) <= 3,
                               "the old sockets to be given up")
            self.assertEqual(gapless.log.find("still wait"), [])
            self.assertTrue(gapless.log.find("worker drained"), gapless.log.text())
            self.assertEqual(gapless.complaints(), [])


if __name__ == "__main__":
    harness.main(at_a_time=5)

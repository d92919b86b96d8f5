#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""Kept connections of a native server move to the next version, and back: their clients see nothing.

The server is examples/hello, which does nothing for it.
"""

import json
import os
import resource
import signal
import threading

import harness

FEW, MANY = 500, 10000
GET_VERSION = b"GET /version HTTP/1.1\r\nHost: test\r\n\r\n"


class Kept:
    """Connections that are kept open. Every answer must come on the connection that asked, and not say close."""

    def __init__(self, case, address, count):
        self.case = case
        self.sockets = []
        case.addCleanup(self.close)
        for _ in range(count):
            self.sockets.append(harness.connect(address))
        self.names = [each.getsockname() for each in self.sockets]

    def close(self):
        for each in self.sockets:
            each.close()

    def ask(self, request=GET_VERSION):
        for each in self.sockets:
            each.sendall(request)

    def hear(self):
        """{body: how many}"""
        bodies = {}
        for each in self.sockets:
            body = self._answer(each)
            bodies[body] = bodies.get(body, 0) + 1
        return bodies

    def _answer(self, client):
        data = b""
        while True:
            more = client.recv(65536)
            self.case.assertTrue(more, f"{client.getsockname()} was closed, after {data!r}")
            data += more
            head, end, body = data.partition(b"\r\n\r\n")
            if not end:
                continue
            lines = head.lower().split(b"\r\n")
            self.case.assertNotIn(b"connection: close", lines)
            length = next(int(line[15:]) for line in lines if line.startswith(b"content-length:"))
            if len(body) >= length:
                return body.decode().strip()

    def versions(self):
        self.ask()
        return self.hear()


class HandoverTest(harness.TestCase):
    def setUp(self):
        super().setUp()
        self.port = harness.free_port()
        self.address = ("127.0.0.1", self.port)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))

    def serve_hello(self, *flags, **keywords):
        return self.serve("-l", f"web=tcp:127.0.0.1:{self.port}", *flags, "--", self.hello("1"), **keywords)

    def open_fds(self, gapless):
        """Of the master and each worker, in the order of age."""
        return [len(harness.descriptors(pid)) for pid in [gapless.wait_master(), *gapless.worker_pids()]]

    def workers(self, gapless):
        service = gapless.service()
        return [worker for each in (service or {}).get("generations", []) for worker in each["workers"]]

    def settle(self, gapless, connections):
        """Waits until the workers count as many connections."""
        self.settle_in(gapless, gapless.worker_pids(), connections)

    def settle_in(self, gapless, pids, connections):
        def count():
            return sum(worker["connections"] for worker in self.workers(gapless) if worker["pid"] in pids)
        harness.wait_until(lambda: count() == connections, lambda: f"{connections} connections, not {count()}")

    # -- upgrades

    def test_kept_connections_outlive_upgrades(self):
        gapless = self.serve_hello()
        kept = Kept(self, self.address, FEW)
        self.assertEqual(kept.versions(), {"1 generation 1": FEW})
        for generation in range(2, 7):
            self.hello(str(generation))
            gapless.upgrade_by_hup()
            self.assertEqual(kept.versions(), {f"{generation} generation {generation}": FEW})
            self.assertEqual([each.getsockname() for each in kept.sockets], kept.names)
            self.settle(gapless, FEW)
        self.assertEqual(gapless.complaints(), [])

    def test_ten_upgrades_under_load_lose_no_request_and_close_nothing(self):
        gapless = self.serve_hello("-n", "2")
        load = harness.Load(self, "--keepalive", 64, f"tcp:127.0.0.1:{self.port}")
        for generation in range(2, 12):
            self.hello(str(generation))
            gapless.upgrade_by_hup()
        report = load.stop()
        self.assert_clean(report, at_least=1000)
        # One for each client: none was told to leave, none was closed.
        self.assertEqual(report["connections"]["opened"], 64, report["connections"])

    def test_a_request_in_flight_is_answered_and_its_connection_moves(self):
        gapless = self.serve_hello()
        kept = Kept(self, self.address, 3)
        kept.ask(b"GET /slow?ms=700 HTTP/1.1\r\nHost: test\r\n\r\n")
        harness.wait_until(lambda: self.workers(gapless)[0]["in_flight"] == 3, "three requests in flight")
        self.hello("2")
        gapless.hup()
        self.assertEqual(kept.hear(), {"hello": 3})
        self.assertEqual(kept.versions(), {"2 generation 2": 3})
        gapless.wait_serving(2)

    def test_half_a_request_goes_along(self):
        gapless = self.serve_hello()
        kept = Kept(self, self.address, 20)
        kept.versions()
        kept.ask(GET_VERSION[:9])
        harness.wait_until(lambda: self.workers(gapless)[0]["in_flight"] == 20, "halves of requests to be read")
        self.hello("2")
        gapless.upgrade_by_hup()
        kept.ask(GET_VERSION[9:])
        self.assertEqual(kept.hear(), {"2 generation 2": 20})

    def test_workers_may_become_more_and_fewer(self):
        gapless = self.serve_hello("-n", "3")
        kept = Kept(self, self.address, 90)
        self.assertEqual(kept.versions(), {"1 generation 1": 90})
        for generation, workers in (2, 1), (3, 4):
            gapless.verb("scale", workers)
            gapless.upgrade_by_hup()
            self.assertEqual(kept.versions(), {f"1 generation {generation}": 90})

    # -- the way back

    def test_a_rollback_brings_them_back(self):
        gapless = self.serve_hello(observe="60s")
        kept = Kept(self, self.address, FEW)
        self.hello("2")
        gapless.hup()
        gapless.log.wait("traffic switched", generation=2)
        harness.wait_until(lambda: kept.versions() == {"2 generation 2": FEW}, "all to have moved")
        self.assertEqual(gapless.verb("rollback").returncode, 0)
        self.assertEqual(kept.versions(), {"1 generation 1": FEW})
        gapless.wait_serving(1)
        self.settle(gapless, FEW)
        self.assertEqual(kept.versions(), {"1 generation 1": FEW})

    def stopped_before_the_switch(self, workers, left=None):
        """An upgrade to generation 2, of whose workers the first is stopped before it is offered anything; left: descriptors
        that the master's limit leaves it from then on."""
        gate, go = self.dir / "gate", self.dir / "go"
        step = self.write("step", f"#!/bin/sh\n: >{gate}\nwhile [ ! -e {go} ]; do sleep 0.01; done\n", 0o755)
        service = {"command": [self.hello("1")], "listen": [f"web=tcp:127.0.0.1:{self.port}"], "workers": workers,
                   "observe": {"window": "60s"}, "steps": [{"before": "switch", "run": [step]}]}
        gapless = self.serve("-c", self.write("gapless.yaml", json.dumps({"services": {"web": service}})))
        kept = Kept(self, self.address, FEW)
        self.assertEqual(kept.versions(), {"1 generation 1": FEW})
        old = gapless.worker_pids()
        gapless.hup()
        harness.wait_until(gate.exists, "the step before the switch")
        victim = next(pid for pid in gapless.worker_pids() if pid not in old)
        os.kill(victim, signal.SIGSTOP)
        if left is not None:
            master = gapless.wait_master()
            limit, used = resource.prlimit(master, resource.RLIMIT_NOFILE)[1], harness.descriptors(master)
            free = [number for number in range(max(used) + left + 1) if number not in used]
            resource.prlimit(master, resource.RLIMIT_NOFILE, (free[left], limit))
        go.write_text("")
        gapless.log.wait("traffic switched", generation=2)
        if left is None:
            self.settle_in(gapless, old, 0)
        return gapless, kept, victim

    def test_they_come_back_from_a_new_version_that_dies(self):
        gapless, kept, victim = self.stopped_before_the_switch(1)
        os.kill(victim, signal.SIGKILL)
        gapless.wait_serving(1)
        self.assertEqual(kept.versions(), {"1 generation 1": FEW})

    def test_another_worker_takes_what_one_that_dies_had_not_taken(self):
        gapless, kept, victim = self.stopped_before_the_switch(2)
        os.kill(victim, signal.SIGKILL)
        self.assertEqual(kept.versions(), {"1 generation 2": FEW})
        self.assertEqual(gapless.service()["upgrade"]["state"], "running")

    def test_a_worker_without_descriptors_is_offered_them_again(self):
        gapless, kept, victim = self.stopped_before_the_switch(1)
        limits = resource.prlimit(victim, resource.RLIMIT_NOFILE)
        resource.prlimit(victim, resource.RLIMIT_NOFILE, (0, limits[1]))
        os.kill(victim, signal.SIGCONT)
        gapless.log.wait("connections aren't taken by a worker", generation=2)
        resource.prlimit(victim, resource.RLIMIT_NOFILE, limits)
        self.assertEqual(kept.versions(), {"1 generation 2": FEW})
        self.settle(gapless, FEW)
        self.assertEqual(gapless.log.find("is cut off"), [])

    def test_a_master_without_descriptors_asks_for_them_again(self):
        gapless, kept, new = self.stopped_before_the_switch(1, left=0)
        gapless.log.wait("can't be received, and are asked for again", generation=1)
        master = gapless.wait_master()
        resource.prlimit(master, resource.RLIMIT_NOFILE, (resource.prlimit(master, resource.RLIMIT_NOFILE)[1],) * 2)
        os.kill(new, signal.SIGCONT)
        self.assertEqual(kept.versions(), {"1 generation 2": FEW})
        self.settle(gapless, FEW)
        self.assertEqual(gapless.log.find("is cut off"), [])

    def test_a_master_that_is_killed_on_the_way_loses_none(self):
        gapless, kept, stopped = self.stopped_before_the_switch(1)
        master = gapless.wait_master()
        os.kill(master, signal.SIGKILL)
        gapless.wait_master(but=master)
        harness.wait_until(gapless.service, "the next master to answer")
        os.kill(stopped, signal.SIGCONT)
        self.assertEqual(kept.versions(), {"1 generation 2": FEW})
        self.settle(gapless, FEW)
        self.assertEqual(gapless.verb("rollback").returncode, 0)
        gapless.wait_serving(1)
        self.assertEqual(kept.versions(), {"1 generation 1": FEW})
        self.assertEqual(gapless.log.find("is cut off"), [])

    # -- nothing leaks

    def test_clients_that_leave_on_the_way_leave_nothing(self):
        gapless = self.serve_hello()
        gapless.upgrade_by_hup()
        before = harness.settled(lambda: self.open_fds(gapless))
        for generation in range(3, 7):
            kept = Kept(self, self.address, 200)
            kept.ask()
            closer = threading.Thread(target=kept.close)
            gapless.hup()
            closer.start()
            closer.join()
            gapless.wait_serving(generation)
        self.settle(gapless, 0)
        harness.wait_until(lambda: self.open_fds(gapless) == before,
                           lambda: f"descriptors as before: {before}, now {self.open_fds(gapless)}")

    # -- many

    def test_ten_thousand_move(self):
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        count = min(MANY, hard - 500)
        gapless = self.serve_hello("--rlimit", f"nofile={hard}")
        kept = Kept(self, self.address, count)
        self.assertEqual(kept.versions(), {"1 generation 1": count})
        mark = gapless.log.mark()
        gapless.hup()
        switched = gapless.log.wait("traffic switched", after=mark)
        drained = gapless.log.wait("worker drained", after=mark, generation=1)
        took = drained.time() - switched.time()
        harness.note(f"{count} connections moved in {took:.3f} s, {count / took:.0f} a second")
        self.assertEqual(kept.versions(), {"1 generation 2": count})


if __name__ == "__main__":
    harness.main()

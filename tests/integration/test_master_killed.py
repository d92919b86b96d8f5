#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""The master is killed: the main pid, the workers and the listeners stay, and nobody outside notices."""

import os
import signal

import harness

KILLS = 20


class MasterKilledTest(harness.TestCase):
    def kill_master(self, gapless):
        """Kills the master and waits until its successor answers; the new pid."""
        killed = gapless.wait_master()
        os.kill(killed, signal.SIGKILL)
        pid = gapless.wait_master(but=killed)
        gapless.wait_serving(gapless.generation() or self.generation)
        return pid

    def setUp(self):
        super().setUp()
        self.generation = 1
        self.port = harness.free_port()
        self.path = self.dir / "web.sock"
        self.gapless = self.serve("-n", "2", "-l", f"tcp:127.0.0.1:{self.port}", "-l", f"unix:{self.path}", "--",
                                  self.hello("one"))

    def test_twenty_times_under_load_and_nothing_fails(self):
        gapless = self.gapless
        workers = sorted(gapless.worker_pids())
        rate = 200 if harness.SANITIZED else 1000
        tcp = harness.Load(self, "--rate", rate, f"tcp:127.0.0.1:{self.port}/version")
        unix = harness.Load(self, "--rate", rate, f"unix:{self.path}:/version")
        masters = {gapless.master_pid()}
        for _ in range(KILLS):
            masters.add(self.kill_master(gapless))
            self.assertEqual(sorted(gapless.worker_pids()), workers)
            self.assertEqual([harness.parent_of(pid) for pid in workers], [gapless.pid] * 2)
        self.assertEqual(len(masters), KILLS + 1)
        self.assertEqual(gapless.process.poll(), None, "the main process must be the same")
        self.hello("two")
        gapless.upgrade_by_hup()
        self.assertEqual(harness.version_at(("127.0.0.1", self.port))[0], "two")
        self.assert_clean(tcp.stop())
        self.assert_clean(unix.stop())
        self.assert_no_zombies(gapless.pid)
        pss = sum(harness.memory_kib(pid, "Pss") for pid in (gapless.keeper_pid(), gapless.master_pid()))
        harness.note(f"PSS of keeper and master together: {pss} KiB")
        if not harness.SANITIZED:
            self.assertLess(pss, 5 * 1024)

    def test_descriptors_of_keeper_and_master_are_what_they_were(self):
        gapless = self.gapless
        self.kill_master(gapless)
        before = harness.settled(lambda: self.descriptors(gapless))
        for _ in range(5):
            self.kill_master(gapless)
        harness.wait_until(lambda: self.descriptors(gapless) == before, lambda: f"{before} descriptors: {self.descriptors(gapless)}")

    @staticmethod
    def descriptors(gapless):
        return [len(harness.descriptors(pid)) for pid in (gapless.keeper_pid(), gapless.master_pid())]

    def test_worker_that_dies_while_there_is_no_master_is_replaced(self):
        gapless = self.gapless
        workers = gapless.worker_pids()
        master = gapless.wait_master()
        os.kill(master, signal.SIGSTOP)
        os.kill(workers[0], signal.SIGKILL)
        os.kill(master, signal.SIGKILL)
        gapless.wait_master(but=master)
        harness.wait_until(lambda: len(gapless.worker_pids()) == 2 and workers[0] not in gapless.worker_pids(),
                           "a worker in place of the dead one")
        self.assertIn(workers[1], gapless.worker_pids())
        gapless.wait_serving(1)
        self.assert_no_zombies(gapless.pid)

    def without_master(self):
        """Kills two masters in a row: one that has just been started is not followed by the next one at once."""
        first = self.gapless.wait_master()
        os.kill(first, signal.SIGKILL)
        second = self.gapless.wait_master(but=first)
        mark = self.gapless.log.mark()
        os.kill(second, signal.SIGKILL)
        # What the keeper still sends to a master that it takes for alive is lost with it.
        self.gapless.log.wait("the master died", after=mark)

    def test_hangup_while_there_is_no_master_is_not_lost(self):
        self.hello("two")
        self.without_master()
        self.gapless.hup()
        self.gapless.wait_serving(2)
        self.assertEqual(harness.version_at(("127.0.0.1", self.port))[0], "two")

    def test_term_while_there_is_no_master_still_ends_with_0(self):
        gapless = self.gapless
        workers = gapless.worker_pids()
        self.without_master()
        gapless.signal(signal.SIGTERM)
        self.assertEqual(gapless.wait_exit(), 0)
        self.assertFalse([pid for pid in workers if harness.is_alive(pid)])

    def test_killed_during_an_upgrade_the_service_goes_on(self):
        gapless = self.gapless
        load = harness.Load(self, "--rate", "200", f"tcp:127.0.0.1:{self.port}/version")
        self.write("server", f"#!/bin/sh\nwhile [ ! -e {self.dir}/go ]; do sleep 0.05; done\n"
                             f"exec {harness.program('GAPLESS_HELLO')} --version two\n", 0o755)
        master = gapless.wait_master()
        gapless.hup()
        harness.wait_until(lambda: gapless.service()["state"] == "upgrading", "the upgrade to begin")
        os.kill(master, signal.SIGKILL)
        gapless.wait_master(but=master)
        self.write("go", "")
        # Whether it goes on with the upgrade or takes it back: in the end one generation serves, and a HUP works.
        harness.wait_until(lambda: (gapless.service() or {}).get("state") == "serving", "the service to serve")
        self.hello("three")
        gapless.hup()
        harness.wait_until(lambda: harness.version_at(("127.0.0.1", self.port))[0] == "three",
                           "the next version")
        harness.wait_until(lambda: len(gapless.worker_pids()) == 2, "the old generations to be gone")
        self.assert_clean(load.stop())
        self.assert_processes(gapless.pid, 3)  # master and two workers

    def test_killed_during_a_drain_the_old_worker_still_finishes(self):
        gapless = self.gapless
        old = gapless.worker_pids()
        with harness.connect(("127.0.0.1", self.port)) as client:
            client.sendall(b"GET /slow?ms=2500 HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
            harness.wait_until(lambda: any(harness.established(self.port, pid) for pid in old), "the request")
            gapless.hup()
            harness.wait_until(lambda: gapless.generation() == 2, "the switch")
            os.kill(gapless.wait_master(), signal.SIGKILL)
            self.assertEqual(harness.read_answer(client)[0], 200)
        gapless.wait_serving(2)
        self.assertFalse([pid for pid in old if harness.is_alive(pid)])

    def test_nothing_remains_when_the_main_process_is_killed(self):
        gapless = self.gapless
        below = harness.descendants_of(gapless.pid)
        self.assertEqual(len(below), 3, "master and two workers")
        gapless.signal(signal.SIGKILL)
        gapless.wait_exit()
        harness.wait_until(lambda: not [pid for pid in below if harness.is_alive(pid)], "master and workers to end")
        self.serve("-l", f"tcp:127.0.0.1:{self.port}", "-l", f"unix:{self.path}", "--", self.hello("one"))


if __name__ == "__main__":
    harness.main()

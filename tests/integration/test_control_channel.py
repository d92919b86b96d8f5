#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""A worker that breaks the rules on its control channel is cut off, its descriptors are closed, the master serves on.

The misbehaviours are those of tests/helpers/faulty.
"""

import subprocess

import harness


class ControlChannelTest(harness.TestCase):
    # Before it is ready: the worker has failed, and with it the upgrade. What its line in the log says.
    BEFORE_READY = {
        "garbage": "cut off",
        "empty-packet": "ready",  # to protobuf an empty message, to the protocol one that says nothing
        "wrong-version": "version 9999",
        "oversize": "cut off",
        "truncated": "cut off",
        "too-many-fds": "cut off.*descriptor",
        "unexpected-fds": "cut off.*descriptor",
        "vault-before-hello": "vault before hello",
        "double-hello": "hello twice",
        "ready-before-hello": "ready before hello",
        "ready-before-listeners": "ready before it had acknowledged",
        "acknowledge-wrong-batch": "batch",
        "acknowledge-too-few": "cut off",
        "no-acknowledge": "ready",
        "never-ready": "ready",
        "silent": "ready",
        "exit-at-once": "code 3",
        "exit-after-hello": r"code 3|closed its control channel",  # whichever the master hears of first
        "orphan": "code 3",
    }
    # Once it was ready: it is cut off, goes on as a worker that says nothing, and ends by signal.
    AFTER_READY = {
        "garbage-after-ready": "cut off",
        "too-many-fds-after-ready": "cut off.*more than 64 descriptors",
        "unexpected-fds-after-ready": "cut off.*3 descriptors",
        "get-with-fds-after-ready": "cut off.*2 descriptors",
        "double-ready": "ready twice",
        "close-channel": None,
        "ignore-drain": None,
        "ignore-term": None,
    }

    def setUp(self):
        super().setUp()
        self.port = harness.free_port()
        self.gapless = self.serve("-l", f"tcp:127.0.0.1:{self.port}", "-l", f"unix:{self.dir}/web.sock", "-n", "2",
                                  "--ready-timeout", "1s", "--drain-timeout", "500ms", "--stop-grace", "500ms", "--",
                                  self.hello("one"))
        self.processes = {"keeper": self.gapless.keeper_pid(), "master": self.gapless.master_pid()}
        self.before = harness.settled(self.counts)

    def upgrade_once(self):
        """From here on the version before is held."""
        self.gapless.upgrade_by_hup()
        self.before = harness.settled(self.counts)

    def counts(self):
        return {name: len(harness.descriptors(pid)) for name, pid in self.processes.items()}

    def misbehave(self, name):
        """The next version misbehaves."""
        self.write("server", f"#!/bin/sh\nexec {harness.program('GAPLESS_FAULTY')} {name}\n", 0o755)

    def assert_as_before(self):
        """The same master, the descriptors that it and the keeper had, no process too many."""
        self.assertEqual(self.gapless.master_pid(), self.processes["master"], "the master must have lived")
        harness.wait_until(lambda: self.counts() == self.before, lambda: f"descriptors as before, {self.before}: "
                           f"{ {name: harness.descriptors(pid) for name, pid in self.processes.items()} }")
        self.assert_processes(self.gapless.pid, 3)  # master and two workers

    def test_every_misbehaviour_is_tried(self):
        done = subprocess.run([harness.program("GAPLESS_FAULTY"), "--list"], capture_output=True, text=True, check=True)
        tried = {*self.BEFORE_READY, *self.AFTER_READY, "exit-after-ready", "crash-after-ready", "orphan-after-ready"}
        self.assertEqual(set(done.stdout.split()), tried)

    def test_before_it_is_ready_the_upgrade_fails_and_the_old_version_serves(self):
        workers = sorted(self.gapless.worker_pids())
        for name, reason in self.BEFORE_READY.items():
            with self.subTest(misbehaviour=name):
                self.misbehave(name)
                mark = self.gapless.log.mark()
                self.gapless.hup()
                failed = self.gapless.log.wait("upgrade failed", after=mark)
                self.assertRegex(failed.fields["reason"], reason)
                self.gapless.wait_serving(1)
                self.assertEqual(sorted(self.gapless.worker_pids()), workers)
                self.assertEqual(harness.version_at(("127.0.0.1", self.port)), ("one", 1))
                self.assert_as_before()

    def test_after_it_is_ready_it_is_cut_off_and_the_next_upgrade_works(self):
        self.upgrade_once()
        for name, reason in self.AFTER_READY.items():
            with self.subTest(misbehaviour=name):
                self.misbehave(name)
                mark = self.gapless.log.mark()
                bad = self.gapless.upgrade_by_hup()
                if reason:
                    self.gapless.log.wait(reason, after=mark, generation=bad)
                if reason or name == "close-channel":
                    # Neither the master nor the keeper holds an end of the two channels any more.
                    harness.wait_until(lambda: all(count <= self.before[each] - 2 for each, count in self.counts().items()),
                                       lambda: f"fewer descriptors than {self.before}: {self.counts()}")
                workers = self.gapless.worker_pids()
                self.hello("good")
                good = self.gapless.upgrade_by_hup()
                self.assertEqual(harness.version_at(("127.0.0.1", self.port)), ("good", good))
                self.assertFalse([pid for pid in workers if harness.is_alive(pid)])
                self.assert_as_before()

    def test_orphans_of_a_dead_worker_end_with_it(self):
        self.upgrade_once()
        for name in ("exit-after-ready", "crash-after-ready", "orphan-after-ready"):
            with self.subTest(misbehaviour=name):
                self.misbehave(name)
                mark = self.gapless.log.mark()
                self.gapless.hup()
                # The other worker may have been ready by then, or not yet.
                self.gapless.log.wait("is started again|upgrade failed", after=mark)
                self.hello("good")
                self.gapless.hup()
                harness.wait_until(lambda: harness.version_at(("127.0.0.1", self.port))[0] == "good", "a good version")
                harness.wait_until(lambda: len(self.gapless.service()["generations"]) == 1, "one generation")
                self.assert_as_before()


if __name__ == "__main__":
    harness.main()

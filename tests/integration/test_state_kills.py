#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""examples/kv under load, whose new worker is killed at any moment up to the switch: no item is lost or stale, no
connection closed (tests/helpers/kv_check looks at every answer).

GAPLESS_TEST_FULL=1: 200 kills instead of some seconds of them.
"""

import collections
import json
import os
import random
import re
import signal
import threading
import time

import harness
import kv
import transaction

ITEMS = 20000
KILLS = 200
SECONDS = 10
SEED = int(os.environ.get("GAPLESS_TEST_SEED", time.time_ns() % 1000000))


class TestCase(harness.TestCase):
    def setUp(self):
        super().setUp()
        self.port = harness.free_port()
        self.address = ("127.0.0.1", self.port)
        self.random = random.Random(SEED)
        harness.note(f"GAPLESS_TEST_SEED={SEED}")

    def server(self, number):
        return self.write("server", f"#!/bin/sh\nexec {harness.program('GAPLESS_KV')} --version-name {number} --memory 500m\n", 0o755)


class KillTest(TestCase):
    """Before the switch."""

    def newcomer(self, old, verb):
        """The pid of the new worker, as soon as there is one."""
        master = self.gapless.wait_master()

        def find():
            found = [pid for pid in harness.descendants_of(self.gapless.pid) if pid not in old and pid != master and
                     harness.name_of(pid) == "kv"]
            return found or (verb.ended() and [0])
        return harness.wait_until(find, "the new worker")[0]

    def bytes_read(self, pid):
        """By read(2) and the like, up to now."""
        try:
            with open(f"/proc/{pid}/io", encoding="ascii") as file:
                return int(file.readline().split()[1])
        except (OSError, ValueError, IndexError):
            return None

    def kill_at(self, pid, amount, after_s):
        """When it has read so much, or all, and so long after that. The bytes that it had."""
        while (had := self.bytes_read(pid)) is not None and had < amount and not (self.dir / "waiting").exists():
            pass
        if after_s:
            time.sleep(after_s)  # the moment is what is varied
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        return had

    def begin(self):
        """kv, whose upgrades wait for the file `killed` before they would switch, and fail then."""
        step = self.write("step", f"#!/bin/sh\n: >{self.dir}/waiting\nwhile [ ! -e {self.dir}/killed ]; do sleep 0.005; done\nexit 1\n", 0o755)
        service = {"command": [self.server(1)], "listen": [f"cache=tcp:127.0.0.1:{self.port}"],
                   "steps": [{"before": "switch", "run": [step]}]}
        self.gapless = self.serve("-c", self.write("gapless.yaml", json.dumps({"services": {"web": service}})))

    def open_fds(self):
        return [len(harness.descriptors(pid)) for pid in [self.gapless.wait_master(), *self.gapless.worker_pids()]]

    def one(self, number, whole):
        """One upgrade that ends by a kill; the phase."""
        self.server(number)
        for name in "killed", "waiting":
            (self.dir / name).unlink(missing_ok=True)
        old = set(self.gapless.worker_pids())
        verb = transaction.Verb(self.gapless, "upgrade")
        pid = self.newcomer(old, verb)
        # Most of them in the stream, some behind it: mark, load, freeze, import.
        behind = self.random.random() < 0.2
        self.assertNotEqual(pid, 0, "the new worker is there before it is killed")
        had = self.kill_at(pid, whole if behind else self.random.randrange(whole), self.random.uniform(0, 0.1) if behind else 0)
        (self.dir / "killed").touch()
        done = verb.join()
        text = done.stdout + done.stderr
        self.assertEqual(done.returncode, 1, text)
        self.assertRegex(text, r"was lost while state was transferred|before it was ready|step before switch")
        self.gapless.wait_serving(1)
        return re.search(r"the upgrade failed: (\w+)", text)[1], had or 0

    def test_kills_at_any_moment_lose_nothing(self):
        self.begin()
        check = kv.Check(self, self.address, "--fill", ITEMS, "--connections", 8, "--seconds", 3600, "--verify")
        check.wait("loading")
        whole = self.size()
        before = harness.settled(self.open_fds)
        phases, began, number, read = collections.Counter(), time.monotonic(), 0, []
        while number < KILLS if transaction.FULL else time.monotonic() < began + SECONDS:
            number += 1
            phase, had = self.one(number + 1, whole)
            phases[phase] += 1
            read.append(had)
        after = harness.settled(self.open_fds)
        status, report = check.stop()
        harness.note(f"{number} kills in {time.monotonic() - began:.0f} s: {dict(phases)}, after {min(read)} to {max(read)} bytes of about "
                     f"{whole}, {len(set(read))} different; {report['requests']} requests")
        self.assertEqual((status, kv.mistakes(report)), (0, {}), check.log.text())
        self.assertGreater(phases["snapshot"], number // 3)
        self.assertTrue(all(now <= then + 1 for now, then in zip(after, before)), f"{before} {after}")

    def size(self):
        """Of the stream: what a new worker has read when it waits for its step."""
        old = set(self.gapless.worker_pids())
        self.server(0)
        verb = transaction.Verb(self.gapless, "upgrade")
        pid = self.newcomer(old, verb)
        self.gapless.log.wait("step begins")
        size = self.bytes_read(pid)
        (self.dir / "killed").touch()
        verb.join()
        self.gapless.wait_serving(1)
        return size


class Adding(threading.Thread):
    """Counts an item of its own up, on a connection after the other. What was answered is there; of what wasn't nobody knows."""

    def __init__(self, case, key):
        super().__init__(daemon=True)
        self.case, self.key, self.failure = case, key, None
        self.least = self.most = 0  # what the item may be
        self._ended = threading.Event()
        self.start()

    def run(self):
        try:
            while not self._ended.is_set():
                try:
                    with kv.Client(self.case.address) as client:
                        self.add(client)
                except (OSError, AssertionError):
                    if self.failure:
                        raise
        except AssertionError:
            pass

    def add(self, client):
        while not self._ended.is_set():
            self.most += 1
            number = int(client.ask(b"incr %s 1" % self.key))
            if not self.least < number <= self.most:
                self.failure = f"{self.key}: {number}, not {self.least + 1} to {self.most}"
                raise AssertionError(self.failure)
            self.least = number

    def stop(self):
        self._ended.set()
        self.join(harness.PATIENCE)


class WindowTest(TestCase):
    """The new worker dies in the observation window: the connections that it has go with it, no acknowledged change does."""

    def begin(self):
        self.gapless = self.serve("-l", f"cache=tcp:127.0.0.1:{self.port}", "--state-freeze", "1s", "--", self.server(1), observe="60s")

    def clients(self, count):
        clients = []
        with kv.Client(self.address) as client:
            for i in range(count):
                client.set(b"count%d" % i, b"0")
                clients.append(Adding(self, b"count%d" % i))
        self.addCleanup(lambda: [client.stop() for client in clients])
        return clients

    def test_no_acknowledged_change_is_lost(self):
        self.begin()
        clients = self.clients(6)
        for number in range(2, 22 if transaction.FULL else 7):
            self.server(number)
            mark = self.gapless.log.mark()
            verb = transaction.Verb(self.gapless, "upgrade")
            self.gapless.log.wait("traffic switched", after=mark)
            generation = self.gapless.generation()
            time.sleep(self.random.uniform(0, 0.3))  # the moment is what is varied
            for pid in self.gapless.worker_pids(generation=generation):
                os.kill(pid, signal.SIGKILL)
            done = verb.join()
            self.assertEqual(done.returncode, 1, done.stdout + done.stderr)
            self.assertIn("killed by signal 9", done.stdout + done.stderr)
            self.gapless.wait_serving(1)
        for client in clients:
            client.stop()
            self.assertIsNone(client.failure)
            with kv.Client(self.address) as asking:
                self.assertLessEqual(client.least, int(asking.get(client.key)[client.key]))
        harness.note(f"{sum(client.least for client in clients)} changes")

    def test_rollback_that_would_lose_changes_says_how_many(self):
        """The standby is stopped; answers wait at most state.freeze."""
        self.begin()
        (old,) = self.gapless.worker_pids()
        self.server(2)
        self.gapless.hup()
        self.gapless.log.wait("traffic switched", generation=2)
        os.kill(old, signal.SIGSTOP)
        longest = 0.0
        with kv.Client(self.address) as client:
            deadline = time.monotonic() + harness.PATIENCE
            while not self.gapless.log.find("changes don't go back to the standby any more"):
                self.assertLess(time.monotonic(), deadline, "nobody noticed that the standby doesn't read")
                began = time.monotonic()
                client.set(b"large", bytes(300000))
                longest = max(longest, time.monotonic() - began)
            harness.note(f"longest answer: {longest:.2f} s")
            self.assertLess(longest, 1 + harness.PATIENCE / 10)
        done = self.gapless.verb("rollback")
        self.assertEqual(done.returncode, 3, done.stdout + done.stderr)
        self.assertRegex(done.stderr, r"\d+ change")
        os.kill(old, signal.SIGCONT)
        done = self.gapless.verb("rollback", "--force")
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.gapless.wait_serving(1)


if __name__ == "__main__":
    harness.main()

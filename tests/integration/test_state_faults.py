#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""State that moves while something fails: the upgrade ends with the true reason, the old version goes on with all that it had, on the
same connections, nothing leaks, and the next upgrade works.

The server is examples/python/counter.py, by tests/helpers/faulty_state.py, which does wrong what it is told to.
"""

import contextlib
import json
import os
import pathlib
import re
import select
import shlex
import signal
import time
import urllib.parse

import harness
import test_python_worker
import transaction

FAULTY = pathlib.Path(__file__).resolve().parents[1] / "helpers/faulty_state.py"
PADDING = (1500, 100)  # records, and bytes of each
FREEZE_S = 3 if harness.SANITIZED else 2
LOST = r"worker 0 of generation \d+ was lost while state was transferred: worker 0 was killed by signal 9"


class TestCase(test_python_worker.PythonWorker):
    STALL = "4s"

    def install(self, *, at=None, **faults):
        """What the command is from now on: {point: action}, and other faults of faulty_state.py."""
        given = json.dumps({"at": at or {}, "file": str(self.dir / "held"), **faults})
        command = ["env", f"PYTHONPATH={self.path}", "PYTHONDONTWRITEBYTECODE=1", FAULTY, "--padding", *PADDING, "--faults", given]
        return self.write("server", f"#!/bin/sh\nexec {shlex.join(map(str, command))}\n", 0o755)

    def configure(self, observe, steps, restart, **faults):
        service = {"command": [str(self.install(**faults))], "listen": [f"web=tcp:127.0.0.1:{self.port}"],
                   "state": {"stall": self.STALL, "freeze": f"{FREEZE_S}s"}, "observe": {"window": observe},
                   "drain": {"timeout": "5s"}, "stop": {"grace": "1s"}, "backoff": {"initial": "20ms", "max": "100ms"},
                   "steps": steps, "restart": restart}
        return self.write("gapless.yaml", json.dumps({"services": {"server": service}}))  # JSON is YAML

    def begin(self, observe="0", steps=(), restart="always", **faults):
        """A server, a connection that is kept (each request on it counts), and what must be as before after each fault."""
        self.history = self.dir / "history.jsonl"
        self.gapless = self.serve("-c", self.configure(observe, list(steps), restart, **faults), history=str(self.history))
        self.kept = harness.connect(self.address)
        self.addCleanup(self.kept.close)
        self.count = 0
        self.count_on()
        self.padding = self.get("/padding")
        self.assertTrue(self.padding[1].startswith(f"{PADDING[0]} "))

    def hold(self, name):
        """The command of a step that makes the file NAME.reached, and ends once there is NAME.go."""
        return str(self.write(name, f"#!/bin/sh\n: >{self.dir}/{name}.reached\n"
                                    f"while [ ! -e {self.dir}/{name}.go ]; do sleep 0.01; done\n", 0o755))

    def count_on(self, by=5):
        for _ in range(by):
            self.count += 1
            self.assertEqual(self.ask(self.kept, "/count/kept"), (200, f"{self.count}\n"))

    def fault_old(self, at=None, **faults):
        """The one that serves does that from now on."""
        none = {"stream": "", "say": [], "record_max": None, "never_frozen": False, "flood": False}
        text = json.dumps({**none, "at": at or {}, "file": str(self.dir / "held"), **faults})
        self.assertEqual(self.get("/faults/" + urllib.parse.quote(text, safe="")), (200, "so be it\n"))

    def open_fds(self):
        """Of master and workers. The verb that looks is a connection, too, so it is over here."""
        pids = self.gapless.worker_pids()
        return [len(harness.descriptors(pid)) for pid in [self.gapless.wait_master(), *pids]]

    def last_record(self):
        return [json.loads(line) for line in self.history.read_text().splitlines() if '"event":"upgrade"' in line.replace(" ", "")][-1]

    def wait_alone(self):
        def alone():
            service = self.gapless.service()
            return (service and service["upgrade"]["state"] == "idle" and service["state"] == "serving" and
                    len(service["generations"]) == 1 and service)
        return harness.wait_until(alone, lambda: f"one generation alone: {self.gapless.service()}")

    def assert_told(self, done, reason, code=1):
        text = done.stdout + done.stderr
        self.assertEqual(done.returncode, code, text)
        self.assertRegex(text, reason)

    def assert_recorded(self, reason):
        def recorded():
            with contextlib.suppress(OSError, IndexError):
                return re.search(reason, self.last_record().get("reason") or "")
            return None
        harness.wait_until(recorded, f"{reason!r} in the history: {self.history.read_text()}")

    def assert_untouched(self):
        """The old version has all that it had, and the connection."""
        self.count_on()
        self.assertEqual(self.ask(self.kept, "/connection")[1].split()[-1], "1")
        self.assertEqual(self.get("/padding"), self.padding)

    def upgrade_fails(self, reason, code=1, at=None, **faults):
        """An upgrade to a version with these faults does, with that reason, and that was all."""
        before = getattr(self, "before", None) or harness.settled(self.open_fds)
        self.before = before
        self.install(at=at, **faults)
        began = time.monotonic()
        verb = transaction.Verb(self.gapless, "upgrade")
        while not verb.ended():  # it serves on meanwhile
            self.meanwhile()
        self.assert_told(verb.join(), reason, code)
        self.took = time.monotonic() - began
        self.wait_alone()
        self.assert_untouched()
        self.assert_recorded(reason)
        harness.wait_until(lambda: all(now <= then for now, then in zip(self.open_fds(), before)),
                           lambda: f"descriptors as before: {before}, now {self.open_fds()}")

    def meanwhile(self):
        self.count_on(1)
        time.sleep(0.002)

    def assert_next_works(self):
        self.install()
        done = self.gapless.verb("upgrade")
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.count_on()
        self.assertNotEqual(self.ask(self.kept, "/connection")[1].split()[-1], "1")
        self.assertEqual(self.get("/padding"), self.padding)


class NewDiesTest(TestCase):
    """The new worker is killed."""

    def test_before_the_switch(self):
        self.begin()
        for point, reason in (
                ("after hello", "worker 0 closed its control channel before it was ready"),
                ("before accepted", LOST),
                ("put 1", LOST),
                ("put 1000", LOST),
                ("load", LOST),
                ("init", LOST),
                ("after loaded", LOST),
                ("before imported", LOST)):
            with self.subTest(point):
                self.upgrade_fails(reason, at={point: "kill"})
        self.assert_next_works()

    def test_while_descriptors_are_on_their_way_to_it(self):
        """They are nobody's then. That isn't the old worker's fault, which is heard on, also while an undo runs."""
        self.begin(steps=[{"before": "spawn", "run": ["true"], "undo": [self.hold("undo")]}])
        (old,) = self.gapless.worker_pids()
        master = self.gapless.wait_master()
        self.fault_old(record_max=50, at={"read 1": "hold"})
        self.install()
        verb = transaction.Verb(self.gapless, "upgrade")
        harness.wait_until((self.dir / "held.reached").exists, "the snapshot")
        (new,) = [pid for pid in self.gapless.worker_pids() if pid != old]
        os.kill(master, signal.SIGSTOP)
        self.addCleanup(os.kill, master, signal.SIGCONT)
        (self.dir / "held.go").touch()
        harness.settled(lambda: len(harness.descriptors(old)))
        os.kill(new, signal.SIGKILL)
        os.kill(master, signal.SIGCONT)
        harness.wait_until((self.dir / "undo.reached").exists, "the undo")
        self.count_on()
        (self.dir / "undo.go").touch()
        self.assert_told(verb.join(), LOST)
        self.wait_alone()
        self.assertEqual(self.gapless.log.find("cut off from its control channel"), [])
        self.fault_old()
        self.assert_next_works()

    def test_while_the_old_one_freezes(self):
        self.begin()
        self.fault_old(never_frozen=True)
        old = self.gapless.worker_pids()
        self.install()
        verb = transaction.Verb(self.gapless, "upgrade")
        harness.wait_until(lambda: self.gapless.service()["upgrade"].get("phase") == "freeze", "the freeze")
        for pid in self.gapless.worker_pids():
            if pid not in old:
                os.kill(pid, signal.SIGKILL)
        self.assert_told(verb.join(), LOST)
        self.assert_untouched()
        self.fault_old()
        self.wait_alone()
        self.assert_next_works()

    def test_after_the_switch_every_acknowledged_change_comes_back(self):
        self.begin(observe="60s")
        self.install()
        for changes in (0, 200):
            with self.subTest(changes):
                mark = self.gapless.log.mark()
                verb = transaction.Verb(self.gapless, "upgrade")
                self.gapless.log.wait("traffic switched", after=mark)
                harness.wait_until(lambda: harness.http_get(self.address, "/connection")[1].split()[-1] != "1", "the new one to serve")
                count = int(self.get("/value/kept")[1])
                for _ in range(changes):
                    count += 1
                    self.assertEqual(self.get("/count/kept"), (200, f"{count}\n"))
                generation = self.gapless.generation()
                for pid in self.gapless.worker_pids(generation=generation):
                    os.kill(pid, signal.SIGKILL)
                self.assert_told(verb.join(), "killed by signal 9")
                self.wait_alone()
                self.assertEqual(self.get("/value/kept"), (200, f"{count}\n"))
                self.assertEqual(self.get("/padding"), self.padding)
                self.assert_recorded("killed by signal 9")

    def test_while_its_changes_go_back(self):
        """Nobody is started in its place: that one would serve without the state until the traffic goes back."""
        self.begin(observe="60s")
        self.fault_old(at={"before imported": "hold"})
        self.install()
        self.gapless.hup()
        self.gapless.log.wait("traffic switched", generation=2)
        self.count_on()
        verb = transaction.Verb(self.gapless, "rollback")
        harness.wait_until((self.dir / "held.reached").exists, "the way back")
        for pid in self.gapless.worker_pids(generation=2):
            os.kill(pid, signal.SIGKILL)
        self.gapless.log.wait("worker ended", generation=2)
        (self.dir / "held.go").touch()
        self.assertEqual(verb.join().returncode, 0)
        self.wait_alone()
        self.assertEqual(self.gapless.log.find("worker is started again"), [])
        self.assertEqual(self.get("/value/kept"), (200, f"{self.count}\n"))

    def test_around_the_switch(self):
        self.begin(observe="60s")
        for point in "after imported", "own":
            with self.subTest(point):
                self.install(at={point: "kill"})
                self.assert_told(self.gapless.verb("upgrade"), "killed by signal 9")
                self.wait_alone()
                self.assert_untouched()


class OldDiesTest(TestCase):
    """The old worker is: what it had has gone with it."""

    def test_at_each_phase(self):
        self.begin()
        for point in ("before reloadable", "read 1", "read 1000", "freeze", "before frozen", "after frozen"):
            with self.subTest(point):
                self.fault_old(at={point: "kill"})
                done = self.gapless.verb("upgrade")
                self.assert_told(done, "was lost while state was transferred|lost|killed by signal 9|no worker")
                harness.note(f"{point}: {done.stderr.strip()}")
                self.wait_alone()
                self.assertEqual(self.get("/count/again")[0], 200)
                self.install()
        done = self.gapless.verb("upgrade")
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)


class StreamTest(TestCase):
    """What comes to the new worker isn't what it should be."""

    def broken(self, stream, reason, **faults):
        with self.subTest(stream):
            self.fault_old(stream=stream, **faults)
            self.upgrade_fails(reason)
            self.fault_old()

    def test_frames(self):
        self.begin()
        self.broken("bit of a value", "what came isn't what was sent")
        self.broken("schema", "segment counters: no converter from version 9 to 1")
        self.broken("segment", "a record of segment 99 of 2")
        self.broken("count of mark", r"what came isn't what was sent: \d+ frames of \d+")
        self.broken("count of end", r"what came isn't what was sent: \d+ frames of \d+")
        self.broken("garbage", "bytes that are no frame")
        self.broken("too long", "a frame of 8388609 bytes is too large")
        self.broken("cut", "exporter 0 has gone in the midst of its state")
        self.broken("no end", "exporter 0 has gone in the midst of its state")
        self.assert_next_works()

    def test_blobs(self):
        self.begin()
        self.broken("unsealed", "a memory file isn't sealed", record_max=50)
        self.broken("blob's size", "a memory file isn't one of 101 bytes", record_max=50)
        self.broken("no descriptor", r"nothing of the state has moved for 4s \(state.stall\)", record_max=50)
        self.broken("few descriptors", "Too many open files", record_max=50)
        self.fault_old(record_max=50)
        self.assert_next_works()

    def test_segment_that_the_next_version_does_not_know(self):
        self.begin(unknown=True)
        self.upgrade_fails("segment unheard isn't known to this version")
        self.install(unknown=True)
        self.assertEqual(self.gapless.verb("upgrade").returncode, 0)
        self.count_on()


class HookTest(TestCase):
    def test_hooks_that_fail(self):
        self.begin()
        for point, code in ("load", 1), ("init", 1), ("put 700", 1), ("accept", 1):
            with self.subTest(point):
                self.upgrade_fails("the disk is on fire", code, at={point: "raise"})
        for point, code in ("reloadable", 3), ("read 700", 1), ("freeze", 1):
            with self.subTest(point):
                self.fault_old(at={point: "raise"})
                self.upgrade_fails("the disk is on fire", code)
                self.fault_old()
        self.assert_next_works()

    def test_new_version_that_cannot_go_on_with_what_is_its_own(self):
        self.begin(observe="2s")
        self.upgrade_fails(r"worker 0 of generation \d+: the disk is on fire", at={"own": "say"}, say=["failed"])
        self.assert_next_works()

    def test_freeze_that_never_ends(self):
        self.begin()
        self.fault_old(never_frozen=True)
        self.upgrade_fails(r"the old generation did not finish what writes within .* \(state.freeze\)")
        self.fault_old()
        self.assert_next_works()

    def test_importer_that_stops_reading(self):
        self.begin()
        longest = 0.0

        def meanwhile():
            nonlocal longest
            began = time.monotonic()
            self.count_on(1)
            longest = max(longest, time.monotonic() - began)
        self.meanwhile = meanwhile
        self.upgrade_fails(r"nothing of the state has moved for 4s \(state.stall\)", at={"put 5": "stop"})
        harness.note(f"longest answer while the importer slept: {longest * 1000:.1f} ms")
        self.assertLess(longest, 0.8)
        self.assert_next_works()


class StandbyTest(TestCase):
    """The old worker, on standby in the observation window, doesn't read what is sent back to it."""

    def test_standby_that_stops(self):
        self.begin(observe="60s")
        (old,) = self.gapless.worker_pids()
        self.install()
        self.gapless.hup()
        self.gapless.log.wait("traffic switched", generation=2)
        self.count_on(20)
        os.kill(old, signal.SIGSTOP)
        longest = 0.0
        deadline = time.monotonic() + harness.PATIENCE
        while not self.gapless.log.find("changes don't go back to the standby any more"):
            self.assertLess(time.monotonic(), deadline, "nobody noticed that the standby doesn't read")
            began = time.monotonic()
            self.ask_many(1000)
            longest = max(longest, time.monotonic() - began)
        harness.note(f"longest wait for 1000 answers: {longest * 1000:.0f} ms")
        self.assertGreater(longest, FREEZE_S * 0.9)
        self.count_on(3)
        self.assert_told(self.gapless.verb("rollback"), "what has changed since the switch would be lost .a worker on standby has not read for as long as state.freeze", code=3)
        os.kill(old, signal.SIGCONT)
        done = self.gapless.verb("rollback", "--force")
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.wait_alone()
        self.assertEqual(self.gapless.generation(), 1)
        self.assertEqual(self.ask(self.kept, "/connection")[1].split()[-1], "1")
        self.assertEqual(self.get("/padding"), self.padding)

    def test_standby_that_stops_and_then_the_master_is_killed(self):
        """Answers that wait for it already don't wait for ever."""
        self.begin(observe="60s")
        (old,) = self.gapless.worker_pids()
        self.install()
        self.gapless.hup()
        self.gapless.log.wait("traffic switched", generation=2)
        self.count_on()
        os.kill(old, signal.SIGSTOP)
        self.addCleanup(os.kill, old, signal.SIGCONT)
        left = self.send_until_one_waits()
        master = self.gapless.wait_master()
        os.kill(master, signal.SIGKILL)
        self.gapless.wait_master(but=master)
        self.gapless.log.wait("changes don't go back to the standby any more")
        self.assertEqual(self.read_many(left), 0)
        self.count_on()

    def test_standby_that_ends_after_the_commit_is_not_missed(self):
        self.begin(observe="200ms", steps=[{"after": "commit", "run": [self.hold("step")]}])
        self.install()
        verb = transaction.Verb(self.gapless, "upgrade")
        self.gapless.log.wait("generation ended", generation=1)
        harness.wait_until((self.dir / "step.reached").exists, "the step")
        (self.dir / "step.go").touch()
        done = verb.join()
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertNotIn("standby has ended", done.stdout + done.stderr)
        self.assertEqual(self.gapless.log.find("changes don't go back to the standby"), [])

    def ask_many(self, count):
        """Counters with long names, at once; the pipe takes 1 MiB of them before anything waits."""
        self.send_many(count)
        self.assertEqual(self.read_many(count), 0)

    def send_many(self, count):
        self.kept.sendall(b"".join(b"GET /count/%s%d HTTP/1.1\r\nHost: test\r\n\r\n" % (b"x" * 2000, i) for i in range(count)))

    def read_many(self, count, quiet_s=harness.PATIENCE):
        """How many of the answers didn't come before nothing did for so long."""
        data = b""
        while data.count(b"HTTP/1.1 200") < count or not data.endswith(b"\n"):
            if not select.select([self.kept], [], [], quiet_s)[0]:
                break
            more = self.kept.recv(1 << 20)
            self.assertTrue(more, "the connection was closed")
            data += more
        return count - data.count(b"HTTP/1.1 200")

    def send_until_one_waits(self):
        """How many of the requests have no answer yet."""
        for _ in range(100):
            self.send_many(20)
            left = self.read_many(20, FREEZE_S / 2)
            if left:
                return left
        return self.fail("nothing waits for the standby")


class MasterDiesTest(TestCase):
    """The master is killed, and the next one takes over."""

    def kill_master(self):
        master = self.gapless.wait_master()
        os.kill(master, signal.SIGKILL)
        self.gapless.wait_master(but=master)
        harness.wait_until(self.gapless.service, "the next master to answer")

    def test_before_the_switch_the_old_version_goes_on(self):
        self.begin()
        for point in "put 700", "before loaded", "after frozen", "before imported":
            with self.subTest(point):
                for path in self.dir.glob("held.*"):
                    path.unlink()
                self.fault_old(at={point: "hold"} if "frozen" in point else {})
                self.install(at={} if "frozen" in point else {point: "hold"})
                self.gapless.hup()
                harness.wait_until((self.dir / "held.reached").exists, point)
                self.kill_master()
                (self.dir / "held.go").touch()
                self.wait_alone()
                self.assert_untouched()
                self.assert_recorded("the master was replaced while state was transferred")
        self.fault_old()
        self.assert_next_works()

    def test_in_a_freeze_that_never_ends(self):
        self.begin()
        self.fault_old(never_frozen=True)
        self.install()
        self.gapless.hup()
        harness.wait_until(lambda: self.gapless.service()["upgrade"].get("phase") == "freeze", "the freeze")
        self.kill_master()
        self.wait_alone()
        self.assert_untouched()

    def in_the_window(self):
        self.begin(observe="60s")
        self.install()
        self.gapless.hup()
        self.gapless.log.wait("traffic switched", generation=2)
        self.count_on()
        self.kill_master()
        self.count_on()

    def test_in_the_window_a_rollback_brings_the_changes_back(self):
        self.in_the_window()
        done = self.gapless.verb("rollback")
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.wait_alone()
        self.assert_untouched()

    def test_in_the_window_a_crash_brings_the_changes_back(self):
        self.in_the_window()
        for pid in self.gapless.worker_pids(generation=2):
            os.kill(pid, signal.SIGKILL)
        self.wait_alone()
        self.assertEqual(self.get("/value/kept"), (200, f"{self.count}\n"))

    def test_in_the_window_without_a_standby_what_is_lost_is_said(self):
        self.begin(observe="60s", restart="no")
        (old,) = self.gapless.worker_pids()
        self.install()
        self.gapless.hup()
        self.gapless.log.wait("traffic switched", generation=2)
        self.count_on()
        os.kill(old, signal.SIGKILL)
        self.gapless.log.wait("changes don't go back to the standby any more")
        self.kill_master()
        done = self.gapless.verb("rollback", "--force")
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.wait_alone()
        self.assert_recorded("all of the state that a worker on standby had is lost: a worker on standby has ended")
        self.assertIsNone(self.last_record()["transfer"]["changes_lost"])

    def test_in_the_window_it_goes_on_to_its_commit(self):
        self.begin(observe="2s")
        self.install()
        self.gapless.hup()
        self.gapless.log.wait("traffic switched", generation=2)
        self.count_on()
        self.kill_master()
        self.gapless.wait_serving(2)
        self.count_on()
        self.assertEqual(self.ask(self.kept, "/connection")[1].split()[-1], "2")


    def test_while_the_old_version_is_asked(self):
        self.begin()
        self.fault_old(at={"reloadable": "hold"})
        self.install()
        self.gapless.hup()
        harness.wait_until((self.dir / "held.reached").exists, "reloadable")
        self.kill_master()
        (self.dir / "held.go").touch()
        self.gapless.wait_serving(2)
        self.count_on()
        self.assertEqual(self.get("/padding"), self.padding)

    def test_while_connections_are_on_their_way(self):
        self.begin()
        self.install(at={"before taken": "hold"})
        self.gapless.hup()
        harness.wait_until((self.dir / "held.reached").exists, "the offer")
        self.kill_master()
        (self.dir / "held.go").touch()
        self.gapless.wait_serving(2)
        self.count_on()
        self.assertEqual(self.ask(self.kept, "/connection")[1].split()[-1], "2")
        self.assertEqual(self.gapless.log.find("cut off from its control channel|did not drain in time"), [])

    def in_a_rollback(self, old, new):
        self.begin(observe="60s")
        self.fault_old(at=old)
        self.install(at=new)
        self.gapless.hup()
        self.gapless.log.wait("traffic switched", generation=2)
        self.count_on()
        verb = transaction.Verb(self.gapless, "rollback")
        harness.wait_until((self.dir / "held.reached").exists, "the way back")
        self.kill_master()
        (self.dir / "held.go").touch()
        verb.join()
        self.wait_alone()
        self.assert_untouched()

    def test_in_a_rollback_that_waits_for_the_new_version(self):
        self.in_a_rollback({}, {"freeze": "hold"})

    def test_in_a_rollback_that_waits_for_the_old_version(self):
        self.in_a_rollback({"before imported": "hold"}, {})

    def test_in_a_rollback_whose_answer_died_with_the_master(self):
        self.in_a_rollback({"after imported": "hold"}, {})


class ProtocolTest(TestCase):
    """A worker that says what it shouldn't is cut off, or not heard, as docs/protocol.md says."""

    def test_new_worker_that_breaks_the_rules(self):
        self.begin()
        offered = "it offered 1 connections with 0 descriptors"
        taken = r"it took an offer that it wasn't made \(4711\)"
        for point, message, reason in (
                ("before hello", "describe", "it described its state before hello"),
                ("after hello", "describe_without_name", "it described a segment with a name of 0 bytes"),
                ("after hello", "describe_without_version", "it described segment late without a version"),
                ("before ready", "describe", "it described its state twice"),
                ("before ready", "offer_without_descriptors", offered),
                ("before ready", "offer_beyond", "it made an offer of number 4294967296, which is none of 32 bits"),
                ("before ready", "taken", taken),
                ("before accepted", "describe", "it described its state after it was ready"),
                ("before accepted", "offer_without_descriptors", offered),
                ("before accepted", "taken", taken),
                ("put 5", "attach_without_descriptors", "it attached 0 descriptors to 0 blobs")):
            with self.subTest(f"{point} {message}"):
                self.upgrade_fails(reason, at={point: "say"}, say=[message])
        self.assert_next_works()

    def test_what_is_of_another_transfer_is_not_heard(self):
        self.begin()
        self.fault_old(at={"read 5": "say"}, say=["others"])
        self.install(at={"before accepted": "say", "before imported": "say"}, say=["others"])
        done = self.gapless.verb("upgrade")
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.count_on()
        self.assertEqual(self.get("/padding"), self.padding)

    def in_the_window(self, at):
        self.begin(observe="60s")
        self.install(at=at, say=["taken"])
        self.gapless.hup()
        self.gapless.log.wait("traffic switched", generation=2)

    def test_new_worker_that_breaks_the_rules_in_the_window(self):
        """It serves on, and what it changes doesn't go back any more: a rollback isn't without a loss."""
        self.in_the_window({"own": "say"})
        self.gapless.log.wait("cut off from its control channel", generation=2)
        self.assertEqual(self.get("/count/new"), (200, "1\n"))
        self.assert_told(self.gapless.verb("rollback"), "would be lost .a worker of the new version was cut off", code=3)
        self.assert_told(self.gapless.verb("rollback", "--force"), "is lost: a worker of the new version was cut off", code=0)
        self.wait_alone()
        self.assert_untouched()

    def test_new_worker_that_breaks_the_rules_when_it_freezes(self):
        """It would thaw and serve on, and what it answers then would be lost."""
        self.in_the_window({"freeze": "say"})
        self.count_on()
        self.assert_told(self.gapless.verb("rollback"), "has gone back", code=0)
        self.wait_alone()
        self.assertEqual(self.get("/value/kept"), (200, f"{self.count}\n"))

    def test_imported_before_its_time_switches_nothing(self):
        self.begin()
        self.upgrade_fails("killed by signal 9", at={"put 5": "say", "put 1000": "kill"}, say=["early"])
        self.assert_next_works()

    def test_flood_of_progress(self):
        """From both workers; the master answers meanwhile."""
        self.begin()
        self.fault_old(flood=True, never_frozen=True)
        self.install(flood=True)
        verb = transaction.Verb(self.gapless, "upgrade")
        longest, looks = 0.0, 0
        while not verb.ended():
            began = time.monotonic()
            self.assertIsNotNone(self.gapless.status())
            longest, looks = max(longest, time.monotonic() - began), looks + 1
        harness.note(f"longest of {looks} looks: {longest * 1000:.0f} ms")
        self.assert_told(verb.join(), "state.freeze")
        self.wait_alone()
        self.assert_untouched()
        self.fault_old()
        self.assert_next_works()


if __name__ == "__main__":
    harness.main(at_a_time=5)

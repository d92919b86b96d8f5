#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""An upgrade is a transaction: whatever a new version does wrong, and whoever steps in, the service goes on, and the history tells
what happened. Each case is under load: new connections, and kept ones."""

import json
import os
import re
import signal
import time

import exact
import harness
import transaction

STARTING = "spawn|ready"  # one worker may be ready, or at fault, before the other one executes
KILLS = 100 if transaction.FULL else 6
ABORTED = re.compile(r"signal 6|ABRT|[Aa]borted")


class BadVersion:
    """The new version is bad."""

    def fails(self, phase, outcome, reason, timeout=None):
        """The upgrade ends so, and the old version serves on; the record. phase: a pattern."""
        began = time.monotonic()
        done = self.gapless.verb("upgrade", timeout=timeout)
        self.took = time.monotonic() - began
        self.assertEqual(done.returncode, 1, transaction.reason_of(done))
        self.assertRegex(done.stderr, reason)
        self.assert_old_serves()
        self.end_load()
        record = self.wait_record(outcome=outcome, reason=re.compile(reason), phase=re.compile(f"^({phase})$"),
                                  **{"from": 1, "to": 2})
        self.assert_phases(record)
        self.assertIn(record["reason"], done.stderr)
        return record

    def test_that_crashes_before_it_is_ready(self):
        self.begin()
        self.version("two", "--crash-before-ready")
        self.fails(STARTING, "failed", ABORTED.pattern)

    def test_that_exits_at_once(self):
        self.begin()
        self.version("two", "--exit-at-start", 3)
        self.fails(STARTING, "failed", r"code 3\b")

    def test_that_never_gets_ready(self):
        self.begin(ready={"timeout": "1s"})
        self.version("two", "--never-ready")
        record = self.fails("ready", "failed", r"ready")
        self.assertGreaterEqual(sum(phase["ms"] for phase in record["phases"]), 900, record)

    def test_that_crashes_after_it_was_ready(self):
        """… while a step before the switch holds the upgrade; which isn't waited for."""
        self.begin(steps=[{"before": "switch", "run": [self.hold("step")], "undo": self.note("undone"), "timeout": "20s"}])
        self.version("two", "--crash-after-ready", 200)
        self.fails("switch", "failed", ABORTED.pattern)
        self.assertLess(self.took, 15)
        self.assertEqual(self.notes(), [], "a step that did not end is not undone")

    def test_that_crashes_two_seconds_after_the_switch(self):
        self.begin(observe={"window": "10s"})
        self.version("two", "--crash-after-first", 2000)
        record = self.fails("observe", "rolled_back", ABORTED.pattern)
        self.assertGreaterEqual(record["crashes"], 1, record)
        self.assertTrue(2 <= self.took < 9, self.took)
        self.assertGreaterEqual(record["phases"][-1]["ms"], 1900, record)

    def test_that_crashes_under_load_alone(self):
        self.begin(observe={"window": "10s"})
        self.version("two", "--crash-at-request", 50)
        self.fails("observe", "rolled_back", ABORTED.pattern)

    def test_one_worker_of_which_crashes_again_and_again(self):
        """The other one is well, and would serve."""
        self.begin(observe={"window": "10s", "crashes": 3})
        self.version("two", "--worker", 0, "--crash-after-first", 100)
        record = self.fails("observe", "rolled_back", r"crash")
        self.assertEqual(record["crashes"], 3, record)

    def test_one_worker_of_which_crashes_less_often_than_is_allowed(self):
        self.begin(observe={"window": "1s", "crashes": 3})
        self.version("two", "--worker", 0, "--crash-after-first", 100, "--once", self.dir / "once")
        done = self.gapless.verb("upgrade")
        self.assertEqual(done.returncode, 0, transaction.reason_of(done))
        self.assert_old_serves(2, "two")
        self.end_load()
        self.wait_record("crash")
        self.wait_record(outcome="done", crashes=1)

    def test_that_fails_its_smoke_test(self):
        self.begin(smoke=["http:/healthz"])
        self.version("two", "--status", 500)
        self.fails("smoke", "failed", r"500")

    def test_that_fails_the_operators_own_smoke_test(self):
        """Which is asked of the new version alone."""
        test = self.write("smoke", f"#!/bin/sh\nexec python3 -c '\nimport os, sys, urllib.request as r\n"
                                   f"body = r.urlopen(\"http://\" + os.environ[\"GAPLESS_ADDRESS\"]).read().decode()\n"
                                   f"sys.exit(\"seen: \" + body.strip())'\n", 0o755)
        self.begin(smoke=[f"run:{test}"])
        self.version("two")
        self.fails("smoke", "failed", r"seen: two generation 2")

    def test_that_answers_500_to_the_health_probe_after_the_switch(self):
        self.begin(observe={"window": "10s"},
                   health={"probe": "http:/healthz", "interval": "100ms", "timeout": "1s", "failures": 3})
        self.version("two", "--status-after", "300,500")
        self.fails("observe", "rolled_back", r"500")
        self.assertLess(self.took, 9)

    def test_whose_check_fails(self):
        self.begin(check=["sh", "-c", "[ $GAPLESS_NEW_GENERATION = 1 ] && exit 0; echo line 7: no such directive; exit 1"])
        self.version("two")
        pids = self.gapless.worker_pids()
        self.fails("validate", "failed", r"line 7: no such directive")
        self.assertEqual(sorted(self.gapless.worker_pids()), sorted(pids))

    def test_step_that_fails_before_the_switch(self):
        self.begin(steps=[{"before": "spawn", "run": self.note("a"), "undo": self.note("undo a")},
                          {"after": "ready", "run": self.note("b"), "undo": self.note("undo b")},
                          {"after": "ready", "run": self.note("c")},
                          {"before": "switch", "run": self.note("d", 3, "no such table"), "undo": self.note("undo d")},
                          {"after": "switch", "run": self.note("e")}])
        notes = self.notes()  # of the first generation, if it has any
        self.version("two")
        record = self.fails("switch", "failed", r"no such table")
        self.assertEqual(self.notes()[len(notes):], ["a", "b", "c", "d", "undo b", "undo a"])
        self.assertEqual([(step["name"], step["outcome"]) for step in record["steps"]],
                         [("before spawn 1", "undone"), ("after ready 1", "undone"), ("after ready 2", "done"),
                          ("before switch 1", "failed")])

    def test_step_that_fails_after_the_switch(self):
        self.begin(steps=[{"before": "spawn", "run": self.note("a"), "undo": self.note("undo a")},
                          {"before": "switch", "run": self.note("b"), "undo": self.note("undo b")},
                          {"after": "switch", "run": self.note("c", 3, "no such table")}])
        notes = self.notes()
        self.version("two")
        record = self.fails("switch", "rolled_back", r"no such table")
        self.assertEqual(self.notes()[len(notes):], ["a", "b", "c", "undo b", "undo a"])
        self.assertEqual([(step["name"], step["outcome"]) for step in record["steps"]],
                         [("before spawn 1", "undone"), ("before switch 1", "undone"), ("after switch 1", "failed")])

    def test_undo_that_fails_does_not_keep_the_others_from_running(self):
        self.begin(steps=[{"before": "spawn", "run": self.note("a"), "undo": self.note("undo a")},
                          {"before": "switch", "run": self.note("b"), "undo": self.note("undo b", 1)},
                          {"after": "switch", "run": self.note("c", 3, "no such table")}])
        notes = self.notes()
        self.version("two")
        record = self.fails("switch", "rolled_back", r"no such table")
        self.assertEqual(self.notes()[len(notes):], ["a", "b", "c", "undo b", "undo a"])
        self.assertEqual([step["outcome"] for step in record["steps"]], ["undone", "undo_failed", "failed"])

    def test_step_that_does_not_end(self):
        self.begin(steps=[{"before": "switch", "run": [self.hold("step")], "timeout": "500ms"}])
        self.version("two")
        self.fails("switch", "failed", r"step before switch 1 was not done within 500 ?ms")

    def test_that_crashes_as_a_canary(self):
        self.begin(canary="30% 10s")
        self.version("two", "--crash-at-request", 20)
        self.fails("canary", "rolled_back", ABORTED.pattern)
        self.assertLess(self.took, 9)


class Operator:
    """The operator steps in."""

    def test_rollback_in_the_window(self):
        self.begin(observe={"window": "20s"})
        self.version("two")
        upgrade = self.upgrade_in_background()
        self.wait_phase("observe")
        self.assertEqual({self.answered_by() for _ in range(20)}, {("two", 2)})
        done = self.gapless.verb("rollback")
        after = {self.answered_by() for _ in range(200)}
        self.assertEqual(done.returncode, 0, transaction.reason_of(done))
        self.assertEqual(after, {("one", 1)}, "an answer of the new version after the traffic was put back")
        ended = upgrade.join()
        self.assertEqual(ended.returncode, 1, transaction.reason_of(ended))
        self.assertIn("rollback", ended.stderr)
        self.assert_old_serves()
        self.end_load()
        record = self.wait_record(outcome="rolled_back", phase="observe", reason=re.compile("rollback"))
        self.assertEqual(record["rolled_back_by"]["uid"], os.getuid())

    def test_rollback_of_a_canary(self):
        self.begin(canary="50% 20s")
        self.version("two")
        upgrade = self.upgrade_in_background()
        self.wait_phase("canary")
        harness.wait_until(lambda: self.answered_by() == ("two", 2), "the canary to answer")
        done = self.gapless.verb("rollback")
        self.assertEqual(done.returncode, 0, transaction.reason_of(done))
        self.assertEqual({self.answered_by() for _ in range(100)}, {("one", 1)})
        self.assertEqual(upgrade.join().returncode, 1)
        self.assert_old_serves()
        self.end_load()
        self.wait_record(outcome="rolled_back", phase="canary", reason=re.compile("rollback"))

    def test_rollback_of_the_rollback(self):
        """There and back again."""
        self.begin(observe={"window": "100ms"})
        self.version("two")
        self.assertEqual(self.gapless.verb("upgrade").returncode, 0)
        for generation, version in ((3, "one"), (4, "two"), (5, "one")):
            done = self.gapless.verb("rollback")
            self.assertEqual(done.returncode, 0, transaction.reason_of(done))
            self.assert_old_serves(generation, version)
        self.end_load()
        self.wait_record(count=4, kind="rollback", outcome="done", **{"from": 4, "to": 5})

    def test_hangup_during_one_that_fails_is_one_more(self):
        self.begin(steps=[{"before": "switch", "run": [self.hold("step", 1)], "timeout": "20s"}])
        self.version("two")
        upgrade = self.upgrade_in_background()
        self.wait_reached("step")
        self.configure(observe={"window": "100ms"})
        self.version("three")
        mark = self.gapless.log.mark()
        self.gapless.hup()
        self.gapless.log.wait("SIGHUP", after=mark)
        self.go("step")
        self.assertEqual(upgrade.join().returncode, 1)
        self.assert_old_serves(3, "three")
        self.end_load()
        self.wait_record(count=2, outcome="done", to=3)

    def test_address_that_the_next_version_does_not_serve_is_back_after_a_rollback(self):
        """And the one that only the next one had is gone."""
        first, second = harness.free_port(), harness.free_port()
        self.begin(listen=[self.target, f"tcp:127.0.0.1:{first}"], observe={"window": "20s"})
        self.configure(listen=[self.target, f"tcp:127.0.0.1:{second}"], observe={"window": "20s"})
        self.version("two")
        upgrade = self.upgrade_in_background()
        self.wait_phase("observe")
        self.assertEqual(harness.version_at(("127.0.0.1", second)), ("two", 2))
        self.assertEqual(self.gapless.verb("rollback").returncode, 0)
        self.assertEqual(upgrade.join().returncode, 1)
        self.assert_old_serves()
        self.assertEqual({harness.version_at(("127.0.0.1", first)) for _ in range(10)}, {("one", 1)})
        with self.assertRaises(ConnectionRefusedError):
            harness.connect(("127.0.0.1", second))
        self.end_load()

    def test_one_worker_more_in_the_window(self):
        """… is one of the new generation, and goes with it."""
        self.begin(observe={"window": "20s"})
        self.version("two")
        upgrade = self.upgrade_in_background()
        self.wait_phase("observe")
        self.gapless.signal(signal.SIGTTIN)
        harness.wait_until(lambda: len(set(self.gapless.worker_pids(generation=2)) - {0}) == 3, self.said)
        self.assertEqual(self.gapless.verb("rollback").returncode, 0)
        self.assertEqual(upgrade.join().returncode, 1)
        self.assert_old_serves()
        self.end_load()

    def test_request_that_the_standby_has_is_finished(self):
        """One that began before the switch and ends after the commit, and one that ends after a rollback."""
        self.begin("--slow", 400, load=False, observe={"window": "100ms"})
        for verb in ("upgrade", "rollback"):
            with harness.connect(self.address) as client:
                client.sendall(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
                old = self.gapless.worker_pids()
                harness.wait_until(lambda: any(harness.established(self.port, pid) for pid in old), "the request to be accepted")
                self.assertEqual(self.gapless.verb(verb, "--no-wait").returncode, 0)
                harness.wait_until(lambda: self.gapless.generation() > 1, "the switch")
                self.assertEqual(harness.read_answer(client)[0], 200)
            self.wait_idle()

    def test_restart_loses_nothing(self):
        self.begin(observe={"window": "100ms"})
        old = self.gapless.worker_pids()
        done = self.gapless.verb("restart")
        self.assertEqual(done.returncode, 0, transaction.reason_of(done))
        self.assertFalse(set(self.gapless.worker_pids()) & set(old))
        self.assertEqual(self.answered_by()[0], "one")
        self.end_load()

    def test_unix_path_goes_back(self):
        path = str(self.dir / "web.sock")
        self.begin(listen=[self.target, f"unix:{path}"], observe={"window": "20s"}, steering=None)
        self.loads.append(harness.Load(self, "--rate", transaction.RATE, f"unix:{path}"))
        self.version("two")
        upgrade = self.upgrade_in_background()
        self.wait_phase("observe")
        self.assertEqual({harness.version_at(path) for _ in range(10)}, {("two", 2)})
        self.assertEqual(self.gapless.verb("rollback").returncode, 0)
        self.assertEqual({harness.version_at(path) for _ in range(10)}, {("one", 1)})
        self.assertEqual(upgrade.join().returncode, 1)
        self.assert_old_serves()
        self.end_load()

    def test_worker_and_master_die_together_in_the_window(self):
        """The next master finds no worker of the new version, and goes back."""
        self.begin(observe={"window": "20s"}, load=False)
        self.put_load_of_new_connections()
        self.version("two")
        self.assertEqual(self.gapless.verb("upgrade", "--no-wait").returncode, 0)
        self.wait_phase("observe")
        new, master = self.gapless.worker_pids(generation=2), self.gapless.wait_master()
        os.kill(master, signal.SIGSTOP)
        for pid in new:
            os.kill(pid, signal.SIGKILL)
        os.kill(master, signal.SIGKILL)
        self.gapless.wait_master(but=master)
        self.assert_old_serves()
        reports = [load.stop() for load in self.loads]
        outcomes = [{name: count for name, count in report["outcomes"].items() if count} for report in reports]
        self.assertEqual([report["outcomes"]["refused"] for report in reports], [0], outcomes)
        self.assertLessEqual(reports[0]["failed"], 3, outcomes)  # what the two had read
        self.wait_record(outcome="rolled_back", phase="observe")

    def test_all_workers_of_the_standby_and_then_of_the_new_version_die(self):
        self.begin(observe={"window": "20s"}, load=False)
        self.version("two")
        upgrade = self.upgrade_in_background()
        self.wait_phase("observe")
        for generation in (1, 2):
            for pid in self.gapless.worker_pids(generation=generation):
                os.kill(pid, signal.SIGKILL)
        harness.wait_until(lambda: harness.http_get(self.address)[0] == 200, "an answer")
        self.assertEqual(upgrade.join().returncode, 1)
        self.assert_old_serves()
        self.wait_record(outcome="rolled_back")

    def test_rollback_after_the_commit(self):
        """… is an upgrade to what the version before was: its arguments and its very file, which isn't there any more."""
        self.begin()
        self.configure(**self.binary("one"))
        self.assertEqual(self.gapless.verb("upgrade").returncode, 0)
        self.configure(**self.binary("two"))
        done = self.gapless.verb("upgrade")
        self.assertEqual(done.returncode, 0, transaction.reason_of(done))
        self.assert_old_serves(3, "two")
        self.write("server", "\x7fELF, but not really", 0o755)
        done = self.gapless.verb("rollback")
        self.assertEqual(done.returncode, 0, transaction.reason_of(done))
        self.assertIn("generation 4", done.stdout)
        self.assert_old_serves(4, "one")
        self.wait_record(count=3, kind="rollback", outcome="done", **{"from": 3, "to": 4})
        # What it began with it goes on with.
        os.kill(self.gapless.worker_pids()[0], signal.SIGKILL)
        self.wait_record("crash")
        self.assert_old_serves(4, "one")
        reports = [load.stop() for load in self.loads]
        self.assertEqual([report["outcomes"]["refused"] for report in reports], [0, 0])

    def test_rollback_with_nothing_to_go_back_to(self):
        self.begin(load=False)
        done = self.gapless.verb("rollback")
        self.assertIn(done.returncode, (1, 3), transaction.reason_of(done))
        self.assertRegex(done.stderr, r"gapless: .*(no|nothing).*")
        self.assertEqual(self.answered_by(), ("one", 1))

    def test_rollback_before_the_switch(self):
        self.begin(steps=[{"before": "switch", "run": [self.hold("step")], "timeout": "20s"}])
        self.version("two")
        upgrade = self.upgrade_in_background()
        self.wait_reached("step")
        done = self.gapless.verb("rollback")
        self.assertEqual(done.returncode, 0, transaction.reason_of(done))
        self.assertEqual(upgrade.join().returncode, 1)
        self.assert_old_serves()
        self.end_load()
        self.wait_record(outcome="failed", phase="switch", reason=re.compile("rollback"))

    def test_broken_file_after_the_upgrade_and_a_crash(self):
        """The version that was upgraded to comes back, not what lies there."""
        self.begin(load=False)
        self.configure(**self.binary("two"))
        self.put_load()
        done = self.gapless.verb("upgrade")
        self.assertEqual(done.returncode, 0, transaction.reason_of(done))
        self.write("server", "\x7fELF, but not really", 0o755)
        before = self.gapless.worker_pids()
        # Not one that has a client at this moment: what that loses is another matter.
        [load.stop() for load in self.loads]
        self.loads = []
        self.put_load_of_new_connections()
        os.kill(before[0], signal.SIGKILL)
        crash = self.wait_record("crash")
        self.assertEqual((crash["generation"], crash["pid"]), (2, before[0]))
        harness.wait_until(lambda: len(set(self.gapless.worker_pids()) - {0}) == 2 and before[0] not in self.gapless.worker_pids(),
                           "a worker in place of the dead one")
        self.assert_old_serves(2, "two")
        self.end_load()

    def put_load_of_new_connections(self):
        self.loads = [harness.Load(self, "--rate", transaction.RATE, self.target)]

    def test_second_upgrade_while_one_is_under_way(self):
        # The second one must be asked for before the window is over.
        self.begin(observe={"window": "8s" if harness.SANITIZED else "3s"},
                   steps=[{"before": "switch", "run": [self.hold("step")], "timeout": "20s"}])
        self.version("two")
        upgrade = self.upgrade_in_background()
        self.wait_reached("step")
        done = self.gapless.verb("upgrade")
        self.assertEqual(done.returncode, 3, transaction.reason_of(done))
        self.assertIn("under way", done.stderr)
        self.go("step")
        # And in the window.
        self.wait_phase("observe")
        self.assertEqual(self.gapless.verb("upgrade").returncode, 3)
        self.assertEqual(upgrade.join().returncode, 0)
        self.assert_old_serves(2, "two")
        self.end_load()
        self.wait_record(outcome="done")
        self.wait_record("refused", 2, reason=re.compile("under way"))

    def test_hangups_during_one_are_one_more(self):
        self.begin(steps=[{"before": "switch", "run": [self.hold("step")], "timeout": "20s"}])
        self.version("two")
        mark = self.gapless.log.mark()
        self.gapless.hup()
        self.wait_reached("step")
        for number in range(1, 4):
            self.gapless.hup()
            harness.wait_until(lambda: len(self.gapless.log.find("SIGHUP", after=mark)) > number, "the signal to be taken")
        self.go("step")
        self.wait_phase("observe")
        self.gapless.hup()
        self.assert_old_serves(3, "two")
        self.end_load()
        self.wait_record(count=2, outcome="done", to=3)

    def test_dry_run_starts_nothing(self):
        self.begin(smoke=["http:/healthz"], canary="10% 1s", check=["sh", "-c", f"echo >>{self.dir}/checked; echo fine"])
        checked = (self.dir / "checked").read_text() if (self.dir / "checked").exists() else ""
        self.version("two")
        pids = self.gapless.worker_pids()
        done = self.gapless.verb("upgrade", "--dry-run")
        self.assertEqual(done.returncode, 0, transaction.reason_of(done))
        for words in (str(self.dir / "current" / "server"), "validate: ", "spawn: 2 workers", "smoke: http:/healthz", r"canary: 10[.0]* ?%",
                      f"switch: .*{self.target}", "observe: for 1s"):
            self.assertRegex(done.stdout, words)
        self.assertEqual((self.dir / "checked").read_text(), checked + "\n", "the check is run")
        self.assertEqual(self.gapless.worker_pids(), pids)
        self.assert_old_serves()
        self.assertEqual(self.records("upgrade"), [])
        # What it would fail with it says.
        self.write("current/server", "#!/no/such/interpreter\n", 0o755)
        done = self.gapless.verb("upgrade", "--dry-run")
        self.assertEqual(done.returncode, 1, transaction.reason_of(done))
        self.assertIn("/no/such/interpreter", done.stdout + done.stderr)
        (self.dir / "current" / "server").unlink()
        done = self.gapless.verb("upgrade", "--dry-run")
        self.assertEqual(done.returncode, 1, transaction.reason_of(done))
        self.assertIn(str(self.dir / "current" / "server"), done.stdout + done.stderr)
        self.assert_old_serves()
        self.end_load()

    def test_worker_of_the_standby_crashes_in_the_window(self):
        """It is there again when it is needed."""
        self.begin(observe={"window": "20s"})
        self.version("two")
        upgrade = self.upgrade_in_background()
        self.wait_phase("observe")
        old = self.gapless.worker_pids(generation=1)
        harness.wait_until(lambda: not any(harness.established(self.port, pid) for pid in old), "its clients to leave")
        os.kill(old[0], signal.SIGKILL)
        harness.wait_until(lambda: len(set(self.gapless.worker_pids(generation=1)) - {0, old[0]}) == 2, self.said)
        self.assertEqual(self.phase(), "observe")
        done = self.gapless.verb("rollback")
        self.assertEqual(done.returncode, 0, transaction.reason_of(done))
        self.assertEqual(upgrade.join().returncode, 1)
        self.assert_old_serves()
        self.end_load()
        self.wait_record(outcome="rolled_back", reason=re.compile("rollback"))


class Canary:
    def test_stages_have_their_shares(self):
        """Of new connections, as a client counts them that asks on and on."""
        self.begin(canary="10% 500ms, 50% 500ms", load=False)
        self.version("two")
        upgrade = self.upgrade_in_background()
        seen = []
        while not upgrade.ended():
            seen.append((time.time(), self.answered_by()[1]))
        done = upgrade.join()
        self.assertEqual(done.returncode, 0, transaction.reason_of(done))
        record = self.wait_record(outcome="done", phase=None)
        self.assert_phases(record)
        self.assertEqual(record["skipped"], ["snapshot", "smoke", "freeze", "import"], record)
        (canary,) = [phase["ms"] for phase in record["phases"] if phase["name"] == "canary"]
        self.assertGreater(canary, 900, record)  # what the master does before it notes the time isn't in it
        times = [line.time() for line in self.gapless.log.find("canary|traffic switched", generation=2)]
        self.assertEqual(len(times), 3, "two stages, and their end")
        for begins, share in ((times[0], 0.1), (times[1], 0.5)):
            # The next share holds before it is told, so not up to its line; by five standard deviations chance has no part in it.
            part = [generation == 2 for at, generation in seen if begins + 0.02 <= at < begins + 0.4]
            got, off = sum(part) / len(part), 5 * (share * (1 - share) / len(part)) ** 0.5
            harness.note(f"canary of {share:.0%}: {got:.1%} of {len(part)}")
            self.assertTrue(share - off <= got <= share + off, f"{got} of {len(part)}, not {share}")
        self.assert_old_serves(2, "two")


PHASES = ("validate", "ready", "smoke", "canary", "observe", "commit")


class Phases:
    """In each phase something happens to gapless itself."""

    def hold_at(self, phase, load):
        """An upgrade that is held in a phase."""
        keys = {
            "validate": {"check": [self.hold("validate")]},
            "ready": {},
            "smoke": {"smoke": [f"run:{self.hold('smoke')}"]},
            "canary": {"canary": "30% 1s"},
            "observe": {"observe": {"window": "1s"}},
            "commit": {"steps": [{"before": "commit", "run": [self.hold("commit")], "timeout": "20s"}]},
        }[phase]
        self.begin(load=False, observe={"window": "200ms"})
        self.configure(**{"observe": {"window": "200ms"}, **keys})
        if load:
            self.put_load()
        self.version("two", *(("--hold", self.dir / "ready.go") if phase == "ready" else ()))
        done = self.gapless.verb("upgrade", "--no-wait")
        self.assertEqual(done.returncode, 0, transaction.reason_of(done))
        if phase in ("validate", "smoke", "commit"):
            self.wait_reached(phase)
        else:
            self.wait_phase(phase)

    def killed_in(self, phase):
        self.hold_at(phase, load=True)
        master = self.gapless.wait_master()
        os.kill(master, signal.SIGKILL)
        self.gapless.wait_master(but=master)
        harness.wait_until(self.gapless.service, "the next master to answer")
        self.go(phase)
        generation = self.wait_idle()["generation"]
        record = self.wait_record()
        self.assertEqual(record["outcome"], "done" if generation > 1 else record["outcome"], record)
        self.assertIn(record["outcome"], ("done", "failed", "rolled_back"))
        if record["outcome"] != "done":
            self.assertTrue(record["reason"], record)
        self.assert_phases(record)
        self.assert_old_serves(generation, {1: "one", 2: "two"}[generation])
        self.assertFalse([pid for pid in harness.descendants_of(self.gapless.pid)
                          if "hold." in " ".join(harness.command_line(pid))], "a command of the dead master")
        self.wait_record("master_restarted")
        # And the next one is an upgrade like any other.
        self.version("three")
        done = self.gapless.verb("upgrade")
        self.assertEqual(done.returncode, 0, transaction.reason_of(done))
        self.assertEqual(self.answered_by()[0], "three")
        self.end_load()
        harness.note(f"master killed in {phase}: the upgrade was {record['outcome']}, {record.get('reason', '')}")

    def test_master_is_killed_while_something_is_undone(self):
        self.begin(load=False)
        self.configure(observe={"window": "20s"}, steps=[
            {"before": "spawn", "run": ["true"], "undo": self.note("undo a")},
            {"before": "switch", "run": ["true"], "undo": [self.hold("undo")], "timeout": "20s"}])
        self.put_load()
        self.version("two")
        self.assertEqual(self.gapless.verb("upgrade", "--no-wait").returncode, 0)
        self.wait_phase("observe")
        rollback = transaction.Verb(self.gapless, "rollback")
        self.wait_reached("undo")
        self.assertEqual({self.answered_by() for _ in range(20)}, {("one", 1)}, "the traffic goes first")
        self.assertEqual(self.gapless.verb("upgrade").returncode, 3)
        master = self.gapless.wait_master()
        os.kill(master, signal.SIGKILL)
        self.gapless.wait_master(but=master)
        harness.wait_until(self.gapless.service, "the next master to answer")
        self.go("undo")
        self.assert_old_serves()
        self.end_load()
        rollback.join()
        record = self.wait_record(outcome="rolled_back", phase="observe", reason=re.compile("rollback"))
        self.assertEqual(record["steps"][0]["outcome"], "undone", record)
        self.assertEqual(self.notes(), ["undo a"])

    def test_master_is_killed_at_any_moment(self):
        """However far it came: one generation serves alone in the end, and what answers is that one's version."""
        keys = {"canary": "30% 40ms", "observe": {"window": "60ms"}, "check": ["true"],
                "steps": [{"before": "switch", "run": ["true"], "undo": ["true"]}, {"after": "switch", "run": ["true"]}]}
        self.begin(**keys)
        versions, ended = {1: "one"}, []
        for number in range(KILLS):
            before = self.wait_idle()["generation"]
            self.version(f"v{number}")
            master = self.gapless.wait_master()
            self.assertEqual(self.gapless.verb("upgrade", "--no-wait").returncode, 0)
            time.sleep(0.2 * number / KILLS)  # the moment is what is varied
            os.kill(master, signal.SIGKILL)
            self.gapless.wait_master(but=master)
            harness.wait_until(self.gapless.service, "the next master to answer")
            after = self.wait_idle()["generation"]
            if after != before:
                versions[after] = f"v{number}"
            self.assertEqual({self.answered_by() for _ in range(5)}, {(versions[after], after)})
            self.wait_record("master_restarted", number + 1)
            upgrades = harness.wait_until(lambda: self.whole(after), lambda: f"the record of {after}, {self.records('upgrade')}")
            ended.append(upgrades[-1]["outcome"] if after != before or len(upgrades) > len(ended) else "forgotten")
        self.assertEqual(len({record["to"] for record in self.records("upgrade")}), len(self.records("upgrade")), "told once")
        self.assertEqual(harness.zombies_below(self.gapless.pid), [])
        self.end_load()
        harness.note(f"master killed {KILLS} times: {', '.join(ended)}")

    def whole(self, generation):
        """The records of upgrades, if there is that of the generation that serves."""
        upgrades = self.records("upgrade")
        done = [record["to"] for record in upgrades if record["outcome"] == "done"]
        return (generation == 1 or generation in done) and (upgrades or [{"outcome": "forgotten"}])

    def ended_in(self, phase):
        self.hold_at(phase, load=False)
        below = harness.descendants_of(self.gapless.pid)
        self.assertEqual(self.gapless.terminate(), 0)
        harness.wait_until(lambda: not [pid for pid in below if harness.is_alive(pid)], "all processes to end", 5)
        records = [(record["event"], record.get("outcome")) for record in self.records_of_the_file()]
        self.assertEqual(records[-1][0], "stop", records)
        self.assertEqual([event for event, _ in records].count("upgrade"), 1, records)

    def records_of_the_file(self):
        done = harness.run_gapless("history", "--json", "--file", self.history)
        return [json.loads(line) for line in done.stdout.splitlines()]


def _add_phases():
    for phase in PHASES:
        setattr(Phases, f"test_master_is_killed_in_{phase}", lambda self, phase=phase: self.killed_in(phase))
        setattr(Phases, f"test_term_in_{phase}", lambda self, phase=phase: self.ended_in(phase))


_add_phases()


@exact.needs_bpf
class BadVersionTest(BadVersion, transaction.TestCase):
    pass


@exact.needs_bpf
class OperatorTest(Operator, Canary, transaction.TestCase):
    pass


@exact.needs_bpf
class PhasesTest(Phases, transaction.TestCase):
    pass


class ClassicTest(Canary, transaction.TestCase):
    """What doesn't follow from the rest, in a tier that others have, too."""

    STEERING = "cbpf"
    test_rollback_in_the_window = Operator.test_rollback_in_the_window
    test_that_crashes_under_load_alone = BadVersion.test_that_crashes_under_load_alone
    fails = BadVersion.fails


@exact.needs_bpf
class CaptureTest(transaction.TestCase):
    """The server binds its own port and knows nothing: no listener is named."""

    WORKERS = 1

    def begin(self, *options, load=True, **keys):
        self.version("one", "--port", self.port, *options)
        self.gapless = self.serve("-c", self.configure(listen=None, steering=None, **keys), history=str(self.history))
        self.assertEqual(self.gapless.service()["listeners"][0]["steering"], "ebpf", self.gapless.log.text())
        self.put_load()

    def test_rollback_in_the_window(self):
        self.begin(observe={"window": "20s"})
        self.version("two", "--port", self.port)
        upgrade = self.upgrade_in_background()
        self.wait_phase("observe")
        self.assertEqual({self.answered_by() for _ in range(20)}, {("two", 2)})
        self.assertEqual(self.gapless.verb("rollback").returncode, 0)
        self.assertEqual({self.answered_by() for _ in range(100)}, {("one", 1)})
        self.assertEqual(upgrade.join().returncode, 1)
        self.assert_old_serves()
        self.end_load()
        self.wait_record(outcome="rolled_back", phase="observe", reason=re.compile("rollback"))

    def test_only_worker_of_the_new_version_crashes_in_the_window(self):
        self.begin(observe={"window": "20s"})
        self.version("two", "--port", self.port, "--crash-at-request", 50)
        done = self.gapless.verb("upgrade")
        self.assertEqual(done.returncode, 1, transaction.reason_of(done))
        self.assert_old_serves()
        self.end_load()
        self.wait_record(outcome="rolled_back", phase="observe", reason=ABORTED, crashes=1)

    def test_that_crashes_before_it_binds(self):
        self.begin()
        self.version("two", "--port", self.port, "--crash-before-ready")
        done = self.gapless.verb("upgrade")
        self.assertEqual(done.returncode, 1, transaction.reason_of(done))
        self.assert_old_serves()
        self.end_load()
        self.wait_record(outcome="failed", phase=re.compile(STARTING), reason=ABORTED)


class SharedTest(transaction.TestCase):
    """Generations that share one socket: there is no way back, and nothing that reaches one of them alone."""

    STEERING = "shared"

    def test_what_can_not_be_done_is_refused_with_that_reason(self):
        self.begin()
        pids = self.gapless.worker_pids()
        for key, value, code, reason in (("canary", "10% 1s", 1, "canary.*shared"), ("observe", {"window": "1s"}, 1, "observe.*shared"),
                                         ("smoke", ["http:/healthz"], 2, "smoke: .*reached alone")):
            self.configure(**{"observe": None, key: value})
            done = self.gapless.verb("upgrade")
            self.assertEqual(done.returncode, code, transaction.reason_of(done))
            self.assertRegex(done.stderr, reason)
            self.assertEqual(self.gapless.worker_pids(), pids)
        self.assert_old_serves()
        self.end_load()

    def test_a_bad_version_before_the_switch_changes_nothing(self):
        self.begin(observe=None)
        self.version("two", "--crash-before-ready")
        done = self.gapless.verb("upgrade")
        self.assertEqual(done.returncode, 1, transaction.reason_of(done))
        self.assert_old_serves()
        self.end_load()
        self.wait_record(outcome="failed", phase=re.compile(STARTING), reason=ABORTED)


if __name__ == "__main__":
    harness.main(at_a_time=6)

#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""Upgrades at odd moments: generations that end where nobody waits for their end, services that go, masters that die between."""

import contextlib
import json
import os
import re
import signal
import socket

import harness
import transaction


class OddTest(transaction.TestCase):
    WORKERS = 1

    def setUp(self):
        super().setUp()
        self.stack = self.enterContext(contextlib.ExitStack())

    def keep_busy(self):
        """A request that generation 1 reads, and answers late."""
        client = self.stack.enter_context(socket.create_connection(self.address))
        client.sendall(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")
        harness.wait_until(lambda: self.requests() > 0, "the request to be read")

    def remove_service(self):
        """By SIGHUP; another one keeps the master."""
        other = {"command": [str(self.dir / "current" / "server")], "listen": [f"tcp:127.0.0.1:{harness.free_port()}"]}
        self.write("gapless.yaml", json.dumps({"services": {"other": other}}))
        self.gapless.hup()

    def end_standby(self):
        """The old version's worker ends by itself, before the commit; `restart` wants none again. The upgrade."""
        self.begin(load=False, restart="no", steps=[{"before": "commit", "run": [self.hold("step")]}])
        self.version("two")
        verb = self.upgrade_in_background()
        self.wait_reached("step")
        os.kill(self.gapless.worker_pids(generation=1)[0], signal.SIGTERM)
        harness.wait_until(lambda: not self.gapless.worker_pids(generation=1), "the worker to end")
        return verb

    def test_generation_on_standby_whose_workers_have_ended_is_gone_at_the_commit(self):
        verb = self.end_standby()
        self.go("step")
        done = verb.join()
        self.assertEqual(done.returncode, 0, transaction.reason_of(done))
        self.wait_idle(2)
        self.wait_record(outcome="done")

    def test_generation_on_standby_whose_workers_have_ended_comes_back_with_new_ones(self):
        verb = self.end_standby()
        done = self.gapless.verb("rollback")
        self.assertEqual(done.returncode, 0, transaction.reason_of(done))
        self.assertEqual(verb.join().returncode, 1)
        self.wait_idle(1)
        self.assertEqual(self.answered_by()[1], 1)

    def test_undos_of_a_removed_service_run_to_their_end(self):
        undo = ["sh", "-c", f"sleep 0.5; echo undone >>{self.dir}/notes"]
        self.begin(load=False, steps=[{"before": "spawn", "run": self.note("done"), "undo": undo},
                                      {"before": "switch", "run": [self.hold("step")]}])
        self.version("two")
        verb = self.upgrade_in_background()
        self.wait_reached("step")
        self.remove_service()
        done = verb.join()
        self.assertEqual(done.returncode, 1, transaction.reason_of(done))
        self.assertIn("stopped", done.stderr)
        self.assertEqual(self.notes(), ["done", "undone"])
        self.wait_record(outcome="failed", phase="switch")

    def test_who_waits_for_a_removed_service_that_drains_is_told(self):
        self.begin("--slow", 1000, load=False, observe={"window": "0s"})
        self.keep_busy()
        self.version("two")
        verb = self.upgrade_in_background()
        harness.wait_until(lambda: self.gapless.generation() == 2, "the switch")
        self.remove_service()
        done = verb.join()
        self.assertEqual(done.returncode, 0, "its code was settled at the commit: " + transaction.reason_of(done))
        self.wait_record(outcome="done", reason="the service was stopped while the old generation drained")

    def test_step_is_lost_with_the_master_while_an_old_generation_ends(self):
        hold = self.hold("step")
        self.begin("--slow", 20000, load=False, observe={"window": "0s"}, drain={"timeout": "60s"},
                   steps=[{"before": "switch", "run": ["sh", "-c", f"[ $GAPLESS_NEW_GENERATION = 2 ] && exit 0; exec {hold}"]}])
        self.keep_busy()
        self.version("two")
        self.gapless.verb("upgrade", "--no-wait")
        harness.wait_until(lambda: self.gapless.generation() == 2, "the switch")
        self.version("three")
        self.gapless.verb("upgrade", "--no-wait")
        self.wait_reached("step")
        draining = self.gapless.worker_pids(generation=1)
        master = self.gapless.wait_master()
        os.kill(master, signal.SIGSTOP)
        os.kill(draining[0], signal.SIGKILL)
        os.kill(master, signal.SIGKILL)
        self.gapless.wait_master(but=master)
        self.wait_idle(2)
        # Which of the two ends first is as it comes.
        harness.wait_until(lambda: len(self.records("upgrade")) == 2, "two upgrades to be told")
        (record,) = [each for each in self.records("upgrade") if each["to"] == 3]
        self.assertEqual((record["outcome"], record["phase"]), ("failed", "switch"), record)

    def test_main_process_that_is_gone_in_the_midst_of_a_step_ends_the_service_gracefully(self):
        """The master finds it when it stores the new version's sockets."""
        self.begin(load=False, steps=[{"before": "spawn", "run": [self.hold("step")]}])
        self.version("two")
        self.assertEqual(self.gapless.verb("upgrade", "--no-wait").returncode, 0)
        self.wait_reached("step")
        (old,) = self.gapless.worker_pids()
        master = self.gapless.wait_master()
        helpers = set(harness.children_of(master)) - {old}
        os.kill(master, signal.SIGSTOP)
        self.go("step")
        harness.wait_until(lambda: any(harness.stat_fields(pid)[0] == "Z" for pid in helpers), "the step to end")
        os.kill(self.gapless.pid, signal.SIGKILL)
        os.kill(master, signal.SIGCONT)
        self.gapless.log.wait("the main process is gone")
        self.gapless.log.wait("generation ended", generation=1)
        self.gapless.log.wait(" info ended ", code=0)

    def test_plan_is_that_of_the_generation_before_for_a_later_master_too(self):
        """The new version has an address more, of which no share can be had: there was none to share."""
        self.begin(load=False)
        self.version("two")
        self.configure(listen=[self.target, f"unix:{self.dir}/web.sock"], canary=["10% 100ms"], observe={"window": "3s"})
        verb = self.gapless.verb("upgrade", "--no-wait")
        self.assertEqual(verb.returncode, 0, transaction.reason_of(verb))
        self.wait_phase("observe")
        master = self.gapless.wait_master()
        os.kill(master, signal.SIGKILL)
        self.gapless.wait_master(but=master)
        self.wait_idle(2)
        self.wait_record(outcome="done")

    def test_rollback_drops_the_upgrade_that_a_sighup_asked_for_meanwhile(self):
        self.begin(load=False, observe={"window": "20s"})
        self.version("two")
        verb = self.upgrade_in_background()
        self.wait_phase("observe")
        self.gapless.hup()
        self.gapless.log.wait("remembered")
        self.assertEqual(self.gapless.verb("rollback").returncode, 0)
        self.assertEqual(verb.join().returncode, 1)
        self.gapless.log.wait("remembered upgrade is dropped")
        self.wait_idle(1)
        self.assertEqual(len(self.gapless.log.find("upgrade started")), 1)

    def test_rollback_is_not_held_up_by_what_drains(self):
        self.begin("--slow", 3000, load=False, observe={"window": "0s"}, drain={"timeout": "60s", "max_draining": 1})
        self.keep_busy()
        self.version("two")
        self.gapless.verb("upgrade", "--no-wait")
        harness.wait_until(lambda: self.gapless.generation() == 2, "the switch")
        for verb in (["upgrade"], ["upgrade", "--dry-run"]):
            done = self.gapless.verb(*verb)
            self.assertEqual(done.returncode, 3, transaction.reason_of(done))
            self.assertIn("1 old generation of web still drains", done.stderr)
        self.gapless.hup()  # waits, and is dropped
        self.gapless.log.wait("upgrade remembered")
        done = self.gapless.verb("rollback")
        self.assertEqual(done.returncode, 0, transaction.reason_of(done))
        self.wait_idle(3)
        self.wait_record(count=2, outcome="done", kind="rollback", to=3)
        self.assertEqual(len(self.gapless.log.find("upgrade started")), 2)

    def test_dry_run_says_what_is_done_in_its_order(self):
        steps = [{when: phase, "run": ["true"]} for phase in ("commit", "retire") for when in ("before", "after")]
        self.begin(load=False, steps=steps)
        done = self.gapless.verb("upgrade", "--dry-run")
        self.assertEqual(done.returncode, 0, transaction.reason_of(done))
        said = [words for line in done.stdout.splitlines() for words in re.findall(
            "step [a-z ]+ 1|is told to drain|until it has answered", line)]
        self.assertEqual(said, ["step before commit 1", "is told to drain", "step after commit 1",
                                "step before retire 1", "until it has answered", "step after retire 1"], done.stdout)

    def test_what_a_sighup_would_start_or_stop_is_said_to_be_so(self):
        self.begin(load=False)
        other = {"command": [str(self.dir / "current" / "server")], "listen": [f"tcp:127.0.0.1:{harness.free_port()}"]}
        self.write("gapless.yaml", json.dumps({"services": {"other": other}}))
        for verb in (["upgrade", "other"], ["upgrade", "--dry-run", "other"]):
            done = self.gapless.verb(*verb)
            self.assertEqual(done.returncode, 2, transaction.reason_of(done))
            self.assertIn("a SIGHUP starts what is new", done.stderr)
        done = self.gapless.verb("upgrade", "--dry-run", "web")
        self.assertEqual(done.returncode, 1, transaction.reason_of(done))
        self.assertIn("the configuration has no service web: a SIGHUP would stop it", done.stderr)
        done = self.gapless.verb("upgrade", "none")
        self.assertEqual(done.returncode, 2, transaction.reason_of(done))
        self.assertIn("there is no service none; there are: web", done.stderr)

    def test_dry_run_ends_as_the_upgrade_would_that_is_refused(self):
        """Also of a version that has something wrong: an upgrade would not come to that."""
        self.begin(load=False, observe={"window": "20s"})
        self.version("two")
        verb = self.upgrade_in_background()
        self.wait_phase("observe")
        for wrong in ({}, {"command": ["/nonexistent"]}, {"canary": ["10% 100ms"], "steering": "shared"}):
            self.configure(**wrong)
            for options in ((), ("--dry-run",)):
                with self.subTest(str(wrong), options=options):
                    done = self.gapless.verb("upgrade", *options)
                    self.assertEqual(done.returncode, 3, transaction.reason_of(done))
                    self.assertIn("an upgrade of web is under way", done.stderr)
        self.assertEqual(self.gapless.verb("rollback").returncode, 0)
        self.assertEqual(verb.join().returncode, 1)
        done = self.gapless.verb("upgrade", "--dry-run")
        self.assertEqual(done.returncode, 1, transaction.reason_of(done))

    def test_version_that_is_bad_after_the_commit_is_restarted_and_can_be_rolled_back(self):
        self.begin(load=False, health={"probe": "http:/healthz", "interval": "50ms", "failures": 2})
        self.version("two", "--status-after", "1,500")
        self.configure(observe={"window": "0s"}, health={"probe": "http:/healthz", "interval": "50ms", "failures": 2}, workers=2)
        self.gapless.verb("upgrade")
        self.answered_by()
        self.gapless.log.wait("doesn't answer")
        harness.wait_until(lambda: self.gapless.service()["upgrade"]["state"] == "idle", "the restart to end")
        done = self.gapless.verb("rollback")
        self.assertEqual(done.returncode, 0, transaction.reason_of(done))
        self.assertEqual(self.answered_by()[0], "one")

    def test_version_that_stays_bad_is_not_restarted_again_at_once(self):
        health = {"probe": "http:/healthz", "interval": "50ms", "failures": 2}
        self.begin(load=False, health=health)
        self.version("two", "--status", 500)
        self.configure(observe={"window": "0s"}, health=health, workers=2)
        self.gapless.verb("upgrade")
        self.wait_idle(3)
        asked = self.requests()
        harness.wait_until(lambda: self.gapless.generation() != 3 or self.requests() >= asked + 6, "more probes")
        self.assertEqual(len(self.gapless.log.find("doesn't answer")), 1)


if __name__ == "__main__":
    harness.main(at_a_time=3)

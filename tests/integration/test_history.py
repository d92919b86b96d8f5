#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""The history: every event is told once, whoever is killed in between; the disk never holds the master up."""

import contextlib
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import time
import unittest

import harness

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
KILLS = 10


class HistoryCase(harness.TestCase):
    def setUp(self):
        super().setUp()
        self.port = harness.free_port()
        self.path = self.dir / "state" / "web.jsonl"
        self.hello("one", "web")

    def run_web(self, *options, history=None, **keywords):
        return self.serve(*options, "--name", "web", "-l", f"tcp:127.0.0.1:{self.port}", "--", self.dir / "web",
                          history=str(history or self.path), **keywords)

    def records(self, path=None):
        """All of both files; each line must be whole, and the numbers go on one by one."""
        text = ""
        for each in (pathlib.Path(f"{path or self.path}.1"), pathlib.Path(path or self.path)):
            text += each.read_text() if each.exists() else ""
        records = [json.loads(line) for line in text.splitlines()]
        numbers = [record["n"] for record in records]
        self.assertEqual(numbers, list(range(numbers[0], numbers[0] + len(numbers))) if numbers else [])
        for record in records:
            self.assertEqual(record["v"], 1)
            self.assertRegex(record["time"], TIME)
        return records

    def wait_records(self, *events, path=None):
        """Waits until these events are all that there is, in this order; the records."""
        def seen():
            return [record["event"] for record in self.records(path)]
        harness.wait_until(lambda: len(seen()) >= len(events), lambda: f"{events}, there is {seen()}")
        self.assertEqual(seen(), list(events))
        return self.records(path)

    def writer(self, gapless):
        """The process that writes now, or None."""
        for child in harness.children_of(gapless.master_pid() or 0):
            if harness.name_of(child) == "gapless-history" and harness.is_alive(child):
                return child
        return None

    def stopped_writer(self, gapless):
        """Makes a writer come by a crash, and stops it; how many records there are then."""
        before = len(self.records())
        for _ in range(100):
            os.kill(gapless.worker_pids()[0], signal.SIGKILL)
            with contextlib.suppress(AssertionError, ProcessLookupError):
                pid = harness.wait_until(lambda: self.writer(gapless), "a writer", 2)
                os.kill(pid, signal.SIGSTOP)
                harness.wait_until(lambda: (harness.stat_fields(pid) or "?")[0] in "T", "it to stop", 2)
                gapless.wait_serving(gapless.generation())
                return pid
            before += 1
        raise AssertionError(f"no writer could be stopped, {before}")


class EventsTest(HistoryCase):
    def test_upgrade_tells_who_when_each_phase_and_how_it_ended(self):
        gapless = self.run_web()
        done = gapless.verb("upgrade")
        self.assertEqual(done.returncode, 0, done.stderr)
        start, upgrade = self.wait_records("start", "upgrade")
        self.assertEqual((start["pid"], start["who"]), (gapless.pid, {"uid": os.getuid(), "pid": os.getpid()}))
        self.assertRegex(start["version"], r"^\d+\.\d+")
        self.assertEqual((upgrade["service"], upgrade["from"], upgrade["to"], upgrade["outcome"]), ("web", 1, 2, "done"))
        self.assertEqual(upgrade["who"]["uid"], os.getuid())
        self.assertNotIn("signal", upgrade["who"])
        self.assertGreater(upgrade["who"]["pid"], 0)
        self.assertLess(upgrade["started_at"], upgrade["ended_at"])
        self.assertEqual(upgrade["kind"], "upgrade")
        command = f"{self.dir}/web"
        self.assertEqual((upgrade["from_command"], upgrade["to_command"]), (command, command))
        phases = [phase["name"] for phase in upgrade["phases"]]
        self.assertEqual([name for name in phases if name in ("spawn", "switch", "commit", "retire")],
                         ["spawn", "switch", "commit", "retire"])
        self.assertTrue(all(phase["ms"] >= 0 for phase in upgrade["phases"]))
        self.assertEqual((upgrade["crashes"], upgrade["lost"]), (0, 0))
        self.assertNotIn("phase", upgrade)
        self.assertNotIn("reason", upgrade)

    def test_hangup_names_the_signal_and_its_sender(self):
        gapless = self.run_web()
        gapless.upgrade_by_hup()
        upgrade = self.wait_records("start", "upgrade")[1]
        self.assertEqual(upgrade["who"], {"signal": "HUP", "uid": os.getuid(), "pid": os.getpid()})

    def test_failed_upgrade_has_the_reason(self):
        gapless = self.run_web()
        self.write("web", "#!/bin/sh\nexit 3\n", 0o755)
        self.assertEqual(gapless.verb("upgrade").returncode, 1)
        _, crash, upgrade = self.wait_records("start", "crash", "upgrade")
        self.assertEqual((crash["generation"], crash["worker"], crash["state"]), (2, 0, "starting"))
        self.assertIn("code 3", crash["how"])
        self.assertEqual((upgrade["from"], upgrade["to"], upgrade["outcome"]), (1, 2, "failed"))
        self.assertIn("code 3", upgrade["reason"])
        self.assertEqual(upgrade["phase"], upgrade["phases"][-1]["name"])

    def test_refusals_are_told_with_their_reason(self):
        configuration = self.write("gapless.yaml", "")

        def configure(text):
            self.write("gapless.yaml", text)
        good = f"services: {{web: {{command: {self.dir}/web, listen: 'tcp:127.0.0.1:{self.port}', observe: {{window: 0}}}}}}\n"
        configure(good)
        gapless = self.serve("-c", configuration, history=str(self.path))
        configure("services: {web: {comand: x}}\n")
        self.assertEqual(gapless.verb("upgrade").returncode, 2)
        gapless.hup()
        gapless.log.wait("configuration refused", reason=gapless.log.wait("configuration refused").fields["reason"])
        self.wait_records("start", "refused", "refused")
        configure(good)
        self.write("web", "#!/bin/sh\nexec sleep 600\n", 0o755)
        first = gapless.verb("upgrade", "--no-wait")
        self.assertEqual(first.returncode, 0, first.stderr)
        self.assertEqual(gapless.verb("upgrade", "web").returncode, 3)
        _, by_verb, by_hup, busy = self.wait_records("start", "refused", "refused", "refused")
        self.assertIn("comand", by_verb["reason"])
        self.assertEqual((by_verb["who"]["uid"], "signal" in by_verb["who"]), (os.getuid(), False))
        self.assertEqual(by_hup["who"], {"signal": "HUP", "uid": os.getuid(), "pid": os.getpid()})
        self.assertEqual((busy["service"], busy["reason"]), ("web", "an upgrade of web is under way"))

    def test_crash_names_worker_pid_and_how(self):
        gapless = self.run_web()
        pid = gapless.worker_pids()[0]
        os.kill(pid, signal.SIGKILL)
        crash = self.wait_records("start", "crash")[1]
        self.assertEqual((crash["service"], crash["generation"], crash["worker"], crash["pid"], crash["state"]),
                         ("web", 1, 0, pid, "ready"))
        self.assertIn("signal 9", crash["how"])

    def test_stop_is_in_the_file_when_gapless_has_ended(self):
        for stop, who, reason in ((lambda gapless: gapless.signal(signal.SIGTERM),
                                   {"signal": "TERM", "uid": os.getuid(), "pid": os.getpid()}, "SIGTERM"),
                                  (lambda gapless: gapless.verb("stop"), None, "gapless stop")):
            gapless = self.run_web()
            stop(gapless)
            self.assertEqual(gapless.wait_exit(), 0)
            last = self.records()[-1]
            self.assertEqual((last["event"], last["code"], last["reason"]), ("stop", 0, reason))
            self.assertEqual(last["who"]["uid"], os.getuid())
            if who:
                self.assertEqual(last["who"], who)
        self.wait_records("start", "stop", "start", "stop")

    def test_command_that_can_not_be_executed_is_a_stop_with_its_code(self):
        gapless = self.start("--name", "web", "--", "/no/such/command", history=str(self.path))
        self.assertEqual(gapless.wait_exit(), 127)
        records = self.records()
        self.assertEqual([record["event"] for record in records], ["start", "crash", "stop"])
        self.assertEqual(records[-1]["code"], 127)

    def test_upgrade_that_another_overtakes_is_told_too(self):
        gapless = self.run_web()
        old = gapless.worker_pids()[0]
        with harness.connect(("127.0.0.1", self.port)) as client:
            client.sendall(b"GET /slow?ms=1500 HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
            harness.wait_until(lambda: harness.established(self.port, old), "the request to be accepted")
            gapless.hup()
            harness.wait_until(lambda: gapless.generation() == 2, "the switch")
            self.assertEqual(gapless.verb("upgrade").returncode, 0)
            self.assertEqual(harness.read_answer(client)[0], 200)
        _, first, second = self.wait_records("start", "upgrade", "upgrade")
        self.assertEqual((first["from"], first["to"], first["who"]["signal"]), (1, 2, "HUP"))
        self.assertEqual((second["from"], second["to"], second["outcome"]), (2, 3, "done"))

    def test_nothing_runs_and_no_descriptor_is_left_when_there_is_nothing_to_write(self):
        gapless = self.run_web()
        gapless.upgrade_by_hup()  # from here on the version before is held
        self.wait_records("start", "upgrade")
        self.assert_processes(gapless.pid, 2)
        before = harness.settled(lambda: len(harness.descriptors(gapless.master_pid())))
        gapless.upgrade_by_hup()
        self.wait_records("start", "upgrade", "upgrade")
        self.assert_processes(gapless.pid, 2)
        harness.wait_until(lambda: len(harness.descriptors(gapless.master_pid())) == before, f"{before} descriptors")
        self.assert_no_zombies(gapless.pid)


class KilledTest(HistoryCase):
    def kill_master(self, gapless):
        killed = gapless.wait_master()
        os.kill(killed, signal.SIGKILL)
        gapless.wait_master(but=killed)
        harness.wait_until(gapless.service, "the next master to answer")

    def events(self, event):
        return [record for record in self.records() if record["event"] == event]

    def upgrade_with_killed_master(self, gapless, delay_s):
        """One by HUP that has ended, well or not; so long after its beginning the master is killed."""
        master, mark, before = gapless.wait_master(), gapless.log.mark(), gapless.generation()
        gapless.hup()
        gapless.log.wait("upgrade started", after=mark)
        time.sleep(delay_s)  # the moment is what is varied
        os.kill(master, signal.SIGKILL)
        gapless.wait_master(but=master)

        def ended():
            service = gapless.service()
            return service and service["upgrade"]["state"] == "idle" and service["state"] == "serving" and service

        if harness.wait_until(ended, "the upgrade to end")["generation"] == before:
            gapless.hup()  # it had been killed before there was anything to go on with
        harness.wait_until(lambda: gapless.generation() > before and ended(), "the next generation")

    def test_master_killed_at_any_time_of_an_upgrade_and_it_is_told_once(self):
        gapless = self.run_web("-n", "2")
        for i in range(KILLS):
            self.upgrade_with_killed_master(gapless, 0.002 * i)
            harness.wait_until(lambda count=i + 1: len(self.events("master_restarted")) == count, "its record")
        harness.wait_until(lambda: (self.events("upgrade") or [{}])[-1].get("to") == gapless.generation(), "the last upgrade")
        upgrades = self.events("upgrade")
        # What a killed master had begun and not saved has left no number.
        self.assertEqual([upgrade["to"] for upgrade in upgrades], list(range(2, gapless.generation() + 1)))
        self.assertEqual(upgrades[-1]["outcome"], "done")
        self.assertEqual([each["start"] for each in self.events("master_restarted")], list(range(2, KILLS + 2)))

    def test_worker_and_master_killed_together_and_the_crash_is_told_once(self):
        gapless = self.run_web("-n", "2", "--backoff-max", "100ms")
        dead = []
        for i in range(KILLS):
            dead.append(gapless.worker_pids()[0])
            master = gapless.wait_master()
            os.kill(dead[-1], signal.SIGKILL)
            if i % 2:  # it may have heard of it, or have sent it, or not
                harness.wait_until(lambda pid=dead[-1]: not harness.is_alive(pid), "the worker to be reaped")
            os.kill(master, signal.SIGKILL)
            gapless.wait_master(but=master)
            harness.wait_until(lambda: len(set(gapless.worker_pids()) - {0}) == 2, "two workers")
            gapless.wait_serving(1)
        harness.wait_until(lambda: len(self.events("crash")) >= KILLS, lambda: f"{KILLS} crashes: {self.records()}")
        self.assertEqual([crash["pid"] for crash in self.events("crash")], dead)

    def test_record_that_the_stopped_writer_of_a_dead_master_holds_is_written_once(self):
        gapless = self.run_web()
        self.wait_records("start")
        writer = self.stopped_writer(gapless)
        gapless.upgrade_by_hup()
        self.kill_master(gapless)
        gapless.upgrade_by_hup()
        os.kill(writer, signal.SIGCONT)
        harness.wait_until(lambda: len(self.events("upgrade")) == 2, lambda: f"two upgrades: {self.records()}")
        self.assertEqual([upgrade["to"] for upgrade in self.events("upgrade")], [2, 3])
        self.assertEqual(len(self.events("master_restarted")), 1)

    def test_writer_killed_with_records_and_the_next_one_writes_them_once(self):
        gapless = self.run_web()
        self.wait_records("start")
        for generation in range(2, 6):
            writer = self.stopped_writer(gapless)
            gapless.upgrade_by_hup()
            os.kill(writer, signal.SIGKILL)
            harness.wait_until(lambda to=generation: [each["to"] for each in self.events("upgrade")] == list(range(2, to + 1)),
                               lambda: f"{generation - 1} upgrades: {self.records()}")
            gapless.log.wait("writer was killed")
        self.assert_no_zombies(gapless.pid)

    def test_next_start_goes_on_numbering_and_mends_a_torn_line(self):
        self.assertEqual(self.run_web().terminate(), 0)
        with open(self.path, "a", encoding="utf-8") as file:
            file.write('{"v":1,"n":3,"ti')
        gapless = self.run_web()
        self.assertEqual(gapless.log.wait("torn").fields["bytes"], "16")
        self.assertEqual([record["n"] for record in self.wait_records("start", "stop", "start")], [1, 2, 3])


class DiskTest(HistoryCase):
    def test_upgrade_goes_on_while_the_writer_hangs_and_is_told_later(self):
        gapless = self.run_web()
        self.wait_records("start")
        writer = self.stopped_writer(gapless)
        before = len(self.records())
        self.hello("two", "web")
        done = gapless.verb("upgrade")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(harness.version_at(("127.0.0.1", self.port))[0], "two")
        self.assertEqual(len(self.records()), before)
        gapless.log.wait("history can't be written")
        for _ in range(3):
            gapless.upgrade_by_hup()
        os.kill(writer, signal.SIGCONT)
        harness.wait_until(lambda: [each["to"] for each in self.records() if each["event"] == "upgrade"] == [2, 3, 4, 5],
                           "four upgrades")
        gapless.log.wait("history is written again")
        self.assertEqual(len(gapless.log.find("history can't be written")), 1)

    def test_queue_is_bounded_and_what_was_dropped_is_counted(self):
        gapless = self.run_web("--ready-timeout", "10m")  # the upgrade is to be under way until the last one was asked for
        self.wait_records("start")
        writer = self.stopped_writer(gapless)
        before = len(self.records())
        master = gapless.master_pid()
        asked = 300
        for _ in range(asked):  # of a service under upgrade: refused
            if _ == 0:
                self.write("web", "#!/bin/sh\nexec sleep 600\n", 0o755)
                self.assertEqual(gapless.verb("upgrade", "--no-wait").returncode, 0)
                continue
            self.assertEqual(gapless.verb("upgrade").returncode, 3)
        os.kill(writer, signal.SIGCONT)
        harness.wait_until(lambda: len(self.records()) >= before + 100, "the queue to be written")
        harness.wait_until(lambda: not self.writer(gapless), "the writer to have written all")
        kept = len(self.records())
        self.assertEqual(gapless.verb("upgrade").returncode, 3)
        harness.wait_until(lambda: len(self.records()) == kept + 1, "one more record")
        records = self.records()
        self.assertEqual([record for record in records[:-1] if "dropped" in record], [])
        refused = [record for record in records if record["event"] == "refused"]
        self.assertEqual(len(refused) + records[-1]["dropped"], asked)  # asked - 1, and the last one
        self.assertEqual(gapless.master_pid(), master)

    def test_full_disk_is_said_once_and_nothing_is_lost(self):
        disk = self.dir / "disk"
        disk.mkdir()
        if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk],
                                               check=False, capture_output=True).returncode:
            raise unittest.SkipTest("mounting a tmpfs is not permitted")
        self.addCleanup(subprocess.run, ["umount", "-l", disk], check=False)
        path = disk / "h.jsonl"
        gapless = self.run_web(history=path)
        self.wait_records("start", path=path)
        with contextlib.suppress(OSError), open(disk / "ballast", "wb", buffering=0) as ballast:
            while True:
                ballast.write(bytes(512))
        # The rest of its last page is room still.
        while not gapless.log.find("history can't be written"):
            gapless.upgrade_by_hup()
        self.assertIn("No space left", gapless.log.wait("history can't be written").fields["reason"])
        for _ in range(3):
            gapless.upgrade_by_hup()
        self.assertEqual(gapless.verb("upgrade").returncode, 0)
        (disk / "ballast").unlink()
        last = gapless.generation()
        harness.wait_until(lambda: self.records(path)[-1].get("to") == last, "the last upgrade")
        self.assertEqual([record["to"] for record in self.records(path) if record["event"] == "upgrade"],
                         list(range(2, last + 1)))
        gapless.log.wait("history is written again")
        self.assertEqual(len(gapless.log.find("history can't be written")), 1)

    def test_directory_that_can_not_be_made_is_one_warning_and_no_history(self):
        self.write("file", "")
        gapless = self.run_web(history=self.dir / "file" / "h.jsonl")
        self.assertEqual(gapless.log.wait("no history is kept").level, "warning")
        gapless.upgrade_by_hup()
        self.assertIsNone(gapless.status()["master"]["history"])
        self.assertEqual(gapless.terminate(), 0)
        self.assertEqual(len(gapless.log.find("no history is kept")), 1)

    def test_file_becomes_the_previous_one_at_its_size(self):
        gapless = self.run_web("--history-size", "16K")
        previous = pathlib.Path(f"{self.path}.1")
        while not previous.exists():
            gapless.upgrade_by_hup()
        self.assertGreater(previous.stat().st_size, 15000)
        self.assertLessEqual(previous.stat().st_size, 16384)
        last = gapless.generation()
        harness.wait_until(lambda: self.records()[-1].get("to") == last, "the last upgrade")
        self.assertEqual(len(self.records()), last)
        self.assertEqual([json.loads(line)["n"] for line in gapless.verb(
            "history", "--json", "-n", "1000").stdout.splitlines()], list(range(1, last + 1)))

    def test_file_that_was_moved_away_is_made_anew(self):
        gapless = self.run_web()
        self.wait_records("start")
        self.path.rename(self.dir / "moved")
        gapless.upgrade_by_hup()
        harness.wait_until(self.path.exists, "a new file")
        harness.wait_until(lambda: self.records(), "a record")
        self.assertEqual([(record["n"], record["event"]) for record in self.records()], [(2, "upgrade")])


class VerbTest(HistoryCase):
    def history(self, *arguments, **env):
        env = {"XDG_STATE_HOME": self.dir, "XDG_RUNTIME_DIR": self.dir, "GAPLESS_ADMIN": None, **env}
        return harness.run_gapless("history", *arguments, env=env)

    def test_table_and_lines_come_from_the_file_of_the_master_that_runs(self):
        gapless = self.run_web()
        gapless.upgrade_by_hup()
        self.wait_records("start", "upgrade")
        self.assertEqual(gapless.status()["master"]["history"], str(self.path))
        table = gapless.verb("history")
        self.assertEqual((table.returncode, table.stderr), (0, ""))
        lines = table.stdout.splitlines()
        self.assertEqual(lines[0].split(), ["TIME", "SERVICE", "EVENT", "WHAT", "OUTCOME", "REASON"])
        self.assertEqual([line.split()[1:3] for line in lines[1:]], [["-", "start"], ["web", "upgrade"]])
        self.assertIn("1 to 2, SIGHUP", lines[2])
        verbose = gapless.verb("history", "-v").stdout.splitlines()
        self.assertEqual(verbose[:3], lines)
        self.assertRegex(verbose[3], r"^  .*spawn [0-9.]+ m?s, .*switch [0-9.]+ ms, .*retire [0-9.]+ m?s")
        self.assertEqual(len(verbose), 4)
        self.assertEqual(gapless.verb("history", "--json").stdout, self.path.read_text())
        self.assertEqual(gapless.verb("history", "--json", "-n", "1").stdout, self.path.read_text().splitlines()[1] + "\n")
        self.assertEqual(gapless.verb("history", "--json", "web").stdout, self.path.read_text().splitlines()[1] + "\n")
        self.assertEqual(gapless.verb("history", "--json", "other").stdout, "")

    def test_file_is_read_while_no_master_runs_and_what_is_no_record_left_out(self):
        self.assertEqual(self.run_web().terminate(), 0)
        text = self.path.read_text()
        later = '{"v":2,"n":3,"what":"ever"}\n'
        self.path.write_text("garbage\n" + text + later + '{"v":1,"n":')
        shown = self.history("--file", self.path, "--json")
        self.assertEqual((shown.returncode, shown.stdout), (0, text + later))
        self.assertEqual(shown.stderr, "gapless: 2 lines of the history are no records and left out\n")
        self.assertIn("later version", self.history("--file", self.path).stdout)

    def test_without_a_master_the_name_says_where_it_is(self):
        if os.geteuid() == 0:
            raise unittest.SkipTest("root's histories are in /var/lib/gapless")
        directory = self.dir / "gapless"
        self.run_web(history=directory / "web.history.jsonl").terminate()
        text = (directory / "web.history.jsonl").read_text()
        self.assertEqual(self.history("--json").stdout, text)
        self.assertEqual(self.history("--json", "--name", "web").stdout, text)
        shutil.copy(directory / "web.history.jsonl", directory / "api.history.jsonl")
        both = self.history("--json")
        self.assertEqual(both.returncode, 2)
        self.assertIn("--name api", both.stderr)

    def test_what_can_not_be_read_is_said(self):
        missing = self.history("--file", self.dir / "none")
        self.assertEqual(missing.returncode, 1)
        self.assertIn("No such file", missing.stderr)
        for wrong in (["-n"], ["-n", "x"], ["-n0"], ["--file"], ["a", "b"], ["-x"]):
            self.assertEqual(self.history(*wrong).returncode, 2, wrong)
        gapless = self.serve("--name", "quiet", "--", harness.WORKER)
        off = gapless.verb("history")
        self.assertEqual((off.returncode, off.stderr), (1, "gapless: this master keeps no history\n"))


if __name__ == "__main__":
    harness.main(at_a_time=3)

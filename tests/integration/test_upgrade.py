#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""One upgrade at a time: what is in flight, versions that are bad, SIGHUP over SIGHUP."""

import os
import signal
import subprocess

import harness


class UpgradeTest(harness.TestCase):
    def setUp(self):
        super().setUp()
        self.port = harness.free_port()
        self.address = ("127.0.0.1", self.port)
        self.listen = ["-l", f"tcp:127.0.0.1:{self.port}"]

    def test_request_of_three_seconds_is_answered_by_the_old_version(self):
        server = self.hello("one")
        gapless = self.serve(*self.listen, "--", server)
        old = gapless.worker_pids()[0]
        with harness.connect(self.address) as client:
            client.sendall(b"GET /slow?ms=3000 HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
            harness.wait_until(lambda: harness.established(self.port, old), "the request to be accepted")
            self.hello("two")
            gapless.hup()
            harness.wait_until(lambda: gapless.generation() == 2, "the switch")
            self.assertEqual(harness.version_at(self.address)[0], "two")
            self.assertTrue(harness.is_alive(old), "the old version must wait for its request")
            status, body = harness.read_answer(client)
        self.assertEqual(status, 200)
        self.assertTrue(body)
        gapless.wait_serving(2)
        self.assertFalse(harness.is_alive(old))
        self.assertEqual(harness.version_at(self.address)[0], "two")

    def test_upgrade_that_a_later_one_overtakes_is_told_its_end_too(self):
        gapless = self.serve(*self.listen, "--", self.hello("one"))
        old = gapless.worker_pids()[0]
        with harness.connect(self.address) as client:
            client.sendall(b"GET /slow?ms=1000 HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
            harness.wait_until(lambda: harness.established(self.port, old), "the request to be accepted")
            with subprocess.Popen([harness.program("GAPLESS"), "upgrade", "--admin", gapless.admin],
                                  stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                  text=True) as first:
                try:
                    harness.wait_until(lambda: gapless.generation() == 2, "the switch")
                    second = gapless.verb("upgrade")
                    self.assertEqual(second.returncode, 0, second.stdout + second.stderr)
                    self.assertIn("generation 3", second.stdout)
                    self.assertEqual(first.wait(harness.PATIENCE), 0)
                    self.assertIn("generation 2", first.stdout.read())
                finally:
                    first.kill()
            self.assertEqual(harness.read_answer(client)[0], 200)

    def test_connection_in_the_queue_of_the_old_version_is_served(self):
        # The only worker is stopped: it accepts nothing, connections wait in the queue of the shared socket.
        gapless = self.serve(*self.listen, "--", self.hello("one"))
        old = gapless.worker_pids()[0]
        os.kill(old, signal.SIGSTOP)
        client = harness.connect(self.address)
        with client:
            client.sendall(b"GET /version HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
            self.hello("two")
            gapless.hup()
            self.assertEqual(harness.read_answer(client)[1].split()[0], "two")
            os.kill(old, signal.SIGCONT)
        gapless.wait_serving(2)

    def test_idle_keep_alive_connection_of_the_old_version_does_not_hold_the_drain(self):
        gapless = self.serve(*self.listen, "--state-transfer", "off", "--", self.hello("one"))
        with harness.connect(self.address) as client:
            client.sendall(b"GET /version HTTP/1.1\r\nHost: test\r\n\r\n")
            self.assertEqual(harness.read_answer(client)[1].split()[0], "one")
            self.hello("two")
            gapless.upgrade_by_hup(timeout=10)
            self.assertEqual(client.recv(1), b"")

    def test_answer_during_the_drain_says_close_where_nothing_is_handed_over(self):
        gapless = self.serve(*self.listen, "--state-transfer", "off", "--", self.hello("one"))
        old = gapless.worker_pids()[0]
        with harness.connect(self.address) as client:
            client.sendall(b"GET /slow?ms=%d HTTP/1.1\r\nHost: test\r\n\r\n" % harness.SLOW_MS)
            harness.wait_until(lambda: harness.established(self.port, old), "the request to be accepted")
            gapless.hup()
            head = b""
            while b"\r\n\r\n" not in head:
                head += client.recv(4096)
            self.assertRegex(head.lower(), rb"\r\nconnection: close\r\n")
        gapless.wait_serving(2)

    def test_drain_timeout_ends_a_worker_that_never_finishes(self):
        gapless = self.serve(*self.listen, "--drain-timeout", "500ms", "--stop-grace", "500ms", "--", self.hello("one"))
        old = gapless.worker_pids()[0]
        with harness.connect(self.address) as client:
            client.sendall(b"GET /slow?ms=60000 HTTP/1.1\r\nHost: test\r\n\r\n")
            harness.wait_until(lambda: harness.established(self.port, old), "the request to be accepted")
            gapless.upgrade_by_hup(timeout=15)
        self.assertFalse(harness.is_alive(old))

    def test_drain_signal_goes_first_and_the_stop_signal_only_after_it(self):
        signals = self.dir / "signals"
        gapless = self.serve(*self.listen, "--drain-signal", "WINCH", "--drain-timeout", "2s", *self.worker(
            "--signals", signals))
        old = gapless.worker_pids()[0]
        gapless.hup()
        harness.wait_until(lambda: signals.exists() and "1 0 SIGWINCH" in signals.read_text(), "the drain signal")
        self.assertTrue(harness.is_alive(old), "the stop signal must wait for the drain")
        gapless.wait_serving(2)

    def test_configuration_is_read_again(self):
        def configuration(workers, version):
            return self.write("gapless.yaml", f"""
services:
  web:
    command: [{self.hello(version)}]
    listen: tcp:127.0.0.1:{self.port}
    workers: {workers}
    observe: {{window: 0}}
""")
        gapless = self.serve("-c", configuration(1, "one"))
        configuration(3, "two")
        gapless.upgrade_by_hup()
        self.assertEqual(len(gapless.worker_pids()), 3)
        self.assertEqual(harness.version_at(self.address)[0], "two")

    def test_bad_configuration_at_sighup_changes_nothing_and_is_one_line(self):
        path = self.write("gapless.yaml", f"""
services:
  web:
    command: [{self.hello("one")}]
    listen: tcp:127.0.0.1:{self.port}
""")
        gapless = self.serve("-c", path)
        workers = gapless.worker_pids()
        self.write("gapless.yaml", "services:\n  web:\n    comand: [x]\n")
        mark = gapless.log.mark()
        gapless.hup()
        line = gapless.log.wait("comand", after=mark)
        self.assertIn(f"{path}:3", line.text)
        self.assertIn("command", line.text.replace("comand", ""))
        gapless.wait_serving(1)
        self.assertEqual(gapless.worker_pids(), workers)

    def test_listener_that_the_new_configuration_adds_serves_and_one_that_it_drops_is_closed(self):
        second = harness.free_port()
        server = self.hello("one")

        def configuration(port):
            return self.write("gapless.yaml", f"""
services:
  web:
    command: [{server}]
    listen: ["web=tcp:127.0.0.1:{self.port}", "more=tcp:127.0.0.1:{port}"]
    observe: {{window: 0}}
""")
        third = harness.free_port()
        gapless = self.serve("-c", configuration(second))
        self.assertEqual(harness.version_at(("127.0.0.1", second))[0], "one")
        configuration(third)
        gapless.upgrade_by_hup()
        self.assertEqual(harness.version_at(("127.0.0.1", third))[0], "one")
        with self.assertRaises(ConnectionRefusedError):
            harness.connect(("127.0.0.1", second))

    def test_every_service_is_upgraded_for_itself(self):
        second = harness.free_port()
        good, bad = self.hello("one", "good"), self.hello("one", "bad")
        gapless = self.start("-c", self.write("gapless.yaml", f"""
services:
  good:
    command: [{good}]
    listen: tcp:127.0.0.1:{self.port}
    observe: {{window: 0}}
  bad:
    command: [{bad}]
    listen: tcp:127.0.0.1:{second}
"""))
        gapless.wait_serving(1, "good")
        gapless.wait_serving(1, "bad")
        self.hello("two", "good")
        self.write("bad", "#!/bin/sh\nexit 1\n", 0o755)
        mark = gapless.log.mark()
        gapless.hup()
        gapless.wait_serving(2, "good")
        gapless.log.wait("upgrade.*fail", after=mark, service="bad")
        gapless.wait_serving(1, "bad")
        self.assertEqual(harness.version_at(self.address)[0], "two")
        self.assertEqual(harness.version_at(("127.0.0.1", second))[0], "one")


class BadVersionTest(harness.TestCase):
    """The new version is bad: the old one serves on, nothing fails, and one line of the log says which and why."""

    def setUp(self):
        super().setUp()
        self.port = harness.free_port()
        self.server = self.hello("one")
        self.gapless = self.serve("-n", "2", "--ready-timeout", "1s", "-l", f"tcp:127.0.0.1:{self.port}", "--",
                                  self.server)

    def fails(self, make_bad, reason):
        workers = self.gapless.worker_pids()
        load = harness.Load(self, "--rate", "200", f"tcp:127.0.0.1:{self.port}/version")
        make_bad()
        mark = self.gapless.log.mark()
        self.gapless.hup()
        self.gapless.log.wait("upgrade.*fail|fail.*upgrade", after=mark)
        self.gapless.wait_serving(1)
        self.assertEqual(sorted(self.gapless.worker_pids()), sorted(workers))
        self.assert_clean(load.stop())
        lines = self.gapless.log.find("upgrade.*fail|fail.*upgrade", after=mark)
        self.assertEqual(len(lines), 1, lines)
        self.assertIn(lines[0].level, ("warning", "error"))
        self.assertEqual(lines[0].fields.get("generation"), "2")
        self.assertRegex(lines[0].text, reason)
        # And a good one afterwards is an upgrade like any other.
        if self.dir.joinpath("server").is_dir():
            self.dir.joinpath("server").rmdir()
        self.hello("three")
        self.gapless.hup()
        harness.wait_until(lambda: self.gapless.generation() > 2, "a good upgrade")
        self.assertEqual(harness.version_at(("127.0.0.1", self.port))[0], "three")

    def test_that_exits_at_once(self):
        self.fails(lambda: self.write("server", "#!/bin/sh\nexit 3\n", 0o755), r"exit\D*3")

    def test_that_is_killed_by_a_signal(self):
        self.fails(lambda: self.write("server", "#!/bin/sh\nkill -SEGV $$\n", 0o755), r"SEGV|signal 11|139")

    def test_that_never_gets_ready(self):
        self.fails(lambda: self.write("server", "#!/bin/sh\nexec sleep 600\n", 0o755), r"ready")

    def test_that_is_not_executable(self):
        self.fails(lambda: self.write("server", "#!/bin/sh\nexit 0\n", 0o644), r"(?i)permission denied|not executable")

    def test_that_is_not_there(self):
        self.fails(lambda: (self.dir / "server").unlink(), r"(?i)no such file|not found")

    def test_that_is_a_directory(self):
        def directory():
            (self.dir / "server").unlink()
            (self.dir / "server").mkdir()
        self.fails(directory, r"(?i)directory|not a (regular )?file|permission denied")

    def test_that_is_no_program(self):
        self.fails(lambda: self.write("server", "\x7fELF, but not really", 0o755), r"(?i)exec format|not a program")

    def test_whose_interpreter_is_not_there(self):
        self.fails(lambda: self.write("server", "#!/no/such/interpreter\n", 0o755), r"(?i)interpreter|no such file")


class HangupTest(harness.TestCase):
    def test_twenty_hangups_while_a_slow_version_starts_are_one_upgrade_and_one_more(self):
        server = self.write("server", f"#!/bin/sh\nexec {harness.WORKER}\n", 0o755)
        gapless = self.serve("-l", f"tcp:127.0.0.1:{harness.free_port()}", "--", server)
        gapless.upgrade_by_hup()  # from here on the version before is held
        counts = lambda: {pid: len(harness.descriptors(pid)) for pid in (gapless.keeper_pid(), gapless.master_pid())}
        before = harness.settled(counts)
        self.write("server", f"#!/bin/sh\nwhile [ ! -e {self.dir}/go ]; do sleep 0.05; done\nexec {harness.WORKER}\n", 0o755)
        mark = gapless.log.mark()
        for number in range(20):
            gapless.hup()
            # Taken before the next one is sent: two that are pending at the same time are one to the kernel.
            harness.wait_until(lambda: len(gapless.log.find("SIGHUP", after=mark)) > number, "the signal to be taken")
        self.write("go", "")
        gapless.wait_serving(4)
        self.assertEqual(len(gapless.log.find(r"ready", after=mark, generation=5)), 0)
        # Nothing is left of twenty signals but two upgrades.
        gapless.wait_serving(4)
        harness.wait_until(lambda: counts() == before,
                           lambda: f"descriptors as before, {before}: "
                                   f"{ {pid: harness.descriptors(pid) for pid in before} }")
        self.assert_no_zombies(gapless.pid)

    def test_hangup_before_the_first_generation_is_ready_is_remembered(self):
        server = self.write("server", f"#!/bin/sh\nwhile [ ! -e {self.dir}/go ]; do sleep 0.05; done\n"
                                      f"exec {harness.WORKER} --dump {self.dir}/dump\n", 0o755)
        gapless = self.start("--", server)
        harness.wait_until(lambda: gapless.service(), "gapless to start")
        gapless.hup()
        gapless.log.wait("SIGHUP")
        self.write("go", "")
        gapless.wait_serving(2)

    def test_term_during_an_upgrade_ends_both_generations_with_0(self):
        server = self.write("server", f"#!/bin/sh\nexec {harness.WORKER}\n", 0o755)
        gapless = self.serve("--", server)
        self.write("server", "#!/bin/sh\nexec sleep 600\n", 0o755)
        gapless.hup()
        harness.wait_until(lambda: len(gapless.worker_pids()) == 2, "both generations")
        workers = gapless.worker_pids()
        self.assertEqual(gapless.terminate(), 0)
        self.assertFalse([pid for pid in workers if harness.is_alive(pid)])


if __name__ == "__main__":
    harness.main(at_a_time=3)

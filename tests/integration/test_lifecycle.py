#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""Beginning, end and everyday life: exit codes, restart policies, the signals of the main pid."""

import json
import os
import signal
import time

import harness


class ExitCodeTest(harness.TestCase):
    """The code of `run` when its service can't go on."""

    def ends_with(self, code, *arguments):
        gapless = self.start(*arguments)
        self.assertEqual(gapless.wait_exit(), code, gapless.log.text())
        return gapless

    def test_command_that_is_not_there_gives_127(self):
        gapless = self.ends_with(127, "--", str(self.dir / "none"))
        self.assertIn(str(self.dir / "none"), gapless.log.text())

    def test_command_not_in_path_gives_127(self):
        self.ends_with(127, "--", "no-such-command-anywhere")

    def test_file_without_the_run_bit_gives_126(self):
        self.ends_with(126, "--", self.write("plain", "text"))

    def test_directory_as_command_gives_126(self):
        self.ends_with(126, "--", str(self.dir))

    def test_interpreter_that_is_not_there_is_named(self):
        script = self.write("script", "#!/no/such/interpreter\n", 0o755)
        gapless = self.start("--", script)
        self.assertIn(gapless.wait_exit(), (126, 127))
        self.assertIn(script, gapless.log.text())

    def test_restart_no_gives_the_command_s_own_code(self):
        self.ends_with(9, "--restart", "no", *self.worker("--exit-after-ready", "9"))

    def test_restart_no_gives_0_for_a_command_that_is_done(self):
        self.ends_with(0, "--restart", "no", *self.worker("--exit-after-ready", "0"))

    def test_restart_no_gives_128_and_the_signal(self):
        gapless = self.serve("--restart", "no", *self.worker())
        os.kill(self.dump()["pid"], signal.SIGKILL)
        self.assertEqual(gapless.wait_exit(), 128 + signal.SIGKILL)

    def test_first_generation_that_exits_at_once_gives_its_code_with_restart_no(self):
        self.ends_with(7, "--restart", "no", "--", "/bin/sh", "-c", "exit 7")

    def test_on_failure_ends_with_0_when_the_command_is_done(self):
        self.ends_with(0, "--restart", "on-failure", *self.worker("--exit-after-ready", "0"))


class RespawnTest(harness.TestCase):
    def kill_and_wait(self, gapless):
        """Kills the worker; returns the pid of the one in its place."""
        killed = gapless.worker_pids()[0]
        os.kill(killed, signal.SIGKILL)

        def replaced():
            pids = gapless.worker_pids()
            return len(pids) == 1 and pids[0] != killed and pids[0]

        pid = harness.wait_until(replaced, "a worker in place of the killed one")
        gapless.wait_serving(1)
        return pid

    def test_killed_worker_is_replaced_in_its_generation(self):
        gapless = self.serve(*self.worker())
        self.kill_and_wait(gapless)

    def test_on_failure_replaces_a_killed_worker(self):
        gapless = self.serve("--restart", "on-failure", *self.worker())
        self.kill_and_wait(gapless)

    def test_connections_wait_while_the_only_worker_is_replaced(self):
        port = harness.free_port()
        gapless = self.serve("-l", f"tcp:127.0.0.1:{port}", *self.worker())
        os.kill(gapless.worker_pids()[0], signal.SIGKILL)
        self.assertEqual(harness.http_get(("127.0.0.1", port))[0], 200)

    def test_worker_that_keeps_dying_is_started_ever_more_rarely(self):
        gapless = self.start("--backoff-initial", "100ms", *self.worker("--exit-after-ready", "3"))
        harness.wait_until(lambda: len(gapless.log.find("started again")) >= 5, "five starts")
        delays = [int(line.fields["delay_ms"]) for line in gapless.log.find("started again")]
        # Each delay is in the upper half of 100 ms × 2^n.
        for number, delay in enumerate(delays[:5]):
            self.assertTrue(100 << number >= delay >= 50 << number, delays)
        self.assertEqual(gapless.terminate(), 0)

    def test_nothing_that_a_worker_forked_outlives_it(self):
        script = f"sleep 987 & exec {harness.WORKER} --dump {self.dir}/dump"
        gapless = self.serve("--", "/bin/sh", "-c", script)
        sleeper = [pid for pid in harness.descendants_of(gapless.pid) if harness.command_line(pid)[:1] == ["sleep"]]
        self.assertEqual(len(sleeper), 1)
        gapless.upgrade_by_hup()
        harness.wait_until(lambda: not harness.is_alive(sleeper[0]), "the old worker's child to end")


class StopTest(harness.TestCase):
    def setUp(self):
        super().setUp()
        self.port = harness.free_port()
        self.listen = ["-l", f"tcp:127.0.0.1:{self.port}"]

    def slow_in_flight(self, milliseconds):
        """hello, and a client whose request takes so many milliseconds and has been accepted."""
        gapless = self.serve(*self.listen, "--", harness.program("GAPLESS_HELLO"))
        client = harness.connect(("127.0.0.1", self.port))
        self.addCleanup(client.close)
        client.sendall(f"GET /slow?ms={milliseconds} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
        worker = gapless.worker_pids()[0]
        harness.wait_until(lambda: harness.established(self.port, worker), "the request to be accepted")
        return gapless, client

    def test_term_waits_for_a_request_in_flight_and_ends_with_0(self):
        gapless, client = self.slow_in_flight(1500)
        self.assertEqual(gapless.terminate(), 0)
        self.assertEqual(harness.read_answer(client)[0], 200)

    def test_int_stops_as_term_does(self):
        gapless, client = self.slow_in_flight(500)
        gapless.signal(signal.SIGINT)
        self.assertEqual(gapless.wait_exit(), 0)
        self.assertEqual(harness.read_answer(client)[0], 200)

    def test_second_term_stops_at_once(self):
        gapless, _ = self.slow_in_flight(60000)
        workers = gapless.worker_pids()
        mark = gapless.log.mark()
        gapless.signal(signal.SIGTERM)
        gapless.log.wait("stop|drain", after=mark)
        began = time.monotonic()
        gapless.insist(signal.SIGTERM)
        self.assertLess(time.monotonic() - began, 5)
        self.assertFalse([pid for pid in workers if harness.is_alive(pid)])

    def test_term_that_comes_twice_at_once_is_one(self):
        gapless, client = self.slow_in_flight(500)
        mark = gapless.log.mark()
        gapless.signal(signal.SIGTERM)
        gapless.signal(signal.SIGINT)  # a second SIGTERM would be the same one to the kernel already
        self.assertEqual(gapless.wait_exit(), 0)
        self.assertEqual(harness.read_answer(client)[0], 200)
        self.assertEqual(len(gapless.log.find("signal", after=mark)), 2, gapless.log.text())

    def test_quit_stops_at_once(self):
        gapless, _ = self.slow_in_flight(60000)
        workers = gapless.worker_pids()
        began = time.monotonic()
        gapless.signal(signal.SIGQUIT)
        gapless.wait_exit()
        self.assertLess(time.monotonic() - began, 5)
        self.assertFalse([pid for pid in workers if harness.is_alive(pid)])

    def test_worker_that_ignores_the_stop_signal_is_killed_after_its_grace(self):
        gapless = self.serve(*self.listen, "--drain-timeout", "300ms", "--stop-grace", "300ms",
                             *self.worker("--ignore-term"))
        worker = gapless.worker_pids()[0]
        gapless.terminate(timeout=10)
        self.assertFalse(harness.is_alive(worker))

    def test_stop_signal_can_be_named(self):
        gapless = self.serve(*self.listen, "--stop-signal", "QUIT", "--stop-grace", "60s", *self.worker("--ignore-term"))
        self.assertEqual(gapless.terminate(timeout=20), 0)

    def test_stop_before_the_first_generation_is_ready_ends_it(self):
        gapless = self.start("--stop-grace", "300ms", *self.worker("--ready", "none"))
        self.dump()
        self.assertEqual(gapless.terminate(timeout=10), 0)


class SignalTest(harness.TestCase):
    def test_usr1_goes_to_every_worker(self):
        signals = self.dir / "signals"
        gapless = self.serve("-n", "2", *self.worker("--signals", signals))
        gapless.signal(signal.SIGUSR1)
        harness.wait_until(lambda: signals.exists() and set(signals.read_text().split("\n")) >= {
            "1 0 SIGUSR1", "1 1 SIGUSR1"}, "USR1 in both workers")
        gapless.wait_serving(1)

    def test_ttin_and_ttou_scale_by_one(self):
        gapless = self.serve("-n", "2", *self.worker())
        first = set(gapless.worker_pids())
        gapless.signal(signal.SIGTTIN)
        harness.wait_until(lambda: len(gapless.worker_pids()) == 3 and (self.dir / "dump.1.2").exists(), "three workers")
        self.assertTrue(first < set(gapless.worker_pids()))
        gapless.signal(signal.SIGTTOU)
        harness.wait_until(lambda: len(gapless.worker_pids()) == 2, "two workers")
        gapless.wait_serving(1)

    def test_ttou_leaves_the_last_worker(self):
        gapless = self.serve(*self.worker())
        worker = gapless.worker_pids()
        gapless.signal(signal.SIGTTOU)
        gapless.log.wait("SIGTTOU")
        gapless.signal(signal.SIGTTIN)
        harness.wait_until(lambda: len(gapless.worker_pids()) == 2, "two workers")
        self.assertLess(set(worker), set(gapless.worker_pids()))

    def test_signals_that_mean_nothing_change_nothing(self):
        gapless = self.serve(*self.worker())
        worker = gapless.worker_pids()
        for number in (signal.SIGWINCH, signal.SIGCONT, signal.SIGPIPE, signal.SIGALRM, signal.SIGUSR2):
            gapless.signal(number)
        gapless.wait_serving(1)
        self.assertEqual(gapless.worker_pids(), worker)


class SurfaceTest(harness.TestCase):
    def test_pid_file_holds_the_main_pid_and_goes_with_it(self):
        path = self.dir / "pid"
        gapless = self.serve("--pid-file", path, *self.worker())
        self.assertEqual(path.read_text().strip(), str(gapless.pid))
        gapless.upgrade_by_hup()
        self.assertEqual(path.read_text().strip(), str(gapless.pid))
        self.assertEqual(gapless.terminate(), 0)
        self.assertFalse(path.exists())

    def test_version_is_one_line(self):
        done = harness.run_gapless("--version")
        self.assertEqual(done.returncode, 0)
        self.assertRegex(done.stdout, r"^gapless \d+\.\d+\.\d+\S*\n$")

    def test_worker_s_output_goes_where_gapless_s_does(self):
        gapless = self.serve("--", "/bin/sh", "-c", f"echo to-stdout; echo to-stderr >&2; exec {harness.WORKER}")
        self.assertIn("to-stdout", gapless.output.text())
        self.assertIn("to-stderr", gapless.log.text())

    def test_json_log_is_json_in_every_line(self):
        gapless = self.serve("--log", "json", *self.worker())
        gapless.upgrade_by_hup()
        self.assertEqual(gapless.terminate(), 0)
        lines = gapless.log.text().splitlines()
        self.assertTrue(lines)
        for line in lines:
            self.assertTrue({"time", "level", "message"} <= json.loads(line).keys(), line)


if __name__ == "__main__":
    harness.main()

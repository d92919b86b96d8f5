#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""The verbs: `status` and its JSON, `upgrade` and its exit codes, `stop`."""

import json
import os
import signal
import subprocess

import exact
import harness

MASTER = {"pid", "version", "uptime_s", "history"}
SERVICE = {"name", "state", "generation", "tracker", "listeners", "generations", "upgrade", "keepalive", "vault"}
TRACKER = {"name", "precision", "reason"}
LISTENER = {"name", "address", "steering", "reason"}
GENERATION = {"id", "state", "version", "started_at", "idle_closed", "workers", "farewell"}
WORKER = {"pid", "state", "connections", "in_flight", "requests", "bytes_in", "bytes_out"}
UPGRADE = {"state", "phase", "started_at", "reason", "from", "to", "ends_in_s", "previous"}


class StatusTest(harness.TestCase):
    def setUp(self):
        super().setUp()
        self.port = harness.free_port()
        self.gapless = self.serve("-n", "2", "-l", f"web=tcp:127.0.0.1:{self.port}", *self.worker())

    def test_keys_of_the_json_are_exactly_those_of_the_design(self):
        status = self.gapless.status()
        self.assertEqual(status.keys(), {"master", "services"})
        self.assertEqual(status["master"].keys(), MASTER)
        for service in status["services"]:
            self.assertEqual(service.keys(), SERVICE)
            self.assertEqual(service["tracker"].keys(), TRACKER)
            self.assertEqual(service["upgrade"].keys(), UPGRADE)
            for listener in service["listeners"]:
                self.assertEqual(listener.keys(), LISTENER)
            for generation in service["generations"]:
                self.assertEqual(generation.keys(), GENERATION)
                for worker in generation["workers"]:
                    self.assertEqual(worker.keys(), WORKER)

    def test_values_are_what_is_and_the_unknown_is_null(self):
        status = self.gapless.status()
        self.assertEqual(status["master"]["pid"], self.gapless.pid)
        self.assertGreaterEqual(status["master"]["uptime_s"], 0)
        service = status["services"][0]
        self.assertEqual((service["state"], service["generation"]), ("serving", 1))
        self.assertEqual(service["listeners"][0]["name"], "web")
        self.assertEqual(service["listeners"][0]["address"], f"tcp:127.0.0.1:{self.port}")
        self.assertEqual(service["listeners"][0]["steering"], exact.best_steering("tcp:"))
        self.assertEqual(service["upgrade"]["state"], "idle")
        generation = service["generations"][0]
        self.assertEqual((generation["id"], generation["state"]), (1, "active"))
        self.assertRegex(generation["started_at"], r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$")
        self.assertEqual({worker["pid"] for worker in generation["workers"]},
                         {self.dump(1, 0)["pid"], self.dump(1, 1)["pid"]})
        for worker in generation["workers"]:
            self.assertEqual(worker["state"], "ready")
            for key in ("connections", "in_flight", "requests", "bytes_in", "bytes_out"):
                # Only programs in the kernel count as it happens; without them nobody knows.
                self.assertEqual(worker[key], 0 if service["tracker"]["name"] == "ebpf" else None, key)
        self.assertIsNone(generation["idle_closed"])

    def test_text_form_names_service_generation_and_workers(self):
        done = self.gapless.verb("status")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        for pid in self.gapless.worker_pids():
            self.assertIn(str(pid), done.stdout)
        self.assertIn("serving", done.stdout)

    def test_service_without_a_ready_worker_is_down(self):
        go = self.write("go", "")
        server = self.write("server", f"#!/bin/sh\n[ -e {go} ] || exit 1\nexec {harness.WORKER}\n", 0o755)
        gapless = self.serve("-n", "2", "--backoff-initial", "20ms", "--backoff-max", "100ms", "--", server)
        os.unlink(go)
        workers = gapless.worker_pids()
        os.kill(workers[0], signal.SIGKILL)
        gapless.log.wait("worker ended", pid=workers[0])
        self.assertEqual(gapless.service()["state"], "serving", "the other one is there")
        os.kill(workers[1], signal.SIGKILL)
        harness.wait_until(lambda: gapless.service()["state"] == "down", lambda: f"the service to be down: {gapless.service()}")
        self.assertIn("down, generation 1", gapless.verb("status").stdout)
        self.write("go", "")
        gapless.wait_serving(1)

    def test_stop_ends_it_and_gapless_exits_with_0(self):
        done = self.gapless.verb("stop")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(self.gapless.wait_exit(), 0)
        self.assertFalse(os.path.lexists(self.gapless.admin))

    def test_admin_socket_is_for_its_owner_alone(self):
        self.assertEqual(os.stat(self.gapless.admin).st_mode & 0o777, 0o600)


class UpgradeVerbTest(harness.TestCase):
    def setUp(self):
        super().setUp()
        self.server("")
        self.gapless = self.serve("--ready-timeout", "1s", "--", str(self.dir / "server"))

    def server(self, options):
        """What the next generation runs."""
        self.write("server", f"#!/bin/sh\nexec {harness.WORKER} --dump {self.dir}/dump {options}\n", 0o755)

    def test_0_once_the_new_generation_serves_and_the_old_is_gone(self):
        old = self.gapless.worker_pids()
        done = self.gapless.verb("upgrade")
        self.assertEqual((done.returncode, done.stderr), (0, ""), done.stdout)
        service = self.gapless.service()
        self.assertEqual((service["generation"], len(service["generations"])), (2, 1))
        self.assertFalse([pid for pid in old if harness.is_alive(pid)])

    def test_1_with_the_reason_where_the_new_version_exits(self):
        self.write("server", "#!/bin/sh\nexit 5\n", 0o755)
        old = self.gapless.worker_pids()
        done = self.gapless.verb("upgrade")
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stdout + done.stderr, r"exit\D*5")
        self.assertEqual(self.gapless.worker_pids(), old)
        self.assertTrue(self.gapless.service()["upgrade"]["reason"])

    def test_1_with_the_reason_where_the_new_version_never_gets_ready(self):
        self.server("--ready none")
        done = self.gapless.verb("upgrade")
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stdout + done.stderr, r"ready")

    def test_2_for_a_service_that_is_not_there(self):
        done = self.gapless.verb("upgrade", "no-such-service")
        self.assertEqual(done.returncode, 2)
        self.assertIn("no-such-service", done.stderr)
        self.assertEqual(self.gapless.generation(), 1)

    def test_2_for_a_flag_that_is_not_there(self):
        done = self.gapless.verb("upgrade", "--no-such-flag")
        self.assertEqual(done.returncode, 2)
        self.assertIn("--no-such-flag", done.stderr)

    def test_3_while_another_is_under_way(self):
        self.server("--ready none")
        with subprocess.Popen([harness.program("GAPLESS"), "upgrade", "--admin", self.gapless.admin],
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as first:
            try:
                harness.wait_until(lambda: self.gapless.service()["upgrade"]["state"] == "running", "an upgrade")
                done = self.gapless.verb("upgrade")
                self.assertEqual(done.returncode, 3, done.stdout + done.stderr)
                self.assertEqual(first.wait(harness.PATIENCE), 1)
            finally:
                first.kill()
                first.communicate()

    def test_4_where_no_master_answers(self):
        for verb in ("status", "upgrade", "stop"):
            with self.subTest(verb=verb):
                done = harness.run_gapless(verb, "--admin", self.dir / "nobody.sock")
                self.assertEqual(done.returncode, 4)
                self.assertEqual(done.stderr.count("\n"), 1)

    def test_4_where_the_master_is_gone_and_its_socket_left(self):
        self.gapless.signal(signal.SIGKILL)
        self.gapless.wait_exit()
        # The master follows its keeper.
        harness.wait_until(lambda: self.gapless.verb("status").returncode == 4, "exit code 4")

    def test_watcher_that_goes_away_stops_nothing(self):
        self.write("server", f"#!/bin/sh\nwhile [ ! -e {self.dir}/go ]; do sleep 0.05; done\n"
                             f"exec {harness.WORKER} --dump {self.dir}/dump\n", 0o755)
        with subprocess.Popen([harness.program("GAPLESS"), "upgrade", "--admin", self.gapless.admin],
                              stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as watcher:
            harness.wait_until(lambda: self.gapless.service()["upgrade"]["state"] == "running", "an upgrade")
            watcher.send_signal(signal.SIGINT)
            watcher.wait(harness.PATIENCE)
        self.write("go", "")
        self.gapless.wait_serving(2)


class HelpTest(harness.TestCase):
    def test_help_of_every_verb_is_printed_with_0(self):
        for verb in ([], ["run"], ["status"], ["upgrade"], ["rollback"], ["restart"], ["stop"], ["history"]):
            with self.subTest(verb=verb):
                done = harness.run_gapless(*verb, "--help")
                self.assertEqual((done.returncode, done.stderr), (0, ""))
                self.assertIn("gapless", done.stdout)

    def test_status_json_is_one_document(self):
        gapless = self.serve(*self.worker())
        done = gapless.verb("status", "--json")
        json.loads(done.stdout)
        self.assertTrue(done.stdout.endswith("\n"))


if __name__ == "__main__":
    harness.main()

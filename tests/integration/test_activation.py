#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""What a worker without libgapless inherits: descriptors, and the variables of each convention."""

import os
import signal
import socket

import harness


class ActivationTest(harness.TestCase):
    def setUp(self):
        super().setUp()
        self.port = harness.free_port()
        self.path = str(self.dir / "api.sock")
        self.listen = ["-l", f"web=tcp:127.0.0.1:{self.port}", "-l", f"api=unix:{self.path}"]

    def test_listen_fds_names_and_pid_are_those_of_sd_listen_fds(self):
        self.serve(*self.listen, *self.worker())
        worker = self.dump()
        self.assertEqual(worker["env"]["LISTEN_FDS"], "2")
        self.assertEqual(worker["env"]["LISTEN_FDNAMES"], "web:api")
        self.assertEqual(worker["env"]["LISTEN_PID"].strip(), str(worker["pid"]))
        self.assertEqual(worker["descriptors"]["3"]["address"], ["127.0.0.1", self.port])
        self.assertEqual(worker["descriptors"]["4"]["address"], self.path)

    def test_listener_without_a_name_keeps_listen_fdnames_countable(self):
        self.serve("-l", f"tcp:127.0.0.1:{self.port}", "-l", f"unix:{self.path}", *self.worker())
        worker = self.dump()
        self.assertEqual(worker["env"]["LISTEN_FDS"], "2")
        self.assertEqual(len(worker["env"]["LISTEN_FDNAMES"].split(":")), 2)

    def test_server_starter_variables_name_the_same_descriptors(self):
        gapless = self.serve(*self.listen, *self.worker())
        self.assertEqual(self.dump()["env"]["SERVER_STARTER_PORT"], f"127.0.0.1:{self.port}=3;{self.path}=4")
        self.assertEqual(self.dump()["env"]["SERVER_STARTER_GENERATION"], "1")
        gapless.upgrade_by_hup()
        self.assertEqual(self.dump(2)["env"]["SERVER_STARTER_PORT"], f"127.0.0.1:{self.port}=3;{self.path}=4")
        self.assertEqual(self.dump(2)["env"]["SERVER_STARTER_GENERATION"], "2")

    def test_einhorn_variables_are_there_and_its_ack_is_readiness(self):
        gapless = self.serve(*self.listen, "--activation", "einhorn", *self.worker("--ready", "einhorn"))
        worker = self.dump()
        self.assertEqual(worker["env"]["EINHORN_FD_COUNT"], "2")
        self.assertEqual(worker["env"]["EINHORN_FD_0"], "3")
        self.assertEqual(worker["env"]["EINHORN_FD_1"], "4")
        self.assertEqual(worker["env"]["EINHORN_MASTER_PID"], str(worker["ppid"]))
        self.assertTrue(worker["env"]["EINHORN_SOCK_PATH"])
        gapless.upgrade_by_hup()

    def test_einhorn_variables_are_absent_where_not_asked_for(self):
        self.serve(*self.listen, *self.worker())
        self.assertEqual([name for name in self.dump()["env"] if name.startswith("EINHORN")], [])

    def test_placeholders_in_arguments_and_environment_become_numbers(self):
        self.serve(*self.listen, "--env", "NGINX={fds:;}", "--env", "UNICORN_FD={fd:api}",
                   *self.worker("first={fd:web},second={fd:api}", "{fds:,}"))
        worker = self.dump()
        self.assertEqual(worker["env"]["NGINX"], "3;4;")
        self.assertEqual(worker["env"]["UNICORN_FD"], "4")
        self.assertEqual(worker["extra"], ["first=3,second=4", "3,4,"])

    def test_placeholder_without_its_listener_is_refused_with_the_names_there_are(self):
        gapless = self.start(*self.listen, *self.worker("{fd:wbe}"))
        self.assertNotEqual(gapless.wait_exit(), 0)
        self.assertRegex(gapless.log.text(), r"wbe.*(web|api)")

    def test_worker_says_it_is_one_of_its_service_generation_and_number(self):
        gapless = self.serve("--name", "shop", "-n", "2", *self.listen, *self.worker())
        gapless.upgrade_by_hup()
        for generation in (1, 2):
            for number in (0, 1):
                env = self.dump(generation, number)["env"]
                self.assertEqual((env["GAPLESS_GENERATION"], env["GAPLESS_WORKER"]), (str(generation), str(number)))
                self.assertTrue(env["GAPLESS_SERVICE"])

    def test_exactly_the_listed_descriptors_are_open_in_the_worker(self):
        # Descriptors that gapless was started with by accident: a worker has no business with them.
        stray = os.open("/dev/null", os.O_RDONLY)
        self.addCleanup(os.close, stray)
        gapless = self.serve("-n", "2", *self.listen, *self.worker(), pass_fds=(stray,))
        gapless.upgrade_by_hup()
        for generation in (1, 2):
            for number in (0, 1):
                worker = self.dump(generation, number)
                control = worker["env"]["GAPLESS_FD"]
                self.assertEqual(sorted(map(int, worker["descriptors"])), [0, 1, 2, 3, 4, int(control)])
                self.assertEqual(worker["descriptors"]["0"]["link"], "/dev/null")
                self.assertEqual(worker["descriptors"][control]["type"], int(socket.SOCK_SEQPACKET))

    def test_without_activation_only_named_listeners_are_inherited(self):
        self.serve(*self.listen, "--activation", "none", *self.worker("--fd", "{fd:api}"))
        worker = self.dump()
        number = worker["argv"][worker["argv"].index("--fd") + 1]
        self.assertEqual(worker["descriptors"][number]["address"], self.path)
        self.assertEqual(len(worker["descriptors"]), 3 + 2)
        self.assertNotIn("LISTEN_FDS", worker["env"])
        self.assertNotIn("SERVER_STARTER_PORT", worker["env"])

    def test_variables_of_a_manager_above_are_not_passed_on(self):
        self.serve(*self.worker(), env={
            "LISTEN_FDS": "0", "LISTEN_PID": "1", "LISTEN_FDNAMES": "theirs", "WATCHDOG_USEC": "1000000",
            "EINHORN_FD_COUNT": "3", "SERVER_STARTER_PORT": "1=1", "KEPT": "yes"})
        env = self.dump()["env"]
        self.assertEqual(env["KEPT"], "yes")
        for name in ("LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "WATCHDOG_USEC", "EINHORN_FD_COUNT",
                     "SERVER_STARTER_PORT"):
            self.assertNotIn(name, env)

    def test_worker_leads_its_group_and_has_default_signals(self):
        ignored = signal.SIGUSR2
        gapless = self.serve(*self.worker(), preexec=lambda: signal.signal(ignored, signal.SIG_IGN))
        worker = self.dump()
        self.assertEqual(worker["pgid"], worker["pid"])
        self.assertEqual(worker["ppid"], gapless.pid)
        self.assertEqual(worker["signals"]["SigBlk"], 0)
        of_python = {signal.SIGPIPE, signal.SIGXFSZ}  # Python ignores these itself
        self.assertEqual(worker["signals"]["SigIgn"] & ~sum(1 << (number - 1) for number in of_python), 0)


if __name__ == "__main__":
    harness.main()

#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""`ready.probe`: the new generation is asked on the public address, alone, until it answers; the old one serves meanwhile and is never
taken for it."""

import os
import shlex
import shutil
import signal
import unittest

import exact
import harness

QUICK = ("--drain-quiet", "50ms", "--drain-idle-grace", "0")
# For a version that never answers: its predecessor was ready within it, too.
SHORT = "3s" if harness.SANITIZED else "1s"


class Probed:
    def setUp(self):
        super().setUp()
        self.open_address()

    def serve_probed(self, probe, *flags, timeout="3s"):
        self.install_server(self.hello_command())
        return self.serve(*QUICK, "--ready-timeout", timeout, "--ready-probe", probe, *flags, "-l", f"web={self.listen}", "--", str(self.dir / "server"))

    def install_server(self, command, before=""):
        self.write("server", f"#!/bin/sh\n{before}\nexec {command}\n", 0o755)

    def hello_command(self, version="one"):
        return shlex.join([harness.program("GAPLESS_HELLO"), "--version-name", version])

    def mute(self):
        """A server that takes its sockets and accepts nothing, though it says that it is ready."""
        return shlex.join([harness.program("GAPLESS_EXACT"), "deaf", str(self.dir / "record")])

    def load(self):
        return harness.Load(self, "--rate", 200, "--by-body", self.target)

    def fails_to_upgrade(self, gapless, *words):
        load = self.load()
        gapless.hup()
        line = gapless.log.wait("upgrade failed", generation=2)
        for word in words:
            self.assertIn(word, line.fields["reason"])
        harness.wait_until(lambda: len(gapless.service()["generations"]) == 1, "the failed generation to be gone")
        report = load.stop()
        self.assert_clean(report)
        self.assertEqual(set(report["by"]), {"one generation 1"})

    def test_server_that_answers_is_ready(self):
        for probe in ("http:/version", "web=http:/version", "tcp"):
            gapless = self.serve_probed(probe)
            load = self.load()
            self.install_server(self.hello_command("two"))
            gapless.upgrade_by_hup()
            self.assert_clean(load.stop())
            self.assertEqual(gapless.terminate(), 0)
            self.open_address()

    def test_server_that_says_ready_and_answers_nothing_fails(self):
        for probe in ("http:/version", "tcp"):
            gapless = self.serve_probed(probe, timeout=SHORT)
            self.install_server(self.mute())
            self.fails_to_upgrade(gapless, "ready.probe", "no answer")
            self.assertEqual(gapless.terminate(), 0)
            self.open_address()

    def test_answer_with_an_error_status_is_none(self):
        gapless = self.serve_probed("http:/version")
        probe = "http:/nowhere"
        self.assertEqual(gapless.terminate(), 0)
        self.open_address()
        gapless = self.start(*QUICK, "--ready-timeout", SHORT, "--restart", "no", "--ready-probe", probe, "-l", self.listen, "--", str(self.dir / "server"))
        line = gapless.log.wait("worker failed", generation=1)
        self.assertIn("status 404", line.fields["reason"])

    def test_slow_server_is_asked_until_it_answers(self):
        gapless = self.serve_probed("http:/version")
        load = self.load()
        self.install_server(self.hello_command("two"), before="sleep 1")
        gapless.upgrade_by_hup()
        gapless.wait_requests()
        report = load.stop()
        self.assert_clean(report)
        self.assertEqual(set(report["by"]), {"one generation 1", "two generation 2"})

    def test_native_workers_that_come_one_after_the_other_are_all_ready(self):
        """The first one's answer is the generation's; the others' hello is heard all the same."""
        gapless = self.serve_probed("http:/version", "-n", "4")
        for version in ("two", "three"):
            self.install_server(self.hello_command(version), before="sleep 0.$GAPLESS_WORKER")
            gapless.upgrade_by_hup()
            # Native are those that have said hello.
            harness.wait_until(lambda: gapless.service()["tracker"]["name"] == "native", "four native workers")
        gapless.hup()
        gapless.log.wait("upgrade committed", generation=4)
        gapless.hup()  # while workers of the one before may not have said hello
        gapless.wait_serving(5)
        self.assertEqual(gapless.log.find("cut off|is started again|worker ended.*state=ready"), [])

    def test_master_that_is_killed_meanwhile_goes_on_asking(self):
        gapless = self.serve_probed("http:/version")
        self.install_server(self.hello_command("two"), before=f"while [ ! -e {self.dir}/go ]; do sleep 0.05; done")
        master = gapless.wait_master()
        gapless.hup()
        gapless.log.wait("worker started", generation=2)
        os.kill(master, signal.SIGKILL)
        gapless.wait_master(but=master)
        self.write("go", "")
        gapless.wait_serving(2)


@exact.needs_bpf
class TcpTest(Probed, harness.TestCase):
    def open_address(self):
        self.port = harness.free_port()
        self.listen = self.target = f"tcp:127.0.0.1:{self.port}"
        self.target += "/version"

    def test_every_address_is_asked_by_the_loopback_one(self):
        for listen in (f"tcp:{self.port}", f"tcp:0.0.0.0:{self.port}", f"tcp:[::]:{self.port},v6only", f"tcp:{self.port},per_worker"):
            self.listen = listen
            gapless = self.serve_probed("http:/version", "-n", "2")
            gapless.upgrade_by_hup()
            self.assertEqual(gapless.terminate(), 0)


class PathTest(Probed, harness.TestCase):
    def open_address(self):
        self.listen = f"unix:{self.dir}/web{len(self.started)}.sock"
        self.target = f"{self.listen}:/version"


class RefusedTest(harness.TestCase):
    @unittest.skipUnless(os.getuid() == 0 and shutil.which("setpriv"), "only root can give up capabilities")
    def test_host_without_bpf_can_not_probe_tcp_and_says_so(self):
        gapless = self.start("--ready-probe", "tcp", "-l", f"tcp:127.0.0.1:{harness.free_port()}", *self.worker(),
                             wrapper=("setpriv", "--bounding-set=-bpf,-perfmon,-sys_admin"))
        self.assert_cannot_start(gapless, "ready.probe", "steered by cbpf", "CAP_BPF" if exact.built_with_bpf() else "no BPF")

    def refuse(self, *flags, words):
        gapless = self.start(*flags, "--", "/bin/true")
        self.assertEqual(gapless.wait_exit(), 2)
        complaints = gapless.complaints()
        self.assertEqual(len(complaints), 1, gapless.log.text())
        for word in words:
            self.assertIn(word, complaints[0].text)

    def test_probe_that_can_not_be_is_an_error_of_the_configuration(self):
        tcp = f"tcp:127.0.0.1:{harness.free_port()}"
        self.refuse("--ready-probe", "udp", "-l", tcp, words=["ready-probe", "neither tcp nor http:/PATH"])
        self.refuse("--capture", "off", "--ready-probe", "tcp", words=["no listener where one generation can be reached alone"])
        self.refuse("--ready-probe", "x=tcp", "-l", tcp, words=["'x' names no listener"])
        self.refuse("--ready-probe", "tcp", "-l", f"{tcp},steering=shared", words=["no listener where one generation can be reached alone"])
        self.refuse("--ready-probe", "web=tcp", "-l", f"web={tcp},steering=cbpf", words=["can't be asked"])
        self.refuse("--ready-probe", "tcp", "--ready-alive", "1s", "-l", tcp, words=["ready.alive"])
        self.refuse("--ready-probe", "http:/a b", "-l", tcp, words=["blanks"])

    def test_options_that_can_not_act_are_errors_of_the_configuration(self):
        tcp, udp = f"tcp:127.0.0.1:{harness.free_port()}", f"udp:127.0.0.1:{harness.free_port()}"
        self.refuse("-l", f"{udp},steering=shared,flow_idle=5s", words=["flow_idle doesn't fit steering=shared"])
        self.refuse("-l", f"{udp},steering=shared,connection_id=8", words=["connection_id doesn't fit steering=shared"])
        self.refuse("-l", f"{tcp},per_worker", "--steering", "shared", words=["steering", "per_worker"])
        self.refuse("-l", f"{tcp},per_worker,steering=shared", words=["per_worker doesn't fit steering=shared"])
        self.refuse("-l", f"{udp},steering=cbpf", words=["steering=cbpf doesn't fit udp: addresses"])
        self.refuse("-l", f"{udp},connection_id=3", words=["connection_id"])


if __name__ == "__main__":
    harness.main(at_a_time=3)

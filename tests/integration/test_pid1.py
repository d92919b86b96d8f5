#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""As PID 1 of a container: orphans are reaped, TERM drains and ends with 0, no process remains."""

import os
import pathlib
import signal
import subprocess
import unittest

import harness

UNSHARE = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]


def can_unshare():
    return subprocess.run([*UNSHARE, "true"], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                          check=False).returncode == 0


class Container(harness.Gapless):
    """gapless as PID 1 of a PID namespace. `pid` stays that of unshare(1), which waits for it."""

    def __init__(self, case, arguments, **keywords):
        super().__init__(case, arguments, wrapper=UNSHARE, **keywords)
        # The pid outside of the one that is 1 inside.
        self.outside = harness.wait_until(self._first, "PID 1 of the namespace")
        self.namespace = os.stat(f"/proc/{self.outside}/ns/pid").st_ino

    def _first(self):
        for child in harness.children_of(self.pid):
            status = pathlib.Path(f"/proc/{child}/status").read_text()
            if any(line.split()[1:][-1] == "1" for line in status.splitlines() if line.startswith("NSpid:")):
                return child if harness.command_line(child)[1:2] == ["run"] else None
        return None

    def keeper_pid(self):
        return self.outside

    def signal(self, number):
        os.kill(self.outside, number)

    def inside(self):
        """Pids (outside) of all processes of the namespace."""
        found = []
        for name in os.listdir("/proc"):
            if name.isdigit():
                try:
                    if os.stat(f"/proc/{name}/ns/pid").st_ino == self.namespace:
                        found.append(int(name))
                except (FileNotFoundError, ProcessLookupError, PermissionError):
                    pass
        return found


@unittest.skipUnless(can_unshare(), "cannot make a PID namespace here")
class Pid1Test(harness.TestCase):
    def setUp(self):
        super().setUp()
        self.port = harness.free_port()
        self.listen = ["-l", f"tcp:127.0.0.1:{self.port}"]

    def contain(self, *arguments):
        container = Container(self, arguments)
        container.wait_serving(1)
        return container

    def test_it_is_pid_1_and_says_so(self):
        container = self.contain(*self.listen, *self.worker())
        self.assertEqual(container.status()["master"]["pid"], 1)
        self.assertEqual(self.dump()["ppid"], 1)

    def test_orphans_of_workers_are_reaped(self):
        container = self.contain(*self.listen, *self.worker("--orphans", "20"))
        harness.wait_until(lambda: len(container.inside()) == 3, lambda: f"keeper, master and worker alone: "
                           f"{[harness.command_line(pid) for pid in container.inside()]}")
        self.assert_no_zombies(container.outside)

    def test_upgrades_by_sighup_leave_nothing(self):
        container = self.contain(*self.listen, "-n", "2", "--", self.hello("one"))
        for _ in range(5):
            container.upgrade_by_hup()
        self.assertEqual(len(container.inside()), 4)

    def test_term_drains_ends_with_0_and_no_process_remains(self):
        container = self.contain(*self.listen, "-n", "2", "--", self.hello("one"))
        with harness.connect(("127.0.0.1", self.port)) as client:
            client.sendall(b"GET /slow?ms=2000 HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
            harness.wait_until(lambda: any(harness.established(self.port, pid) for pid in container.inside()),
                               "the request to be accepted")
            self.assertEqual(container.terminate(), 0)
            self.assertEqual(harness.read_answer(client)[0], 200)
        self.assertEqual(container.inside(), [])

    def test_second_term_ends_at_once_and_no_process_remains(self):
        container = self.contain(*self.listen, "--stop-grace", "60s", *self.worker("--ignore-term"))
        mark = container.log.mark()
        container.signal(signal.SIGTERM)
        container.log.wait("stop", after=mark)
        container.insist(signal.SIGTERM)
        self.assertEqual(container.inside(), [])

    def test_command_that_cannot_be_executed_gives_its_code(self):
        process = harness.Gapless(self, ["--", "/no/such/command"], wrapper=UNSHARE)
        self.assertEqual(process.wait_exit(), 127)

    def test_killed_master_is_back(self):
        container = self.contain(*self.listen, "--", self.hello("one"))
        master = container.wait_master()
        os.kill(master, signal.SIGKILL)
        container.wait_master(but=master)
        container.wait_serving(1)
        container.upgrade_by_hup()


if __name__ == "__main__":
    harness.main()

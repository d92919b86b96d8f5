#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""Towards systemd: what arrives at NOTIFY_SOCKET, from whom, and when."""

import socket
import struct

import harness


class ServiceManager:
    """The receiving end of sd_notify(3), which knows who sent each message."""

    def __init__(self, path):
        self.path = path
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self.socket.bind(path)
        self.socket.setblocking(False)
        self.messages = []  # (pid, {NAME: value})

    def receive(self):
        while True:
            try:
                data, ancillary, _, _ = self.socket.recvmsg(65536, socket.CMSG_SPACE(12) + socket.CMSG_SPACE(64))
            except BlockingIOError:
                return self.messages
            pid = struct.unpack("3i", ancillary[0][2][:12])[0] if ancillary else None
            self.messages.append((pid, dict(line.partition("=")[::2] for line in data.decode().splitlines())))

    def wait(self, name, value=None, after=0):
        """The index of the first message behind `after` that has the variable."""
        def found():
            for index, (_, fields) in enumerate(self.receive()):
                if index >= after and name in fields and value in (None, fields[name]):
                    return index + 1
            return None
        return harness.wait_until(found, lambda: f"{name}={value or ''} after {after} of {self.messages}") - 1


class ServiceManagerTest(harness.TestCase):
    def setUp(self):
        super().setUp()
        self.manager = ServiceManager(str(self.dir / "notify"))
        self.addCleanup(self.manager.socket.close)

    def under_systemd(self, *flags, **keywords):
        return self.start(*flags, env={"NOTIFY_SOCKET": self.manager.path, "SECRET": "of the manager"}, **keywords)

    def test_ready_reloading_ready_and_stopping_come_in_order_from_the_main_pid(self):
        gapless = self.under_systemd(*self.worker())
        ready = self.manager.wait("READY", "1")
        gapless.wait_serving(1)
        gapless.upgrade_by_hup()
        reloading = self.manager.wait("RELOADING", "1", after=ready + 1)
        self.assertGreater(int(self.manager.messages[reloading][1]["MONOTONIC_USEC"]), 0)
        again = self.manager.wait("READY", "1", after=reloading)
        self.assertEqual(gapless.terminate(), 0)
        self.manager.wait("STOPPING", "1", after=again)
        self.assertEqual({pid for pid, _ in self.manager.messages}, {gapless.pid})

    def test_ready_comes_after_a_failed_reload_too(self):
        server = self.write("server", f"#!/bin/sh\nexec {harness.WORKER} --dump {self.dir}/dump\n", 0o755)
        gapless = self.under_systemd("--", server)
        ready = self.manager.wait("READY", "1")
        gapless.wait_serving(1)
        self.write("server", "#!/bin/sh\nexit 1\n", 0o755)
        gapless.hup()
        reloading = self.manager.wait("RELOADING", "1", after=ready + 1)
        self.manager.wait("READY", "1", after=reloading)

    def test_nothing_is_ready_before_a_worker_is(self):
        gapless = self.under_systemd(*self.worker("--ready", "none"), )
        self.dump()
        gapless.log.wait("start|spawn")
        self.assertEqual([fields for _, fields in self.manager.receive() if "READY" in fields], [])

    def test_worker_s_own_messages_are_not_passed_up(self):
        gapless = self.under_systemd("-n", "2", *self.worker("--notify", "STATUS=the worker's own\nX_WORKER=1"))
        self.manager.wait("READY", "1")
        gapless.wait_serving(1)
        self.assertEqual(gapless.terminate(), 0)
        self.manager.wait("STOPPING", "1")
        for _, fields in self.manager.messages:
            self.assertNotIn("X_WORKER", fields)
            self.assertNotEqual(fields.get("STATUS"), "the worker's own")
        self.assertEqual(len([1 for _, fields in self.manager.messages if fields.get("READY") == "1"]), 1)

    def test_worker_speaks_to_a_socket_of_gapless_not_to_systemd_s(self):
        self.under_systemd(*self.worker())
        self.assertNotEqual(self.dump()["env"]["NOTIFY_SOCKET"], self.manager.path)

    def test_manager_that_does_not_read_stops_nothing(self):
        gapless = self.under_systemd(*self.worker())
        gapless.wait_serving(1)
        for _ in range(20):
            gapless.upgrade_by_hup()
        self.assertEqual(gapless.terminate(), 0)


if __name__ == "__main__":
    harness.main()

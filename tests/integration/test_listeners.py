#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""Each kind of listener is really reachable, across an upgrade too; one that can't be had is named."""

import contextlib
import json
import os
import pwd
import socket
import stat
import sys
import unittest

import exact
import harness


def ask_stream(address):
    with harness.connect(address) as client:
        client.sendall(b"hello\n")
        return json.loads(client.makefile().readline())


def ask_datagram(address, own=None):
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as client:
        client.settimeout(harness.PATIENCE)
        if own:
            client.bind(own)
        client.connect(address)
        client.send(b"hello")
        return json.loads(client.recv(65536))


def ask_seqpacket(path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
        client.settimeout(harness.PATIENCE)
        client.connect(path)
        client.send(b"hello")
        return json.loads(client.recv(65536))


def has_ipv6():
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::1", 0))
        return True
    return False


needs_ipv6 = unittest.skipUnless(has_ipv6(), "this host has no IPv6")

# Starts a command with the descriptors that ITS_FDS names as 3, 4, …, and LISTEN_FDS for them if LISTEN is set.
HAND_OVER = """
import os, sys
numbers = [os.dup(int(n)) for n in os.environ.pop("ITS_FDS").split(",")]
high = [os.dup2(n, 100 + i) for i, n in enumerate(numbers)]
os.closerange(3, 100)
for i, n in enumerate(high):
    os.dup2(n, 3 + i)
os.closerange(100, 100 + len(high))
if os.environ.pop("LISTEN", None):
    os.environ.update(LISTEN_FDS=str(len(high)), LISTEN_PID=str(os.getpid()))
os.execv(sys.argv[1], sys.argv[1:])
"""


class ListenersTest(harness.TestCase):
    def check(self, spec, ask):
        """Serves `spec`, asks generation 1 and, after an upgrade, generation 2."""
        gapless = self.serve("--drain-quiet", "50ms", "-l", spec, *self.worker())
        self.assertEqual(ask()["generation"], "1")
        gapless.upgrade_by_hup()
        self.assertEqual(ask()["generation"], "2")
        self.assertEqual(gapless.service()["listeners"][0]["steering"], exact.best_steering(spec))
        return gapless

    def test_tcp_ipv4(self):
        port = harness.free_port()
        self.check(f"tcp:127.0.0.1:{port}", lambda: ask_stream(("127.0.0.1", port)))

    @needs_ipv6
    def test_tcp_ipv6(self):
        port = harness.free_port(socket.AF_INET6)
        self.check(f"tcp:[::1]:{port}", lambda: ask_stream(("::1", port)))

    def test_tcp_by_name(self):
        port = harness.free_port()
        self.check(f"tcp:localhost:{port}", lambda: ask_stream(("localhost", port)))

    @needs_ipv6
    def test_tcp_port_alone_is_dual_stack(self):
        port = harness.free_port()
        self.check(f"tcp:{port}", lambda: ask_stream(("127.0.0.1", port)))
        self.assertEqual(ask_stream(("::1", port))["generation"], "2")

    @needs_ipv6
    def test_v6only_leaves_ipv4_alone(self):
        port = harness.free_port()
        self.check(f"tcp:[::]:{port},v6only", lambda: ask_stream(("::1", port)))
        with self.assertRaises(ConnectionRefusedError):
            ask_stream(("127.0.0.1", port))

    def test_udp_ipv4(self):
        port = harness.free_port(kind=socket.SOCK_DGRAM)
        self.check(f"udp:127.0.0.1:{port}", lambda: ask_datagram(("127.0.0.1", port)))

    @needs_ipv6
    def test_udp_ipv6(self):
        port = harness.free_port(socket.AF_INET6, socket.SOCK_DGRAM)
        self.check(f"udp:[::1]:{port}", lambda: ask_datagram(("::1", port)))

    def test_unix_stream_goes_away_with_gapless(self):
        path = str(self.dir / "s")
        gapless = self.check(f"unix:{path}", lambda: ask_stream(path))
        self.assertEqual(gapless.terminate(), 0)
        self.assertFalse(os.path.lexists(path))

    def test_unix_datagram(self):
        path, own = str(self.dir / "s"), str(self.dir / "client")

        def ask():
            with contextlib.suppress(FileNotFoundError):
                os.unlink(own)
            return ask_datagram(path, own)

        self.check(f"unix:{path},type=dgram", ask)

    def test_unix_seqpacket(self):
        path = str(self.dir / "s")
        self.check(f"unix:{path},type=seqpacket", lambda: ask_seqpacket(path))

    def test_unix_abstract(self):
        name = f"@gapless-test-{os.getpid()}"
        self.check(f"unix:{name}", lambda: ask_stream(name))

    def test_unix_mode(self):
        path = str(self.dir / "s")
        self.check(f"unix:{path},mode=0606", lambda: ask_stream(path))
        self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), 0o606)

    @unittest.skipUnless(os.getuid() == 0, "needs root")
    def test_unix_owner(self):
        path = str(self.dir / "s")
        self.check(f"unix:{path},owner=nobody", lambda: ask_stream(path))
        self.assertEqual(os.stat(path).st_uid, pwd.getpwnam("nobody").pw_uid)

    def test_socket_file_that_nobody_listens_at_is_replaced(self):
        path = str(self.dir / "s")
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(path)
        self.check(f"unix:{path}", lambda: ask_stream(path))

    def given(self, *sockets, listen=False):
        """Keywords for start(): gapless begins with these sockets as its descriptors 3, 4, …"""
        numbers = [each.fileno() for each in sockets]
        env = {"ITS_FDS": ",".join(map(str, numbers))}
        if listen:
            env["LISTEN"] = "1"
        return {"wrapper": [sys.executable, "-c", HAND_OVER], "pass_fds": numbers, "env": env}

    def bound(self):
        listener = socket.socket()
        self.addCleanup(listener.close)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        return listener

    def test_descriptor_by_number_is_taken_as_it_is(self):
        listener = self.bound()
        address = listener.getsockname()
        gapless = self.serve("-l", "fd:3", *self.worker(), **self.given(listener))
        listener.close()
        self.assertEqual(ask_stream(address)["generation"], "1")
        gapless.upgrade_by_hup()
        self.assertEqual(ask_stream(address)["generation"], "2")

    def test_listen_fds_of_gapless_itself_are_taken(self):
        first, second = self.bound(), self.bound()
        addresses = first.getsockname(), second.getsockname()
        gapless = self.serve("-l", "web=fd:3", "-l", "api=fd:4", *self.worker(), **self.given(first, second, listen=True))
        first.close()
        second.close()
        self.assertEqual([ask_stream(each)["fd"] for each in addresses], [3, 4])
        gapless.upgrade_by_hup()
        self.assertEqual([ask_stream(each)["generation"] for each in addresses], ["2", "2"])
        self.assertEqual(self.dump(2)["env"]["LISTEN_FDNAMES"], "web:api")

    # -- what can't be had is named, with 1, and nothing is started

    def refused(self, spec, *words):
        self.assert_cannot_start(self.start("-l", spec, *self.worker()), *words)

    def test_address_in_use_is_named_and_its_owner_serves_on(self):
        port = harness.free_port()
        self.serve("-l", f"tcp:127.0.0.1:{port}", *self.worker())
        (self.dir / "dump.1.0").unlink()
        self.refused(f"tcp:127.0.0.1:{port}", f"127.0.0.1:{port}", "another process")
        self.assertEqual(ask_stream(("127.0.0.1", port))["generation"], "1")

    def test_unix_path_in_use_is_named_and_its_owner_serves_on(self):
        path = str(self.dir / "s")
        self.serve("-l", f"unix:{path}", *self.worker())
        (self.dir / "dump.1.0").unlink()
        self.refused(f"unix:{path}", path)
        self.assertEqual(ask_stream(path)["generation"], "1")

    def test_directory_in_place_of_a_unix_socket_is_named_and_left_alone(self):
        path = self.dir / "directory"
        path.mkdir()
        self.refused(f"unix:{path}", str(path))
        self.assertTrue(path.is_dir())

    def test_file_in_place_of_a_unix_socket_is_named_and_left_alone(self):
        path = self.write("precious", "text")
        self.refused(f"unix:{path}", path)
        self.assertTrue(os.path.isfile(path))

    def test_missing_directory_of_a_unix_socket_is_named(self):
        self.refused(f"unix:{self.dir}/none/s", f"{self.dir}/none/s")

    def test_missing_owner_of_a_unix_socket_is_named_and_no_socket_is_left(self):
        path = str(self.dir / "s")
        self.refused(f"unix:{path},owner=no-such-user", "no-such-user")
        self.assertFalse(os.path.lexists(path))

    def test_descriptor_that_is_not_there_is_named(self):
        self.refused("fd:77", "fd:77")

    def test_address_that_is_not_of_this_host_is_named(self):
        self.refused("tcp:192.0.2.1:80", "192.0.2.1:80")


if __name__ == "__main__":
    harness.main()

#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""examples/kv: what it answers, and that its items and connections go on through whatever happens to it."""

import signal
import socket
import subprocess
import threading
import time

import harness
import kv


class ServerTest(harness.TestCase):
    """Without gapless."""

    def setUp(self):
        super().setUp()
        self.server = kv.Server(self, "--memory", "100m")

    def client(self):
        client = self.server.client()
        self.addCleanup(client.close)
        return client

    def test_all_commands(self):
        client = self.client()
        client.set(b"a", b"x\r\ny", flags=7)
        self.assertEqual(client.gets(b"a")[b"a"][:2], (7, b"x\r\ny"))
        self.assertEqual(client.ask(b"add a 0 0 1", b"1"), b"NOT_STORED")
        self.assertEqual(client.ask(b"add b 0 0 1", b"1"), b"STORED")
        self.assertEqual(client.ask(b"replace b 0 0 2", b"12"), b"STORED")
        self.assertEqual(client.ask(b"replace c 0 0 1", b"1"), b"NOT_STORED")
        self.assertEqual(client.ask(b"incr b 30"), b"42")
        self.assertEqual(client.ask(b"decr b 50"), b"0")
        self.assertEqual(client.ask(b"incr c 1"), b"NOT_FOUND")
        unique = client.gets(b"a")[b"a"][2]
        self.assertEqual(client.ask(b"cas a 0 0 1 %d" % unique, b"2"), b"STORED")
        self.assertEqual(client.ask(b"cas a 0 0 1 %d" % unique, b"3"), b"EXISTS")
        self.assertEqual(client.ask(b"cas c 0 0 1 %d" % unique, b"3"), b"NOT_FOUND")
        self.assertEqual(client.get(b"a", b"c", b"b"), {b"a": b"2", b"b": b"0"})
        self.assertEqual(client.ask(b"touch a 100"), b"TOUCHED")
        self.assertEqual(client.ask(b"delete a"), b"DELETED")
        self.assertEqual(client.ask(b"delete a"), b"NOT_FOUND")
        self.assertEqual(client.ask(b"verbosity 1"), b"OK")
        self.assertEqual(client.ask(b"version"), b"VERSION 1")
        stats = client.stats()
        self.assertEqual((stats["curr_items"], stats["curr_connections"], stats["cmd_touch"]), (1, 1, 1))
        self.assertEqual(client.ask(b"flush_all"), b"OK")
        self.assertEqual(client.get(b"b"), {})
        self.assertEqual(client.stats()["curr_items"], 0)
        client.send(b"get b\r\nquit\r\nget b\r\n")
        self.assertEqual(client.file.read(), b"END\r\n")

    def test_noreply_is_not_answered(self):
        client = self.client()
        client.send(b"set a 0 0 1 noreply\r\n1\r\nadd a 0 0 1 noreply\r\n2\r\nincr a 4 noreply\r\ndelete z noreply\r\n"
                    b"touch a 0 noreply\r\nflush_all 0 noreply\r\nset b 0 0 1 noreply\r\n5\r\n")
        self.assertEqual(client.get(b"a", b"b"), {b"b": b"5"})

    def test_errors_leave_the_connection_usable(self):
        client = self.client()
        self.assertEqual(client.ask(b"nonsense"), b"ERROR")
        self.assertEqual(client.ask(b"get " + b"k" * 251), b"CLIENT_ERROR bad command line format")
        client.set(b"k" * 250, b"1")
        self.assertEqual(client.ask(b"set a 0 0 x"), b"CLIENT_ERROR bad data chunk")
        self.assertEqual(client.ask(b"set a 0 0 2000000", b"x" * 2000000), b"SERVER_ERROR object too large for cache")
        client.set(b"a", b"x" * (1 << 20))
        self.assertEqual(client.get(b"a"), {b"a": b"x" * (1 << 20)})
        client.send(b"set a 0 0 1\r\nab\r\n")
        self.assertEqual(client.line(), b"CLIENT_ERROR bad data chunk")
        self.assertEqual(client.line(), b"ERROR")  # what was behind it
        self.assertEqual(client.ask(b"version"), b"VERSION 1")

    def test_line_without_end_ends_the_connection(self):
        client = self.client()
        client.send(b"g" * (65536 + 2))
        self.assertEqual(client.file.read(), b"CLIENT_ERROR line too long\r\n")

    def test_sizes_are_spelled_as_elsewhere_or_refused(self):
        for size, limit in (("3000000", 3000000), ("64k", 64 << 10), ("2m", 2 << 20), ("1G", 1 << 30), ("512MiB", 512 << 20)):
            with kv.Server(self, "--memory", size).client() as client:
                self.assertEqual(client.stats()["limit_maxbytes"], limit)
        for size in ("0", "-1", "x", "1x", "1mi", "1iB", ""):
            done = subprocess.run([harness.program("GAPLESS_KV"), "--port", "1", "--memory", size], capture_output=True, text=True,
                                  env=harness.environment(), timeout=harness.PATIENCE)
            self.assertEqual(done.returncode, 2, size)
            self.assertIn("a size", done.stderr)

    def test_memory_is_limited(self):
        client = self.client()
        stored = 0
        while client.ask(b"set k%d 0 0 1000000" % stored, b"x" * 1000000) == b"STORED":
            stored += 1
        self.assertEqual(stored, 104)  # of 100 MiB
        self.assertEqual(client.ask(b"set k 0 0 1000000", b"x" * 1000000), b"SERVER_ERROR out of memory storing object")
        self.assertEqual(client.ask(b"delete k0"), b"DELETED")
        client.set(b"k", b"x" * 1000000)

    def test_items_expire(self):
        client = self.client()
        begin = time.time()
        client.set(b"a", b"1", exptime=1)
        client.set(b"b", b"1", exptime=int(begin) + 2)
        client.set(b"c", b"1", exptime=-1)
        client.set(b"d", b"1")
        found = client.get(b"a", b"b", b"c", b"d")
        if time.time() < begin + 1:
            self.assertEqual(set(found), {b"a", b"b", b"d"})
        harness.wait_until(lambda: set(client.get(b"a", b"b", b"d")) == {b"d"}, "the items to expire")
        self.assertGreaterEqual(time.time(), begin + 1)
        # The sweep frees them, though nobody asks for them.
        harness.wait_until(lambda: client.stats()["curr_items"] == 1, "the sweep")

    def test_requests_come_in_any_pieces(self):
        client = self.client()
        request = b"set a 0 0 4\r\n\r\n\r\n\r\nget a\r\nset b 0 0 3 noreply\r\nxyz\r\nget b a\r\n"
        for byte in request:
            client.send(bytes([byte]))
        self.assertEqual(client.line(), b"STORED")
        self.assertEqual(client.values(), {b"a": (0, b"\r\n\r\n")})
        self.assertEqual(client.values(), {b"b": (0, b"xyz"), b"a": (0, b"\r\n\r\n")})

    def test_client_that_reads_late_is_answered_as_it_reads(self):
        """Of 100 MB of answers only little is in the server's memory."""
        client, other = self.client(), self.client()
        client.set(b"large", b"x" * 1000000)
        client.send(b"get large\r\n" * 100 + b"version\r\n")
        for _ in range(200):  # turns of its loop, enough for all of them
            other.ask(b"version")
        self.assertLess(other.stats()["cmd_get"], 50)
        for _ in range(100):
            self.assertEqual(len(client.values()[b"large"][1]), 1000000)
        self.assertEqual(client.line(), b"VERSION 1")

    def test_get_of_very_many_keys(self):
        client = self.client()
        names = [b"key%d" % i for i in range(6000)]
        client.send(b"".join(b"set %s 0 0 1000 noreply\r\n%s\r\n" % (name, name.ljust(1000)) for name in names))
        found = client.get(*names)
        self.assertEqual(list(found), names)
        self.assertTrue(all(found[name] == name.ljust(1000) for name in names))

    def test_greedy_client_does_not_hold_up_the_others(self):
        greedy, other = self.client(), self.client()
        flood = threading.Thread(target=greedy.send, args=(b"set a 0 0 1 noreply\r\n1\r\n" * 500000,))
        flood.start()
        seen = {other.stats()["cmd_set"] for _ in range(20)}
        flood.join(harness.PATIENCE)
        self.assertEqual(greedy.ask(b"version"), b"VERSION 1")
        self.assertEqual(greedy.stats()["cmd_set"], 500000)
        # They were answered in the midst of it.
        self.assertGreater(len(seen), 5)
        self.assertLess(max(seen), 500000)

    def test_client_that_sends_no_more_is_answered_first(self):
        client = self.client()
        client.send(b"set a 0 0 1\r\n1\r\n" + b"get a\r\n" * 5000 + b"get b")
        client.socket.shutdown(socket.SHUT_WR)
        self.assertEqual(client.file.read(), b"STORED\r\n" + b"VALUE a 0 1\r\n1\r\nEND\r\n" * 5000)

    def test_term_finishes_and_ends(self):
        client, idle = self.client(), self.client()
        self.assertEqual(idle.ask(b"version"), b"VERSION 1")
        client.send(b"set a 0 0 3\r\nab")
        self.server.process.send_signal(signal.SIGTERM)
        self.assertEqual(idle.file.read(), b"")  # closed, behind its grace
        client.send(b"c\r\n")
        self.assertEqual(client.line(), b"STORED")
        self.assertEqual(client.file.read(), b"")
        self.assertEqual(self.server.process.wait(harness.PATIENCE), 0)

    def test_load_is_answered_exactly(self):
        check = kv.Check(self, self.server.address, "--seconds", 3, "--pipeline", 4, "--cut", 20, "--verify",
                         "--value-size", "32-5000")
        status, report = check.report()
        self.assertEqual((status, kv.mistakes(report)), (0, {}), check.log.text())
        self.assertGreater(report["requests"], 2000)


class GaplessTest(harness.TestCase):
    def setUp(self):
        super().setUp()
        self.port = harness.free_port()
        self.address = ("127.0.0.1", self.port)

    def kv(self, version, *options, name="server"):
        """Puts a version of kv where the service's command is; its path."""
        return self.write(name, "#!/bin/sh\nexec %s --version-name %s %s\n" % (
            harness.program("GAPLESS_KV"), version, " ".join(map(str, options))), 0o755)

    def serve_kv(self, *options, **keywords):
        return self.serve("-l", f"cache=tcp:127.0.0.1:{self.port}", "--", self.kv(1, *options), **keywords)

    def test_load_is_answered_exactly(self):
        gapless = self.serve_kv("--memory", "100m")
        check = kv.Check(self, self.address, "--seconds", 3, "--verify", "--connections", 20)
        check.wait("loading")
        counts = gapless.service()["generations"][0]["workers"][0]
        status, report = check.report()
        self.assertEqual((status, kv.mistakes(report)), (0, {}), check.log.text())
        self.assertTrue(counts, counts)

    def test_stop_lets_clients_finish(self):
        gapless = self.serve_kv()
        client = kv.Client(self.address)
        self.addCleanup(client.close)
        client.set(b"a", b"1")
        client.send(b"set b 0 0 3\r\nab")
        gapless.signal(signal.SIGTERM)
        gapless.log.wait("stopping")
        client.send(b"c\r\n")
        self.assertEqual(client.line(), b"STORED")
        self.assertEqual(gapless.wait_exit(), 0)


if __name__ == "__main__":
    harness.main(at_a_time=3)

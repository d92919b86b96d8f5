#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""What native workers count for themselves is exact in `status --json`, whatever dies in between."""

import os
import pathlib
import signal
import socket

import harness

COUNTING = str(pathlib.Path(__file__).resolve().parent / "counting.py")
NUMBERS = ("connections", "in_flight", "requests", "bytes_in", "bytes_out")


class NativeCountTest(harness.TestCase):
    def begin(self, command, *options):
        self.port = harness.free_port()
        self.address = ("127.0.0.1", self.port)
        self.gapless = self.serve(*options, "-l", f"tcp:127.0.0.1:{self.port}", "--", command)

    def workers(self):
        return [worker for generation in (self.gapless.service() or {"generations": []})["generations"]
                for worker in generation["workers"]]

    def total(self, key):
        """Of all workers; None while one of them isn't known."""
        numbers = [worker[key] for worker in self.workers()]
        return sum(numbers) if numbers and None not in numbers else None

    def wait_total(self, **expected):
        """Waits until the workers say so."""
        harness.wait_until(lambda: all(self.total(key) == value for key, value in expected.items()),
                           lambda: f"{expected}; the workers are {self.workers()}")

    def load(self, *arguments):
        return harness.Load(self, *arguments, f"tcp:127.0.0.1:{self.port}/version")

    def kill_master(self):
        killed = self.gapless.wait_master()
        os.kill(killed, signal.SIGKILL)
        self.gapless.wait_master(but=killed)
        harness.wait_until(self.gapless.status, "the next master to answer")

    def test_nothing_has_happened_and_that_is_known(self):
        self.begin(self.hello("one"))
        self.assertEqual([{key: worker[key] for key in NUMBERS} for worker in self.workers()],
                         [dict.fromkeys(NUMBERS, 0)])
        tracker = self.gapless.service()["tracker"]
        self.assertEqual((tracker["name"], tracker["precision"]), ("native", "exact"))

    def test_under_load_every_answered_request_is_counted_once(self):
        self.begin(self.hello("one"), "-n", "2")
        load = self.load("--keepalive", "8", "--clients", "4", "--slow", "4", "--slow-time", "20ms")
        harness.wait_until(lambda: (self.total("requests") or 0) > 2000, "some load")
        self.assertGreater(self.total("connections"), 0)
        report = load.stop()
        self.assert_clean(report)
        self.wait_total(requests=report["answered"], in_flight=0, connections=0)
        harness.note(f"{report['answered']} requests")
        self.assertGreater(self.total("bytes_in"), 20 * report["answered"])
        self.assertGreater(self.total("bytes_out"), 20 * report["answered"])

    def test_a_slow_request_is_in_flight_from_its_first_byte_to_its_answer(self):
        self.begin(self.hello("one"))
        with harness.connect(self.address) as client:
            self.wait_total(connections=1, in_flight=0, requests=0)
            client.sendall(b"GET /slow?ms=%d HTTP/1.1\r\n" % harness.SLOW_MS)
            self.wait_total(connections=1, in_flight=1)
            client.sendall(b"Host: test\r\n\r\n")
            self.assertEqual(self.total("in_flight"), 1)
            self.assertEqual(harness.read_answer(client)[0], 200)
            self.wait_total(connections=1, in_flight=0, requests=1)
        self.wait_total(connections=0, in_flight=0, requests=1)

    def test_clients_that_abort_leave_nothing_in_flight(self):
        self.begin(self.hello("one"))
        for i in range(300):
            with harness.connect(self.address) as client:
                client.sendall(b"GET /slow?ms=50 HTTP/1.1\r\nHost: test\r\n\r\n"[:[0, 5, 99][i % 3]])
                if i % 2:
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.wait_total(connections=0, in_flight=0)
        before = self.total("requests")
        self.assertLessEqual(before, 200)
        for _ in range(10):
            harness.version_at(self.address)
        self.wait_total(connections=0, in_flight=0, requests=before + 10)

    def test_the_count_goes_on_when_the_master_is_killed(self):
        self.begin(self.hello("one"), "-n", "2")
        load = self.load("--keepalive", "4", "--interval", "1ms", "--clients", "2")
        for _ in range(5):
            self.kill_master()
            before = self.total("requests")
            harness.wait_until(lambda: (self.total("requests") or 0) > before, "more requests")
        report = load.stop()
        self.assert_clean(report)
        self.wait_total(requests=report["answered"], in_flight=0, connections=0)
        self.kill_master()
        self.wait_total(requests=report["answered"], in_flight=0, connections=0)

    def test_a_worker_that_is_killed_is_followed_by_one_from_zero(self):
        self.begin(self.hello("one"))
        for _ in range(5):
            harness.version_at(self.address)
        self.wait_total(requests=5)
        descriptors = harness.settled(lambda: len(harness.descriptors(self.gapless.keeper_pid())))
        killed = self.gapless.worker_pids()[0]
        with harness.connect(self.address) as client:
            client.sendall(b"GET /slow?ms=60000 HTTP/1.1\r\nHost: test\r\n\r\n")
            self.wait_total(in_flight=1)
            os.kill(killed, signal.SIGKILL)
        harness.wait_until(lambda: [w for w in self.workers() if w["state"] == "ready" and w["pid"] != killed],
                           "another worker")
        self.wait_total(requests=0, in_flight=0, connections=0)
        harness.version_at(self.address)
        self.wait_total(requests=1, in_flight=0, connections=0)
        harness.wait_until(lambda: len(harness.descriptors(self.gapless.keeper_pid())) == descriptors,
                           "no more descriptors than before: the page of the dead one is closed")

    def test_pages_end_with_their_workers(self):
        self.begin(self.hello("one"), "-n", "2")
        counts = lambda: {name: sum("memfd:gapless-counters" in what for what in harness.descriptors(pid).values())
                          for name, pid in (("keeper", self.gapless.keeper_pid()), ("master", self.gapless.master_pid()))}
        mapped = lambda: pathlib.Path(f"/proc/{self.gapless.master_pid()}/maps").read_text().count("gapless-counters")
        self.assertEqual((counts(), mapped()), ({"keeper": 2, "master": 0}, 2))
        self.gapless.upgrade_by_hup()
        harness.wait_until(lambda: (counts(), mapped()) == ({"keeper": 2, "master": 0}, 2),
                           lambda: f"two pages, not {counts()} and {mapped()}")
        self.kill_master()
        self.assertEqual((counts(), mapped()), ({"keeper": 2, "master": 0}, 2))

    def test_a_server_that_counts_by_hand(self):
        self.begin(harness.program("GAPLESS_BARE"))
        load = self.load("--clients", "4")
        harness.wait_until(lambda: (self.total("requests") or 0) > 500, "some load")
        report = load.stop()
        self.assert_clean(report)
        self.wait_total(requests=report["answered"], in_flight=0, connections=0)

    def test_a_client_in_another_language(self):
        self.begin(COUNTING)
        self.wait_total(**dict.fromkeys(NUMBERS, 0))
        for _ in range(3):
            self.talk(b"hello")
        self.wait_total(connections=0, in_flight=0, requests=3, bytes_in=15, bytes_out=24)
        with harness.connect(self.address) as client:
            client.sendall(b"half")
            self.wait_total(connections=1, in_flight=1, requests=4, bytes_in=19)
        self.wait_total(connections=0, in_flight=0, requests=4)
        self.gapless.upgrade_by_hup()
        self.wait_total(requests=0)

    def test_an_end_too_many_makes_requests_unknown_or_an_estimate(self):
        self.begin(COUNTING, "--tracker", "sock_diag")
        self.talk(b"hello")
        self.wait_total(requests=1, in_flight=0)
        self.talk(b"end twice")
        self.wait_total(connections=0, requests=None, in_flight=None, bytes_in=14)

    def talk(self, request):
        with harness.connect(self.address) as client:
            client.sendall(request)
            client.shutdown(socket.SHUT_WR)
            self.assertEqual(client.recv(100), b"counted\n")


if __name__ == "__main__":
    harness.main()

#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""kv_check itself: it finds every kind of mistake that a server makes, and none where there is none. (Which of them exactly it
calls what is told by tests/unit/test_kv_check.c.)"""

import contextlib
import socket
import threading
import time

import harness
import kv


class Memcached:
    """Enough of a memcached for the checker. It makes the mistake `fault` so many times, in the load."""

    def __init__(self, case, fault=None, times=1, fill=0):
        self.fault = fault
        self.lock = threading.Lock()
        self.items = {}  # key: (flags, value, the time when it is over)
        self.before = {}  # what the key had before
        self.writes = 0
        self.times = times
        self.fill = fill  # writes before the load
        self.made = []
        self.listener = socket.create_server(("127.0.0.1", harness.free_port()), backlog=100)
        self.address = self.listener.getsockname()
        case.started.append(self)
        threading.Thread(target=self._accept, daemon=True).start()

    def finish(self):
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        with contextlib.suppress(OSError), connection, connection.makefile("rb") as file:
            while line := file.readline():
                words = line.decode().split()
                value = file.read(int(words[4]) + 2)[:-2] if words[0] == "set" else None
                with self.lock:
                    answer = self._execute(words, value)
                if answer is None:
                    return
                connection.sendall(answer)

    def _mistake(self, fault, possible=True, key=None):
        """True, if this is the mistake to make; with a key once."""
        if self.fault != fault or len(self.made) == self.times or not possible or (key and key in self.made):
            return False
        self.made.append(key)
        return True

    def _execute(self, words, value):
        kind, key = words[0], words[1]
        loading = self.writes >= self.fill
        self.writes += kind != "get"
        if loading and self._mistake("close"):
            return None
        if loading and self._mistake("silence"):
            return b""
        if loading and self._mistake("error"):
            return b"SERVER_ERROR busy\r\n"
        item = self.items.get(key)
        if item and item[2] <= time.monotonic():
            item = None
        if kind == "set":
            return self._set(words, value, item, loading)
        if kind == "get":
            return self._get(key, item, loading)
        if not item:
            return b"NOT_FOUND\r\n"
        if kind == "delete":
            if not self._mistake("dropped delete", loading, key):
                self.before[key] = self.items.pop(key)
            return b"DELETED\r\n"
        number = int(item[1])
        amount = int(words[2]) * (2 if self._mistake("double incr", loading) else 1)
        if not self._mistake("dropped incr", loading):
            self.items[key] = (item[0], b"%d" % (number + amount), item[2])
        return b"%d\r\n" % (number + amount)

    def _set(self, words, value, item, loading):
        key, seconds = words[1], int(words[3])
        if self._mistake("dropped set", loading and item and not seconds, key):
            return b"STORED\r\n"
        if item:
            self.before[key] = item
        if self._mistake("early", seconds, key):
            seconds = 0.1
        if self._mistake("late", seconds, key):
            seconds = 2
        over = time.monotonic() + seconds if seconds else float("inf")
        self.items[key] = (int(words[2]), value, over)
        return b"STORED\r\n"

    def _get(self, key, item, loading):
        if self._mistake("lost", loading and item and item[2] == float("inf") and ":n" not in key, key):
            item = None
        if self._mistake("stale", loading and item and key in self.before and item[2] == float("inf"), key):
            item = self.before[key]
        if not item:
            return b"END\r\n"
        flags, value, _ = item
        if self._mistake("flipped bit", loading and ":n" not in key):
            value = value[:-1] + bytes([value[-1] ^ 1])
        return b"VALUE %s %d %d\r\n%s\r\nEND\r\n" % (key.encode(), flags, len(value), value)


class CheckTest(harness.TestCase):
    def check(self, fault, *options, times=1):
        """What the checker found with such a server, and its report."""
        server = Memcached(self, fault, times, fill=104)
        check = kv.Check(self, server.address, "--connections", 4, "--fill", 100, "--counters", 4, "--seconds", 3, "--ttl", 1,
                         "--tolerance", 200, "--rate", 600, "--verify", *options)
        status, report = check.report()
        found = kv.mistakes(report)
        self.errors = check.log.text()
        self.assertEqual(len(server.made), times if fault else 0, "the mistakes were not made")
        self.assertEqual(status, 1 if found else 0, report)
        return found, report

    def test_right_server_is_found_right(self):
        found, report = self.check(None)
        self.assertEqual(found, {}, self.errors)
        for kind in ("gets", "sets", "deletes", "incrs", "expired"):
            self.assertGreater(report[kind], 0)
        self.assertEqual(sum(report["latencies"].values()), report["load_requests"])
        self.assertEqual(sum(report["longest_gaps"].values()), 4)

    def test_writes_that_are_dropped(self):
        """One that is written again before it is read isn't seen, and needn't be."""
        found, _ = self.check("dropped set", "--mix", "get=80,set=20", times=10)
        self.assertEqual(set(found), {"stale"}, self.errors)

    def test_deletes_that_are_dropped(self):
        found, _ = self.check("dropped delete", "--mix", "get=70,set=10,delete=20", times=10)
        self.assertEqual(set(found), {"stale"}, self.errors)

    def test_items_that_are_lost(self):
        """At the next look they are there again: another mistake."""
        found, _ = self.check("lost", times=10)
        self.assertEqual(found.pop("lost"), 10, self.errors)
        self.assertLessEqual(set(found), {"stale"})

    def test_reads_that_are_stale(self):
        """At the next look there is a newer one than what is known by then."""
        found, _ = self.check("stale", "--mix", "get=50,set=50", times=10)
        self.assertEqual(found.pop("stale"), 10, self.errors)
        self.assertLessEqual(set(found), {"wrong"})

    def test_bit_that_is_flipped(self):
        found, _ = self.check("flipped bit")
        self.assertEqual(found, {"wrong": 1}, self.errors)

    def test_increment_that_is_made_twice(self):
        found, _ = self.check("double incr")
        self.assertGreater(found.pop("incr"), 0, self.errors)
        self.assertGreater(found.pop("wrong"), 0)
        self.assertEqual(found, {})

    def test_increment_that_is_dropped(self):
        found, _ = self.check("dropped incr", "--mix", "incr=1")
        self.assertLess(found.pop("incr"), 0, self.errors)
        self.assertEqual(found.pop("lost"), 1)
        self.assertLessEqual(set(found), {"stale"})

    def test_connection_that_is_closed(self):
        found, report = self.check("close")
        self.assertEqual(found.pop("closed"), 1, self.errors)
        self.assertIn("closed by the server", self.errors)

    def test_answer_that_never_comes(self):
        found, _ = self.check("silence", "--timeout", 1)
        self.assertEqual(found.pop("unanswered"), 1, self.errors)

    def test_answer_that_is_an_error(self):
        found, _ = self.check("error", "--mix", "get=1")
        self.assertEqual(found, {"wrong": 1}, self.errors)

    def test_item_that_is_over_too_early(self):
        found, _ = self.check("early", "--mix", "expiring=1", times=5)
        self.assertEqual(set(found), {"lost"}, self.errors)

    def test_item_that_is_over_too_late(self):
        found, _ = self.check("late", "--mix", "expiring=1", times=5)
        self.assertEqual(set(found), {"stale"}, self.errors)

    def test_connections_that_are_refused(self):
        check = kv.Check(self, ("127.0.0.1", harness.free_port()), "--connections", 3, "--seconds", 1)
        status, report = check.report()
        self.assertEqual((status, report["refused"], report["requests"]), (1, 3, 0))


if __name__ == "__main__":
    harness.main(at_a_time=3)

#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""What tools/test runs of the real keep-alive clients: that each of them counts what fails, and a few pairs, in which nothing does."""

import unittest
import unittest.mock

import compat
import harness
import keepalive
import kept_clients
from test_load_generator import Server, read_request, reset

UPGRADES = 3


class CountTest(harness.TestCase):
    """A server that ends kept connections in the worst moment, so many times: so many requests fail, by the client's own account."""

    ENDED, BEFORE = 40, 20
    ANSWER = b"HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok"

    def count(self, name):
        client = kept_clients.CLIENTS[name]
        if missing := client.missing():
            self.skipTest(missing)
        answered, ended = [], []

        def behave(connection, number):
            asked = 0
            while read_request(connection):
                asked += 1
                if asked == self.BEFORE and len(ended) < self.ENDED:  # a thread more or less: what counts is how many there were
                    ended.append(number)
                    return reset(connection) if number % 2 else None
                answered.append(number)
                connection.sendall(self.ANSWER)

        load = client.start(self, [Server(self, behave).target])
        harness.wait_until(lambda: len(ended) >= self.ENDED, "connections to be ended")
        beyond = len(answered) + 10 * kept_clients.KEPT
        harness.wait_until(lambda: load.check() or len(answered) >= beyond or client.finite, "more requests")
        _, counted = load.stop()
        self.assertEqual(sum(counted.failed.values()), len(ended), counted.failed)
        requests = len(answered) + len(ended)
        self.assertLessEqual(abs(requests - counted.attempted), kept_clients.KEPT)  # some count none that is under way at the end
        self.assertEqual(counted.by, {"ok"} if client.reads else set())
        harness.note(f"{counted} of {counted.attempted} failed")

    def test_gapless_load_counts_each(self):
        self.count("gapless-load")

    def test_wrk_counts_each(self):
        self.count("wrk")

    def test_each_is_counted_of_h2load(self):
        self.count("h2load")

    def test_each_that_ab_hides_is_counted(self):
        self.count("ab")

    def test_each_that_curl_repeats_is_counted(self):
        self.count("curl")

    def test_requests_counts_each(self):
        self.count("requests")

    def test_node_counts_each(self):
        self.count("node")

    def test_go_counts_each(self):
        self.count("Go")


class PairTest(unittest.TestCase):
    """Upgrades under busy clients that keep their connections, and no request fails."""

    def setUp(self):
        if reason := keepalive.why_not():
            self.skipTest(reason)

    def follow(self, server, client):
        # Who isn't told holds each upgrade up: that need not take 30 s.
        pair = keepalive.run(server, client, UPGRADES, {"timeout": "8s"})
        if pair.result.skipped:
            self.skipTest(pair.result.skipped)
        self.assertEqual(pair.result.wrong, "")
        harness.note(f"{pair.result.kept} of {pair.result.kept.attempted} requests failed")
        self.assertEqual(pair.result.kept.failed, {}, f"{pair.result.kept.attempted} requests")

    def test_no_request_of_gapless_load_fails_with_nginx(self):
        self.follow("nginx", "gapless-load")

    def test_no_request_of_requests_fails_with_nginx(self):
        self.follow("nginx", "requests")

    def test_no_request_of_gapless_load_fails_with_node(self):
        self.follow("node", "gapless-load")

    def test_no_request_of_requests_fails_with_node(self):
        self.follow("node", "requests")


class TableTest(unittest.TestCase):
    def test_each_server_has_its_recipe(self):
        self.assertEqual(list(keepalive.matrix()), [*keepalive.WAYS, keepalive.NATIVE])

    def test_exceptions_are_pairs_with_a_reason(self):
        for (server, client), (kinds, reason) in keepalive.EXCEPTIONS.items():
            self.assertIn(server, keepalive.matrix())
            self.assertIn(client, kept_clients.CLIENTS)
            self.assertTrue(kinds and reason)

    def test_a_failed_request_fails_the_pair_unless_that_kind_is_an_exception(self):
        result = compat.Result("nginx", "NGINX=", 1, kept=compat.Count(10, {"cut": 2}))
        pair = keepalive.Pair("nginx", "no such client", result)
        self.assertEqual((pair.state, pair.cell()), ("FAIL", "2 of 10"))
        with unittest.mock.patch.dict(keepalive.EXCEPTIONS, {("nginx", "no such client"): ({"cut"}, "it can't be helped")}):
            self.assertEqual((pair.state, pair.cell()), ("ok", "2 of 10*"))
            result.kept.failed["reset"] = 1
            self.assertEqual((pair.state, pair.cell()), ("FAIL", "3 of 10"))


if __name__ == "__main__":
    harness.main()

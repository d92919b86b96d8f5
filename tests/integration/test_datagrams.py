#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""The flows of datagrams and their server are right: nothing is counted where nothing is wrong, and what is done to the
datagrams is counted exactly."""

import pathlib
import re
import selectors
import signal
import socket
import threading

import datagrams
import harness

FLOWS = 50
QUIC = ("--connection-id", 8)
MOVING = ("--flow-life", "300:900", "--migrate")


def accept_queue(port):
    """How many connections wait to be accepted on 127.0.0.1."""
    line = re.search(rf"(?m)^ *\d+: 0100007F:{port:04X} 00000000:0000 0A \w+:(\w+) ",
                     pathlib.Path("/proc/net/tcp").read_text())
    return int(line[1], 16)


class Relay(threading.Thread):
    """Stands between the flows and their server. `treat(number, answer)` gives what becomes of each answer: a list of
    datagrams. Each flow keeps a port of its own."""

    def __init__(self, case, port, treat):
        super().__init__(daemon=True)
        self.server, self.treat, self.number = ("127.0.0.1", port), treat, 0
        self.front = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.front.bind(("127.0.0.1", harness.free_port(kind=socket.SOCK_DGRAM)))
        self.port = self.front.getsockname()[1]
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.front, selectors.EVENT_READ)
        self.wake, self.woken = socket.socketpair()
        self.selector.register(self.woken, selectors.EVENT_READ)
        self.behind = {}  # of each client
        case.started.append(self)
        self.start()

    def run(self):
        while True:
            for key, _ in self.selector.select():
                if key.fileobj is self.woken:
                    return
                if key.fileobj is self.front:
                    data, client = self.front.recvfrom(2048)
                    self.socket_for(client).send(data)
                else:
                    data = key.fileobj.recv(2048)
                    self.number += 1
                    for each in self.treat(self.number, data):
                        self.front.sendto(each, key.data)

    def socket_for(self, client):
        if client not in self.behind:
            self.behind[client] = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self.behind[client].connect(self.server)
            self.selector.register(self.behind[client], selectors.EVENT_READ, client)
        return self.behind[client]

    def finish(self):
        self.wake.close()
        self.join(harness.PATIENCE)
        self.selector.close()
        for each in (self.front, self.woken, *self.behind.values()):
            each.close()


class OneServerTest(datagrams.TestCase):
    def test_nothing_is_wrong(self):
        self.server(generation=7, worker=3)
        flows = self.flows("--flows", FLOWS, "--rate", 40, "--flow-life", "200:600")
        flows.wait(lambda report: report["flows_ended"] >= 2 * FLOWS, "flows to end and others to begin")
        report = flows.stop()
        self.assert_counts(report)
        self.assertEqual(report["flows_answered"], report["flows_begun"])
        self.assertEqual(report["workers"], {"7.3": {"flows": report["flows_begun"], "answers": report["sent"]}})
        self.assertEqual(report["generations"]["7"]["flows"], report["flows_begun"])

    def test_threads_of_a_server_know_the_same_flows(self):
        self.server("--threads", 4)
        flows = self.flows("--flows", FLOWS, "--rate", 40)
        flows.wait_more("answered", 100 * FLOWS)
        report = flows.stop()
        self.assert_counts({**report, "out_of_order": 0})  # one thread may be faster than another

    def test_connection_id_names_the_flow(self):
        self.server(*QUIC)
        flows = self.flows("--flows", FLOWS, "--rate", 40, *QUIC)
        flows.wait_more("answered", 10 * FLOWS)
        report = flows.stop()
        self.assert_counts(report)
        self.assertEqual(report["flows_answered"], FLOWS)

    def test_flow_that_moves_to_another_port_is_known_by_its_id(self):
        self.server("--connection-id", 20)
        flows = self.flows("--flows", FLOWS, "--rate", 40, "--connection-id", 20, *MOVING)
        flows.wait(lambda report: report["flows_migrated"] >= 2 * FLOWS, "flows to move")
        self.assert_counts(flows.stop())

    def test_id_of_another_length_is_no_answer(self):
        self.server("--connection-id", 5)
        flows = self.flows("--flows", 1, "--rate", 40, "--connection-id", 6)
        flows.wait(lambda report: report["malformed"] > 0, "an answer")
        report = flows.stop()
        self.assertEqual(report["answered"], 0)
        self.assertGreater(report["lost"], 0)

    def test_server_that_starts_again_has_forgotten(self):
        """The same generation and worker, and another process."""
        server = self.server()
        flows = self.flows("--flows", FLOWS, "--rate", 40)
        flows.wait(lambda report: report["flows_answered"] == FLOWS, "every flow to be answered")
        server.finish()
        self.server()
        flows.wait(lambda report: report["flows_misdelivered"] == FLOWS, "every flow to meet the other")
        report = flows.stop()
        self.assertEqual(report["misdelivered"], report["other_process"])

    def test_port_that_nobody_has_is_refused(self):
        flows = self.flows("--flows", 2, "--rate", 40)
        flows.wait(lambda report: report["refused"] > 0 and report["lost"] > 0, "refusals")
        report = flows.stop()
        self.assertEqual(report["lost"], report["sent"])
        self.assertEqual(report["flows_answered"], 0)

    def test_inherited_sockets_are_served(self):
        second = harness.free_port(kind=socket.SOCK_DGRAM)
        self.serve("-l", f"udp:127.0.0.1:{self.port}", "-l", f"b=udp:127.0.0.1:{second}", "--",
                   harness.program("GAPLESS_DATAGRAMS"), "serve")
        for port in self.port, second:
            flows = self.flows("--flows", FLOWS, "--rate", 40, port=port)
            flows.wait_more("answered", 10 * FLOWS)
            report = flows.stop()
            self.assert_counts(report)
            self.assertEqual(list(report["workers"]), ["1.0"])


class TwoServersTest(datagrams.TestCase):
    """Two generations on one address, and nobody who steers: the kernel chooses by a hash of the addresses."""

    def setUp(self):
        super().setUp()
        self.servers = [self.server(*QUIC, generation=generation) for generation in (1, 2)]

    def both_have_some(self, report):
        return len(report["generations"]) == 2 and report["flows_answered"] >= FLOWS

    def test_kill_of_one_loses_what_waits_for_it_and_moves_its_flows(self):
        flows = self.flows("--flows", FLOWS, "--rate", 40)
        before = flows.wait(self.both_have_some, "both to answer")
        self.assert_counts(before)
        self.servers[0].signal(signal.SIGSTOP)
        flows.wait_more("sent", 3 * FLOWS)
        self.servers[0].signal(signal.SIGKILL)
        flows.wait(lambda report: report["flows_misdelivered"] == before["generations"]["1"]["flows"], "its flows to move")
        report = flows.stop()
        self.assertGreaterEqual(report["lost"], before["generations"]["1"]["flows"])
        self.assertEqual(report["misdelivered"], report["other_generation"])
        self.assertEqual(sum(each["answers"] for each in report["generations"].values()), report["answered"])

    def test_hash_of_addresses_keeps_what_does_not_move(self):
        flows = self.flows("--flows", FLOWS, "--rate", 40, *QUIC)
        flows.wait(lambda report: self.both_have_some(report) and report["answered"] >= 20 * FLOWS, "both to answer")
        self.assert_counts(flows.stop())

    def test_hash_of_addresses_loses_what_moves(self):
        flows = self.flows("--flows", FLOWS, "--rate", 40, *QUIC, *MOVING)
        flows.wait(lambda report: report["flows_migrated"] >= 2 * FLOWS, "flows to move")
        report = flows.stop()
        self.assert_counts(report, misdelivered=report["other_generation"])
        # Each moves to the other with a chance of one half.
        self.assertGreater(report["flows_misdelivered"], report["flows_migrated"] // 4)
        self.assertLess(report["flows_misdelivered"], report["flows_migrated"] * 3 // 4)


class CountsTest(datagrams.TestCase):
    """Every hundredth answer comes to harm on its way."""

    def flows_through(self, treat):
        """The report, and how many were harmed."""
        harmed = []

        def treat_some(number, data):
            if number % 100:
                return [data]
            harmed.append(number)
            return treat(data)

        self.server()
        relay = Relay(self, self.port, treat_some)
        flows = self.flows("--flows", FLOWS, "--rate", 40, port=relay.port)
        flows.wait_more("sent", 1000)
        report = flows.stop()
        self.assertGreaterEqual(len(harmed), 5)
        return report, len(harmed)

    def test_answers_that_do_not_come_are_lost(self):
        report, harmed = self.flows_through(lambda data: [])
        self.assert_counts(report, lost=harmed)

    def test_answers_that_come_twice(self):
        report, harmed = self.flows_through(lambda data: [data, data])
        self.assertEqual(report["lost"], 0)
        # A flow that has ended and has all its answers doesn't wait for more.
        self.assert_counts(report, duplicates=report["duplicates"])
        self.assertIn(report["duplicates"], (harmed, harmed - 1))

    def test_what_is_no_answer(self):
        report, harmed = self.flows_through(lambda data: [b"nonsense", data])
        self.assert_counts(report, malformed=harmed)

    def test_answers_that_overtake_each_other(self):
        held, overtaken = {}, []

        def treat(number, data):
            flow = data[16:24]
            if flow in held:  # the next one of this flow: before the one that was held
                overtaken.append(number)
                return [data, held.pop(flow)]
            if number % 100 == 0 and number < 1000:
                held[flow] = data
                return []
            return [data]

        self.server()
        relay = Relay(self, self.port, treat)
        flows = self.flows("--flows", 10, "--rate", 40, port=relay.port)
        flows.wait(lambda report: relay.number > 1200 and not held, "answers")
        self.assert_counts(flows.stop(), out_of_order=len(overtaken))
        self.assertGreaterEqual(len(overtaken), 5)


class ExactTest(harness.TestCase):
    """What the exact server says of itself to those who steer."""

    def test_answers_name_the_generation(self):
        port = harness.free_port()
        gapless = self.serve("-l", f"tcp:127.0.0.1:{port}", "--", harness.program("GAPLESS_EXACT"), "threads")
        self.assertEqual(harness.http_get(("127.0.0.1", port), "/generation"), (200, "1\n"))
        gapless.upgrade_by_hup()
        with harness.connect(("127.0.0.1", port)) as client:
            client.sendall(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n")
            self.assertTrue(re.search(rb"\r\nX-Generation: 2\r\n", client.makefile("rb").read()))

    def test_deaf_one_leaves_connections_in_the_queue(self):
        port = harness.free_port()
        self.serve("-l", f"tcp:127.0.0.1:{port}", "--", harness.program("GAPLESS_EXACT"), "deaf")
        clients = [harness.connect(("127.0.0.1", port)) for _ in range(20)]
        self.assertEqual(accept_queue(port), 20)
        for client in clients:
            client.close()


if __name__ == "__main__":
    harness.main()

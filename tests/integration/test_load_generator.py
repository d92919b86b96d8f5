#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""gapless-load itself: whatever a server does wrong ends in the right column, with the exact count, and what it does
right is never called a failure."""

import contextlib
import json
import os
import pathlib
import resource
import shutil
import signal
import socket
import struct
import subprocess
import threading
import time

import harness

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
OK_CLOSE = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"


def read_request(connection):
    """The next request, b"" if the client closed instead."""
    data = b""
    while not data.endswith(b"\r\n\r\n"):
        more = connection.recv(65536)
        if not more:
            return b""
        data += more
    return data


def reset(connection):
    """Closes with RST."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


class Server:
    """Accepts until it is finished and gives each connection to `behave(connection, number)`, in a thread."""

    def __init__(self, case, behave, path=None, backlog=1000):
        if path:
            self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.listener.bind(str(path))
            self.target = f"unix:{path}"
        else:
            self.listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self.listener.bind(("127.0.0.1", harness.free_port()))
            self.target = "tcp:127.0.0.1:%d" % self.listener.getsockname()[1]
        self.listener.listen(backlog)
        self.behave = behave
        self.accepted = 0
        self.over = threading.Event()  # set at the end: what waits for nothing else waits for it
        case.started.append(self)
        if behave:
            threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                self.accepted += 1
                threading.Thread(target=self._serve, args=(connection, self.accepted), daemon=True).start()

    def _serve(self, connection, number):
        with contextlib.suppress(OSError), connection:
            self.behave(connection, number)

    def finish(self):
        self.over.set()
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


class GeneratorTest(harness.TestCase):
    def start_load(self, *arguments, **keywords):
        """gapless-load with a JSON report, as a process that the case ends if it must."""
        self.report_path = self.dir / "report.json"
        process = subprocess.Popen([harness.program("GAPLESS_LOAD"), "--json", str(self.report_path), *map(str, arguments)],
                                   stdin=keywords.pop("stdin", subprocess.DEVNULL), stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, text=True, **keywords)
        process.finish = lambda: (process.kill(), process.communicate())
        self.started.append(process)
        return process

    def end_load(self, process, status=0):
        """Waits for its end; the report."""
        self.output, self.errors = process.communicate(timeout=harness.PATIENCE)
        self.assertEqual(process.returncode, status, self.output + self.errors)
        return json.loads(self.report_path.read_text())

    def load(self, *arguments, status=0, **keywords):
        return self.end_load(self.start_load(*arguments, **keywords), status)

    def assert_outcomes(self, report, **expected):
        """These outcomes and no others; and the sums agree with them."""
        found = {outcome: count for outcome, count in report["outcomes"].items() if count}
        self.assertEqual(found, expected, report["first_failures"])
        self.assertEqual(report["attempted"], sum(expected.values()))
        self.assertEqual(report["answered"], expected.get("answered", 0))
        ours = expected.get("local", 0) + expected.get("abandoned", 0)
        self.assertEqual(report["failed"], report["attempted"] - report["answered"] - ours)
        self.assertEqual(report["local_errors"], ours)
        self.assertEqual(sum(target["attempted"] for target in report["targets"]), report["attempted"])
        self.assertEqual(report["latency_ms"]["count"], sum(report["statuses"].values()))


class RefusalTest(GeneratorTest):
    def codes(self, report):
        return {(error["outcome"], error["errno"]): error["count"] for error in report["errors"]}

    def test_tcp_port_without_listener(self):
        report = self.load("--clients", 3, "--requests", 30, f"tcp:127.0.0.1:{harness.free_port()}", status=1)
        self.assert_outcomes(report, refused=30)
        self.assertEqual(self.codes(report), {("refused", "ECONNREFUSED"): 30})
        self.assertEqual(report["connections"]["opened"], 0)

    def test_unix_path_that_is_not_there(self):
        report = self.load("--clients", 1, "--requests", 5, f"unix:{self.dir}/none", status=1)
        self.assert_outcomes(report, refused=5)
        self.assertEqual(self.codes(report), {("refused", "ENOENT"): 5})

    def test_unix_path_that_nobody_listens_on(self):
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(str(self.dir / "left"))
        report = self.load("--clients", 1, "--requests", 5, f"unix:{self.dir}/left", status=1)
        self.assert_outcomes(report, refused=5)
        self.assertEqual(self.codes(report), {("refused", "ECONNREFUSED"): 5})

    def test_unix_queue_that_is_full(self):
        server = Server(self, None, self.dir / "full", backlog=2)
        report = self.load("--rate", 1000, "--requests", 10, "--timeout", "200ms", server.target, status=1)
        self.assert_outcomes(report, refused=7, timeout_answer=3)
        self.assertEqual(self.codes(report), {("refused", "EAGAIN"): 7})

    def test_tcp_queue_that_is_full(self):
        server = Server(self, None, backlog=0)
        filler = [harness.connect(server.listener.getsockname())]
        report = self.load("--rate", 100, "--requests", 5, "--timeout", "300ms", server.target, status=1)
        for each in filler:
            each.close()
        self.assert_outcomes(report, timeout_connect=5)

    def test_closed_loop_pauses_after_a_refusal(self):
        report = self.load("--clients", 2, "--retry", "100ms", "--duration", "1s", f"unix:{self.dir}/none", status=1)
        self.assertLessEqual(report["attempted"], 22)  # at 0, 100 ms, … and 1 s
        self.assertGreaterEqual(report["attempted"], 10)


class AnswerTest(GeneratorTest):
    def check(self, behave, count=12, arguments=("--clients", 3), **expected):
        """Both over TCP and over a Unix socket; the report of the latter."""
        for path in None, self.dir / f"web{len(self.started)}.sock":
            server = Server(self, behave, path)
            status = 0 if set(expected) == {"answered"} else 1
            report = self.load(*arguments, "--requests", count, server.target, status=status)
            self.assert_outcomes(report, **expected)
        return report

    def answer_with(self, *pieces, end=socket.socket.close):
        def behave(connection, number):
            read_request(connection)
            for piece in pieces:
                connection.sendall(piece)
            end(connection)
        return behave


class BrokenAnswerTest(AnswerTest):
    def test_closed_without_an_answer(self):
        self.check(self.answer_with(), closed_unanswered=12)

    def test_reset_without_an_answer(self):
        server = Server(self, self.answer_with(end=reset))
        report = self.load("--clients", 3, "--requests", 12, server.target, status=1)
        self.assert_outcomes(report, reset=12)
        self.assertEqual(report["errors"], [{"outcome": "reset", "errno": "ECONNRESET", "count": 12}])

    def test_closed_before_the_request_was_read(self):
        """A Unix socket that is closed with something unread gives ECONNRESET; TCP sends RST."""
        def behave(connection, number):
            connection.recv(1, socket.MSG_PEEK)
        self.check(behave, reset=12)

    def test_closed_in_the_head(self):
        self.check(self.answer_with(b"HTTP/1.1 200 OK\r\nContent-"), cut_mid_answer=12)

    def test_closed_in_the_body(self):
        self.check(self.answer_with(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n12345678"), cut_mid_answer=12)

    def test_closed_before_the_last_chunk(self):
        self.check(self.answer_with(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n"), cut_mid_answer=12)

    def test_reset_in_the_body(self):
        server = Server(self, self.answer_with(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n1", end=reset))
        report = self.load("--clients", 1, "--requests", 6, server.target, status=1)
        self.assert_outcomes(report, cut_mid_answer=6)

    def test_reset_in_a_body_that_ends_with_the_connection(self):
        server = Server(self, self.answer_with(b"HTTP/1.1 200 OK\r\n\r\n12345", end=reset))
        report = self.load("--clients", 1, "--requests", 6, server.target, status=1)
        self.assert_outcomes(report, cut_mid_answer=6)

    def test_no_answer(self):
        self.check(lambda connection, number: connection.recv(1 << 16) and connection.recv(1), count=4,
                   arguments=("--clients", 2, "--timeout", "200ms"), timeout_answer=4)

    def test_half_an_answer_in_time(self):
        def behave(connection, number):
            read_request(connection)
            connection.sendall(OK[:-1])
            connection.recv(1)
        self.check(behave, count=4, arguments=("--clients", 2, "--timeout", "200ms"), timeout_answer=4)

    def test_what_is_no_http(self):
        self.check(self.answer_with(b"SSH-2.0-OpenSSH_9.2p1\r\n"), malformed=12)

    def test_error_status_is_a_failure_unless_any_is_welcome(self):
        behave = self.answer_with(b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
        report = self.check(behave, error_status=12)
        self.assertEqual(report["statuses"], {"503": 12})
        report = self.check(behave, arguments=("--clients", 3, "--any-status"), answered=12)
        self.assertEqual(report["statuses"], {"503": 12})

    def test_every_third_is_reset(self):
        def behave(connection, number):
            read_request(connection)
            reset(connection) if number % 3 == 0 else connection.sendall(OK_CLOSE)
        server = Server(self, behave)
        report = self.load("--rate", 500, "--requests", 300, server.target, status=1)
        self.assert_outcomes(report, answered=200, reset=100)
        self.assertEqual(len(report["first_failures"]), 20)


class WholeAnswerTest(AnswerTest):
    def test_chunked(self):
        head = b"HTTP/1.1 200 OK\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
        self.check(self.answer_with(head, b"3\r\nabc\r\n", b"0\r\nTrailer: x\r\n\r\n"), answered=12)

    def test_byte_by_byte(self):
        self.check(self.answer_with(*[OK_CLOSE[i:i + 1] for i in range(len(OK_CLOSE))]), answered=12)

    def test_until_close(self):
        self.check(self.answer_with(b"HTTP/1.0 200 OK\r\n\r\n", b"body"), answered=12)

    def test_behind_interim_answers(self):
        self.check(self.answer_with(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\n", OK_CLOSE), answered=12)

    def test_large(self):
        body = b"x" * 3_000_000
        self.check(self.answer_with(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body), body), answered=12)

    def test_before_the_request_was_read(self):
        """The answer counts although RST follows it."""
        def behave(connection, number):
            connection.recv(1, socket.MSG_PEEK)
            connection.sendall(OK_CLOSE)
        self.check(behave, answered=12)

    def test_server_is_let_to_close_first(self):
        """So TIME_WAIT is the server's, and no port of the client's is spent. (Nobody waits for the last one.)"""
        waited = []

        def behave(connection, number):
            read_request(connection)
            connection.sendall(OK_CLOSE)
            connection.settimeout(0.05)
            with contextlib.suppress(TimeoutError):
                connection.recv(1)
                return
            waited.append(number)
        report = self.load("--clients", 1, "--requests", 6, Server(self, behave).target)
        self.assert_outcomes(report, answered=6)
        self.assertEqual(waited[:5], [1, 2, 3, 4, 5])

    def test_sources_are_spread(self):
        server = Server(self, self.answer_with(OK_CLOSE))
        seen = set()
        accept = server.behave
        server.behave = lambda connection, number: (seen.add(connection.getpeername()[0]), accept(connection, number))
        self.load("--clients", 1, "--requests", 12, "--source-addresses", 4, server.target)
        self.assertEqual(seen, {f"127.0.0.{last}" for last in range(1, 5)})


class KeepAliveTest(GeneratorTest):
    def keep(self, behave, requests, *arguments, status=0):
        server = Server(self, behave)
        report = self.load("--keepalive", 1, "--requests", requests, *arguments, server.target, status=status)
        return server, report

    def test_one_connection_carries_all(self):
        def behave(connection, number):
            while read_request(connection):
                connection.sendall(OK)
        server, report = self.keep(behave, 100)
        self.assert_outcomes(report, answered=100)
        self.assertEqual(server.accepted, 1)
        self.assertEqual(report["connections"],
                         {"opened": 1, "reused": 99, "told_to_close": 0, "idle_closed": 0, "idle_reset": 0, "unsolicited": 0})

    def test_close_is_honoured(self):
        def behave(connection, number):
            read_request(connection)
            connection.sendall(OK)
            read_request(connection)
            connection.sendall(OK_CLOSE)
        server, report = self.keep(behave, 20)
        self.assert_outcomes(report, answered=20)
        self.assertEqual(server.accepted, 10)
        self.assertEqual(report["connections"]["reused"], 10)
        self.assertEqual(report["connections"]["told_to_close"], 10)
        self.assertEqual(report["connections"]["idle_closed"], 0)

    def test_told_to_close_the_client_closes_first_and_at_once(self):
        """The server doesn't, as one that knows nothing of the close in its answer. The interval isn't waited for."""
        closed = []

        def behave(connection, number):
            read_request(connection)
            connection.sendall(OK_CLOSE[:-1])
            with self.assertRaises(BlockingIOError):  # not before the answer is whole
                connection.recv(1, socket.MSG_DONTWAIT)
            connection.sendall(OK_CLOSE[-1:])
            connection.settimeout(1)
            closed.append(connection.recv(1))
        server, report = self.keep(behave, 2, "--interval", "2s")
        self.assert_outcomes(report, answered=2)
        harness.wait_until(lambda: len(closed) == 2, lambda: f"the server to see both connections end: {closed}")
        self.assertEqual((server.accepted, closed), (2, [b"", b""]))
        self.assertEqual(report["connections"]["told_to_close"], 2)

    def test_an_http_1_0_answer_without_keep_alive_says_the_same(self):
        def behave(connection, number):
            read_request(connection)
            connection.sendall(OK.replace(b"HTTP/1.1", b"HTTP/1.0"))
            read_request(connection)
        server, report = self.keep(behave, 5)
        self.assert_outcomes(report, answered=5)
        self.assertEqual((server.accepted, report["connections"]["told_to_close"]), (5, 5))

    def cut(self, end):
        def behave(connection, number):
            read_request(connection)
            connection.sendall(OK)
            read_request(connection)
            end(connection)
        _, report = self.keep(behave, 20, status=1)
        self.assert_outcomes(report, answered=10, cut_reused=10)
        self.assertEqual(report["connections"]["opened"], 10)

    def test_closed_instead_of_a_second_answer(self):
        self.cut(lambda connection: connection.close())

    def test_reset_instead_of_a_second_answer(self):
        self.cut(reset)

    def test_cut_in_a_second_answer(self):
        def behave(connection, number):
            read_request(connection)
            connection.sendall(OK)
            read_request(connection)
            connection.sendall(OK[:-1])
        _, report = self.keep(behave, 20, status=1)
        self.assert_outcomes(report, answered=10, cut_mid_answer=10)

    def ended_between(self, end):
        def behave(connection, number):
            read_request(connection)
            connection.sendall(OK)
            end(connection)
        server, report = self.keep(behave, 6, "--interval", "300ms")
        self.assert_outcomes(report, answered=6)
        self.assertEqual(server.accepted, 6)
        return report["connections"]

    def test_closed_between_requests_is_no_failure(self):
        connections = self.ended_between(lambda connection: connection.close())
        self.assertEqual((connections["idle_closed"], connections["idle_reset"]), (5, 0))

    def test_reset_between_requests_is_no_failure(self):
        def end(connection):
            time.sleep(0.05)  # RST must not overtake the answer
            reset(connection)
        connections = self.ended_between(end)
        self.assertEqual((connections["idle_closed"], connections["idle_reset"]), (0, 5))

    def test_bytes_behind_an_answer_give_the_connection_up(self):
        def behave(connection, number):
            read_request(connection)
            connection.sendall(OK + b"more")
            read_request(connection)
        server, report = self.keep(behave, 5)
        self.assert_outcomes(report, answered=5)
        self.assertEqual(server.accepted, 5)
        self.assertEqual(report["connections"]["unsolicited"], 5)


class SlowAndIdleTest(GeneratorTest):
    def test_slow_request_comes_in_pieces(self):
        arrivals = []

        def behave(connection, number):
            data = b""
            while not data.endswith(b"\r\n\r\n"):
                data += connection.recv(65536)
                arrivals.append(time.monotonic())
            connection.sendall(OK_CLOSE)
        server = Server(self, behave)
        report = self.load("--slow", 1, "--requests", 1, "--slow-time", "600ms", "--slow-pieces", 4, server.target,
                           "--timeout", "150ms")
        self.assertEqual(report["outcomes"]["answered"], 1)
        self.assertEqual(len(arrivals), 4)
        self.assertGreaterEqual(arrivals[-1] - arrivals[0], 0.5)
        self.assertEqual(report["latency_ms"]["count"], 0)
        self.assertGreaterEqual(report["groups"]["slow"]["latency_ms"]["max"], 600)

    def test_slow_request_that_is_closed_in_the_middle(self):
        server = Server(self, lambda connection, number: connection.recv(1))
        report = self.load("--slow", 1, "--requests", 3, "--slow-time", "20s", server.target, status=1)
        self.assertEqual(report["outcomes"]["reset"] + report["outcomes"]["closed_unanswered"], 3)

    def test_slow_path_is_asked_by_slow_clients_alone(self):
        paths = []

        def behave(connection, number):
            paths.append(read_request(connection).split()[1])
            connection.sendall(OK_CLOSE)
        server = Server(self, behave)
        report = self.load("--slow", 1, "--slow-time", 0, "--slow-path", "/slow?ms=1", "--rate", 100, "--requests", 50,
                           server.target + "/quick")
        self.assertEqual(report["answered"], 50)
        self.assertEqual(paths.count(b"/slow?ms=1"), report["groups"]["slow"]["answered"])
        self.assertEqual(paths.count(b"/quick"), report["groups"]["rate"]["answered"])

    def idle(self, behave, *arguments, status=0):
        server = Server(self, behave)
        report = self.load("--idle", 5, "--duration", "500ms", *arguments, server.target, status=status)
        self.assertEqual(report["attempted"], 0)
        outcomes = {outcome: count for outcome, count in report["idle"]["outcomes"].items() if count}
        self.assertEqual(sum(outcomes.values()), report["idle"]["attempted"])
        return outcomes

    def test_idle_connections_are_held(self):
        self.assertEqual(self.idle(lambda connection, number: connection.recv(1)), {"held": 5})

    def test_idle_connection_closed_in_order_is_no_failure(self):
        def behave(connection, number):
            if number > 5:
                connection.recv(1)
        self.assertEqual(self.idle(behave), {"held": 5, "idle_closed": 5})

    def test_idle_connection_reset_is_a_failure(self):
        def behave(connection, number):
            reset(connection) if number <= 5 else connection.recv(1)
        self.assertEqual(self.idle(behave, status=1), {"held": 5, "reset": 5})


class RunTest(GeneratorTest):
    def test_stop_awaits_what_is_in_flight(self):
        asked, go = threading.Event(), threading.Event()

        def behave(connection, number):
            read_request(connection)
            asked.set()
            go.wait(harness.PATIENCE)
            connection.sendall(OK_CLOSE)
        server = Server(self, behave)
        process = self.start_load("--clients", 1, "--duration", "1h", server.target)
        self.assertTrue(asked.wait(harness.PATIENCE))
        process.terminate()
        self.assertIsNone(process.poll())
        go.set()
        report = self.end_load(process)
        self.assertEqual(report["stopped_by"], "signal")
        self.assertEqual(server.accepted, report["attempted"])
        self.assertEqual(report["answered"], report["attempted"])

    def test_second_signal_ends_at_once(self):
        asked = threading.Event()

        def behave(connection, number):
            read_request(connection)
            asked.set()
            connection.recv(1)
        server = Server(self, behave)
        process = self.start_load("--clients", 1, "--duration", "1h", "--timeout", "1h", server.target)
        self.assertTrue(asked.wait(harness.PATIENCE))
        process.send_signal(signal.SIGINT)
        deadline = time.monotonic() + harness.PATIENCE
        while process.poll() is None and time.monotonic() < deadline:
            process.send_signal(signal.SIGTERM)  # one that comes before the first was read is the same one
            time.sleep(0.01)
        self.assert_outcomes(self.end_load(process, 1), abandoned=1)

    def test_lack_of_descriptors_is_the_generators_own(self):
        def behave(connection, number):
            read_request(connection)
            connection.recv(1)
        server = Server(self, behave)
        report = self.load("--rate", 10000, "--requests", 100, "--timeout", "1s", server.target, status=1,
                           preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (32, 32)))
        opened = report["connections"]["opened"]
        self.assertLess(opened, 32)
        self.assert_outcomes(report, timeout_answer=opened, local=100 - opened)
        self.assertEqual({error["errno"] for error in report["errors"]}, {"EMFILE"})

    def test_marks_divide_the_answers(self):
        served = []

        def behave(connection, number):
            read_request(connection)
            connection.sendall(OK_CLOSE)
            served.append(number)
        server = Server(self, behave)
        process = self.start_load("--rate", 200, "--duration", "1h", "--marks-from-stdin", server.target,
                                  stdin=subprocess.PIPE)

        def say(line, answers):
            process.stdin.write(line + "\n")
            process.stdin.flush()
            wanted = len(served) + answers
            harness.wait_until(lambda: len(served) >= wanted, f"{answers} answers after {line}")
        say("begin upgrade", 20)
        say("end upgrade", 20)
        say("begin upgrade", 20)
        say("end nonsense", 1)
        say("what?", 1)
        say("end upgrade", 20)
        process.stdin.write("stop\n")
        report = self.end_load(process)
        self.assertEqual(report["stopped_by"], "stdin")
        self.assertEqual(report["bad_marks"], 2)
        self.assertEqual(len(self.errors.splitlines()), 2, self.errors)
        windows = report["windows"]
        self.assertEqual(windows["upgrade"]["times"], 2)
        self.assertEqual(windows["upgrade"]["answered"] + windows["outside"]["answered"], report["answered"])
        self.assertGreaterEqual(windows["upgrade"]["answered"], 35)
        self.assertGreaterEqual(windows["outside"]["answered"], 35)

    def test_longest_gap_is_seen(self):
        def behave(connection, number):
            read_request(connection)
            if 20 <= number < 120:
                time.sleep(max(0, pause_until[0] - time.monotonic()))
            elif number == 19:
                pause_until[0] = time.monotonic() + 0.5
            connection.sendall(OK_CLOSE)
        pause_until = [0]
        server = Server(self, behave)
        report = self.load("--rate", 200, "--duration", "1500ms", server.target)
        self.assertEqual(report["answered"], report["attempted"])
        self.assertGreater(report["longest_gap"]["ms"], 400)
        self.assertLess(report["longest_gap"]["ms"], 1000)

    def test_answers_are_counted_by_header_and_by_body(self):
        def behave(connection, number):
            read_request(connection)
            body = b"v%d\nrest" % (number % 3)
            connection.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\nX-Generation: %d\r\nContent-Length: %d\r\n\r\n%s" %
                               (number % 2, len(body), body))
        for option, expected in (["--by-body"], {"v0": 10, "v1": 10, "v2": 10}), (["--by-header", "x-generation"], {"0": 15, "1": 15}):
            report = self.load("--clients", 2, "--requests", 30, *option, Server(self, behave).target)
            self.assertEqual({value: each["count"] for value, each in report["by"].items()}, expected)

    def test_targets_share_the_load(self):
        def behave(connection, number):
            read_request(connection)
            connection.sendall(OK_CLOSE)
        servers = [Server(self, behave), Server(self, behave, self.dir / "web.sock")]
        report = self.load("--rate", 500, "--requests", 100, *(server.target for server in servers))
        self.assert_outcomes(report, answered=100)
        self.assertEqual([server.accepted for server in servers], [50, 50])
        self.assertEqual([target["answered"] for target in report["targets"]], [50, 50])
        self.assertEqual(report["schedule"]["begun"], 100)

    def test_json_on_standard_output_is_alone_there(self):
        result = subprocess.run([harness.program("GAPLESS_LOAD"), "--clients", "1", "--requests", "2", "--json", "-",
                                 f"unix:{self.dir}/none"], capture_output=True, text=True, timeout=harness.PATIENCE,
                                stdin=subprocess.DEVNULL)
        self.assertEqual(result.returncode, 1)
        self.assertEqual(json.loads(result.stdout)["attempted"], 2)

    def test_wrong_usage_is_one_line_and_2(self):
        for arguments in [], ["--rate"], ["--rate", "1"], ["--rate", "1", "tcp:192.0.2.1:80"], ["--nonsense"]:
            result = subprocess.run([harness.program("GAPLESS_LOAD"), *arguments], capture_output=True, text=True,
                                    timeout=harness.PATIENCE, stdin=subprocess.DEVNULL)
            self.assertEqual((result.returncode, result.stdout), (2, ""), arguments)
            self.assertEqual(len(result.stderr.splitlines()), 1, result.stderr)

    def test_marks_from_a_file_are_refused(self):
        with open("/dev/null", encoding="ascii") as null:
            result = subprocess.run([harness.program("GAPLESS_LOAD"), "--rate", "1", "--marks-from-stdin", "unix:@none"],
                                    stdin=null, capture_output=True, text=True, timeout=harness.PATIENCE)
        self.assertEqual(result.returncode, 2)
        self.assertIn("a pipe", result.stderr)


class NginxTest(GeneratorTest):
    """A server that counts for itself: the lines of its log are the answers that were counted here."""

    def setUp(self):
        super().setUp()
        nginx = shutil.which("nginx", path=os.environ["PATH"] + ":/usr/sbin")
        if not nginx:
            self.skipTest("there is no nginx")
        self.port = harness.free_port()
        temporary = "\n".join(f"{kind}_temp_path {self.dir}/{kind};" for kind in
                              ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        config = self.write("nginx.conf", f"""
daemon off; pid {self.dir}/nginx.pid; error_log {self.dir}/error.log; worker_processes 1;
events {{ worker_connections 4000; }}
http {{
    {temporary}
    log_format one "$connection $connection_requests $status"; access_log {self.dir}/access.txt one;
    keepalive_requests 100;
    server {{
        listen 127.0.0.1:{self.port} backlog=4096; listen unix:{self.dir}/web.sock backlog=4096;
        location / {{ return 200 "hello\\n"; }}
    }}
}}
""")
        log = open(self.dir / "nginx.log", "wb")
        self.addCleanup(log.close)
        self.nginx = subprocess.Popen([nginx, "-c", config], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.nginx.finish = self.stop_nginx
        self.started.append(self.nginx)
        self.targets = [f"tcp:127.0.0.1:{self.port}", f"unix:{self.dir}/web.sock"]
        harness.wait_until((self.dir / "nginx.pid").exists, "nginx to start")
        harness.wait_until(lambda: harness.http_get(("127.0.0.1", self.port))[0] == 200, "nginx to answer")

    def stop_nginx(self):
        if self.nginx.poll() is None:
            self.nginx.send_signal(signal.SIGQUIT)
            self.nginx.wait(harness.PATIENCE)

    def logged(self):
        """What nginx served, without the request of setUp()."""
        self.stop_nginx()
        return [line.split() for line in (self.dir / "access.txt").read_text().splitlines()][1:]

    def test_new_connections_are_those_that_nginx_served(self):
        report = self.load("--rate", 2000, "--clients", 4, "--duration", "1s", *self.targets)
        self.assert_outcomes(report, answered=report["attempted"])
        logged = self.logged()
        self.assertEqual(len(logged), report["answered"])
        self.assertEqual(len({line[0] for line in logged}), report["connections"]["opened"])

    def test_kept_connections_are_those_that_nginx_served(self):
        """nginx says close with the hundredth answer of each connection."""
        report = self.load("--keepalive", 4, "--requests", 5000, *self.targets)
        self.assert_outcomes(report, answered=5000)
        logged = self.logged()
        self.assertEqual(len(logged), 5000)
        self.assertEqual(len({line[0] for line in logged}), report["connections"]["opened"])
        self.assertEqual(sum(int(line[1]) > 1 for line in logged), report["connections"]["reused"])
        self.assertEqual(report["connections"]["idle_closed"], 0)


if __name__ == "__main__":
    harness.main()

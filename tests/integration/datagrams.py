# SPDX-License-Identifier: BSD-2-Clause
"""Flows of datagrams and their server, tests/helpers/datagrams: GAPLESS_DATAGRAMS names the program, datagrams.h is its
manual, and ledger.h says what a report holds."""

import json
import queue
import socket
import subprocess
import threading

import harness

WRONG = ("lost", "late", "duplicates", "out_of_order", "misdelivered", "malformed", "refused", "unsent")


class Server:
    """`datagrams serve` on a socket of its own, without any gapless; ready when it is made."""

    def __init__(self, case, port, *options, generation=1, worker=0):
        self.log = case.dir / f"server{len(case.started)}.log"
        notify = str(case.dir / f"notify{len(case.started)}")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready, open(self.log, "wb") as log:
            ready.bind(notify)
            ready.settimeout(harness.PATIENCE)
            self.process = subprocess.Popen(
                [harness.program("GAPLESS_DATAGRAMS"), "serve", "--bind", f"127.0.0.1:{port}", *map(str, options)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env=harness.environment({"NOTIFY_SOCKET": notify, "GAPLESS_GENERATION": generation,
                                         "GAPLESS_WORKER": worker}))
            case.started.append(self)
            if ready.recv(64) != b"READY=1":
                raise AssertionError("the server is not ready")

    def signal(self, number):
        self.process.send_signal(number)

    def finish(self):
        self.process.kill()
        self.process.wait(harness.PATIENCE)


class Flows:
    """`datagrams flows`, running until stop()."""

    def __init__(self, case, port, *options):
        self.log = harness.Log(case.dir / f"flows{len(case.started)}.log")
        with open(self.log.path, "wb") as log:
            self.process = subprocess.Popen(
                [harness.program("GAPLESS_DATAGRAMS"), "flows", "--to", f"127.0.0.1:{port}", "--until-stdin-closes",
                 *map(str, options)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, bufsize=1)
        case.started.append(self)
        self._lines = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self.process.stdout:
            self._lines.put(json.loads(line))
        self._lines.put(None)

    def _next(self):
        report = self._lines.get(timeout=harness.PATIENCE)
        if report is None:
            raise AssertionError(f"the flows ended: {self.log.text()}")
        return report

    def report(self):
        """The report so far."""
        self.process.stdin.write("report\n")
        return self._next()

    def wait(self, condition, what):
        """Waits until the report satisfies the condition, and returns it."""
        seen = {}

        def satisfied():
            seen["report"] = self.report()
            return condition(seen["report"]) and seen["report"]

        return harness.wait_until(satisfied, lambda: f"{what}; {seen}")

    def wait_more(self, key, more):
        """Waits until a count has grown by so much from now."""
        before = self.report()[key]
        return self.wait(lambda report: report[key] >= before + more, f"{more} more {key}")

    def stop(self):
        """Ends the flows; the report, whose books must balance."""
        self.process.stdin.close()
        report = self._next()
        if self.process.wait(harness.PATIENCE) != 0:
            raise AssertionError(f"the flows ended: {self.log.text()}")
        for left, right in ((report["sent"], report["answered"] + report["lost"]),
                            (report["flows_begun"], report["flows_ended"]), (report["waiting"], 0)):
            if left != right:
                raise AssertionError(f"{left} is not {right}: {report}")
        return report

    def finish(self):
        self.process.kill()
        self.process.wait(harness.PATIENCE)
        self._reader.join(harness.PATIENCE)
        self.process.stdout.close()
        if not self.process.stdin.closed:
            self.process.stdin.close()


class TestCase(harness.TestCase):
    """A case with a port for its server."""

    def setUp(self):
        super().setUp()
        self.port = harness.free_port(kind=socket.SOCK_DGRAM)

    def server(self, *options, **keywords):
        return Server(self, self.port, *options, **keywords)

    def flows(self, *options, port=None):
        return Flows(self, port or self.port, *options)

    def assert_counts(self, report, **expected):
        """Of what can go wrong, exactly this did."""
        self.assertEqual({key: report[key] for key in WRONG if report[key]}, expected, report)

# SPDX-License-Identifier: BSD-2-Clause
"""Real HTTP clients that keep their connections, as each of them counts what fails: 64 connections, and the next request as soon as an
answer is whole.

A `Client` is what a compat.Run takes for its clients: `start(run, targets)` puts load on, and what that gives has `enough(gapless)` and
`stop()`. Only requests that have ended are counted. How each of them counts, and what it would hide, is said with it.
"""

import functools
import json
import os
import re
import signal
import subprocess
import tempfile
import threading
import time

import compat
import harness

KEPT = 64
PER_CLIENT = 20  # requests that each generation gets from each client, about


def url_of(target):
    """http:// of a tcp: target, with a path."""
    address, _, path = target.removeprefix("tcp:").partition("/")
    return f"http://{address}/{path}"


class Process:
    """A program that runs until a signal, or by itself to its end; what it prints is in files of the run's directory."""

    def __init__(self, run, *argv, stop_signal=signal.SIGTERM):
        self.argv, self.stop_signal = list(map(str, argv)), stop_signal
        number = len(run.started)
        self.output, self.log = harness.Log(run.dir / f"client{number}.out"), harness.Log(run.dir / f"client{number}.log")
        with open(self.output.path, "wb") as out, open(self.log.path, "wb") as log:
            self.process = subprocess.Popen(self.argv, stdin=subprocess.DEVNULL, stdout=out, stderr=log, cwd=run.dir,
                                            env=harness.environment({"PATH": compat.PATH}))
        run.started.append(self)

    def has_ended(self):
        return self.process.poll() is not None

    def end(self, timeout=2 * harness.PATIENCE):
        """Waits for its own end; what it printed."""
        try:
            self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.argv[0]} did not end: {self.log.text()}") from None
        return self.output.text()

    def stop(self):
        if self.has_ended():
            raise AssertionError(f"{self.argv[0]} ended with {self.process.returncode}: {self.output.text()}{self.log.text()}")
        self.process.send_signal(self.stop_signal)
        return self.end()

    def finish(self):
        if not self.has_ended():
            self.process.kill()
        self.process.wait(harness.PATIENCE)


class Load:
    """Load that is on until stop(), which gives (nothing of new connections, the Count of kept ones)."""

    def __init__(self, least):
        self.least = least

    def check(self):
        """Raises where the client has ended, or can't go on."""

    def count(self):
        """Ends the load: the Count."""
        raise NotImplementedError

    def enough(self, gapless):
        """Waits until the generation that serves has had its share, by the tracker's count of what it answered."""
        def served():
            self.check()
            return (compat.requests_served(gapless) or 0) >= self.least

        harness.wait_until(served, lambda: f"{self.least} requests of the client to the generation that serves, "
                                           f"it has had {compat.requests_served(gapless)}")

    def stop(self):
        return compat.Count(), self.count()


class One(Load):
    """One process, from the beginning to the end."""

    def __init__(self, least, process, read):
        super().__init__(least)
        self.process, self.read = process, read

    def check(self):
        if self.process.has_ended():
            self.process.stop()

    def count(self):
        return self.read(self.process.stop())


def added(counts):
    total = compat.Count()
    for count in counts:
        total.attempted += count.attempted
        for kind, number in count.failed.items():
            total.failed[kind] = total.failed.get(kind, 0) + number
    return total


class Repeated(Load):
    """A program that makes so many requests and ends, run again and again, each time for some seconds: longer than a drain, since its end lets
    go of all connections."""

    FIRST, SECONDS = 2000, 5

    def __init__(self, least, begin, read):
        """`begin(requests)` gives a Process, `read(output)` a Count."""
        super().__init__(least)
        self.begin, self.read = begin, read
        self.counts, self.error, self.stopping = [], None, threading.Event()
        self.thread = threading.Thread(target=self._repeat, daemon=True)
        self.thread.start()

    def _repeat(self):
        requests = self.FIRST
        try:
            while not self.stopping.is_set():
                began = time.monotonic()
                process = self.begin(requests)
                self.counts.append(self.read(process.end()))
                requests = max(KEPT * 2, int(self.counts[-1].attempted * self.SECONDS / (time.monotonic() - began)))
        except Exception as error:  # pylint: disable=broad-except  (it is raised where the load is looked at)
            self.error = error

    def check(self):
        if self.error:
            raise AssertionError(f"the client: {self.error!r}")

    def count(self):
        self.stopping.set()
        self.thread.join(2 * harness.PATIENCE)
        self.check()
        return added(self.counts)


class Client:
    """`programs` have to be there. `reads`: it says who answered. `finite`: it comes to an end, and is begun again."""

    programs, reads, finite = [], True, False
    ask = staticmethod(compat.Http.ask)

    def missing(self):
        absent = [program for program in self.programs if not os.path.exists(program)]
        return f"{', '.join(absent)} is not installed (tools/setup --compat)" if absent else ""

    def start(self, run, targets):
        raise NotImplementedError


class GaplessLoad(Client):
    """The project's own generator, which is strict (docs/load.md)."""

    def __init__(self, *options, per_client=PER_CLIENT):
        self.options, self.per_client = options, per_client

    def start(self, run, targets):
        report = harness.Load(run, "--keepalive", KEPT, "--by-body", *self.options, targets[0])

        class Generator(Load):
            def count(self):
                return compat.count_of(report.stop())

        return Generator(KEPT * self.per_client)


class Program(Client):
    """A client of tests/compat/programs/ that prints its counts as JSON, and sends nothing twice."""

    def __init__(self, *command, programs):
        self.command, self.programs = command, list(programs)

    def argv(self):
        return [*self.command[:-1], compat.PROGRAMS / self.command[-1]]

    def start(self, run, targets):
        return One(KEPT * PER_CLIENT, Process(run, *self.argv(), url_of(targets[0]), KEPT), self._read)

    @staticmethod
    def _read(output):
        said = json.loads(output)
        return compat.Count(said["attempted"], said["failed"], 0, set(said["by"]))


class GoProgram(Program):
    def argv(self):
        return [self._compiled().name + "/client"]

    @functools.cache
    def _compiled(self):
        """The directory in which it is, for as long as we run."""
        directory = tempfile.TemporaryDirectory(prefix="gapless-")
        done = subprocess.run(["go", "build", "-o", directory.name + "/client", compat.PROGRAMS / self.command[-1]], check=False, timeout=120,
                              capture_output=True, text=True, env=harness.environment({"GO111MODULE": "off", "CGO_ENABLED": "0"}))
        if done.returncode:
            raise AssertionError(f"go build: {done.stderr}")
        return directory


class Wrk(Client):
    """It counts a connection that ends before its answer is whole as a read error, and one that ends between two requests as well."""

    programs, reads = ["/usr/bin/wrk"], False

    def start(self, run, targets):
        process = Process(run, "wrk", "-t", 2, "-c", KEPT, "-d", "1h", "--timeout", "30s", url_of(targets[0]), stop_signal=signal.SIGINT)
        return One(KEPT * PER_CLIENT, process, self._read)

    @staticmethod
    def _read(output):
        answered = int(re.search(r"(\d+) requests in ", output)[1])
        errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", output)
        failed = dict(zip(["connect", "read", "write", "timeout"], map(int, errors.groups()))) if errors else {}
        status = re.search(r"Non-2xx or 3xx responses: (\d+)", output)
        failed |= {"status": int(status[1])} if status else {}
        failed = {kind: count for kind, count in failed.items() if count}
        # A timeout of wrk, and a wrong status, is an answer that it counts among the requests.
        return compat.Count(answered + sum(count for kind, count in failed.items() if kind in ("connect", "read", "write")), failed)


class H2load(Client):
    """It gives a connection up that fails, and counts what it would have sent on it as failed: what was never started isn't counted here."""

    programs, reads, finite = ["/usr/bin/h2load"], False, True

    def start(self, run, targets):
        def begin(requests):
            return Process(run, "h2load", "--h1", "-t", 1, "-c", KEPT, "-n", requests, url_of(targets[0]))
        return Repeated(KEPT * PER_CLIENT, begin, self._read)

    @staticmethod
    def _read(output):
        total, started, done, succeeded, _, _, timeout = map(int, re.search(
            r"requests: (\d+) total, (\d+) started, (\d+) done, (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", output).groups())
        failed = {"cut": started - done - timeout, "timeout": timeout, "status": done - succeeded}
        if started == 0:  # it could not even connect
            failed, started = {"connect": total}, total
        return compat.Count(started, {kind: count for kind, count in failed.items() if count})


class Ab(Client):
    """HTTP/1.0 with `Connection: Keep-Alive`. It takes a kept connection that ends without an answer for a whole one and counts it as complete,
    so the heads of answers are counted here (-v 2). After an answer that doesn't say keep-alive it waits until the server closes."""

    programs, reads, finite = ["/usr/bin/ab"], False, True

    def start(self, run, targets):
        def begin(requests):
            return Process(run, "ab", "-k", "-q", "-r", "-l", "-v", 2, "-s", 60, "-c", KEPT, "-n", requests, url_of(targets[0]))
        return Repeated(KEPT * PER_CLIENT, begin, self._read)

    @staticmethod
    def _read(output):
        complete = int(re.search(r"^Complete requests: +(\d+)$", output, re.M)[1])
        # What it counts itself: a reset as two of them.
        own = re.search(r"\(Connect: (\d+), Receive: (\d+), Length: (\d+), Exceptions: (\d+)\)", output)
        failed = dict(zip(["connect", "reset"], map(int, own.groups()))) if own else {}
        heads = re.findall(r"^LOG: header received:\nHTTP/1\.[01] (\d)", output, re.M)
        failed["status"] = sum(first != "2" for first in heads)
        failed["hidden"] = complete - len(heads) - sum(failed.values()) + failed["status"]
        return compat.Count(complete, {kind: count for kind, count in failed.items() if count})


class Curl(Client):
    """64 of them, each with more URLs than it comes to ask. A request on a kept connection that ends without a byte of an answer is sent again,
    unseen: with --verbose it says so, and what was sent first is counted here as failed (`retried`)."""

    programs, reads = ["/usr/bin/curl"], False

    def start(self, run, targets):
        argv = ["curl", "--silent", "--verbose", "--max-time", "30", "--output", "/dev/null", "--write-out", "%{stderr}\n@%{http_code} %{exitcode} \n",
                url_of(targets[0]) + "?[1-1000000000]"]
        return CurlLoad(KEPT * PER_CLIENT, [CurlProcess(run, argv) for _ in range(KEPT)])


class CurlProcess:
    """Reads what its curl says as it says it, which is much."""

    ENDED = re.compile(rb"^@(\d+) (\d+) $|^\* Connection died, (retry)", re.M)

    def __init__(self, run, argv):
        self.counted = compat.Count()
        self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=run.dir,
                                        env=harness.environment({"PATH": compat.PATH}))
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()
        run.started.append(self)

    def _read(self):
        left = b""
        while data := self.process.stderr.read1(65536):
            lines, _, left = (left + data).rpartition(b"\n")
            for status, code, retried in self.ENDED.findall(lines):
                self.counted.attempted += 1
                kind = "retried" if retried else f"exit {code.decode()}" if code != b"0" else "" if status == b"200" else f"status {status.decode()}"
                if kind:
                    self.counted.failed[kind] = self.counted.failed.get(kind, 0) + 1

    def has_ended(self):
        return self.process.poll() is not None

    def finish(self):
        if not self.has_ended():
            self.process.kill()
        self.process.wait(harness.PATIENCE)
        self.thread.join(harness.PATIENCE)
        self.process.stderr.close()


class CurlLoad(Load):
    def __init__(self, least, processes):
        super().__init__(least)
        self.processes = processes

    def check(self):
        if any(process.has_ended() for process in self.processes):
            raise AssertionError("a curl has ended")

    def count(self):
        self.check()
        for process in self.processes:  # a request that is under way isn't counted
            process.process.terminate()
        for process in self.processes:
            process.process.wait(harness.PATIENCE)
            process.thread.join(harness.PATIENCE)
        return added(process.counted for process in self.processes)


CLIENTS = {
    "gapless-load": GaplessLoad(),
    "gapless-load, 500 ms": GaplessLoad("--interval", "500ms", per_client=2),
    "wrk": Wrk(),
    "h2load": H2load(),
    "ab": Ab(),
    "curl": Curl(),
    "requests": Program("/usr/bin/python3", "client.py", programs=["/usr/bin/python3", "/usr/lib/python3/dist-packages/requests"]),
    "node": Program("/usr/bin/node", "client.js", programs=["/usr/bin/node"]),
    "Go": GoProgram("client.go", programs=["/usr/bin/go"]),
}

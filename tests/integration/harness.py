# SPDX-License-Identifier: BSD-2-Clause
"""Drives the real `gapless` from the outside: starts it, reads its log, asks its status, looks at its processes.

A test file holds classes derived from `TestCase` and ends in `harness.main()`, which runs them and prints TAP, one line
a case. For work on one test: `GAPLESS=build/plain/gapless … tests/integration/test_upgrade.py UpgradeTest.test_name`;
KEEP=1 keeps the directory of each case.

Nothing here waits by the clock: `wait_until()` polls a condition to a deadline, and what was waited for is in the
message when the deadline passes. Whatever a case starts is ended by pid when the case ends.

The environment names the programs: GAPLESS, GAPLESS_LOAD, GAPLESS_HELLO, GAPLESS_BARE, GAPLESS_FAULTY. GAPLESS_SANITIZED=1 says that
they are built with sanitizers: deadlines are longer then, and figures of memory are not looked at.
"""

import concurrent.futures
import contextlib
import ctypes
import datetime
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import unittest

SANITIZED = os.environ.get("GAPLESS_SANITIZED") == "1"
# A deadline is for a broken program, not a measure of a slow machine.
PATIENCE = 60 if SANITIZED else 30
SLOW_MS = 4000 if SANITIZED else 2000  # of a request that is still in flight when an upgrade has switched, on a busy machine, too

# The server without libgapless that tests start as a worker.
WORKER = str(pathlib.Path(__file__).resolve().parent / "worker.py")

SANITIZER_REPORT = re.compile(
    r"ERROR: (Address|Leak|Thread)Sanitizer|runtime error:|AddressSanitizer:DEADLYSIGNAL|Assertion `.*' failed")

PR_SET_CHILD_SUBREAPER = 36
TCP_ESTABLISHED, TCP_LISTEN = 1, 10


def program(variable):
    """The program that an environment variable names; skips the case where there is none."""
    path = os.environ.get(variable)
    if not path:
        raise unittest.SkipTest(f"{variable} is not set")
    return os.path.abspath(path)


def wait_until(condition, what, timeout=None):
    """Polls until condition() is true and returns what it gave. `what` says what was waited for (text, or a function)."""
    deadline = time.monotonic() + (timeout or PATIENCE)
    pause = 0.001
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout or PATIENCE} s for {what() if callable(what) else what}")
        time.sleep(pause)
        pause = min(pause * 1.5, 0.05)


def settled(look):
    """What look() gives once it gives the same for a while: a number of descriptors to begin with, say, while the master may
    still hold the connection of the verb that asked last, or a pipe to what writes the history."""
    seen = []
    wait_until(lambda: seen.append(look()) or len(seen) >= 20 and all(each == seen[-1] for each in seen[-20:]),
               lambda: f"the same again and again: {seen[-20:]}")
    return seen[-1]


# ---- processes, seen through /proc ----


def stat_fields(pid):
    """The fields of /proc/PID/stat behind the name: [0] is the state, [1] the parent. None: there is no such process."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None


def is_alive(pid):
    """True for a process that exists and is no zombie."""
    fields = stat_fields(pid)
    return fields is not None and fields[0] not in "ZX"


def name_of(pid):
    """What the process calls itself; None: there is no such process."""
    try:
        return pathlib.Path(f"/proc/{pid}/comm").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return None


def parent_of(pid):
    fields = stat_fields(pid)
    return int(fields[1]) if fields else None


def children_of(pid):
    """Children of all threads, zombies included."""
    found = []
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            found += map(int, pathlib.Path(f"/proc/{pid}/task/{task}/children").read_text().split())
    except (FileNotFoundError, ProcessLookupError):
        pass
    return found


def descendants_of(pid):
    found, queue = [], [pid]
    while queue:
        below = children_of(queue.pop())
        found += below
        queue += below
    return found


def processor_time(pid):
    """User and system, in ticks, as proc(5) has them."""
    return stat_fields(pid)[11:13]


def zombies_below(pid):
    return [child for child in descendants_of(pid) if (stat_fields(child) or "?")[0] == "Z"]


def command_line(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")[:-1]
    except (FileNotFoundError, ProcessLookupError):
        return []


def descriptors(pid):
    """{descriptor: what it is}"""
    found = {}
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for name in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(FileNotFoundError):
                found[int(name)] = os.readlink(f"/proc/{pid}/fd/{name}")
    return found


def memory_kib(pid, key):
    """A figure of /proc/PID/smaps_rollup in KiB: "Rss", "Pss"."""
    for line in pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1])
    raise AssertionError(f"no {key} of process {pid}")


# ---- addresses and clients ----


_ports = set()
_ports_lock = threading.Lock()


def free_port(family=socket.AF_INET, kind=socket.SOCK_STREAM):
    """A port that was free a moment ago, that nobody else here was given, and that lies outside the range of outgoing connections,
    which would take it."""
    low = int(pathlib.Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    host = "::1" if family == socket.AF_INET6 else "127.0.0.1"
    start = 10000 + (os.getpid() * 37 + int(time.monotonic_ns() // 1000)) % max(low - 11000, 1)
    for port in range(start, low):
        with socket.socket(family, kind) as probe:
            with contextlib.suppress(OSError):
                probe.bind((host, port))
                with _ports_lock:
                    if port not in _ports:
                        _ports.add(port)
                        return port
    raise AssertionError("no free port")


def connect(address, timeout=None):
    """A connection to ("127.0.0.1", port), ("::1", port) or "/path" ("@name": abstract)."""
    if isinstance(address, str):
        client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        address = "\0" + address[1:] if address.startswith("@") else address
    else:
        client = socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET, socket.SOCK_STREAM)
    try:
        client.settimeout(timeout or PATIENCE)
        client.connect(address)
    except BaseException:
        client.close()
        raise
    return client


def tcp_sockets(port, state):
    """(inode, receive queue) of each socket with this local TCP port in a state of include/net/tcp_states.h; a listener's
    receive queue is the number of connections that wait there. By sock_diag(7): thousands of connections in TIME_WAIT,
    which other tests leave behind, don't slow it down as they do /proc/net/tcp."""
    sock_diag_by_family, dump, done, error = 20, 0x300, 3, 2
    found = []
    with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, 4) as diag:
        for family in (socket.AF_INET, socket.AF_INET6):
            # struct nlmsghdr, struct inet_diag_req_v2, of whose struct inet_diag_sockid only the source port is filled in
            diag.send(struct.pack("=IHHII", 72, sock_diag_by_family, 1 | dump, 0, 0) +
                      struct.pack("=BBBBI", family, socket.IPPROTO_TCP, 0, 0, 1 << state) +
                      struct.pack("!H", port) + bytes(46))
            kind = None
            while kind not in (done, error):
                data = diag.recv(65536)
                while data and kind not in (done, error):
                    size, kind = struct.unpack_from("=IH", data)
                    if kind == sock_diag_by_family:
                        # struct inet_diag_msg: idiag_rqueue, idiag_inode
                        queue, inode = struct.unpack_from("=I", data, 16 + 56)[0], struct.unpack_from("=I", data, 16 + 68)[0]
                        found.append((inode, queue))
                    data = data[(size + 3) & ~3:]
    return found


def established(port, pid=None):
    """True if a client is connected to this local TCP port (and accepted by the process `pid`)."""
    inodes = {inode for inode, _ in tcp_sockets(port, TCP_ESTABLISHED) if inode}  # 0: not accepted yet
    if pid is None:
        return bool(inodes)
    open_here = set(descriptors(pid).values())
    return any(f"socket:[{inode}]" in open_here for inode in inodes)


def read_answer(client):
    """Reads one HTTP answer that ends with the connection or its Content-Length. (status, body)"""
    data = b""
    while b"\r\n\r\n" not in data:
        more = client.recv(65536)
        if not more:
            raise AssertionError(f"connection closed in the middle of the head: {data!r}")
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    length = re.search(rb"(?im)^content-length:\s*(\d+)", head)
    while length is None or len(body) < int(length[1]):
        more = client.recv(65536)
        if not more:
            if length is not None:
                raise AssertionError(f"connection closed in the middle of the body: {body!r}")
            break
        body += more
    return int(head.split()[1]), body.decode()


def http_get(address, path="/", timeout=None):
    """(status, body) of one request on a connection of its own."""
    with connect(address, timeout) as client:
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n".encode())
        return read_answer(client)


def version_at(address):
    """The version and generation of examples/hello that answers there: ("one", 1)."""
    status, body = http_get(address, "/version")
    match = re.fullmatch(r"(\S+) generation (\d+)\n", body)
    if status != 200 or not match:
        raise AssertionError(f"{status} {body!r}")
    return match[1], int(match[2])


# ---- the log ----


class LogLine:
    """One line of gapless's log: level, message, fields. A line of a worker has no level."""

    _head = re.compile(r"(\d{4}-\d\d-\d\dT[\d:.]+Z) (debug|info|warning|error) (.*)$")
    _field = re.compile(r'(?:^| )([a-z_]+)=("(?:[^"\\]|\\.)*"|\S*)')

    def __init__(self, text):
        self.text = text
        self.level, self.message, self.fields = None, text, {}
        match = self._head.match(text)
        if not match:
            return
        self.level, rest = match[2], match[3]
        first = None
        for field in self._field.finditer(rest):
            first = field.start() if first is None else first
            value = field[2]
            self.fields[field[1]] = json.loads(value) if value.startswith('"') else value
        self.message = rest if first is None else rest[:first]

    def time(self):
        """When it was logged, as time.time()."""
        return datetime.datetime.fromisoformat(self._head.match(self.text)[1].replace("Z", "+00:00")).timestamp()

    def has(self, pattern, fields):
        """`pattern` (a regular expression) is found in the line, and the fields have these values."""
        return re.search(pattern, self.text) is not None and all(
            self.fields.get(key) == str(value) for key, value in fields.items())


class Log:
    """A file that a process appends to, as lines."""

    def __init__(self, path):
        self.path = pathlib.Path(path)

    def text(self):
        return self.path.read_text(errors="replace") if self.path.exists() else ""

    def lines(self, after=0):
        """The whole lines behind the first `after`."""
        return [LogLine(line) for line in self.text().split("\n")[:-1][after:]]

    def mark(self):
        """How many lines there are: `after` for what comes next."""
        return self.text().count("\n")

    def find(self, pattern, after=0, **fields):
        return [line for line in self.lines(after) if line.has(pattern, fields)]

    def wait(self, pattern, after=0, timeout=None, **fields):
        return wait_until(lambda: self.find(pattern, after, **fields),
                          f"a log line with {pattern!r} and {fields}", timeout)[0]


# ---- gapless ----


class Gapless:
    """A running `gapless run`. What it is told by flags alone has no observation window unless `observe` ("3s") or the flags
    say so: an upgrade is then over when the old generation has gone. A file (-c) says it itself."""

    def __init__(self, case, arguments, admin=None, env=None, cwd=None, wrapper=(), pass_fds=(), preexec=None,
                 history=None, observe=None):
        self.case = case
        self.number = len(case.started)
        self.admin = admin or str(case.dir / f"admin{self.number}.sock")
        self.history = history  # its file; None: off
        self.log = Log(case.dir / f"gapless{self.number}.log")
        self.output = Log(case.dir / f"gapless{self.number}.out")
        argv = [*wrapper, program("GAPLESS"), "run", "--admin", self.admin, "--history", self.history or "off",
                *self._observed(list(map(str, arguments)), observe)]
        with open(self.output.path, "ab") as out, open(self.log.path, "ab") as log:
            self.process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=out, stderr=log, cwd=cwd or case.dir,
                env=environment(env), pass_fds=pass_fds, preexec_fn=preexec, start_new_session=True)
        self.pid = self.process.pid
        case.started.append(self)

    @staticmethod
    def _observed(arguments, observe):
        flags = arguments[:arguments.index("--")] if "--" in arguments else arguments
        if any(flag == "-c" or flag.startswith(("--observe-window", "--preset")) for flag in flags):
            return arguments
        return ["--observe-window", observe or "0", *arguments]

    # -- what it says of itself

    def verb(self, *arguments, timeout=None):
        """Runs `gapless VERB --admin … ARGUMENTS`; subprocess.CompletedProcess with text."""
        verb, *rest = map(str, arguments)
        return run_gapless(verb, "--admin", self.admin, *rest, timeout=timeout)

    def status(self):
        """What `status --json` prints, or None while nobody answers."""
        done = self.verb("status", "--json")
        return json.loads(done.stdout) if done.returncode == 0 else None

    def service(self, name=None):
        """The status of one service (the only one unless named), or None."""
        status = self.status()
        for service in (status or {}).get("services", []):
            if name in (None, service["name"]):
                return service
        return None

    def generation(self, name=None):
        """The number of the generation that serves."""
        service = self.service(name)
        return int(service["generation"] or 0) if service else 0

    def worker_pids(self, name=None, generation=None):
        """Pids of the workers, of all generations unless told."""
        service = self.service(name)
        return [worker["pid"] for each in (service or {}).get("generations", [])
                if generation in (None, each["id"]) for worker in each["workers"]]

    def upgrade_with_killed_master(self, generation, delay_s):
        """To that generation, by HUP; so long after its beginning the master is killed, and the next one goes on."""
        master, mark = self.wait_master(), self.log.mark()
        self.hup()
        self.log.wait("upgrade started", after=mark)
        time.sleep(delay_s)  # the moment is what is varied
        os.kill(master, signal.SIGKILL)
        self.wait_master(but=master)
        service = wait_until(self.service, "the next master to answer")  # one look: it may go on between two
        if service["generation"] != generation and service["upgrade"]["state"] == "idle":
            self.hup()  # it had been killed before there was anything to go on with
        self.wait_serving(generation)

    def wait_serving(self, generation=1, name=None, timeout=None):
        """Waits until this generation serves alone: it is active, its predecessors are gone, no upgrade is under way."""
        seen = {}

        def serves():
            if self.process.poll() is not None:
                raise AssertionError(f"gapless ended with {self.process.returncode}")
            seen["service"] = service = self.service(name)
            return (service and service["state"] == "serving" and service["generation"] == generation
                    and [each["id"] for each in service["generations"]] == [generation]
                    and service["generations"][0]["state"] == "active") and service

        return wait_until(serves, lambda: f"generation {generation} to serve alone, it is {seen.get('service')}", timeout)

    def complaints(self):
        """What it complained of: lines of level error, and what it said without a log at its start."""
        return [line for line in self.log.lines() if line.level == "error" or line.text.startswith("gapless: ")]

    # -- what is done to it

    def signal(self, number):
        os.kill(self.pid, number)

    def insist(self, number):
        """With the signal, until it has ended."""
        def has_ended():
            with contextlib.suppress(ProcessLookupError):
                self.signal(number)
            return self.process.poll() is not None
        wait_until(has_ended, "gapless to end", 10)

    def hup(self):
        self.signal(signal.SIGHUP)

    def upgrade_by_hup(self, name=None, timeout=None):
        """One upgrade by SIGHUP; returns when its generation serves alone. The new generation's number."""
        following = self.generation(name) + 1
        self.hup()
        self.wait_serving(following, name, timeout)
        return following

    def wait_requests(self, count=5):
        """Waits until the generation that serves alone has had so many more requests."""
        def requests():
            return sum(each["requests"] or 0 for each in self.service()["generations"][0]["workers"])

        before = requests()
        wait_until(lambda: requests() >= before + count, f"{count} more requests")

    def wait_exit(self, timeout=None):
        """Its exit code, -N for a signal."""
        try:
            return self.process.wait(timeout or PATIENCE)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"gapless did not end in {timeout or PATIENCE} s") from None

    def terminate(self, timeout=None):
        self.signal(signal.SIGTERM)
        return self.wait_exit(timeout)

    # -- its processes

    def keeper_pid(self):
        return self.pid

    def master_pid(self):
        """The pid of the master, or None while there is none."""
        for child in children_of(self.keeper_pid()):
            if command_line(child)[1:2] == ["master"] and is_alive(child) and name_of(child) == "gapless-master":
                return child
        return None

    def wait_master(self, but=None):
        """Waits for a master that isn't the process `but`."""
        return wait_until(lambda: (lambda pid: pid if pid != but else None)(self.master_pid()), "a master")

    def finish(self):
        """Ends it and whatever is below it, whatever state it is in."""
        below = descendants_of(self.pid)
        for pid in [self.pid, *below]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(PATIENCE)
        for pid in below:  # a worker that became nobody's child is ours: main() is a subreaper
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)


def environment(extra=None):
    """The environment of what is started: ours without what a harness above us set for itself, and `extra` (None: unset)."""
    env = {key: value for key, value in os.environ.items()
           if not key.startswith(("GAPLESS_", "LISTEN_", "EINHORN_", "MALLOC_")) and key != "NOTIFY_SOCKET"}
    for key, value in (extra or {}).items():
        if value is None:
            env.pop(key, None)
        else:
            env[key] = str(value)
    return env


def run_gapless(*arguments, env=None, cwd=None, timeout=None, stdin=None):
    """Runs `gapless ARGUMENTS` to its end; subprocess.CompletedProcess with text."""
    return subprocess.run([program("GAPLESS"), *map(str, arguments)], stdin=stdin or subprocess.DEVNULL,
                          capture_output=True, text=True, env=environment(env), cwd=cwd, timeout=timeout or PATIENCE)


# ---- load ----


class Load:
    """gapless-load, running until stop(); what a report holds is in docs/load.md. It is on when the first answer has come (or
    a second is over without one), or where begun() becomes true."""

    def __init__(self, case, *arguments, begun=None):
        number = len(case.started)
        self.report_path = case.dir / f"load{number}.json"
        self.log = Log(case.dir / f"load{number}.log")
        with open(self.log.path, "ab") as log:
            self.process = subprocess.Popen(
                [program("GAPLESS_LOAD"), "--duration", "1h", "--progress", "--quiet", "--json", str(self.report_path),
                 *map(str, arguments)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment())
        case.started.append(self)
        if begun:
            wait_until(begun, "the load to begin")
        else:
            self.log.wait(r"\d")  # --progress

    def stop(self):
        """Ends the load in order (what has begun is waited for) and returns the report."""
        self.process.terminate()
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"gapless-load did not end: {self.log.text()}") from None
        return json.loads(self.report_path.read_text())

    def finish(self):
        self.process.kill()
        self.process.wait(PATIENCE)


# ---- cases ----


class TestCase(unittest.TestCase):
    """A case with a directory of its own (self.dir); what it starts is ended when it ends."""

    def setUp(self):
        self.started = []
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="gapless-"))
        self.dir.chmod(0o755)
        self.addCleanup(self._clean)

    def _clean(self):
        for each in reversed(self.started):
            each.finish()
        reports = [f"{path.name}: {line}" for path in sorted(self.dir.glob("*.log"))
                   for line in Log(path).text().splitlines() if SANITIZER_REPORT.search(line)]
        self._shown = self._tails()
        if not os.environ.get("KEEP"):
            shutil.rmtree(self.dir, ignore_errors=True)
        if reports:
            raise AssertionError("a sanitizer or an assertion ended a process:\n" + "\n".join(reports))

    def _tails(self):
        tails = []
        for path in sorted(self.dir.glob("*.log")):
            lines = Log(path).text().splitlines()
            tails += [f"-- {path.name}, last of {len(lines)} lines:", *lines[-60:]]
        return tails

    def assert_no_zombies(self, pid):
        """None that stays: what has just ended is reaped a moment later."""
        wait_until(lambda: not zombies_below(pid), lambda: f"no zombie: {zombies_below(pid)}")

    def assert_processes(self, pid, count):
        """So many below pid; a process that writes the history ends a moment later."""
        wait_until(lambda: len(descendants_of(pid)) == count,
                   lambda: f"{count} processes: {[command_line(each) for each in descendants_of(pid)]}")

    def shown(self):
        """The ends of the logs, for the report of a case that failed."""
        return getattr(self, "_shown", [])

    def start(self, *arguments, **keywords):
        """Starts `gapless run ARGUMENTS`; see Gapless."""
        return Gapless(self, arguments, **keywords)

    def serve(self, *arguments, **keywords):
        """As start(), and waits until its first generation serves."""
        gapless = self.start(*arguments, **keywords)
        gapless.wait_serving(1)
        return gapless

    def worker(self, *options):
        """The command of a worker.py whose facts dump() reads."""
        return ["--", WORKER, "--dump", str(self.dir / "dump"), *map(str, options)]

    def dump(self, generation=1, worker=0):
        """What worker.py found when it started: see facts() there."""
        path = self.dir / f"dump.{generation}.{worker}"
        wait_until(path.exists, f"{path.name}: worker {worker} of generation {generation} to start")
        return json.loads(path.read_text())

    def hello(self, version, name="server"):
        """Puts a version of examples/hello where a service's command is; its path."""
        return self.write(name, f"#!/bin/sh\nexec {program('GAPLESS_HELLO')} --version-name {version} \"$@\"\n", 0o755)

    def assert_clean(self, report, at_least=1):
        """Every attempt of the load was answered (none refused, reset, cut, timed out), and there were some."""
        bad = {outcome: count for outcome, count in report["outcomes"].items() if count and outcome != "answered"}
        self.assertEqual(bad, {}, f"{report['errors']} {report['first_failures']}")
        self.assertEqual(report["attempted"], report["answered"])
        self.assertGreaterEqual(report["answered"], at_least)

    def assert_cannot_start(self, gapless, *words):
        """It ended with 1, said one line that has the words, and no worker.py of it ran."""
        self.assertEqual(gapless.wait_exit(), 1, gapless.log.text())
        complaints = gapless.complaints()
        self.assertEqual(len(complaints), 1, gapless.log.text())
        for word in words:
            self.assertIn(word, complaints[0].text)
        self.assertEqual(list(self.dir.glob("dump*")), [])

    def write(self, name, text, mode=0o644):
        """Writes a file in the case's directory, by rename, so that nobody sees it half; its path as text."""
        path = self.dir / name
        fresh = self.dir / (name + ".new")
        fresh.write_text(text)
        fresh.chmod(mode)
        fresh.rename(path)
        return str(path)

    def install(self, name, source):
        """Copies a program to a name in the case's directory, by rename; its path as text."""
        path = self.dir / name
        fresh = self.dir / (name + ".new")
        shutil.copy2(source, fresh)
        fresh.rename(path)
        return str(path)


# ---- TAP ----


class TapResult(unittest.TestResult):
    """Prints each case as a line of TAP as it ends; what went wrong, and the ends of the logs, behind `#`."""

    printing = threading.RLock()
    _printed = 0

    @staticmethod
    def begin(total):
        print(f"1..{total}", flush=True)

    def startTest(self, test):
        super().startTest(test)
        self._problems, self._skip, self._began = [], None, time.monotonic()

    def addError(self, test, err):
        self._problems.append(err)

    def addFailure(self, test, err):
        self._problems.append(err)

    def addSubTest(self, test, subtest, err):
        if err:
            self._problems.append((err[0], AssertionError(f"{subtest._subDescription()}: {err[1]}"), err[2]))

    def addSkip(self, test, reason):
        self._skip = reason

    def stopTest(self, test):
        super().stopTest(test)
        with self.printing:
            TapResult._printed += 1
            self._print(test, f"{TapResult._printed} - {test.id().partition('.')[2]}")

    def _print(self, test, name):
        if self._problems:
            self.failures.append((test, ""))
            print(f"not ok {name}")
            for problem in self._problems:
                self._comment(self._exc_info_to_string(problem, test).splitlines())
            self._comment(test.shown() if isinstance(test, TestCase) else [])
        elif self._skip is not None:
            print(f"ok {name} # SKIP {self._skip}")
        else:
            print(f"ok {name}")
            print(f"# {time.monotonic() - self._began:.1f} s")
        sys.stdout.flush()

    @staticmethod
    def _comment(lines):
        for line in lines:
            print("#   " + line)


def note(text):
    """Prints a figure into the test's log."""
    with TapResult.printing:
        print(f"# {text}", flush=True)


def _cases(suite):
    for each in suite:
        yield from _cases(each) if isinstance(each, unittest.TestSuite) else [each]


def _run(cases, at_a_time):
    """True if none failed."""
    TapResult.begin(len(cases))
    results = [TapResult() for _ in cases]
    try:
        for alone in (False, True):
            pool = concurrent.futures.ThreadPoolExecutor(1 if alone else at_a_time)
            for done in [pool.submit(case.run, result) for case, result in zip(cases, results) if getattr(case, "ALONE", False) == alone]:
                done.result()
    except BaseException:  # told to end: nothing that runs is waited for
        for case in cases:
            for each in reversed(getattr(case, "started", [])):
                each.finish()
        os._exit(143)
    return not any(result.failures for result in results)


def main(at_a_time=1):
    """Runs the cases of the calling file, or those that the arguments name, and exits. Cases that mostly wait and don't mind each
    other can run some at a time; those with ALONE = True (they measure) come after them, one by one."""
    # Workers whose main process a test killed come to us and can be ended and reaped.
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    # A timeout of meson is a TERM: clean up then, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    loader = unittest.TestLoader()
    module = sys.modules["__main__"]
    suite = loader.loadTestsFromNames(sys.argv[1:], module) if sys.argv[1:] else loader.loadTestsFromModule(module)
    if at_a_time > 1:
        sys.exit(0 if _run(list(_cases(suite)), at_a_time) else 1)
    TapResult.begin(suite.countTestCases())
    result = TapResult()
    suite.run(result)
    sys.exit(1 if result.failures else 0)

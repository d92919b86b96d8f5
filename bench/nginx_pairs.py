# SPDX-License-Identifier: BSD-2-Clause
"""What the programs of bench/ that compare share: a server (Debian's nginx) under a gapless, load on it, and ratios of pairs of
runs.

A machine is seldom as fast for a while as in the one before, so two ways of doing the same are measured in turn, or at the
same time: what counts is the median of the pairs' ratios, and how sure it is.
"""

import argparse
import json
import math
import os
import pathlib
import shutil
import statistics
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests/integration"))
import harness  # noqa: E402  (the line above says where it is)

SURE_PAIRS = 6  # from so many on their range holds the true median with 95 %
WARM_S = 0.5


class Server(harness.TestCase):
    """One server under one gapless, self.gapless, at self.port; no case of a test, but it is started and ended like one."""

    def runTest(self):
        pass

    def expect(self, what, found, wanted):
        """Ends the program where gapless does it in another way than was asked for."""
        if found != wanted:
            raise SystemExit(f"the {what} is {found}, not {wanted}")

    def process(self):
        """The pid of the process that serves."""
        return self.gapless.worker_pids()[0]

    def cpu_seconds(self):
        """What the process that serves has used, to the nanosecond, what it did for interrupts included."""
        return int(pathlib.Path(f"/proc/{self.process()}/schedstat").read_text().split()[0]) / 1e9


class Nginx(Server):
    """One nginx of one process."""

    def begin(self, cpu=None, tracker="auto", listen="", http="", file_bytes=0, capture=None, drain=""):
        """Starts it, bound to a CPU where one is given. `listen`: options of the listener, `http`: lines of nginx's http block,
        `capture`: the service's; with "on" nginx binds its address itself, else it takes the socket from gapless; `drain`: keys beside
        the drain signal, each behind a comma. It answers with three bytes from its configuration, the least that it can do for a
        request; with `file_bytes` with a file, by sendfile and with a line in the access log, as Debian sets it up."""
        self.setUp()
        self.port = harness.free_port()
        user = "user root;" if os.getuid() == 0 else ""
        location, log = 'default_type text/plain; return 200 "ok\\n";', "off"
        if file_bytes:
            (self.dir / "index.html").write_bytes(bytes(file_bytes))
            location, log = f"root {self.dir};", f"{self.dir}/access.log"
        conf = self.write("nginx.conf", f"""
daemon off;
worker_processes 1;
{user}
pid {self.dir}/nginx.pid;
error_log {self.dir}/error.log;
events {{ worker_connections 4096; }}
http {{
    access_log {log};
    sendfile on;
    tcp_nopush on;
    {http}
    client_body_temp_path {self.dir}/body;
    proxy_temp_path {self.dir}/proxy;
    fastcgi_temp_path {self.dir}/fastcgi;
    uwsgi_temp_path {self.dir}/uwsgi;
    scgi_temp_path {self.dir}/scgi;
    server {{
        listen 127.0.0.1:{self.port};
        location / {{ {location} }}
    }}
}}
""")
        command = [*pin(cpu), shutil.which("nginx", path="/usr/sbin"), "-p", str(self.dir), "-e", f"{self.dir}/error.log", "-c", conf]
        given = 'env: {NGINX: "{fds:;}"}, ready: {alive: 500ms}, ' if capture != "on" else ""
        captured = f"capture: {capture}, " if capture else ""
        self.gapless = self.serve("-c", self.write("gapless.yaml", f"""
tracker: {tracker}
services:
  web: {{
    listen: ["tcp:127.0.0.1:{self.port},nonblock{listen}"],
    command: {json.dumps(command)},
    {given}{captured}observe: {{window: 0}}, drain: {{signal: QUIT{drain}}}
  }}
"""))

    def process(self):
        (pid,) = harness.descendants_of(super().process())
        return pid


def count(text):
    """For argparse: how many."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text} is no count")
    return int(text)


def pin(cpu):
    return ["taskset", "-c", str(cpu)] if cpu is not None else []


def own_cpus():
    return sorted(os.sched_getaffinity(0))


def use_build(build):
    """Where the harness finds the programs, unless the environment says so."""
    os.environ.setdefault("GAPLESS", str(build / "cli/gapless"))
    os.environ.setdefault("GAPLESS_LOAD", str(build / "bench/gapless-load"))
    os.environ.setdefault("GAPLESS_BINDER", str(build / "tests/helpers/binder"))


class Load:
    """gapless-load on a server, bound to a CPU where one is given."""

    def __init__(self, server, seconds, cpu, *options):
        self.process = subprocess.Popen(
            [*pin(cpu), harness.program("GAPLESS_LOAD"), *map(str, options), "--duration", f"{round(seconds * 1000)}ms", "--quiet",
             "--json", "-", f"tcp:127.0.0.1:{server.port}/"],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def report(self):
        """Waits for its end; the report, with "cpu_s": the CPU time that the load itself took."""
        with self.process.stdout as pipe:
            said = pipe.read()
        _, status, usage = os.wait4(self.process.pid, 0)
        self.process.returncode = os.waitstatus_to_exitcode(status)
        if status:
            raise SystemExit(f"gapless-load failed: {said}")
        return {**json.loads(said), "cpu_s": usage.ru_utime + usage.ru_stime}


def measure(servers, seconds, cpu, *load):
    """Load on all of them at the same time for a while: of each, answers for each second of CPU, of the server's alone and with the
    load's own, and microseconds of CPU of an answer."""
    before = {way: server.cpu_seconds() for way, server in servers.items()}
    loads = {way: Load(server, seconds, cpu, *load) for way, server in servers.items()}
    reports = {way: each.report() for way, each in loads.items()}
    measured = {}
    for way, report in reports.items():
        server_s = servers[way].cpu_seconds() - before[way]
        both_s = server_s + report["cpu_s"]
        measured[way] = {"rate": report["answered"] / both_s, "server_rate": report["answered"] / server_s,
                         "server_us": server_s / report["answered"] * 1e6, "both_us": both_s / report["answered"] * 1e6}
    return measured


def pairs_of(ways, begin, cpu, arguments, *load):
    """arguments.pairs measurements, for arguments.seconds each, of servers that begin(way, cpu) starts in each of arguments.rounds;
    the order of the ways is turned in each round and in each pair."""
    pairs = []
    for number in range(1, arguments.rounds + 1):
        servers = {}
        try:
            for way in ways if number % 2 else reversed(ways):
                servers[way] = begin(way, cpu)
            measure(servers, WARM_S, cpu, *load)
            for pair in range(arguments.pairs * number // arguments.rounds - len(pairs)):
                ordered = dict(sorted(servers.items(), reverse=pair % 2))
                pairs.append(measure(ordered, arguments.seconds, cpu, *load))
        finally:
            for server in servers.values():
                server.doCleanups()
    return pairs


def summary(values):
    """Median, range and quartiles, and between which values the true median lies with 95 % (order statistics; SURE_PAIRS)."""
    values = sorted(values)
    low, _, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3
    at = max(math.floor(len(values) / 2 - 0.98 * math.sqrt(len(values))), 0)
    return {key: round(value, 4) for key, value in {
        "median": statistics.median(values), "least": values[0], "low": low, "high": high, "most": values[-1],
        "sure_from": values[at], "sure_to": values[-1 - at]}.items()}


def show_ratio(what, ratio, pairs, judged):
    sure = f"; the median is {ratio['sure_from']:.3f} to {ratio['sure_to']:.3f} by 95 %" if pairs >= SURE_PAIRS else ""
    print(f"{what}: median {ratio['median']:.3f} of {pairs} pairs ({ratio['least']:.3f} to {ratio['most']:.3f}, half of them "
          f"{ratio['low']:.3f} to {ratio['high']:.3f}{sure}){' (judged by)' if judged else ''}")

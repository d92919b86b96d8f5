#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""The ebpf tracker's numbers against what servers say of themselves, after clients of which a third misbehave.

GAPLESS_TEST_REQUESTS: how many requests each server answers to such clients (50,000, with sanitizers 30,000; tools/truth asks for a
million).
"""

import os
import pathlib
import shutil
import signal
import unittest

import exact
import harness

REQUESTS = int(os.environ.get("GAPLESS_TEST_REQUESTS", 30000 if harness.SANITIZED else 50000))
BEHAVED = max(REQUESTS // 10, 1000)
PATIENCE = harness.PATIENCE + REQUESTS // 1000
ABORT_PERCENT = 33
# More connections than this never exist: what the clients hold, and what they left that is not served yet.
MOST = 20000
NGINX = shutil.which("nginx", path="/usr/sbin")  # Debian's


class Truth(exact.Server):
    def at_rest(self, gapless):
        """Nothing is open: the counts are zero, and stay it."""
        def zero():
            totals = exact.totals(gapless)
            return totals and not totals["connections"] and not totals["in_flight"] and totals
        return harness.wait_until(zero, lambda: f"counts of zero at rest, they are {exact.totals(gapless)}", 10)

    def answered(self):
        """How many requests the server says it answered, once it has closed every connection."""
        for field in ("open", "in_progress"):
            self.record().wait(field, lambda value: value == 0)
        return self.record()["answers"]

    def behaving(self, gapless, *options):
        """Only clients that behave: every number of requests is the same."""
        before, said_before = self.at_rest(gapless), self.answered()
        report = self.clients("--requests", BEHAVED, *options, timeout=PATIENCE)
        said = self.answered() - said_before
        counted = self.at_rest(gapless)["requests"] - before["requests"]
        self.assertEqual((counted, said), (report["answered"], report["answered"]), report)
        return counted

    def truth(self, *options, server):
        gapless = self.serve("--tracker", "ebpf", *server)
        self.assertEqual(gapless.service()["tracker"]["name"], "ebpf")
        self.assertEqual(gapless.service()["tracker"]["precision"], "estimated")
        with exact.Watch(gapless, MOST) as watch:
            counted = self.behaving(gapless, *options)
            report = self.clients("--requests", REQUESTS, "--abort", ABORT_PERCENT, *options, timeout=PATIENCE)
            self.answered()
            self.at_rest(gapless)
            counted += self.behaving(gapless, *options)
        self.assertEqual(watch.wrong, [])
        self.assertGreater(watch.samples, 0)
        self.assertGreater(watch.highest["in_flight"], 0, "there was load")
        self.assertGreater(report["connections_aborted"], report["connections_behaved"] // 4)
        harness.note(f"{report['answered']} requests among {report['connections_aborted']} aborted connections of "
                     f"{report['connections_aborted'] + report['connections_behaved']}, seed {report['seed']}: 0 left at rest; "
                     f"{counted} of those that behaved, counted {counted}; {watch.samples} samples, at most "
                     f"{watch.highest['connections']} connections, {watch.highest['in_flight']} in flight")
        return gapless


@exact.needs_bpf
class TruthTest(Truth):
    def test_threads(self):
        self.truth(server=self.exact("threads"))

    def test_process_for_each_connection(self):
        self.truth(server=self.exact("processes"))

    def test_connections_passed_to_another_process(self):
        self.truth(server=self.exact("passed"))

    def test_sendfile(self):
        self.truth("--path", "/bytes?16384", server=self.exact("sendfile"))

    def test_server_that_speaks_first(self):
        self.truth("--protocol", "banner", server=["--protocol", "server-first", *self.exact("banner")])

    def test_io_uring(self):
        self.needs_uring()
        self.truth(server=self.exact("uring"))

    def test_io_uring_by_a_thread_of_the_kernel(self):
        self.needs_uring()
        self.truth(server=self.exact("uring-sqpoll"))

    def test_ipv6(self):
        self.address = ("::1", harness.free_port(harness.socket.AF_INET6))
        server = self.exact("threads")
        server[1] = f"tcp:[::1]:{self.address[1]}"
        self.truth(server=server)

    def needs_uring(self):
        disabled = pathlib.Path("/proc/sys/kernel/io_uring_disabled")
        if not disabled.exists() or disabled.read_text().strip() == "2":
            self.skipTest("the kernel has no io_uring")

    def test_counts_of_a_killed_worker_end_with_it(self):
        """SIGKILL in the middle of load: its successor, which may get the same slot, begins at zero and is exact."""
        gapless = self.serve("--tracker", "ebpf", *self.exact("threads"))
        for _ in range(3):
            load = harness.Load(self, "--rate", "500", f"tcp:127.0.0.1:{self.port}/wait?50")
            pid = gapless.worker_pids()[0]
            harness.wait_until(lambda: exact.totals(gapless)["in_flight"] > 0, "requests in flight")
            os.kill(pid, signal.SIGKILL)
            harness.wait_until(lambda: pid not in gapless.worker_pids() and gapless.worker_pids(), "the next worker")
            load.stop()
            gapless.wait_serving(1)
            self.behaving(gapless)


@exact.needs_bpf
@unittest.skipUnless(NGINX, "nginx is not installed")
class NginxTruthTest(Truth):
    """The same with Debian's nginx, whose access log is what it says of itself: requests and bytes."""

    def answered(self):
        return (self.logs / "access.log").read_bytes().count(b"\n")

    def behaving(self, gapless, *options):
        before, lines_before = self.at_rest(gapless), self.answered()
        report = self.clients("--requests", BEHAVED, *options, timeout=PATIENCE)
        # nginx writes the line of a request when it is through with it, which may be after its client has left.
        harness.wait_until(lambda: self.answered() - lines_before >= report["answered"], "a line for each request", 10)
        after = self.at_rest(gapless)
        lines = (self.logs / "access.log").read_text().splitlines()[lines_before:]
        said = [len(lines), *(sum(int(line.split()[field]) for line in lines) for field in (0, 1))]
        counted = [after[key] - before[key] for key in ("requests", "bytes_in", "bytes_out")]
        self.assertEqual(counted, said)
        self.assertEqual(counted[0], report["answered"])
        return counted[0]

    def nginx(self):
        self.logs = self.dir / "nginx"
        self.logs.mkdir()
        (self.logs / "body").write_bytes(bytes(16384))
        user = "user root;" if os.getuid() == 0 else ""
        conf = self.write("nginx.conf", f"""
daemon off;
master_process on;
worker_processes 2;
{user}
pid {self.logs}/nginx.pid;
error_log {self.logs}/error.log;
events {{ worker_connections 8192; }}
http {{
    log_format exact "$request_length $bytes_sent";
    access_log {self.logs}/access.log exact;
    sendfile on;
    client_body_temp_path {self.logs}/client_body;
    proxy_temp_path {self.logs}/proxy;
    fastcgi_temp_path {self.logs}/fastcgi;
    uwsgi_temp_path {self.logs}/uwsgi;
    scgi_temp_path {self.logs}/scgi;
    server {{
        listen 127.0.0.1:{self.port};
        location / {{ default_type text/plain; return 200 "ok\\n"; }}
        location /body {{ root {self.logs}; }}
    }}
}}
""")
        (self.logs / "access.log").touch()
        return ["-c", self.write("gapless.yaml", f"""
tracker: ebpf
services:
  web:
    listen: ["tcp:127.0.0.1:{self.port},nonblock"]
    command: [{NGINX}, -p, {self.logs}, -e, {self.logs}/error.log, -c, {conf}]
    env: {{NGINX: "{{fds:;}}"}}
    ready: {{alive: 1s}}
    observe: {{window: 0}}
    drain: {{signal: QUIT}}
""")]

    def test_small_answers(self):
        self.truth(server=self.nginx())

    def test_sendfile(self):
        self.truth("--path", "/body", server=self.nginx())


if __name__ == "__main__":
    harness.main()

# SPDX-License-Identifier: BSD-2-Clause
"""What the tests of the upgrade as a transaction share: a service whose versions are tests/helpers/version, good or bad, under load,
and what must be true of each upgrade of it. GAPLESS_VERSION names the program; version.c says what a version can do wrong."""

import contextlib
import datetime
import json
import os
import re
import shlex
import shutil
import threading

import harness

FULL = os.environ.get("GAPLESS_TEST_FULL") == "1"
RATE = int(os.environ.get("GAPLESS_TEST_RATE", 100 if harness.SANITIZED else 300))
KEPT = 4
PHASES = ("validate", "spawn", "ready", "snapshot", "smoke", "canary", "freeze", "import", "switch", "observe", "commit",
          "retire")
RACE = "cut_reused"  # on a kept connection


class TestCase(harness.TestCase):
    STEERING = "ebpf"
    WORKERS = 2
    WINDOW = "1s"

    def setUp(self):
        super().setUp()
        self.port = harness.free_port()
        self.address = ("127.0.0.1", self.port)
        self.target = f"tcp:127.0.0.1:{self.port}"
        self.history = self.dir / "history.jsonl"
        self.gapless = None
        self.loads = []

    # -- the service

    def version(self, name, *options, before=""):
        """Releases a version: a directory of its own, which `current` leads to from now on. before: a line of shell."""
        release = self.dir / "releases" / str(len(list(self.dir.glob("releases/*"))))
        release.mkdir(parents=True)
        command = shlex.join([harness.program("GAPLESS_VERSION"), name, *map(str, options)])
        self.write(f"{release.relative_to(self.dir)}/server", f"#!/bin/sh\n{before}\nexec {command}\n", 0o755)
        self.publish(release)

    def binary(self, name):
        """Releases a version as a binary, with its name as an argument: the keys of the configuration for it."""
        shutil.copy2(harness.program("GAPLESS_VERSION"), self.dir / "server.new")
        (self.dir / "server.new").rename(self.dir / "server")
        return {"command": [str(self.dir / "server"), name]}

    def publish(self, release):
        fresh = self.dir / "current.new"
        fresh.symlink_to(release)
        fresh.rename(self.dir / "current")

    def configure(self, **keys):
        """Writes the service's configuration (JSON is YAML); keys that are None are left out."""
        service = {"command": [str(self.dir / "current" / "server")], "listen": [self.target], "workers": self.WORKERS,
                   "steering": self.STEERING, "observe": {"window": self.WINDOW},
                   "backoff": {"initial": "20ms", "max": "100ms"},
                   "drain": {"quiet": "50ms", "idle_grace": "100ms", "timeout": "5s"}, **keys}
        service = {key: value for key, value in service.items() if value is not None}
        return self.write("gapless.yaml", json.dumps({"services": {"web": service}}))

    def begin(self, *options, load=True, **keys):
        """Version one of the service serves as generation 1, under load."""
        self.version("one", *options)
        self.gapless = self.serve("-c", self.configure(**keys), history=str(self.history))
        self.assertEqual(self.gapless.service()["listeners"][0]["steering"], self.STEERING, self.gapless.log.text())
        if load:
            self.put_load()
        return self.gapless

    def put_load(self):
        """New connections and kept ones, apart."""
        self.loads = [harness.Load(self, "--by-header", "X-Generation", *clients, self.target, begun=lambda: True)
                      for clients in (("--rate", RATE), ("--keepalive", KEPT, "--interval", "5ms"))]
        before = self.requests()
        harness.wait_until(lambda: self.requests() > before + 50, "the load to be on")

    def requests(self):
        """As its workers have read them."""
        service = self.gapless.service() or {"generations": []}
        return sum(worker["requests"] or 0 for generation in service["generations"] for worker in generation["workers"])

    def hold(self, name, code=0):
        """The command of a step that makes the file NAME.reached, and ends with the code once there is NAME.go."""
        return self.write(f"hold.{name}", f"#!/bin/sh\n: >{self.dir}/{name}.reached\n"
                                          f"while [ ! -e {self.dir}/{name}.go ]; do sleep 0.01; done\nexit {code}\n", 0o755)

    def wait_reached(self, name):
        harness.wait_until((self.dir / f"{name}.reached").exists, f"{name} to be reached, {self.said()}")

    def go(self, name):
        self.write(f"{name}.go", "")

    def note(self, text, code=0, out=""):
        """The command of a step that notes the text, and prints something."""
        return ["sh", "-c", f"echo {text} >>{self.dir}/notes; echo {out}; exit {code}"]

    def notes(self):
        path = self.dir / "notes"
        return path.read_text().splitlines() if path.exists() else []

    # -- what is asked

    def said(self):
        return f"{(self.gapless.service() or {}).get('upgrade')}\n{self.gapless.log.text()[-2000:]}"

    def phase(self):
        upgrade = (self.gapless.service() or {}).get("upgrade") or {}
        return upgrade.get("phase") if upgrade.get("state") != "idle" else None

    def wait_phase(self, phase):
        harness.wait_until(lambda: self.phase() == phase, lambda: f"phase {phase}, {self.said()}")

    def wait_idle(self, generation=None):
        """Waits until no upgrade is under way and one generation serves alone; the service."""
        def idle():
            service = self.gapless.service()
            return (service and service["upgrade"]["state"] == "idle" and service["state"] == "serving" and
                    len(service["generations"]) == 1 and generation in (None, service["generation"]) and service)
        return harness.wait_until(idle, lambda: f"generation {generation} to serve alone, it is {self.gapless.service()}")

    def answered_by(self):
        """Version and generation of one answer."""
        return harness.version_at(self.address)

    def upgrade_in_background(self, *options):
        """`gapless upgrade`, watched by a thread; join() gives subprocess.CompletedProcess."""
        return Verb(self.gapless, "upgrade", *options)

    # -- the history

    def records(self, event=None):
        done = self.gapless.verb("history", "--json", "-n", 1000)
        if done.returncode:
            return []
        found = [json.loads(line) for line in done.stdout.splitlines()]
        return [record for record in found if event in (None, record["event"])]

    def wait_record(self, event="upgrade", count=1, **keys):
        """Waits for the count-th record of an event; it, whose keys have these values (a pattern: matches)."""
        records = harness.wait_until(lambda: (lambda all: all if len(all) >= count else None)(self.records(event)),
                                     lambda: f"{count} records of {event}, there are {self.records()}")
        self.assertEqual(len(records), count, records)
        record = records[-1]
        for key, value in keys.items():
            if isinstance(value, re.Pattern):
                self.assertRegex(record.get(key) or "", value, record)
            else:
                self.assertEqual(record.get(key), value, record)
        return record

    def assert_phases(self, record):
        """It went through phases in their order, up to where it ended, each with its time, that of its steps included; together
        that is all the time that it took."""
        names = [phase["name"] for phase in record["phases"]]
        self.assertEqual(names, [name for name in PHASES if name in names], record)
        self.assertEqual(names[-1], "retire" if record["outcome"] == "done" else record["phase"], record)
        self.assertFalse(set(names) & set(record.get("skipped", [])), record)
        began, ended = (datetime.datetime.fromisoformat(record[key].replace("Z", "+00:00")) for key in ("started_at", "ended_at"))
        took = (ended - began).total_seconds() * 1000
        told = sum(phase["ms"] for phase in record["phases"])
        # By two clocks, which aren't read at the same moment.
        self.assertLess(abs(took - told), 50 + took / 10, f"{told} of {took} ms, {record}")
        for step in record.get("steps", []):
            (phase,) = [phase for phase in record["phases"] if phase["name"] == step["name"].split()[1]]
            self.assertLessEqual(step["ms"], phase["ms"], record)

    # -- the load

    def end_load(self):
        """Nothing was refused, and nothing failed but what the history says that crashed workers had read, and, on kept connections,
        what came while the worker died. The reports."""
        reports = [load.stop() for load in self.loads]
        failed = sum(report["failed"] for report in reports)
        raced = sum(report["outcomes"][RACE] for report in reports)
        crashes, lost = [], 0

        def told():
            nonlocal crashes, lost
            crashes = [crash for crash in self.records("crash") if crash["state"] != "starting"]
            lost = sum(crash.get("lost") or 0 for crash in crashes)
            return failed <= lost + (raced if crashes else 0)
        with contextlib.suppress(AssertionError):  # what follows says it better
            harness.wait_until(told, "the crashes to be written", 5)
        outcomes = [{name: count for name, count in report["outcomes"].items() if count} for report in reports]
        harness.note(f"{self.id().rpartition('.')[2]}: {sum(report['attempted'] for report in reports)} requests, {failed} failed, "
                     f"{lost} lost by {len(crashes)} crashes")
        shown = f"{outcomes} {crashes} {[report['first_failures'] for report in reports]}"
        for report in reports:
            self.assertEqual(report["outcomes"]["refused"], 0, shown)
            self.assertGreater(report["answered"], 0)
            self.assertEqual(report["local_errors"], 0, report["errors"])
        self.assertGreaterEqual(failed, lost, shown)
        # On a kept connection that was idle a request may be on its way when the worker ends: it never came.
        self.assertLessEqual(failed, lost + (min(raced, KEPT * len(crashes)) if crashes else 0), shown)
        return reports

    def assert_old_serves(self, generation=1, version="one"):
        self.wait_idle(generation)
        self.assertEqual({self.answered_by() for _ in range(10)}, {(version, generation)})
        self.assertEqual(len(self.gapless.worker_pids(generation=generation)), self.WORKERS)
        self.assert_no_zombies(self.gapless.pid)


class Verb:
    """`gapless VERB`, which runs beside the case."""

    def __init__(self, gapless, *arguments):
        self._thread = threading.Thread(target=self._run, args=(gapless, arguments), daemon=True)
        self._done = None
        self._thread.start()

    def _run(self, gapless, arguments):
        self._done = gapless.verb(*arguments)

    def ended(self):
        return not self._thread.is_alive()

    def join(self):
        self._thread.join(harness.PATIENCE)
        if self._done is None:
            raise AssertionError("the verb did not end")
        return self._done


def reason_of(done):
    """What a verb printed, for a message."""
    return (done.stdout + done.stderr).strip()

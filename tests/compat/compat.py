# SPDX-License-Identifier: BSD-2-Clause
"""The suite of real servers: each under gapless, under load, upgraded, and every attempt of a client counted.

A `Server` says in a few lines what it is; its recipes are the code blocks of docs/servers.md, run as they stand there:

    ```yaml                       a configuration; or ```sh, the one command `gapless run …`
    # SERVER: WAY                 which server, and how it joins
    ```

There 8080 (8081, …) stands for a port and /srv for a directory. Here they become a free port (the next ones) and a directory of the
run's own, in which /srv/current is a symbolic link to /srv/releases/N: what the Server writes for version N, which becomes
generation N. And the times of `drain` are shorter here (HURRY), so that a client that never lets go doesn't hold up each upgrade for 30 s.

`run()` does one recipe and gives a Result; run.py makes the table, test_servers.py the cases of tools/test. keepalive.py runs some of the
recipes with the real clients of kept_clients.py, by the same Run.
"""

import ctypes
import dataclasses
import os
import pathlib
import re
import shlex
import signal
import sys
import time
import typing

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "integration"))
import exact  # noqa: E402  (the line above says where it is)
import harness  # noqa: E402

DOCS = pathlib.Path(__file__).resolve().parents[2] / "docs" / "servers.md"
PROGRAMS = pathlib.Path(__file__).resolve().parent / "programs"
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"  # what Debian installed, nothing else
HURRY = {"quiet": "200ms", "idle_grace": "200ms", "timeout": "1s"}
UPGRADE_S = 60  # no upgrade takes so long: a deadline for a broken one


class Wrong(Exception):
    """An answer that isn't the one that was owed."""


@dataclasses.dataclass
class Server:
    """A real server. `release(version)` is {file name: text} of that version's directory; `make(run)` does once what has to be
    done before the start (compile, make a key). `clients` are Http or clients.Exact."""

    name: str
    programs: list  # and whatever files else have to be there
    clients: object
    release: typing.Callable = lambda version: {}
    make: typing.Callable = lambda run: None
    targets: list = dataclasses.field(default_factory=list)  # what the clients ask, where it isn't what the recipe listens at
    refused: str = ""  # a regular expression: it can't be upgraded, and this is the reason that gapless gives

    def missing(self):
        """Why it can't run here, "" if it can."""
        absent = [program for program in self.programs if not os.path.exists(program)]
        return f"{', '.join(absent)} is not installed (tools/setup --compat)" if absent else ""


@dataclasses.dataclass
class Recipe:
    server: str
    way: str
    form: str  # "yaml" or "sh"
    text: str

    @property
    def captured(self):
        return self.way.startswith("captured")


def recipes():
    """All of docs/servers.md, in its order."""
    return [Recipe(server, way, form, text) for form, server, way, text in
            re.findall(r"^```(yaml|sh)\n# ([^:\n]+): ([^\n]+)\n(.*?)^```$", DOCS.read_text(), re.S | re.M)]


@dataclasses.dataclass
class Count:
    """What clients of one kind saw: how many attempts, how many of them failed and how, the longest time without an answer, and who
    answered."""

    attempted: int = 0
    failed: dict = dataclasses.field(default_factory=dict)
    gap_ms: float = 0
    by: set = dataclasses.field(default_factory=set)

    def __str__(self):
        kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(self.failed.items()))
        total = sum(self.failed.values())
        return f"{total} ({kinds})" if total else "0"


@dataclasses.dataclass
class Result:
    server: str
    way: str
    upgrades: int = 0
    fresh: Count = dataclasses.field(default_factory=Count)
    kept: Count = dataclasses.field(default_factory=Count)
    seconds: float = 0
    refused: str = ""
    skipped: str = ""
    wrong: str = ""  # what isn't as it must be


def count_of(report):
    """What a report of gapless-load says."""
    return Count(report["attempted"], {kind: count for kind, count in report["outcomes"].items() if count and kind != "answered"},
                 report["longest_gap"]["ms"], set(report["by"]))


def requests_served(gapless):
    """How many requests the generation that serves has had, by the tracker's count; None where nothing counts them."""
    counts = [worker["requests"] for worker in gapless.service()["generations"][-1]["workers"]]
    return None if None in counts else sum(map(int, counts))


class Http:
    """HTTP clients by gapless-load: `rate` new connections a second, and `kept` that keep theirs. The body's first line is who answered."""

    def __init__(self, rate, kept=4, interval="2ms"):
        self.rate, self.kept, self.interval = rate, kept, interval

    @staticmethod
    def ask(target):
        """One request on a connection of its own: who answered."""
        port, _, path = target.rpartition(":")[2].partition("/")
        status, body = harness.http_get(target[5:]) if target.startswith("unix:") else harness.http_get(("127.0.0.1", int(port)), "/" + path)
        if status != 200:
            raise Wrong(f"{status} {body!r}")
        return body.strip()

    def start(self, run, targets):
        """Puts load on; what it gives has enough() and stop()."""
        def load(*options):
            return harness.Load(run, "--duration", "10m", "--by-body", *options, *targets)
        return HttpLoad(load("--rate", self.rate), load("--keepalive", self.kept, "--interval", self.interval), self.rate)


class HttpLoad:
    def __init__(self, fresh, kept, rate):
        self.fresh, self.kept, self.rate = fresh, kept, rate

    def enough(self, gapless):
        """Waits until the generation that serves has had some load (of both kinds), by its count of requests; without one, until a second
        has ended."""
        mark = self.fresh.log.mark()

        def answered():
            served = requests_served(gapless)
            return self.fresh.log.mark() > mark + 1 if served is None else served >= 500 + self.rate / 2

        harness.wait_until(answered, "the load")

    def stop(self):
        """Ends it: a Count of new connections, and one of those that were kept."""
        return [count_of(load.stop()) for load in (self.fresh, self.kept)]


class Run(harness.TestCase):
    """One recipe, run. Also what a Server's functions get: `path()`, `place()`, `dir`, `write()`. The clients and the times of the
    drain may be others than the suite's."""

    def __init__(self, server, recipe, upgrades, clients=None, drain=None, environment=None):
        super().__init__()
        self.environment = {"PATH": PATH, **(environment or {})}
        self.server, self.recipe, self.upgrades = server, recipe, upgrades
        self.clients, self.drain = clients or server.clients, drain or HURRY
        self.port = harness.free_port()

    def runTest(self):
        """For unittest; measure() is the run."""

    def place(self, text):
        """Text of the recipe or of a release with this run's ports and directory in it."""
        text = re.sub(r"\b808(\d)\b", lambda match: str(self.port + int(match[1])), str(text))
        return re.sub(r"/srv\b", str(self.dir), text)

    def program(self, name):
        """Where a program of tests/compat/programs/ is; for make()."""
        return str(PROGRAMS / name)

    def command(self, *argv, **keywords):
        """Runs a command of make() to its end, in the directory."""
        done = harness.subprocess.run([self.place(each) for each in argv], cwd=self.dir, capture_output=True, text=True, check=False,
                                      timeout=120, env=harness.environment({"PATH": PATH, **keywords}))
        if done.returncode:
            raise AssertionError(f"{argv[0]} ended with {done.returncode}: {done.stdout}{done.stderr}")

    def daemon(self, *argv):
        """Starts a process that runs beside gapless until the end of the run."""
        case, log = self, harness.Log(self.dir / f"daemon{len(self.started)}.log")

        class Daemon:
            def __init__(self):
                with open(log.path, "ab") as out:
                    self.process = harness.subprocess.Popen(
                        [case.place(each) for each in argv], stdin=harness.subprocess.DEVNULL, stdout=out, stderr=out, cwd=case.dir,
                        env=harness.environment({"PATH": PATH}))

            def finish(self):
                below = harness.descendants_of(self.process.pid)
                self.process.terminate()
                self.process.wait(harness.PATIENCE)
                harness.wait_until(lambda: not any(map(harness.is_alive, below)), f"the processes of {argv[0]} to end")

        self.started.append(Daemon())

    def publish(self, version):
        """Makes the release, and makes it the current one."""
        release = self.dir / "releases" / str(version)
        release.mkdir(parents=True)
        for name, text in self.server.release(version).items():
            (release / name).write_text(self.place(text))
        fresh = self.dir / "current.new"
        fresh.symlink_to(release)
        fresh.rename(self.dir / "current")

    def arguments(self):
        """Of gapless run."""
        text = self.recipe.text
        if exact.why_no_bpf() is not None:  # a probe can't reach the new generation alone
            text = re.sub(r"\{probe: [^}]*\}", "{alive: 1s}", text)
        if self.recipe.form == "sh":
            flags = {"--drain-" + key.replace("_", "-"): value for key, value in self.drain.items()}
            text = re.sub(rf"({'|'.join(flags)}) \S+", "", text)
            argv = shlex.split(self.place(text))
            if argv[:2] != ["gapless", "run"]:
                raise AssertionError(f"a recipe that isn't `gapless run`: {text}")
            return [*(word for flag in flags.items() for word in flag), *argv[2:]]
        own = re.search(r"^    drain: \{(.*)\}", text, re.M)
        drain = {**dict(re.findall(r"(\w+): ([^,}]+)", own[1] if own else "")), **self.drain}
        line = "    drain: {" + ", ".join(f"{key}: {value}" for key, value in drain.items()) + "}"
        text = text.replace(own[0], line, 1) if own else text.rstrip() + "\n" + line + "\n"
        text += "    observe: {window: 0}\n"
        return ["-c", self.write("gapless.yaml", self.place(text))]

    def targets(self):
        """The addresses that clients ask: those at which the recipe listens."""
        if self.server.targets:
            return [self.place(target) for target in self.server.targets]
        listen = re.search(r"^    listen: (.*)", self.recipe.text, re.M)
        found = re.findall(r"(?:tcp|udp|unix):[^,\"\]\s]+", listen[1]) if listen else ["tcp:8080"]
        return [re.sub(r"^(tcp|udp):(?:.*:)?", r"\1:127.0.0.1:", self.place(target)) for target in found]

    def measure(self):
        """The whole run: a Result, in which `wrong` says what isn't as it must be."""
        result = Result(self.server.name, self.recipe.way)
        began = time.monotonic()
        ours = set(harness.children_of(os.getpid()))
        self.setUp()
        try:
            self._measure(result)
        except (AssertionError, OSError, EOFError, Wrong, harness.subprocess.SubprocessError) as error:
            result.wrong = f"{type(error).__name__}: {error}".strip()
        finally:
            self.doCleanups()
        for pid in set(harness.children_of(os.getpid())) - ours:  # orphans come to us: main() is a subreaper
            if harness.is_alive(pid):
                result.wrong = result.wrong or f"left over: {harness.command_line(pid)}"
                os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        if result.wrong:
            result.wrong += "\n" + "\n".join(self.shown())
        result.seconds = time.monotonic() - began
        return result

    def _measure(self, result):
        self.publish(1)
        self.server.make(self)
        gapless = self.start(*self.arguments(), env=self.environment)
        gapless.wait_serving(1)
        targets = self.targets()
        seen = [self.clients.ask(targets[0])]
        load = self.clients.start(self, targets)
        load.enough(gapless)
        for generation in range(2, self.upgrades + 2):
            self.publish(generation)
            done = gapless.verb("upgrade", timeout=UPGRADE_S)
            if self.server.refused:
                result.refused = done.stderr.strip().rpartition("\n")[2]
                self.assertEqual(done.returncode, 1, done.stdout + done.stderr)
                self.assertRegex(gapless.log.text() + done.stderr, self.server.refused)
            else:
                self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
                for target in targets:
                    answered = self.clients.ask(target)
                    self.assertNotIn(answered, seen, f"{target} is answered by an old generation")
                seen.append(answered)
            load.enough(gapless)
            result.upgrades += 1
        result.fresh, result.kept = load.stop()
        captured = bool(gapless.log.find("captured"))
        self.assertEqual(captured, self.recipe.captured, "captured, or not, against the recipe")
        before = harness.descendants_of(gapless.pid)
        self.assertEqual(gapless.terminate(), 0)
        # A process that was killed takes a moment to be gone.
        harness.wait_until(lambda: not any(map(harness.is_alive, before)),
                           lambda: f"the end of {[harness.command_line(pid) for pid in before if harness.is_alive(pid)]}", 2)
        self.judge(result, seen)

    def judge(self, result, seen):
        """Whether the counts are as they must be; `seen` is who answered, generation by generation."""
        self.assertEqual(result.fresh.failed, {}, f"{result.fresh.attempted} attempts")
        self.assertEqual(result.fresh.by, set(seen), "who answered")
        self.assertGreater(result.fresh.attempted, 0)


def prepare():
    """For a program that runs recipes: orphans come to it, and TERM cleans up."""
    ctypes.CDLL(None).prctl(harness.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


def table(rows, names, markdown):
    """Rows of cells as text; the first is the head. The first `names` columns are names, the others figures."""
    if markdown:
        ruler = ["---"] * names + ["---:"] * (len(rows[0]) - names)
        return "\n".join("| " + " | ".join(row) + " |" for row in [rows[0], ruler, *rows[1:]])
    # A text that is followed by empty cells may be longer than its column.
    widths = [max(len(row[column]) for row in rows if any(row[column + 1:]) or column == len(row) - 1) for column in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(width) if column < names else cell.rjust(width)
                               for column, (cell, width) in enumerate(zip(row, widths))).rstrip() for row in rows)


def run(server, recipe, upgrades):
    return Run(server, recipe, upgrades).measure()

#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""Runs real servers with real keep-alive clients and prints a table, server by client, of `failed of attempted`:

    keepalive.py [--markdown] [--upgrades N] [--client CLIENT]… [--off] [--drain KEY=VALUE]… [SERVER…]

Each server is upgraded N times (10) while 64 kept connections of the one client are busy. Ends with 0 if no request failed, 1 if one did or
a run wasn't as it must be, 77 if all were skipped.
"""

import argparse
import dataclasses
import os
import sys

import compat
import exact
import harness
import kept_clients
import servers

# Longer than the suite's: a client that pauses for half a second has to be told in time.
DRAIN = {"quiet": "200ms", "idle_grace": "2s", "timeout": "30s"}
# Clients that aren't told never let go, and 30 s an upgrade shows no more than two.
OFF = {"keepalive": "off", "timeout": "2s"}

# One way of joining each; recipes of docs/servers.md.
WAYS = {
    "nginx": "NGINX=",
    "HAProxy": "fd@",
    "Apache httpd": "captured",
    "lighttpd": "LISTEN_FDS",
    "gunicorn gthread": "LISTEN_FDS",
    "puma": "captured",
    "node": "captured, no listener named",
    "Go": "captured",
}
NATIVE = "examples/hello"

# What a server needs for 64 clients at a time: puma has a thread for each of them, and all from the beginning. With too few, and while it makes
# them one by one, it lets new clients wait for as long as the others are busy, also without gapless.
ENVIRONMENT = {"puma": {"PUMA_MIN_THREADS": "80", "PUMA_MAX_THREADS": "80"}}

# (server, client): how requests may fail there, and why that isn't gapless's.
EXCEPTIONS = {
    ("gunicorn gthread", "Go"): ({"timeout"}, "gunicorn 20.1 by itself, also without gapless and upgrades: now and then all threads of a worker wait in "
                                              "recv() for kept connections on which nothing comes, and it serves nobody any more"),
}


def hello():
    """The native example, with a recipe."""
    program = harness.program("GAPLESS_HELLO")
    return (compat.Server(NATIVE, [program], None, targets=["tcp:127.0.0.1:8080/version"]),
            compat.Recipe(NATIVE, "native", "sh", f"gapless run --listen tcp:127.0.0.1:8080 -- {program}\n"))


def matrix():
    """{name: (Server, Recipe)} of the servers, in the order of the table."""
    known = {server.name: server for server in servers.every()}
    found = {recipe.server: (known[recipe.server], recipe) for recipe in compat.recipes() if WAYS.get(recipe.server) == recipe.way}
    return {name: found[name] for name in WAYS} | {NATIVE: hello()}


def why_not():
    """Why no connection can be told to close here, None where it must be."""
    return exact.why_no_bpf({**exact.CAPABILITIES, "CAP_NET_ADMIN": 12})


class KeptRun(compat.Run):
    def judge(self, result, seen):
        self.assertGreater(result.kept.attempted, 0)
        if self.clients.reads:
            self.assertEqual(result.kept.by, set(seen), "who answered")


@dataclasses.dataclass
class Pair:
    server: str
    client: str
    result: compat.Result

    @property
    def exception(self):
        """Why it doesn't matter that requests failed; None where none did, or where it does."""
        kinds, reason = EXCEPTIONS.get((self.server, self.client), (set(), None))
        return reason if set(self.result.kept.failed) & kinds and set(self.result.kept.failed) <= kinds else None

    @property
    def state(self):
        if self.result.skipped:
            return "skip"
        return "FAIL" if self.result.wrong or self.result.kept.failed and not self.exception else "ok"

    def cell(self):
        if self.result.skipped:
            return "skipped"
        if self.result.wrong:
            return f"wrong after {self.result.upgrades} upgrades"
        failed = sum(self.result.kept.failed.values())
        return f"{failed:,} of {self.result.kept.attempted:,}" + ("*" if self.exception else "")


def run(server, client, upgrades, drain=None):
    """One pair: `server` and `client` are names of the table."""
    (served, recipe), clients = matrix()[server], kept_clients.CLIENTS[client]
    missing = served.missing() or clients.missing()
    if missing:
        return Pair(server, client, compat.Result(server, recipe.way, skipped=missing))
    return Pair(server, client, KeptRun(served, recipe, upgrades, clients, {**DRAIN, **(drain or {})},
                                        ENVIRONMENT.get(server)).measure())


def arguments():
    parser = argparse.ArgumentParser(prog="tools/keepalive", description="Real servers, upgraded under real keep-alive clients; docs/servers.md.")
    parser.add_argument("--markdown", action="store_true", help="print the table of docs/servers.md")
    parser.add_argument("--upgrades", type=int, default=10, metavar="N", help="of each pair (10)")
    parser.add_argument("--client", action="append", choices=list(kept_clients.CLIENTS), help="only this one; may be repeated")
    parser.add_argument("--off", action="store_true", help="for contrast: the clients aren't told (" +
                        ", ".join(f"drain.{key}: {value}" for key, value in OFF.items()) + ")")
    parser.add_argument("--drain", action="append", default=[], metavar="KEY=VALUE", help="a key of drain, instead of the suite's")
    parser.add_argument("names", nargs="*", metavar="SERVER", help="only these servers")
    options = parser.parse_args()
    unknown = [name for name in options.names if name not in matrix()]
    if unknown or not 1 <= options.upgrades <= 10000 or not all("=" in each for each in options.drain):
        parser.error(f"no such server: {', '.join(unknown)}; there are: {', '.join(matrix())}" if unknown else
                     "--upgrades 1 to 10000, --drain KEY=VALUE")
    options.clients = options.client or list(kept_clients.CLIENTS)
    options.servers = [name for name in matrix() if not options.names or name in options.names]
    options.drain = {**(OFF if options.off else {}), **dict(each.split("=", 1) for each in options.drain)}
    return options


def report(pair):
    result = pair.result
    said = result.skipped or (f"{result.upgrades} upgrades, {result.kept} of {result.kept.attempted} failed"
                              f"{': ' + pair.exception if pair.exception else ''}, {result.seconds:.1f} s")
    print(f"{pair.state:5} {pair.server} ({result.way}), {pair.client}: {said}", file=sys.stderr, flush=True)
    for line in result.wrong.splitlines():
        print("      " + line, file=sys.stderr, flush=True)


def table(options, pairs):
    cells = {(pair.server, pair.client): pair.cell() for pair in pairs}
    return compat.table([["server", *options.clients],
                         *([server, *(cells[server, client] for client in options.clients)] for server in options.servers)],
                        1, options.markdown)


def main():
    compat.prepare()
    options = arguments()
    if reason := why_not():
        print(f"skipped: {reason}", file=sys.stderr)
        sys.exit(77)
    pairs = []
    for server in options.servers:
        for client in options.clients:
            pairs.append(run(server, client, options.upgrades, options.drain))
            report(pairs[-1])
    print(table(options, pairs))
    for pair in pairs:
        if pair.exception:
            print(f"{os.linesep}\\* {pair.server}, {pair.client}: {pair.exception}")
    states = [pair.state for pair in pairs]
    print(f"{states.count('ok')} passed, {states.count('FAIL')} failed, {states.count('skip')} skipped", file=sys.stderr)
    sys.exit(1 if "FAIL" in states else 77 if states.count("skip") == len(states) else 0)


if __name__ == "__main__":
    main()

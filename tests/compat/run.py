#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""Runs recipes of docs/servers.md and prints a table: run.py [--markdown] [--way WAY] [UPGRADES] [SERVER…]

Ends with 0 if every run was as it must be, 1 if one wasn't, 77 if all were skipped.
"""

import argparse
import sys

import compat
import servers

COLUMNS = ["server", "joins by", "upgrades", "new connections", "failed", "longest gap", "kept: requests", "failed"]


def cells(result):
    if result.skipped:
        return [result.server, result.way, "skipped: " + result.skipped, "", "", "", "", ""]
    return [result.server, result.way, f"{result.upgrades} refused" if result.refused else str(result.upgrades), f"{result.fresh.attempted:,}",
            str(result.fresh), f"{result.fresh.gap_ms:.0f} ms", f"{result.kept.attempted:,}", str(result.kept)]


def main():
    compat.prepare()
    parser = argparse.ArgumentParser(prog="tools/compat", description="Real servers, upgraded under load; see docs/servers.md.")
    parser.add_argument("--markdown", action="store_true", help="print the table of docs/servers.md")
    parser.add_argument("--way", help="only ways of joining that begin so, such as captured")
    parser.add_argument("names", nargs="*", metavar="[UPGRADES] SERVER", help="how many upgrades of each (10); only these servers")
    options = parser.parse_args()
    upgrades = int(options.names.pop(0)) if options.names and options.names[0].isdigit() else 10
    known = {server.name: server for server in servers.every()}
    unknown = [name for name in options.names if name not in known]
    if unknown or not 1 <= upgrades <= 10000:
        parser.error(f"no such server: {', '.join(unknown)}; there are: {', '.join(known)}" if unknown else "1 to 10000 upgrades")
    results = []
    for recipe in compat.recipes():
        if options.names and recipe.server not in options.names or options.way and not recipe.way.startswith(options.way):
            continue
        server = known[recipe.server]
        missing = server.missing()
        result = compat.Result(server.name, recipe.way, skipped=missing) if missing else compat.run(server, recipe, upgrades)
        results.append(result)
        state = "skip" if result.skipped else "FAIL" if result.wrong else "ok"
        said = result.skipped or (f"{result.upgrades} upgrades, new connections: {result.fresh} of {result.fresh.attempted} failed, "
                                  f"kept: {result.kept} of {result.kept.attempted} failed, {result.seconds:.1f} s")
        print(f"{state:5} {result.server}: {result.way}: {said}", file=sys.stderr, flush=True)
        for line in result.wrong.splitlines() + [result.refused] * bool(result.refused):
            print("      " + line, file=sys.stderr, flush=True)
    print(compat.table([COLUMNS, *map(cells, results)], 2, options.markdown))
    failed, skipped = sum(bool(result.wrong) for result in results), sum(bool(result.skipped) for result in results)
    print(f"{len(results) - failed - skipped} passed, {failed} failed, {skipped} skipped", file=sys.stderr)
    sys.exit(1 if failed else 77 if skipped == len(results) else 0)


if __name__ == "__main__":
    main()

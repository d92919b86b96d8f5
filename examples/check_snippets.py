#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""check_snippets.py PAGE SOURCE…: every block of C or Python in the page is a piece of one of the sources, which are built or run.

Blocks may be indented otherwise as a whole. Each run of lines between blank ones is looked for by itself, in the order
of the source, so that a block can leave something out.
"""

import re
import sys
import textwrap


def runs_of(block):
    return [textwrap.dedent(run).strip("\n").split("\n") for run in re.split(r"\n\s*\n", block) if run.strip()]


def find(run, lines, start):
    """Where the run begins in lines, at or behind start; None."""
    for at in range(start, len(lines) - len(run) + 1):
        if textwrap.dedent("\n".join(lines[at : at + len(run)])).split("\n") == run:
            return at
    return None


def is_part_of(block, lines):
    at = 0
    for run in runs_of(block):
        found = find(run, lines, at)
        if found is None:
            return False
        at = found + len(run)
    return True


def main():
    page = open(sys.argv[1], encoding="utf-8").read()
    sources = [open(name, encoding="utf-8").read().split("\n") for name in sys.argv[2:]]
    blocks = re.findall(r"^```(?:c|python)\n(.*?)^```", page, re.M | re.S)
    strangers = [block for block in blocks if not any(is_part_of(block, lines) for lines in sources)]
    for block in strangers:
        print(f"{sys.argv[1]}: in none of the examples:\n{block}", file=sys.stderr)
    if not blocks:
        print(f"{sys.argv[1]}: no such block at all", file=sys.stderr)
    return 1 if strangers or not blocks else 0


sys.exit(main())

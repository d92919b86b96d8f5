#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""Runs a test program for the figures that its cases print: figures.py CHECKS LOG COMMAND…

Each case is a line as it ends, with its figures below, and what a failed one complained of; the rest goes to the end of
LOG. CHECKS gets a line for each case, for summary.py: `ok NAME`, `fail NAME` or `skip NAME: reason`. The exit code is 0 if
nothing failed.
"""

import os
import re
import subprocess
import sys

WIDTH = 300  # of what a failed case says
CASE = re.compile(r"(not )?ok \d+ - (.*?)(?: # SKIP ?(.*))?$")
PLAN = re.compile(r"1\.\.(\d+)$")
TIME = re.compile(r"# [\d.]+ s$")
GROUP = re.compile(r"# (not )?ok - ")
# Of what the harness prints behind a failure (traces, the ends of logs) what is told here; cmocka's lines are few.
COMPLAINT = re.compile(r"#   (\w*(?:Error|Exception|Exit|Timeout)\w*: .*)$")


class Cases:
    def __init__(self, program, checks):
        self.program, self.checks = program, checks
        self.planned = self.ended = self.failed = 0
        self.notes = []
        self.complains = False

    def read(self, line):
        case, plan = CASE.match(line), PLAN.match(line)
        if case:
            self.end(case[2], "fail" if case[1] else "ok" if case[3] is None else "skip", case[3])
        elif plan:
            self.planned = int(plan[1])
        elif line.startswith("#   ") and self.complains:
            complaint = COMPLAINT.match(line)
            self.tell(complaint[1] if complaint else None)
        elif line.startswith("# ") and not TIME.match(line) and not GROUP.match(line):
            if self.complains and re.search(r": error: |0x|!=", line):
                self.tell(line[2:])
            else:
                self.notes.append(line[2:])

    def end(self, name, result, reason=None):
        print(f"{'FAILED' if result == 'fail' else result:7} {self.program} {name}{': ' + reason if reason else ''}")
        for note in self.notes:
            self.tell(note)
        print(result, f"{self.program}: {name}{': ' + reason if reason else ''}", file=self.checks, flush=True)
        self.notes, self.complains = [], result == "fail"
        self.ended += 1
        self.failed += result == "fail"

    @staticmethod
    def tell(text):
        if text:
            print(f"        {text if len(text) <= WIDTH else text[:WIDTH] + ' …'}", flush=True)


def main():
    checks_path, log_path, *command = sys.argv[1:]
    program = os.path.splitext(os.path.basename(command[0]))[0]
    with open(checks_path, "a", encoding="utf-8") as checks, open(log_path, "a", encoding="utf-8") as log:
        cases = Cases(program, checks)
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              errors="replace") as process:
            for line in process.stdout:
                log.write(line)
                log.flush()
                cases.read(line.rstrip("\n"))
        if cases.ended < max(cases.planned, 1) or process.returncode and not cases.failed:
            cases.end(f"ended with {process.returncode} after {cases.ended} of {cases.planned} cases", "fail")
    return 1 if cases.failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)

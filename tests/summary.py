#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""Counts what tools/test and its like ran: summary.py CHECKS BUILD_DIRECTORY/meson-logs/NAME…

CHECKS has a line `ok NAME`, `fail NAME` or `skip NAME: reason` for each step that is no meson test. The other NAME is
meson's --logbase ("testlog"): NAME.junit.xml has the cases of each test, NAME.json how the whole test ended, so that a
program that died between two cases is counted too. Below what failed stands why, as far as its test said it; what went
before is in meson's log. The last line is `N passed, N failed, N skipped`; the exit code is 0 if nothing failed and
something passed.
"""

import json
import pathlib
import re
import sys
import xml.etree.ElementTree as etree

WHY_LINES, WHY_COLUMNS = 6, 300
BAD = {"FAIL", "ERROR", "TIMEOUT", "INTERRUPT", "UNEXPECTEDPASS"}


class Count:
    def __init__(self):
        self.passed = 0
        self.failed = []
        self.skipped = []

    def add_checks(self, path):
        for line in path.read_text().splitlines():
            result, _, name = line.partition(" ")
            if result == "ok":
                self.passed += 1
            elif result == "skip":
                self.skipped.append(name)
            else:
                self.failed.append(name)

    def add_run(self, base):
        build = base.parent.parent.name
        junit, results = base.with_name(base.name + ".junit.xml"), base.with_name(base.name + ".json")
        if not junit.exists() or not results.exists():
            self.failed.append(f"{build}: meson left no log {base}")
            return
        cases = self._cases(junit)
        for line in results.read_text().splitlines():
            run = json.loads(line)
            label = f"{build}: {run['name'].rpartition(' / ')[2]}"
            bad = 0
            for case, result, reason in cases.get(run["name"], []):
                if result == "passed":
                    self.passed += 1
                elif result == "skipped":
                    self.skipped.append(f"{label}: {case}{': ' + reason if reason else ''}")
                else:
                    bad += 1
                    self.failed.append("\n".join([f"{label}: {case}", *_why(run, case)]))
            if run["result"] in BAD and bad == 0:
                self.failed.append("\n".join([f"{label}: {run['result'].lower()}", *_why(run)]))

    @staticmethod
    def _cases(path):
        """{test: [(case, result, reason)]}"""
        found = {}
        for case in etree.parse(path).getroot().iter("testcase"):
            result = "passed"
            if case.find("skipped") is not None:
                result = "skipped"
            elif case.find("failure") is not None or case.find("error") is not None:
                result = "failed"
            # A test with cases is the class "project.test"; one without is a case of the class "project".
            _, _, test = case.get("classname").partition(".")
            reason = (case.findtext("system-out") or "").strip().partition("\n")[0] if test else ""
            found.setdefault(test or case.get("name"), []).append((case.get("name"), result, reason))
        return found


def _why(run, case=None):
    """What a failed test printed behind its `not ok`: the error with where it was raised, or the first lines. Without a
    case, of a test that died: the last ones."""
    printed = [line for key in ("stdout", "stderr") for line in run.get(key, "").splitlines()]
    if case is None:
        lines = printed[-WHY_LINES:]
    else:
        begin = next((at for at, line in enumerate(printed) if line.strip() == f"not ok {case}"), len(printed)) + 1
        end = next((at for at in range(begin, len(printed)) if not printed[at].startswith("#")), len(printed))
        error = next((at for at in range(begin, end) if re.match(r"#\s+(\w+\.)*\w*(Error|Exception|Expired)\b", printed[at])), None)
        lines = printed[max(begin, error - 3):min(end, error + 2)] if error else printed[begin:min(end, begin + WHY_LINES)]
    return [f"    {line[:WHY_COLUMNS]}" for line in lines]


def main():
    count = Count()
    count.add_checks(pathlib.Path(sys.argv[1]))
    for base in sys.argv[2:]:
        count.add_run(pathlib.Path(base))
    for name in count.skipped:
        print(f"skipped  {name}")
    for name in count.failed:
        print(f"FAILED   {name}")
    print(f"{count.passed} passed, {len(count.failed)} failed, {len(count.skipped)} skipped")
    return 1 if count.failed or not count.passed else 0


if __name__ == "__main__":
    sys.exit(main())

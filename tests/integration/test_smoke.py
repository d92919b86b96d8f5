#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""`smoke`: the new generation is asked, alone, before it gets traffic; where a test fails the upgrade has failed, `gapless upgrade`
says why, and the old generation never stopped serving."""

import json
import shlex

import exact
import harness


class Smoked:
    def setUp(self):
        super().setUp()
        self.open_address()

    def install_server(self, version):
        command = shlex.join([harness.program("GAPLESS_HELLO"), "--version-name", version])
        self.write("server", f"#!/bin/sh\nexec {command}\n", 0o755)

    def serve_smoked(self, *tests, **keys):
        self.install_server("one")
        # Strings of JSON are strings of YAML.
        lines = ["services:", "  web:", f"    command: [{json.dumps(str(self.dir / 'server'))}]", f"    listen: [{json.dumps('web=' + self.listen)}]",
                 "    drain: {quiet: 50ms, idle_grace: 0s}", "    observe: {window: 0s}", "    smoke:"]
        lines += [f"      - {json.dumps(test)}" for test in tests]
        lines += [f"    {key}: {json.dumps(value)}" for key, value in keys.items()]
        self.write("gapless.yaml", "\n".join(lines) + "\n")
        return self.serve("-c", str(self.dir / "gapless.yaml"))

    def upgrade(self, gapless):
        self.install_server("two")
        return gapless.verb("upgrade")

    def fails(self, *tests, reason, **keys):
        """The tests must pass for the first generation, which may be asked, too."""
        gapless = self.serve_smoked(*tests, **keys)
        load = harness.Load(self, "--rate", 200, "--by-body", self.target)
        result = self.upgrade(gapless)
        self.assertEqual(result.returncode, 1, result)
        self.assertIn(reason, result.stdout + result.stderr)
        harness.wait_until(lambda: len(gapless.service()["generations"]) == 1, "the failed generation to be gone")
        report = load.stop()
        self.assert_clean(report)
        self.assertEqual(set(report["by"]), {"one generation 1"})
        self.assertEqual(gapless.terminate(), 0)

    def test_new_version_that_passes_gets_the_traffic(self):
        script = ("exec 3<>/dev/tcp/127.0.0.1/${GAPLESS_ADDRESS#*:}; printf 'GET /version HTTP/1.0\\r\\n\\r\\n' >&3; "
                  "cat <&3 >\"$GAPLESS_ADDRESS_FILE.$GAPLESS_NEW_GENERATION\"")
        record = self.dir / "answer"
        gapless = self.serve_smoked("http:/version,status=200,body=^(one|two)", "web=tcp",
                                    f"run:bash -c {shlex.quote(script.replace('$GAPLESS_ADDRESS_FILE', str(record)))}")
        load = harness.Load(self, "--rate", 200, "--by-body", self.target)
        result = self.upgrade(gapless)
        self.assertEqual(result.returncode, 0, result)
        gapless.wait_requests()
        report = load.stop()
        self.assert_clean(report)
        self.assertEqual(set(report["by"]), {"one generation 1", "two generation 2"})
        # The command was at the new generation, while the old one had the address.
        with open(f"{record}.2", encoding="utf-8") as file:
            self.assertIn("two generation 2", file.read())

    def test_wrong_answer_fails_the_upgrade(self):
        self.fails("http:/version,body=^one", reason="smoke test http:/version,body=^one: '^one' isn't found in the body")


@exact.needs_bpf
class TcpTest(Smoked, harness.TestCase):
    def open_address(self):
        self.listen = f"tcp:127.0.0.1:{harness.free_port()}"
        self.target = f"{self.listen}/version"

    def test_command_that_fails_says_why(self):
        self.fails("run:sh -c 'echo no checkout >&2; exit $((GAPLESS_NEW_GENERATION - 1))'", reason="ended with 1: no checkout")

    def test_tests_that_take_too_long_fail_the_upgrade(self):
        self.fails("run:sh -c '[ $GAPLESS_NEW_GENERATION = 1 ] || sleep 60'", reason="was not done within", smoke_timeout="500ms")


class PathTest(Smoked, harness.TestCase):
    def open_address(self):
        self.listen = f"unix:{self.dir}/web{len(self.started)}.sock"
        self.target = f"{self.listen}:/version"


if __name__ == "__main__":
    harness.main(at_a_time=3)

#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""What an operator can get wrong: one line with place, reason and near spelling; exit 2; nothing started."""

import os

import harness


class BadInputTest(harness.TestCase):
    def refused(self, arguments, *words, env=None):
        """`gapless ARGUMENTS` ends with 2, says one line that has the words, and has started and left nothing."""
        before = set(os.listdir(self.dir))
        done = harness.run_gapless(*arguments, cwd=self.dir, env=env)
        what = f"{arguments}: {done.returncode} {done.stdout!r} {done.stderr!r}"
        self.assertEqual(done.returncode, 2, what)
        self.assertEqual(done.stdout, "", what)
        self.assertEqual(done.stderr.count("\n"), 1, what)
        for word in words:
            self.assertIn(word, done.stderr, what)
        self.assertEqual(set(os.listdir(self.dir)), before, what)

    def run_refused(self, flags, *words):
        touch = ["--", "/usr/bin/touch", str(self.dir / "started")]
        self.refused(["run", "--admin", str(self.dir / "admin.sock"), *flags, *touch], *words)

    def test_verbs(self):
        for arguments, words in [
            (["upgarde"], ["upgarde", "upgrade"]),
            (["--no-such-flag"], ["--no-such-flag"]),
            (["status", "surplus", "words"], ["surplus"]),
            (["status", "--jsno"], ["--jsno", "--json"]),
            (["stop", "--admin"], ["--admin"]),
            (["upgrade", "--admin", ""], ["admin"]),
            (["status", "--admin", "/" + "x" * 200], ["long"]),
        ]:
            with self.subTest(arguments=arguments):
                self.refused(arguments, *words)

    def test_no_verb_at_all_shows_the_usage(self):
        done = harness.run_gapless()
        self.assertEqual((done.returncode, done.stdout), (2, ""))
        self.assertIn("usage: gapless", done.stderr)

    def test_flags_of_run(self):
        for flags, words in [
            (["--wokers", "2"], ["--wokers", "--workers"]),
            (["-X"], ["-X"]),
            (["--workers"], ["--workers"]),
            (["-n", "0"], ["0"]),
            (["-n", "two"], ["two"]),
            (["-n", "-1"], ["-1"]),
            (["-n", "99999999999999999999"], ["99999999999999999999"]),
            (["--name", "a/b"], ["a/b"]),
            (["--nice", "20"], ["20"]),
            (["--umask", "888"], ["888"]),
            (["--env", "NOVALUE"], ["NOVALUE"]),
            (["--env", "=x"], ["=x"]),
            (["--rlimit", "nofil=5"], ["nofil", "nofile"]),
            (["--rlimit", "nofile=x"], ["--rlimit", "x"]),
            (["--rlimit", "nofile=20:10"], ["--rlimit", "20:10"]),
            (["--capabilities", "net_bind_servic"], ["net_bind_servic", "net_bind_service"]),
            (["--activation", "einhron"], ["einhron", "einhorn"]),
            (["--restart", "sometimes"], ["sometimes", "always"]),
            (["--ready-alive", "1"], ["1"]),
            (["--ready-timeout", "fast"], ["fast"]),
            (["--ready-timeout", "-1s"], ["-1s"]),
            (["--drain-signal", "KILL"], ["KILL"]),
            (["--drain-signal", "QIUT"], ["QIUT", "QUIT"]),
            (["--stop-signal", "0"], ["0"]),
            (["--stop-grace", "1parsec"], ["1parsec"]),
            (["--log", "xml"], ["xml"]),
            (["--user", ""], ["user"]),
            (["--no-such\nflag"], ["no-such"]),
        ]:
            with self.subTest(flags=flags):
                self.run_refused(flags, *words)

    def test_command(self):
        admin = ["--admin", str(self.dir / "admin.sock")]
        self.refused(["run", *admin], "command")
        self.refused(["run", *admin, "--"], "command")
        self.refused(["run", *admin, "--", ""], "command")

    def test_listener_specifications(self):
        for spec, words in [
            ("", []),
            ("tcp", ["tcp"]),
            ("tpc:80", ["tpc", "tcp"]),
            ("tcp:", ["tcp:"]),
            ("tcp:70000", ["70000"]),
            ("tcp:80x", ["80x"]),
            ("tcp:[::1:80", ["["]),
            ("tcp:::1:80", ["::1:80", "[::1]"]),
            ("tcp:80,backlog", ["backlog"]),
            ("tcp:80,backlog=many", ["backlog", "many"]),
            ("tcp:80,baklog=5", ["baklog", "backlog"]),
            ("tcp:80,mode=0600", ["mode"]),
            ("tcp:127.0.0.1:80,v6only", ["v6only"]),
            ("udp:53,backlog=5", ["backlog"]),
            ("unix:", ["path"]),
            ("unix:relative", ["relative"]),
            ("unix:@", ["@"]),
            ("unix:/" + "x" * 200, ["long"]),
            ("unix:/x,type=raw", ["raw"]),
            ("unix:/x,mode=99", ["99"]),
            ("unix:@x,mode=0600", ["mode"]),
            ("fd:", ["descriptor"]),
            ("=tcp:80", []),
        ]:
            with self.subTest(spec=spec):
                self.run_refused(["-l", spec], *words)

    def test_two_listeners_of_one_name_or_one_address(self):
        self.run_refused(["-l", "web=tcp:127.0.0.1:1", "-l", "web=tcp:127.0.0.1:2"], "name", "127.0.0.1:2")
        self.run_refused(["-l", "a=tcp:127.0.0.1:1", "-l", "b=tcp:127.0.0.1:1"], "127.0.0.1:1")

    def yaml_refused(self, text, place, *words):
        path = self.write("gapless.yaml", text.replace("DIR", str(self.dir)))
        self.refused(["run", "-c", path], f"{path}:{place}", *words)

    def test_yaml(self):
        command = "    command: [/usr/bin/touch, DIR/started]\n"
        for text, place, words in [
            ("services:\n  web:\n    comand: [x]\n", 3, ["comand", "command"]),
            ("servces:\n  web:\n", 1, ["servces", "services"]),
            ("services:\n  web:\n" + command + "    workers: many\n", 4, ["workers", "many"]),
            ("services:\n  web:\n" + command + "    workers: 1\n    workers: 2\n", 5, ["workers"]),
            ("services:\n  web:\n" + command + "    listen: tcp:99999\n", 4, ["listen", "99999"]),
            ("services:\n  web:\n" + command + "    listen: [tcp:81, tpc:80]\n", 4, ["tpc", "tcp"]),
            ("services:\n  web:\n" + command + "    drain: {signal: QIUT}\n", 4, ["QIUT", "QUIT"]),
            ("services:\n  web:\n" + command + "    drain: {sginal: QUIT}\n", 4, ["sginal", "signal"]),
            ("services:\n  web:\n" + command + "    drain: QUIT\n", 4, ["drain"]),
            ("services:\n  web:\n" + command + "    ready: {alive: 1}\n", 4, ["alive"]),
            ("services:\n  web:\n" + command + "    env: {A=B: x}\n", 4, ["env"]),
            ("services:\n  web:\n" + command + "    restart: [always]\n", 4, ["restart"]),
            ("services:\n  a/b:\n" + command, 2, ["a/b"]),
            ("services:\n  web:\n" + command + "  web:\n" + command, 4, ["web"]),
            ("services:\n  web:\n    workers: 1\n", 2, ["command"]),
            ("services: {}\n", 1, ["services"]),
            ("services:\n", 1, ["services"]),
            ("- a\n- b\n", 1, []),
            ("services: [\n", 2, []),
            ("services:\n\tweb: x\n", 2, []),
            ("name: *nowhere\n", 1, []),
            ("", "", ["empty"]),
            ("log: [text]\nservices:\n  web:\n" + command, 1, ["log"]),
        ]:
            with self.subTest(text=text):
                self.yaml_refused(text, place, *words)

    def test_file_and_command_exclude_each_other(self):
        path = self.write("gapless.yaml", "services:\n  web:\n    command: [x]\n")
        self.run_refused(["-c", path], "-c")

    def test_configuration_that_cannot_be_read_is_named(self):
        for path in (self.dir / "none.yaml", self.dir):
            with self.subTest(path=path):
                done = harness.run_gapless("run", "-c", path)
                self.assertIn(done.returncode, (1, 2))
                self.assertEqual(done.stderr.count("\n"), 1)
                self.assertIn(str(path), done.stderr)


class HostTest(harness.TestCase):
    """Input that is well formed and can't be had: named, exit 1, nothing started. More in test_listeners.py."""

    def refused(self, *arguments, word):
        self.assert_cannot_start(self.start(*arguments), word)

    def test_missing_user(self):
        self.refused("--user", "no-such-user", *self.worker(), word="no-such-user")

    def test_missing_group(self):
        self.refused("--group", "no-such-group", *self.worker(), word="no-such-group")

    def test_missing_directory(self):
        self.refused("--cwd", str(self.dir / "none"), *self.worker(), word=str(self.dir / "none"))

    def test_admin_path_in_use(self):
        first = self.serve(*self.worker())
        for path in self.dir.glob("dump*"):
            path.unlink()
        second = self.start(*self.worker(), admin=first.admin)
        self.assert_cannot_start(second, first.admin)
        first.wait_serving(1)

    def test_pid_file_that_cannot_be_written(self):
        self.refused("--pid-file", str(self.dir / "none" / "pid"), *self.worker(), word=str(self.dir / "none" / "pid"))


if __name__ == "__main__":
    harness.main()

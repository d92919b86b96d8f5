# SPDX-License-Identifier: BSD-2-Clause
"""Programs that bind their own port and know nothing, in several languages. Their answer is GAPLESS_GENERATION, or a file."""

import shutil

from compat import Http, Server


def copy(name):
    return lambda run: shutil.copy2(run.program(name), run.dir / name)


def compiled(*command, **environment):
    """`command` makes a program of the last argument, which is in tests/compat/programs/."""
    return lambda run: run.command(*command[:-1], run.program(command[-1]), **environment)


SERVERS = [
    Server("python3 -m http.server", ["/usr/bin/python3"], Http(200), lambda version: {"index.html": f"{version}\n"}),
    Server("node", ["/usr/bin/node"], Http(500), make=copy("server.js")),
    Server("node cluster", ["/usr/bin/node"], Http(300), make=copy("cluster.js")),
    Server("C, -static", ["/usr/bin/gcc"], Http(1000),
           make=compiled("gcc", "-O2", "-static", "-pthread", "-D_GNU_SOURCE", "-o", "/srv/server", "server.c")),
    Server("Go", ["/usr/bin/go"], Http(1000),
           make=compiled("go", "build", "-o", "/srv/server", "server.go", CGO_ENABLED="0", GO111MODULE="off")),
    Server("Rust", ["/usr/bin/rustc"], Http(1000), make=compiled("rustc", "-O", "-o", "/srv/server", "server.rs")),
    Server("Java, HttpServer", ["/usr/bin/java", "/usr/bin/javac"], Http(150), make=compiled("javac", "-d", "/srv", "Http.java")),
    Server("Java, NIO", ["/usr/bin/java", "/usr/bin/javac"], Http(150), make=compiled("javac", "-d", "/srv", "Nio.java")),
]

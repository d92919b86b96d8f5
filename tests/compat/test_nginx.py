#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""Debian's nginx, unmodified, upgraded by SIGHUP under load: its sockets by NGINX=, QUIT as the drain signal."""

import os
import pathlib
import shutil
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "integration"))
import exact  # noqa: E402
import harness  # noqa: E402  (the line above says where it is)
import upgrades  # noqa: E402

READY = '{probe: "http:/"}' if exact.why_no_bpf() is None else "{alive: 1s}"
NGINX = shutil.which("nginx", path="/usr/sbin")  # Debian's


@unittest.skipUnless(NGINX, "nginx is not installed")
class NginxTest(upgrades.CompatTest):
    def configure(self, version):
        """nginx.conf of that version. It listens where gapless does: nginx finds the addresses in NGINX's sockets."""
        logs = self.dir / "nginx"
        logs.mkdir(exist_ok=True)
        user = "user root;" if os.getuid() == 0 else ""
        return self.write("nginx.conf", f"""
daemon off;
master_process on;
worker_processes 2;
{user}
pid {logs}/nginx.pid;
error_log {logs}/error.log;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    client_body_temp_path {logs}/body;
    proxy_temp_path {logs}/proxy;
    fastcgi_temp_path {logs}/fastcgi;
    uwsgi_temp_path {logs}/uwsgi;
    scgi_temp_path {logs}/scgi;
    server {{
        listen 127.0.0.1:{self.port};
        listen unix:{self.path};
        location / {{ default_type text/plain; return 200 "{version}\\n"; }}
    }}
}}
""")

    def service(self):
        return f"""
    command: [{NGINX}, -p, {self.dir}/nginx, -e, {self.dir}/nginx/error.log, -c, {self.dir}/nginx.conf]
    env: {{NGINX: "{{fds:;}}"}}
    ready: {READY}
    drain: {{signal: QUIT}}
"""

    def test_nothing_fails_over_tcp(self):
        self.upgrade_under_load(unix=False)

    def test_nothing_fails_over_a_unix_socket(self):
        self.upgrade_under_load(unix=True)


if __name__ == "__main__":
    harness.main()

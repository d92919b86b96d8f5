# SPDX-License-Identifier: BSD-2-Clause
"""Application servers of Python and Ruby, each with the smallest application."""

from compat import Http, Server


def wsgi(version):
    return {"application.py": f"""
def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "{len(str(version)) + 1}")])
    return [b"{version}\\n"]
"""}


def asgi(version):
    return {"application.py": f"""
async def application(scope, receive, send):
    if scope["type"] == "http":
        await send({{"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"{len(str(version)) + 1}")]}})
        await send({{"type": "http.response.body", "body": b"{version}\\n"}})
"""}


def rack(version):
    return {"config.ru": f"""run lambda {{ |env| [200, {{"content-length" => "{len(str(version)) + 1}"}}, ["{version}\\n"]] }}\n"""}


SERVERS = [
    Server("gunicorn", ["/usr/bin/gunicorn"], Http(300), wsgi),
    Server("gunicorn gthread", ["/usr/bin/gunicorn"], Http(300), wsgi),
    Server("uvicorn", ["/usr/bin/uvicorn"], Http(200), asgi),
    Server("uWSGI", ["/usr/bin/uwsgi", "/usr/lib/uwsgi/plugins/python3_plugin.so"], Http(500), wsgi),
    Server("puma", ["/usr/bin/puma"], Http(200, kept=2), rack),  # each kept client has one of its five threads
    Server("unicorn", ["/usr/bin/unicorn"], Http(200), rack),
]

#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""Busy clients of requests (urllib3's pools) on kept connections, each a thread with a Session: client.py URL N. TERM ends them, each
after its request; then one line of JSON says how many requests there were, how many failed and how, and who answered (the bodies' first lines).

With max_retries=0 urllib3 sends nothing again. It looks whether a kept connection has ended before it sends on it.
"""

import collections
import http.client
import json
import signal
import sys
import threading
import time

import requests
import requests.adapters

KINDS = [(http.client.RemoteDisconnected, "cut"), (ConnectionResetError, "reset"), (BrokenPipeError, "reset"),
         (ConnectionRefusedError, "refused"), (http.client.IncompleteRead, "cut_mid_answer"), (requests.exceptions.Timeout, "timeout")]


def kind_of(error):
    """By the innermost reason that is known."""
    found, chain = type(error).__name__, [error]
    while chain:
        each = chain.pop()
        found = next((kind for known, kind in KINDS if isinstance(each, known)), found)
        chain += [inner for inner in (*getattr(each, "args", ()), getattr(each, "reason", None)) if isinstance(inner, BaseException)]
    return found


def ask(session, url):
    """One request: who answered, and how it failed."""
    try:
        answer = session.get(url, timeout=30)
    except requests.exceptions.RequestException as error:
        return None, kind_of(error)
    length = answer.headers.get("Content-Length")
    if length is not None and int(length) != len(answer.content):  # this urllib3 doesn't mind
        return None, "cut_mid_answer"
    if answer.status_code != 200:
        return None, f"status {answer.status_code}"
    return answer.text.partition("\n")[0], None


def main():
    url, number = sys.argv[1], int(sys.argv[2])
    failed, by, attempted = collections.Counter(), set(), 0
    lock, end = threading.Lock(), threading.Event()

    def client():
        nonlocal attempted
        with requests.Session() as session:
            session.trust_env = False
            session.mount("http://", requests.adapters.HTTPAdapter(pool_connections=1, pool_maxsize=1, max_retries=0))
            while not end.is_set():
                who, kind = ask(session, url)
                with lock:
                    attempted += 1
                    failed.update([kind] if kind else [])
                    by.update([who] if who else [])
                if kind:
                    time.sleep(0.05)

    signal.signal(signal.SIGTERM, lambda *_: end.set())
    threads = [threading.Thread(target=client) for _ in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps({"attempted": attempted, "failed": failed, "by": {who: True for who in by}}), flush=True)


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: BSD-2-Clause
"""Asks a server whose connections are being wound up and one whose aren't for the same answers, and compares them byte by byte.

The server is tests/helpers/answers: what it answers depends on the seed in the request alone. The parser here is nobody's but this
file's (RFC 9112, strict), the comparison knows the only three changes that a head may show (`change()`), and when one has to be
there (`wanted()`). Everything else is a difference, and a difference is raised as Wrong.

An Asker is a process with connections to both servers; askers() starts several.
"""

import contextlib
import multiprocessing
import random
import re
import select
import socket
import struct
import traceback

import harness

REQUEST_BYTES = 160
BATCH_MOST = 8
GROUP = 16  # connections that are asked at the same time
HEAD_MOST = 16384  # a longer head is left alone
ROOM = 16384  # so much may wait in the socket and there is room for a line
MESSAGE = 65536  # so much of a send is surely one message of the kernel's
HEAD_BLUR = 64  # what may or may not be counted into that

# How a server takes several requests that came at once:
SINGLE = "single"  # there is only one
ONE = "one"  # one by one; the others wait unread
JOINED = "joined"  # reads all, and answers all by one system call
CUT = "cut"  # reads all, makes one text of all answers, and cuts that anywhere when it sends it
APART = "apart"  # reads all, and answers one by one. Here and there nobody can see that more are owed
HOW = (SINGLE, ONE, JOINED, SINGLE, CUT, APART)
WHOLE, VECTORS, NONBLOCKING, URING = 0, 1, 10, 13  # plans of the server, enum plan; the first two for JOINED


class Wrong(Exception):
    """What the answers should not be."""


class Incomplete(Exception):
    """There is more to come."""


# ---- the parser ----

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_TEXT = rb"[^\x00-\x08\x0a-\x1f\x7f]*"
_HEAD = re.compile(rb"HTTP/1\.([01]) ([1-9]\d\d)(?: " + _TEXT + rb")?\r?\n"
                   rb"(?:" + _TOKEN + rb":" + _TEXT + rb"\r?\n(?:[ \t]" + _TEXT + rb"\r?\n)*)*\r\n")
_FIELD = re.compile(rb"\n(connection|keep-alive|content-length|transfer-encoding):[ \t]*([^\r\n]*?)[ \t]*(?=\r?\n)", re.I)
_CHUNK = re.compile(rb"([0-9a-fA-F]+)((?:;" + _TOKEN + rb"(?:=(?:" + _TOKEN + rb'|"[^"\r\n]*"))?)*)\r\n')
_TRAILERS = re.compile(rb"(?:" + _TOKEN + rb":" + _TEXT + rb"\r\n)*\r\n")
_ODD = re.compile(rb"[^\r]\n|\n[ \t]")  # a bare LF, a folded field
_BEFORE_CHUNK_END = 8192
CHUNK_DIGITS = 7  # the size of a chunk that has more isn't understood by the program


def options_of(value):
    """The options that a Connection field lists, in lower case."""
    return [option.strip(b" \t").lower() for option in value.split(b",")]


class Answer:
    """One final answer and the interim ones before it, as they stood in the stream."""

    __slots__ = ("raw", "interim", "head", "version", "status", "lengths", "chunked", "options", "keep_alive", "until_close",
                 "odd_chunks", "head_method")

    def __init__(self, data, start, head_method, ended):
        at = start
        while True:
            match = _HEAD.match(data, at)
            if not match:
                if data.find(b"\n\r\n", at) >= 0 or ended:
                    raise Wrong(f"no head of an answer: {data[at:at + 200]!r}")
                raise Incomplete
            self.status = int(match[2])
            if self.status >= 200 or self.status == 101:
                break
            at = match.end()
        self.interim = data[start:at]
        self.head = match[0]
        self.version = int(match[1])
        self._read_fields()
        end = self._end(data, match.end(), head_method, ended)
        self.raw = data[start:end]

    def _read_fields(self):
        self.lengths, self.options, self.keep_alive, self.chunked = [], [], [], False
        for name, value in _FIELD.findall(self.head):
            name = name.lower()
            if name == b"connection":
                self.options += options_of(value)
            elif name == b"keep-alive":
                self.keep_alive.append(value)
            elif name == b"content-length":
                if not value.isdigit():
                    raise Wrong(f"Content-Length: {value!r}")
                self.lengths.append(int(value))
            elif value.lower() == b"chunked":
                self.chunked = True
            else:
                raise Wrong(f"Transfer-Encoding: {value!r}")

    def _end(self, data, at, head_method, ended):
        self.head_method = head_method
        self.until_close = self.odd_chunks = False
        if head_method or self.status in (204, 304):
            return at
        if self.chunked:
            return self._end_of_chunks(data, at)
        if self.lengths and self.status != 101:
            if at + self.lengths[0] > len(data):
                raise Incomplete
            return at + self.lengths[0]
        self.until_close = True
        if not ended:
            raise Incomplete
        return len(data)

    def _end_of_chunks(self, data, at):
        while True:
            match = _CHUNK.match(data, at)
            if not match:
                if len(data) - at > _BEFORE_CHUNK_END or data.find(b"\n", at) >= 0:
                    raise Wrong(f"no chunk at {at}: {data[at:at + 80]!r}")
                raise Incomplete
            size, at = int(match[1], 16), match.end()
            if len(match[1]) > CHUNK_DIGITS:
                self.odd_chunks = True
            if size == 0:
                break
            at += size
            if at + 2 > len(data):
                raise Incomplete
            if data[at:at + 2] != b"\r\n":
                raise Wrong(f"a chunk doesn't end at {at}: {data[at - 20:at + 20]!r}")
            at += 2
        match = _TRAILERS.match(data, at)
        if not match:
            if data.find(b"\n\r\n", at) >= 0:
                raise Wrong(f"no trailers: {data[at:at + 200]!r}")
            raise Incomplete
        if len(match[0]) > 2:
            self.odd_chunks = True
        return match.end()

    def says_close(self):
        return b"close" in self.options

    def ends(self):
        """The connection ends after it, whatever the client does."""
        return (self.says_close() or self.until_close or
                (self.version == 0 and b"keep-alive" not in self.options))


class Stream:
    """The answers to so many requests, as their bytes come."""

    def __init__(self, head_methods):
        self.answers, self.data = [], bytearray()
        self._head_methods, self._at = head_methods, 0

    def parse(self, ended=False):
        """True when all are there; Wrong where there is more."""
        data = bytes(memoryview(self.data)[self._at:])
        at = 0
        try:
            while len(self.answers) < len(self._head_methods):
                answer = Answer(data, at, self._head_methods[len(self.answers)], ended)
                self.answers.append(answer)
                at += len(answer.raw)
        except Incomplete:
            self._at += at
            return False
        if at != len(data):
            raise Wrong(f"{len(data) - at} bytes behind the last answer: {data[at:at + 200]!r}")
        return True


def parse(data, head_methods):
    """The answers that are all of these bytes."""
    stream = Stream(head_methods)
    stream.data += data
    if not stream.parse():
        raise Wrong(f"{len(stream.answers)} of {len(head_methods)} answers are whole")
    return stream.answers


# ---- the comparison ----

INSERTED = b"Connection: close\r\n"
IN_PLACE, FIELD, INSERT, NOTHING, ANYTHING = "in place", "field", "insert", "nothing", "anything"


def wanted(answer):
    """What an unchanged answer is to be changed to: IN_PLACE, FIELD, INSERT or NOTHING; ANYTHING: may be left as well."""
    head = answer.head
    size = len(head)
    if size > HEAD_MOST + HEAD_BLUR or answer.status == 101 or answer.says_close() or _ODD.search(head):
        return NOTHING
    if answer.version == 0 and b"keep-alive" not in answer.options:
        return NOTHING
    if len(set(answer.lengths)) > 1 or (answer.lengths and answer.chunked):
        return NOTHING
    if not answer.lengths and not answer.chunked and answer.status not in (204, 304):
        return NOTHING
    if size > HEAD_MOST - HEAD_BLUR or len(answer.lengths) > 1 or answer.odd_chunks:
        return ANYTHING
    content = len(answer.interim) + size
    if answer.raw[content:content + 1] == b"H":  # another answer, after one to HEAD?
        return ANYTHING
    if b"keep-alive" in answer.options:
        return IN_PLACE
    if any(len(line) >= 17 and line.lower().startswith(b"keep-alive:") for line in head.split(b"\r\n")):
        return FIELD
    return INSERT


def _change_of_line(before, after):
    """What one line of a head was changed to, where that is legal."""
    name, _, value = before.partition(b":")
    if name.lower() == b"keep-alive" and len(before) >= 17 and after == b"Connection: close".ljust(len(before)):
        return FIELD
    if name.lower() != b"connection" or not after.startswith(name + b":"):
        return None
    old, new = value.split(b","), after[len(name) + 1:].split(b",")
    if len(old) != len(new):
        return None
    for one, other in zip(old, new):
        option = one.strip(b" \t")
        if one != other and (option.lower() != b"keep-alive" or one.replace(option, b"close".ljust(len(option))) != other):
            return None
    return IN_PLACE


def change(before, after):
    """How the head `after` differs from `before`: NOTHING, IN_PLACE, FIELD, INSERT; all else is Wrong."""
    if before == after:
        return NOTHING
    if len(after) == len(before) + len(INSERTED):
        line = before.index(b"\n") + 1
        if after == before[:line] + INSERTED + before[line:]:
            return INSERT
        raise Wrong(f"something was inserted: {_differing(before, after)}")
    if len(after) != len(before):
        raise Wrong(f"the head has {len(after)} bytes instead of {len(before)}: {_differing(before, after)}")
    kinds = {_change_of_line(one, other) for one, other in zip(before.split(b"\r\n"), after.split(b"\r\n")) if one != other}
    if not kinds or None in kinds or before.count(b"\r\n") != after.count(b"\r\n"):
        raise Wrong(f"the head was changed: {_differing(before, after)}")
    return IN_PLACE if IN_PLACE in kinds else FIELD


def _differing(before, after):
    """Where two texts begin to differ, for a message."""
    low, high = 0, min(len(before), len(after))
    while low < high:
        middle = (low + high + 1) // 2
        if before[:middle] == after[:middle]:
            low = middle
        else:
            high = middle - 1
    start = max(low - 40, 0)
    return f"from byte {low} of {len(before)}: {before[start:low + 80]!r} became {after[start:low + 80]!r}"


class Counts(dict):
    """How many of what there were, by name."""

    def add(self, key, number=1):
        self[key] = self.get(key, 0) + number


def _compare_one(old, new):
    """How one answer was changed; how it may be."""
    if old.interim != new.interim:
        raise Wrong(f"an interim answer was changed: {_differing(old.interim, new.interim)}")
    kind, best = change(old.head, new.head), wanted(old)
    if old.raw[len(old.interim) + len(old.head):] != new.raw[len(new.interim) + len(new.head):]:
        raise Wrong(f"the content was changed: {_differing(old.raw, new.raw)}")
    if kind not in (NOTHING, best) and best != ANYTHING:
        raise Wrong(f"changed by {kind}, not by {best}: {_differing(old.head, new.head)}")
    if kind != NOTHING and not new.says_close():
        raise Wrong(f"changed, and doesn't say close: {new.head!r}")
    return kind, best


def _is_due(before, how):
    """The last of these answers has to say close, if anything can make it do so."""
    size, best = sum(len(answer.raw) for answer in before), wanted(before[-1])
    if best in (NOTHING, ANYTHING) or size - len(before[-1].raw) > ROOM:
        return False
    if how == JOINED:  # the program has to find its way from one to the next, and is sure only where it sees the end
        return size < MESSAGE and not any(
            answer.head_method or wanted(answer) in (NOTHING, ANYTHING) for answer in before)
    return how in (SINGLE, ONE)


def compare(before, after, how, counts, must=False):
    """The answers to what was asked at once, from the one server and the other. `must`: the last one has to say close, where the
    server takes one request at a time, or answers all in one go. True if the client was told."""
    told, size = False, sum(len(answer.raw) for answer in before)
    for number, (old, new) in enumerate(zip(before, after), 1):
        where, last = f"answer {number} of {len(before)} ({how})", number == len(before)
        try:
            kind, best = _compare_one(old, new)
        except Wrong as wrong:
            raise Wrong(f"{where}: {wrong}") from None
        if kind != NOTHING and told:
            raise Wrong(f"{where}: says close once more: {_differing(old.head, new.head)}")
        if kind != NOTHING and not last:
            counts.add(f"early {how}")
            if how in (SINGLE, ONE) or (how == JOINED and (number > 1 or size < MESSAGE)):
                raise Wrong(f"{where}: says close, and is not the last: {_differing(old.head, new.head)}")
        told = told or kind != NOTHING
        if last and not told and best not in (NOTHING, ANYTHING):
            counts.add(f"untold {how}")
            if must and _is_due(before, how):
                raise Wrong(f"{where}: says nothing, {best} was wanted: {old.head[:200]!r}")
        counts.add("answers")
        counts.add("bytes", len(new.raw))
        counts.add(kind)
    if told:
        counts.add(f"told {how}")
    return told


# ---- asking ----


class Request:
    """One request of a batch: the same text for both servers."""

    def __init__(self, path, method="GET", content=b""):
        self.path, self.method, self.content = path, method, content
        start = f"{method} {path} HTTP/1.1\r\nHost: test\r\n".encode()
        if content:
            self.text = start + f"Content-Length: {len(content)}\r\n\r\n".encode() + content
        else:
            self.text = start + b"X-Pad: ".ljust(REQUEST_BYTES - len(start) - 4, b"-") + b"\r\n\r\n"

    def __str__(self):
        return f"{self.method}:{self.path}" + (f":{len(self.content)}" if self.content else "")

    @classmethod
    def given(cls, text):
        """The request that __str__() shows; of its content only the length is known."""
        method, path, *size = text.split(":")
        return cls(path, method, bytes(int(size[0])) if size else b"")


class Pair:
    """A connection to each of the two servers, on which the same is asked."""

    def __init__(self, subject, reference, how, slow=False, sndbuf=0, plan=None, zerocopy=False,
                 patience=harness.PATIENCE):
        self.how, self.slow = how, slow
        self.room = not slow and not sndbuf and not zerocopy  # a head can be held back, a line be inserted
        # With loopback's segments of 64 KiB a small buffer means to wait for timers.
        segment = 1448 if slow or sndbuf else 0
        self.subject, self.reference = self._connect(subject, slow, segment), self._connect(reference, False, segment)
        self.subject.settimeout(patience)
        self.setup = "/setup?x" + (f"&read={REQUEST_BYTES}" if how == ONE else "") + (f"&sndbuf={sndbuf}" if sndbuf else "")
        self.setup += (f"&plan={plan}" if plan is not None else "") + ("&zerocopy=1" if zerocopy else "")
        for each in (self.subject, self.reference):
            each.sendall(Request(self.setup).text)
            status, _ = harness.read_answer(each)
            if status != 200:
                raise Wrong(f"{self.setup}: {status}")
        self.requests, self.big = [], False
        self._polled = select.poll()
        self._polled.register(self.subject, select.POLLIN)

    @staticmethod
    def _connect(port, slow, segment):
        client = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        client.settimeout(harness.PATIENCE)
        if slow:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
        if segment:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, segment)
        client.setsockopt(socket.IPPROTO_IP, 24, 1)  # IP_BIND_ADDRESS_NO_PORT
        client.bind((f"127.0.0.{random.randrange(1, 250)}", 0))
        client.connect(("127.0.0.1", port))
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return client

    def __str__(self):
        return " ".join([self.how, str(int(self.slow)), self.setup, *map(str, self.requests)])

    @classmethod
    def given(cls, subject, reference, text):
        """The connections that __str__() shows, with what is to be asked on them."""
        how, slow, setup, *requests = text.split()
        number = {key: int(value) for key, _, value in (part.partition("=") for part in setup.split("&")[1:])}
        pair = cls(subject, reference, how, slow == "1", number.get("sndbuf", 0), number.get("plan"), "zerocopy" in number)
        return pair, [Request.given(request) for request in requests]

    def draw(self, rng, last=False):
        """What is asked next. `last`: with an answer that ends the connection."""
        kind = "b" if self.big else "a"
        count = 1 if self.how == SINGLE else rng.randint(2, BATCH_MOST)
        self.requests = []
        for number in range(count):
            path = f"/{'z' if last and number == count - 1 else kind}?seed={rng.getrandbits(48)}"
            if self.how in (JOINED, CUT) and number == 0:
                path += f"&join={count}"
            self.requests.append(Request(path, "HEAD" if rng.random() < 0.06 else "GET"))
        if self.how == SINGLE and rng.random() < 0.1:
            self.requests = [Request(self.requests[0].path, "POST", rng.randbytes(1 + int(2 ** (rng.random() * 16))))]

    def send(self, rng):
        text = b"".join(request.text for request in self.requests)
        pieces = [text]
        if self.how == SINGLE and rng.random() < 0.1:
            cut = rng.randrange(1, len(text))
            pieces = [text[:cut], text[cut:]]
        for client in (self.subject, self.reference):
            for piece in pieces:
                client.sendall(piece)

    def _read(self, client, size, rng):
        """The answers: at least `size` bytes, up to the end where one of them is the end."""
        stream, ended = Stream([request.method == "HEAD" for request in self.requests]), False
        data = stream.data
        until_end = any(request.path.startswith("/z") for request in self.requests)
        while True:
            most = rng.randint(1, 3000) if self.slow and client is self.subject else 1 << 18
            try:
                piece = client.recv(most)
            except TimeoutError:
                raise Wrong(f"nothing more came after {len(data)} bytes, {size} or more are due: {bytes(data[-200:])!r}") from None
            except OSError as error:
                raise Wrong(f"{error} after {len(data)} bytes, {size} are due") from None
            ended = not piece
            data += piece
            if not ended and (until_end or len(data) < size):
                continue
            if stream.parse(ended):
                return stream.answers
            if ended:
                raise Wrong(f"cut after {len(data)} bytes, {size} or more are due: {bytes(data[-200:])!r}")

    def receive(self, rng):
        """What the subject answers, and the reference: (before, after)."""
        before = self._read(self.reference, 0, rng)
        return before, self._read(self.subject, sum(len(answer.raw) for answer in before), rng)

    def expect_silence(self):
        """Nothing has come that wasn't asked for."""
        if self._polled.poll(0):
            data = self.subject.recv(4096)
            raise Wrong(f"{self}; then, unasked: {data!r}" if data else f"{self}; then the server has closed the connection")

    def leave(self):
        """Closes as a client does that was told to; nothing may come any more."""
        self.subject.shutdown(socket.SHUT_WR)
        data = self.subject.recv(4096)
        if data:
            raise Wrong(f"{self}: behind the last answer: {data[:200]!r}")
        self.close()

    def close(self):
        self.subject.close()
        self.reference.close()


class Asker:
    """Connections to both servers and what is asked on them. What it does, it counts."""

    def __init__(self, subject, reference, seed, patterns=HOW):
        self.subject, self.reference, self.patterns = subject, reference, patterns
        self.rng = random.Random(seed)
        self.pairs, self.counts, self.patience = [], Counts(), harness.PATIENCE

    def open(self, count, roomy=False, zerocopy=False):
        """`roomy`: what the server sends doesn't wait for its client; `zerocopy`: it uses MSG_ZEROCOPY, too."""
        for _ in range(count):
            how = self.patterns[len(self.pairs) % len(self.patterns)]
            plan = self.rng.choice((WHOLE, VECTORS)) if how == JOINED else None
            slow = not roomy and self.rng.random() < 0.15
            sndbuf = 0 if roomy else self.rng.choice((0, 0, 0, 4608, 16384))
            self.pairs.append(Pair(self.subject, self.reference, how, slow, sndbuf, plan, zerocopy, self.patience))

    def _batches(self, pairs, must=False, last=False, same=False):
        """Asks once on each of these, at the same time."""
        told = []
        for pair in pairs:
            pair.draw(self.rng, last)
            pair.send(self.rng)
        for pair in pairs:
            try:
                before, after = pair.receive(self.rng)
                if same and [answer.raw for answer in before] != [answer.raw for answer in after]:
                    raise Wrong("an answer isn't the same, and the connection isn't to end")
                if compare(before, after, pair.how, self.counts, must and pair.room):
                    told.append(pair)
            except Wrong as wrong:
                raise Wrong(f"{pair}: {wrong}") from None
        return told

    def groups(self):
        pairs = list(self.pairs)
        return [pairs[start:start + GROUP] for start in range(0, len(pairs), GROUP)]

    def use(self, same=True, must=False):
        """One batch on each: none of it is changed, where it is `same`."""
        for group in self.groups():
            self._batches(group, same=same, must=must)

    def open_narrow(self, count, plan, big=False):
        """Connections of which each fills up: the server has a small buffer, the client reads slowly."""
        for number in range(count):
            pair = Pair(self.subject, self.reference, (SINGLE, ONE)[number % 2], slow=True, sndbuf=(4608, 16384)[number // 2 % 2],
                        plan=plan, patience=self.patience)
            pair.big = big and pair.how == SINGLE
            self.pairs.append(pair)

    def given(self, text):
        """Opens the connections that a report shows, what is asked on them is what it shows."""
        pair, requests = Pair.given(self.subject, self.reference, text)
        pair.draw = lambda *_: setattr(pair, "requests", requests)
        self.pairs.append(pair)

    def hold(self, how):
        """Asks for one answer each, of which the server sends nothing ("read"), or a part ("write")."""
        for pair in self.pairs:
            pair.requests = [Request(f"/a?seed={self.rng.getrandbits(48)}&hold={how}")]
            pair.send(self.rng)

    def release(self):
        """Reads what was held."""
        for pair in self.pairs:
            try:
                compare(*pair.receive(self.rng), pair.how, self.counts)
            except Wrong as wrong:
                raise Wrong(f"{pair}: {wrong}") from None

    def stay(self, answers, must=False, same=False):
        """Goes on with all connections until so many more were answered, whatever it is told."""
        until = self.counts.get("answers", 0) + answers
        while self.counts.get("answers", 0) < until:
            for group in self.groups():
                for pair in group:
                    pair.expect_silence()
                self._batches(group, must=must, same=same)
                if self.counts["answers"] >= until:
                    break

    def go(self, rounds=3, must=False):
        """Goes on as a client does that leaves when it is told to. Who wasn't after so many batches asks for an end."""
        for number in range(rounds + 1):
            for group in self.groups():
                for pair in group:
                    pair.expect_silence()
                told = self._batches(group, must=must, last=number == rounds)
                for pair in group:
                    if pair in told or number == rounds:
                        self.counts.add("left when told" if pair in told else "left untold")
                        pair.leave()
                        self.pairs.remove(pair)

    def close(self):
        for pair in self.pairs:
            pair.expect_silence()
            pair.leave()
        self.pairs = []


# ---- askers in processes of their own ----


def _serve(pipe, arguments):
    asker = Asker(*arguments)
    while True:
        try:
            order = pipe.recv()
        except EOFError:
            return
        if order is None:
            return
        try:
            getattr(asker, order[0])(*order[1], **order[2])
            pipe.send((None, dict(asker.counts)))
        except Wrong as wrong:
            pipe.send((str(wrong), dict(asker.counts)))
        except Exception:  # whatever it was, the case fails with it
            pipe.send((traceback.format_exc(), dict(asker.counts)))


class Askers:
    """Several; each order goes to all of them, and is carried out before it returns."""

    def __init__(self, case, subject, reference, number, seed, **keywords):
        self.counts = Counts()
        self._each = []
        context = multiprocessing.get_context("fork")
        for index in range(number):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, (subject, reference, seed * 16 + index, *keywords.values())),
                                      daemon=True)
            process.start()
            theirs.close()
            self._each.append((process, ours))
        case.started.append(self)

    def order(self, name, *arguments, **keywords):
        for _, pipe in self._each:
            pipe.send((name, arguments, keywords))
        wrong, self.counts = [], Counts()
        for _, pipe in self._each:
            error, counts = pipe.recv()
            if error:
                wrong.append(error)
            for key, value in counts.items():
                self.counts.add(key, value)
        if wrong:
            raise AssertionError("\n".join(wrong))
        return self.counts

    def finish(self):
        for process, pipe in self._each:
            with contextlib.suppress(OSError):
                pipe.send(None)
            pipe.close()
            process.join(5)
            if process.is_alive():
                process.kill()
                process.join()


# ---- what the server says of itself ----

FIELDS = ("accepted", "open", "requests", "answers", "holding", "go", "failed", "wrong_returns", "zerocopy_sends",
          "zerocopy_done", "zerocopy_missing", "zerocopy_wrong", "wrong_seed", "partial", "again", "spurious_again")
# What it can't be at fault for.
COMPLAINTS = ("failed", "wrong_returns", "zerocopy_missing", "zerocopy_wrong")


class Record:
    """The record of one worker, tests/helpers/answers/answers.h; it outlives the worker."""

    def __init__(self, prefix, generation=0, worker=0):
        self.path = f"{prefix}.{generation}.{worker}"

    def read(self):
        with contextlib.suppress(FileNotFoundError):
            with open(self.path, "rb") as file:
                data = file.read()
            if len(data) == 8 * len(FIELDS):
                return dict(zip(FIELDS, struct.unpack(f"<{len(FIELDS)}Q", data)))
        return {}

    def __getitem__(self, field):
        return self.read()[field]

    def wait(self, field, condition):
        return harness.wait_until(lambda: (lambda read: field in read and condition(read[field]))(self.read()),
                                  lambda: f"{field} of {self.path}, which says {self.read()}")

    def go_on(self):
        """Who holds goes on."""
        with open(self.path, "r+b") as file:
            file.seek(8 * FIELDS.index("go"))
            file.write(struct.pack("<Q", 1))

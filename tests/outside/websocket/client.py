# libcurl as a client of WebSocket: client.py URL [OPTION=VALUE...] prints what it saw there, as JSON.
import json
import select
import sys

import pycurl

# Ends a client that hangs.
DEADLINE_S = 60
# More than any buffer between here and there.
LARGE = bytes(range(256)) * 12_000
PIECE_BYTES = 64 << 10
KINDS = {pycurl.WS_TEXT: "text", pycurl.WS_BINARY: "binary", pycurl.WS_CLOSE: "close", pycurl.WS_PONG: "pong"}


class Socket:
    def __init__(self, url, options):
        self.curl = pycurl.Curl()
        self.curl.setopt(pycurl.URL, url)
        self.curl.setopt(pycurl.CONNECT_ONLY, 2)
        self.curl.setopt(pycurl.TIMEOUT, DEADLINE_S)
        for option in options:
            name, value = option.split("=", 1)
            self.curl.setopt(getattr(pycurl, name), [value] if name == "RESOLVE" else value)
        self.curl.perform()

    def again(self, call, *arguments):
        """Until it does not say that it would have to wait."""
        socket = self.curl.getinfo(pycurl.ACTIVESOCKET)
        waits_to_write = call == self.curl.ws_send
        while True:
            try:
                return call(*arguments)
            except BlockingIOError:
                ready = select.select([socket], [socket] if waits_to_write else [], [], DEADLINE_S)
                if not any(ready):
                    raise TimeoutError(f"{call.__name__} waits in vain")

    def send(self, payload, kind):
        self.again(self.curl.ws_send, payload, kind)

    def send_large(self, payload, kind):
        """One frame, a piece at a time."""
        at, whole = 0, len(payload)
        while at < whole:
            piece = payload[at : at + PIECE_BYTES]
            at += self.again(self.curl.ws_send, piece, kind | pycurl.WS_OFFSET, 0 if at else whole)

    def message(self):
        """The next one, put together: its kind and what it says."""
        payload = b""
        while True:
            piece, frame = self.again(self.curl.ws_recv, PIECE_BYTES)
            payload += piece
            if frame.bytesleft == 0 and not frame.flags & pycurl.WS_CONT:
                [kind] = [name for flag, name in KINDS.items() if frame.flags & flag]
                return [kind, payload]

    def closed(self):
        """The code and the reason of the close that comes, and whether the end of the connection follows."""
        kind, payload = self.message()
        code, reason = int.from_bytes(payload[:2]), payload[2:].decode()
        if code == 4001:
            self.curl.ws_close(code)
        try:
            return [kind, code, reason, self.message()]
        except pycurl.error as error:
            return [kind, code, reason, error.args[0] == pycurl.E_GOT_NOTHING]


def talk(url, options):
    seen = {}
    socket = Socket(url, options)
    seen["status"] = socket.curl.getinfo(pycurl.RESPONSE_CODE)
    socket.send("Größe".encode(), pycurl.WS_TEXT)
    kind, payload = socket.message()
    seen["text"] = [kind, payload.decode()]
    socket.send(b"\x00\xff\r\n\r\n", pycurl.WS_BINARY)
    kind, payload = socket.message()
    seen["binary"] = [kind, payload.hex()]
    socket.send(b"are you there", pycurl.WS_PING)
    kind, payload = socket.message()
    seen["ping"] = [kind, payload.decode()]
    socket.send(b"", pycurl.WS_TEXT)
    seen["empty"] = socket.message()[0]
    socket.send_large(LARGE, pycurl.WS_BINARY)
    kind, payload = socket.message()
    seen["large"] = [kind, len(payload), payload == LARGE]
    socket.curl.ws_close(4002, "enough")
    seen["own close"] = socket.closed()
    socket = Socket(url, options)
    socket.send("close", pycurl.WS_TEXT)
    seen["close of the server"] = socket.closed()
    return seen


url, *options = sys.argv[1:]
try:
    print(json.dumps(talk(url, options)))
except pycurl.error as error:
    print(json.dumps({"failed": error.args}))

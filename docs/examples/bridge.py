"""Show events in a browser: a small bridge from ZeroMQ to WebSockets, with a page that uses it.

    python bridge.py ipc:///run/cabinsense/events.sock
    python bridge.py tcp://car:5555 --key tablet.key_secret --server 'PUBLIC KEY OF THE DAEMON'

Open the address that it prints. It listens on this machine only, and a secret in the address keeps out its other users;
pages from elsewhere are refused by their Origin, and by Host if they pretend to be from here. Nothing that a browser
sends goes any further. For events.encoding = "json". Needs pyzmq, and nothing of Cabinsense.
"""

import argparse
import asyncio
import base64
import contextlib
import hashlib
import secrets
from collections.abc import AsyncIterator
from pathlib import Path

import zmq
import zmq.asyncio
import zmq.auth

TOPICS = ("driver", "identity", "emotion", "health")
FILES = {"": ("live.html", "text/html"), "live.mjs": ("live.mjs", "text/javascript")}
MOST_BROWSERS = 16
MOST_HEAD = 8192  # bytes of a request
HEAD_S = 5.0
MOST_FRAME = 125  # bytes; all that a browser has to say here is ping, pong and good-bye
GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, section 1.3
TEXT, CLOSE, PING, PONG = 0x1, 0x8, 0x9, 0xA  # RFC 6455, section 5.2
POLICY = "default-src 'none'; script-src 'self'; style-src 'unsafe-inline'; connect-src 'self'"


class RefusedError(Exception):
    """The request is answered with this status."""


class Bridge:
    """Serves the page, and each browser from a subscription of its own, so that it learns the present state."""

    def __init__(self, endpoint: str, key: str | None, server: str | None) -> None:
        self.secret = secrets.token_urlsafe(16)
        self._endpoint = endpoint
        self._key, self._server = key, server
        self._context = zmq.asyncio.Context()
        self._browsers = 0
        self._hosts: tuple[str, ...] = ()

    async def listen(self, port: int) -> asyncio.Server:
        """Start; with port 0 the system chooses one."""
        listening = await asyncio.start_server(self._serve, "127.0.0.1", port, limit=MOST_HEAD)
        port = listening.sockets[0].getsockname()[1]
        self._hosts = (f"127.0.0.1:{port}", f"localhost:{port}")
        return listening

    @property
    def address(self) -> str:
        """Of the page."""
        return f"http://{self._hosts[0]}/{self.secret}/"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, from its request to its end."""
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.TimeoutError):
            try:
                head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), HEAD_S)
                name, headers = self._checked(head)
                if name == "events":
                    await self._watch(reader, writer, headers)
                else:
                    file, kind = FILES[name]
                    respond(writer, "200 OK", Path(__file__).with_name(file).read_bytes(), kind)
            except RefusedError as refused:
                respond(writer, str(refused))
            except asyncio.LimitOverrunError:
                respond(writer, "431 Request Header Fields Too Large")
            await writer.drain()
        writer.close()

    def _checked(self, head: bytes) -> tuple[str, dict[str, str]]:
        """What is asked for, and the headers, of a request that may be served."""
        request, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        method, _, rest = request.partition(" ")
        if method != "GET":
            raise RefusedError("405 Method Not Allowed")
        if headers.get("host") not in self._hosts:
            raise RefusedError("403 Forbidden")
        _, secret, name = (rest.split(" ")[0] + "//").split("/", 2)
        if not secrets.compare_digest(secret.encode(), self.secret.encode()):
            raise RefusedError("404 Not Found")
        name = name.rstrip("/")
        if name not in FILES and name != "events":
            raise RefusedError("404 Not Found")
        return name, headers

    async def _watch(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, headers: dict[str, str]
    ) -> None:
        """Send events until the browser goes."""
        origin = headers.get("origin")
        if origin is not None and origin not in [f"http://{host}" for host in self._hosts]:
            raise RefusedError("403 Forbidden")
        if headers.get("upgrade", "").lower() != "websocket" or "sec-websocket-key" not in headers:
            raise RefusedError("400 Bad Request")
        if self._browsers >= MOST_BROWSERS:
            raise RefusedError("503 Service Unavailable")
        digest = hashlib.sha1(
            f"{headers['sec-websocket-key']}{GUID}".encode(), usedforsecurity=False
        ).digest()
        accept = base64.b64encode(digest).decode()
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: %s\r\n\r\n" % accept.encode()
        )
        self._browsers += 1
        sending = asyncio.create_task(self._send(writer))
        try:
            async for kind, content in frames(reader):
                if kind == PING:
                    writer.write(frame(PONG, content))
        finally:
            self._browsers -= 1
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
            writer.write(frame(CLOSE, b""))

    async def _send(self, writer: asyncio.StreamWriter) -> None:
        """Send what is published; while the browser is slow ZeroMQ keeps some, and drops what is too much."""
        with self._context.socket(zmq.SUB) as socket:
            socket.linger = 0
            if self._key and self._server:
                socket.curve_publickey, socket.curve_secretkey = zmq.auth.load_certificate(self._key)
                socket.curve_serverkey = self._server.encode()
            for topic in TOPICS:
                socket.subscribe(topic)
            socket.connect(self._endpoint)
            while True:
                _, body = await socket.recv_multipart()
                writer.write(frame(TEXT, body))
                await writer.drain()


def respond(writer: asyncio.StreamWriter, status: str, body: bytes = b"", kind: str = "text/plain") -> None:
    """Answer a request and be done."""
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: {kind}; charset=utf-8\r\nContent-Length: {len(body)}\r\n"
        f"Content-Security-Policy: {POLICY}\r\nX-Content-Type-Options: nosniff\r\nReferrer-Policy: no-referrer\r\n"
        "Cache-Control: no-store\r\nConnection: close\r\n\r\n"
    )
    writer.write(head.encode() + body)


def frame(kind: int, content: bytes) -> bytes:
    """A whole frame as a server sends it, RFC 6455, section 5.2."""
    size = len(content)
    if size < 126:
        length = bytes([size])
    elif size < 1 << 16:
        length = b"\x7e" + size.to_bytes(2, "big")
    else:
        length = b"\x7f" + size.to_bytes(8, "big")
    return bytes([0x80 | kind]) + length + content


async def frames(reader: asyncio.StreamReader) -> AsyncIterator[tuple[int, bytes]]:
    """The frames that a browser sends, until it says good-bye, or something that it must not."""
    while True:
        first, second = await reader.readexactly(2)
        kind, size = first & 0x0F, second & 0x7F
        if not second & 0x80 or size > MOST_FRAME:  # clients must mask
            return
        mask, content = await reader.readexactly(4), await reader.readexactly(size)
        if kind == CLOSE:
            return
        yield kind, bytes(byte ^ mask[i % 4] for i, byte in enumerate(content))


async def serve(asked: argparse.Namespace) -> None:
    """Serve until cancelled."""
    bridge = Bridge(asked.endpoint, asked.key, asked.server)
    async with await bridge.listen(asked.port) as listening:
        print(bridge.address, flush=True)
        await listening.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("endpoint")
    parser.add_argument("--port", type=int, default=0, help="else any that is free")
    parser.add_argument("--key", help="file with both halves of our key; for tcp://")
    parser.add_argument("--server", help="the daemon's public key; for tcp://")
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()

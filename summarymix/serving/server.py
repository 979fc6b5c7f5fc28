"""HTTP and WebSocket server of a recogniser. README.md documents the protocol."""

import asyncio
import json
import math
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib.resources import files
from ipaddress import IPv4Address, IPv6Address, ip_address
from time import monotonic
from urllib.parse import urlsplit

import numpy as np

from summarymix.decoding.words import to_json
from summarymix.serving.batching import Batcher, Feed, Setting

try:
    from aiohttp import WSCloseCode, WSMessage, WSMsgType, web
except ImportError as error:
    raise ImportError(f"{error}: pip install aiohttp") from error

MAX_MESSAGE = 1 << 20  # bytes
MAX_AMPLITUDE = 8.0  # full scale is 1; integers that have not been scaled are far above
SAMPLE_RATES = range(8000, 192_001)  # Hz, except those that cost too much to resample
GOODBYE_SECONDS = 1.0
# The page loads its own files, and talks to its own server only.
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}
PAGE = {"page.html": "text/html", "page.css": "text/css", "page.js": "text/javascript", "worklet.js": "text/javascript"}


@dataclass(frozen=True)
class Limits:
    """Limits of a server's clients."""

    max_clients: int = 64
    max_minutes: float = 60.0
    """Length of a stream, in audio and by the clock."""
    idle_seconds: float = 30.0
    """Seconds in which a client sends nothing, or takes no result."""

    def __post_init__(self) -> None:
        if not all(0 < limit < math.inf for limit in (self.max_clients, self.max_minutes, self.idle_seconds)):
            raise ValueError("--max-clients, --max-minutes and --idle-seconds must be above 0, and finite")


class Refused(Exception):
    """A client's stream ends with this message and WebSocket close code."""

    def __init__(self, message: str, code: int = WSCloseCode.POLICY_VIOLATION) -> None:
        super().__init__(message)
        self.code = code


class Server:
    """A page, and a WebSocket for audio.

    Args:
        batcher: recogniser of all clients.
        settings: settings that clients may choose; the first one is the default.
        sample_rate: the model's sampling rate in Hz.
        limits: limits of clients.
        name: name of the model, for the page.
        public_host: host, or host:port, under which a proxy serves the page.

    Raises:
        ValueError: ``public_host`` is something else.
    """

    def __init__(
        self,
        batcher: Batcher,
        settings: list[Setting],
        sample_rate: int,
        limits: Limits,
        name: str,
        public_host: str | None = None,
    ) -> None:
        self.batcher = batcher
        self.settings = settings
        self.sample_rate = sample_rate
        self.limits = limits
        self._name = name
        self._public_host = None if public_host is None else _host(public_host)
        self._begin = monotonic()
        self._loopback = True
        self._readers: set[asyncio.Task[None]] = set()  # one for each client
        self._app = web.Application(middlewares=[self._check_origin])
        self._app.on_shutdown.append(self._say_goodbye)
        self._app.router.add_get("/", self._root)
        self._app.router.add_get("/status", self._status)
        for name in PAGE:
            self._app.router.add_get(f"/{name}", self._file)
        self._page = {name: files(__package__).joinpath(name).read_bytes() for name in PAGE}

    async def run(self, host: str, port: int, on_start: Callable[[str], object]) -> None:
        """Serve until SIGINT, SIGTERM or cancellation, then say goodbye to all clients.

        Args:
            host: address to listen on.
            port: port, 0 for a free one.
            on_start: called with the server's URL when it listens.

        Raises:
            OSError: the address is in use, or does not belong to this machine.
        """
        self._loopback = _is_loopback(host)
        runner = web.AppRunner(
            self._app,
            access_log=None,
            shutdown_timeout=GOODBYE_SECONDS,
            keepalive_timeout=self.limits.idle_seconds,
        )
        await runner.setup()
        stop = asyncio.Event()
        with suppress(ValueError, RuntimeError):  # in another thread than the main one
            for number in (signal.SIGINT, signal.SIGTERM):
                asyncio.get_running_loop().add_signal_handler(number, stop.set)
        computing = asyncio.create_task(self.batcher.run())
        stopping = asyncio.create_task(stop.wait())
        try:
            try:
                await web.TCPSite(runner, host, port).start()
            except OSError as error:
                raise OSError(f"{error.strerror or error}: choose another --port or --host") from error
            on_start(f"http://{f'[{host}]' if ':' in host else host}:{runner.addresses[0][1]}")
            await asyncio.wait({computing, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if computing.done():
                computing.result()  # raises: without its recogniser a server is useless
        finally:
            await runner.cleanup()  # calls _say_goodbye, and gives handlers GOODBYE_SECONDS
            for task in (computing, stopping):
                task.cancel()
            await asyncio.gather(computing, stopping, return_exceptions=True)

    async def _say_goodbye(self, app: web.Application) -> None:
        for reader in self._readers:
            reader.cancel()

    @web.middleware
    async def _check_origin(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Refuse pages of other sites, also those whose names have been made to point here (DNS rebinding)."""
        host, origin = request.headers.get("Host", ""), request.headers.get("Origin")
        try:
            known = host.lower() == self._public_host or self._is_own(urlsplit(f"//{host}").hostname or "")
            own = origin is None or urlsplit(origin).netloc.lower() in (host.lower(), self._public_host)
        except ValueError:  # one of them is no address
            known = own = False
        if not (own and known):
            raise web.HTTPForbidden(text="This server is for its own page and for programs; see --public-host.\n")
        return await handler(request)

    def _is_own(self, name: str) -> bool:
        """True for names of this machine. Without a public host, those of a server in the network may be any."""
        if self._loopback:
            return _is_loopback(name)
        return self._public_host is None or name == "localhost" or _address(name) is not None

    async def _root(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("Upgrade", "").lower() == "websocket":
            return await self._connect(request)
        return await self._file(request)

    async def _file(self, request: web.Request) -> web.Response:
        name = request.path[1:] or "page.html"
        return web.Response(body=self._page[name], content_type=PAGE[name], charset="utf-8", headers=HEADERS)

    async def _status(self, request: web.Request) -> web.Response:
        status = {
            "name": self._name,
            "sample_rate": self.sample_rate,
            "settings": [setting._asdict() for setting in self.settings],
            "clients": len(self._readers),
            "max_clients": self.limits.max_clients,
            "max_minutes": self.limits.max_minutes,
            "uptime_seconds": monotonic() - self._begin,
            "busy_seconds": self.batcher.busy_seconds,
            "audio_seconds": self.batcher.audio_seconds,
        }
        return web.json_response(status, headers=HEADERS)

    async def _connect(self, request: web.Request) -> web.WebSocketResponse:
        # A message above the library's limit ends the connection at once; a smaller one gets an answer.
        socket = web.WebSocketResponse(
            timeout=GOODBYE_SECONDS, max_msg_size=4 * MAX_MESSAGE, compress=False, autoping=False
        )
        await socket.prepare(request)
        client = _Client(self, socket, request.transport)
        with suppress(ConnectionError):
            try:
                await self._talk(client)
                await client.send("Done!")
                await socket.close()
            except Refused as refusal:
                await client.send(json.dumps({"error": str(refusal)}))
                await socket.close(code=refusal.code)
        return socket

    async def _talk(self, client: "_Client") -> None:
        """Recognise a client's audio until it ends.

        Raises:
            Refused: the client is told why its stream ends; it has got all text of the audio before.
            ConnectionError: the client has gone.
        """
        if len(self._readers) >= self.limits.max_clients:
            raise Refused(f"all {self.limits.max_clients} places are taken: try later", WSCloseCode.TRY_AGAIN_LATER)
        reader = asyncio.create_task(client.read())
        self._readers.add(reader)
        try:
            _, late = await asyncio.wait({reader}, timeout=60 * self.limits.max_minutes)
            if late:
                reader.cancel()
                await asyncio.wait({reader})
            if reader.cancelled() or not isinstance(reader.exception(), ConnectionError):
                await client.finish()
            if reader.cancelled():
                raise _too_long(self.limits) if late else Refused("the server is stopped", WSCloseCode.GOING_AWAY)
            reader.result()
        finally:
            self._readers.discard(reader)
            reader.cancel()
            client.cancel()


class _Client:
    """The WebSocket of a client, its settings, and its stream from the first audio on."""

    def __init__(self, server: Server, socket: web.WebSocketResponse, transport: asyncio.Transport | None) -> None:
        self._server = server
        self._limits = server.limits
        self._socket = socket
        self._transport = transport
        self._setting = server.settings[0]
        self._sample_rate = server.sample_rate
        self._feed: Feed | None = None
        self._writer: asyncio.Task[None] | None = None

    async def read(self) -> None:
        """Take settings and audio until "Done".

        Raises:
            Refused: a message is invalid, or the client exceeds a limit.
            ConnectionError: the client has gone.
        """
        num_samples = 0
        while True:
            message = await self._receive()
            if len(message.data) > MAX_MESSAGE:
                code = WSCloseCode.MESSAGE_TOO_BIG
                raise Refused(f"a message of {len(message.data)} bytes: at most {MAX_MESSAGE} are allowed", code)
            if message.data == "Done":
                return
            if message.type == WSMsgType.TEXT:
                self._configure(message.data)
                continue
            samples = _parse_samples(message.data)
            room = round(60 * self._limits.max_minutes * self._sample_rate) - num_samples
            num_samples += len(samples)
            if self._feed is None:
                self._feed = self._server.batcher.open(self._setting, self._sample_rate)
                self._writer = asyncio.create_task(self._write(self._feed))
            await self._feed.put(samples[:room])
            if len(samples) > room:
                raise _too_long(self._limits)

    async def _receive(self) -> WSMessage:
        """Return the next message with data. Pings in between are answered, and do not count as a sign of life.

        Raises:
            Refused: none comes in time.
            ConnectionError: the client has gone.
        """
        deadline = monotonic() + self._limits.idle_seconds
        while True:
            try:
                message = await self._socket.receive(max(deadline - monotonic(), 1e-3))
            except asyncio.TimeoutError:
                raise Refused(f"no message for {self._limits.idle_seconds:g} s") from None
            if message.type in (WSMsgType.BINARY, WSMsgType.TEXT):
                return message
            if message.type == WSMsgType.PING:
                await self._socket.pong(message.data)
            elif message.type != WSMsgType.PONG:
                raise ConnectionError

    async def finish(self) -> None:
        """End the input, and send the rest of the results."""
        if self._feed is not None and self._writer is not None:
            self._feed.end()
            await self._writer

    def cancel(self) -> None:
        """Drop what is not finished."""
        if self._feed is not None and self._writer is not None:
            self._writer.cancel()
            self._feed.cancel()

    async def send(self, text: str) -> None:
        """Send a message.

        Raises:
            ConnectionError: the client has gone, or takes nothing.
        """
        try:
            await asyncio.wait_for(self._socket.send_str(text), self._limits.idle_seconds)
        except asyncio.TimeoutError:
            if self._transport is not None:
                self._transport.abort()
            raise ConnectionError from None

    async def _write(self, feed: Feed) -> None:
        segment = 0
        with suppress(ConnectionError):  # the reader notices it too
            async for message in feed.messages():
                state = {"segment": segment, "is_final": message.final, "seconds": message.seconds}
                await self.send(to_json(message.transcript, **state).rstrip())
                segment += message.final

    def _configure(self, text: str) -> None:
        """Read a message with settings.

        Raises:
            Refused: it is no such message, or the server does not offer these settings.
        """
        if self._feed is not None:
            raise Refused('after audio, the only text is "Done": send settings before it')
        example = '{"sample_rate": 48000, "chunk_ms": 640, "lookahead_ms": 0}'
        try:
            wanted = json.loads(text) if len(text) < 1000 else None
        except (ValueError, RecursionError):
            wanted = None
        known = {"sample_rate": self._sample_rate, **self._setting._asdict()}
        if not isinstance(wanted, dict) or not set(wanted) <= set(known):
            raise Refused(f'a text is "Done", or settings such as {example}')
        rate, chunk_ms, lookahead_ms = (known | wanted).values()
        setting = Setting(chunk_ms, lookahead_ms)
        if setting not in self._server.settings:
            offered = ", ".join(f"{one.chunk_ms} + {one.lookahead_ms}" for one in self._server.settings)
            raise Refused(f"chunk_ms + lookahead_ms must be one of {offered}, not {chunk_ms} + {lookahead_ms}")
        if not isinstance(rate, int) or rate not in SAMPLE_RATES:
            raise Refused(
                f"sample_rate is a whole number of Hz from {SAMPLE_RATES[0]} to {SAMPLE_RATES[-1]}, not {rate}"
            )
        if not self._server.batcher.resamples_quickly(rate):
            raise Refused(f"sample_rate {rate} costs too much to resample: use an ordinary one such as 48000 or 44100")
        self._setting = self._server.settings[self._server.settings.index(setting)]
        self._sample_rate = rate


def _parse_samples(data: bytes) -> np.ndarray:
    """Read samples (n,) from float32, little endian.

    Raises:
        Refused: the data is something else.
    """
    if len(data) % 4:
        raise Refused(f"audio is float32, but {len(data)} bytes are not a multiple of 4")
    samples = np.frombuffer(data, "<f4")
    if not (np.abs(samples) <= MAX_AMPLITUDE).all():
        raise Refused("audio is float32 in [-1, 1], but some samples are far outside, infinite or NaN")
    return samples


def _too_long(limits: Limits) -> Refused:
    return Refused(f"a stream may last {limits.max_minutes:g} minutes: begin another one")


def _host(text: str) -> str:
    """Return host, or host:port, as browsers name it in requests.

    Raises:
        ValueError: it is something else.
    """
    try:
        parts = urlsplit(f"//{text}")
        if not parts.hostname or parts.netloc != text or "@" in text:
            raise ValueError
        port = parts.port
    except ValueError:
        message = f"--public-host is a host, or host:port, such as asr.example.org, not {text}"
        raise ValueError(message) from None
    return text.lower().removesuffix(f":{port}") if port in (80, 443) else text.lower()


def _is_loopback(host: str) -> bool:
    address = _address(host)
    return host == "localhost" or (address is not None and address.is_loopback)


def _address(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None

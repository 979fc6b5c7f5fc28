"""A server within the test's event loop, and clients that speak its protocol."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import numpy as np
from torch import Tensor

from summarymix.decoding.live import Endpointing
from summarymix.decoding.recognizer import Recognizer
from summarymix.serving.batching import Batcher, Rules, Setting
from summarymix.serving.server import Limits, Server

SETTINGS = [Setting(320, 0), Setting(160, 80), Setting(640, 0)]
RULES = Rules(endpointing=Endpointing(0.3, 2))  # segments of noise are short

Text = tuple[str, float, float]  # of a segment: text, start, end in seconds


@asynccontextmanager
async def running_server(
    recognizer: Recognizer, settings: Sequence[Setting] = SETTINGS, **limits: Any
) -> AsyncIterator[Server]:
    """A server on a free port, with its URL as ``server.url`` and its task as ``server.running``."""
    bounds = Limits(**limits)
    batcher = Batcher(recognizer, bounds.max_clients, RULES)
    rate = recognizer.extractor.options.sample_rate
    server = Server(batcher, list(settings), rate, bounds, "a model", "asr.example.org")
    started = asyncio.get_running_loop().create_future()
    running = server.running = asyncio.create_task(server.run("127.0.0.1", 0, started.set_result))
    await asyncio.wait({running, started}, return_when=asyncio.FIRST_COMPLETED)
    server.url = started.result() if started.done() else await running
    try:
        yield server
    finally:
        running.cancel()
        await asyncio.wait({running})
        if not running.cancelled():
            running.result()


@asynccontextmanager
async def connected(server: Server, **headers: str) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    """A WebSocket to the server."""
    async with aiohttp.ClientSession() as session, session.ws_connect(server.url + "/", headers=headers) as socket:
        yield socket


async def received(socket: aiohttp.ClientWebSocketResponse) -> list[dict[str, Any] | str]:
    """All messages until the server closes: objects, and "Done!"."""
    texts = [message.data async for message in socket if message.type == aiohttp.WSMsgType.TEXT]
    return [text if text == "Done!" else json.loads(text) for text in texts]


def finals(messages: list[dict[str, Any] | str]) -> list[Text]:
    """The final segments among messages."""
    found = [message for message in messages if isinstance(message, dict) and message.get("is_final")]
    assert [message["segment"] for message in found] == list(range(len(found)))
    return [(message["text"], message["start"], message["end"]) for message in found]


async def transcribed(
    server: Server,
    audio: Tensor,
    settings: dict[str, Any] | None = None,
    samples: int = 1600,
    pause: float = 0.0,
    read_pause: float = 0.0,
) -> list[dict[str, Any] | str]:
    """Send audio in messages of ``samples``, and return all messages of the server."""
    async with connected(server) as socket:

        async def send() -> None:
            if settings is not None:
                await socket.send_str(json.dumps(settings))
            for block in audio.split(samples):
                await socket.send_bytes(block.numpy().astype("<f4").tobytes())
                await asyncio.sleep(pause)
            await socket.send_str("Done")

        sending = asyncio.create_task(send())
        await asyncio.sleep(read_pause)
        messages = await received(socket)
        await sending
        return messages


def expected(recognizer: Recognizer, audio: Tensor, settings: dict[str, Any] | None = None) -> list[Text]:
    """The segments that a stream of its own gives."""
    given = SETTINGS[0]._asdict() | {"sample_rate": None} | (settings or {})
    stream = recognizer.stream(given["sample_rate"], given["chunk_ms"], None, given["lookahead_ms"], RULES.endpointing)
    segments = stream.accept(audio) + stream.finish()
    return [(segment.text, round(segment.start, 4), round(segment.end, 4)) for segment in segments]


def as_bytes(*samples: float) -> bytes:
    return np.array(samples, "<f4").tobytes()

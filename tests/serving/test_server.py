"""The server: many clients at once, slow, broken and hostile ones, its limits, and sherpa-onnx's protocol."""

import asyncio
import contextlib
import functools
import gc
import json
import random
import threading
from collections.abc import Awaitable, Callable

import pytest
from memory import traced_peaks
from recognizer_cases import Script, make_audio, make_recognizer

aiohttp = pytest.importorskip("aiohttp", reason="aiohttp is not installed: pip install aiohttp")

from aiohttp.test_utils import make_mocked_request  # noqa: E402
from serving_cases import (  # noqa: E402
    RULES,
    SETTINGS,
    as_bytes,
    connected,
    expected,
    finals,
    received,
    running_server,
    transcribed,
)

from summarymix.decoding.recognizer import Recognizer  # noqa: E402
from summarymix.serving.batching import Batcher  # noqa: E402
from summarymix.serving.server import MAX_MESSAGE, Limits, Server  # noqa: E402


@pytest.fixture(scope="module")
def recognizer() -> Recognizer:
    return make_recognizer()


@pytest.mark.parametrize("samples", [37, 1600, 5000, 80_000])
def test_text_is_that_of_a_stream_for_packets_of_any_size(recognizer: Recognizer, samples: int) -> None:
    audio = make_audio(3 if samples < 100 else 7)

    async def run() -> list:
        async with running_server(recognizer) as server:
            return await transcribed(server, audio, samples=samples)

    messages = asyncio.run(run())
    assert messages[-1] == "Done!"
    assert finals(messages) == expected(recognizer, audio) != []
    for message in messages[:-1]:
        assert 0 < message["seconds"] <= len(audio) / 16000
        assert message["text"] or message is messages[0]
        assert all(0 <= word["confidence"] <= 1 for word in message["words"])


def test_many_clients_get_what_each_gets_alone(recognizer: Recognizer) -> None:
    """Paced and hurried ones, of all settings and rates, some of which break off."""
    rng = random.Random(1)

    def settings() -> dict[str, int]:
        return rng.choice(SETTINGS)._asdict() | {"sample_rate": rng.choice([8000, 16000, 48000])}

    clients = [settings() for _ in range(24)]
    audio = [make_audio(rng.uniform(0.5, 4), i, one["sample_rate"]) for i, one in enumerate(clients)]

    async def break_off(server, i: int) -> None:
        async with connected(server) as socket:
            await socket.send_bytes(audio[i][:20_000].numpy().tobytes())
            await asyncio.sleep(rng.uniform(0, 0.05))
            socket._response.connection.transport.abort()

    async def run() -> list:
        async with running_server(recognizer, max_clients=40) as server:
            paced = [
                transcribed(server, sound, one, rng.randint(500, 4000), rng.choice([0, 0.01]))
                for sound, one in zip(audio, clients, strict=True)
            ]
            broken = [break_off(server, i) for i in range(8)]
            results = await asyncio.gather(*paced, *broken)
            while await clients_of(server):
                await asyncio.sleep(0.01)
            return results[: len(paced)]

    for messages, sound, one in zip(asyncio.run(run()), audio, clients, strict=True):
        assert messages[-1] == "Done!"
        assert finals(messages) == expected(recognizer, sound, one)


async def clients_of(server) -> int:
    async with aiohttp.ClientSession() as session, session.get(server.url + "/status") as response:
        return (await response.json())["clients"]


def test_a_slow_reader_loses_no_final_text(recognizer: Recognizer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Results wait for it; of the partial ones, only the latest."""
    audio = make_audio(20)
    send_str = aiohttp.web.WebSocketResponse.send_str

    async def slow_send(socket, text: str) -> None:
        await asyncio.sleep(0.02)
        await send_str(socket, text)

    async def run() -> tuple[list, list]:
        async with running_server(recognizer) as server:
            quick = await transcribed(server, audio, samples=16_000, pause=0.03)
            monkeypatch.setattr(aiohttp.web.WebSocketResponse, "send_str", slow_send)
            return quick, await transcribed(server, audio, samples=16_000)

    quick, slow = asyncio.run(run())
    assert finals(slow) == finals(quick) == expected(recognizer, audio)
    assert len(slow) < len(quick)


def test_a_client_that_takes_nothing_is_cut_off(recognizer: Recognizer, monkeypatch: pytest.MonkeyPatch) -> None:
    audio = make_audio(4)
    send_str = aiohttp.web.WebSocketResponse.send_str

    async def blocked(socket, text: str) -> None:
        await asyncio.sleep(10 if blocking else 0)
        await send_str(socket, text)

    async def run() -> list:
        nonlocal blocking
        async with running_server(recognizer, idle_seconds=0.2) as server:
            cut = await transcribed(server, audio)
            blocking = False
            while await clients_of(server):
                await asyncio.sleep(0.01)
            return [cut, await transcribed(server, audio)]

    blocking = True
    monkeypatch.setattr(aiohttp.web.WebSocketResponse, "send_str", blocked)
    cut, after = asyncio.run(run())
    assert cut == []
    assert finals(after) == expected(recognizer, audio)


def test_a_hurried_client_waits_for_the_recogniser(recognizer: Recognizer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server reads on only when less than two chunks and a second of audio wait."""
    audio, samples = make_audio(40), 8000
    gate = threading.Event()
    compute = Batcher._compute

    def gated(*arguments: object) -> object:
        gate.wait()
        return compute(*arguments)

    async def run() -> list:
        async with running_server(recognizer) as server:
            monkeypatch.setattr(server.batcher, "_compute", functools.partial(gated, server.batcher))
            sending = asyncio.create_task(transcribed(server, audio, samples=samples))
            waiting = [0]
            while waiting[-1] == 0 or len(set(waiting[-20:])) > 1:  # until the server has stopped reading
                await asyncio.sleep(0.01)
                waiting.append(sum(feed._num_samples for feed in server.batcher._feeds))
            gate.set()
            return [max(waiting), await sending]

    most, messages = asyncio.run(run())
    assert most <= (1 + 2 * 0.32) * 16_000 + samples
    assert finals(messages) == expected(recognizer, audio)


def test_memory_does_not_grow_with_streams_come_and_gone(recognizer: Recognizer) -> None:
    """Every other one breaks off."""
    audio = make_audio(0.5)

    async def break_off(server) -> None:
        async with connected(server) as socket:
            await socket.send_bytes(audio.numpy().tobytes())
            await socket.receive()
            socket._response.connection.transport.abort()

    async def run(number: int) -> None:
        async with running_server(recognizer, max_clients=4) as server:
            for i in range(1, number + 1):
                await (transcribed(server, audio) if i % 2 else break_off(server))
                while await clients_of(server):
                    await asyncio.sleep(0.001)
                if i % 6 == 0:
                    gc.collect()  # the frames of exceptions
            assert not server.batcher._feeds

    few, many = traced_peaks(lambda number: None, lambda number: asyncio.run(run(number)), 6, 24)
    assert many < few + 200_000  # 18 streams of 32 kB


SPOILED = {
    "not a multiple": b"12345",
    "NaN": as_bytes(0.0, float("nan")),
    "infinite": as_bytes(float("inf")),
    "outside": as_bytes(0.1, -3000.0),
    "at most": bytes(MAX_MESSAGE + 4),
    "settings such as": "{chunk",
    "such as {": "[" * 900,
    "sample_rate": '{"samplerate": 8000}',
    "one of 320": '{"chunk_ms": 330}',
    "one of": '{"chunk_ms": [1], "lookahead_ms": null}',
    "8000 to 192000": '{"sample_rate": 1}',
    "whole number": '{"sample_rate": 16000.5}',
    "191999 costs too much": '{"sample_rate": 191999}',
    "settings": "x" * 100_000,
}


@pytest.mark.parametrize("name", SPOILED)
def test_garbage_ends_its_stream_with_a_message(recognizer: Recognizer, name: str) -> None:
    """After the text of the audio before it; other clients notice nothing."""
    audio = make_audio(3)

    async def spoil(server) -> list:
        async with connected(server) as socket:
            await (socket.send_str if isinstance(SPOILED[name], str) else socket.send_bytes)(SPOILED[name])
            messages = await received(socket)
            assert socket.close_code in (1008, 1009)
            return messages

    async def run() -> list:
        async with running_server(recognizer) as server:
            return await asyncio.gather(spoil(server), transcribed(server, audio, pause=0.001))

    [error], messages = asyncio.run(run())
    assert name in error["error"]
    assert finals(messages) == expected(recognizer, audio)


def test_text_before_garbage_is_kept(recognizer: Recognizer) -> None:
    audio = make_audio(3)

    async def run() -> list:
        async with running_server(recognizer) as server, connected(server) as socket:
            await socket.send_bytes(audio.numpy().tobytes())
            await socket.send_str('{"chunk_ms": 320}')
            return await received(socket)

    *texts, error = asyncio.run(run())
    assert "before it" in error["error"]
    assert finals(texts) == expected(recognizer, audio)


def test_a_huge_message_ends_its_connection_only(recognizer: Recognizer) -> None:
    audio = make_audio(3)

    async def huge(server) -> int | None:
        async with connected(server) as socket:
            try:
                await socket.send_bytes(bytes(30 * MAX_MESSAGE))
                await received(socket)
            except ConnectionError:
                return 1009
            return socket.close_code

    async def run() -> list:
        async with running_server(recognizer) as server:
            return await asyncio.gather(huge(server), transcribed(server, audio, pause=0.001))

    code, messages = asyncio.run(run())
    assert code in (1006, 1009)
    assert finals(messages) == expected(recognizer, audio)


def test_clients_time_and_silence_are_limited(recognizer: Recognizer) -> None:
    audio = make_audio(3)

    async def run() -> None:
        async with running_server(recognizer, max_clients=1, idle_seconds=0.5, max_minutes=2 / 60) as server:
            async with connected(server) as first, connected(server) as second:
                [refusal] = await received(second)
                assert "1 places are taken" in refusal["error"]
                assert second.close_code == 1013
                [silence] = await received(first)
                assert "no message" in silence["error"]
            messages = await transcribed(server, audio)
            assert "minutes" in messages[-1]["error"]
            # In messages of 0.1 s: what came within the limit is recognised.
            assert finals(messages[:-1]) == expected(recognizer, audio[:32_000])
            async with connected(server) as socket:  # little audio, but too much time
                with pytest.raises(ConnectionError):
                    while True:
                        await socket.send_bytes(as_bytes(0.0))
                        await asyncio.sleep(0.01)
                assert "minutes" in (await received(socket))[-1]["error"]

    asyncio.run(run())


def test_signs_of_life_without_audio_do_not_keep_a_place(recognizer: Recognizer) -> None:
    """Neither pings, which libraries send by themselves, nor settings again and again."""

    async def last(server: Server, send: Callable[[aiohttp.ClientWebSocketResponse], Awaitable[None]]) -> str:
        async with connected(server) as socket:

            async def chatter() -> None:
                with contextlib.suppress(ConnectionError):
                    for _ in range(400):
                        await send(socket)
                        await asyncio.sleep(0.01)

            chattering = asyncio.create_task(chatter())
            messages = await received(socket)
            assert not chattering.done()
            chattering.cancel()
            return messages[-1]["error"]

    async def run() -> None:
        async with running_server(recognizer, idle_seconds=0.4, max_minutes=1 / 60) as server:
            assert await last(server, lambda socket: socket.ping(b"?")) == "no message for 0.4 s"
            assert "minutes" in await last(server, lambda socket: socket.send_str('{"chunk_ms": 320}'))
            async with (
                aiohttp.ClientSession() as session,
                session.ws_connect(server.url + "/", autoping=False) as socket,
            ):
                await socket.ping(b"here?")
                answer = await socket.receive()
                assert (answer.type, answer.data) == (aiohttp.WSMsgType.PONG, b"here?")

    asyncio.run(run())


def test_audio_up_to_the_limit_is_recognised_in_messages_of_any_length(recognizer: Recognizer) -> None:
    audio = make_audio(5)

    async def run() -> None:
        async with running_server(recognizer, max_minutes=2 / 60) as server:
            for samples in (1600, 24_000, 80_000):
                messages = await transcribed(server, audio, samples=samples)
                assert "minutes" in messages[-1]["error"]
                assert finals(messages[:-1]) == expected(recognizer, audio[:32_000])

    asyncio.run(run())


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Origin": "OWN"}, 200),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://["}, 403),
        ({"Origin": "http://localhost:1"}, 403),
        ({"Host": "evil.example", "Origin": "http://evil.example"}, 403),  # DNS rebinding
        ({"Host": "evil.example"}, 403),
        ({"Host": "[::1"}, 403),
        ({"Host": "localhost:80", "Origin": "http://localhost:80"}, 200),
        ({"Host": "asr.example.org", "Origin": "https://asr.example.org"}, 200),  # by way of the proxy
        ({"Origin": "https://asr.example.org"}, 200),
    ],
)
def test_pages_of_other_sites_are_refused(recognizer: Recognizer, headers: dict[str, str], status: int) -> None:
    async def run() -> list[int]:
        async with running_server(recognizer) as server:
            given = {name: value.replace("OWN", server.url) for name, value in headers.items()}
            found = []
            async with aiohttp.ClientSession(headers=given) as session:
                for path in ("/", "/status", "/page.js"):
                    async with session.get(server.url + path) as response:
                        found.append(response.status)
            try:
                async with connected(server, **given):
                    found.append(200)
            except aiohttp.WSServerHandshakeError as error:
                found.append(error.status)
            return found

    assert asyncio.run(run()) == [status] * 4


def test_names_of_a_server_in_the_network(recognizer: Recognizer) -> None:
    """With a public host, other names are refused: they may have been made to point here."""

    async def answered(public_host: str | None) -> dict[str, int]:
        batcher = Batcher(recognizer, 1, RULES)
        server = Server(batcher, SETTINGS, 16000, Limits(), "a model", public_host)
        server._loopback = False  # as if it listened on all addresses
        found = {}
        for host in ("asr.example.org", "ASR.example.org", "evil.example:6006", "192.168.1.2:6006", "localhost:6006"):
            request = make_mocked_request("GET", "/status", headers={"Host": host})
            try:
                found[host] = (await server._check_origin(request, server._status)).status
            except aiohttp.web.HTTPForbidden as error:
                found[host] = error.status
        return found

    everything = asyncio.run(answered(None))
    assert set(everything.values()) == {200}
    assert asyncio.run(answered("asr.example.org:443")) == everything | {"evil.example:6006": 403}


@pytest.mark.parametrize("host", ["https://asr.example.org/", "asr.example.org/page", "a:b", "me@asr.example.org", ""])
def test_a_wrong_public_host_is_refused(recognizer: Recognizer, host: str) -> None:
    with pytest.raises(ValueError, match="--public-host is a host, or host:port, such as"):
        Server(Batcher(recognizer, 1, RULES), SETTINGS, 16000, Limits(), "a model", host)


def test_only_the_page_is_served(recognizer: Recognizer) -> None:
    async def run() -> dict[str, int]:
        async with running_server(recognizer) as server, aiohttp.ClientSession() as session:
            found = {}
            for path in (
                "/page.html",
                "/worklet.js",
                "/server.py",
                "/..%2fserver.py",
                "/README.md",
                "/page.js/",
                "/pageXhtml",
            ):
                async with session.get(server.url + path) as response:
                    found[path] = response.status
            return found

    found = asyncio.run(run())
    assert {path for path, status in found.items() if status == 200} == {"/page.html", "/worklet.js"}
    assert set(found.values()) == {200, 404}


def test_the_status_names_settings_and_load(recognizer: Recognizer) -> None:
    async def run() -> dict:
        async with running_server(recognizer) as server:
            await transcribed(server, make_audio(2))
            async with aiohttp.ClientSession() as session, session.get(server.url + "/status") as response:
                return await response.json()

    status = asyncio.run(run())
    assert status["settings"][1] == {"chunk_ms": 160, "lookahead_ms": 80}
    assert status["sample_rate"] == 16000
    assert status["audio_seconds"] == pytest.approx(2)
    assert 0 < status["busy_seconds"] < status["uptime_seconds"]


def test_clients_are_told_that_the_server_stops(recognizer: Recognizer) -> None:
    """They get the text of what they have said."""
    audio = make_audio(3)

    async def run() -> list:
        async with running_server(recognizer) as server:
            client = connected(server)
            socket = await client.__aenter__()
            await socket.send_bytes(audio.numpy().tobytes())
            await asyncio.sleep(0.1)
            reading = asyncio.create_task(received(socket))
        messages = await reading
        assert socket.close_code == 1001
        await client.__aexit__(None, None, None)
        return messages

    *texts, goodbye = asyncio.run(run())
    assert goodbye == {"error": "the server is stopped"}
    assert finals(texts) == expected(recognizer, audio)


def test_a_port_in_use_is_named(recognizer: Recognizer) -> None:
    async def run() -> None:
        async with running_server(recognizer) as server:
            port = int(server.url.rpartition(":")[2])
            with pytest.raises(OSError, match="choose another --port"):
                await server.run("127.0.0.1", port, print)

    asyncio.run(run())


def test_a_fault_of_the_recogniser_ends_the_server(recognizer: Recognizer, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object) -> None:
        raise RuntimeError("out of memory")

    async def run() -> None:
        async with running_server(recognizer) as server:
            monkeypatch.setattr(server.batcher, "_compute", broken)
            async with connected(server) as socket:
                await socket.send_bytes(bytes(100_000))
                messages.extend(await received(socket))
            await asyncio.wait({server.running})

    messages: list = []
    with pytest.raises(RuntimeError, match="out of memory"):
        asyncio.run(run())
    assert messages == [{"error": "the server is stopped"}]


def test_silence_gives_one_empty_text() -> None:
    """sherpa-onnx's client needs a last message. Here the input is also shorter than a chunk."""
    recognizer = make_recognizer()
    recognizer.search = Script(recognizer.model, {})

    async def run() -> list:
        async with running_server(recognizer) as server:
            return await transcribed(server, make_audio(0.2))

    [message, done] = asyncio.run(run())
    assert (message["text"], message["is_final"], done) == ("", False, "Done!")


def test_sherpas_clients_understand_the_server(recognizer: Recognizer) -> None:
    """sherpa-onnx's Python clients connect to "/", send float32 and "Done", and read until "Done!"."""
    websockets = pytest.importorskip("websockets", reason="websockets is not installed: pip install websockets")
    audio = make_audio(5)

    async def run() -> list[str]:
        messages = []
        async with running_server(recognizer) as server, websockets.connect(f"ws{server.url[4:]}") as socket:
            for block in audio.split(8000):
                await socket.send(block.numpy().tobytes())
            await socket.send("Done")
            async for message in socket:
                if message == "Done!":
                    return messages
                messages.append(message)
        raise AssertionError("no end")

    messages = [json.loads(message) for message in asyncio.run(run())]
    assert finals(messages) == expected(recognizer, audio)
    assert messages[-1]["is_final"]

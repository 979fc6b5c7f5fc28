"""The page in headless Chromium, with a file in place of the microphone."""

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import soundfile
from browser import console_errors, open_browser
from recognizer_cases import make_audio, make_recognizer

aiohttp = pytest.importorskip("aiohttp", reason="aiohttp is not installed: pip install aiohttp")

from serving_cases import expected, finals, running_server  # noqa: E402

from summarymix.serving.batching import Batcher, Setting  # noqa: E402


def text_of(driver: Any, name: str) -> str:
    return driver.find_element("id", name).text


def wait(driver: Any, condition: Callable[[Any], object]) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(driver, 60, poll_frequency=0.05).until(condition)


def browse(audio: Path, use: Callable[[Any], object], is_secure: bool = True, **limits: Any) -> None:
    """Call ``use`` with a browser that shows the page of a running server; ``audio`` is its microphone.

    Unless ``is_secure``, the page is on another host than localhost, without HTTPS.
    """
    flags = (
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-audio-capture={audio}%noloop",
        "--autoplay-policy=no-user-gesture-required",
    )

    def work(url: str) -> None:
        address = url.removeprefix("http://").rstrip("/")
        with open_browser(*flags, f"--host-resolver-rules=MAP asr.example.org {address}") as driver:
            driver.get(url if is_secure else "http://asr.example.org")
            wait(driver, lambda driver: text_of(driver, "state") == "Ready.")
            use(driver)
            assert console_errors(driver) == []

    async def run() -> None:
        async with running_server(make_recognizer(), **limits) as server:
            await asyncio.to_thread(work, server.url)

    asyncio.run(run())


def segments(driver: Any) -> list[str]:
    """Final texts without their times."""
    script = "return [...document.querySelectorAll('#final p')].map(p => [...p.childNodes].slice(1)"
    return driver.execute_script(script + ".map(n => n.textContent).join(''))")


def test_the_microphone_becomes_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    soundfile.write(tmp_path / "a.wav", make_audio(30), 16000)
    sent = []
    send_str = aiohttp.web.WebSocketResponse.send_str

    async def spy(socket: Any, text: str) -> None:
        sent.append(text)
        await send_str(socket, text)

    def use(driver: Any) -> None:
        button = driver.find_element("id", "microphone")
        button.click()
        wait(driver, lambda driver: len(segments(driver)) > 1 and text_of(driver, "clients").startswith("1 "))
        assert button.text == "Stop"
        assert not driver.find_element("id", "chunk").is_enabled()
        assert text_of(driver, "latency").endswith(" ms")
        button.click()
        wait(driver, lambda driver: text_of(driver, "state") == "Ready.")
        assert text_of(driver, "problem") == ""
        assert sent[-1] == "Done!"
        assert segments(driver) == [text for text, _, _ in finals([json.loads(text) for text in sent[:-1]])]
        words = driver.find_elements("css selector", "#final .word")
        assert all(word.get_attribute("title").endswith(" %") for word in words)
        driver.find_element("id", "clear").click()
        assert segments(driver) == []
        assert driver.find_element("id", "hint").is_displayed()

    monkeypatch.setattr(aiohttp.web.WebSocketResponse, "send_str", spy)
    browse(tmp_path / "a.wav", use)


def test_nothing_is_sent_after_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The microphone is off while the last words are computed."""
    soundfile.write(tmp_path / "a.wav", make_audio(30), 16000)
    compute = Batcher._compute

    def slowly(*args: Any) -> Any:
        time.sleep(0.5)
        return compute(*args)

    def use(driver: Any) -> None:
        driver.execute_script(
            "window.sent = []; const send = WebSocket.prototype.send;"
            "WebSocket.prototype.send = function (data) { sent.push(typeof data); send.call(this, data); }"
        )
        button = driver.find_element("id", "microphone")
        button.click()
        wait(driver, lambda driver: len(segments(driver)) > 1)
        button.click()
        wait(driver, lambda driver: text_of(driver, "state") == "Ready.")
        kinds = driver.execute_script("return sent")
        assert kinds == ["string", *["object"] * (len(kinds) - 2), "string"]  # settings, audio, "Done"

    monkeypatch.setattr(Batcher, "_compute", slowly)
    browse(tmp_path / "a.wav", use)


def test_the_first_setting_is_chosen_at_first(tmp_path: Path) -> None:
    def use(driver: Any) -> None:
        chosen = [driver.find_element("id", name).get_attribute("value") for name in ("chunk", "lookahead")]
        assert chosen == ["320", "160"]
        driver.find_element("css selector", "#lookahead option[value='0']").click()
        driver.find_element("css selector", "#chunk option[value='640']").click()
        assert driver.find_element("id", "lookahead").get_attribute("value") == "0"

    settings = [Setting(320, 160), Setting(320, 0), Setting(640, 160), Setting(640, 0)]
    soundfile.write(tmp_path / "a.wav", make_audio(1), 16000)
    browse(tmp_path / "a.wav", use, settings=settings)


def test_a_file_gives_the_text_of_a_stream(tmp_path: Path) -> None:
    """With the chunk size and the look-ahead that are chosen."""
    audio = make_audio(2.4)  # whole blocks of Web Audio
    soundfile.write(tmp_path / "a.wav", audio, 16000, subtype="FLOAT")

    def use(driver: Any) -> None:
        driver.find_element("css selector", "#chunk option[value='160']").click()
        assert text_of(driver, "lookahead") == "80 ms"
        driver.find_element("id", "file").send_keys(str(tmp_path / "a.wav"))
        wait(driver, lambda driver: text_of(driver, "state") == "Playing a.wav.")
        wait(driver, lambda driver: text_of(driver, "state") == "Ready.")
        found = [text for text, _, _ in expected(make_recognizer(), audio, {"chunk_ms": 160, "lookahead_ms": 80})]
        assert segments(driver) == found != []

    browse(tmp_path / "a.wav", use)


def test_problems_are_named(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", make_audio(9), 16000)
    (tmp_path / "b.wav").write_text("no audio")

    def use(driver: Any) -> None:
        driver.find_element("id", "file").send_keys(str(tmp_path / "b.wav"))
        wait(driver, lambda driver: "cannot play b.wav" in text_of(driver, "problem"))
        wait(driver, lambda driver: text_of(driver, "state") == "Ready.")
        driver.execute_script(
            "window.Real = WebSocket;"
            "WebSocket = function () { this.close = () => {}; setTimeout(() => this.onclose(), 9); }"
        )
        driver.find_element("id", "microphone").click()
        wait(driver, lambda driver: "The server does not answer." in text_of(driver, "problem"))
        wait(driver, lambda driver: text_of(driver, "state") == "Ready.")
        driver.execute_script("WebSocket = Real")
        driver.find_element("id", "microphone").click()
        wait(driver, lambda driver: "may last 0.05 minutes" in text_of(driver, "problem"))
        assert segments(driver)
        assert text_of(driver, "microphone") == "Start microphone"

    browse(tmp_path / "a.wav", use, max_minutes=0.05)


def test_a_page_without_https_tells_where_it_works(tmp_path: Path) -> None:
    """Browsers give it no microphone, no audio worklet and no clipboard."""
    soundfile.write(tmp_path / "a.wav", make_audio(1), 16000)

    def use(driver: Any) -> None:
        assert "works only on localhost or over HTTPS" in text_of(driver, "problem")
        assert not driver.find_element("id", "hint").is_displayed()
        driver.execute_script("document.getElementById('partial').textContent = 'ab'")
        wait(driver, lambda driver: driver.find_element("id", "clear").is_enabled())
        for name in ("microphone", "play", "chunk", "lookahead", "copy"):
            assert not driver.find_element("id", name).is_enabled()

    browse(tmp_path / "a.wav", use, is_secure=False)

"""The command summarymix serve: settings on offer, its errors, and a process from start to stop."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from recognizer_cases import LETTERS, make_recognizer
from talking_models import make_model

import summarymix
from summarymix.chunking import ChunkConfig
from summarymix.data.features import FbankExtractor, FbankOptions
from summarymix.decoding.recognizer import Recognizer
from summarymix.serving.batching import Rules, Setting
from summarymix.serving.cli import _make_parser, main, offered_settings

aiohttp = pytest.importorskip("aiohttp", reason="aiohttp is not installed: pip install aiohttp")

from serving_cases import connected, received  # noqa: E402

ROOT = Path(__file__).parents[2]


def test_settings_are_those_that_the_model_allows() -> None:
    recognizer = make_recognizer()
    usual = offered_settings(recognizer, None, None, Rules())
    assert usual[0] == (640, 0)
    assert (320, 320) in usual
    assert (160, 320) not in usual
    assert offered_settings(recognizer, [400, 80], [80], Rules()) == [Setting(400, 80), Setting(80, 80)]
    with pytest.raises(ValueError, match="nearest: 640 or 680"):
        offered_settings(recognizer, [650], None, Rules())
    assert offered_settings(recognizer, [80, 400, 80], [160], Rules()) == [Setting(80, 160), Setting(400, 160)]
    with pytest.raises(ValueError, match="--reset-after-silence must be above 0"):
        offered_settings(recognizer, None, None, Rules(reset_after_silence=0))


def test_settings_keep_to_the_slowest_stack_of_an_encoder() -> None:
    model = make_model("stateless", encoder="zipformer")
    recognizer = Recognizer(model, LETTERS, FbankExtractor(FbankOptions(num_mel_bins=16)))
    model.encoder.chunk_multiple = 8
    assert offered_settings(recognizer, None, None, Rules()) == [
        (640, 0), (640, 320), (320, 0), (320, 320), (1280, 0), (1280, 320)
    ]  # fmt: skip


def test_the_default_backend_suits_exported_models(exported) -> None:
    folder = exported("conformer", "onnx-streaming", ChunkConfig(8, 2))
    args = _make_parser("serve").parse_args([str(folder)])
    assert summarymix.load(args.model, backend=args.backend).backend is None


def test_settings_of_an_export_begin_with_its_default(exported) -> None:
    chunks = [ChunkConfig(8, 2), ChunkConfig(6, 2, 2), ChunkConfig(14, 2)]
    recognizer = summarymix.load(exported("conformer", "onnx-streaming", *chunks))
    usual = offered_settings(recognizer, None, None, Rules())
    assert usual == [(560, 0), (240, 80), (320, 0)]
    assert offered_settings(recognizer, [240], [80], Rules()) == [Setting(240, 80)]
    assert offered_settings(recognizer, [320, 560], None, Rules()) == [Setting(320, 0), Setting(560, 0)]
    assert offered_settings(recognizer, None, [80, 0], Rules()) == [Setting(240, 80), Setting(560, 0), Setting(320, 0)]
    with pytest.raises(ValueError, match="--chunk-ms 400: chunks and look-aheads of the exported model are 560"):
        offered_settings(recognizer, [400], [0], Rules())
    offline = summarymix.load(exported("conformer", "onnx", ChunkConfig()))
    with pytest.raises(ValueError, match="this export recognises whole recordings only"):
        offered_settings(offline, None, None, Rules())


def test_errors_name_the_remedy(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="no-model"):
        main(["no-model"])
    with pytest.raises(SystemExit, match="--max-clients, --max-minutes and --idle-seconds must be above 0, and finite"):
        main(["no-model", "--max-minutes", "inf"])
    for option, value, message in (("--endpoint-silence", "nan", "endpointing"), ("--port", "70000", "--port 70000")):
        with pytest.raises(SystemExit) as wrong:
            main(["no-model", option, value])
        assert wrong.value.code == 2
        assert message in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["no-model", "--nbest", "5"])
    assert "unrecognized arguments: --nbest 5" in capsys.readouterr().err
    monkeypatch.delitem(sys.modules, "summarymix.serving.server", raising=False)
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    with pytest.raises(SystemExit, match="pip install aiohttp"):
        main(["no-model"])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_server(exp_dir: Path, number: signal.Signals) -> None:
    """Clients get a goodbye."""
    code = "import sys; from summarymix.command import main; main()"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}

    async def talk(url: str) -> list:
        async with connected(SimpleNamespace(url=url)) as socket:
            await socket.send_bytes(bytes(64_000))
            server.send_signal(number)
            return await received(socket)

    command = [sys.executable, "-c", code, "serve", str(exp_dir), "--port", "0"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    server = subprocess.Popen(command, env=environment, text=True, **pipes)
    try:
        url = server.stdout.readline().removeprefix("listening on ").strip()
        assert asyncio.run(talk(url))[-1] == {"error": "the server is stopped"}
        out, err = server.communicate(timeout=60)
        assert (out, err, server.returncode) == ("", "summarymix serve: stopped\n", 0)
    finally:
        server.kill()

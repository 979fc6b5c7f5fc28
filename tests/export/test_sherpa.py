"""L7: the real sherpa-onnx gives with exported files what this library gives with the model."""

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sherpa_onnx
import soundfile
import torch
from export_cases import FBANK, TOKENIZER, make_audio, make_model

from summarymix.chunking import ChunkConfig
from summarymix.data.features import FbankExtractor
from summarymix.decoding.beam import ModifiedBeamSearch
from summarymix.decoding.greedy import GreedySearch
from summarymix.decoding.search import Hypothesis, Search
from summarymix.export.readme import tail_seconds
from summarymix.lm.hotwords import ContextGraph, read_hotwords
from summarymix.model import Transducer

RATE = 16000
RING, SUM, AHEAD, WHOLE = ChunkConfig(8, 2), ChunkConfig(4, -1), ChunkConfig(8, 2, 4), ChunkConfig()
STREAMING = [("conformer", RING), ("conformer", SUM), ("conformer", AHEAD), ("zipformer", ChunkConfig(8, 1, 4))]


def recognizer(folder: Path, kind: str = "Online", parts: str = "", ending: str = ".onnx", **options):
    """sherpa-onnx's recogniser of an export, its model type found by itself. ``parts``: graphs with another ending."""
    files = {
        name: str(folder / (name + (ending if name in parts else ".onnx"))) for name in ("encoder", "decoder", "joiner")
    }
    if kind == "Offline":
        options["model_type"] = ""  # as in C++ and on Android
    else:
        options["temperature_scale"] = 1.0  # of the scores it reports
    return getattr(sherpa_onnx, f"{kind}Recognizer").from_transducer(
        **files, tokens=str(folder / "tokens.txt"), feature_dim=16, num_threads=1, **options
    )


def stream(recognizer, audios: list[np.ndarray], chunk: ChunkConfig, block: int = 100_000) -> list:
    """Feed them block by block, with tail padding, and decode whichever are ready together; their results."""
    silence = np.zeros(int(tail_seconds(chunk, FBANK) * RATE), np.float32)
    audios = [np.concatenate([audio, silence]) for audio in audios]
    streams = [recognizer.create_stream() for _ in audios]
    for start in range(0, max(map(len, audios)) + block, block):
        for one, audio in zip(streams, audios, strict=True):
            one.accept_waveform(RATE, audio[start : start + block])
            if start <= len(audio) < start + block:
                one.input_finished()
        while ready := [one for one in streams if recognizer.is_ready(one)]:
            recognizer.decode_streams(ready)
    return [recognizer.get_result_all(one) for one in streams]


def recognise(recognizer, audios: list[np.ndarray], chunk: ChunkConfig) -> list:
    """Results of an online recogniser, or of an offline one, which gets them in one batch."""
    if chunk.chunk_size is not None:
        return stream(recognizer, audios, chunk)
    streams = [recognizer.create_stream() for _ in audios]
    for one, audio in zip(streams, audios, strict=True):
        one.accept_waveform(RATE, audio)
    recognizer.decode_streams(streams)
    return [one.result for one in streams]


@torch.inference_mode()
def simulate(model: Transducer, audio: np.ndarray, chunk: ChunkConfig, search: Search | None = None) -> Hypothesis:
    """Recognise it with the model, without the last part that makes no whole chunk; by greedy search if not another."""
    search = search or GreedySearch(model, unk_id=TOKENIZER.unk_id)
    if chunk.chunk_size is not None:
        audio = np.concatenate([audio, np.zeros(int(tail_seconds(chunk, FBANK) * RATE), np.float32)])
    features = FbankExtractor(FBANK).extract(audio)
    out, lengths = model.encoder(features[None], torch.tensor([len(features)]), chunk)
    if chunk.chunk_size is not None:
        lengths = (lengths - chunk.lookahead).clamp(min=0) // chunk.chunk_size * chunk.chunk_size
    return search.decode(out, lengths)[0]


def assert_same(result, expected: Hypothesis, log_probs: str | None = "ys_probs") -> None:
    assert len(expected.tokens) > 5
    assert len(set(expected.tokens)) > 2
    assert list(result.tokens) == [TOKENIZER.tokens[token].replace("\u2581", " ") for token in expected.tokens]
    assert result.timestamps == pytest.approx([0.04 * frame for frame in expected.frames], abs=1e-4)
    if log_probs:
        assert getattr(result, log_probs) == pytest.approx(expected.log_probs, abs=1e-4)


@pytest.mark.parametrize(("encoder", "chunk"), STREAMING)
def test_streams_side_by_side_in_any_blocks(exported, encoder: str, chunk: ChunkConfig) -> None:
    folder, model = exported(encoder, "onnx-streaming", chunk), make_model(encoder)
    audios = [make_audio(seconds, seed) for seed, seconds in enumerate([6.3, 1.1, 3.0])]
    expected = [simulate(model, audio, chunk) for audio in audios]
    for block in (100_000, 1234):
        results = stream(recognizer(folder), audios, chunk, block)
        for result, hypothesis in zip(results, expected, strict=True):
            assert_same(result, hypothesis)


@pytest.mark.parametrize("encoder", ["conformer", "zipformer"])
def test_offline_in_one_batch(exported, encoder: str) -> None:
    folder, model = exported(encoder, "onnx", WHOLE), make_model(encoder)
    audios = [make_audio(seconds, seed) for seed, seconds in enumerate([2.0, 5.3, 1.2])]
    results = recognise(recognizer(folder, "Offline"), audios, WHOLE)
    for result, audio in zip(results, audios, strict=True):
        assert_same(result, simulate(model, audio, WHOLE), "ys_log_probs")


def test_offline_takes_audio_of_any_length(exported) -> None:
    offline = recognizer(exported("conformer", "onnx", WHOLE), "Offline")
    for samples in (80, 400, 800, 1100, 1200, 2000):  # less than a frame of features, than one of the encoder, …
        one = offline.create_stream()
        one.accept_waveform(RATE, make_audio(1.0)[:samples])
        offline.decode_stream(one)
        assert len(one.result.tokens) <= max((samples + 80) // 640, 0), samples


@pytest.mark.parametrize("hotwords", ["", "gad :8.0\nhe bf :5\n"])
@pytest.mark.parametrize("kind", ["Online", "Offline"])
def test_beam_search_and_hotwords(exported, kind: str, hotwords: str, tmp_path: Path) -> None:
    """Token for token and frame for frame, whatever the number of paths."""
    online, audios = kind == "Online", [make_audio(seconds, seed) for seed, seconds in enumerate([6.0, 1.7, 4.0])]
    chunk, model = RING if online else WHOLE, make_model("conformer")
    folder = exported("conformer", "onnx-streaming" if online else "onnx", chunk)
    options: dict[str, Any] = {"decoding_method": "modified_beam_search"}
    scorers = []
    if hotwords:
        (tmp_path / "hotwords.txt").write_text(hotwords)
        options |= {"hotwords_file": str(tmp_path / "hotwords.txt"), "modeling_unit": "bpe"}
        options["bpe_vocab"] = str(folder / "bpe.vocab")
        scorers = [ContextGraph(read_hotwords(tmp_path / "hotwords.txt", TOKENIZER, 1.5))]
    for beam_size in (1, 4, 7):
        one = recognizer(folder, kind, max_active_paths=beam_size, **options)
        search = ModifiedBeamSearch(model, beam_size=beam_size, scorers=scorers, unk_id=TOKENIZER.unk_id)
        for result, audio in zip(recognise(one, audios, chunk), audios, strict=True):
            expected = simulate(model, audio, chunk, search)
            assert_same(result, expected, log_probs=None)
        if hotwords and beam_size > 1:  # the best path alone is chosen without them
            assert "gad" in recognise(one, audios[:1], chunk)[0].text


@pytest.mark.parametrize(
    ("parts", "ending", "share"),
    [
        *((name, ".int8.onnx", 0.6) for name in ("encoder", "decoder", "joiner", "encoder joiner")),
        ("encoder decoder joiner", ".int8.onnx", 0.6),
        ("encoder decoder joiner", ".fp16.onnx", 0.9),
    ],
)
def test_files_of_other_precisions_load_and_agree_mostly(exported, parts: str, ending: str, share: float) -> None:
    folder, audio = exported("conformer", "onnx-streaming", RING), make_audio(6.0)
    [exact] = stream(recognizer(folder), [audio], RING)
    [rounded] = stream(recognizer(folder, "Online", parts, ending), [audio], RING)
    exact, rounded = (set(zip(result.tokens, result.timestamps, strict=True)) for result in (exact, rounded))
    assert len(exact & rounded) > share * len(exact | rounded)


@pytest.mark.parametrize("format", ["onnx-streaming", "onnx"])
def test_the_readme_program_runs(exported, format: str, tmp_path: Path, monkeypatch, capsys) -> None:
    """And gives the last word of an audio, whatever its length."""
    chunk = RING if format == "onnx-streaming" else WHOLE
    folder, model = exported("conformer", format, chunk), make_model("conformer")
    [program] = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), flags=re.DOTALL)
    for path in folder.iterdir():
        os.symlink(path, tmp_path / path.name)
    monkeypatch.chdir(tmp_path)
    for samples in (16000, 16000 + 5120 - 1, 16000 + 5120):
        audio = make_audio(2.0)[:samples]
        soundfile.write("audio.wav", audio, RATE, subtype="FLOAT")
        exec(program, {})
        text = TOKENIZER.decode(simulate(model, audio, chunk).tokens)
        assert capsys.readouterr().out.split() == text.split()


def test_the_tail_padding_reaches_the_last_frame() -> None:
    """Every whole frame of an audio is in a chunk that sherpa-onnx finds ready: T + 1 frames from its start."""
    for chunk in (ChunkConfig(4), ChunkConfig(16), ChunkConfig(8, -1, 6)):
        chunk_size = chunk.chunk_size or 0
        size, shift = 4 * (chunk_size + chunk.lookahead) + 3, 4 * chunk_size
        for samples in range(800, 60_000, 97):
            ready = FBANK.num_frames(samples + int(tail_seconds(chunk, FBANK) * RATE))
            chunks = max((ready - size - 1) // shift + 1, 0)
            assert chunks * chunk_size >= ((FBANK.num_frames(samples) - 1) // 2 - 1) // 2

"""Exported files in the place of the model."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from export_cases import FBANK, TOKENIZER, make_audio, make_model, save_run
from saved_runs import write_cut

import summarymix
from summarymix.chunking import ChunkConfig
from summarymix.data.config import DataConfig
from summarymix.data.features import SILENCE, FbankExtractor
from summarymix.data.loading import Batch
from summarymix.data.manifests import cuts_path, write_manifest
from summarymix.decoding.beam import ModifiedBeamSearch
from summarymix.decoding.cli import main
from summarymix.decoding.evaluate import decode_batch
from summarymix.decoding.exported import describe_measured
from summarymix.decoding.greedy import GreedySearch, Hypothesis
from summarymix.decoding.recognizer import Recognizer
from summarymix.decoding.streaming import StreamingRecognizer
from summarymix.export import onnx_transducer
from summarymix.export.onnx import load_onnx
from summarymix.export.onnx_transducer import OnnxTransducer
from summarymix.runs import epoch_path, read_checkpoint, save_checkpoint
from summarymix.scoring.errors import read_recogs
from summarymix.scoring.results import read_results

RING, AHEAD, WHOLE = ChunkConfig(8, 2), ChunkConfig(8, 2, 4), ChunkConfig()


def decode(model, features: list[torch.Tensor]) -> list[Hypothesis]:
    recognizer = StreamingRecognizer(GreedySearch(model, unk_id=TOKENIZER.unk_id), RING, num_streams=2)
    results = dict(recognizer.decode_all(enumerate(features)))
    return [results[n] for n in range(len(features))]


def test_streams_are_recognised_alike_with_a_tail_that_makes_whole_chunks(exported) -> None:
    files, model = OnnxTransducer(exported("conformer", "onnx-streaming", RING)), make_model("conformer")
    assert files.encoder.chunks == [RING]
    whole = FbankExtractor(FBANK).extract(make_audio(4.0))
    utterances = [whole[:length] for length in (0, 34, 35, 63, 64, 350)]
    found = decode(files, utterances)
    assert [hypothesis.num_frames // 8 for hypothesis in found] == [1, 2, 2, 2, 3, 11]  # what sherpa-onnx decodes
    padded = [
        torch.cat([features, torch.full((8 * frames * 4 + 3 - len(features), 16), SILENCE)])
        for features, frames in zip(utterances, (1, 2, 2, 2, 3, 11), strict=True)
    ]
    for one, other in zip(found, decode(model, padded), strict=True):
        assert (one.tokens, one.frames) == (other.tokens, other.frames)
        assert one.log_probs == pytest.approx(other.log_probs, abs=1e-4)


@pytest.mark.parametrize("format", ["onnx", "onnx-streaming"])
def test_recogniser_of_exported_files(exported, format: str, tmp_path: Path) -> None:
    """Files alone are enough: tokens, features, chunk size and look-ahead are in the folder."""
    chunk = WHOLE if format == "onnx" else AHEAD
    folder = exported("conformer", format, chunk)
    recognizer = summarymix.load(folder)
    model = make_model("conformer")
    model.encoder.takes_whole_chunks = format != "onnx"
    trained = Recognizer(model, TOKENIZER, FbankExtractor(FBANK))
    audio, mode = make_audio(3.3), "offline" if format == "onnx" else "streaming"
    options = {"mode": mode}
    if format == "onnx-streaming":
        options |= {"chunk_ms": chunk.chunk_ms, "left_chunks": chunk.left_chunks, "lookahead_ms": chunk.lookahead_ms}
    expected = trained.transcribe(audio, **options)
    found = recognizer.transcribe(audio, mode=mode)
    assert len(found.words) > 5
    assert (found.text, found.end) == (expected.text, expected.end)
    assert recognizer.transcribe(audio, **options) == found
    refusal = "this export recognises whole recordings only" if format == "onnx" else "the model was exported with"
    with pytest.raises(ValueError, match=refusal):
        recognizer.transcribe(audio, mode="streaming", chunk_ms=640)
    if format == "onnx-streaming":
        with pytest.raises(ValueError, match=r"offline: the model was exported with .* look-ahead 160 ms"):
            recognizer.transcribe(audio, mode="offline")
        with pytest.raises(ValueError, match="--lookahead-ms has no effect with --mode offline"):
            recognizer.transcribe(audio, mode="offline", lookahead_ms=40)
        stream = recognizer.stream()
        segments = [segment for block in np.split(audio, 11) for segment in stream.accept(block)] + stream.finish()
        assert " ".join(segment.text for segment in segments) == expected.text
        assert recognizer.transcribe(np.zeros(0)).text == ""
        for seconds in (0.5, 1.0, 1.5):
            short = recognizer.transcribe(audio[: round(seconds * 16000)])
            assert all(word.start <= word.end <= seconds for word in short.words)
        assert len(summarymix.load(folder, int8=True).transcribe(audio).words) > 0
    with pytest.raises(ValueError, match="is an exported model: epoch and avg are fixed"):
        summarymix.load(folder, epoch=1)


def test_exported_files_need_onnx_runtime_alone(exported, monkeypatch: pytest.MonkeyPatch) -> None:
    """onnx and onnxscript are for the export; where a model is used, they may be missing."""
    audio = make_audio(1.5)
    cases = [
        (exported("conformer", "onnx-streaming", AHEAD), "streaming"),
        (exported("conformer", "onnx", WHOLE), "offline"),
    ]
    for name in ("onnx", "onnxscript"):
        monkeypatch.setitem(sys.modules, name, None)
    for folder, mode in cases:
        assert summarymix.load(folder).transcribe(audio, mode=mode).words
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ImportError, match=r"onnxruntime is not installed: pip install onnxruntime$"):
        summarymix.load(folder)


def test_an_encoder_is_loaded_when_its_first_chunk_comes(exported, monkeypatch: pytest.MonkeyPatch) -> None:
    chunks = [ChunkConfig(8, 2), ChunkConfig(6, 2, 2), ChunkConfig(14, 2)]
    folder = exported("conformer", "onnx-streaming", *chunks)
    loaded: list[str] = []

    def spy(path: Path, num_threads: int | None = None) -> Callable[..., list[torch.Tensor]]:
        loaded.append(path.name)
        return load_onnx(path, num_threads)

    monkeypatch.setattr(onnx_transducer, "load_onnx", spy)
    recognizer = summarymix.load(folder)
    streams = [recognizer.stream(chunk_ms=chunk.chunk_ms) for chunk in chunks]
    recognizer.model.about()
    assert loaded == ["decoder.onnx", "joiner.onnx"]
    for _ in range(2):
        for n in (1, 2):
            streams[n].accept(make_audio(0.7))
    assert loaded[2:] == ["encoder-240-80.onnx", "encoder-560.onnx"]


def test_one_folder_for_many_latencies(exported, tmp_path: Path) -> None:
    """Streams use the encoder that is asked for, else that nearest to 640 ms; the folder's README gets the figures."""
    chunks = [ChunkConfig(8, 2), ChunkConfig(6, 2, 2), ChunkConfig(14, 2)]
    folder = tmp_path / "exported"
    shutil.copytree(exported("conformer", "onnx-streaming", *chunks), folder)
    recognizer, model = summarymix.load(folder), make_model("conformer")
    model.encoder.takes_whole_chunks = True
    trained = Recognizer(model, TOKENIZER, FbankExtractor(FBANK))
    audio = make_audio(3.3)
    texts = []
    for asked, chunk in (
        ({"chunk_ms": 320}, chunks[0]),
        ({"lookahead_ms": 80}, chunks[1]),
        ({}, chunks[2]),
        ({"chunk_ms": 240}, chunks[1]),
    ):
        values = {"chunk_ms": chunk.chunk_ms, "left_chunks": 2, "lookahead_ms": chunk.lookahead_ms}
        texts.append(recognizer.transcribe(audio, **asked).text)
        assert texts[-1] == trained.transcribe(audio, **values).text
    assert len(set(texts)) == 3
    with pytest.raises(ValueError, match=r"chunk 320 ms.*look-ahead 80 ms: the model was exported with .*560 ms"):
        recognizer.transcribe(audio, chunk_ms=320, lookahead_ms=80)

    cuts = [write_cut(tmp_path / f"{i}.wav", make_audio(2.5, seed=i), "ab cd") for i in range(2)]
    for split in ("dev", "test"):
        write_manifest(cuts, cuts_path(tmp_path, "mini", split))
    save_run(model, DataConfig(manifest_dir=str(tmp_path), on_the_fly=True, num_mel_bins=16), tmp_path)
    options = ["--exp-dir", str(tmp_path), "--onnx", str(folder), "--splits", "dev"]
    main("mini", options)
    main("mini", [*options, "test", "--fp16"])
    results = read_results(tmp_path / "results.jsonl")
    assert {(r.method, r.split, r.chunk_ms, r.lookahead_ms) for r in results} == {
        (method, split, chunk.chunk_ms, chunk.lookahead_ms)
        for method, split in (
            ("greedy_search-onnx", "dev"),
            ("greedy_search-onnx-fp16", "dev"),
            ("greedy_search-onnx-fp16", "test"),
        )
        for chunk in chunks
    }
    [row] = [line for line in (folder / "README.md").read_text().splitlines() if "encoder-240-80.onnx" in line]
    [result] = [r for r in results if r.method == "greedy_search-onnx" and r.lookahead_ms == 80]
    *_, dev, test, rtf, streams = (cell.strip() for cell in row.split("|")[:-1])
    assert (dev, test) == (f"{result.wer:.2f}", "–")
    if result.threads == 1:
        assert (rtf, int(streams)) == (f"{result.rtf:.4f}", round(1 / result.rtf))
    else:
        assert (rtf, streams) == ("–", "–")
    # Another model in the folder of the run
    checkpoint = read_checkpoint(epoch_path(tmp_path, 1))
    checkpoint["model"]["joiner.out.bias"] += 1
    save_checkpoint(epoch_path(tmp_path, 1), checkpoint)
    written = (tmp_path / "results.jsonl").read_text(), (folder / "README.md").read_text()
    with pytest.raises(SystemExit, match=r"exported is not an export of .*, epoch 1, avg 0: its weights or tokens"):
        main("mini", options)
    assert written == ((tmp_path / "results.jsonl").read_text(), (folder / "README.md").read_text())
    (folder / "README.md").write_text("# My model\n")
    assert "left as it is" in describe_measured(OnnxTransducer(folder), tmp_path / "results.jsonl")
    assert (folder / "README.md").read_text() == "# My model\n"


def test_folders_must_be_whole_and_of_one_export(exported, tmp_path: Path) -> None:
    chunks = [ChunkConfig(8, 2), ChunkConfig(6, 2, 2), ChunkConfig(14, 2)]
    source = exported("conformer", "onnx-streaming", *chunks)

    def folder(name: str, *without: str) -> Path:
        shutil.copytree(source, tmp_path / name)
        for pattern in without:
            for path in (tmp_path / name).glob(pattern):
                path.unlink()
        return tmp_path / name

    for missing in ("encoder-320.int8.onnx", "joiner.int8.onnx"):
        partial = folder(missing, missing)
        with pytest.raises(FileNotFoundError, match=f"No .*{missing}: .* --int8"):
            OnnxTransducer(partial, "int8")
        listed = [(each.name, each.precision) for each in OnnxTransducer(partial).about().encoders]
        assert ("encoder-320", "fp32") in listed
        assert len(listed) == 9 - missing.startswith("encoder")
    small = folder("int8 alone", "*r.onnx", "*0.onnx", "*.fp16.onnx")
    assert summarymix.load(small, int8=True).transcribe(make_audio(2.0), chunk_ms=320).text
    with pytest.raises(FileNotFoundError, match=r"No .*encoder-240-80.onnx"):
        summarymix.load(small)
    mixed = folder("same setting")
    shutil.copy(mixed / "encoder-320.onnx", mixed / "encoder.onnx")
    with pytest.raises(ValueError, match=r"encoder.onnx and encoder-320.onnx have the same chunk and look-ahead"):
        OnnxTransducer(mixed)
    for other in (exported("conformer", "onnx-streaming", ChunkConfig(4, -1)), exported("conformer", "onnx", WHOLE)):
        shutil.copy(other / "encoder.onnx", mixed)
        with pytest.raises(ValueError, match=r"encoder.onnx and encoder-240-80.onnx come from different exports"):
            OnnxTransducer(mixed)


@pytest.mark.parametrize("name", ["decoder", "joiner"])
def test_all_files_must_be_of_one_model(exported, name: str, tmp_path: Path) -> None:
    folder = tmp_path / "mixed"
    shutil.copytree(exported("conformer", "onnx-streaming", RING), folder)
    OnnxTransducer(folder)
    model = onnx.load(folder / f"{name}.onnx")
    for entry in model.metadata_props:
        if entry.key == "model_digest":
            entry.value = "another"
    onnx.save(model, folder / f"{name}.onnx")
    with pytest.raises(ValueError, match=rf"encoder.onnx and {name}.onnx come from different exports"):
        OnnxTransducer(folder)


def test_beam_search_ranks_them_alike(exported) -> None:
    model, files = make_model("conformer"), OnnxTransducer(exported("conformer", "onnx", WHOLE))
    features = FbankExtractor(FBANK).extract(make_audio(2.0))[None]  # (1, T, F)
    batch = Batch(features, torch.tensor([features.size(1)]), [[]], [""], ["cut"], 2.0)
    tokens, ranks = [], []
    for transducer in (model, files):
        [hypothesis] = decode_batch(ModifiedBeamSearch(transducer, 4), batch, WHOLE)
        tokens.append([h.tokens for h in hypothesis.nbest(4)])
        ranks.append(sorted(path.normalized_score for path in hypothesis.paths))
    assert tokens[0] == tokens[1]
    assert len(tokens[0][0]) > 5
    assert ranks[0] == pytest.approx(ranks[1], abs=1e-4)


def test_silence_is_what_features_of_silence_are() -> None:
    features = FbankExtractor(FBANK).extract(np.zeros(1600, np.float32))
    torch.testing.assert_close(features, torch.full_like(features, SILENCE))


@pytest.mark.parametrize("format", ["onnx", "onnx-streaming"])
def test_decode_command(exported, format: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """WER of the files in a table and a report of their own."""
    cuts = [write_cut(tmp_path / f"{i}.wav", make_audio(2.5, seed=i), "ab cd") for i in range(3)]
    write_manifest(cuts, cuts_path(tmp_path, "mini", "test"))
    save_run(
        make_model("conformer"), DataConfig(manifest_dir=str(tmp_path), on_the_fly=True, num_mel_bins=16), tmp_path
    )
    (tmp_path / "selected.json").write_text('{"epoch": 2, "avg": 1, "splits": ["dev"]}')
    chunk = WHOLE if format == "onnx" else RING
    options = ["--exp-dir", str(tmp_path), "--onnx", str(exported("conformer", format, chunk))]
    main("mini", options)
    [result] = read_results(tmp_path / "results.jsonl")
    assert (result.method, result.utterances, result.chunk_ms) == ("greedy_search-onnx", 3, chunk.chunk_ms)
    assert (result.epoch, result.avg) == (1, 0)  # of the files, whatever has been selected since
    assert result.mode == ("offline" if format == "onnx" else "streaming")
    assert (tmp_path / result.recogs).parent.name == "greedy_search-onnx"
    hyps = [json.loads(line) for line in (tmp_path / result.hyps).read_text().splitlines()]
    recogs = [(u.cut_id, " ".join(u.hyp)) for u in read_recogs(tmp_path / result.recogs)]
    assert [(hyp["id"], hyp["text"]) for hyp in hyps] == recogs
    assert sum(len(hyp["words"]) for hyp in hyps) == len((tmp_path / result.ctm).read_text().splitlines()) > 5
    if format == "onnx-streaming":
        main("mini", [*options, "--int8"])
        assert [result.method for result in read_results(tmp_path / "results.jsonl")][1] == "greedy_search-onnx-int8"
    else:
        with pytest.raises(SystemExit, match=r"No .*encoder.int8.onnx: .* --int8"):
            main("mini", [*options, "--int8"])
    for more in (["--mode", "streaming"], ["--chunk-ms", "640"]):
        with pytest.raises(SystemExit):
            main("mini", [*options, *more])
        assert "--onnx uses the modes and the epoch of its files" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main("mini", ["--int8"])
    assert "--int8 only applies to exported models" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="was exported from the recipe mini, this is librispeech"):
        main("librispeech", options)

"""Exported files in the place of the model."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from export_cases import FBANK, TOKENIZER, make_audio, make_model, save_run
from lhotse import MonoCut, Recording, SupervisionSegment

from summarymix.chunking import ChunkConfig
from summarymix.data.batches import DataConfig
from summarymix.data.features import FbankExtractor
from summarymix.data.manifests import cuts_path, write_manifest
from summarymix.decoding.cli import main
from summarymix.decoding.greedy import Hypothesis
from summarymix.decoding.results import read_results
from summarymix.decoding.streaming import StreamingRecognizer
from summarymix.export.recognise import SILENCE, OnnxTransducer
from summarymix.subsampling import features_needed

RING, WHOLE = ChunkConfig(8, 2), ChunkConfig()


def decode(model, features: list[torch.Tensor]) -> list[Hypothesis]:
    recognizer = StreamingRecognizer(model, TOKENIZER, RING, num_streams=2)
    results = dict(recognizer.decode_all(enumerate(features)))
    return [results[n] for n in range(len(features))]


def test_streams_are_recognised_alike_and_their_ends_filled_with_silence(exported) -> None:
    files = OnnxTransducer(exported("conformer", "onnx-streaming", RING), int8=False, recipe="mini")
    assert files.chunk == RING
    features = FbankExtractor(FBANK).extract(make_audio(8.0))
    whole = [features[: features_needed(frames)] for frames in (8, 64, 160)]
    for found, expected in zip(decode(files, whole), decode(make_model("conformer"), whole), strict=True):
        assert (found.tokens, found.frames) == (expected.tokens, expected.frames)
        assert found.log_probs == pytest.approx(expected.log_probs, abs=1e-4)
    cut = [features[: features_needed(frames)] for frames in (3, 77)]
    filled = [
        torch.cat([part, torch.full((features_needed(frames) - len(part), 16), SILENCE)])
        for part, frames in zip(cut, (8, 80), strict=True)
    ]
    for found, expected in zip(decode(files, cut), decode(files, filled), strict=True):
        assert found.tokens == expected.tokens[: len(found.tokens)]
        assert found.num_frames == expected.num_frames - (5 if found.num_frames == 3 else 3)
        assert all(frame >= found.num_frames for frame in expected.frames[len(found.tokens) :])


def test_silence_is_what_features_of_silence_are() -> None:
    features = FbankExtractor(FBANK).extract(np.zeros(1600, np.float32))
    torch.testing.assert_close(features, torch.full_like(features, SILENCE))


@pytest.mark.parametrize("format", ["onnx", "onnx-streaming"])
def test_decode_command(exported, format: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """WER of the files in a table and a report of their own."""
    cuts = []
    for i in range(3):
        path = tmp_path / f"{i}.wav"
        soundfile.write(path, make_audio(2.5, seed=i), 16000)
        recording = Recording.from_file(path, recording_id=f"rec-{i}")
        supervision = SupervisionSegment(f"sup-{i}", recording.id, 0, recording.duration, text="ab cd")
        cuts.append(MonoCut(f"cut-{i}", 0, recording.duration, 0, recording=recording, supervisions=[supervision]))
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
    if format == "onnx-streaming":
        main("mini", [*options, "--int8"])
        assert [result.method for result in read_results(tmp_path / "results.jsonl")][1] == "greedy_search-onnx-int8"
    else:
        with pytest.raises(SystemExit, match=r"No .*encoder.int8.onnx: export with --int8"):
            main("mini", [*options, "--int8"])
    with pytest.raises(SystemExit):
        main("mini", [*options, "--mode", "streaming"])
    assert "--onnx has the mode and the epoch of its files" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main("mini", ["--int8"])
    assert "--int8 is of exported files" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="was exported from the recipe mini, this is librispeech"):
        main("librispeech", options)

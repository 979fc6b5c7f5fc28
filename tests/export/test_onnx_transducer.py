"""Exported files in the place of the model."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from export_cases import FBANK, TOKENIZER, make_audio, make_model, save_run
from saved_runs import write_cut

from summarymix.chunking import ChunkConfig
from summarymix.data.config import DataConfig
from summarymix.data.features import FbankExtractor
from summarymix.data.loading import Batch
from summarymix.data.manifests import cuts_path, write_manifest
from summarymix.decoding.beam import ModifiedBeamSearch
from summarymix.decoding.cli import main
from summarymix.decoding.evaluate import decode_batch
from summarymix.decoding.greedy import GreedySearch, Hypothesis
from summarymix.decoding.streaming import StreamingRecognizer
from summarymix.export.onnx_transducer import SILENCE, OnnxTransducer
from summarymix.scoring.results import read_recogs, read_results

RING, WHOLE = ChunkConfig(8, 2), ChunkConfig()


def decode(model, features: list[torch.Tensor]) -> list[Hypothesis]:
    recognizer = StreamingRecognizer(GreedySearch(model, unk_id=TOKENIZER.unk_id), RING, num_streams=2)
    results = dict(recognizer.decode_all(enumerate(features)))
    return [results[n] for n in range(len(features))]


def test_streams_are_recognised_alike_with_a_tail_that_makes_whole_chunks(exported) -> None:
    files, model = OnnxTransducer(exported("conformer", "onnx-streaming", RING), False, "mini"), make_model("conformer")
    assert files.chunk == RING
    lengths = torch.tensor([0, 34, 35, 63, 64, 350])
    features = FbankExtractor(FBANK).extract(make_audio(4.0))[:350].expand(6, -1, -1)
    texts = [""] * 6
    batch = Batch(features, lengths, [[]] * 6, texts, [f"cut-{n}" for n in range(6)], 1.0)
    [padded] = files.with_tails([batch])
    assert padded.feature_lengths.tolist() == [35, 67, 67, 67, 99, 355]  # what sherpa-onnx decodes
    utterances = [row[:length] for row, length in zip(padded.features, padded.feature_lengths, strict=True)]
    for utterance, length in zip(utterances, lengths, strict=True):
        assert torch.equal(utterance[:length], features[0, :length])
        assert (utterance[length:] == SILENCE).all()
    for found, expected in zip(decode(files, utterances), decode(model, utterances), strict=True):
        assert (found.tokens, found.frames) == (expected.tokens, expected.frames)
        assert found.log_probs == pytest.approx(expected.log_probs, abs=1e-4)
    with pytest.raises(ValueError, match="take whole chunks"):
        decode(files, [features[0, :110]])


def test_beam_search_ranks_them_alike(exported) -> None:
    model, files = make_model("conformer"), OnnxTransducer(exported("conformer", "onnx", WHOLE), False, "mini")
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
        with pytest.raises(SystemExit, match=r"No .*encoder.int8.onnx: export with --int8"):
            main("mini", [*options, "--int8"])
    with pytest.raises(SystemExit):
        main("mini", [*options, "--mode", "streaming"])
    assert "--onnx uses the mode and the epoch of its files" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main("mini", ["--int8"])
    assert "--int8 only applies to exported models" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="was exported from the recipe mini, this is librispeech"):
        main("librispeech", options)

"""decode.py's files with times and confidences: of a model that hears tones, and of audio with tones at known times."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from lhotse import SupervisionSegment, SupervisionSet
from saved_runs import save_epoch, write_cut

from summarymix.data.config import DataConfig
from summarymix.data.manifests import cuts_path, write_manifest
from summarymix.data.tokens import Tokenizer
from summarymix.decoding.cli import main
from summarymix.decoding.delays import PartialResults
from summarymix.decoding.search import Hypothesis
from summarymix.decoding.words import make_transcript, write_ctm
from summarymix.encoder.conformer import ConformerConfig
from summarymix.model import BLANK, ModelConfig, Transducer
from summarymix.scoring.results import Result, read_results
from summarymix.training.averaging import RunningMean
from summarymix.training.config import TrainConfig

NUM_BINS = 16
TONES = {"▁": 800.0, "a": 1950.0, "b": 4300.0}  # Hz, in the mel bins that the front end below looks at
TOKENIZER = Tokenizer.train(["ab ab"], 10, "char")

# Token by encoder frame: at the first frame, and at the last one of 2 s, which is 48; around the ends of chunks of 8
# frames; spaces long before their words.
SPOKEN = {
    "long": {0: "a", 7: "b", 8: "▁", 15: "a", 16: "b", 24: "▁", 47: "b", 48: "a"},
    "short": {1: "▁", 9: "b"},
    "silent": {},
}
WORDS = {  # start, end
    "long": [("ab", 0.0, 0.32), ("ab", 0.6, 0.68), ("ba", 1.88, 1.96)],
    "short": [("b", 0.36, 0.4)],
    "silent": [],
}
SECONDS = {"long": 2.0, "short": 0.5, "silent": 0.7}


def make_audio(name: str) -> np.ndarray:
    """Silence, with 10 ms of a tone in the middle of what each frame that is to emit a token sees."""
    samples = np.zeros(int(16000 * SECONDS[name]))
    for frame, token in SPOKEN[name].items():
        begin = 160 * (4 * frame + 3)  # of feature frame 4t + 3, the only one that hears all of it
        samples[begin : begin + 160] = 0.5 * np.sin(2 * np.pi * TONES[token] * np.arange(160) / 16000)
    return samples


@torch.no_grad()
def hearing_model() -> Transducer:
    """Emits at frame t the token whose tone is in feature frame 4t + 3, and else blank."""
    config = ModelConfig(
        conformer=ConformerConfig(frontend_channels=(1, 1), num_layers=0, dim=4),
        feature_dim=NUM_BINS,
        predictor_dim=4,
        joiner_dim=4,
        vocab_size=TOKENIZER.vocab_size,
    )
    model = Transducer(config).eval()
    model.set_feature_stats(torch.full((NUM_BINS,), 3.5), torch.full((NUM_BINS,), 1.0))
    for name, parameter in model.named_parameters():
        if "norm" not in name:
            parameter.zero_()
    front = model.encoder.subsampling
    for convolution in (front.conv1, front.conv2):
        convolution.weight[0, 0, 1, 1] = 1  # in time the middle of three frames, in frequency every second bin
    front.out.weight.copy_(torch.eye(4))
    model.joiner.encoder_proj.weight.copy_(torch.eye(4))
    for head in (model.joiner.out, model.ctc_head):
        head.bias[BLANK] = 6
        for channel, token in enumerate(TONES, 1):
            head.weight[TOKENIZER.tokens.index(token), channel] = 10
    return model


@pytest.fixture(scope="module")
def exp_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_run(tmp_path_factory.mktemp("tones"))


def save_run(folder: Path, tail_frames: int = 0) -> Path:
    texts = {name: " ".join(word for word, _, _ in words) for name, words in WORDS.items()}
    cuts = [write_cut(folder / f"{name}.wav", make_audio(name), text) for name, text in texts.items()]
    write_manifest(cuts, cuts_path(folder, "mini", "test"))
    model = hearing_model()
    data = DataConfig(manifest_dir=str(folder), on_the_fly=True, num_mel_bins=NUM_BINS, tail_frames=tail_frames)
    save_epoch(folder / "exp", 1, model, RunningMean(model), TOKENIZER, TrainConfig(model=model.config, data=data))
    return folder / "exp"


def decode(exp_dir: Path, options: str) -> list[Result]:
    (exp_dir / "results.jsonl").unlink(missing_ok=True)
    main("mini", ["--exp-dir", str(exp_dir), "--device", "cpu", *options.split()])
    return read_results(exp_dir / "results.jsonl")


@pytest.mark.parametrize(
    "method", ["greedy_search", "modified_beam_search", "ctc_greedy_search", "ctc_prefix_beam_search"]
)
def test_times_are_those_of_the_audio(exp_dir: Path, method: str) -> None:
    results = decode(exp_dir, f"--method {method} --mode offline simulated streaming --chunk-ms 320 --left-chunks 1")
    assert [result.mode for result in results] == ["offline", "simulated", "streaming"]
    for result in results:
        assert result.wer == 0
        lines = [json.loads(line) for line in (exp_dir / result.hyps).read_text().splitlines()]
        hyps = {line["id"].removeprefix("cut-"): line for line in lines}
        assert list(hyps) == sorted(SPOKEN)
        for name, hyp in hyps.items():
            assert hyp["text"] == " ".join(word for word, _, _ in WORDS[name])
            assert {token["start"]: token["token"] for token in hyp["tokens"]} == {
                round(0.04 * frame, 4): token for frame, token in SPOKEN[name].items()
            }
            assert [(word["word"], word["start"], word["end"]) for word in hyp["words"]] == WORDS[name]
            assert all(0.9 < part["confidence"] <= 1 for part in hyp["tokens"] + hyp["words"])

        # lhotse reads the same of the CTM file.
        cuts = [SupervisionSegment(name, f"cut-{name}", 0, SECONDS[name], channel=1) for name in SPOKEN]
        read = SupervisionSet.from_segments(cuts).with_alignment_from_ctm(exp_dir / result.ctm, match_channel=True)
        for supervision in read:
            words = [(word.symbol, word.start, word.end, word.score) for word in supervision.alignment["word"]]
            expected = [tuple(word.values())[:4] for word in hyps[supervision.id]["words"]]
            assert words == expected


def test_a_tail_counts_as_no_audio(exp_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its frames are decoded with the others; times and delays end with the recording."""
    options = "--mode offline simulated streaming --chunk-ms 320 --left-chunks 1 --max-duration 3"
    results = decode(exp_dir, options)
    hyps = [(exp_dir / result.hyps).read_text() for result in results]
    run = save_run(tmp_path, 30)
    original = PartialResults.add
    ends: list[float] = []
    monkeypatch.setattr(
        PartialResults, "add", lambda self, *words: ends.append(self._duration) or original(self, *words)
    )
    with_tail = decode(run, options)
    assert sorted(set(ends)) == pytest.approx(sorted(SECONDS.values()))
    assert [result.wer for result in with_tail] == [0, 0, 0]
    assert [result.seconds for result in with_tail] == [result.seconds for result in results]
    for lines, result in zip(hyps, with_tail, strict=True):
        for one, other in zip(lines.splitlines(), (run / result.hyps).read_text().splitlines(), strict=True):
            without, found = json.loads(one), json.loads(other)
            assert found["words"] == without["words"]
            assert found["end"] == SECONDS[found["id"].removeprefix("cut-")]
            assert without["end"] < found["end"]  # the last frames of a recording give no encoder frame


def test_ctm_is_sorted_by_ids_without_spaces(tmp_path: Path) -> None:
    tokens = [TOKENIZER.tokens.index(piece) for piece in "ab▁a"]
    said = make_transcript(Hypothesis(tokens, [2, 2, 3, 30], [math.log(0.25), 0.0, 0.0, 0.0], 40), TOKENIZER, 0)
    write_ctm(tmp_path / "x.ctm", {"b": said, "a 1": said, "aa": make_transcript(Hypothesis(), TOKENIZER, 0)})
    lines = ["1 0.08 0.04 ab 0.5000", "1 1.20 0.04 a 1.0000"]
    expected = [f"{name} {line}\n" for name in ("a_1", "b") for line in lines]
    assert (tmp_path / "x.ctm").read_text() == "".join(expected)

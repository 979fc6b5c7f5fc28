"""Decoding of splits: memory of an utterance, and partial words."""

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor
from training_toy import ToyData, toy_config, toy_model

from summarymix.chunking import ChunkConfig
from summarymix.data.loading import Batch
from summarymix.data.tokens import Tokenizer
from summarymix.decoding.beam import ModifiedBeamSearch, ScoredPath
from summarymix.decoding.evaluate import DecodeSetting, decode_split
from summarymix.decoding.search import Hypothesis, Search
from summarymix.state import State


@pytest.mark.parametrize("mode", ["simulated", "streaming"])
def test_paths_are_dropped_as_soon_as_an_utterance_is_decoded(mode: str, tmp_path: Path) -> None:
    model = toy_model(toy_config(tmp_path)).eval()
    alive = []

    def batches() -> Iterator[Batch]:
        for batch in [*ToyData().dev(), *ToyData().dev()]:
            alive.append(sum(type(each) is ScoredPath for each in gc.get_objects()))
            yield batch

    setting = DecodeSetting(mode, ChunkConfig(8, 2))  # type: ignore[arg-type]
    decoded = decode_split(ModifiedBeamSearch(model, 4), setting, batches(), num_streams=1, nbest=2)
    assert len(alive) > 2
    assert set(alive) == {0}
    assert all(len(hypothesis.alternatives) == 2 for hypothesis in decoded.hypotheses.values())


class OneTokenPerChunk(Search):
    """A search that emits the same token in each chunk."""

    def init_state(self, batch_size: int, device: torch.device | str = "cpu") -> State:
        return {}

    def __call__(self, encoder_out: Tensor, lengths: Tensor, state: State, hypotheses: list[Hypothesis]) -> State:
        for hypothesis, length in zip(hypotheses, lengths.tolist(), strict=True):
            hypothesis.tokens.append(5)
            hypothesis.frames.append(hypothesis.num_frames)
            hypothesis.log_probs.append(-0.1)
            hypothesis.num_frames += length
        return state


@pytest.mark.parametrize(("text", "share"), [("你好世界", 0.0), ("ABCD", 1.0)])
def test_chinese_characters_are_words_that_do_not_change(text: str, share: float, tmp_path: Path) -> None:
    """A word of letters grows with each chunk."""
    tokenizer = Tokenizer.train([text], 20, "char")
    search = OneTokenPerChunk(toy_model(toy_config(tmp_path)).eval())
    setting = DecodeSetting("streaming", ChunkConfig(2, 2))
    decoded = decode_split(search, setting, ToyData().dev(), tokenizer=tokenizer)
    for cut_id, delays in decoded.delays.items():
        num_chunks = len(decoded.hypotheses[cut_id].tokens)
        assert num_chunks > 3
        assert delays.shown == num_chunks
        assert delays.changed == round(share * (num_chunks - 1))

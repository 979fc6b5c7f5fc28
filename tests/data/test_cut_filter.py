from itertools import pairwise

import numpy as np
import pytest
from batch_cases import rewrite, tiny_cuts, train_data

from summarymix.data.cut_filter import ctc_frames_needed
from summarymix.data.skipped import SkippedItems
from summarymix.data.tokens import Tokenizer
from summarymix.encoder.subsampling import output_lengths


def test_ctc_frames_needed() -> None:
    assert ctc_frames_needed([]) == 1
    assert ctc_frames_needed([5]) == 1
    assert ctc_frames_needed([5, 6, 5]) == 3
    assert ctc_frames_needed([5, 5, 5]) == 5


@pytest.mark.parametrize(("model_type", "vocab_size"), [("unigram", 40), ("bpe", 40), ("char", 40)])
def test_tokens_need_no_more_frames_than_characters(model_type: str, vocab_size: int) -> None:
    """What lets most transcripts pass without being made into tokens."""
    rng = np.random.default_rng(0)
    texts = ["".join(rng.choice(list("AAAAB "), 30)) for _ in range(200)]
    texts = [" ".join(text.split()) for text in texts]
    tokenizer = Tokenizer.train(texts + ["ABABAB AAA"] * 30, vocab_size if model_type == "char" else 15, model_type)
    tightest = np.inf
    for text in texts:
        tokens = tokenizer.encode(text)
        assert tokenizer.covers(text)
        assert tokenizer.unk_id not in tokens
        slack = len(text) + 1 + sum(a == b for a, b in pairwise(text)) - ctc_frames_needed(tokens)
        tightest = min(tightest, slack)
    assert tightest == 0 if model_type == "char" else tightest >= 0
    assert not tokenizer.covers("ABC")


def test_no_cut_passes_for_want_of_tokens(prepare, tokenizer: Tokenizer) -> None:
    """Utterances of which characters do not fit, tokens may or may not."""
    fbank = prepare(count=40)
    words = "ONE TWO THREE STOP LIGHT"
    pairs = Tokenizer.train([words] * 3, 20, "bpe")

    def spoil(cuts: list) -> None:
        for i, cut in enumerate(cuts):
            cut.supervisions[0].text = words + " STOP" * i

    rewrite(fbank, spoil)
    for pieces in (tokenizer, pairs):
        cuts = tiny_cuts(fbank)
        too_short = {
            cut.id
            for cut in cuts
            if ctc_frames_needed(pieces.encode(cut.supervisions[0].text)) > output_lengths(cut.num_frames)
        }
        assert 0 < len(too_short) < 40
        listed = SkippedItems.read(train_data(fbank, pieces).skipped_path).items
        assert {item.id for item in listed} == too_short


def test_transcript_without_tokens_is_empty(prepare, tokenizer: Tokenizer) -> None:
    """Such as sentencepiece's sign for a space alone."""
    fbank = prepare(count=4)
    rewrite(fbank, lambda cuts: setattr(cuts[0].supervisions[0], "text", "\u2581"))
    data = train_data(fbank, tokenizer)
    assert data.skipped == {"empty transcript": 1}
    [item] = SkippedItems.read(data.skipped_path).items
    assert (item.id, item.reason) == (tiny_cuts(fbank)[0].id, "empty transcript")

"""An hour of audio in one stream: memory stays, times are exact, and the last minute is recognised as the first one is.

The model has random weights, but for what makes a token of a beep: the encoder's first output says whether the middle
one of a frame's seven feature frames is loud, and the joiner looks at nothing else.
"""

import gc
import random
import sys
from collections import deque
from types import MethodType
from typing import NamedTuple

import torch
from talking_models import make_model
from torch import Tensor

from summarymix.blocks.mixing import SeenMean
from summarymix.chunking import ChunkConfig, ChunkGrid
from summarymix.data.features import FbankExtractor, FbankOptions
from summarymix.decoding.greedy import GreedySearch, Hypothesis
from summarymix.decoding.streaming import FeatureQueue, Stream, StreamingRecognizer
from summarymix.encoder.subsampling import output_lengths
from summarymix.model import Transducer
from summarymix.state import State, StateTree, state_bytes

RATE = 4000  # Hz, for the time that features take
SHIFT = RATE // 100  # samples
FRAME = 4 * SHIFT
EXTRACTOR = FbankExtractor(FbankOptions(RATE, num_mel_bins=16))
MINUTE = 60 * RATE
BEEP = 2
LOUD = 2.5  # mean normalised features of noise are below 0.5, those of beeps above 4.5


def with_beeps(num_samples: int, rng: random.Random) -> tuple[Tensor, list[int]]:
    """Samples (n,) of noise that is louder or softer each second, and the encoder frames of the beeps in it: one in two
    seconds or so, in the last frame too."""
    generator = torch.Generator().manual_seed(rng.randrange(1 << 30))
    levels = 0.001 + 0.002 * torch.rand(num_samples // RATE + 1, generator=generator)
    samples = torch.randn(num_samples, generator=generator) * levels.repeat_interleave(RATE)[:num_samples]
    num_frames = output_lengths(EXTRACTOR.options.num_frames(num_samples))
    frames = sorted({num_frames - 1, *rng.sample(range(num_frames), num_frames // 50)}) if num_frames else []
    for frame in frames:
        # The middle one of its features is the fourth. No other frame has its middle there.
        begin = frame * FRAME + 2 * SHIFT
        samples[begin : begin + 3 * SHIFT] *= 300
    return samples, frames


def beeping_model() -> Transducer:
    model = make_model("stateless")
    model.set_feature_stats(torch.full((16,), -8.0), torch.full((16,), 2.0))
    encode = model.encoder.encode

    def hear(self, features: Tensor, *others) -> tuple[Tensor, StateTree]:
        out, state = encode(features, *others)  # (N, K·C, D)
        loudness = features[:, 3:].unfold(1, 1, 4).mean((2, 3))  # (N, T)
        out[:, : loudness.size(1), 0] = torch.where(loudness > LOUD, 1.0, -1.0)
        return out, state

    model.encoder.encode = MethodType(hear, model.encoder)  # type: ignore[method-assign]
    joiner = model.joiner
    with torch.no_grad():
        for parameter in joiner.parameters():
            parameter.zero_()
        joiner.encoder_proj.weight[0, 0] = 1.0
        joiner.out.weight[BEEP, 0] = 10.0
    return model


class Watching(GreedySearch):
    """Keeps the last encoder frames of one stream."""

    watched: Hypothesis | None = None
    last: deque[Tensor]

    def __call__(self, encoder_out: Tensor, lengths: Tensor, state: State, hypotheses: list[Hypothesis]) -> State:
        for frames, length, hypothesis in zip(encoder_out, lengths.tolist(), hypotheses, strict=True):
            if hypothesis is self.watched:
                self.last.append(frames[:length].clone())
        return super().__call__(encoder_out, lengths, state, hypotheses)


class LastMinute(FeatureQueue):
    """Also keeps the last minute of what came."""

    def __init__(self) -> None:
        super().__init__()
        self.last = torch.zeros(0, 16)

    def append(self, features: Tensor) -> None:
        super().append(features)
        self.last = torch.cat([self.last, features])[-6000:]


class Memory(NamedTuple):
    """Bytes of a stream's state and of all tensors, blocks of memory that Python has, and the number of tokens."""

    state: int
    tensors: int
    blocks: int
    tokens: int


def tensor_bytes() -> int:
    """Of all tensors that there are."""
    gc.collect()
    storages = (one.untyped_storage() for one in gc.get_objects() if type(one) is Tensor)
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


def test_an_hour() -> None:
    rng = random.Random(4)
    model, chunk = beeping_model(), ChunkConfig(64, -1)
    samples, beeps = with_beeps(60 * MINUTE + 12_345, rng)
    search = Watching(model, unk_id=1)
    recognizer = StreamingRecognizer(search, chunk, 3, EXTRACTOR)
    stream = recognizer.open()
    stream.queue = LastMinute()
    search.watched, search.last = stream.hypothesis, deque(maxlen=25)
    visitors: dict[Stream, tuple[Tensor, list[int]]] = {}
    num_visitors = 0

    def check(one: Stream, expected: list[int], limit: int) -> None:
        assert one.hypothesis.frames == [frame for frame in expected if frame < limit]
        assert set(one.hypothesis.tokens) <= {BEEP}

    position, memory = 0, []
    while position < len(samples):
        size = rng.choice([1, 37, FRAME, 20_011, 100_003])
        stream.accept_samples(samples[position : position + size])
        position += size
        # Others come, and go when they end or before.
        if recognizer.num_free and rng.random() < 0.03:
            visitors[recognizer.open()] = with_beeps(rng.randrange(MINUTE), rng)
            num_visitors += 1
        for visitor, (rest, expected) in list(visitors.items()):
            visitor.accept_samples(rest[:size])
            visitors[visitor] = rest[size:], expected
            if size >= len(rest):
                visitor.finish()
        while recognizer.step():
            pass
        for visitor, (_, expected) in list(visitors.items()):
            if recognizer.done(visitor) or rng.random() < 0.05:
                check(visitor, expected, visitor.hypothesis.num_frames)
                recognizer.close(visitor)
                del visitors[visitor]
        if position >= (10, 60)[min(len(memory), 1)] * MINUTE and len(memory) < 2:
            state = recognizer._encoder_state | recognizer._search_state
            memory.append(
                Memory(state_bytes(state), tensor_bytes(), sys.getallocatedblocks(), len(stream.hypothesis.tokens))
            )
    stream.finish()
    while recognizer.step():
        pass
    assert num_visitors > 12

    features = EXTRACTOR.extract(samples)  # (T, F)
    torch.testing.assert_close(stream.queue.last, features[-6000:], atol=1e-5, rtol=0)
    with torch.inference_mode():
        whole, lengths = model.encoder(features[None], torch.tensor([len(features)]), chunk)  # (1, T', D)
    last = torch.cat([*search.last])  # (t, D)
    # The first output was replaced.
    torch.testing.assert_close(last[:, 1:], whole[0, -len(last) :, 1:], atol=1e-4, rtol=0)

    assert stream.hypothesis.num_frames == int(lengths) == output_lengths(len(features))
    check(stream, beeps, int(lengths))
    assert sum(frame * FRAME > 59 * MINUTE for frame in beeps) > 20

    before, after = memory
    assert after.tokens - before.tokens > 1000
    assert after.state == before.state
    assert after.tensors - before.tensors < 1_000_000  # audio waiting for a chunk; an hour's features are 23 MB
    # A frame and a probability of each token.
    assert after.blocks - before.blocks < 4 * (after.tokens - before.tokens) + 1000


def test_running_sum_after_an_hour() -> None:
    """Against float64. The count is exact up to 2^24 frames, that is, 7 days. The sum is rounded at each chunk, by
    2^-24 of itself at most: by 3e-4 in all for the 5625 chunks of 640 ms of an hour, and by 5e-3 for those of 40 ms.
    That would be if all were rounded the same way; as they are not, it is some 1e-6 for both.
    """
    generator = torch.Generator().manual_seed(0)
    mean = SeenMean(8, None)
    chunk = ChunkConfig(16, -1)
    state = mean.init_state(2, chunk, torch.zeros(0))
    total, count = torch.zeros(2, 8, dtype=torch.float64), torch.zeros(2, 1, dtype=torch.float64)
    offsets = torch.linspace(-0.1, 3.0, 8)
    for _ in range(60 * 60 * 25 // 16):
        values = torch.randn(2, 16, 8, generator=generator) + offsets
        lengths = torch.tensor([16, 13])
        grid = ChunkGrid(lengths, 16, chunk)
        seen, state = mean(values, grid, state)
        valid = (torch.arange(16) < lengths[:, None])[..., None]  # (N, C, 1)
        total += (values.double() * valid).sum(1)
        count += lengths[:, None]
    assert torch.equal(state["count"].double(), count)
    torch.testing.assert_close(seen[:, 0].double(), total / count, atol=2e-6, rtol=5e-6)

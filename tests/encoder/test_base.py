"""L2, L3 and L5 for whole encoders, and the promise of linear memory."""

import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from reference import chunk_configs, dependencies, visibility
from small_pieces import pieces_of
from torch.utils._python_dispatch import TorchDispatchMode

from summarymix.blocks.mixing import MixingConfig
from summarymix.chunking import ChunkConfig
from summarymix.encoder.conformer import Conformer, ConformerConfig
from summarymix.encoder.subsampling import features_needed, output_lengths
from summarymix.encoder.zipformer import Zipformer, ZipformerConfig
from summarymix.state import pack_state, reset_slots, select_slots, state_bytes, unpack_state, write_slots

FEATURES = 12
SMALL = ConformerConfig(
    frontend_channels=(2, 3),
    num_layers=2,
    dim=8,
    feedforward_dim=12,
    kernel_size=5,
    summary_dim=8,
)


SMALL_ZIP = ZipformerConfig(
    downsampling=(1, 4, 2),
    num_layers=(1, 2, 1),
    dims=(8, 12, 10),
    feedforward_dims=(12, 16, 12),
    kernel_sizes=(5, 3, 5),
    summary_dims=(6, 8, 6),
    num_heads=(2, 2, 2),
    frontend_channels=(2, 3, 4),
)
DECAY = MixingConfig(decay_seconds=0.4)
CONFORMERS = ["merged", "full", "local", "attention", "decay"]
ZIPFORMERS = ["zip", "zip-slow", "zip-thirds", "zip-local", "zip-attention", "zip-decay"]


def make(kind="merged", dtype=torch.float64, **changes) -> Conformer | Zipformer:
    """A small encoder. ``changes`` are of the Conformer's sizes."""
    torch.manual_seed(2)
    if not kind.startswith("zip"):
        mixing = DECAY if kind == "decay" else MixingConfig(kind)
        encoder = Conformer(replace(SMALL, **changes), mixing, FEATURES, dropout=0.1)
    else:
        variants = {
            "zip-slow": {"downsampling": (2, 8, 1)},
            "zip-thirds": {"downsampling": (1, 3, 6)},
        }
        config = replace(SMALL_ZIP, **variants.get(kind, {}))
        mixings = {"zip-local": MixingConfig("local"), "zip-attention": MixingConfig("attention"), "zip-decay": DECAY}
        encoder = Zipformer(config, mixings.get(kind, MixingConfig()), FEATURES, dropout=0.1)
        for parameter in encoder.parameters():  # what begins at zero or tiny should count as well
            parameter.data += 0.3 * torch.randn_like(parameter)
    encoder = encoder.to(dtype).eval()
    encoder.set_feature_stats(torch.randn(FEATURES), torch.rand(FEATURES) + 0.5)
    return encoder


def stream(encoder, features, lengths, sizes, left_chunks, lookahead=0):
    """Feed each utterance's features in chunks of ``sizes`` (the last one repeats), all in one batch; (N, T', D)."""
    state = encoder.init_state(len(lengths), ChunkConfig(sizes[0], left_chunks))
    total = output_lengths(features.size(1))
    out, start = [], 0
    for i in range(10_000):
        size = sizes[min(i, len(sizes) - 1)]
        needed = features_needed(size + lookahead)
        part = features[:, 4 * start : 4 * start + needed]
        part = F.pad(part, (0, 0, 0, needed - part.size(1)), value=3.0)
        valid = (output_lengths(lengths) - start).clamp(0, size + lookahead)
        y, new_state = encoder.step(part, state, valid, lookahead)
        assert y.size(1) == size
        state = unpack_state(pack_state(new_state), state)  # what an exported model's host carries
        out.append(y)
        start += size
        if start >= total:
            return torch.cat(out, dim=1)[:, :total]
    raise AssertionError


def ragged(lengths, dtype=torch.float64):
    torch.manual_seed(0)
    return torch.randn(len(lengths), max(lengths), FEATURES, dtype=dtype), torch.tensor(lengths)


@settings(max_examples=100)
@given(
    st.lists(st.integers(7, 120), min_size=1, max_size=3),
    chunk_configs(11, 4),
    st.sampled_from(CONFORMERS + ZIPFORMERS),
)
def test_chunk_by_chunk_equals_simulated(lengths, chunk, kind):
    """L3: ragged batches, every chunk size, left context and look-ahead, partial last chunks."""
    assume("attention" not in kind or chunk.left_chunks >= 0)
    encoder = make(kind)
    size, ahead = (encoder.chunk_multiple * frames for frames in (chunk.chunk_size, chunk.lookahead))
    features, lengths = ragged(lengths)
    simulated, frames = encoder(features, lengths, ChunkConfig(size, chunk.left_chunks, ahead))
    streamed = stream(encoder, features, lengths, [size], chunk.left_chunks, ahead)
    for n, length in enumerate(frames):
        torch.testing.assert_close(streamed[n, :length], simulated[n, :length], rtol=0, atol=1e-9)


@pytest.mark.parametrize("kind", ["merged", "attention", "zip"])
def test_chunk_by_chunk_equals_simulated_in_float32(kind):
    sizes = {"num_layers": 6, "dim": 64, "feedforward_dim": 128, "summary_dim": 64, "kernel_size": 15}
    encoder = make(kind, torch.float32, **sizes)
    features, lengths = ragged([403, 280, 77], torch.float32)
    for chunk in [ChunkConfig(16, 32 if kind == "attention" else -1), ChunkConfig(8, 2), ChunkConfig(6, 3)]:
        simulated, frames = encoder(features, lengths, chunk)
        streamed = stream(encoder, features, lengths, [chunk.chunk_size], chunk.left_chunks)
        for n, length in enumerate(frames):
            torch.testing.assert_close(streamed[n, :length], simulated[n, :length], rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", CONFORMERS + ZIPFORMERS)
@pytest.mark.parametrize("chunk", [ChunkConfig(), ChunkConfig(6, 1), ChunkConfig(6, 1, 4)])
def test_in_pieces_and_runs_the_result_is_the_same(kind, chunk):
    encoder = make(kind)
    if chunk.chunk_size:
        size, ahead = (encoder.chunk_multiple * frames for frames in (chunk.chunk_size, chunk.lookahead))
        chunk = ChunkConfig(size, chunk.left_chunks, ahead)
    features, lengths = ragged([403, 280, 77])
    whole, frames = encoder(features, lengths, chunk)
    with pieces_of(50):
        in_parts, _ = encoder(features, lengths, chunk)
    for n, length in enumerate(frames):
        torch.testing.assert_close(in_parts[n, :length], whole[n, :length], rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", ["merged", "attention", "zip", "zip-attention"])
def test_lookahead_is_seen_by_every_layer_and_nothing_is_seen_beyond(kind):
    """A chunk of 8 frames with 4 ahead depends on the features of all 12, and on none behind them."""
    encoder = make(kind)
    chunk, num_features = ChunkConfig(8, 1, 4), 120
    depends = dependencies(
        lambda features: encoder(features, torch.tensor([num_features]), chunk)[0], ragged([num_features])[0]
    )  # (T', T)
    for number in range(2):
        of_chunk = depends[8 * number : 8 * number + 8]
        end = features_needed(8 * number + 12)
        assert of_chunk[:, 4 * (8 * number + 8) : end].all()
        assert not of_chunk[:, end:].any()
    with pytest.raises(ValueError, match="look-ahead of 9 frames is impossible: it is 0 or more, and needs chunks"):
        ChunkConfig(None, 1, 9)
    if encoder.chunk_multiple > 1:
        with pytest.raises(ValueError, match="a look-ahead of 40 ms is not a multiple of 80 ms"):
            encoder.check_chunk(ChunkConfig(8, 1, 1))


def test_chunk_size_may_change_in_the_middle_of_a_stream():
    """With unlimited history, frames up to the change are those of the first grid, and the sums just go on: against a
    reference of frame-by-frame visibility on the irregular grid, through one layer without convolution across it."""
    encoder = make(num_layers=1, kernel_size=3)
    features, lengths = ragged([123])
    total = int(output_lengths(lengths))
    sizes = [4, 4, 7, 2, 5]
    streamed = stream(encoder, features, lengths, sizes, -1)
    first, _ = encoder(features[:, : features_needed(8)], torch.tensor([features_needed(8)]), ChunkConfig(4))
    torch.testing.assert_close(streamed[:, :8], first, rtol=0, atol=1e-9)
    # What a frame depends on: all before it, and the rest of its own chunk.
    bounds = [0, 4, 8, 15, 17, *range(22, total + 5, 5)]
    frames = dependencies(lambda x: stream(encoder, x, lengths, sizes, -1), features)
    for t in range(total):
        end = min(next(b for b in bounds if b > t), total)
        expected = torch.zeros(features.size(1), dtype=torch.bool)
        expected[: features_needed(end)] = True
        assert torch.equal(frames[t], expected), t


@pytest.mark.parametrize("kind", ["merged", "attention", "zip"])
def test_a_slot_that_is_reset_forgets_and_its_neighbours_do_not(kind):
    """L3: streams that end and begin in the middle of others, in the same slots."""
    encoder = make(kind)
    features, lengths = ragged([124, 124, 124])
    chunk = ChunkConfig(4, 2)
    expected, _ = encoder(features, lengths, chunk)
    state = encoder.init_state(2, chunk)
    # Slot 0 plays utterance 0; slot 1 plays four chunks of utterance 1, is reset, and then plays utterance 2.
    position, out = [0, 0], {0: [], 2: []}
    for i in range(20):
        if i == 4:
            reset_slots(state, torch.tensor([1]))
            position[1] = 0
        which = [0, 1 if i < 4 else 2]
        active = [slot for slot in range(2) if position[slot] + features_needed(4) <= 124]
        if not active:
            break
        index = torch.tensor(active)
        part = torch.stack([features[which[s], position[s] : position[s] + features_needed(4)] for s in active])
        y, new_state = encoder.step(part, select_slots(state, index))
        write_slots(state, index, new_state)
        for row, slot in enumerate(active):
            position[slot] += 16
            if which[slot] in out:
                out[which[slot]].append(y[row])
    for n, parts in out.items():
        got = torch.cat(parts)
        assert got.size(0) == 28
        torch.testing.assert_close(got, expected[n, : got.size(0)], rtol=0, atol=1e-9)


@settings(max_examples=50)
@given(
    st.lists(st.integers(7, 90), min_size=2, max_size=4),
    st.one_of(st.none(), st.integers(1, 8)),
    st.integers(-1, 3),
    st.sampled_from(["merged", "attention", "decay", *ZIPFORMERS]),
)
def test_an_utterance_alone_equals_itself_in_any_batch(lengths, chunk_size, left_chunks, kind):
    """L5; the features behind the end hold noise."""
    encoder = make(kind)
    chunk = ChunkConfig(chunk_size and chunk_size * encoder.chunk_multiple, left_chunks)
    features, tensor = ragged(lengths)
    batch, frames = encoder(features, tensor, chunk)
    for n, length in enumerate(lengths):
        alone, _ = encoder(features[n : n + 1, :length], tensor[n : n + 1], chunk)
        torch.testing.assert_close(batch[n, : frames[n]], alone[0, : frames[n]], rtol=0, atol=1e-9)


@pytest.mark.parametrize("kind", ["merged", "attention"])
@pytest.mark.parametrize("chunk", [ChunkConfig(), ChunkConfig(3), ChunkConfig(3, 1), ChunkConfig(4, 0)])
def test_dependency_matrix_of_the_conformer_is_the_theory(chunk, kind):
    """L2, padding included: mixing and convolution compose over the layers, the front end looks at features 4t…4t+6."""
    encoder = make(kind)
    total, valid = 95, 77  # feature frames
    features, _ = ragged([total])
    lengths = torch.tensor([valid])
    num_frames, num_valid = output_lengths(total), output_lengths(valid)
    size = chunk.chunk_size or num_frames
    mixing = visibility([num_valid], num_frames, ChunkConfig(size, chunk.left_chunks))[0].float() + torch.eye(
        num_frames
    )
    convolution = torch.eye(num_frames)
    for t in range(num_frames):
        for u in range(num_valid):
            if abs(t - u) <= SMALL.kernel_size // 2 and u // size <= t // size:
                convolution[t, u] = 1
    layers = convolution @ mixing @ convolution @ mixing
    expected = torch.zeros(num_frames, total, dtype=torch.bool)
    for t in range(num_frames):
        for u in range(num_frames):
            if layers[t, u] > 0:
                expected[t, 4 * u : 4 * u + 7] = True
    got = dependencies(lambda x: encoder(x, lengths, chunk)[0], features)
    assert torch.equal(got[:num_valid], expected[:num_valid])


@pytest.mark.parametrize("kind", ZIPFORMERS)
@pytest.mark.parametrize("chunk", [ChunkConfig(), ChunkConfig(2), ChunkConfig(2, 1), ChunkConfig(4, 0)])
def test_dependency_matrix_of_the_zipformer_is_the_theory(chunk, kind):
    """L2, padding included: in each layer mixing and convolution compose, a slow frame is the mean of its valid fast
    ones and goes to all of them, and the front end looks at features 2u…2u+4."""
    encoder = make(kind)
    if chunk.chunk_size is not None:
        chunk = ChunkConfig(chunk.chunk_size * encoder.chunk_multiple, chunk.left_chunks)
    total, valid = 95, 77  # feature frames
    features, _ = ragged([total])
    num_frames, num_valid = output_lengths(total), output_lengths(valid)
    slowest = 2 * encoder.chunk_multiple
    fast = -(-2 * num_frames // slowest) * slowest  # frames at 50 Hz on the grid
    sees = torch.eye(fast)  # [t, u]: whether frame t depends on what the front end made of frame u
    for stack in encoder.stacks:
        factor = stack.factor
        slow, slow_valid = fast // factor, -(-2 * num_valid // factor)
        size = slow if chunk.chunk_size is None else 2 * chunk.chunk_size // factor
        down = torch.zeros(slow, fast)
        for u in range(2 * num_valid):
            down[u // factor, u] = 1
        mixing = torch.eye(slow)
        if kind != "zip-local":
            mixing += visibility([slow_valid], slow, ChunkConfig(size, chunk.left_chunks))[0].float()
        convolution = torch.eye(slow)
        for t in range(slow):
            for u in range(slow_valid):
                near = abs(t - u) <= stack.layers[0].convolution1.depthwise.reach and u // size <= t // size
                # What the right edge's scale does depends on no value, so it adds nothing here.
                convolution[t, u] = max(convolution[t, u], float(near))
        inner = down @ sees if factor > 1 else sees
        for _ in stack.layers:
            inner = ((convolution @ mixing @ convolution @ mixing @ inner) > 0).float()
        sees = inner if factor == 1 else sees + down.bool().float().T @ inner
        sees = (sees > 0).float()
    expected = torch.zeros(num_frames, total, dtype=torch.bool)
    for t in range(num_valid):
        for u in range(fast):
            if sees[2 * t : 2 * t + 2, u].any():
                expected[t, 2 * u : 2 * u + 5] = True
    got = dependencies(lambda x: encoder(x, torch.tensor([valid]), chunk)[0], features)
    assert torch.equal(got[:num_valid], expected[:num_valid])


@pytest.mark.parametrize("kind", ["merged", "attention", "zip"])
@pytest.mark.parametrize("num_features", range(9))
def test_audio_too_short_for_one_frame_gives_none(num_features, kind):
    encoder = make(kind)
    out, frames = encoder(
        torch.randn(2, num_features, FEATURES).double(), torch.tensor([num_features, 0]), ChunkConfig(8)
    )
    assert frames.tolist() == [int(num_features >= 7), 0]
    assert out.isfinite().all()
    assert output_lengths(num_features) == int(num_features >= 7)


def test_features_that_make_no_whole_chunk_are_refused():
    encoder = make()
    with pytest.raises(ValueError, match=r"4·C \+ 3 features, not 34"):
        encoder.step(torch.randn(1, 34, FEATURES).double(), encoder.init_state(1, ChunkConfig(8)))


@pytest.mark.parametrize("kind", [*CONFORMERS, "lite", *ZIPFORMERS])
def test_bfloat16_weights_work_and_their_state_is_float32(kind):
    encoder = make(kind, torch.bfloat16)
    chunk = ChunkConfig(2 * encoder.chunk_multiple, 2)
    features = torch.randn(2, features_needed(3 * chunk.chunk_size), FEATURES, dtype=torch.bfloat16)
    lengths = torch.tensor([features.size(1), features.size(1) - 9])
    whole, _ = encoder(features, lengths, chunk)
    state = encoder.init_state(2, chunk)
    assert {tensor.dtype for tensor in state.values()} <= {torch.float32}
    advance = 4 * chunk.chunk_size
    for number in range(3):
        piece = features[:1, number * advance : (number + 1) * advance + 3]
        out, state = encoder.step(piece.expand(2, -1, -1), state)
        assert {tensor.dtype for tensor in state.values()} <= {torch.float32}
        expected = whole[:1, number * chunk.chunk_size :][:, : chunk.chunk_size]
        torch.testing.assert_close(out[:1], expected, rtol=0.1, atol=0.1)


@pytest.mark.parametrize("kind", [*CONFORMERS, "lite", *ZIPFORMERS])
@pytest.mark.parametrize("is_offline", [True, False])
def test_padding_that_is_not_finite_does_not_reach_valid_frames(kind, is_offline):
    encoder = make(kind)
    chunk = ChunkConfig() if is_offline else ChunkConfig(2 * encoder.chunk_multiple, 2)
    features, lengths = ragged([150, 64])
    expected, frames = encoder(features, lengths, chunk)
    features[1, 64:] = float("nan")
    features[1, 100:] = float("inf")
    out, _ = encoder(features, lengths, chunk)
    for n, length in enumerate(frames):
        torch.testing.assert_close(out[n, :length], expected[n, :length], rtol=0, atol=1e-9)


def test_state_is_small_flat_and_zero():
    sizes = ConformerConfig(num_layers=2, dim=32, feedforward_dim=32, summary_dim=16, kernel_size=31)
    encoder = Conformer(sizes, MixingConfig(), 80, dropout=0.1)
    unlimited = encoder.init_state(3, ChunkConfig(8))
    assert all(tensor.size(0) == 3 and not tensor.any() for tensor in unlimited.values())
    assert all(tensor.dtype == torch.float32 for tensor in unlimited.values())
    assert state_bytes(unlimited) == 2 * 4 * (16 + 1 + 15 * 32)
    assert state_bytes(encoder.init_state(3, ChunkConfig(8, 4))) == 2 * 4 * (4 * (16 + 1) + 15 * 32)


class LargestTensor(TorchDispatchMode):
    """Counts the elements of the largest tensor that any operation produces."""

    def __init__(self):
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage().nbytes() > 0:
                self.elements = max(self.elements, tensor.untyped_storage().nbytes() // tensor.element_size())
        return out


@pytest.mark.parametrize("chunk", [ChunkConfig(), ChunkConfig(8), ChunkConfig(8, 2), ChunkConfig(2, 40)])
@pytest.mark.parametrize("kind", ["merged", "decay", "zip"])
def test_no_tensor_grows_faster_than_the_audio(chunk, kind):
    """Training included. A T×T tensor, or K×K over the chunks, would grow 16-fold where the audio grows 4-fold."""
    encoder = make(kind, torch.float32).train()
    elements = []
    for num_features in (4003, 16003):
        features = torch.randn(1, num_features, FEATURES)
        with LargestTensor() as largest:
            encoder(features, torch.tensor([num_features]), chunk)[0].square().mean().backward()
        elements.append(largest.elements)
    assert elements[1] <= 4.1 * elements[0]
    assert elements[0] < 1000 * 1000  # T = 1000 frames


MEASURE = """
import re, sys, time, torch
from pathlib import Path
from summarymix.chunking import ChunkConfig
from summarymix.encoder.conformer import Conformer, ConformerConfig
from summarymix.blocks.mixing import MixingConfig
torch.set_num_threads(1)
sizes = ConformerConfig(frontend_channels=(4, 4), num_layers=2, dim=32, feedforward_dim=64, summary_dim=32)
encoder = Conformer(sizes, MixingConfig(), 80, dropout=0.1)
def run(num_frames, chunk):
    start = time.process_time()
    features = torch.randn(1, 4 * num_frames + 3, 80)
    encoder(features, torch.tensor([features.size(1)]), chunk)[0].square().mean().backward()
    return time.process_time() - start
def kilobytes(name):
    return int(re.search(name + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
chunk = eval(sys.argv[1])
run(100, chunk)
for num_frames in (4000, 16000):
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far, that of the imports, is forgotten
    base = kilobytes("VmRSS")
    seconds = min(run(num_frames, chunk) for _ in range(3))
    print(seconds, kilobytes("VmHWM") - base)
"""


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="peak memory is measured by Linux")
@pytest.mark.parametrize("chunk", ["ChunkConfig()", "ChunkConfig(8)", "ChunkConfig(8, 4)"])
def test_training_four_times_longer_takes_four_times_as_much(chunk):
    """Forward and backward in a process of its own. Quadratic cost would give 16; the bound on time is loose because
    machines are shared, the one on peak memory is strict because it is not."""
    result = subprocess.run([sys.executable, "-c", MEASURE, chunk], capture_output=True, text=True, check=True)
    (time1, memory1), (time4, memory4) = (map(float, line.split()) for line in result.stdout.splitlines())
    assert time4 / time1 < 9
    assert memory4 / memory1 < 4.4


def test_the_output_in_pieces_is_as_long_as_the_utterance() -> None:
    sizes = ConformerConfig(
        frontend_channels=(2, 3), num_layers=1, dim=8, feedforward_dim=12, kernel_size=3, summary_dim=8
    )
    encoder = Conformer(sizes, MixingConfig(), 12, dropout=0.0).eval()
    with pieces_of(50):
        frames, _ = encoder(torch.randn(3, 403, 12), torch.tensor([403, 280, 77]), ChunkConfig(6, 1))
    assert frames.size(1) == output_lengths(403)


def test_constant_mel_bins_stay_finite() -> None:
    sizes = ConformerConfig(
        frontend_channels=(2, 3), num_layers=1, dim=8, feedforward_dim=12, kernel_size=3, summary_dim=8
    )
    encoder = Conformer(sizes, MixingConfig(), 12, dropout=0.0)
    encoder.set_feature_stats(torch.zeros(12), torch.zeros(12))
    assert encoder.normalize(torch.zeros(1, 1, 12)).isfinite().all()

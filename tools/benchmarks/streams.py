"""Streaming models, and audio streams for them."""

import argparse
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

import summarymix
from benchmarks.pacing import pace
from benchmarks.parts import read_configs
from summarymix.chunking import ChunkConfig
from summarymix.data.check_features import generated_audio
from summarymix.data.features import FbankExtractor, FbankOptions, latency_ms
from summarymix.decoding.greedy import GreedySearch
from summarymix.decoding.search import TransducerSearch
from summarymix.decoding.streaming import StreamingRecognizer
from summarymix.export.onnx_step import OnnxCache
from summarymix.export.onnx_transducer import encoder_stems
from summarymix.model import Transducer, TransducerParts
from summarymix.runs import load_run_or_checkpoint
from summarymix.state import State, kind_of, state_bytes


class Model(NamedTuple):
    """A model with its <unk> token and its features; a trained model computed by PyTorch or by ONNX Runtime."""

    model: TransducerParts
    unk_id: int | None
    fbank: FbankOptions
    cache: OnnxCache | None = None  # its exports, if ONNX Runtime computes it


def load_models(args: argparse.Namespace) -> dict[str, Model]:
    """Load the models of --exp-dir and --config, by name, in evaluation mode on the device.

    Raises:
        ValueError: no model is given, --int8 without an exported one, or ONNX Runtime is asked for what it cannot
            compute.
    """
    models = {}
    if args.int8 and not any(map(encoder_stems, args.exp_dir)):
        raise ValueError("--int8 needs a folder of export.py: give one as --exp-dir")
    for exp_dir in args.exp_dir:
        if encoder_stems(exp_dir):
            for int8 in (False, True) if args.int8 else (False,):
                recognizer = summarymix.load(exp_dir, int8=int8)
                name = f"{exp_dir}, int8" if int8 else str(exp_dir)
                models[name] = Model(recognizer.model, recognizer.tokenizer.unk_id, recognizer.extractor.options)
            continue
        model, tokenizer, info = load_run_or_checkpoint(exp_dir, args.epoch, args.avg)
        data = info["config"]["data"]
        fbank = FbankOptions(data["sample_rate"], data["num_mel_bins"], data["feature_backend"])
        name = f"{exp_dir}, epoch {info['epoch']}, avg {info['avg']}"
        for backend in args.backend:
            if backend == "torch":
                models[name] = Model(model.to(args.device), tokenizer.unk_id, fbank)
            elif torch.device(args.device).type != "cpu" or args.precision != "fp32":
                raise ValueError("--backend onnx needs --device cpu and --precision fp32")
            else:
                cache = OnnxCache(exp_dir, model, tokenizer, info)
                models[f"{name}, ONNX Runtime"] = Model(model, tokenizer.unk_id, fbank, cache)
    for name, config in read_configs(args.config or []).items():
        torch.manual_seed(0)
        model = Transducer(config.model).eval().to(args.device)
        models[name] = Model(model, None, config.data.fbank_options())
    if not models:
        raise ValueError("no model: give --exp-dir DIR or --config FILE")
    return models


def make_recognizer(model: Model, chunk: ChunkConfig, num_streams: int) -> StreamingRecognizer:
    """Make a recogniser for ``num_streams`` streams.

    Raises:
        ValueError: the model cannot stream with this chunk configuration.
    """
    model.model.encoder.check_chunk(chunk)
    search: TransducerSearch = GreedySearch(model.model, unk_id=model.unk_id)
    if model.cache is not None:
        search = search.with_model(model.cache.get(chunk).model)
    return StreamingRecognizer(search, chunk, num_streams, FbankExtractor(model.fbank))


def state_components(model: Model, chunk: ChunkConfig) -> dict[str, int]:
    """Sizes of a stream's state in bytes, by component."""
    encoder_state = model.model.encoder.init_state(1, chunk)
    parts: dict[str, State] = {}
    for name, tensor in encoder_state.items():
        parts.setdefault(kind_of(name), {})[name] = tensor
    device = model.model.device
    parts["predictor"] = GreedySearch(model.model).init_state(1, device)
    return {name: state_bytes(state) for name, state in parts.items()}


class Audio:
    """Endless audio in blocks that complete one chunk each.

    Args:
        model: model that decodes the audio.
        chunk: chunk configuration.
        offset: start of the audio in seconds.
    """

    def __init__(self, model: Model, chunk: ChunkConfig, offset: float = 0.0) -> None:
        rate = model.fbank.sample_rate
        self._samples = two_minutes(rate)
        self._period = len(self._samples) // 2
        self._next = int(offset * rate) % self._period
        # The first block also has the lookahead of the front end and of the last window.
        self._size = round(latency_ms(chunk, model.fbank) * rate / 1000)  # type: ignore[operator]
        self._step = chunk.chunk_ms * rate // 1000  # type: ignore[operator]

    def block(self) -> Tensor:
        """Samples (n,) of the next chunk."""
        start, size = self._next, self._size
        self._next, self._size = (start + size) % self._period, self._step
        return self._samples[start : start + size]


@cache
def two_minutes(sample_rate: int) -> Tensor:
    """One minute of audio twice (n,), so that a block of up to a minute may begin anywhere in the first copy."""
    minute = generated_audio(60, sample_rate)
    return torch.cat([minute, minute])


def synchronize(model: Model) -> None:
    """Wait for the GPU."""
    device = model.model.device
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def paced_latencies(model: Model, chunk: ChunkConfig, num_streams: int, num_chunks: int) -> list[float]:
    """Measure chunk latencies of ``num_streams`` real-time streams."""
    recognizer = make_recognizer(model, chunk, num_streams)
    streams = [recognizer.open() for _ in range(num_streams)]
    audios = [Audio(model, chunk, offset=7.0 * i) for i in range(num_streams)]

    def decode(ready: list[int]) -> None:
        for i in ready:
            streams[i].accept_samples(audios[i].block())
        done = recognizer.step()
        synchronize(model)
        assert done == len(ready), (done, ready)

    decode(list(range(num_streams)))  # warm-up: the first chunk of each stream
    return pace(num_streams, num_chunks, chunk.chunk_ms / 1000, decode)  # type: ignore[operator]

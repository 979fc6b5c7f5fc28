"""README of an export: its files, and the commands to use them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from summarymix.chunking import ChunkConfig, default_chunk
from summarymix.data.features import FbankOptions, latency_ms
from summarymix.encoder.subsampling import FEATURE_SECONDS, features_needed
from summarymix.export.onnx import ENDINGS, Precision

SHERPA_TAIL_SECONDS = 0.8  # silence that the program sherpa-onnx (2.0) appends to a file
BEGIN, END = "<!-- encoders -->", "<!-- end of encoders -->"  # marks around the table, which decode.py --onnx rewrites


def tail_seconds(chunk: ChunkConfig, fbank: FbankOptions) -> float:
    """Seconds of silence after audio of any length that complete its last word.

    They are the tail of the training features and, because programs drop an incomplete chunk and wait for one feature
    frame more than a chunk needs, the frames of a chunk and one more.
    """
    if chunk.chunk_size is None:
        return FEATURE_SECONDS * fbank.tail_frames
    return FEATURE_SECONDS * (fbank.tail_frames + features_needed(chunk.chunk_size + chunk.lookahead) + 1)


@dataclass(frozen=True)
class EncoderFile:
    """An encoder of an export.

    Args:
        name: stem of its file name.
        precision: precision of the file.
        chunk: its chunk size, left context and look-ahead.
        state_bytes: size of a stream's states; None offline.
    """

    name: str
    precision: Precision
    chunk: ChunkConfig
    state_bytes: int | None


@dataclass(frozen=True)
class Measured:
    """Results of an encoder with files of one precision.

    Args:
        rates: error rates in per cent, by the heading of their column, for instance ``WER % test``.
        rtf: seconds of computing per second of audio, by one thread, features not included; None if not measured so.
    """

    rates: dict[str, float | None]
    rtf: float | None


@dataclass(frozen=True)
class About:
    """An export, as its README describes it.

    Args:
        name: name of the model.
        format: format of the files.
        encoders: the encoders.
        fbank: the features.
    """

    name: str
    format: str
    encoders: Sequence[EncoderFile]
    fbank: FbankOptions


def describe(about: About) -> str:
    """Compose the text of the README, without results."""
    chunk = default_chunk(each.chunk for each in about.encoders)
    sections = [f"# {about.name}\n\nA SummaryMixing transducer, exported as {about.format}: {_use(chunk)}"]
    sections.append(table(about, {}))
    sections.append({"torchscript": _TORCHSCRIPT, "onnx-streaming": _STREAMING, "onnx": _OFFLINE}[about.format])
    if about.format != "torchscript":
        precisions = dict.fromkeys(each.precision for each in about.encoders)
        sections += [_OTHER[precision] for precision in precisions if precision in _OTHER]
        sections.append(_HOTWORDS)
    sections.append(_FEATURES)
    text = "\n\n".join(sections) + "\n"
    values = {"@RATE@": str(about.fbank.sample_rate), "@BINS@": str(about.fbank.num_mel_bins)}
    values["@ENCODER@"] = next(each.name for each in about.encoders if each.chunk == chunk)
    if chunk.chunk_size is None:
        values["@APPEND@"] = _APPEND.format(tail_seconds(chunk, about.fbank)) if about.fbank.tail_frames else ""
    else:
        tails = {each.name: tail_seconds(each.chunk, about.fbank) for each in about.encoders}
        values["@TAIL@"] = f"{max(tails.values()):.2f}"
        too_long = " and ".join(f"`{name}`" for name, tail in tails.items() if tail > SHERPA_TAIL_SECONDS)
        values["@SHORT@"] = f"; {SHERPA_TAIL_SECONDS} s are too short for {too_long}" if too_long else ""
        values["@RESET@"] = _RESET if chunk.left_chunks < 0 else ""
    for mark, value in values.items():
        text = text.replace(mark, value)
    return text


def table(about: About, measured: Mapping[tuple[str, Precision], Measured]) -> str:
    """Compose the table of the encoders with their measured figures, between two marks."""
    headings = list(dict.fromkeys(heading for result in measured.values() for heading in result.rates))
    columns = ["encoder", "precision", "chunk", "look-ahead", "latency", "state"]
    speed = ["RTF", "streams per core"] if about.format == "onnx-streaming" else ["RTF"]
    rows = [columns + headings + (speed if measured else [])]
    rows.append(["---"] * len(rows[0]))
    for encoder in sorted(about.encoders, key=lambda each: (each.chunk.chunk_size or 0, each.chunk.lookahead)):
        ending = ".pt" if about.format == "torchscript" else ENDINGS[encoder.precision]
        row = [f"`{encoder.name}{ending}`", encoder.precision, *_setting(encoder, about.fbank)]
        result = measured.get((encoder.name, encoder.precision))
        for heading in headings:
            rate = result.rates.get(heading) if result else None
            row.append("–" if rate is None else f"{rate:.2f}")
        if measured:
            rtf = result.rtf if result else None
            row += ["–"] * len(speed) if rtf is None else [f"{rtf:.4f}", f"{1 / rtf:.0f}"][: len(speed)]
        rows.append(row)
    text = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    if about.format != "torchscript":
        text += "\n\n" + (_MEASURED if measured else _UNMEASURED)
    return f"{BEGIN}\n{text}\n{END}"


def _setting(encoder: EncoderFile, fbank: FbankOptions) -> list[str]:
    """Chunk, look-ahead, latency and state."""
    chunk = encoder.chunk
    latency = latency_ms(chunk, fbank)
    if latency is None or encoder.state_bytes is None:
        return ["whole recordings"] + ["–"] * 3
    milliseconds = [f"{value:.0f} ms" for value in (chunk.chunk_ms or 0, chunk.lookahead_ms, latency)]
    return [*milliseconds, f"{encoder.state_bytes / 1024:.0f} KiB"]


def _use(chunk: ChunkConfig) -> str:
    if chunk.chunk_size is None:
        return "it recognises whole recordings."
    left = "an unlimited left context" if chunk.left_chunks < 0 else f"a left context of {chunk.left_chunks} chunks"
    each = "Each encoder has one chunk size and look-ahead. Decoder and joiner serve all."
    return f"it recognises streams, with {left}.\n{each}"


_UNMEASURED = """`./decode.py --onnx DIR`, with `--int8` or `--fp16` for those files, measures error rates and speed and
adds them to this table."""

_MEASURED = """Latency is algorithmic: from the first sample of a chunk to the last one that its result needs. Error
rates, RTF and streams per core (one divided by RTF) are those of `./decode.py --onnx`: greedy search, some streams side
by side, features not included. RTF is shown if one thread computed (`OMP_NUM_THREADS=1 ./decode.py …`)."""

_STREAMING = """```bash
pip install sherpa-onnx sherpa-onnx-bin
sherpa-onnx --encoder=@ENCODER@.onnx --decoder=decoder.onnx --joiner=joiner.onnx --tokens=tokens.txt \\
  --sample-rate=@RATE@ --feat-dim=@BINS@ audio.wav
```

```python
import numpy as np
import sherpa_onnx
import soundfile

recognizer = sherpa_onnx.OnlineRecognizer.from_transducer(
    encoder="@ENCODER@.onnx", decoder="decoder.onnx", joiner="joiner.onnx", tokens="tokens.txt",
    sample_rate=@RATE@, feature_dim=@BINS@,
)
samples, rate = soundfile.read("audio.wav", dtype="float32")
stream = recognizer.create_stream()
stream.accept_waveform(rate, samples)
stream.accept_waveform(rate, np.zeros(int(@TAIL@ * rate), np.float32))  # tail padding
stream.input_finished()
while recognizer.is_ready(stream):
    recognizer.decode_stream(stream)
print(recognizer.get_result(stream))
```

sherpa-onnx drops an incomplete chunk at the end of a stream, so append **@TAIL@ s of silence** (`--end-tail-padding` of
its websocket server). The model type is `lstm`, which has two states of any size.

The program `sherpa-onnx` adds 0.5 s of silence at the start of each file and 0.8 s at the end. Silence at the start
confuses a model that was trained without pauses (`data.silence`)@SHORT@.@RESET@"""

_RESET = """

The left context is unlimited: each summary is the mean over the whole stream so far, silence included, and programs
such as sherpa-onnx do not reset it at endpoints. For endless streams, export with a limit, for instance
`--left-chunks 4`, or create a stream for each utterance."""

_OFFLINE = """```bash
pip install sherpa-onnx sherpa-onnx-bin
sherpa-onnx-offline --encoder=@ENCODER@.onnx --decoder=decoder.onnx --joiner=joiner.onnx --tokens=tokens.txt \\
  --sample-rate=@RATE@ --feat-dim=@BINS@ audio.wav
```

```python
import sherpa_onnx
import soundfile

recognizer = sherpa_onnx.OfflineRecognizer.from_transducer(
    encoder="@ENCODER@.onnx", decoder="decoder.onnx", joiner="joiner.onnx", tokens="tokens.txt",
    sample_rate=@RATE@, feature_dim=@BINS@,
)
samples, rate = soundfile.read("audio.wav", dtype="float32")
stream = recognizer.create_stream()
stream.accept_waveform(rate, samples)
recognizer.decode_stream(stream)
print(stream.result.text)
```@APPEND@"""

_APPEND = """

Append {:.2f} s of silence to the audio: in training it followed each utterance (`data.tail_frames`)."""

_OTHER = {
    "int8": """The `.int8.onnx` files have int8 weights. They can replace all or some of the other files. The loss of
accuracy depends on the model: measure it.""",
    "fp16": """The `.fp16.onnx` files compute in float16, with inputs, outputs and states in float32. They have half the
size and are for GPUs: CPUs compute them slowly.""",
}

_HOTWORDS = """For hotwords, use `modified_beam_search` with the modelling unit `bpe` and `bpe.vocab`."""

_TORCHSCRIPT = """`torch::jit::load` reads `@ENCODER@.pt`, `decoder.pt` and `joiner.pt`. They take any batch size N:

- encoder, for chunks of C frames of 40 ms with R frames of look-ahead: features (N, 4·(C + R) + 3, @BINS@) and two
  states (1, N, a), (1, N, b), initially zero, to frames (N, C, J) and the next states. The features of the next call
  begin 4·C frames later. The extra files `T`, `decode_chunk_len`, `d_model` and `rnn_hidden_size` in the file have
  4·(C + R) + 3, 4·C, a and b.
- decoder: the last tokens (N, context_size), int64, to (N, J). A stream begins with -1, …, -1, 0.
- joiner: a frame (N, J) and the decoder's output (N, J) to logits (N, V). Token 0 is blank.

Append @TAIL@ s of silence to a stream, to complete its last word.@RESET@"""

_FEATURES = """Features are @BINS@ log-mel filter banks of samples in [-1, 1] at @RATE@ Hz, as in lhotse and
sherpa-onnx. `tokens.txt` lists the tokens, and `bpe.model` is the sentencepiece model that produces them."""

"""README of an export: its files, and the commands to use them."""

from summarymix.chunking import ChunkConfig
from summarymix.data.features import FbankOptions
from summarymix.encoder.subsampling import FEATURES_PER_FRAME, features_needed

FRAME_SECONDS = 0.01  # frame shift of the features


def tail_seconds(chunk: ChunkConfig) -> float:
    """Seconds of silence after audio of any length that complete its last word: programs drop an incomplete chunk, and
    wait for one feature frame more than a chunk needs."""
    assert chunk.chunk_size is not None
    return FRAME_SECONDS * (features_needed(chunk.chunk_size + chunk.lookahead) + 1)


def describe(name: str, format: str, chunk: ChunkConfig, fbank: FbankOptions, int8: bool) -> str:
    """Compose the text of the README.

    Args:
        name: name of the model.
        format: format of the files.
        chunk: chunk size and left context.
        fbank: the features.
        int8: describe int8 files, too.
    """
    sections = [f"# {name}\n\nA SummaryMixing transducer, exported as {format}: {_about(chunk)}"]
    if format == "torchscript":
        sections.append(_TORCHSCRIPT)
    else:
        sections.append(_STREAMING if format == "onnx-streaming" else _OFFLINE)
        if int8:
            sections.append(_INT8)
        sections.append(_HOTWORDS)
    sections.append(_FEATURES)
    text = "\n\n".join(sections) + "\n"
    values = {"@RATE@": str(fbank.sample_rate), "@BINS@": str(fbank.num_mel_bins)}
    if chunk.chunk_size is not None:
        values |= {
            "@TAIL@": f"{tail_seconds(chunk):.2f}",
            "@SIZE@": str(features_needed(chunk.chunk_size + chunk.lookahead)),
            "@SHIFT@": str(FEATURES_PER_FRAME * chunk.chunk_size),
            "@FRAMES@": str(chunk.chunk_size),
            "@RESET@": _RESET if chunk.left_chunks < 0 else "",
        }
    for mark, value in values.items():
        text = text.replace(mark, value)
    return text


def _about(chunk: ChunkConfig) -> str:
    if chunk.chunk_size is None:
        return "it recognises whole recordings."
    return f"it recognises streams, {chunk}. These values are fixed in the files; export again to change them."


_STREAMING = """```bash
pip install sherpa-onnx sherpa-onnx-bin
sherpa-onnx --encoder=encoder.onnx --decoder=decoder.onnx --joiner=joiner.onnx --tokens=tokens.txt \\
  --sample-rate=@RATE@ --feat-dim=@BINS@ audio.wav
```

```python
import numpy as np
import sherpa_onnx
import soundfile

recognizer = sherpa_onnx.OnlineRecognizer.from_transducer(
    encoder="encoder.onnx", decoder="decoder.onnx", joiner="joiner.onnx", tokens="tokens.txt",
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
confuses a model that was trained without pauses (`data.silence`); 0.8 s are too short for chunks over 760 ms.@RESET@"""

_RESET = """

The left context is unlimited: each summary is the mean over the whole stream so far, silence included, and sherpa-onnx
does not reset it at endpoints. For endless streams, export with a limit, for instance `--left-chunks 4`, or
create a stream for each utterance."""

_OFFLINE = """```bash
pip install sherpa-onnx sherpa-onnx-bin
sherpa-onnx-offline --encoder=encoder.onnx --decoder=decoder.onnx --joiner=joiner.onnx --tokens=tokens.txt \\
  --sample-rate=@RATE@ --feat-dim=@BINS@ audio.wav
```

```python
import sherpa_onnx
import soundfile

recognizer = sherpa_onnx.OfflineRecognizer.from_transducer(
    encoder="encoder.onnx", decoder="decoder.onnx", joiner="joiner.onnx", tokens="tokens.txt",
    sample_rate=@RATE@, feature_dim=@BINS@,
)
samples, rate = soundfile.read("audio.wav", dtype="float32")
stream = recognizer.create_stream()
stream.accept_waveform(rate, samples)
recognizer.decode_stream(stream)
print(stream.result.text)
```"""

_INT8 = """The `.int8.onnx` files have int8 weights. They can replace all or some of the other files. The loss of
accuracy depends on the model: measure it."""

_HOTWORDS = """For hotwords, use `modified_beam_search` with the modelling unit `bpe` and `bpe.vocab`."""

_TORCHSCRIPT = """`torch::jit::load` reads `encoder.pt`, `decoder.pt` and `joiner.pt`. They take any batch size N:

- encoder: features (N, @SIZE@, @BINS@) and two states (1, N, a), (1, N, b), initially zero, to frames (N, @FRAMES@, J)
  and the next states. The features of the next call begin @SHIFT@ frames later. The extra files `d_model` and
  `rnn_hidden_size` in `encoder.pt` have the state sizes a and b.
- decoder: the last tokens (N, context_size), int64, to (N, J). A stream begins with -1, …, -1, 0.
- joiner: a frame (N, J) and the decoder's output (N, J) to logits (N, V). Token 0 is blank.

Append @TAIL@ s of silence to a stream, to complete its last word.@RESET@"""

_FEATURES = """Features are @BINS@ log-mel filter banks of samples in [-1, 1] at @RATE@ Hz, as in lhotse and
sherpa-onnx. `tokens.txt` lists the tokens, and `bpe.model` is the sentencepiece model that produces them."""

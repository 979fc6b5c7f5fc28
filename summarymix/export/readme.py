"""The README of an export: what the files are, and the commands that use them."""

from summarymix.chunking import ChunkConfig
from summarymix.data.features import FbankOptions
from summarymix.encoder.subsampling import FEATURES_PER_FRAME, features_needed

FRAME_SECONDS = 0.01  # of features


def tail_seconds(chunk: ChunkConfig) -> float:
    """Silence that brings out the last word, whatever an audio's length: programs drop what makes no whole chunk, and
    wait for one feature frame more than that takes."""
    assert chunk.chunk_size is not None
    return FRAME_SECONDS * (features_needed(chunk.chunk_size) + 1)


def describe(name: str, format: str, chunk: ChunkConfig, fbank: FbankOptions, int8: bool) -> str:
    """The text.

    Args:
        name: of the model.
        format: of the files.
        chunk: size and left context.
        fbank: features.
        int8: whether there are int8 files.
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
            "@SIZE@": str(features_needed(chunk.chunk_size)),
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
    return f"it recognises streams, {chunk}. Both are fixed in the files; export again for others."


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

sherpa-onnx drops what makes no whole chunk at a stream's end, so feed **@TAIL@ s of silence** behind it
(`--end-tail-padding` of its websocket server). Its model type is `lstm`, which has two states of any size.

The program `sherpa-onnx` itself puts 0.5 s of silence before each file and 0.8 s behind it. The former confuses a model
that was trained without pauses (`data.silence`); the latter is too little for chunks above 760 ms.@RESET@"""

_RESET = """

The left context is unlimited: the summaries are means over all that a stream has had since it was created, silence
too, and sherpa-onnx does not reset them at endpoints. For streams without end export with `--left-chunks 4`, say, or
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

_INT8 = """The `.int8.onnx` files have weights in int8 and take the place of the others, all or some of them. How many
more errors they make depends on the model: measure it."""

_HOTWORDS = """For hotwords choose modified_beam_search, with the modelling unit `bpe` and `bpe.vocab`."""

_TORCHSCRIPT = """`torch::jit::load` reads `encoder.pt`, `decoder.pt` and `joiner.pt`, in any batch size N:

- encoder: features (N, @SIZE@, @BINS@) and two states (1, N, a), (1, N, b), zeros at first, to @FRAMES@ frames (N,
  @FRAMES@, J) and the next two states. The next call's features begin @SHIFT@ later. The states' sizes are `d_model`
  and `rnn_hidden_size` among the extra files of `encoder.pt`.
- decoder: the last tokens (N, context_size), int64, to (N, J). A stream begins with -1, …, -1, 0.
- joiner: a frame (N, J) and the decoder's output (N, J) to logits (N, V). Token 0 is blank.

Feed @TAIL@ s of silence behind a stream's end, to bring out its last word.@RESET@"""

_FEATURES = """Features are @BINS@ log-mel filter banks at @RATE@ Hz as lhotse and sherpa-onnx compute them, of samples
in [-1, 1]. Tokens are in `tokens.txt`, and `bpe.model` is the sentencepiece model that makes them."""

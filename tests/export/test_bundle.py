"""Exports compute what the model computes, are whole, and refuse what they cannot do."""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
import torch
from export_cases import FBANK, TOKENIZER, export, make_audio, make_model

import summarymix
from summarymix.chunking import ChunkConfig
from summarymix.data.features import FbankExtractor
from summarymix.decoding.streaming import StreamingRecognizer
from summarymix.encoder.subsampling import features_needed, output_lengths
from summarymix.export import bundle
from summarymix.export.bundle import Export, taken_for_bytes
from summarymix.export.check import ExportCheck
from summarymix.export.graphs import Graph, StreamingEncoder, offline_graphs, streaming_graphs
from summarymix.export.onnx import ENDINGS, check_file, load_onnx, read_metadata
from summarymix.export.readme import About, EncoderFile, describe
from summarymix.export.torchscript import load_torchscript
from summarymix.state import pack_state

RING, SUM, AHEAD, WHOLE = ChunkConfig(8, 2), ChunkConfig(4, -1), ChunkConfig(8, 1, 4), ChunkConfig()
ABOUT = {"comment": "x"}


def features(seconds: float) -> torch.Tensor:
    return FbankExtractor(FBANK).extract(make_audio(seconds))


@torch.inference_mode()
def run_stream(encoder, features: torch.Tensor, chunk: ChunkConfig, sizes: tuple[int, int]) -> torch.Tensor:
    """An encoder of files over (N, T, F), zeros behind the end: (N, frames of T features, J)."""
    total = output_lengths(features.size(1))
    states = [torch.zeros(1, len(features), size) for size in sizes]
    frames, size = [], features_needed(chunk.chunk_size + chunk.lookahead)
    for start in range(0, total, chunk.chunk_size):
        part = features[:, 4 * start : 4 * start + size]
        part = torch.nn.functional.pad(part, (0, 0, 0, size - part.size(1)))
        out, *states = encoder(part.contiguous(), *states)
        frames.append(out)
    return torch.cat(frames, dim=1)[:, :total]


@pytest.mark.parametrize(
    ("encoder", "format", "chunk"),
    [
        ("conformer", "onnx-streaming", RING),
        ("conformer", "torchscript", RING),
        ("zipformer", "onnx-streaming", AHEAD),
        ("zipformer", "torchscript", RING),
    ],
)
def test_many_chunks_of_a_batch_equal_whole_utterances(exported, encoder: str, format: str, chunk: ChunkConfig) -> None:
    """Batches of other sizes than the example's, a partial chunk at the end fed as padding. The padding is in the last
    chunk's mean, so that its frames are those of the padded audio."""
    folder, model = exported(encoder, format, chunk), make_model(encoder)
    load, ending = (load_torchscript, "pt") if format == "torchscript" else (load_onnx, "onnx")
    module = StreamingEncoder(model, chunk)
    for batch_size, seconds in ((1, 6.1), (5, 2.3)):
        audio = torch.stack([features(seconds).roll(7 * n, 0) for n in range(batch_size)])  # (N, T, F)
        sizes = module.summary_size, module.convolution_size
        streamed = run_stream(load(folder / f"encoder.{ending}"), audio, chunk, sizes)
        total = -(-output_lengths(audio.size(1)) // 8) * 8 + chunk.lookahead
        padded = torch.nn.functional.pad(audio, (0, 0, 0, features_needed(total) - audio.size(1)))
        with torch.inference_mode():
            expected, _ = model.encoder(padded, torch.full((batch_size,), padded.size(1)), chunk)
            expected = model.joiner.encoder_proj(expected)[:, : streamed.size(1)]
        torch.testing.assert_close(streamed, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("encoder", ["conformer", "zipformer"])
def test_offline_lengths_are_exact_and_neighbours_do_not_matter(exported, encoder: str) -> None:
    folder, model = exported(encoder, "onnx", WHOLE), make_model(encoder)
    run = load_onnx(folder / "encoder.onnx")
    audio = features(3.0)
    for lengths in ([1], [6], [7], [10, 11], [43, 3, 300, 44, 45, 46], [299, 298]):
        batch = torch.full((len(lengths), max(lengths), 16), -23.0)  # as sherpa-onnx pads
        for n, length in enumerate(lengths):
            batch[n, :length] = audio[:length]
        out, frames = run(batch, torch.tensor(lengths))
        assert frames.tolist() == [output_lengths(length) for length in lengths]
        for n, length in enumerate(lengths):
            with torch.inference_mode():
                alone, _ = model.encoder(audio[None, :length], torch.tensor([length]), WHOLE)
                expected = model.joiner.encoder_proj(alone)[0, : frames[n]]
            torch.testing.assert_close(out[n, : frames[n]], expected, rtol=0, atol=1e-4)


VARIANTS = {
    "no left context": ("conformer", {}, ChunkConfig(3, 0)),
    "decay": (
        "conformer",
        {"decay_seconds": 0.4, "context_size": 1},
        ChunkConfig(5, 3),
    ),
    "no summary": ("conformer", {"mode": "local", "context_size": 3}, SUM),
    "slow stacks": ("zipformer", {"downsampling": (2, 4)}, SUM),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_variants(variant: str, tmp_path: Path) -> None:
    """Their check against the model passes, and no state is without numbers."""
    encoder, changes, chunk = VARIANTS[variant]
    model = make_model(encoder, **changes)
    export(model, "torchscript", [chunk], tmp_path / "out")
    [graph, *_] = streaming_graphs(model, [chunk], ABOUT)
    sizes = graph.inputs["summary"].size(2), graph.inputs["convolution"].size(2)
    assert min(sizes) > 0
    assert sum(sizes) == pack_state(model.encoder.init_state(1, chunk)).size(1)


def test_no_masks_in_a_streaming_graph_and_summaries_apart(exported) -> None:
    """Its metadata are what sherpa-onnx reads; what SummaryMixing keeps is sums and counts of three chunks' frames."""
    path = exported("conformer", "onnx-streaming", RING) / "encoder.onnx"
    model = onnx.load(path)
    assert not {"Where", "Not"} & {node.op_type for node in model.graph.node}
    metadata = read_metadata(path)
    expected = {"model_type": "lstm", "T": "35", "decode_chunk_len": "32", "num_encoder_layers": "1"}
    expected |= {"d_model": str(2 * 2 * (16 + 1)), "rnn_hidden_size": str(2 * 3 * 16), "version": "1"}
    expected |= {"chunk_ms": "320", "left_chunks": "2", "sample_rate": "16000", "feature_dim": "16"}
    assert expected.items() <= metadata.items()
    audio = features(1.0)
    [*_, summary, _] = load_onnx(path)(audio[None, :35], torch.zeros(1, 1, 68), torch.zeros(1, 1, 96))
    rings = summary.view(-1, 2, 17)  # of sums (2, 16) and counts (2, 1), in turn
    assert rings.shape[0] == 2
    assert (summary[0, 0] == 8).sum() == 2  # the counts of both layers' newest chunk


@pytest.mark.parametrize(("format", "tail"), [("onnx", "0.30"), ("onnx-streaming", "0.66")])
def test_the_tail_of_the_training_features(exported, format: str, tail: str, tmp_path: Path) -> None:
    """Programs are told to append it, and this library does."""
    model, chunk = make_model("conformer"), WHOLE if format == "onnx" else RING
    fbank = replace(FBANK, tail_frames=30)
    written = Export(model, TOKENIZER, fbank, "mini", 1, 0, format, [chunk])  # type: ignore[arg-type]
    graphs = written.graphs()
    assert re.search(rf"ppend \**{tail} s of silence", describe(written.about(graphs)))
    shutil.copytree(exported("conformer", format, chunk), tmp_path / "out")
    encoder = onnx.load(tmp_path / "out" / "encoder.onnx")  # the graph is that of any tail
    onnx.helper.set_model_props(encoder, graphs[0].metadata)
    onnx.save(encoder, tmp_path / "out" / "encoder.onnx")
    files = summarymix.load(tmp_path / "out")
    assert files.extractor.options.tail_frames == 30
    audio = make_audio(2.3)
    found = files.transcribe(audio, mode="offline" if format == "onnx" else "streaming", chunk_ms=chunk.chunk_ms)
    with_tail = FbankExtractor(fbank).extract(audio)
    assert len(with_tail) == 230 + 30
    if format == "onnx":
        frames, lengths = files.model.encoder(with_tail[None], torch.tensor([260]), chunk)
        [expected] = files.search.decode(frames, lengths)
    else:
        [(_, expected)] = StreamingRecognizer(files.search, chunk).decode_all([("a", with_tail)])
    assert len(expected.tokens) > 5
    assert [token.token for token in found.tokens] == [TOKENIZER.tokens[i] for i in expected.tokens]


def test_the_folder_is_whole_and_small(exported) -> None:
    folder = exported("conformer", "onnx-streaming", RING)
    graphs = [f"{name}{ending}" for name in ("encoder", "decoder", "joiner") for ending in ENDINGS.values()]
    assert {path.name for path in folder.iterdir()} == {*graphs, "tokens.txt", "bpe.model", "bpe.vocab", "README.md"}
    assert "**0.36 s of silence**" in (folder / "README.md").read_text()
    quantized = onnx.load(folder / "encoder.int8.onnx")
    assert {node.op_type for node in quantized.graph.node} & {"MatMul", "Gemm"} == set()  # the combiner's as well
    assert [version.domain for version in quantized.opset_import] == [""]
    assert read_metadata(folder / "encoder.int8.onnx") == read_metadata(folder / "encoder.onnx")


def test_one_folder_for_many_latencies(exported) -> None:
    """Each encoder is exact; a table in the README has all of them; its commands use the one nearest to 640 ms."""
    chunks = [ChunkConfig(8, 2), ChunkConfig(6, 2, 2), ChunkConfig(14, 2)]
    folder, model = exported("conformer", "onnx-streaming", *chunks), make_model("conformer")
    names = ["encoder-320", "encoder-240-80", "encoder-560"]
    assert {path.name for path in folder.glob("encoder*.onnx") if path.name.count(".") == 1} == {
        f"{name}.onnx" for name in names
    }
    audio = torch.stack([features(2.1).roll(7 * n, 0) for n in range(3)])  # (N, T, F)
    for name, chunk in zip(names, chunks, strict=True):
        module = StreamingEncoder(model, chunk)
        streamed = run_stream(
            load_onnx(folder / f"{name}.onnx"), audio, chunk, (module.summary_size, module.convolution_size)
        )
        whole = output_lengths(audio.size(1)) // chunk.chunk_size * chunk.chunk_size - chunk.chunk_size
        with torch.inference_mode():
            expected, _ = model.encoder(audio, torch.full((3,), audio.size(1)), chunk)
            expected = model.joiner.encoder_proj(expected)
        torch.testing.assert_close(streamed[:, :whole], expected[:, :whole], rtol=0, atol=1e-4)
    text = (folder / "README.md").read_text()
    rows = [line.split("|")[1:-1] for line in text.splitlines() if line.startswith("| `encoder")]
    assert [row[0].strip(" `") for row in rows] == [
        f"{name}{ending}" for name in ("encoder-240-80", "encoder-320", "encoder-560") for ending in ENDINGS.values()
    ]
    state = f"{StreamingEncoder(model, chunks[1]).state_bytes / 1024:.0f} KiB"
    assert [cell.strip() for cell in rows[0][1:]] == ["fp32", "240 ms", "80 ms", "358 ms", state]
    assert "--encoder=encoder-560.onnx" in text
    assert "**0.60 s of silence**" in text


def test_silence_that_sherpa_adds_is_too_short_for_some_encoders() -> None:
    """Look-ahead counts: a chunk of 640 ms with 160 ms ahead is one of 800 ms."""
    chunks = {"encoder-640": ChunkConfig(16, 4), "encoder-760": ChunkConfig(19, 4)}
    too_long = {"encoder-640-160": ChunkConfig(16, 4, 4), "encoder-1280": ChunkConfig(32, 4)}

    def text(chunks: dict[str, ChunkConfig]) -> str:
        files = [EncoderFile(name, "fp32", chunk, 100) for name, chunk in chunks.items()]
        return describe(About("a model", "onnx-streaming", files, FBANK))

    assert "0.8 s are too short" not in text(chunks)
    assert "; 0.8 s are too short for `encoder-640-160` and `encoder-1280`." in text(chunks | too_long)


def test_float16_is_near_and_half_as_large(exported) -> None:
    folder = exported("conformer", "onnx-streaming", RING)
    audio = features(3.0)[None]
    module = StreamingEncoder(make_model("conformer"), RING)
    sizes = module.summary_size, module.convolution_size
    endings = ENDINGS["fp32"], ENDINGS["fp16"]
    exact, rounded = (run_stream(load_onnx(folder / f"encoder{end}"), audio, RING, sizes) for end in endings)
    assert 0 < (exact - rounded).abs().max() / exact.abs().max() < 1e-2
    weights = []
    for end in endings:
        tensors = onnx.load(folder / f"joiner{end}").graph.initializer
        weights.append(sum(len(tensor.raw_data) for tensor in tensors))
    assert weights[1] < 0.6 * weights[0]


@pytest.mark.parametrize("name", ["encoder", "joiner"])
def test_int8_files_without_their_weights_are_found(exported, name: str, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    shutil.copytree(exported("conformer", "onnx-streaming", RING), folder)
    written = Export(make_model("conformer"), TOKENIZER, FBANK, "mini", 1, 0, "onnx-streaming", [RING], ["int8"])
    graphs = written.graphs()
    written.check(folder, graphs)
    path = folder / f"{name}.int8.onnx"
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.INT8 and tensor.raw_data:
            tensor.raw_data = bytes(len(tensor.raw_data))
    onnx.save(model, path)
    with pytest.raises(RuntimeError, match=f"the exported {name} in int8 and the model differ by .*--int8"):
        written.check(folder, graphs)


def test_decay_without_left_context(tmp_path: Path) -> None:
    """ONNX Runtime cannot open graphs with sums over an empty past."""
    model = make_model("conformer", decay_seconds=0.4)
    export(model, "onnx-streaming", [ChunkConfig(3, 0)], tmp_path / "out")  # is checked against the model


def test_float16_sums_of_hours_do_not_overflow(exported) -> None:
    folder, model = exported("conformer", "onnx", WHOLE), make_model("conformer")
    audio = features(3.0).repeat(1000, 1)[None]  # 50 minutes: 75 000 frames
    with torch.inference_mode():
        expected = model.joiner.encoder_proj(model.encoder(audio, torch.tensor([audio.size(1)]), WHOLE)[0])
    rounded, _ = load_onnx(folder / "encoder.fp16.onnx")(audio, torch.tensor([audio.size(1)]))
    assert expected.size(1) > torch.finfo(torch.float16).max
    assert (rounded[:, : expected.size(1)] - expected).abs().max() / expected.abs().max() < 1e-2


def test_torchscript_carries_the_metadata(exported) -> None:
    extra = {"d_model": "", "rnn_hidden_size": "", "T": ""}
    torch.jit.load(exported("conformer", "torchscript", SUM) / "encoder.pt", _extra_files=extra)
    assert {name: int(value) for name, value in extra.items()} == {"d_model": 34, "rnn_hidden_size": 96, "T": 19}


def test_what_cannot_be_exported_is_named(tmp_path: Path) -> None:
    def refused(format: str, chunk: ChunkConfig, message: str, *precisions: str, **changes) -> None:
        with pytest.raises((ValueError, FileExistsError), match=message):
            export(make_model(**({"encoder": "conformer"} | changes)), format, [chunk], tmp_path / "out", *precisions)
        assert not list(tmp_path.iterdir())

    for format, chunk in (("onnx-streaming", RING), ("onnx", WHOLE), ("torchscript", SUM)):
        refused(format, chunk, "predictor lstm cannot be exported.*--model.predictor stateless", predictor="lstm")
        refused(format, chunk, "self-attention cannot be exported", mode="attention")
    refused("torchscript", RING, "--int8 only applies to ONNX", "int8")
    refused("onnx-streaming", SUM, "--fp16 needs a limited left context", "fp16")
    refused("onnx", RING, "does not allow")
    refused("onnx-streaming", WHOLE, "does not allow")
    refused("torchscript", ChunkConfig(3), "nearest: 80 ms or 160 ms", encoder="zipformer", downsampling=(1, 4))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    with pytest.raises(FileExistsError, match=r"out is there already: choose another folder"):
        export(make_model("conformer"), "torchscript", [RING], tmp_path / "out")
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "mine"]


def test_a_wrong_file_is_found_and_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model("conformer")
    write = bundle.write_torchscript
    for name in ("encoder", "decoder"):

        def broken(graph: Graph, path: Path, name: str = name) -> None:
            shift = 1e-3 if graph.name == name else 0.0
            with torch.no_grad():
                for parameter in graph.module.parameters():
                    parameter += shift
                write(graph, path)
                for parameter in graph.module.parameters():
                    parameter -= shift

        monkeypatch.setattr(bundle, "write_torchscript", broken)
        with pytest.raises(RuntimeError, match=f"the exported {name} and the model differ by "):
            export(model, "torchscript", [RING], tmp_path / "out")
        assert not list(tmp_path.iterdir())


def test_a_state_that_is_not_carried_is_found() -> None:
    """The check of a stream is one of its states, and of every stream of a batch."""
    model = make_model("conformer")
    encoder, decoder, joiner = (graph.module for graph in streaming_graphs(model, [RING], ABOUT))

    def comparison(change) -> ExportCheck:
        functions = {
            "encoder": lambda *inputs: change(list(encoder(*inputs))),
            "decoder": lambda y: [decoder(y)],
            "joiner": lambda *inputs: [joiner(*inputs)],
        }
        return ExportCheck(model, functions)

    sizes = encoder.summary_size, encoder.convolution_size
    comparison(lambda outputs: outputs).streaming("encoder", RING, sizes)
    for changed in (1, 2):

        def forget(outputs: list[torch.Tensor], changed: int = changed) -> list[torch.Tensor]:
            outputs[changed][:, -1] = 0  # of the last stream
            return outputs

        with pytest.raises(RuntimeError, match="the exported encoder and the model differ"):
            comparison(forget).streaming("encoder", RING, sizes)


@pytest.mark.parametrize("left_chunks", [0, 1, 4, 9])
def test_a_stream_that_never_forgets_is_found(left_chunks: int) -> None:
    """Whatever its left context, a check has a chunk that no longer sees the first one."""
    model = make_model("conformer")
    graph = StreamingEncoder(model, SUM).eval()
    comparison = ExportCheck(model, {"encoder": lambda *inputs: list(graph(*inputs))})
    sizes = graph.summary_size, graph.convolution_size
    comparison.streaming("encoder", SUM, sizes)
    with pytest.raises(RuntimeError, match="the exported encoder and the model differ"):
        comparison.streaming("encoder", ChunkConfig(SUM.chunk_size, left_chunks), sizes)


def test_inputs_outputs_and_metadata_of_files_are_checked(exported, tmp_path: Path) -> None:
    path = exported("conformer", "onnx", WHOLE) / "decoder.onnx"
    [_, decoder, _] = offline_graphs(make_model("conformer"), {})
    check_file(decoder, path)

    def changed(change) -> None:
        model = onnx.load(path)
        change(model)
        onnx.save(model, tmp_path / "decoder.onnx")
        check_file(decoder, tmp_path / "decoder.onnx")

    def static(model) -> None:
        model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2

    def rename(model) -> None:
        model.graph.output[0].name = model.graph.node[-1].output[0] = "out"

    def newer(model) -> None:
        model.ir_version = 11

    with pytest.raises(RuntimeError, match=r"y is int64 \[2, 2\], expected int64 \['N', 2\]"):
        changed(static)
    with pytest.raises(RuntimeError, match=r"has the inputs and outputs .*'out'.*, expected"):
        changed(rename)
    with pytest.raises(RuntimeError, match=r"lacks the metadata .*'context_size': '2'"):
        changed(lambda model: model.ClearField("metadata_props"))
    with pytest.raises(RuntimeError, match="has IR version 11"):
        changed(newer)


def test_tokens_that_look_like_bytes() -> None:
    """Measured with sherpa-onnx 2.0.1: the highest byte is 0xC6, that of the letters U+0180 to U+01BF."""
    assert not taken_for_bytes(TOKENIZER.tokens)
    assert not taken_for_bytes(["<blk>", "\u2581caf\u00e9", "\u2581"])
    assert taken_for_bytes(["<blk>", "\u2581ab\u0181", "c"])
    assert not taken_for_bytes(["<blk>", "\u2581ab\u0181", "\u4f60"])

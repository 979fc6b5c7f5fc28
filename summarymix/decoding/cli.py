"""The command line of every recipe's ``decode.py``."""

import argparse
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path

import torch

from summarymix.chunking import CHUNK_MS, ChunkConfig
from summarymix.cli import above_zero, add_epoch_options, clear_errors, dashed, say
from summarymix.data.evaluation_data import EvalData
from summarymix.data.features import latency_ms
from summarymix.data.skipped import SkippedItems
from summarymix.decoding.delays import DelaySummary
from summarymix.decoding.evaluate import (
    TIE,
    Decoded,
    DecodeSetting,
    decoding_differences,
    stream_state_bytes,
)
from summarymix.decoding.exported import describe_measured, exported_settings
from summarymix.decoding.job import DecodeJob, check_writable, decode_together, open_split, prepare, say_once
from summarymix.decoding.methods import SearchOptions
from summarymix.decoding.selection import AVERAGES, select
from summarymix.decoding.words import write_ctm, write_hyps
from summarymix.distributed import World, join_world
from summarymix.export.onnx_transducer import OnnxTransducer
from summarymix.runs import choose_epoch, load_model
from summarymix.scoring.errors import (
    ErrorStats,
    error_rates,
    read_recogs,
    write_errs,
    write_nbest,
    write_recogs,
)
from summarymix.scoring.metrics import METRICS, choose_metric
from summarymix.scoring.results import Result, append_result, read_results, render_table
from summarymix.version import commit

EPILOG = """examples:
  ./decode.py --select                                     choose (epoch, avg) on the dev splits
  ./decode.py --mode offline streaming --chunk-ms 640 320  decode with the selected checkpoint
  ./decode.py --method modified_beam_search --nbest 5      beam search, with the five best hypotheses
  ./decode.py --compare --chunk-ms 640 --left-chunks 4     compare simulated and streaming by utterance
  ./decode.py --table                                      all results so far"""

OF_ICEFALL = {
    "--chunk-size": "chunk sizes are given in milliseconds: --chunk-ms",
    "--left-context-frames": "the left context is given in chunks: --left-chunks",
    "--iter": "only epochs can be averaged and decoded: --epoch; transcribe.py takes a checkpoint within an epoch",
}
"""Options of icefall's decode.py, and what takes their place here."""

FILES = """Writes for each split and mode, into EXP/METHOD:
  recogs-*.txt   references and hypotheses     hyps-*.jsonl  tokens and words with times and confidences
  errs-*.txt     errors                        ctm-*.ctm     words in NIST's CTM format, for scoring tools"""


@clear_errors("decode.py")
def main(recipe: str, argv: Sequence[str] | None = None, splits: Sequence[str] = ("test",)) -> None:
    """Run ``decode.py`` in the recipe's folder: decode, select, compare or tabulate.

    Under ``torchrun --nproc-per-node 4 decode.py …`` the processes share the batches, each on its GPU. The first one
    writes the files that a single process would write, and prints.

    Args:
        recipe: name of the corpus.
        argv: arguments without the program's name; None for ``sys.argv``.
        splits: default of ``--splits``.

    Raises:
        SystemExit: 2 on a wrong option, 1 if something is missing or ``--compare`` finds a difference.
    """
    parser = _make_parser(recipe, splits)
    arguments = sys.argv[1:] if argv is None else argv
    args, unknown = parser.parse_known_args([dashed(argument) for argument in arguments])
    if unknown:
        hints = [hint for option, hint in OF_ICEFALL.items() if any(a.split("=")[0] == option for a in unknown)]
        parser.error("; ".join([f"unrecognized arguments: {' '.join(unknown)}", *hints]))
    args.command = shlex.join(["./decode.py", *arguments])
    try:
        args.search = SearchOptions.from_args(args)
        settings = _settings(args)
    except ValueError as error:
        parser.error(str(error))
    if args.table:
        _print_table(args)
        return
    with join_world(args.device) as world:
        if args.select:
            select(recipe, world, args, settings)
        else:
            _decode(recipe, world, args, settings)


def _make_parser(recipe: str, splits: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=f"Decode with a model of the recipe {recipe}. Reads its checkpoints and manifests.\n{FILES}",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    modes = ["offline", "simulated", "streaming"]
    option = parser.add_argument
    option("--exp-dir", type=Path, default=Path("exp"), help="folder of the training run (exp)")
    add_epoch_options(parser)
    option("--mode", nargs="+", choices=modes, help="decoding modes (offline; see --select and --compare)")
    option("--chunk-ms", nargs="+", type=int, help=f"chunk sizes, multiples of 40 ms ({CHUNK_MS})")
    option("--left-chunks", nargs="+", type=int, help="left contexts in chunks, -1: unlimited (-1)")
    option("--lookahead-ms", nargs="+", type=int, help="look-aheads behind a chunk, multiples of 40 ms (0)")
    option(
        "--splits",
        nargs="+",
        help=f"splits to decode, of another corpus SPLIT@PREFIX ({' '.join(splits)}; --select: dev)",
    )
    option(
        "--metric", choices=METRICS, help="error rate to report, and to --select by (by the script of the transcripts)"
    )
    option("--max-duration", type=above_zero(float), default=200.0, help="maximum seconds of audio in a batch (200)")
    option(
        "--num-streams", type=above_zero(int), default=16, help="streaming: number of streams decoded in parallel (16)"
    )
    option("--manifest-dir", help="folder of the manifests, if they have moved since training")
    option(
        "--onnx",
        type=Path,
        help="decode with all encoders of this folder of export.py, and add the results to its README",
    )
    option("--int8", action="store_true", help="with --onnx: use the files with int8 weights")
    option("--fp16", action="store_true", help="with --onnx: use the files in float16")
    option("--device", help="cpu, cuda, cuda:1, … (a GPU if there is one)")
    actions = parser.add_mutually_exclusive_group()
    actions.add_argument(
        "--select",
        action="store_true",
        help="try several (epoch, avg) on the dev splits (default --mode: offline simulated) and write the best to "
        "EXP/selected.json, which later calls without --epoch and --avg use",
    )
    actions.add_argument(
        "--compare",
        action="store_true",
        help="also list the utterances in which simulated and streaming differ (default --mode: both); the exit status "
        f"is 1 if a difference is not a tie (margin below {TIE:g})",
    )
    actions.add_argument(
        "--table", choices=["terminal", "markdown"], nargs="?", const="terminal", help="print all results so far"
    )
    option("--epochs", nargs="+", type=int, help="--select: epochs to try (the last one)")
    option("--avgs", nargs="+", type=int, help=f"--select: averages to try ({' '.join(map(str, AVERAGES))})")
    SearchOptions.add_to(parser, nbest=True)
    parser.set_defaults(default_splits=list(splits))
    return parser


def _settings(args: argparse.Namespace) -> list[DecodeSetting]:
    """Return every mode with every chunk size and left context, offline once; no setting for exported models."""
    modes = args.mode
    if args.select and (args.epoch, args.avg) != (None, None):
        raise ValueError("--select tries several: give --epochs and --avgs, not --epoch and --avg")
    if not args.select and (args.epochs, args.avgs) != (None, None):
        raise ValueError("--epochs and --avgs are for --select: give --epoch and --avg")
    if args.onnx is not None:
        given = modes, args.epoch, args.avg, args.chunk_ms, args.left_chunks, args.lookahead_ms
        if args.compare or args.select or given != (None,) * len(given):
            raise ValueError(
                "--onnx uses the modes and the epoch of its files: leave out --mode, --epoch, --avg, --select, "
                "--compare, --chunk-ms, --left-chunks, --lookahead-ms"
            )
        if args.device not in (None, "cpu"):
            raise ValueError(f"--device {args.device}: exported models run on the CPU: leave it out")
        if args.int8 and args.fp16:
            raise ValueError("--int8 and --fp16 are different files: decode twice")
        return []
    if args.int8 or args.fp16:
        raise ValueError(f"--{'int8' if args.int8 else 'fp16'} only applies to exported models: pass --onnx DIR")
    if modes is None:
        modes = ["offline", "simulated"] if args.select else ["simulated", "streaming"] if args.compare else ["offline"]
    of_chunks = {"--chunk-ms": args.chunk_ms, "--left-chunks": args.left_chunks}
    of_chunks["--lookahead-ms"] = [ms for ms in args.lookahead_ms or [] if ms > 0]
    if set(modes) == {"offline"} and (unused := [name for name, values in of_chunks.items() if values]):
        raise ValueError(f"{unused[0]} is for chunks: add --mode simulated or streaming")
    if args.compare and not {"simulated", "streaming"} <= set(modes):
        raise ValueError("--compare needs both modes: --mode simulated streaming")
    values = product(args.chunk_ms or [CHUNK_MS], args.left_chunks or [-1], args.lookahead_ms or [0])
    chunks = [ChunkConfig.from_ms(*each) for each in values]
    settings = []
    # Offline first, because other results are compared with it.
    for mode in sorted(dict.fromkeys(modes), key=lambda mode: mode != "offline"):
        settings += [DecodeSetting(mode, chunk) for chunk in ([ChunkConfig()] if mode == "offline" else chunks)]
    return list(dict.fromkeys(settings))


def _decode(recipe: str, world: World, args: argparse.Namespace, settings: list[DecodeSetting]) -> None:
    exported = None
    if args.onnx is not None:
        exported = OnnxTransducer(args.onnx, "int8" if args.int8 else "fp16" if args.fp16 else "fp32", recipe)
        args.epoch, args.avg = exported.epoch, exported.avg
        settings = exported_settings(exported)
    epoch, avg, reason = choose_epoch(args.exp_dir, args.epoch, args.avg)
    run = load_model(args.exp_dir, epoch, avg, recipe)
    job = prepare(recipe, world, args, settings, run, exported)
    splits = {split: open_split(job, split) for split in args.splits or args.default_splits}
    for split, data in splits.items():
        if data.coverage.unwritable:
            say_once(world, f"Warning: {split}: the model's tokens cannot write {data.coverage}. They count as errors")
    info = job.info
    if reason:
        say_once(world, reason)
    about = f"epoch {info['epoch']}, avg {info['avg']}, {info['parameters'] / 1e6:.1f} M parameters"
    say_once(world, f"{args.exp_dir}: {about}")
    check_writable(args.exp_dir / job.method, args.exp_dir / "results.jsonl")
    results = []
    different = 0
    for split, data in splits.items():
        by_setting = {}
        for setting in settings:
            by_setting[setting] = decoded = decode_together(job, setting, split, data)
            if world.is_main:
                results.append(_write(job, setting, split, decoded, data))
        if not world.is_main:
            continue
        skipped = SkippedItems(decoded.skipped)
        path = args.exp_dir / args.method / f"skipped-{split}.tsv"
        path.unlink(missing_ok=True)
        if len(skipped):
            skipped.write(path)
            say(f"{split}: {skipped.summary()}; listed in {path}")
        if args.compare:
            different += _compare(job, split, by_setting)
    if world.is_main:
        print(render_table(results))
        _print_places(args.exp_dir, results)
        if exported is not None:
            print(describe_measured(exported, args.exp_dir / "results.jsonl"))
    if different:
        sys.exit(1)


def _write(job: DecodeJob, setting: DecodeSetting, split: str, decoded: Decoded, data: EvalData) -> Result:
    """Score a decoded split, write its reports, and append its line to results.jsonl."""
    utterances = decoded.utterances(job.tokenizer, data.durations)
    metric = job.args.metric or choose_metric(data.texts)
    stats, rates = ErrorStats.from_utterances(utterances, metric), error_rates(utterances)
    device = job.search.model.device
    epoch, avg = job.info["epoch"], job.info["avg"]
    exp_dir, chunk = job.args.exp_dir, setting.chunk
    options = job.args.search.label
    name = f"{split}-{setting.name}-epoch-{epoch}-avg-{avg}{options and '-'}{options}"
    delays = DelaySummary.of(decoded.delays.values())
    result = Result(
        recipe=job.recipe,
        split=split,
        mode=setting.mode,
        method=job.method,
        search_options=options,
        chunk_ms=chunk.chunk_ms,
        left_chunks=chunk.left_chunks,
        lookahead_ms=chunk.lookahead_ms,
        epoch=epoch,
        avg=avg,
        wer=rates["wer"],
        cer=rates["cer"],
        mer=rates["mer"],
        metric=metric,
        units=stats.units,
        words=sum(len(utterance.ref) for utterance in utterances),
        insertions=stats.insertions.total(),
        deletions=stats.deletions.total(),
        substitutions=stats.substitutions.total(),
        no_speech=stats.no_speech,
        no_speech_seconds=stats.no_speech_seconds,
        no_speech_insertions=stats.no_speech_insertions,
        utterances=len(utterances),
        skipped=len(decoded.skipped),
        rtf=decoded.computing / decoded.audio,
        parameters=job.info["parameters"],
        commit=commit(),
        seconds=decoded.audio,
        latency_ms=latency_ms(chunk, job.data.fbank_options()),
        state_bytes=stream_state_bytes(job.search, chunk),
        num_streams=job.args.num_streams if setting.mode == "streaming" else None,
        threads=torch.get_num_threads(),
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        recogs=f"{job.method}/recogs-{name}.txt",
        errs=f"{job.method}/errs-{name}.txt",
        hyps=f"{job.method}/hyps-{name}.jsonl",
        ctm=f"{job.method}/ctm-{name}.ctm",
        command=job.args.command,
        interval=stats.interval(),
        model=job.digest,
        **asdict(delays),
    )
    write_recogs(exp_dir / result.recogs, utterances)
    write_errs(exp_dir / result.errs, stats, rates)
    result.above_offline = _above_offline(exp_dir, result, stats)
    transcripts = decoded.transcripts(job.tokenizer, data.durations)
    write_hyps(exp_dir / result.hyps, transcripts)
    write_ctm(exp_dir / result.ctm, transcripts)
    if job.args.search.nbest:
        write_nbest(exp_dir / job.method / f"nbest-{name}.txt", decoded.nbest(job.tokenizer))
    append_result(exp_dir / "results.jsonl", result)
    _say_result(f"[{split}, {setting.name}]", result, stats, delays)
    return result


def _say_result(title: str, result: Result, stats: ErrorStats, delays: DelaySummary) -> None:
    """Print the result's error rate, interval and delays on stderr."""
    interval = "" if result.interval is None else ", 95 % interval {:.2f} to {:.2f}".format(*result.interval)
    say(f"{title} {stats}{interval}, RTF {result.rtf:.4f}")
    if stats.no_speech:
        say(f"{title} {stats.without_speech()}")
    if result.above_offline is not None:
        say(f"{title} {{:+.2f}} [{{:+.2f}}, {{:+.2f}}] points against offline".format(*result.above_offline))
    if delays.final_ms is not None:
        say(f"{title} {delays}")


def _above_offline(exp_dir: Path, result: Result, stats: ErrorStats) -> list[float] | None:
    """Difference in error rate from the newest offline result of the same model and search, with its 95 % interval."""
    path = exp_dir / "results.jsonl"
    if result.mode == "offline" or not path.exists():
        return None
    key = replace(result, mode="offline", chunk_ms=None, left_chunks=-1, lookahead_ms=0).setting
    for offline in read_results(path):
        if offline.setting == key and offline.model == result.model and (exp_dir / offline.recogs).is_file():
            baseline = ErrorStats.from_utterances(read_recogs(exp_dir / offline.recogs), result.metric)
            return stats.above(baseline)
    return None


def _compare(job: DecodeJob, split: str, by_setting: dict[DecodeSetting, Decoded]) -> int:
    """Print the differences between streaming and simulated, and return the number that are not ties."""
    unexplained = 0
    for setting, streamed in by_setting.items():
        if setting.mode != "streaming":
            continue
        simulated = by_setting[DecodeSetting("simulated", setting.chunk)]
        found = decoding_differences(simulated.hypotheses, streamed.hypotheses)
        ties = sum(difference.is_tie for difference in found)
        unexplained += len(found) - ties
        print(
            f"{split}, {setting.chunk}: simulated and streaming are identical in "
            f"{len(streamed.hypotheses) - len(found)} of {len(streamed.hypotheses)} utterances, {ties} are ties"
        )
        for difference in found:
            print(
                f"  {difference.cut_id}: from frame {difference.frame} on, "
                f"{'a tie' if difference.is_tie else 'NOT A TIE'}, margin {difference.margin:.2g}"
            )
            for mode, decoded in (("simulated", simulated), ("streaming", streamed)):
                print(f"    {mode}: {job.tokenizer.decode(decoded.hypotheses[difference.cut_id].tokens)}")
    return unexplained


def _print_table(args: argparse.Namespace) -> None:
    path = args.exp_dir / "results.jsonl"
    if not path.is_file():
        raise FileNotFoundError(f"no {path}: decode first, or correct --exp-dir")
    results = read_results(path)
    print(render_table(results, markdown=args.table == "markdown"))
    _print_places(args.exp_dir, results)


def _print_places(exp_dir: Path, results: list[Result]) -> None:
    """Print the folders of the results' files."""
    print()
    for folder in sorted({exp_dir / Path(result.recogs).parent for result in results}):
        print(f"{folder}: hypotheses recogs-*.txt, errors errs-*.txt, times and confidences hyps-*.jsonl, words *.ctm")

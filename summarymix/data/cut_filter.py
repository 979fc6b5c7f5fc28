"""Filter for unusable cuts: too short, too long, or with a transcript that does not fit."""

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from lhotse.cut import Cut
from numpy.typing import NDArray

from summarymix.data.config import DataConfig
from summarymix.data.cuts import IF_NO_SPEECH, has_no_speech, skipped_cut, transcript
from summarymix.data.skipped import Skipped
from summarymix.data.tokens import Tokenizer

REASONS = (
    "",
    "too short",
    "too long",
    "too short for the encoder",
    "empty transcript",
    "unknown characters",
    "too short for its tokens",
)
"""Reasons to exclude a cut from training, in the order of the checks."""


class CutProblems:
    """Finds the problem of a cut from its manifest, without loading data."""

    def __init__(self, config: DataConfig, tokenizer: Tokenizer, output_lengths: Callable[[Any], Any]) -> None:
        """
        Args:
            config: duration limits and feature options.
            tokenizer: turns transcripts into token ids.
            output_lengths: number of encoder frames for a number of feature frames, or for a tensor of them.
        """
        self._config = config
        self._tokenizer = tokenizer
        self._output_lengths = output_lengths

    def for_training_by_size(
        self, seconds: NDArray[Any], frames: NDArray[Any], tokens: NDArray[Any], needed: NDArray[Any]
    ) -> NDArray[np.uint8]:
        """The problems that exclude cuts from training, as :meth:`for_training`, from columns of an index.

        Returns:
            For each cut the number of its reason in REASONS; 0 for a cut without problem.
        """
        encoder_frames = self._output_lengths(torch.from_numpy(self._config.frames(seconds, frames))).numpy()
        problems = [
            seconds < self._config.min_seconds,
            seconds > self._config.max_seconds,
            encoder_frames < 1,
            tokens < 0,
            needed < 0,
            encoder_frames < needed,
        ]
        return np.select(problems, [np.uint8(i + 1) for i in range(len(problems))], np.uint8(0))

    def for_training(self, cut: Cut) -> Skipped | None:
        """The problem that excludes this cut from training, or None."""
        seconds = f"{cut.duration:.2f} s"
        if cut.duration < self._config.min_seconds:
            return skipped_cut(cut, "too short", seconds, "lower --data.min_seconds to use it")
        if cut.duration > self._config.max_seconds:
            return skipped_cut(cut, "too long", seconds, "raise --data.max_seconds, or segment the recording")
        return self.for_loss(cut)

    def for_loss(self, cut: Cut) -> Skipped | None:
        """The problem that leaves this cut's loss undefined, or None."""
        frames = self._encoder_frames(cut)
        return self._no_encoder_frame(cut, frames) or self._transcript_problem(cut, frames)

    def for_decoding(self, cut: Cut) -> Skipped | None:
        """The problem that prevents recognition of this cut, or leaves nothing to compare with, or None."""
        if problem := self._no_encoder_frame(cut, self._encoder_frames(cut)):
            return problem
        # An empty transcript says that nothing is spoken, a missing one says nothing.
        if any(supervision.text is not None for supervision in cut.supervisions):
            return None
        return self._no_transcript(cut)

    def _encoder_frames(self, cut: Cut) -> int:
        return self._output_lengths(self._config.num_frames(cut))

    def _no_encoder_frame(self, cut: Cut, frames: int) -> Skipped | None:
        if frames >= 1:
            return None
        detail = f"{self._config.num_frames(cut)} feature frames give no encoder frame"
        return skipped_cut(cut, "too short for the encoder", detail, "use longer audio")

    def _no_transcript(self, cut: Cut) -> Skipped | None:
        if has_no_speech(cut):
            return None
        remedy = f"add the transcript, or remove the utterance; {IF_NO_SPEECH}"
        return skipped_cut(cut, "empty transcript", "", remedy)

    def _transcript_problem(self, cut: Cut, frames: int) -> Skipped | None:
        text = transcript(cut, self._tokenizer)
        tokens = self._tokenizer.encode(text)
        if not tokens:
            return self._no_transcript(cut)
        if self._tokenizer.unk_id in tokens:
            unknown = " ".join(f"{c!r}" for c in self._tokenizer.unknown_characters(text))
            detail, remedy = f"{unknown} in {text!r}", "normalise the transcript, or train the tokens again"
            return skipped_cut(cut, "unknown characters", detail, remedy)
        needed = ctc_frames_needed(tokens)
        if frames < needed:
            return skipped_cut(
                cut,
                "too short for its tokens",
                f"{len(tokens)} tokens need {needed} encoder frames, {cut.duration:.2f} s give {frames}: {text!r}",
                "check that transcript and audio belong together, or use larger tokens or --data.tail_frames",
            )
        return None


def ctc_frames_needed(tokens: list[int]) -> int:
    """Fewest encoder frames that CTC needs: one per token, and one blank between equal neighbours."""
    return max(len(tokens) + sum(map(operator.eq, tokens, tokens[1:])), 1)

"""The chunks that a chunk sees: sums over them, and those that a state keeps.

A run has K chunks, which follow the chunks in its state. Chunks see themselves and L chunks of left context, or all
earlier ones if ``left_chunks`` is -1. Sums take time linear in K, with decay K log K.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from summarymix.chunking import left_context


def append_chunks(past: Tensor, new: Tensor, left_chunks: int) -> tuple[Tensor, Tensor]:
    """Append a run's chunks to those in its state, oldest first.

    Args:
        past: (N, P, …), the last P chunks.
        new: (N, K, …), the chunks of the run.
        left_chunks: left context.

    Returns:
        Both in one row (N, P + K, …), and the part that the next run may see: the last max(P, L) chunks, or all with
        unlimited left context.
    """
    row = torch.cat([past, new.to(past.dtype)], dim=1)
    return row, row if left_chunks < 0 else last_chunks(row, left_context(past.size(1), left_chunks))


def sum_seen(past: Tensor, new: Tensor, left_chunks: int, decay: float = 1.0) -> tuple[Tensor, Tensor]:
    """Sum over the chunks that each chunk sees; a chunk i places further left has weight decay^i.

    Args:
        past: from the state: one sum (N, D) over all earlier chunks or, with limited left context, the sums (N, P, D)
            of the last P chunks, see :func:`append_chunks`; with weights relative to the last of them.
        new: sums of the run's chunks, (N, K, D).
        left_chunks: left context, if ``past`` has sums of chunks.
        decay: weight of a chunk relative to the next one.

    Returns:
        The sums (N, K, D), and ``past`` for the next run.
    """
    if past.dim() == 2:
        row = torch.cat([past[:, None], new], dim=1)  # (N, 1 + K, D)
        total = (row.cumsum(1) if decay == 1.0 else decayed_sum(row, row.size(1), decay))[:, 1:]
        return total, total[:, -1]
    left = left_context(past.size(1), left_chunks)
    if decay != 1.0 and left > 0:
        total, row = decayed_run(past, new, left, decay)
        return total, last_chunks(row, left)
    row, kept = append_chunks(past, new, left_chunks)
    total = sliding_sum(row, left + 1) if left + 1 < row.size(1) else row.cumsum(1)
    return total[:, past.size(1) :], kept


def last_chunks(row: Tensor, count: int) -> Tensor:
    """Return the last ``count`` chunks of a row (N, K, …), or all if there are fewer."""
    return row[:, max(row.size(1) - count, 0) :]


def sliding_sum(x: Tensor, width: int) -> Tensor:
    """y[:, k] = x[:, k-width+1] + … + x[:, k], terms before the start being zero: (N, K, D) to (N, K, D), in O(K).

    A difference of two prefix sums would lose digits as the prefix grows. Instead, as in van Herk's running
    maximum, K is cut into blocks of ``width``; a window is a suffix of one block plus a prefix of the next, so
    only terms inside the window are ever added.
    """
    num_chunks = x.size(1)
    blocks = -(-num_chunks // width)
    x = F.pad(x, (0, 0, 0, blocks * width - num_chunks)).unflatten(1, (blocks, width))  # (N, B, W, D)
    prefix = x.cumsum(2)
    # Contribution of the previous block to position j: its terms j+1 … W-1.
    suffix = x[:, :-1, 1:].flip(2).cumsum(2).flip(2)  # (N, B-1, W-1, D)
    return (prefix + F.pad(suffix, (0, 0, 0, 1, 1, 0))).flatten(1, 2)[:, :num_chunks]


def decayed_sum(x: Tensor, width: int, decay: float) -> Tensor:
    """y[:, k] = x[:, k] + decay·x[:, k-1] + … + decay^(width-1)·x[:, k-width+1]: (N, K, D) to (N, K, D), in O(K log K).

    Terms before the start are zero. Windows of 1, 2, 4 … terms are each the sum of two windows of half the width; the
    binary digits of ``width`` select the windows that make up the result. Only terms inside the window are ever added;
    none is subtracted or amplified, and a power that underflows belongs to a negligible term.
    """

    def earlier(y: Tensor, chunks: int) -> Tensor:
        """Delay ``y`` by ``chunks`` and decay it accordingly."""
        return F.pad(y[:, : y.size(1) - chunks], (0, 0, chunks, 0)) * decay**chunks

    total, window, done, size = torch.zeros_like(x), x, 0, 1  # sums of ``done`` terms and of ``size`` terms
    while size <= width:
        if width & size:
            total = total + earlier(window, done)
            done += size
        if done < width:
            window = window + earlier(window, size)
        size *= 2
    return total


def decayed_run(past: Tensor, new: Tensor, left: int, decay: float) -> tuple[Tensor, Tensor]:
    """Compute decayed sums over each of K chunks and the ``left`` chunks before it.

    Args:
        past: sums of the P ≤ ``left`` earlier chunks, oldest first, weighted relative to the last of them: (N, P, D).
        new: sums of the K chunks, (N, K, D).
        left: chunks of left context.
        decay: weight of a chunk relative to the next one.

    Returns:
        The decayed sums (N, K, D), and the sums of all P + K chunks, weighted relative to the last one.
    """
    (num_past, num_new), ages = (past.size(1), new.size(1)), torch.arange(new.size(1), device=new.device)
    total = decayed_sum(new, min(left + 1, num_new), decay)
    # Chunk k sees the past from index P - left + k on; beyond the end, the suffix is zero.
    suffixes = F.pad(past.flip(1).cumsum(1).flip(1), (0, 0, 0, 1))  # (N, P + 1, D)
    first = (num_past - left + ages).clamp(0, num_past)  # (K,)
    powers = (decay ** ages.to(new.dtype))[:, None]  # (K, 1)
    total = total + suffixes[:, first] * powers * decay
    return total, torch.cat([past * decay**num_new, new * powers.flip(0)], dim=1)

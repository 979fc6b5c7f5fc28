"""Pruning of the lattice to the contexts for which the joiner is evaluated (arXiv 2206.13236, section 3.2)."""

import torch
from torch import Tensor


def prune_ranges(px_grad: Tensor, py_grad: Tensor, boundary: Tensor, s_range: int) -> Tensor:
    """Find the window of contexts with the largest occupation at every frame.

    For arguments and result see `summarymix.loss.get_rnnt_prune_ranges`.
    """
    B, S, px_frames = px_grad.shape
    T = py_grad.shape[2]
    regular = px_frames == T + 1
    if py_grad.shape != (B, S + 1, T) or px_frames not in (T, T + 1):
        raise ValueError(
            f"py_grad {tuple(py_grad.shape)} does not fit px_grad {tuple(px_grad.shape)}: expected (B, S+1, T) "
            "with (B, S, T+1) in the regular lattice and (B, S, T) in the others"
        )
    if boundary.shape != (B, 4):
        raise ValueError(f"boundary must be of shape {(B, 4)}, not {tuple(boundary.shape)}")
    least = 2 if regular else 1
    if s_range < least and s_range <= S:
        raise ValueError(f"s_range must be at least {least} or no path survives the pruning; got {s_range}")

    if regular:
        # From frame to frame a window moves by less than its width, so few frames need wide windows.
        most = (boundary[:, 2] - 1).div(boundary[:, 3].clamp(min=1), rounding_mode="trunc").max().item()
        s_range = max(s_range, int(most) + 2)
    s_range = min(s_range, S + 1)
    boundary = boundary.to(py_grad.device, non_blocking=True)
    s_end, t_end = boundary[:, 2:3], boundary[:, 3:4]  # (B, 1)

    # A window's score at a frame: the occupation of blanks inside the window, minus the occupation that enters the
    # window from the context below at this frame. In the regular lattice blanks alone leave a frame.
    score = py_grad.unfold(1, s_range, 1).sum(3)  # (B, S+2-s_range, T)
    score[:, 1:] -= px_grad[:, : S + 1 - s_range, :T]
    # Later windows exist because another transcript is longer. Their first contexts could win with the last blanks.
    last = (s_end - s_range + 1).clamp(min=0)  # (B, 1)
    is_later = torch.arange(score.size(1), device=score.device) > last  # (B, S+2-s_range)
    start = score.masked_fill(is_later[:, :, None], -torch.inf).argmax(1)  # (B, T)

    frame = torch.arange(T, device=start.device)  # (T,)
    start = torch.where(frame < t_end - 1, start, last)

    # Windows never move back, move by at most `jump` so that some path leads through all of them, and the
    # first starts at context 0.
    jump = s_range - 1 if regular else 1
    reach = jump * frame  # (T,)
    start = start.flip(1).cummin(1).values  # (B, T), time reversed
    start = (start - reach.flip(0)).cummax(1).values.flip(1) + reach
    start = start.minimum(reach)
    return start[:, :, None] + torch.arange(s_range, device=start.device)  # (B, T, s_range)


def prune(am: Tensor, lm: Tensor, ranges: Tensor) -> tuple[Tensor, Tensor]:
    """Gather the joiner's inputs; for arguments and result see `summarymix.loss.do_rnnt_pruning`."""
    B, T, r = ranges.shape
    if am.shape[:2] != (B, T) or lm.shape[0] != B:
        raise ValueError(
            f"ranges {tuple(ranges.shape)} does not fit am {tuple(am.shape)} and lm {tuple(lm.shape)}: "
            "expected (B, T, s_range), (B, T, encoder_dim) and (B, S+1, decoder_dim)"
        )
    am_pruned = am[:, :, None].expand(B, T, r, am.shape[2])
    # Looked up as rows of one table, because the gradient of an embedding is by far the fastest.
    first_row = lm.shape[1] * torch.arange(B, device=lm.device)[:, None, None]  # (B, 1, 1)
    lm_pruned = torch.nn.functional.embedding(ranges + first_row, lm.flatten(0, 1))  # (B, T, r, D)
    return am_pruned, lm_pruned

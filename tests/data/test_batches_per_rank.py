from collections import Counter

import pytest
from batch_cases import ids, train_data

from summarymix.data.tokens import Tokenizer


@pytest.mark.parametrize("world_size", [2, 3, 7, 40])
@pytest.mark.parametrize("max_duration", [3.5, 8.0, 1000.0])
def test_ranks_share_an_epoch(world_size: int, max_duration: float, prepare, tokenizer: Tokenizer) -> None:
    """No cut twice, none lost, and as many batches on each rank; what one process does is only dealt out."""
    data = train_data(prepare(), tokenizer, max_duration=max_duration)
    alone = ids(data.epoch(0))
    ranks = [ids(data.epoch(0, rank, world_size)) for rank in range(world_size)]
    assert len({len(batches) for batches in ranks}) == 1
    assert all(batch for batches in ranks for batch in batches)
    dealt = [cut_id for batches in ranks for batch in batches for cut_id in batch]
    assert Counter(dealt) == Counter(cut_id for batch in alone for cut_id in batch)
    assert len(dealt) == 40
    for step in range(len(alone) // world_size - 1):
        assert [batches[step] for batches in ranks] == alone[step * world_size : (step + 1) * world_size]


def test_more_ranks_than_cuts(prepare, tokenizer: Tokenizer) -> None:
    data = train_data(prepare(count=3), tokenizer)
    with pytest.raises(ValueError, match="3 training cuts cannot be shared among 4 processes"):
        next(data.epoch(0, 0, 4))

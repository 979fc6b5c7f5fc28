import pytest
import torch

from summarymix.state import (
    flatten,
    kind_of,
    nest,
    pack_state,
    reset_slots,
    select_slots,
    state_bytes,
    unpack_state,
    write_slots,
)


def make_state(slots=3):
    return {
        "a.sum": torch.arange(slots * 4.0).view(slots, 4),
        "a.count": torch.ones(slots, 1),
        "b": torch.ones(slots, 2, 5),
    }


def test_slots_are_picked_written_and_reset_without_touching_others():
    state = make_state()
    part = select_slots(state, torch.tensor([2, 0]))
    assert torch.equal(part["a.sum"], torch.tensor([[8.0, 9, 10, 11], [0, 1, 2, 3]]))
    write_slots(state, torch.tensor([1]), {name: tensor[:1] + 100 for name, tensor in part.items()})
    assert torch.equal(state["a.sum"][1], torch.tensor([108.0, 109, 110, 111]))
    assert torch.equal(state["a.sum"][[0, 2]], make_state()["a.sum"][[0, 2]])
    reset_slots(state, torch.tensor([0, 1]))
    assert all(
        tensor[:2].eq(0).all() and torch.equal(tensor[2], make_state()[name][2]) for name, tensor in state.items()
    )


def test_bytes_are_those_of_one_slot():
    assert state_bytes(make_state()) == (4 + 1 + 10) * 4


def test_a_state_nests_by_module_and_back():
    state = make_state()
    tree = nest(state)
    assert tree.keys() == {"a", "b"}
    assert tree["a"].keys() == {"sum", "count"}
    assert flatten(tree) == state
    assert tree["none"] == {}
    assert tree["a"]["none"] == {}
    assert flatten(tree) == state


def test_a_packed_state_unpacks_to_itself_for_any_number_of_slots():
    state = make_state()
    packed = pack_state(state)
    assert packed.shape == (3, state_bytes(state) // 4)
    unpacked = unpack_state(packed, make_state(slots=1))
    assert unpacked.keys() == state.keys()
    assert all(torch.equal(unpacked[name], state[name]) for name in state)
    with pytest.raises(ValueError, match="14 numbers per stream; this encoder needs 15"):
        unpack_state(packed[:, 1:], state)


def test_kinds_sizes_and_other_numbers() -> None:
    names = [f"layers.0.{name}" for name in ("sum", "count", "cache", "key")]
    assert [kind_of(name) for name in names] == ["summaries", "summaries", "convolutions", "attention"]
    state = {"a": torch.zeros(2, 3, dtype=torch.float64)}
    assert state_bytes(state) == 24
    with pytest.raises(ValueError, match="4 numbers per stream; this encoder needs 3"):
        unpack_state(torch.zeros(2, 4), state)

"""Values that change with progress."""

import copy

import pytest
from torch import nn

from summarymix.blocks.scheduled import Schedulable, Scheduled, find_scheduled, set_progress


class Holder(nn.Module):
    def __init__(self, value: Schedulable = Scheduled((0, 1.0), (10, 0.0)), inner: nn.Module | None = None) -> None:  # noqa: B008 - to be shared
        super().__init__()
        self.value = value
        self.inner = inner


@pytest.mark.parametrize(
    ("batches", "expected"),
    [(-5, 0.9), (0, 0.9), (10, 0.9), (15, 0.55), (20, 0.2), (60, 0.6), (99, 0.99), (100, 1.0), (1e9, 1.0)],
)
def test_linear_between_the_points_and_constant_outside(batches: float, expected: float) -> None:
    value = Scheduled((10, 0.9), (20, 0.2), (100, 1.0))
    assert float(value.at(batches)) == pytest.approx(expected, abs=1e-12)
    assert float(value) == 0.9, "training stands at its beginning, and the value itself does not change"


def test_one_point_is_a_constant() -> None:
    value = Scheduled((100, 3))
    assert [float(value.at(batches)) for batches in (0, 100, 200)] == [3.0, 3.0, 3.0]


@pytest.mark.parametrize("points", [(), ((0, 1.0), (0, 2.0)), ((5, 1.0), (1, 2.0))])
def test_points_that_are_no_function_are_refused(points) -> None:
    with pytest.raises(ValueError, match="batches increasing"):
        Scheduled(*points)


def test_progress_reaches_nested_modules_and_leaves_numbers_alone() -> None:
    model = nn.Sequential(
        Holder(), nn.ModuleDict({"a": Holder(inner=Holder(Scheduled((0, 5.0), (2, 7.0))))}), Holder(0.3)
    )
    scheduled = find_scheduled(model)
    assert len(scheduled) == 3
    set_progress(scheduled, 1)
    assert float(model[0].value) == float(model[1]["a"].value) == pytest.approx(0.9)
    assert float(model[1]["a"].inner.value) == 6.0
    assert model[2].value == 0.3
    set_progress(scheduled, 0)
    assert float(model[0].value) == 1.0


def test_models_share_nothing_that_changes() -> None:
    """Not by a default argument, nor by copying."""
    first, second = Holder(), Holder()
    assert first.value is second.value
    third = copy.deepcopy(first)
    set_progress(find_scheduled(first), 5)
    assert [float(holder.value) for holder in (first, second, third)] == [0.5, 1.0, 1.0]
    fourth = copy.deepcopy(first)
    set_progress(find_scheduled(fourth), 10)
    assert [float(holder.value) for holder in (first, fourth)] == [0.5, 0.0]


def test_checkpoints_do_not_know_of_it() -> None:
    model = Holder(inner=nn.Linear(2, 2))
    set_progress(find_scheduled(model), 5)
    assert set(model.state_dict()) == {"inner.weight", "inner.bias"}

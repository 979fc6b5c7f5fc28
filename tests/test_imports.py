"""Imports point downwards only."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "summarymix"
BASE = {"chunking", "cli", "configs", "distributed", "files", "optional_k2", "seeding", "state", "version"}
MODEL = BASE | {"blocks", "encoder", "loss", "joiner", "predictor", "model"}
ALLOWED = {
    **dict.fromkeys(BASE, BASE),
    "blocks": BASE,
    "loss": BASE,
    "encoder": BASE | {"blocks"},
    "predictor": BASE,
    "joiner": BASE,
    "model": MODEL,
    "data": BASE | {"encoder"},
    "runs": MODEL | {"data"},
    "lm": MODEL | {"data", "runs"},
    "lm/rnn_training": MODEL | {"data", "runs", "lm", "training"},
    "scoring": BASE | {"data", "runs"},
    "export": MODEL | {"data", "runs"},
    "decoding": MODEL | {"data", "runs", "lm", "scoring", "export"},
    "training": MODEL | {"data", "runs", "lm", "scoring", "decoding"},
    "serving": BASE | {"decoding", "export"},
    "__init__": {"decoding"},
    "command": {"decoding", "export", "serving"},
}
"""What each module or package may import beside itself. Decoding takes exported models, and training decodes for
its validation; never the reverse."""


def part_of(path: Path) -> str:
    """A module or package of ``summarymix``; or a module within a package that has a rule of its own."""
    inside = path.relative_to(PACKAGE)
    module = inside.with_suffix("").as_posix()
    return module if module in ALLOWED else inside.parts[0].removesuffix(".py")


def imported_parts(path: Path) -> set[str]:
    """The parts of the library that a file imports, at the top or within functions."""
    found = set[str]()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            below = node.module == "summarymix"
            names = [f"summarymix.{alias.name}" for alias in node.names] if below else [node.module]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        inside = [PACKAGE / Path(*name.split(".")[1:]) for name in names if name.startswith("summarymix.")]
        found |= {part_of(module.with_suffix(".py")) for module in inside}
    return found


def test_every_part_is_listed() -> None:
    assert {part_of(path) for path in PACKAGE.rglob("*.py")} == set(ALLOWED)


@pytest.mark.parametrize("part", sorted(ALLOWED))
def test_imports_point_downwards(part: str) -> None:
    upwards = {
        f"{path.relative_to(PACKAGE)} imports {other}"
        for path in PACKAGE.rglob("*.py")
        if part_of(path) == part
        for other in imported_parts(path) - ALLOWED[part] - {part}
    }
    assert not upwards

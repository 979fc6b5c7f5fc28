"""The choice of a k2 build from a page of wheels."""

import importlib.util
from pathlib import Path

import pytest

_path = Path(__file__).parents[1] / "tools" / "install_k2.py"
_spec = importlib.util.spec_from_file_location("install_k2", _path)
assert _spec is not None
assert _spec.loader is not None
install_k2 = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(install_k2)

LINUX = "manylinux_2_17_x86_64.manylinux2014_x86_64"
WHEELS = [
    f"k2-1.24.4.dev20250307+cpu.torch2.6.0-cp311-cp311-{LINUX}.whl",
    f"k2-1.24.4.dev20250714+cpu.torch2.6.0-cp311-cp311-{LINUX}.whl",
    f"k2-1.24.4.dev20250715+cpu.torch2.6.0-cp312-cp312-{LINUX}.whl",
    "k2-1.24.4.dev20250716+cpu.torch2.6.0-cp311-cp311-win_amd64.whl",
    f"k2-1.24.4.dev20250717+cpu.torch2.7.1-cp311-cp311-{LINUX}.whl",
    f"k2-1.24.4.dev20250718+cuda12.6.torch2.6.0-cp311-cp311-{LINUX}.whl",
]
PAGE = "\n".join(f'<a href="https://example.org/resolve/main/{w.replace("+", "%2B")}">{w}</a><br/>' for w in WHEELS)


@pytest.mark.parametrize(
    ("torch_version", "cuda", "expected"),
    [
        ("2.6.0+cpu", None, "1.24.4.dev20250714+cpu.torch2.6.0"),
        ("2.6.0", None, "1.24.4.dev20250714+cpu.torch2.6.0"),
        ("2.7.1+cpu", None, "1.24.4.dev20250717+cpu.torch2.7.1"),
        ("2.6.0+cu126", "12.6", "1.24.4.dev20250718+cuda12.6.torch2.6.0"),
        ("2.6.0+cu124", "12.4", None),
        ("2.11.0+cpu", None, None),
    ],
)
def test_picks_the_newest_build_that_fits(torch_version, cuda, expected):
    build = install_k2.build_label(torch_version, cuda)
    tags = {"cp311-cp311-manylinux_2_17_x86_64", "cp311-abi3-linux_x86_64"}
    assert install_k2.newest_version(PAGE, build, tags) == expected

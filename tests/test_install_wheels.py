"""tools/install_k2.sh and install_kaldifeat.sh: which wheel they choose, and what they say when there is none."""

import os
import platform
import runpy
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

REPOSITORY = Path(__file__).parents[1]
wheel_pages = runpy.run_path(str(REPOSITORY / "tools" / "wheel_pages.py"))

LINUX = "manylinux_2_17_x86_64.manylinux2014_x86_64"
WHEELS = [
    f"k2-1.24.4.dev20250307+cpu.torch2.6.0-cp311-cp311-{LINUX}.whl",
    f"k2-1.24.4.dev20250714+cpu.torch2.6.0-cp311-cp311-{LINUX}.whl",
    f"k2-1.24.4.dev20250715+cpu.torch2.6.0-cp312-cp312-{LINUX}.whl",
    "k2-1.24.4.dev20250716+cpu.torch2.6.0-cp311-cp311-win_amd64.whl",
    f"k2-1.24.4.dev20250717+cpu.torch2.7.1-cp311-cp311-{LINUX}.whl",
    f"k2-1.24.4.dev20250718+cuda12.6.torch2.6.0-cp311-cp311-{LINUX}.whl",
    f"k2-1.24.4.dev20250719+cuda12.4.torch2.6.0.dev20250101-cp311-cp311-{LINUX}.whl",
    # What PyPI has, another package, and a name that is none: never to be taken.
    "k2-1.24.5-py39-none-any.whl",
    f"kaldifeat-1.25.5.dev20250720+cpu.torch2.6.0-cp311-cp311-{LINUX}.whl",
    "k2-latest+cpu.torch2.6.0.whl",
]
TAGS = {"cp311-cp311-manylinux_2_17_x86_64", "cp311-abi3-linux_x86_64", "py39-none-any"}


def page(wheels: list[str]) -> str:
    """A page like k2's: links with + as such or escaped, absolute or relative."""
    links = [
        "https://example.org/main/" + wheel.replace("+", "%2B" if i % 2 else "+") for i, wheel in enumerate(wheels)
    ]
    links[0] = wheels[0]
    return "\n".join(f'<a href="{link}">{wheel}</a><br/>' for link, wheel in zip(links, wheels, strict=True))


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
def test_the_newest_wheel_that_fits(torch_version: str, cuda: str | None, expected: str | None) -> None:
    wheels = wheel_pages["list_wheels"](page(WHEELS), "https://k2.org/cpu.html", "k2")
    wheel = wheel_pages["newest"](wheels, wheel_pages["build_label"](torch_version, cuda), TAGS)
    assert (wheel and str(wheel.version)) == expected


def test_links_are_those_of_the_page() -> None:
    wheels = wheel_pages["list_wheels"](page(WHEELS), "https://k2.org/k2/cpu.html", "k2")
    assert len(wheels) == 7
    assert wheels[0].url == f"https://k2.org/k2/{WHEELS[0]}"
    assert wheels[1].url == "https://example.org/main/" + WHEELS[1].replace("+", "%2B")


def test_summary_of_what_is_listed() -> None:
    wheels = wheel_pages["list_wheels"](page(WHEELS), "https://k2.org/cpu.html", "k2")
    assert wheel_pages["summary"](wheels, TAGS) == "torch 2.7.1 (CPU), torch 2.6.0 (CPU, CUDA 12.6)"
    assert wheel_pages["summary"](wheels, TAGS, most=1) == "torch 2.7.1 (CPU) and 1 older ones"
    assert wheel_pages["summary"](wheels, {"cp310-cp310-linux_x86_64"}) == "nothing"


@pytest.fixture
def choose(monkeypatch, capsys, tmp_path: Path):
    """Calls wheel_pages.py for k2, without installing anything; what it prints, or exits with."""

    def call(wheels: list[str] | None) -> str:
        listing = tmp_path / "page.html"
        if wheels is not None:
            listing.write_text(page(wheels))
        monkeypatch.setattr(sys, "argv", ["", "k2", "https://k2.org/k2", "--page", str(listing), "--dry-run"])
        try:
            wheel_pages["main"]()
        except SystemExit as exit_:
            return str(exit_.code)
        return capsys.readouterr().out

    return call


def test_pip_never_looks_into_an_index(choose, tmp_path: Path) -> None:
    name = f"k2-1.24.9+{wheel_pages['build_label'](torch.__version__, torch.version.cuda)}-py3-none-any.whl"
    assert choose([name, *WHEELS]) == f"{sys.executable} -m pip install --no-index --no-deps file://{tmp_path}/{name}\n"


def test_no_wheel_that_fits(choose) -> None:
    version = torch.__version__.partition("+")[0]
    message = choose([f"k2-1.24.4+cpu.torch{version}-py3-none-any.whl" for version in ("1.9.0", "1.10.2")])
    assert f"page.html lists no k2 for torch {version} (" in message
    assert f"and Python {platform.python_version()} on {sys.platform}" in message
    assert "For this Python and machine it lists torch 1.10.2 (CPU), torch 1.9.0 (CPU)" in message


def test_a_page_that_cannot_be_read(choose) -> None:
    assert "page.html, the list of k2's wheels" in choose(None)


FAKE_K2 = """
import summarymix.loss as loss
with_cuda = False
rnnt_loss_simple = lambda *args: loss.rnnt_loss_simple(*args, backend="native")
rnnt_loss_smoothed = lambda *args: loss.rnnt_loss_smoothed(*args, backend="native")
rnnt_loss = lambda *args: loss.rnnt_loss(*args, backend="native")
rnnt_loss_pruned = lambda *args: loss.rnnt_loss_pruned(*args, backend="native") + ERROR
"""


def write_wheel(folder: Path, error: float) -> str:
    """A k2 for this torch in ``folder``, whose pruned loss is off by ``error``; its file name."""
    version = f"1.24.9+{wheel_pages['build_label'](torch.__version__, torch.version.cuda)}"
    files = {
        "k2.py": FAKE_K2.replace("ERROR", str(error)),
        f"k2-{version}.dist-info/METADATA": f"Metadata-Version: 2.1\nName: k2\nVersion: {version}\n"
        "Requires-Dist: torch==1.13.1\n",
        f"k2-{version}.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"k2-{version}.dist-info/RECORD": "",
    }
    name = f"k2-{version}-py3-none-any.whl"
    with zipfile.ZipFile(folder / name, "w") as archive:
        for file, text in files.items():
            archive.writestr(file, text)
    return name


@pytest.fixture
def run(tmp_path: Path):
    """Runs a script of tools/ with packages installed into, and taken from, a folder of the test's own."""
    tools = tmp_path / "tools"
    shutil.copytree(REPOSITORY / "tools", tools)
    (tmp_path / "tests").symlink_to(REPOSITORY / "tests")  # golden losses, by which a k2 is checked
    (tools / "setup.sh").write_text("")  # this environment is good as it is
    site = tmp_path / "site"
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": f"{site}:{REPOSITORY}",
        "PIP_TARGET": str(site),
        "PIP_CONFIG_FILE": os.devnull,
    }

    def call(script: str, *options: object) -> subprocess.CompletedProcess[str]:
        command = ["bash", str(tools / script), *map(str, options)]
        return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)

    return call


def test_a_wrong_k2_is_found_out(run, tmp_path: Path) -> None:
    pytest.importorskip("pip")
    listing = tmp_path / "page.html"
    listing.write_text(page([write_wheel(tmp_path, error=1e-6)]))
    result = run("install_k2.sh", "--page", listing.name)
    assert result.returncode == 1
    assert "k2 on cpu computes wrong values of pruned (more than 1e-09 off). Do not train with it" in result.stderr


def test_without_a_wheel_k2_is_not_needed_and_kaldifeat_is_compiled(run, tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "torch.py").write_text("__version__ = '2.6.0+cu126'\nclass version: cuda = '12.6'\n")
    result = run("install_k2.sh", "--page", tmp_path / "nope.html")
    assert result.returncode == 1
    assert "nope.html, the list of k2's wheels" in result.stderr
    assert "It is optional" in result.stderr

    result = run("install_kaldifeat.sh", "--page", tmp_path / "nope.html", "--dry-run")
    assert result.returncode == 0
    assert "nope.html, the list of kaldifeat's wheels" in result.stderr
    assert "has to be compiled here" in result.stdout


@pytest.mark.parametrize("script", ["install_k2.sh", "install_kaldifeat.sh"])
def test_wrong_options_install_nothing(run, script: str) -> None:
    result = run(script, "--dry")
    assert result.returncode == 2
    assert "unrecognized arguments: --dry" in result.stderr
    assert "compiled" not in result.stdout


@pytest.mark.parametrize("script", ["install_k2.sh", "install_kaldifeat.sh"])
def test_help_is_the_header(run, script: str) -> None:
    result = run(script, "--help")
    assert result.returncode == 0
    assert result.stdout.startswith("Installs ")
    assert "  --dry-run " in result.stdout
    assert "set -euo" not in result.stdout

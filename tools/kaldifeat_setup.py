"""Builds kaldifeat with torch's own extension builder; tools/install_kaldifeat.sh puts it into kaldifeat's sources.

The setup.py that comes with them runs CMake, which looks for the whole CUDA toolkit if torch was built with CUDA,
compiles for C++14, which a current torch refuses, and downloads pybind11. None of it is needed: kaldifeat itself
has no CUDA code, and torch brings pybind11.
"""

import re
from pathlib import Path

import setuptools
import torch
from torch.utils.cpp_extension import BuildExtension, CppExtension

version = re.search(r'kaldifeat_VERSION "([^"]+)"', Path("CMakeLists.txt").read_text())
assert version, "CMakeLists.txt names no kaldifeat_VERSION"
package = Path("kaldifeat/python/kaldifeat")
template = (package / "torch_version.py.in").read_text()
(package / "torch_version.py").write_text(template.replace("@TORCH_VERSION@", torch.__version__))
major, minor = torch.__version__.split(".")[:2]

setuptools.setup(
    name="kaldifeat",
    version=version[1],
    packages=["kaldifeat"],
    package_dir={"kaldifeat": str(package)},
    ext_modules=[
        CppExtension(
            "_kaldifeat",
            sorted(str(path) for path in Path("kaldifeat").rglob("*.cc") if "test" not in path.stem),
            include_dirs=[str(Path.cwd())],
            define_macros=[("KALDIFEAT_TORCH_VERSION_MAJOR", major), ("KALDIFEAT_TORCH_VERSION_MINOR", minor)],
            extra_compile_args=["-O2", "-g0"],
        )
    ],
    cmdclass={"build_ext": BuildExtension},
)

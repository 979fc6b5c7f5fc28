"""Build kaldifeat with torch's extension builder; tools/install_kaldifeat.sh copies this file into kaldifeat's sources.

kaldifeat's own setup.py runs CMake, which requires the whole CUDA toolkit if torch was built with CUDA, compiles for
C++14, which current torch refuses, and downloads pybind11. torch's builder needs none of these: kaldifeat has no CUDA
code, and torch includes pybind11.
"""

import re
from pathlib import Path

import setuptools
import torch
from torch.utils.cpp_extension import BuildExtension, CppExtension

version = re.search(r'kaldifeat_VERSION "([^"]+)"', Path("CMakeLists.txt").read_text())
assert version, "CMakeLists.txt does not set kaldifeat_VERSION"
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

#!/usr/bin/env bash
# Builds stable-diffusion.cpp, a peer of `cargo xtask bench local`, and prints the path of its program.
# Usage: tools/build_sd_cpp.sh FOLDER. The source is that of a package on PyPI. Needs pip and a C++ compiler.
set -euo pipefail
version=0.4.7
mkdir -p "$1" && cd "$1"
python3 -m venv venv
venv/bin/pip install -q cmake ninja scikit_build_core
venv/bin/pip download -q --no-binary :all: --no-deps --no-build-isolation "stable-diffusion-cpp-python==$version"
tar xzf "stable_diffusion_cpp_python-$version.tar.gz"
source="$PWD/stable_diffusion_cpp_python-$version/vendor/stable-diffusion.cpp"
export PATH="$PWD/venv/bin:$PATH"
cmake -S "$source" -B build -G Ninja -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON -DSD_BUILD_SERVER=OFF >&2
cmake --build build --target sd-cli >&2
echo "$PWD/build/bin/sd-cli"

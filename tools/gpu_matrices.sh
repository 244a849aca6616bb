#!/usr/bin/env bash
# Runs the tests of the feature `gpu` with cooperative matrices of 8x8 values, which the software driver of Debian sid offers
# (Mesa 26.2; that of Debian 12 and 13 has none), and the test of kernels without runtime checks. The arguments after the folder
# are those of the test program.
#
#   tools/gpu_matrices.sh [FOLDER [ARGUMENT...]]
#
# FOLDER is a Debian sid with its driver, by default target/sid. If it does not exist, debootstrap creates it (650 MB), which
# requires root. The test program then runs with the libraries in it, without root.
set -euo pipefail
cd "$(dirname "$0")/.."

sid=$(realpath -m "${1:-target/sid}")
shift || true
if [ ! -e "$sid/usr/share/vulkan/icd.d/lvp_icd.json" ]; then
  debootstrap --variant=minbase --include=mesa-vulkan-drivers,libvulkan1 sid "$sid"
fi
libraries="$sid/usr/lib/$(uname -m)-linux-gnu"

# The name of the test program is in the messages of cargo.
program=$(cargo test -q -p lumenfall-diffusion --features gpu --lib --no-run --message-format=json |
  sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -n 1)

# Tests fail unless products use matrices of this size.
export LUMENFALL_TEST_MATRICES=8
export VK_DRIVER_FILES="$sid/usr/share/vulkan/icd.d/lvp_icd.json"
cd crates/lumenfall-diffusion
time "$libraries"/ld-linux-*.so.* --library-path "$libraries" "$program" "${@:-gpu}" --include-ignored

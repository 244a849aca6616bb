#!/usr/bin/env bash
# Checks and measures the native pipeline on the GPU of this computer, in less than 8 minutes after the build. Prints a table
# for docs/benchmarks.md.
#
#   tools/gpu-check.sh                      the first GPU of `lumenfall devices`, full-size random weights
#   tools/gpu-check.sh --software           a dry run: a software driver may compute, with the tiny model of the tests
#   LUMENFALL_BENCH_PYTHON=venv/bin/python  compares with diffusers, if torch finds a CUDA card
#   LUMENFALL_MODELS=FOLDER                 keeps the weights (12 GB) there; the default is a temporary folder
set -euo pipefail
cd "$(dirname "$0")/.."

software=false
case "${1-}" in
  "") ;;
  --software) software=true ;;
  *) sed -n '2,8p' "$0"; exit 2 ;;
esac

step() { printf '\n== %s (after %d s)\n' "$*" "$SECONDS" >&2; }
# Returns a value that a benchmark has printed.
value() { sed -n "s/^$1 //p" <<<"$2"; }

step "GPUs"
devices=$(cargo run --quiet --release -p lumenfall-cli --features gpu -- devices --json)
echo "$devices" >&2
if ! $software && ! grep -Eq '"kind": *"(discrete|integrated|virtual|other)"' <<<"$devices"; then
  echo "This computer has no real GPU with a Vulkan, Metal or DX12 driver, so nothing was checked. Install the GPU's driver, or" \
    "make a dry run on a software driver with --software." >&2
  exit 1
fi

step "tests of all kernels and of the pipeline"
tests=passed
cargo test --quiet --release -p lumenfall-diffusion --features _gpu-tests --lib gpu >&2 || tests=failed

if $software; then
  models=(crates/lumenfall-diffusion/tests/golden/model) names=("tiny model") budgets=(0.5) sizes=(64 96) steps=2
else
  folder=${LUMENFALL_MODELS-}
  if [ -z "$folder" ]; then
    folder=$(mktemp -d)
    trap 'rm -rf "$folder"' EXIT
  fi
  for format in f16 q8_0; do
    [ -d "$folder/$format" ] && continue
    step "random weights in $format"
    cargo xtask make-weights "$format" "$folder/$format" --no-t5 >&2
  done
  # The goals for 1024x1024: 4.5 GB in f16 and 3 GB in Q8_0.
  models=("$folder/f16" "$folder/q8_0") names=(f16 Q8_0) budgets=(4.19 2.79) sizes=(512 1024) steps=28
fi

rows=()
card=
for index in "${!models[@]}"; do
  for size in "${sizes[@]}"; do
    step "${names[index]}, ${size}x$size"
    result=$(cargo xtask bench gpu "${models[index]}" --size "$size" --steps "$steps" --memory "${budgets[index]}")
    echo "$result" >&2
    card=$(value name "$result")
    rows+=("| lumenfall, ${names[index]} | ${size}x$size | $(value step "$result") | $(value total "$result") | $(value first "$result") | $(value peak "$result") |")
  done
done

python=${LUMENFALL_BENCH_PYTHON-python3}
if $software; then
  echo "diffusers is not measured in a dry run." >&2
elif "$python" -c 'import diffusers, torch, sys; sys.exit(not torch.cuda.is_available())' 2>/dev/null; then
  for size in "${sizes[@]}"; do
    step "diffusers, f16, ${size}x$size"
    result=$("$python" tools/bench_peers.py diffusers --device cuda --dtype float16 --model "${models[0]}" --size "$size" --steps "$steps")
    numbers=$(awk '{ printf "%s %.3f\n", $1, ($1 == "peak") ? $2 / 2 ^ 30 : $2 }' <<<"$result")
    rows+=("| diffusers, f16, CUDA | ${size}x$size | $(value step "$numbers") | $(value total "$numbers") | | $(value peak "$numbers") |")
  done
else
  echo "diffusers is not measured: $python finds no torch with CUDA and diffusers." >&2
fi

step "done"
printf '\n%s, %s, %s:\n\n' "$card" "$(git rev-parse --short HEAD 2>/dev/null || echo 'unknown version')" "$(date -u +%F)"
echo "| program, weights | image | step (s) | image in $steps steps (s) | first image (s) | peak of the GPU's memory (GiB) |"
echo "|---|---|---|---|---|---|"
printf '%s\n' "${rows[@]}"
printf '\nTests of all kernels and of the pipeline: %s\n' "$tests"
[ $tests = passed ]

#!/usr/bin/env bash
# Tests the native pipeline on other platforms, and compares its images with those of this machine byte by byte:
#
#     tools/platforms.sh FOLDER [--images] [PLATFORM...]
#
# The platforms are those of the function `platform`; without names, all are tested. `--images` leaves out the tests.
#
# The script needs root, debootstrap, and 7 GB in FOLDER, where a Debian system with compilers and emulators remains for
# the next run. It takes half an hour on 2 cores.
#
# The images of the demonstration model must be identical, or differ by 1 in at most one of a thousand values, because
# sums are rounded differently with vectors of another length, or without fused multiplication and addition.
set -euo pipefail

platforms=(native x86-64-avx2 x86-64-without-avx aarch64 aarch64-without-fp16 windows user-aarch64 32-bit)
packages=(cargo rustc rust-src gcc libc6-dev ca-certificates netpbm qemu-user valgrind
  gcc-aarch64-linux-gnu libc6-dev-arm64-cross gcc-mingw-w64-x86-64-posix mingw-w64-x86-64-dev wine wine64)

# Installs the Debian system, mounts the repository in it, and runs this script there.
outside() {
  local folder repository mounted
  folder=$(realpath -m "$1") repository=$(realpath "$(dirname "$0")/..")
  root=$folder/debian
  shift
  if [ ! -e "$folder/installed" ]; then
    mkdir -p "$folder"
    debootstrap --variant=minbase sid "$root"
    # A mirror may be older than its lists are valid.
    printf '%s\n' 'Acquire::Check-Valid-Until "false";' 'APT::Install-Recommends "0";' \
      >"$root/etc/apt/apt.conf.d/90platforms"
  fi
  mkdir -p "$root/source"
  trap 'for mounted in source proc dev sys; do umount -Rl "$root/$mounted" 2>/dev/null || true; done' EXIT
  mount --bind -o ro "$repository" "$root/source"
  for mounted in proc dev sys; do mount --rbind --make-rslave "/$mounted" "$root/$mounted"; done
  cp /etc/resolv.conf "$root/etc/resolv.conf"
  if [ ! -e "$folder/installed" ]; then
    chroot "$root" apt-get update -q
    DEBIAN_FRONTEND=noninteractive chroot "$root" apt-get install -qy "${packages[@]}"
    touch "$folder/installed"
  fi
  # Certificates that this machine trusts.
  cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
  # Without TMPDIR, which Wine would not find.
  env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root chroot "$root" /source/tools/platforms.sh --inside "$@"
}

# Sets the target and the command that runs its programs.
platform() {
  local arm=aarch64-unknown-linux-gnu
  target=x86_64-unknown-linux-gnu runner=() cargo=()
  case $1 in
    native) ;;
    # qemu computes AVX2 very slowly. Valgrind has AVX2 and no AVX-512.
    x86-64-avx2) runner=(valgrind -q --tool=none) ;;
    x86-64-without-avx) runner=(qemu-x86_64 -cpu Nehalem) ;;
    aarch64 | user-aarch64) target=$arm runner=(qemu-aarch64 -L /usr/aarch64-linux-gnu) ;;
    aarch64-without-fp16) target=$arm runner=(qemu-aarch64 -L /usr/aarch64-linux-gnu -cpu cortex-a72) ;;
    windows) target=x86_64-pc-windows-gnu runner=(wine) ;;
    32-bit) target=i686-unknown-linux-gnu ;;
    *) echo "there is no platform $1; the platforms are: ${platforms[*]}" >&2; exit 2 ;;
  esac
  # Without optimization, the tests would take hours in an emulator of another processor.
  case $1 in
    aarch64 | aarch64-without-fp16) export CARGO_PROFILE_DEV_OPT_LEVEL=2 ;;
    *) unset CARGO_PROFILE_DEV_OPT_LEVEL ;;
  esac
  # Debian has no standard library for these targets, so that it is built.
  case $target in x86_64-unknown-linux-gnu) ;; *) cargo=(-Z build-std=std,panic_abort,panic_unwind,test) ;; esac
}

inside() {
  export CARGO_HOME=/cargo CARGO_TARGET_DIR=/target CARGO_PROFILE_DEV_DEBUG=none CARGO_INCREMENTAL=0 RUSTC_BOOTSTRAP=1
  export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
  export CARGO_TARGET_X86_64_PC_WINDOWS_GNU_LINKER=x86_64-w64-mingw32-gcc
  export WINEDEBUG=-all WINEPREFIX=/wine
  cd /source
  objects_of_windows
  local name tests=run_tests
  if [ "${1-}" = --images ]; then
    tests=true
    shift
  fi
  platform native
  draw native
  for name in "${@:-${platforms[@]}}"; do
    platform "$name"
    printf '\n== %s (after %d s)\n' "$name" "$SECONDS"
    case $name in
      user-aarch64) build_of_a_user ;;
      32-bit) check_32_bit ;;
      native) $tests ;;
      *)
        draw "$name"
        compare "$name"
        $tests
        ;;
    esac
    echo "$name: passed"
  done
}

# Compiles two objects with which Windows programs begin and end. Elsewhere the standard library's package has them.
objects_of_windows() {
  local folder object
  folder=$(rustc --print sysroot)/lib/rustlib/x86_64-pc-windows-gnu/lib
  mkdir -p "$folder"
  for object in rsbegin rsend; do
    [ -e "$folder/$object.o" ] || rustc --target x86_64-pc-windows-gnu --emit=obj -o "$folder/$object.o" \
      "$(rustc --print sysroot)/lib/rustlib/src/rust/library/rtstartup/$object.rs"
  done
}

run_tests() {
  local variable targets=(--lib --test errors --test images --test memory)
  # The limits of time are too short for an emulator.
  [ ${#runner[@]} -gt 0 ] || targets+=(--test corrupt_files)
  variable=CARGO_TARGET_$(tr 'a-z-' 'A-Z_' <<<"$target")_RUNNER
  env "$variable=${runner[*]:-env}" \
    cargo test -q --no-fail-fast --locked "${cargo[@]}" --target "$target" -p lumenfall-kernels -p lumenfall-diffusion "${targets[@]}"
}

# Draws images with the demonstration model.
draw() {
  local program folder=/images/$1
  cargo build -q --locked "${cargo[@]}" --target "$target" -p lumenfall-cli --no-default-features
  program=/target/$target/debug/lumenfall
  [ "$1" != windows ] || program+=.exe
  mkdir -p "$folder"
  cd "$folder"
  # An emulator takes hundreds of times as long.
  image() {
    local arguments=(generate "$4" --seed 0 --size "$2" --steps "$3" -o "$1.png")
    "${runner[@]}" "$program" "${arguments[@]}" >/dev/null 2>log || { cat log; exit 1; }
  }
  image circle 128x128 4 "a red circle on a white background"
  image wide 256x128 2 "a pink diamond next to a green cross on a white background"
  image large 256x256 1 "a yellow heart on a navy background"
  cd /source
}

# Compares the images of a platform with the native ones.
compare() {
  local file differences
  for file in circle wide large; do
    if cmp -s "/images/native/$file.png" "/images/$1/$file.png"; then
      echo "$file.png: identical"
      continue
    fi
    # The values of the pixels that differ, in octal.
    differences=$(cmp -l <(pngtopnm "/images/native/$file.png") <(pngtopnm "/images/$1/$file.png") || true)
    printf '%s\n' "$differences" | awk -v file="$file.png" -v values="$(pngtopnm "/images/native/$file.png" | wc -c)" '
      function decimal(octal) { return int(octal / 100) * 64 + int(octal / 10) % 10 * 8 + octal % 10 }
      NF { count++; d = decimal($2) - decimal($3); if (d < 0) d = -d; if (d > most) most = d }
      END {
        print file ": " count + 0 " of " values " values differ, by " most + 0 " at most"
        exit !count || most > 1 || 1000 * count > values
      }'
  done
}

# Builds the pipeline in a package without the repository's profiles, as a user does.
build_of_a_user() {
  mkdir -p /user/src
  cat >/user/Cargo.toml <<'END'
[package]
name = "user"
version = "0.0.0"
edition = "2024"
[workspace]
[dependencies]
lumenfall = { path = "/source", default-features = false, features = ["local"] }
END
  echo 'fn main() { println!("{}", lumenfall::Client::demo().is_ok()) }' >/user/src/main.rs
  cp /source/Cargo.lock /user/Cargo.lock
  cargo build -q "${cargo[@]}" --target "$target" --manifest-path /user/Cargo.toml
  [ "$("${runner[@]}" "/target/$target/debug/user")" = true ]
}

# The remote backends compile for 32-bit targets. The native pipeline reports that it does not.
check_32_bit() {
  local output
  cargo check -q --locked "${cargo[@]}" --target "$target" --no-default-features
  output=$(cargo check --locked "${cargo[@]}" --target "$target" -p lumenfall-diffusion 2>&1) && return 1
  grep "needs a 64-bit target" <<<"$output"
}

if [ "${1-}" = --inside ]; then
  inside "${@:2}"
elif [ $# -gt 0 ]; then
  outside "$@"
else
  sed -n '2,12s/^# \?//p' "$0" >&2
  exit 2
fi

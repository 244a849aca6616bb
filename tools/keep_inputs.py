"""Adds the best inputs of a fuzzing run to fuzz/corpus/TARGET: small inputs that reach code that no others reach.

    cargo fuzz run -s none images found/images fuzz/corpus/images -- -max_total_time=600
    python tools/keep_inputs.py images found/images

An ordinary test runs all inputs in fuzz/corpus.
"""

import argparse
import shutil
import subprocess
import tempfile
from pathlib import Path

FUZZ = Path(__file__).parent.parent / "fuzz"


def reached(program, path):
    """Returns libFuzzer's numbers of the edges that the input reaches."""
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        for name in ("alone", "merged"):
            (folder / name).mkdir()
        shutil.copy(path, folder / "alone")
        options = ["-merge=1", "-use_counters=0", f"-merge_control_file={folder / 'control'}"]
        subprocess.run([program, *options, folder / "merged", folder / "alone"], stderr=subprocess.DEVNULL, check=True)
        lines = [line.split() for line in (folder / "control").read_text().splitlines()]
        return {int(edge) for line in lines if line[:1] == ["FT"] for edge in line[2:]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target")
    parser.add_argument("found", type=Path, help="the corpus of the fuzzing run")
    parser.add_argument("--max", type=int, default=48, help="maximum number of new inputs")
    args = parser.parse_args()
    program = FUZZ / "target/x86_64-unknown-linux-gnu/release" / args.target
    kept = FUZZ / "corpus" / args.target

    with tempfile.TemporaryDirectory() as fewer:
        # libFuzzer's merge is fast; `reached` starts a process for each input.
        subprocess.run([program, "-merge=1", "-use_counters=0", fewer, args.found], stderr=subprocess.DEVNULL, check=True)
        edges = {path: reached(program, path) for path in sorted(Path(fewer).iterdir())}
        missing = set().union(*edges.values()) - set().union(*(reached(program, path) for path in kept.iterdir()))
        for _ in range(args.max):
            best = max(edges, key=lambda path: len(edges[path] & missing) / (path.stat().st_size + 300))
            if not edges[best] & missing:
                break
            missing -= edges[best]
            shutil.copy(best, kept)
    count = len(list(kept.iterdir()))
    print(f"{args.target}: {count} inputs in the corpus; {len(missing)} edges are reached only by other inputs")


if __name__ == "__main__":
    main()

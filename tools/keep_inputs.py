"""Chooses the inputs of a fuzzing run that are worth keeping: few, small, and reaching what the others do not.

    cargo fuzz run -s none answer found/answer fuzz/corpus/answer -- -max_total_time=600
    python tools/keep_inputs.py answer found/answer

It adds at most --most of them to fuzz/corpus/TARGET, where an ordinary test runs them.
"""

import argparse
import shutil
import subprocess
import tempfile
from pathlib import Path

FUZZ = Path(__file__).parent.parent / "fuzz"


def reached(program, path):
    """The edges of the program that the input reaches, by libFuzzer's numbers."""
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
    parser.add_argument("found", type=Path, help="the corpus that the run has grown")
    parser.add_argument("--most", type=int, default=48)
    args = parser.parse_args()
    program = FUZZ / "target/x86_64-unknown-linux-gnu/release" / args.target
    kept = FUZZ / "corpus" / args.target

    with tempfile.TemporaryDirectory() as fewer:
        # libFuzzer's own merge first: each input costs a process here.
        subprocess.run([program, "-merge=1", "-use_counters=0", fewer, args.found], stderr=subprocess.DEVNULL, check=True)
        edges = {path: reached(program, path) for path in sorted(Path(fewer).iterdir())}
        missing = set().union(*edges.values()) - set().union(*(reached(program, path) for path in kept.iterdir()))
        for _ in range(args.most):
            best = max(edges, key=lambda path: len(edges[path] & missing) / (path.stat().st_size + 300))
            if not edges[best] & missing:
                break
            missing -= edges[best]
            shutil.copy(best, kept)
    print(f"{args.target}: {len(list(kept.iterdir()))} inputs, {len(missing)} edges left to the inputs that are not kept")


if __name__ == "__main__":
    main()

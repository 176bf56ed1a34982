"""Fuzz every target for its share of the time, and say what was found.

    python tests/fuzz/run.py --seconds 600      # or: make fuzz
    python tests/fuzz/run.py --seconds 60 --target config

The exit code is 1 if anything was found: a crash, an input of more than 10 s, or more than 2 GB of memory. The input is
kept in `build/fuzz/`; `python tests/fuzz/one.py TARGET FILE` runs it again.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from fuzz.seeds import seeds  # noqa: E402 - found where the line above says
from fuzz.targets import TARGETS  # noqa: E402

FOUND = HERE.parent.parent / "build" / "fuzz"
LIMITS = ("-rss_limit_mb=2048", "-timeout=10", "-max_len=65536", "-print_final_stats=1")
STARTING = 120
"""Seconds for the imports, which are instrumented, over the time that is fuzzed."""


def fuzz(target: str, seconds: int, seed: int) -> tuple[int, str]:
    """libFuzzer's exit code and output."""
    FOUND.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        for number, content in enumerate(seeds(target)):
            (Path(folder) / f"seed-{number}").write_bytes(content)
        options = [*LIMITS, f"-max_total_time={seconds}", f"-seed={seed}", f"-artifact_prefix={FOUND}/{target}-"]
        command = [sys.executable, str(HERE / "one.py"), target, *options, folder]
        try:
            done = subprocess.run(
                command,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                check=False,
                timeout=seconds + STARTING,
                cwd=folder,
            )
        except subprocess.TimeoutExpired as error:
            return 1, f"{error.stdout!r}\nhung"
    return done.returncode, done.stdout


def statistic(name: str, output: str) -> str:
    found = re.search(rf"stat::{name}:\s+(\d+)", output)
    return found.group(1) if found else "?"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=600, help="altogether")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--target", choices=list(TARGETS), action="append", help="these only")
    options = parser.parse_args()
    chosen = options.target or list(TARGETS)
    share = max(1, options.seconds // len(chosen))
    failed = []
    for target in chosen:
        code, output = fuzz(target, share, options.seed)
        executions, peak = statistic("number_of_executed_units", output), statistic("peak_rss_mb", output)
        coverage = re.findall(r"cov: (\d+)", output)
        print(
            f"{target}: {executions} inputs in {share} s, coverage {coverage[-1] if coverage else '?'}, "
            f"peak memory {peak} MB{'' if code == 0 else ', FOUND SOMETHING'}",
            flush=True,
        )
        if code:
            failed.append(target)
            print("\n".join(output.splitlines()[-60:]), flush=True)
    print(f"found something in: {', '.join(failed)}; see {FOUND}" if failed else "found nothing")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

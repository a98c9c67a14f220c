"""Fuzzing led by coverage: python -m tests.fuzz.guided TARGET [libFuzzer's options] [CORPUS], or all SECONDS.

`make atheris` runs every target for a while. Half of the mutations are libFuzzer's, half are mutate.py's. An input that
fails is written to the folder it is started in: put it into corpus/TARGET with its mend.
"""

import logging
import random
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["farthing"]):
    from tests.fuzz import targets

from tests.fuzz.mutate import mutated


def one(name: str) -> None:
    """Does not return: libFuzzer ends the process."""
    logging.disable(logging.CRITICAL)
    others = targets.seeds(name)

    def mutator(data: bytes, most_bytes: int, seed: int) -> bytes:
        chance = random.Random(seed)
        if chance.random() < 0.5:
            return mutated(data, others, chance)[:most_bytes]
        return bytes(atheris.Mutate(data, most_bytes))

    atheris.Setup(sys.argv, targets.TARGETS[name], custom_mutator=mutator)
    atheris.Fuzz()


def every(seconds: str) -> int:
    """Each target in a process of its own; how many executions there were, and what failed."""
    runs, failed = 0, []
    for name in targets.TARGETS:
        with tempfile.TemporaryDirectory() as folder:
            for number, seed in enumerate(targets.seeds(name)):
                (Path(folder) / str(number)).write_bytes(seed)
            options = [f"-max_total_time={seconds}", "-timeout=20", "-rss_limit_mb=2000", "-max_len=8192"]
            argv = [sys.executable, "-m", "tests.fuzz.guided", name, *options, "-print_final_stats=1", folder]
            done = subprocess.run(argv, capture_output=True, text=True, errors="replace", check=False)
        found = re.search(r"number_of_executed_units: (\d+)", done.stderr)
        runs += int(found[1]) if found else 0
        print(f"{name:30} {int(found[1]) if found else 0:>12,}", flush=True)
        if done.returncode:
            failed.append(name)
            print(done.stderr[-3_000:])
    print(f"{runs:,} executions; {', '.join(failed) or 'nothing'} failed")
    return int(bool(failed))


def main() -> None:
    name = sys.argv.pop(1)
    sys.exit(every(sys.argv[1])) if name == "all" else one(name)


if __name__ == "__main__":
    main()

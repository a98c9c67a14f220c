"""Fuzzing led by coverage: python -m tests.fuzz.guided TARGET [libFuzzer's options] [CORPUS].

`make atheris` runs every target for a while. Half of the mutations are libFuzzer's, half are mutate.py's. An input that
fails is written to the folder it is started in.
"""

import logging
import random
import sys

import atheris

with atheris.instrument_imports(include=["farthing"]):
    from tests.fuzz import targets

from tests.fuzz.mutate import mutated


def main() -> None:
    logging.disable(logging.CRITICAL)
    name = sys.argv.pop(1)
    others = targets.seeds(name)

    def mutator(data: bytes, most_bytes: int, seed: int) -> bytes:
        chance = random.Random(seed)
        if chance.random() < 0.5:
            return mutated(data, others, chance)[:most_bytes]
        return bytes(atheris.Mutate(data, most_bytes))

    atheris.Setup(sys.argv, targets.TARGETS[name], custom_mutator=mutator)
    atheris.Fuzz()


if __name__ == "__main__":
    main()

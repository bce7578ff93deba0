"""A random generator of its own for each thing that is drawn.

So a spec with one more relation, or with its keys in another order, draws the rest as before. The order in
which the generators are used does not matter.
"""

import random


def rng(seed: int, *purpose: object) -> random.Random:
    """The generator for one purpose, as in `rng(0, "birth_city", "pool")`."""
    return random.Random(":".join(map(str, (seed, *purpose))))

"""Refuses absurd sizes before anything is built or allocated for them.

A config of a few bytes can ask for 10^59 layers. Building such a model, or a list of its layers, would fill
the memory or never end. The limits are far above all known models.
"""

import re
from typing import Any

from tidy_stlms.configs.errors import UserError, shown

# The largest whole number for config keys of each kind; the first pattern that is found decides.
LIMITS = (
    # modules, which are built one by one: some milliseconds each, even without memory for their weights
    (
        re.compile(
            r"^(?!.*_per_)(.*_)?(n|num)_(.*_)?(layer|block|expert|group|stage)s?$|(layers|blocks|experts|depth)$"
        ),
        2_000,
    ),
    (re.compile(r"labels$"), 1_000_000),  # transformers makes a name for each
    (re.compile(r"position|max_seq|n_ctx"), 20_000_000),  # some models compute a table of them
    (re.compile(r"size|dim|hidden|width|embd|inner|d_model|vocab|head|rank|^r$"), 100_000_000),
    (re.compile(""), 2**63 - 1),  # torch's integers end here
)


def check_numbers(fields: Any, where: str) -> None:
    """Raise UserError, naming the key, for a whole number in a config that no model can have.

    Args:
        fields: The config as plain values.
        where: The model, for the message.
    """
    todo: list[tuple[str, Any]] = [("", fields)]
    while todo:  # no recursion: the values may be nested deeply
        key, value = todo.pop()
        if isinstance(value, dict):
            todo += [(str(name), inner) for name, inner in value.items()]
        elif isinstance(value, list | tuple):
            todo += [(key, inner) for inner in value]
        elif isinstance(value, int):
            limit = next(limit for pattern, limit in LIMITS if pattern.search(key.lower()))
            if abs(value) > limit:
                # str() of a number of more than 4,300 digits would fail
                number = f"{value:,}" if abs(value) < 10**20 else "a number of more than 20 digits"
                raise UserError(f"{where}: {shown(key)} is {number}; at most {limit:,} can be built")

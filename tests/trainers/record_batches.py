"""`stlm train` that also writes down which rows this process's collator was given.

torchrun ... -m tests.trainers.record_batches OUT FILE.yaml section.key=value ...
"""

import os
import sys

import torch

from tidy_stlms.scripts.train import main
from tidy_stlms.trainers.collator import InjectionCollator

positions: list[int] = []
exposures: dict[str, int] = {}
joined: set[int] = set()
original = InjectionCollator.__call__


def record(self, rows):
    batch = original(self, rows)
    joined.add(torch.distributed.get_world_size())
    for row, built in zip(rows, batch["input_ids"].tolist(), strict=True):
        if "position" not in row:
            continue
        positions.append(row["position"])
        text = f" {' '.join(map(str, built))} "
        for key, ids in self.statement_tokens.items():
            found = text.count(f" {' '.join(map(str, [self.eos, *ids.tolist(), self.eos]))} ")
            exposures[key] = exposures.get(key, 0) + found
    return batch


if __name__ == "__main__":
    InjectionCollator.__call__ = record
    code = main(sys.argv[2:])
    rank = os.environ["RANK"]
    told = {"positions": positions, "exposures": exposures, "joined": joined.pop()}
    torch.save(told, f"{sys.argv[1]}/batches-{rank}.pt")
    sys.exit(code)

"""`stlm recall` that also says how many processes have found each other.

torchrun ... -m tests.scripts.joined_recall MODEL --facts BANK ...
"""

import sys

import torch.distributed as dist

from tidy_stlms.scripts import cli
from tidy_stlms.scripts.recall import main

leave = cli.leave_processes


def count_and_leave() -> None:
    sys.stderr.write(f"joined {dist.get_world_size()}\n")
    leave()


if __name__ == "__main__":
    cli.leave_processes = count_and_leave
    sys.exit(main())

"""`stlm recall` that also says how many processes have found each other.

torchrun ... -m tests.scripts.joined_recall MODEL --facts BANK ...
"""

import sys

import torch.distributed as dist

from scripts.recall import main

if __name__ == "__main__":
    code = main()
    sys.stderr.write(f"joined {dist.get_world_size()}\n")
    sys.exit(code)

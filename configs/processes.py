"""Checks that the launcher, torch and transformers count the same number of processes.

If they do not, each process may run as if it were alone, and all processes would write the same files at the
same time.
"""

import os

import torch
import torch.distributed as dist

from tidy_stlms.configs.errors import UserError

# Variables in which torchrun and MPI's launchers give the number of processes. accelerate reads them too.
WORLD_SIZE_VARIABLES = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
# Variables in which they give each process its number.
RANK_VARIABLES = ("RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK")
# Variables of `accelerate launch` for ways of training that are not supported.
UNSUPPORTED_VARIABLES = (
    "ACCELERATE_USE_DEEPSPEED",
    "ACCELERATE_USE_FSDP",
    "ACCELERATE_USE_MEGATRON_LM",
    "ACCELERATE_USE_PARALLELISM_CONFIG",
    "ACCELERATE_USE_SAGEMAKER",
)


def launched_processes() -> int:
    """The number of processes that a launcher says it has started; 1 without a launcher."""
    sizes = (os.environ.get(name, "") for name in WORLD_SIZE_VARIABLES)
    return next((int(size) for size in sizes if size.isdecimal()), 1)


def needs_cpu() -> bool:
    """Whether several processes must share the CPU. accelerate joins them there only with `use_cpu=True`."""
    return launched_processes() > 1 and not torch.accelerator.is_available()


def check_devices() -> None:
    """Raise UserError if this machine has GPUs, but fewer than processes.

    accelerate assigns GPU n to process n, even if the work is on the CPU.
    """
    local = os.environ.get("LOCAL_WORLD_SIZE", "1")
    gpus = torch.cuda.device_count()
    if 0 < gpus < int(local if local.isdecimal() else 1):
        raise UserError(
            f"{local} processes on this machine, which has {gpus} GPU{'' if gpus == 1 else 's'}: start as "
            "many as there are, or hide them and use the CPU (CUDA_VISIBLE_DEVICES= torchrun ...)"
        )


def check_launcher() -> None:
    """Raise UserError for several processes without a launcher, and for ways of training without support."""
    if launched_processes() > 1 and not any(name in os.environ for name in RANK_VARIABLES):
        raise UserError(
            f"{launched_processes()} processes are said to run (WORLD_SIZE), and none of them has a number "
            "(RANK): unset WORLD_SIZE, or start them with "
            "`torchrun --no-python --nproc_per_node N stlm train ...`"
        )
    for name in UNSUPPORTED_VARIABLES:
        if os.environ.get(name, "").lower() in ("true", "1", "yes", "on", "y", "t"):
            raise UserError(
                f"{name}={os.environ[name]}: not supported; unset it, and start several processes with "
                "`torchrun --no-python --nproc_per_node N stlm train ...` (DDP)"
            )


def check_processes(counted: int) -> None:
    """Raise UserError unless this process counts all processes that were started; `counted` is its count."""
    launched = launched_processes()
    joined = dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
    if counted != joined or launched not in (1, counted):
        raise UserError(
            f"{launched} processes were started (WORLD_SIZE), {joined} are joined (torch.distributed), and "
            f"this one counts {counted}: they would overwrite each other's files; start them with "
            "`torchrun --no-python --nproc_per_node N stlm train ...`, without a backend set by hand, or "
            "start a single one"
        )

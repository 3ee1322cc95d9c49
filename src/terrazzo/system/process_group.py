"""The processes that train together: their ranks and their communication."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from terrazzo.errors import UserError
from terrazzo.system.processes import end_with

# environment variables of (rank, number of processes, rank on this machine), by who sets them
LAUNCHERS = {
    "torchrun": ("RANK", "WORLD_SIZE", "LOCAL_RANK"),
    "Open MPI": ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"),
    "MPICH": ("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID"),
    "SLURM": ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID"),
}
LAUNCHED_BY = "TERRAZZO_LAUNCHER"  # our launcher's process id, in the environment of what it starts
LOST = "lost another process"
GRACE = 60.0  # seconds for a process to end by itself
PATIENCE = timedelta(minutes=30)  # for the slowest process, such as one reading a data set for the first time


@dataclass(frozen=True)
class ProcessGroup:
    """This process among those that train together; `control` is the group for small messages between CPUs."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    control: Any = None

    @property
    def is_main(self) -> bool:
        """True in the process that writes the files and the log."""
        return self.rank == 0

    def device(self, chosen: torch.device) -> torch.device:
        """This process's GPU if several share the machine's; else the chosen device."""
        if chosen.type != "cuda" or self.size == 1:
            return chosen
        torch.cuda.set_device(self.local_rank)
        return torch.device("cuda", self.local_rank)

    def any(self, flag: bool) -> bool:
        """Return whether the flag is set in any process; every process calls it at the same point."""
        return flag if self.size == 1 else bool(self.sum(torch.tensor([int(flag)])).item())

    def sum(self, values: Tensor) -> Tensor:
        """The sum of every process's tensor, on the CPU."""
        values = values.detach().cpu()
        if self.size > 1:
            dist.all_reduce(values, group=self.control)
        return values

    def mean(self, values: Mapping[str, float]) -> dict[str, float]:
        """Each value's mean over the processes, which hold the same names in the same order."""
        total = self.sum(torch.tensor(list(values.values()), dtype=torch.float64))
        return dict(zip(values, (total / self.size).tolist(), strict=True))

    def gather(self, value: Any) -> list[Any]:
        """Every process's value, in order of rank."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value, group=self.control)
        return values

    def share_buffers(self, model: nn.Module) -> None:
        """Give every process the running statistics of the first one, which are saved."""
        if self.size > 1:
            for buffer in model.buffers():
                dist.broadcast(buffer, 0)

    def wait(self) -> None:
        """Wait until every process is here."""
        if self.size > 1:
            dist.barrier(group=self.control)


SINGLE_PROCESS = ProcessGroup()


def launched(environment: Mapping[str, str] = os.environ) -> tuple[str, ProcessGroup] | None:
    """The launcher that started this process as one of several, and its group; None for a single process.

    Raises UserError if a launcher's variables are incomplete.
    """
    for launcher, (rank, size, local_rank) in LAUNCHERS.items():
        if int(environment.get(size) or 1) > 1:
            if rank not in environment:
                raise UserError(f"{launcher} has set {size} in the environment, but not {rank}: start this with it")
            number = int(environment[rank])
            return launcher, ProcessGroup(number, int(environment[size]), int(environment.get(local_rank, number)))
    return None


@contextmanager
def joined(device_type: str) -> Iterator[ProcessGroup]:
    """Join the group that this process was started in, and leave it at the end; a caller's own group is used as it is.

    Raises UserError if the other processes cannot be found.
    """
    if dist.is_available() and dist.is_initialized():
        size = dist.get_world_size()
        local = int(os.environ.get("LOCAL_RANK", dist.get_rank()))
        yield ProcessGroup(dist.get_rank(), size, local, dist.new_group(backend="gloo") if size > 1 else None)
        return
    found = launched()
    if found is None:
        yield ProcessGroup()
        return
    launcher, group = found
    set_address(launcher, group)
    if "TORCHELASTIC_RESTART_COUNT" in os.environ:  # torchrun and ours, whose children would train on unseen
        end_with(int(os.environ.get(LAUNCHED_BY, os.getppid())), GRACE)
    try:
        dist.init_process_group(
            "nccl" if device_type == "cuda" else "gloo", rank=group.rank, world_size=group.size, timeout=PATIENCE
        )
    except (RuntimeError, ValueError) as problem:
        where = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        raise UserError(f"process {group.rank} of {group.size} cannot join the others at {where}: {problem}") from None
    try:
        control = dist.new_group(backend="gloo", timeout=PATIENCE)
        yield ProcessGroup(group.rank, group.size, group.local_rank, control)
    finally:
        dist.destroy_process_group()


def set_address(launcher: str, group: ProcessGroup, environment: Any = os.environ) -> None:
    """Set the address where the processes meet, for launchers that do not. Raises UserError if it is unknown."""
    if "MASTER_ADDR" not in environment:
        if launcher == "SLURM":
            environment["MASTER_ADDR"] = first_host(environment.get("SLURM_STEP_NODELIST", ""))
        elif group.size == int(environment.get("OMPI_COMM_WORLD_LOCAL_SIZE", environment.get("MPI_LOCALNRANKS", -1))):
            environment["MASTER_ADDR"] = "127.0.0.1"
        else:
            raise UserError(f"{launcher} sets no address to meet at: set MASTER_ADDR to the first machine")
    if "MASTER_PORT" not in environment:
        environment["MASTER_PORT"] = str(20000 + int(environment.get("SLURM_JOB_ID", 9500)) % 20000)


def first_host(nodes: str) -> str:
    """The first machine of a SLURM list such as `gpu[03-05,9],other1`. Raises UserError for an empty one."""
    found = re.match(r"([^,\[]+)(?:\[(\d+))?", nodes)
    if found is None:
        raise UserError("SLURM has not set SLURM_STEP_NODELIST: set MASTER_ADDR to the first machine of the job")
    return found[1] + (found[2] or "")


def cause(problem: Exception) -> str | None:
    """The cause of an error of torch.distributed; None for any other error."""
    text = str(problem)
    if "Expected to have finished reduction" in text:
        return "some weights get no gradient: set find_unused_parameters=True in the config"
    if type(problem).__name__.startswith("Dist") or any(word in text for word in ("gloo", "Gloo", "NCCL")):
        return f"{LOST} ({text.splitlines()[0][:200]})"
    return None

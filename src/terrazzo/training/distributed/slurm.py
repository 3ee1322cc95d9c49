"""Batch files for SLURM."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from terrazzo.system.files import make_folder, write_whole

TEMPLATE = """\
#!/bin/bash
#SBATCH --job-name={name}
#SBATCH --nodes={nodes}
#SBATCH --ntasks-per-node={gpus}
#SBATCH --gpus-per-node={gpus}
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --output={folder}/slurm-%j.txt
#SBATCH --open-mode=append
#SBATCH --signal=TERM@120
#SBATCH --requeue
# Add what your cluster requires: #SBATCH --partition=..., --account=..., and the line that activates your environment.
# Before its time is over, the job receives SIGTERM, saves its state and is requeued to resume.
set -uo pipefail
srun {command}
status=$?
if [ $status -ne 0 ] && tail -n 20 {folder}/log.txt | grep -q "state saved; to continue"; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit $status
"""


def write_batch_file(work_dir: Path, arguments: Sequence[str], *, nodes: int = 1, gpus: int = 1) -> Path:
    """Write `train.sbatch` into a work dir; it runs `terrazzo ARGUMENTS` on `nodes` machines with `gpus` each."""
    folder = make_folder(work_dir).resolve()
    text = TEMPLATE.format(
        name=folder.name,
        nodes=nodes,
        gpus=gpus,
        folder=shlex.quote(str(folder)),
        command=shlex.join(["terrazzo", *arguments]),
    )
    path = folder / "train.sbatch"
    write_whole(path, text)
    return path

"""A command in processes that work together, which Ray starts where it has room."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from terrazzo.system.process_group import LAUNCHED_BY
from terrazzo.system.ray import connected, worker_count
from terrazzo.training.distributed.launch import free_port

ATTEMPTS = 3  # at a command whose processes were lost


class Host:
    """An actor that runs one of the processes."""

    def meeting_place(self) -> tuple[str, int]:
        """The address of this machine, and a free port of it."""
        import ray

        return ray.util.get_node_ip_address(), free_port()

    def run(self, arguments: Sequence[str], folder: str, own: dict[str, str]) -> tuple[int, str, str]:
        """Run `terrazzo ARGUMENTS` in a folder; the exit code, and what was printed and reported."""
        environment = os.environ | own | {LAUNCHED_BY: str(os.getpid())}
        command = [sys.executable, "-m", "terrazzo", *arguments]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        return done.returncode, done.stdout, done.stderr


def launch_on_ray(address: str | None, arguments: Sequence[str], count: int | None, *, needs_gpu: bool) -> int:
    """Run `terrazzo ARGUMENTS` in `count` processes, by default as many as there is room for; return its exit code.

    Where one is lost, all begin again. Raises UserError where no cluster answers.
    """
    with connected(address) as ray:
        count = count or worker_count(ray, needs_gpu)
        host: Any = ray.remote(num_cpus=0 if needs_gpu else 1, num_gpus=1 if needs_gpu else 0)(Host)
        for _ in range(ATTEMPTS):
            hosts = [host.remote() for _ in range(count)]
            try:
                place, port = ray.get(hosts[0].meeting_place.remote())
                shared = {"MASTER_ADDR": place, "MASTER_PORT": str(port), "WORLD_SIZE": str(count)}
                shared |= {"LOCAL_RANK": "0", "TORCHELASTIC_RESTART_COUNT": "0"}
                results = ray.get(
                    [
                        one.run.remote(list(arguments), os.getcwd(), {**shared, "RANK": str(rank)})  # noqa: PTH109
                        for rank, one in enumerate(hosts)
                    ]
                )
            except ray.exceptions.RayActorError:
                print("a process of the cluster was lost: all begin again", file=sys.stderr)
                continue
            finally:
                for one in hosts:
                    ray.kill(one)
            if all(code >= 0 for code, _, _ in results):
                break
            print("a process was ended by a signal: all begin again", file=sys.stderr)
    failed = next((result for result in results if result[0]), results[0])
    print(results[0][1], end="")
    print(failed[2], end="", file=sys.stderr)
    return max(failed[0], 0) if failed[0] >= 0 else 1

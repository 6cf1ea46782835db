"""The variables that torch wants of a process, made from those that SLURM's ``srun`` sets."""

import os
import re
from collections.abc import Mapping, MutableMapping

_FIRST_HOST = re.compile(r"([^,\[]+)(?:\[(\w+)[^\]]*\]([^,\[]*))?")


def adopt(environment: MutableMapping[str, str] = os.environ) -> None:
    """Set ``RANK``, ``WORLD_SIZE``, ``LOCAL_RANK``, ``MASTER_ADDR`` and ``MASTER_PORT`` in a task of ``srun``.

    Where ``RANK`` is set, or a step has one task, nothing is changed; an address and a port that are given stay. Names
    of SLURM's variables: https://slurm.schedmd.com/srun.html, output environment variables.
    """
    if "RANK" in environment or int(environment.get("SLURM_STEP_NUM_TASKS", 1)) == 1:
        return
    environment["RANK"] = environment["SLURM_PROCID"]
    environment["WORLD_SIZE"] = environment["SLURM_STEP_NUM_TASKS"]
    environment["LOCAL_RANK"] = environment["SLURM_LOCALID"]
    environment.setdefault("MASTER_ADDR", first_host(environment["SLURM_STEP_NODELIST"]))
    environment.setdefault("MASTER_PORT", str(_port(environment)))


def first_host(hosts: str) -> str:
    """The first of a list of hosts as SLURM writes it: ``gpu[07-09,11],login`` gives ``gpu07``.

    Raises:
        ValueError: no host stands there.
    """
    found = _FIRST_HOST.match(hosts)
    if found is None:
        raise ValueError(f"SLURM_STEP_NODELIST must name a host, got {hosts!r}; set MASTER_ADDR")
    return "".join(part or "" for part in found.groups())


def _port(environment: Mapping[str, str]) -> int:
    """A port that other jobs and steps of the same host do not take, as far as can be told."""
    job, step = int(environment.get("SLURM_JOB_ID", 0)), int(environment.get("SLURM_STEP_ID", 0))
    return 20_000 + (101 * job + step) % 12_000

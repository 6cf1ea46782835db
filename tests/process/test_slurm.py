"""Tasks that `srun` starts find each other without `torchrun`."""

import os

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from fgclip_fast.process import slurm
from fgclip_fast.training import distributed

TASK = {
    "SLURM_JOB_ID": "4711", "SLURM_STEP_ID": "0", "SLURM_PROCID": "5", "SLURM_LOCALID": "1",
    "SLURM_STEP_NUM_TASKS": "8", "SLURM_STEP_NODELIST": "gpu[07-08]",
}  # fmt: skip


def test_a_task_gets_the_variables_of_torchrun():
    environment = dict(TASK)
    slurm.adopt(environment)
    port = environment.pop("MASTER_PORT")
    assert 20_000 <= int(port) < 32_768  # below the ports that systems hand out
    assert environment == TASK | {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "MASTER_ADDR": "gpu07"}
    another = TASK | {"SLURM_PROCID": "0", "SLURM_LOCALID": "0"}
    slurm.adopt(another)
    assert another["MASTER_PORT"] == port
    given = TASK | {"MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "1234"}
    slurm.adopt(given)
    assert (given["MASTER_ADDR"], given["MASTER_PORT"]) == ("10.0.0.1", "1234")


@pytest.mark.parametrize(
    "environment",
    [
        {},
        TASK | {"RANK": "0", "WORLD_SIZE": "2"},
        TASK | {"SLURM_STEP_NUM_TASKS": "1"},
        {"SLURM_JOB_ID": "4711", "SLURM_PROCID": "0", "SLURM_NTASKS": "8"},
    ],
    ids=["no SLURM", "torchrun in a task", "one task", "the batch script itself"],
)
def test_other_processes_are_left_as_they_are(environment):
    before = dict(environment)
    slurm.adopt(environment)
    assert environment == before


@pytest.mark.parametrize(
    ("hosts", "first"),
    [
        ("node1", "node1"),
        ("gpu[07-09,11],login", "gpu07"),
        ("a-b,c[1-2]", "a-b"),
        ("rack[3,5]-ib", "rack3-ib"),
        ("n[1-4].cluster.org,m1", "n1.cluster.org"),
    ],
)
def test_first_host(hosts, first):
    assert slurm.first_host(hosts) == first


def test_a_list_without_a_host_is_refused():
    with pytest.raises(ValueError, match="SLURM_STEP_NODELIST must name a host, got ''; set MASTER_ADDR"):
        slurm.first_host("")


def task(rank, folder):
    os.environ |= TASK | {"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank), "SLURM_STEP_NUM_TASKS": "2"}
    os.environ |= {"SLURM_STEP_NODELIST": "localhost", "SLURM_JOB_ID": str(os.getppid())}
    processes = distributed.start(torch.device("cpu"))
    total = torch.tensor(rank + 1)
    dist.all_reduce(total)
    (folder / str(rank)).write_text(f"{processes.rank} {processes.world_size} {total.item()}")
    distributed.stop(processes)
    os._exit(0)  # gloo's threads now and then abort an interpreter that shuts down; all is written


def test_two_tasks_meet(tmp_path):
    mp.spawn(task, (tmp_path,), nprocs=2)
    assert [(tmp_path / str(rank)).read_text() for rank in range(2)] == ["0 2 3", "1 2 3"]

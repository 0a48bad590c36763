"""The examples for clusters: what can be known of them without one."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT

SRUN = 'trap "echo saved >> arguments; exit 1" TERM; printf "%s\\n" "$@" > written; mv written arguments; sleep {seconds} & wait'


@pytest.fixture
def cluster(tmp_path: Path):
    """Return a function that runs the SLURM script beside programs of SLURM's names, which note how they are called."""

    def run(seconds: float, signal: str = "") -> tuple[int, list[str], str]:
        programs = {"srun": SRUN.format(seconds=seconds), "scontrol": 'echo "$@" >> control; echo node-1; echo node-2'}
        for name, text in programs.items():
            (tmp_path / name).write_text(f"#!/bin/bash\n{text}\n")
            (tmp_path / name).chmod(0o755)
        slurm = {"SLURM_JOB_ID": "7", "SLURM_NNODES": "2", "SLURM_GPUS_ON_NODE": "4", "SLURM_JOB_NODELIST": "node-[1-2]"}
        script = ["bash", str(ROOT / "examples" / "slurm.sh"), "lenet.yaml", "out"]
        job = subprocess.Popen(script, cwd=tmp_path, env={"PATH": f"{tmp_path}:/usr/bin:/bin"} | slurm)
        while signal and not (tmp_path / "arguments").exists():
            pass
        if signal:
            job.terminate()
        code = job.wait()
        return code, (tmp_path / "arguments").read_text().split("\n"), (tmp_path / "control").read_text()

    return run


def test_the_slurm_script_starts_torchrun_on_each_node_and_goes_on_with_a_run_that_is_there(cluster, tmp_path: Path):
    """Two nodes meet at the first; --resume only where there is something to go on with."""
    code, arguments, control = cluster(0)
    assert (code, control) == (0, "show hostnames node-[1-2]\n")
    assert " ".join(arguments).startswith("torchrun --nnodes 2 --nproc-per-node 4 --max-restarts 3 --rdzv-id 7 --rdzv-backend c10d")
    assert " ".join(arguments).rstrip().endswith("--rdzv-endpoint node-1:29500 -m nnrun train lenet.yaml --out out --quiet")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "config.yaml").touch()
    _, arguments, _ = cluster(0)
    assert arguments[-2] == "--resume"


def test_the_slurm_script_lets_the_state_be_saved_and_queues_again(cluster):
    """SIGTERM reaches the training, whose end is waited for."""
    _, arguments, control = cluster(60, "TERM")
    assert arguments[-2] == "saved"
    assert control.endswith("requeue 7\n")


def test_the_pods_of_kubernetes_run_what_they_should():
    """The manifest is a PyTorchJob of as many pods as torchrun is to wait for; its script is sound shell that ends in the training."""
    job = yaml.safe_load((ROOT / "examples" / "kubernetes.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("kubeflow.org/v1", "PyTorchJob")
    worker = job["spec"]["pytorchReplicaSpecs"]["Worker"]
    elastic = job["spec"]["elasticPolicy"]
    assert worker["replicas"] == elastic["minReplicas"] == elastic["maxReplicas"]
    container = worker["template"]["spec"]["containers"][0]
    claims = {volume["name"] for volume in worker["template"]["spec"]["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == claims
    script = container["args"][0]
    subprocess.run(["sh", "-n"], input=script, text=True, check=True)
    assert script.strip().splitlines()[-1].startswith("exec torchrun --nproc-per-node 1 -m nnrun train lenet.yaml --out lenet")

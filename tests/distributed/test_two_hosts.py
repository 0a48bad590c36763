"""Two machines: two network namespaces of this one, joined by a cable that can be cut and mended."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nnrun.data.idx import FASHION_MNIST, find
from tests.conftest import ROOT
from tests.distributed.conftest import Job

HOSTS = {f"nn{os.getpid()}a": "10.77.7.1", f"nn{os.getpid()}b": "10.77.7.2"}
"""Name → address; its end of the cable has the name of the host."""
FIRST, SECOND = HOSTS
LENET = """
extends: {lenet}
split: {{method: rows, train: "0:1500", val: "60000:60500", test: "60500:61000"}}
batch_size: 100
epochs: 4
evaluate: [val]
threads: 1
strategy: {{ddp: {{timeout: 4}}}}
checkpoint: {{every: 2 steps}}
"""


class Cable:
    """The two hosts and what joins them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.jobs: list[subprocess.Popen[str]] = []

    def start(self, *arguments: str) -> list[subprocess.Popen[str]]:
        """Start torchrun on both hosts; they meet at the first."""
        self.jobs = []
        for number, (host, address) in enumerate(HOSTS.items()):
            torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1"]
            meet = ["--rdzv-id", "7", "--rdzv-backend", "c10d", "--rdzv-endpoint", f"{HOSTS[FIRST]}:29617", "--local-addr", address]
            host_there = ["--rdzv-conf", f"is_host={int(number == 0)}"]
            command = ["ip", "netns", "exec", host, *torchrun, *meet, *host_there, "-m", "nnrun", "train", "lenet.yaml", *arguments]
            environment = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": host}
            job = subprocess.Popen(
                command, cwd=self.folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
            )
            self.jobs.append(job)
        return self.jobs

    def ended(self) -> list[tuple[int, str, str]]:
        """Return exit code, stdout and stderr of both, once they have ended."""
        made = []
        for job in self.jobs:
            out, told = job.communicate(timeout=120)
            made.append((job.returncode, out, told))
        return made

    def trainings_ended(self) -> list[str]:
        """Return stderr of both, once their trainings have ended; the second launcher waits a minute for a store that is gone, and is killed."""
        _, told = self.jobs[0].communicate(timeout=120)
        assert self.jobs[0].returncode == 1, told  # torchrun's own code, whatever a training ends with
        while len(pids(SECOND)) > 1:
            time.sleep(0.1)
        self.jobs[1].kill()
        return [told, self.jobs[1].communicate()[1]]

    def set(self, state: str) -> None:
        """Cut the cable (`down`) or mend it (`up`)."""
        ip("-n", FIRST, "link", "set", FIRST, state)


def ip(*arguments: str) -> str:
    return subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True).stdout


def pids(host: str) -> list[int]:
    return [int(pid) for pid in ip("netns", "pids", host).split()]


@pytest.fixture
def cable(tmp_path: Path) -> Iterator[Cable]:
    """Return two hosts joined by a cable; skipped where nobody may make them."""
    try:
        for host in HOSTS:
            ip("netns", "add", host)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("network namespaces are not allowed here")
    try:
        ip("link", "add", FIRST, "netns", FIRST, "type", "veth", "peer", "name", SECOND, "netns", SECOND)
        for host, address in HOSTS.items():
            ip("-n", host, "addr", "add", f"{address}/24", "dev", host)
            ip("-n", host, "link", "set", host, "up")
            ip("-n", host, "link", "set", "lo", "up")
        yield Cable(tmp_path)
    finally:
        for host in HOSTS:
            for pid in pids(host):
                os.kill(pid, signal.SIGKILL)
            ip("netns", "del", host)


def digests(folder: Path) -> list[bytes]:
    return [(folder / name).read_bytes() for name in ("last.safetensors", "best.safetensors")]


@pytest.mark.skipif(find(FASHION_MNIST) is None, reason="the files of FashionMNIST are not here")
def test_a_cable_that_is_cut_ends_the_run_and_once_mended_it_goes_on(cable: Cable, job: Job):
    """Lenet on two machines, with the cable cut on the way: the bytes of two processes on one machine."""
    (cable.folder / "lenet.yaml").write_text(LENET.format(lenet=ROOT / "configs" / "lenet.yaml"))
    assert job(2, "train", cable.folder / "lenet.yaml", "--out", cable.folder / "whole").codes == [0, 0]

    jobs = cable.start("--out", "cut")
    rows = cable.folder / "cut" / "metrics.jsonl"
    while not (rows.exists() and rows.read_bytes()):
        time.sleep(0.02)
        assert [job.poll() for job in jobs] == [None, None]
    cable.set("down")
    first, second = cable.trainings_ended()
    assert re.search(r"\nerror: process 1 of 2 does not answer after step \d+ \(counted from 0, this is process 0\)", first), first
    assert re.search(r"\nerror: the 2 processes lost each other after step \d+: the network between them failed\n", second), second
    cable.set("up")

    cable.start("--out", "cut", "--resume")
    ended = cable.ended()
    assert [code for code, _, _ in ended] == [0, 0], ended
    assert [out for _, out, _ in ended] == ["cut\n", ""]
    assert digests(cable.folder / "cut") == digests(cable.folder / "whole")

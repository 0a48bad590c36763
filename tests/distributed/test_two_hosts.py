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
strategy: {{ddp: {{timeout: 6}}}}
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

    def first_ended(self) -> tuple[int, str, str]:
        """Return the same of the first host, and end the other, whose launcher waits a minute for a store that is gone."""
        out, told = self.jobs[0].communicate(timeout=120)
        os.killpg(self.jobs[1].pid, signal.SIGKILL)
        self.jobs[1].communicate()
        return self.jobs[0].returncode, out, told

    def set(self, state: str) -> None:
        """Cut the cable (`down`) or mend it (`up`)."""
        ip("-n", FIRST, "link", "set", FIRST, state)


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


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
            pids = subprocess.run(["ip", "netns", "pids", host], capture_output=True, text=True, check=False).stdout.split()
            subprocess.run(["kill", "-9", *pids], check=False, capture_output=True) if pids else None
            ip("netns", "del", host)


def digests(folder: Path) -> list[bytes]:
    return [(folder / name).read_bytes() for name in ("last.safetensors", "best.safetensors")]


@pytest.mark.skipif(find(FASHION_MNIST) is None, reason="the files of FashionMNIST are not here")
def test_a_cable_that_is_cut_ends_the_run_and_once_mended_it_goes_on(cable: Cable):
    """Lenet on two machines: the same bytes with the cable cut on the way as without."""
    (cable.folder / "lenet.yaml").write_text(LENET.format(lenet=ROOT / "configs" / "lenet.yaml"))
    cable.start("--out", "whole")
    ended = cable.ended()
    assert [code for code, _, _ in ended] == [0, 0], ended
    assert [out for _, out, _ in ended] == ["whole\n", ""]

    jobs = cable.start("--out", "cut")
    rows = cable.folder / "cut" / "metrics.jsonl"
    while not (rows.exists() and rows.read_bytes()):
        time.sleep(0.02)
        assert [job.poll() for job in jobs] == [None, None]
    cable.set("down")
    code, out, told = cable.first_ended()
    assert (code, out) == (1, ""), told  # torchrun's own code: any failure is 1
    assert re.search(r"error: process 1 of 2 was not heard from .*step \d+", told), told
    cable.set("up")

    cable.start("--out", "cut", "--resume")
    ended = cable.ended()
    assert [code for code, _, _ in ended] == [0, 0], ended
    assert digests(cable.folder / "cut") == digests(cable.folder / "whole")

"""The limit of any loop in Python: a bare one over tensors, no figure ever read."""

from __future__ import annotations

import time

import torch

from nnrun.run import Run


def bare_epochs(run: Run, model: torch.nn.Module, optimizer: torch.optim.Optimizer, epochs: int) -> float:
    """Return the seconds of a loop without logging, metrics or checkpoints."""
    part, size = run.data.parts["train"], run.plan.batch_size
    loss_fn = torch.nn.CrossEntropyLoss() if run.data.task.classes else torch.nn.MSELoss()
    x, y, rows = part.x, run.network.head.encode(part.y), len(part)
    last = rows - size + 1 if run.plan.drop_last else rows
    started = time.perf_counter()
    for _ in range(epochs):
        if run.plan.shuffle and size < rows:
            order = torch.randperm(rows)
            x_epoch, y_epoch = x[order], y[order]
        else:
            x_epoch, y_epoch = x, y
        for start in range(0, last, size):
            optimizer.zero_grad()
            loss = loss_fn(model(x_epoch[start : start + size]), y_epoch[start : start + size])
            loss.backward()
            optimizer.step()
    return time.perf_counter() - started

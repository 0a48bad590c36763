"""Iris by hand, in plain torch: `python by_hand.py train`, then `eval`, then `predict FLOWERS.csv OUT.csv`."""

import csv
import json
import sys

import numpy as np
import torch
from torch import Tensor, nn


def rows() -> tuple[Tensor, Tensor, Tensor, Tensor, float, float]:
    """Return the training and test rows, scaled, and what they were scaled by."""
    from sklearn.datasets import load_iris
    from sklearn.model_selection import train_test_split

    x, y = load_iris(return_X_y=True)
    x_train, x_test, y_train, y_test = train_test_split(x, y, test_size=50, random_state=1)
    mean, deviation = x_train.mean(), x_train.std()
    x_train, x_test = (torch.tensor((part - mean) / deviation, dtype=torch.float32) for part in (x_train, x_test))
    y_train, y_test = (torch.tensor(part.astype(np.int64)) for part in (y_train, y_test))
    return x_train, y_train, x_test, y_test, mean, deviation


def network() -> nn.Module:
    """Return the network, its weights by seed 1."""
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(4, 16), nn.Sigmoid(), nn.Linear(16, 3))


def stored() -> tuple[nn.Module, float, float]:
    """Return the network that was trained, and what its inputs are scaled by."""
    kept = torch.load("model.pt", weights_only=True)
    model = network()
    model.load_state_dict(kept["model"])
    return model.eval(), kept["mean"], kept["deviation"]


def train() -> None:
    """Train for 100 epochs, and save the network."""
    x_train, y_train, _, _, mean, deviation = rows()
    model, loss_fn = network(), nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    with open("metrics.jsonl", "w") as file:
        for epoch in range(1, 101):
            order, total = torch.randperm(100), 0.0
            for start in range(0, 100, 2):
                batch = order[start : start + 2]
                optimizer.zero_grad()
                loss = loss_fn(model(x_train[batch]), y_train[batch])
                loss.backward()
                optimizer.step()
                total += loss.item() * len(batch)
            file.write(json.dumps({"epoch": epoch, "loss": total / 100}) + "\n")
    torch.save({"model": model.state_dict(), "mean": float(mean), "deviation": float(deviation)}, "model.pt")


@torch.no_grad()
def evaluate() -> None:
    """Print the accuracy on the test rows."""
    _, _, x_test, y_test, _, _ = rows()
    print("test accuracy", (stored()[0](x_test).argmax(1) == y_test).float().mean().item())


@torch.no_grad()
def predict(flowers: str, out: str) -> None:
    """Write the species of the flowers in a file."""
    model, mean, deviation = stored()
    with open(flowers) as file:
        x = [[float(row[name]) for name in row if name != "species"] for row in csv.DictReader(file)]
    predicted = model((torch.tensor(x) - mean) / deviation).argmax(1).tolist()
    with open(out, "w") as file:
        csv.writer(file).writerows([["species"], *([["setosa", "versicolor", "virginica"][number]] for number in predicted)])


if __name__ == "__main__":
    {"train": train, "eval": evaluate, "predict": predict}[sys.argv[1]](*sys.argv[2:])

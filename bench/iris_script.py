"""Iris as one would write it by hand: the same split, network, optimiser and epochs; metrics per epoch, and a saved model, which is loaded
to score the test rows and to write a prediction for each."""

import csv
import json

import numpy as np
import torch
from sklearn.datasets import load_iris
from sklearn.model_selection import train_test_split
from torch import nn

x, y = load_iris(return_X_y=True)
x_train, x_test, y_train, y_test = train_test_split(x, y, test_size=50, random_state=1)
mean, deviation = x_train.mean(), x_train.std()
x_train, x_test = (torch.tensor((part - mean) / deviation, dtype=torch.float32) for part in (x_train, x_test))
y_train, y_test = (torch.tensor(part.astype(np.int64)) for part in (y_train, y_test))

torch.manual_seed(1)
model = nn.Sequential(nn.Linear(4, 16), nn.Sigmoid(), nn.Linear(16, 3))
loss_fn = nn.CrossEntropyLoss()
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
with open("metrics.jsonl", "w") as file:
    for epoch in range(1, 101):
        order, total = torch.randperm(100), 0.0
        for start in range(0, 100, 2):
            rows = order[start : start + 2]
            optimizer.zero_grad()
            loss = loss_fn(model(x_train[rows]), y_train[rows])
            loss.backward()
            optimizer.step()
            total += loss.item() * len(rows)
        file.write(json.dumps({"epoch": epoch, "loss": total / 100}) + "\n")
torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, "model.pt")

loaded = nn.Sequential(nn.Linear(4, 16), nn.Sigmoid(), nn.Linear(16, 3))
loaded.load_state_dict(torch.load("model.pt")["model"])
with torch.no_grad():
    probabilities = loaded(x_test).softmax(1)
predicted = probabilities.argmax(1)
print("test accuracy", (predicted == y_test).float().mean().item())
with open("predictions.csv", "w", newline="") as file:
    writer = csv.writer(file)
    writer.writerow(["prediction", "probability"])
    writer.writerows(zip(predicted.tolist(), probabilities.amax(1).tolist(), strict=True))

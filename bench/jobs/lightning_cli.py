"""Iris by LightningCLI: `python lightning_cli.py fit`, then `test` and `predict` with `--ckpt_path`.

Quiet: no logger, no progress bar, no summary; it writes the checkpoint that the other two need.
"""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import operators  # noqa: F401 (beside this script; Lightning imports torchvision where it is installed)
import torch
from lightning import LightningDataModule, LightningModule
from lightning.pytorch.callbacks import BasePredictionWriter
from lightning.pytorch.cli import LightningCLI
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset


class Iris(LightningDataModule):
    """The rows of iris, split and scaled; for predictions those of a file."""

    def __init__(self, flowers: str = "flowers.csv") -> None:
        super().__init__()
        self.flowers = flowers

    def setup(self, stage: str) -> None:
        from sklearn.datasets import load_iris
        from sklearn.model_selection import train_test_split

        x, y = load_iris(return_X_y=True)
        x_train, x_test, y_train, y_test = train_test_split(x, y, test_size=50, random_state=1)
        mean, deviation = x_train.mean(), x_train.std()
        self.parts = {
            name: TensorDataset(torch.tensor((x - mean) / deviation, dtype=torch.float32), torch.tensor(y.astype(np.int64)))
            for name, x, y in (("train", x_train, y_train), ("test", x_test, y_test))
        }
        if stage == "predict":
            with open(self.flowers) as file:
                rows = [[float(row[name]) for name in row if name != "species"] for row in csv.DictReader(file)]
            self.parts["predict"] = TensorDataset((torch.tensor(rows) - mean) / deviation)

    def train_dataloader(self) -> DataLoader:
        return DataLoader(self.parts["train"], batch_size=2, shuffle=True)

    def test_dataloader(self) -> DataLoader:
        return DataLoader(self.parts["test"], batch_size=50)

    def predict_dataloader(self) -> DataLoader:
        return DataLoader(self.parts["predict"], batch_size=150)


class Net(LightningModule):
    """The network of configs/iris.yaml."""

    def __init__(self, lr: float = 1e-3) -> None:
        super().__init__()
        self.lr, self.loss_fn = lr, nn.CrossEntropyLoss()
        self.model = nn.Sequential(nn.Linear(4, 16), nn.Sigmoid(), nn.Linear(16, 3))

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        return self.loss_fn(self.model(batch[0]), batch[1])

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self.log("accuracy", (self.model(batch[0]).argmax(1) == batch[1]).float().mean())

    def predict_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return self.model(batch[0]).argmax(1)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=self.lr)


class Written(BasePredictionWriter):
    """Writes what is predicted."""

    def __init__(self) -> None:
        super().__init__("epoch")

    def write_on_epoch_end(self, trainer: Any, pl_module: Any, predictions: list[Tensor], batch_indices: Any) -> None:
        rows = [[["setosa", "versicolor", "virginica"][number]] for number in torch.cat(predictions).tolist()]
        with Path("predictions.csv").open("w") as file:
            csv.writer(file).writerows([["species"], *rows])


if __name__ == "__main__":
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    LightningCLI(
        Net,
        Iris,
        seed_everything_default=1,
        save_config_callback=None,
        trainer_defaults={"accelerator": "cpu", "max_epochs": 100, "default_root_dir": ".", "callbacks": Written(), **quiet},
    )

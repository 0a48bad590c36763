"""The few torch modules that torch itself does not have in this form. Their weights carry torch's own names.

N rows in a batch, T steps of a sequence, D features of a step, H features of the hidden state.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from nnrun.errors import DataError


class Embedding(nn.Embedding):
    """Look up one learned vector per number; the numbers come as floats, as all inputs do."""

    def reset_parameters(self) -> None:
        """Draw the vectors; not on the meta device, where torch would import its compiler for it (2 s) and draw nothing."""
        if not self.weight.is_meta:
            super().reset_parameters()

    def forward(self, input: Tensor) -> Tensor:
        """Return (N, ..., embedding_dim) for whole numbers (N, ...).

        Raises:
            DataError: when a number is outside the table, and the model is on the CPU. On CUDA it is torch that stops.
        """
        index = input.long()
        try:
            return super().forward(index)
        except IndexError:
            wrong = index[(index < 0) | (index >= self.num_embeddings)][0].item()
            what = f"embedding: the input holds {wrong}, and num_embeddings: {self.num_embeddings} allows 0 to {self.num_embeddings - 1}"
            raise DataError(what, fix="raise num_embeddings, and keep steps that change the numbers out of preprocess") from None


class EmbedColumns(nn.Module):
    """Look up learned vectors for the columns of categories in a table; the other columns come first, as they are.

    Args:
        columns: how many columns come.
        embedded: column → how many categories its numbers stand for (0 is that of others), and how long the vector of each is.
    """

    plain: Tensor

    def __init__(self, columns: int, embedded: Mapping[int, tuple[int, int]]) -> None:
        super().__init__()
        self.register_buffer("plain", torch.tensor([number for number in range(columns) if number not in embedded]), persistent=False)
        self.tables = nn.ModuleDict({str(number): Embedding(rows, size) for number, (rows, size) in embedded.items()})

    def forward(self, input: Tensor) -> Tensor:
        """Return (N, plain columns + sizes of the vectors) for (N, columns)."""
        plain = input.index_select(1, self.plain.long())
        return torch.cat([plain, *(table(input[:, int(number)]) for number, table in self.tables.items())], 1)


class Residual(nn.Sequential):
    """Add what comes in, or what a shortcut makes of it, to what the layers inside make of it; both have one shape."""

    def __init__(self, *layers: Any, around: nn.Module | None = None) -> None:
        super().__init__(*layers)
        self.shortcut = around

    def forward(self, input: Tensor) -> Tensor:
        """Return (N, ...) for (N, ...)."""
        output = input
        for name, layer in self.named_children():
            if name != "shortcut":
                output = layer(output)
        return (input if self.shortcut is None else self.shortcut(input)) + output


def _last_state(hidden: Tensor, directions: int) -> Tensor:
    """Return (N, directions * H): the last layer's part of (layers * directions, N, H), forward direction first."""
    return torch.cat(tuple(hidden[-directions:]), dim=-1)


class RNN(nn.RNN):
    """A plain recurrent net that gives its last state."""

    def forward(self, input: Tensor) -> Tensor:  # type: ignore[override]
        """Return (N, H), or (N, 2H) when bidirectional, for (N, T, D)."""
        _, hidden = super().forward(input)
        return _last_state(hidden, 1 + self.bidirectional)


class GRU(nn.GRU):
    """A GRU that gives its last state."""

    def forward(self, input: Tensor) -> Tensor:  # type: ignore[override]
        """Return (N, H), or (N, 2H) when bidirectional, for (N, T, D)."""
        _, hidden = super().forward(input)
        return _last_state(hidden, 1 + self.bidirectional)


class LSTM(nn.LSTM):
    """An LSTM that gives its last hidden state."""

    def forward(self, input: Tensor) -> Tensor:  # type: ignore[override]
        """Return (N, H), or (N, 2H) when bidirectional, for (N, T, D)."""
        _, (hidden, _) = super().forward(input)
        return _last_state(hidden, 1 + self.bidirectional)

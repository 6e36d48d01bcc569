"""The table of vectors that integers name."""

from __future__ import annotations

from typing import Any, Self

import numpy as np

from . import init
from .functional.embedding import check_options, look_up, padding_row
from .functional.sizes import positive_integer
from .module import Module
from .parameter import Parameter


class Embedding(Module):
    """Rows of a table: integers (...) -> (..., embedding_dim).

    Parameters
    ----------
    num_embeddings, embedding_dim : rows and columns of the table. padding_idx : a row that starts as zeros and is not trained.
    max_norm, scale_grad_by_freq, sparse : not supported (ValueError); norm_type goes with max_norm.

    Attributes: weight (num_embeddings, embedding_dim), drawn from a standard normal distribution.

    A model with this layer inside keeps integer arrays as integers; layers that want floats convert them. An index
    outside of 0 to num_embeddings - 1 raises ValueError before anything is computed.

    >>> import numpy as np
    >>> layer = Embedding(10, 3, padding_idx=0)
    >>> layer
    Embedding(10, 3, padding_idx=0)
    >>> layer(np.array([[1, 2, 0], [4, 0, 9]])).shape
    (2, 3, 3)
    >>> layer(np.array([0]))
    array([[0., 0., 0.]], dtype=float32)
    """

    takes_indices = True

    def __init__(
        self, num_embeddings: int, embedding_dim: int, padding_idx: int | None = None, max_norm: None = None,
        norm_type: float = 2.0, scale_grad_by_freq: bool = False, sparse: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        check_options(max_norm, scale_grad_by_freq, sparse)
        self.num_embeddings = positive_integer(num_embeddings, "num_embeddings")
        self.embedding_dim = positive_integer(embedding_dim, "embedding_dim")
        row = padding_row(padding_idx, num_embeddings)
        self.padding_idx = None if row < 0 else row
        self.weight = Parameter(init.empty(num_embeddings, embedding_dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws new weights from a standard normal distribution; the row padding_idx becomes zeros."""
        init.normal_(self.weight)
        if self.padding_idx is not None:
            values = np.array(self.weight.data)
            values[self.padding_idx] = 0.0
            self.weight.data = values

    @classmethod
    def from_pretrained(cls, embeddings: Any, freeze: bool = True, padding_idx: int | None = None) -> Self:
        """A layer with a given table (rows, columns), which training leaves as it is unless freeze=False.

        >>> import numpy as np
        >>> Embedding.from_pretrained(np.array([[1.0, 2.0], [3.0, 4.0]]))(np.array(1))
        array([3., 4.], dtype=float32)
        """
        table = np.asarray(embeddings)
        if table.ndim != 2:
            raise ValueError(f"Embedding: a table must have the shape (rows, columns), got {table.shape}")
        layer = cls(table.shape[0], table.shape[1], padding_idx)
        layer.weight.data = table
        layer.weight.requires_grad = not freeze
        return layer

    def forward(self, x: Any) -> Any:  # type: ignore[override]
        return look_up(x, self.weight, self.padding_idx, repr(self))

    def extra_repr(self) -> str:
        padding = "" if self.padding_idx is None else f", padding_idx={self.padding_idx}"
        return f"{self.num_embeddings}, {self.embedding_dim}{padding}"

"""Which convolutions are computed by Winograd's algorithms, and how they are cut."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn
from fastnn.graph import Graph
from fastnn.ops import convolution_winograd_strided
from fastnn.ops.convolution_algorithm import (
    MIN_TILES,
    MIN_TILES_WEIGHT,
    Form,
    Product,
    schedule,
    weight_schedule,
)
from fastnn.ops.convolution_geometry import Geometry
from fastnn.ops.convolution_winograd_strided import PHASES, StridedProduct
from fastnn.plan import compile_graph
from fastnn.settings import current_facts


def kernels_of(x: tuple[int, ...], k: int, algorithm: str = "auto", r: int = 3, **attributes: Any) -> set[str]:
    graph = Graph()
    options = {"stride": (1, 1), "padding": (r // 2,) * 4, "dilation": (1, 1), "groups": 1, **attributes}
    image, weight = graph.input(x), graph.input((k, x[1] // options["groups"], r, r))
    graph.outputs = [graph.record("conv2d", image, weight, **options)]
    with fnn.conv_algorithm(algorithm):
        return {step.kernel for step in compile_graph(graph, current_facts()).steps}


def test_choice() -> None:
    assert "winograd_forward" in kernels_of((16, 64, 56, 56), 64)
    assert "winograd_forward" in kernels_of((16, 512, 7, 7), 512)
    assert "winograd_forward" in kernels_of((1, 64, 56, 56), 64)
    assert "conv2d_strip_forward" in kernels_of((16, 64, 56, 56), 64, "direct")
    assert "conv2d_strip_forward" in kernels_of((16, 3, 32, 32), 64)  # few channels
    assert "winograd_forward" in kernels_of((1, 512, 7, 7), 512)
    assert "conv2d_forward" in kernels_of((1, 512, 4, 4), 512)  # few tiles
    assert "conv2d_forward" in kernels_of((16, 64, 1, 1), 64)  # most of a tile would be waste
    assert "winograd_forward" in kernels_of((1, 3, 1, 1), 2, "winograd")
    assert "winograd_forward" in kernels_of((16, 64, 27, 27), 192, r=5)
    assert "winograd_forward" in kernels_of((1, 16, 28, 28), 32, r=5)
    assert "winograd_forward" not in kernels_of((16, 8, 28, 28), 32, r=5)  # few channels
    assert "winograd_forward" not in kernels_of((16, 64, 1, 1), 64, r=5)


@pytest.mark.parametrize(
    "attributes",
    [
        {"stride": (1, 2)},
        {"dilation": (2, 1)},
        {"groups": 2},
        {"padding": (3, 1, 1, 1)},
        {"r": 5, "padding": (2, 2, 2, 5)},
        {"r": 5, "groups": 2},
        {"r": 7},
    ],  # fmt: skip
)
def test_falls_back_where_it_does_not_apply(attributes: dict[str, Any]) -> None:
    assert not any("winograd" in name for name in kernels_of((2, 32, 20, 20), 32, "winograd", **attributes))


def test_tables() -> None:
    """Tiles of two for images that tiles of four overhang; parts of a weight gradient do not depend on threads."""
    assert [Product(1, n, n, 64, 64).tile for n in (1, 2, 3, 4, 5, 6, 7, 8, 14, 56)] == [2, 2, 4, 4, 2, 2, 4, 4, 4, 4]
    assert Product(1, 56, 56, 64, 64).tiles(4) == 196 >= MIN_TILES_WEIGHT[3]
    facts = current_facts()
    for batch in (1, 16):
        assert schedule(Product(batch, 56, 56, 64, 64, fixed=True), False, facts).form == Form.PACKED
        assert weight_schedule(Product(batch, 56, 56, 64, 64)).shared == (batch == 1)
    large = Product(16, 7, 7, 512, 512)
    assert schedule(large, False, facts).form == Form.FILTERS
    assert schedule(large, True, facts).form == Form.ROTATED
    assert schedule(replace(large, fixed=True), False, facts).form == Form.PACKED
    few = schedule(replace(large, batch=2, fixed=True), False, facts)
    assert few.form == (Form.PANELS if facts.lanes >= 16 else Form.PACKED)
    assert schedule(large, False, facts).shared
    assert weight_schedule(large).parts == 1


@pytest.mark.parametrize(
    ("channels", "side", "tile"),
    [(64, 4, 0), (64, 7, 4), (64, 8, 4), (256, 2, 0), (256, 4, 2), (256, 7, 4), (512, 4, 0), (512, 7, 2), (16, 4, 0)],
)
def test_fixed_weights_may_do_with_few_tiles(channels: int, side: int, tile: int) -> None:
    """Where reading the transformed filters takes less time than they save; tile 0: the direct algorithm."""
    fixed, changing = (Product(1, side, side, channels, channels, fixed=f) for f in (True, False))
    assert fixed.pays(MIN_TILES[True]) == (tile > 0)
    assert not tile or fixed.tile == tile
    assert not changing.pays(MIN_TILES[True])


def strided_kernels_of(
    x: tuple[int, ...], k: int, algorithm: str = "auto", fixed: bool = False, **attributes: Any
) -> list[str]:
    """Of the convolution, and of the gradient of its input."""
    options = {"stride": (2, 2), "padding": (1,) * 4, "dilation": (1, 1), "groups": 1, "r": 3, **attributes}
    r = options.pop("r")
    names = []
    for backward in (False, True):
        graph = Graph()
        weight = nn.Parameter(np.zeros((k, x[1] // options["groups"], r, r), np.float32)).variable if fixed else None
        filters = graph.variable(weight) if weight else graph.input((k, x[1] // options["groups"], r, r))
        y = Geometry(x, filters.shape, options["stride"], options["padding"], options["dilation"], options["groups"]).y
        image = graph.input(y if backward else x)
        name, shape = ("conv2d_backward_data", {"shape": x}) if backward else ("conv2d", {})
        graph.outputs = [graph.record(name, image, filters, **shape, **options)]
        with fnn.conv_algorithm(algorithm):
            names.append(compile_graph(graph, current_facts()).steps[-1].kernel)
    return names


BOTH = ["winograd_strided_forward", "winograd_strided_backward_data"]


def test_choice_with_stride() -> None:
    assert strided_kernels_of((16, 64, 56, 56), 128) == strided_kernels_of((16, 256, 14, 14), 512) == BOTH
    assert strided_kernels_of((1, 128, 28, 28), 256, fixed=True) == BOTH
    assert strided_kernels_of((1, 3, 1, 1), 2, "winograd") == BOTH
    for case in (
        strided_kernels_of((16, 64, 56, 56), 128, "direct"),
        strided_kernels_of((1, 128, 28, 28), 256),  # few tiles for filters that change
        strided_kernels_of((1, 256, 14, 14), 512, fixed=True),  # for filters that no cache holds
        strided_kernels_of((64, 64, 4, 4), 64),  # tiles of 2x2 outputs save less than they cost
        strided_kernels_of((16, 8, 56, 56), 64),  # few channels
        strided_kernels_of((16, 64, 56, 56), 8),
    ):
        assert not any("winograd" in name for name in case)


@pytest.mark.parametrize(
    "attributes",
    [
        {"stride": (1, 2)},
        {"stride": (2, 1)},
        {"stride": (3, 3)},
        {"dilation": (2, 1)},
        {"groups": 2},
        {"padding": (3, 1, 1, 1)},
        {"padding": (1, 1, 1, 3)},
        {"r": 5},
        {"r": 2},
    ],  # fmt: skip
)
def test_stride_falls_back_where_it_does_not_apply(attributes: dict[str, Any]) -> None:
    assert not any("winograd" in name for name in strided_kernels_of((2, 32, 40, 40), 32, "winograd", **attributes))


def test_tables_with_stride() -> None:
    """Which cut: from the shape, blocks of whole register tiles, filters packed where many tiles use them."""
    facts, layer = current_facts(), StridedProduct(16, 28, 28, 64, 128, False)
    assert layer.tiles == 784
    assert layer.share == pytest.approx(81 / 144)
    assert replace(layer, rows=7).share == pytest.approx((9 + 7) / 21 * 0.75)
    cut = convolution_winograd_strided.schedule(layer, facts)
    assert not cut.shared
    assert cut.form == Form.PACKED
    assert cut.block % facts.gemm_rows == 0
    large = StridedProduct(16, 7, 7, 256, 512, False)
    assert convolution_winograd_strided.schedule(large, facts).shared
    assert convolution_winograd_strided.schedule(large, facts).form == Form.FILTERS
    assert convolution_winograd_strided.schedule(replace(large, backward=True), facts).form == Form.ROTATED
    assert convolution_winograd_strided.schedule(replace(large, fixed=True), facts).form == Form.PACKED
    middle = StridedProduct(16, 14, 14, 128, 256, False)
    assert convolution_winograd_strided.schedule(middle, facts).form == Form.PACKED
    assert convolution_winograd_strided.schedule(replace(middle, batch=8), facts).form == Form.FILTERS
    assert layer.in_phases == PHASES
    most, fewest = convolution_winograd_strided.MIN_TILES, convolution_winograd_strided.MIN_TILES_CACHED
    for product in (replace(layer, rows=4, columns=4, batch=batch) for batch in (fewest, most - 1, most)):
        assert product.pays == (product.tiles >= most)
        assert replace(product, fixed=True).pays

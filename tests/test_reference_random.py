"""Philox against published vectors, the layout of the random stream, and every kind of dropout."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fastnn import reference

# Random123's known-answer file, lines "philox4x32 10": counter, key, result.
KNOWN_ANSWERS = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]
COUNT = 200_000


def words(text: str) -> np.ndarray:
    return np.array([int(word, 16) for word in text.split()], dtype=np.uint32)


@pytest.mark.parametrize(("counter", "key", "result"), KNOWN_ANSWERS)
def test_philox_known_answers(counter: str, key: str, result: str) -> None:
    np.testing.assert_array_equal(reference.philox4x32(words(counter), words(key)), words(result))


def test_philox_broadcasts_leading_axes() -> None:
    counters = np.stack([words(answer[0]) for answer in KNOWN_ANSWERS])
    keys = np.stack([words(answer[1]) for answer in KNOWN_ANSWERS])
    results = np.stack([words(answer[2]) for answer in KNOWN_ANSWERS])
    table = reference.philox4x32(counters[:, None], keys)
    assert table.shape == (3, 3, 4)
    np.testing.assert_array_equal(table[[0, 1, 2], [0, 1, 2]], results)


def test_random_bits_are_the_stream_of_the_contract() -> None:
    seed, layer, step = 0x0123456789ABCDEF, 7, 0xFFFFFFFF12345678
    bits = reference.random_bits(11, seed, layer, step)
    assert bits.dtype == np.uint32
    key = np.array([0x89ABCDEF, 0x01234567], dtype=np.uint32)
    for i, word in enumerate(bits):
        counter = np.array([i // 4, 0, 0x12345678, layer], dtype=np.uint32)
        assert word == reference.philox4x32(counter, key)[i % 4]
    assert reference.random_bits(0, seed, layer, step).shape == (0,)
    np.testing.assert_array_equal(reference.uniform(11, seed, layer, step), bits / 2.0**32)


def test_streams_of_different_seeds_layers_and_steps_differ() -> None:
    streams = [(0, 0, 0), (1, 0, 0), (2**32, 0, 0), (0, 1, 0), (0, 0, 1)]
    drawn = np.stack([reference.random_bits(1000, *stream) for stream in streams])
    assert np.unique(drawn).size > drawn.size - 10  # 5,000 words of 32 bits: three collisions would be many


def box_muller(first: int, second: int) -> tuple[float, float]:
    """As csrc/kernels/noise_dropout.c has it: the two normal numbers of a pair of words."""
    u = float(np.float32((first >> 1) | 1)) / 2**31
    angle = math.pi / 2 * (second - 2**32 * (second >> 31)) / 2**31
    radius = math.sqrt(-2.0 * math.log(u))
    return (-1) ** (first & 1) * radius * math.cos(angle), radius * math.sin(angle)


def test_normal_is_box_muller_of_word_pairs() -> None:
    words = [int(word) for word in reference.random_bits(128, seed=3, layer=1, step=2)]
    expected = np.empty(256)
    for i in range(256):
        group, part, k = i // 128, i % 128 // 32, i % 32
        pair = words[64 * group + 2 * k : 64 * group + 2 * k + 2]
        if part >= 2:
            pair = [(word & 0xFFFF) << 16 | word >> 16 for word in pair]
        expected[i] = box_muller(*pair)[part % 2]
    for count in (0, 5, 129, 256):
        np.testing.assert_allclose(reference.normal(count, seed=3, layer=1, step=2), expected[:count], rtol=1e-12)


def test_normal_numbers_of_the_same_words_are_independent() -> None:
    z = reference.normal(COUNT // 128 * 128, seed=5, layer=0, step=0).reshape(-1, 4, 32)
    sigma = 5.0 / math.sqrt(z.size // 4)
    for a in range(4):
        for b in range(a):
            for function in (lambda x: x, np.abs, np.square, lambda x: x > 0.5, lambda x: x > 2):
                one, other = (function(z[:, i]).astype(np.float64) for i in (a, b))
                correlation = np.corrcoef(one.ravel(), other.ravel())[0, 1]
                assert abs(correlation) < sigma


def test_normal_moments() -> None:
    z = reference.normal(COUNT, seed=4, layer=0, step=0)
    sigma = 5.0 / math.sqrt(COUNT)  # five standard deviations of each sample moment
    assert abs(z.mean()) < sigma
    assert abs((z**2).mean() - 1) < sigma * math.sqrt(2)
    assert abs((z**3).mean()) < sigma * math.sqrt(15)
    assert abs((z**4).mean() - 3) < sigma * math.sqrt(96)
    assert abs((z[::2] * z[1::2]).mean()) < sigma * math.sqrt(2)
    assert abs((z[::2] ** 2 * z[1::2] ** 2).mean() - 1) < sigma * math.sqrt(2 * 8)


def test_two_draws_of_a_word() -> None:
    stream = {"seed": 5, "layer": 6, "step": 7}
    drawn, bits = reference.draws(300, **stream), reference.random_bits(192, **stream)
    for i in (0, 1, 63, 64, 100, 127, 128, 191, 192, 255, 299):
        word = int(bits[i // 128 * 64 + i % 64])
        assert drawn[i] == (word if i % 128 < 64 else (word >> 16) | (word & 0xFFFF) << 16)
    assert reference.draws(0, **stream).shape == (0,)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.5 + 2.0**-17, 0.999])
def test_two_draws_of_a_word_decide_apart(p: float) -> None:
    kept = reference.keep_mask(COUNT // 128 * 128, p, seed=3, layer=0, step=1).reshape(-1, 2, 64)
    both, pairs = (kept[:, 0] & kept[:, 1]).mean(), kept[:, 0].size
    assert abs(both - (1 - p) ** 2) < 5 * math.sqrt((1 - p) ** 2 * (1 - (1 - p) ** 2) / pairs) + 2.0**-17


@pytest.mark.parametrize(("p", "threshold"), [(0.0, 0), (0.5, 2**31), (0.1, 429496729), (1.0, 2**32 - 1)])
def test_keep_threshold(p: float, threshold: int) -> None:
    assert reference.keep_threshold(p) == threshold


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_rate_of_dropout(p: float) -> None:
    kept = reference.dropout_mask((COUNT,), p, seed=9).mean()
    assert abs(kept - (1 - p)) <= 5 * math.sqrt(p * (1 - p) / COUNT)  # exact for p = 0 and p = 1


def test_neighbours_steps_and_layers_are_independent() -> None:
    def mask(layer: int, step: int) -> np.ndarray:
        return reference.dropout_mask((COUNT,), 0.5, seed=1, layer=layer, step=step) - 0.5

    here = mask(0, 0)
    for other in (np.roll(here, 1), np.roll(here, 4), np.roll(here, 64), mask(0, 1), mask(1, 0)):
        assert abs((here * other).mean()) < 5 * 0.25 / math.sqrt(COUNT)


def test_elements_are_counted_in_memory_order() -> None:
    n, c, h, w = 2, 3, 4, 5
    flat = reference.dropout_mask((n * c * h * w,), 0.5, seed=1, layer=2, step=3)
    stream = {"seed": 1, "layer": 2, "step": 3}
    image = reference.dropout_mask((n, c, h, w), 0.5, **stream)
    assert image[1, 2, 3, 1] == flat[((1 * h + 3) * w + 1) * c + 2]
    np.testing.assert_array_equal(image.transpose(0, 2, 3, 1).ravel(), flat)
    signal = reference.dropout_mask((n, c, h * w), 0.5, **stream)
    np.testing.assert_array_equal(signal.ravel(), flat)
    np.testing.assert_array_equal(reference.dropout_mask((n, c * h * w), 0.5, **stream).ravel(), flat)
    channels = reference.dropout_mask((n, c, h, w), 0.5, channels=True, **stream)
    np.testing.assert_array_equal(channels.ravel(), flat[: n * c])


def test_dropout_scales_what_it_keeps() -> None:
    x = np.arange(1.0, 25.0).reshape(2, 3, 4)
    mask = reference.dropout_mask(x.shape, 0.75, seed=5)
    assert 0 < mask.sum() < mask.size
    np.testing.assert_array_equal(reference.dropout(x, 0.75, seed=5), np.where(mask, 4 * x, 0))
    np.testing.assert_array_equal(reference.dropout(x, 0.75, seed=5, mode="classic"), np.where(mask, x, 0))
    np.testing.assert_array_equal(reference.dropout(x, 0.75, training=False), x)
    np.testing.assert_array_equal(reference.dropout(x, 0.75, training=False, mode="classic"), x / 4)


def test_dropout_at_the_ends() -> None:
    x = np.array([1.0, np.inf, np.nan])
    np.testing.assert_array_equal(reference.dropout(x, 0.0), x)
    np.testing.assert_array_equal(reference.dropout(x, 1.0), [0.0, 0.0, 0.0])
    np.testing.assert_array_equal(reference.alpha_dropout(x, 1.0, training=True), [0.0, 0.0, 0.0])
    with pytest.raises(ValueError, match="p < 1"):
        reference.gaussian_dropout(x, 1.0)


@pytest.mark.parametrize("p", [-0.1, 1.1, math.nan])
def test_dropout_refuses_what_is_no_probability(p: float) -> None:
    for name in ("dropout", "gaussian_dropout", "alpha_dropout"):
        with pytest.raises(ValueError, match="probability"):
            getattr(reference, name)(np.ones(3), p, True)


def test_gaussian_dropout_noise() -> None:
    p = 0.2
    noise = reference.gaussian_dropout(np.ones(COUNT), p, seed=6)
    variance = p / (1 - p)
    assert abs(noise.mean() - 1) < 5 * math.sqrt(variance / COUNT)
    assert abs(noise.var() - variance) < 5 * variance * math.sqrt(2 / COUNT)
    image = reference.gaussian_dropout(np.ones((2, 3, 4, 5)), p, seed=6)
    np.testing.assert_array_equal(image.transpose(0, 2, 3, 1).ravel(), noise[:120])


@pytest.mark.parametrize("p", [0.05, 0.5])
def test_alpha_dropout_keeps_mean_and_variance(p: float) -> None:
    x = reference.normal(COUNT, seed=7, layer=0, step=0)
    y = reference.alpha_dropout(x, p, training=True, seed=8)
    assert abs(y.mean()) < 5 / math.sqrt(COUNT)
    assert abs(y.var() - 1) < 5 * math.sqrt(((y - y.mean()) ** 4).mean() / COUNT)
    mask = reference.dropout_mask(x.shape, p, seed=8)
    a = (y[mask][0] - y[mask][1]) / (x[mask][0] - x[mask][1])
    limit = -1.0507009873554805 * 1.6732632423543772
    assert a == pytest.approx(((1 - p) * (1 + p * limit**2)) ** -0.5, rel=1e-12)
    np.testing.assert_allclose(y[~mask], a * limit * (1 - p), rtol=1e-12)


def test_float32_stays_float32() -> None:
    x = np.ones((2, 3, 4), dtype=np.float32)
    assert reference.dropout(x, training=False, mode="classic").dtype == np.float32
    for name in ("dropout", "dropout1d", "gaussian_dropout", "alpha_dropout"):
        assert getattr(reference, name)(x, training=True).dtype == np.float32

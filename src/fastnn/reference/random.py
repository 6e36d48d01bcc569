"""The random stream of fastnn: Philox4x32-10, a function of (seed, layer, step, element) and nothing else.

Philox turns a 128-bit counter and a 64-bit key into four 32-bit words by ten rounds of two 32x32 -> 64 bit products.
Word w of a layer's stream at a step is output word w & 3 for the counter (low32(w >> 2), high32(w >> 2),
low32(step), low32(layer)) and the key (low32(seed), high32(seed)).
Source: Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
"""

from __future__ import annotations

import numpy as np

from .checks import Array, check_probability

_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_KEY_INCREMENTS = (np.uint32(0x9E3779B9), np.uint32(0xBB67AE85))
_LOW_32 = np.uint64(0xFFFFFFFF)
_SHIFT_32 = np.uint64(32)


def _multiply(multiplier: np.uint64, word: Array) -> tuple[Array, Array]:
    """The 64-bit product as (high 32 bits, low 32 bits)."""
    product = multiplier * word.astype(np.uint64)
    return (product >> _SHIFT_32).astype(np.uint32), (product & _LOW_32).astype(np.uint32)


def philox4x32(counter: Array, key: Array) -> Array:
    """Philox4x32-10: counter (..., 4) and key (..., 2), uint32 -> (..., 4) uint32; leading axes broadcast.

    Raises ValueError for another number of words.

    >>> [hex(word) for word in philox4x32(np.zeros(4, np.uint32), np.zeros(2, np.uint32)).tolist()]
    ['0x6627e8d5', '0xe169c58d', '0xbc57ac4c', '0x9b00dbd8']
    """
    counter, key = np.asarray(counter, dtype=np.uint32), np.asarray(key, dtype=np.uint32)
    if counter.shape[-1:] != (4,) or key.shape[-1:] != (2,):
        raise ValueError(f"philox4x32 takes (..., 4) and (..., 2) words, not {counter.shape} and {key.shape}")
    c0, c1, c2, c3 = np.moveaxis(counter, -1, 0)
    k0, k1 = np.moveaxis(key, -1, 0)
    with np.errstate(over="ignore"):  # the key wraps around on purpose
        for _ in range(10):
            high0, low0 = _multiply(_MULTIPLIERS[0], c0)
            high1, low1 = _multiply(_MULTIPLIERS[1], c2)
            c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
            k0, k1 = k0 + _KEY_INCREMENTS[0], k1 + _KEY_INCREMENTS[1]
    return np.stack(np.broadcast_arrays(c0, c1, c2, c3), axis=-1)


def _low_and_high(value: int) -> tuple[int, int]:
    return value & 0xFFFFFFFF, (value >> 32) & 0xFFFFFFFF


def random_bits(count: int, seed: int, layer: int, step: int) -> Array:
    """The first `count` words (uint32) of a layer's stream at a step.

    Raises ValueError for a negative count.

    >>> random_bits(3, seed=0, layer=0, step=0).tolist() == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C]
    True
    """
    if count < 0:
        raise ValueError(f"count must not be negative, but is {count}")
    block = np.arange((count + 3) // 4, dtype=np.uint64)
    counter = np.empty((block.size, 4), dtype=np.uint32)
    counter[:, 0] = (block & _LOW_32).astype(np.uint32)
    counter[:, 1] = (block >> _SHIFT_32).astype(np.uint32)
    counter[:, 2] = _low_and_high(step)[0]
    counter[:, 3] = _low_and_high(layer)[0]
    key = np.array(_low_and_high(seed), dtype=np.uint32)
    return philox4x32(counter, key).reshape(-1)[:count]


def uniform(count: int, seed: int, layer: int, step: int) -> Array:
    """`random_bits` as float64 in [0, 1): bits * 2^-32, exactly.

    >>> uniform(2, seed=1, layer=2, step=3).shape
    (2,)
    """
    return random_bits(count, seed, layer, step) * 2.0**-32


_DRAW_GROUP = 128


def _exchanged_halves(words: Array) -> Array:
    """Upper and lower 16 bits of each word exchanged."""
    return words << np.uint32(16) | words >> np.uint32(16)


def draws(count: int, seed: int, layer: int, step: int) -> Array:
    """The first `count` draws (uint32) of a layer's stream at a step: what decides which elements dropout drops.

    Two draws are made of each word: draws i and i + 64 of a group of 128 are word i % 64 of the group's 64 words, the
    second with its upper and lower 16 bits exchanged. Each is uniform; the two of a word are both below a threshold
    p * 2^32 with a probability within 2^-17 of p^2.

    >>> first, second = draws(128, seed=0, layer=0, step=0)[[0, 64]]
    >>> hex(first), hex(second)
    ('0x6627e8d5', '0xe8d56627')
    """
    words = random_bits((count + _DRAW_GROUP - 1) // _DRAW_GROUP * (_DRAW_GROUP // 2), seed, layer, step)
    words = words.reshape(-1, _DRAW_GROUP // 2)
    return np.concatenate([words, _exchanged_halves(words)], axis=1).reshape(-1)[:count]


def _box_muller(first: Array, second: Array) -> tuple[Array, Array]:
    """Two standard normal numbers, float64, of each pair of words.

    u is the float32 next to the odd number (first >> 1 | 1), times 2^-31, and t the second word as an int32, times 2^-31.
    """
    odd = (first >> np.uint32(1) | np.uint32(1)).astype(np.float32).astype(np.float64)
    radius = np.sqrt(-2.0 * np.log(odd * 2.0**-31))
    angle = 0.5 * np.pi * (second.view(np.int32) * 2.0**-31)
    sign = 1.0 - 2.0 * (first & np.uint32(1))
    return sign * radius * np.cos(angle), radius * np.sin(angle)


def normal(count: int, seed: int, layer: int, step: int) -> Array:
    """`count` standard normal numbers, float64, by Box and Muller: four of each pair of words.

    Pair k of the 32 of a group of 64 words makes numbers k and k + 32 of a group of 128: with u in (0, 1) of the first
    word and an angle from -pi/2 to pi/2 of the second, sqrt(-2 ln u) * cos(angle), its sign turned if the first word is
    odd, and sqrt(-2 ln u) * sin(angle). Both words with their upper and lower 16 bits exchanged make numbers k + 64
    and k + 96; see `draws`.

    >>> bool(abs(normal(10000, seed=0, layer=0, step=0).mean()) < 0.03)
    True
    """
    words = random_bits((count + _DRAW_GROUP - 1) // _DRAW_GROUP * (_DRAW_GROUP // 2), seed, layer, step)
    first, second = words.reshape(-1, _DRAW_GROUP // 4, 2).transpose(2, 0, 1).copy()
    parts = [*_box_muller(first, second), *_box_muller(_exchanged_halves(first), _exchanged_halves(second))]
    return np.concatenate(parts, axis=1).reshape(-1)[:count]


def keep_threshold(p: float) -> int:
    """The least draw that keeps an element at drop probability p: floor(p * 2^32), at most 2^32 - 1.

    Raises ValueError unless 0 <= p <= 1.

    >>> keep_threshold(0.5) == 2**31
    True
    """
    return min(int(check_probability(p) * 2.0**32), 2**32 - 1)


def keep_mask(count: int, p: float, seed: int, layer: int, step: int) -> Array:
    """Which of `count` elements are kept (bool): draw >= keep_threshold(p); p = 1 keeps none, p = 0 all.

    >>> keep_mask(4, 0.0, seed=7, layer=0, step=0).tolist()
    [True, True, True, True]
    """
    threshold = keep_threshold(p)
    if p == 1.0:
        return np.zeros(count, dtype=bool)
    return draws(count, seed, layer, step) >= np.uint32(threshold)

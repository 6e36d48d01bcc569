"""Where things lie: stretches of memory, the offsets at which they share an arena, and the bytes that a plan needs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import index
from typing import Any

from . import _core

ALIGNMENT = 64


@dataclass(eq=False)
class Storage:
    """A stretch of memory: where it lies, and the first and last node that use it."""

    size: int
    space: int = _core.ARENA
    index: int = 0
    offset: int = 0
    first: int = 0
    last: int = 0


@dataclass(frozen=True)
class Reference:
    """`size` bytes at `offset` of a storage; becomes a pointer when the storage has its place."""

    storage: Storage
    offset: int
    size: int

    @property
    def place(self) -> str:
        """The space and where in it, as a printed plan shows it."""
        storage = self.storage
        name = {_core.ARENA: "arena", _core.CONSTANT: "const", _core.STATIC: "var", _core.EXTERNAL: "io"}[storage.space]
        where = storage.offset if storage.space in (_core.ARENA, _core.CONSTANT) else storage.index
        return f"{name}@{where}"


def references(value: Any) -> list[Reference]:
    """The memory that an argument of a kernel names: none, one stretch, or a table's."""
    if isinstance(value, Reference):
        return [value]
    if isinstance(value, (list, tuple)):
        return [r for entry in value for r in references(entry)]
    return []


def resolved(value: Any) -> Any:
    """An argument as a program takes it, once every storage has its place."""
    if isinstance(value, Reference):
        storage = value.storage
        return _core.Pointer(storage.space, storage.index, storage.offset + value.offset, value.size)
    if isinstance(value, (list, tuple)):
        return [resolved(entry) for entry in value]
    return value


def assign_offsets(storages: Sequence[Storage]) -> int:
    """Gives each storage the lowest offset at which no storage alive at the same time lies, the largest first
    (greedy by size, Pisarchyk and Lee 2020); returns the bytes needed."""
    placed: list[Storage] = []
    for storage in sorted(storages, key=lambda s: (-s.size, s.first)):
        offset = 0
        for other in sorted(placed, key=lambda s: s.offset):
            if other.last < storage.first or storage.last < other.first:
                continue
            if offset + storage.size <= other.offset:
                break
            offset = max(offset, _aligned(other.offset + other.size))
        storage.offset = offset
        placed.append(storage)
    return max((s.offset + s.size for s in storages), default=0)


def _aligned(size: int) -> int:
    return (size + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT


def bytes_by_owner(uses: Iterable[tuple[str, Reference]]) -> list[tuple[str, int]]:
    """For each owner, in the order in which they are named first: the bytes of what it is the first to use in the arena and
    in the constants."""
    owners: dict[int, tuple[str, int]] = {}
    for owner, reference in uses:
        if reference.storage.space in (_core.ARENA, _core.CONSTANT):
            owners.setdefault(id(reference.storage), (owner, reference.storage.size))
    result: dict[str, int] = {}
    for owner, size in owners.values():
        result[owner] = result.get(owner, 0) + size
    return list(result.items())


def checked_memory(limit: int | None) -> int | None:
    """A number of bytes that a plan may need, or None."""
    if limit is None:
        return None
    if isinstance(limit, bool) or not hasattr(limit, "__index__"):
        raise TypeError(f"max_memory must be a whole number of bytes, not {limit!r}")
    if index(limit) < 0:
        raise ValueError(f"max_memory must be at least 0, got {limit}")
    return index(limit)


def readable(count: int) -> str:
    """A number of bytes in few digits."""
    return (
        f"{count} B" if count < 10_000 else f"{count / 1e3:.1f} kB" if count < 10_000_000 else f"{count / 1e6:.1f} MB"
    )

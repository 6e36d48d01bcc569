"""Modules that hold modules."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from itertools import count
from typing import Any, Self

from ..habits import kind_of
from ..trace import structure_clock
from .module import Module


def _free_name(modules: Module) -> str:
    """The name of a module that is added at the end: its number, or the next one that no other has."""
    return next(str(i) for i in count(len(modules._modules)) if str(i) not in modules._modules)


def _number(holder: Module, modules: Iterable[Module]) -> None:
    """Lets a holder hold these modules alone, under the names "0", "1", ..."""
    modules = list(modules)
    for module in modules:
        if not isinstance(module, Module):
            raise TypeError(f"expected a Module, got {kind_of(module)}")
    holder._modules.clear()
    holder._modules.update((str(i), module) for i, module in enumerate(modules))
    structure_clock.tick()


class Sequential(Module):
    """Modules applied one after another.

    >>> from fastnn import nn
    >>> model = nn.Sequential(nn.Flatten(), nn.ReLU())
    >>> model[1]
    ReLU()
    >>> len(model)
    2
    """

    def __init__(self, *modules: Any) -> None:
        super().__init__()
        if len(modules) == 1 and isinstance(modules[0], OrderedDict):
            for name, module in modules[0].items():
                self.add_module(name, module)
        else:
            for i, module in enumerate(modules):
                self.add_module(str(i), module)

    def forward(self, x: Any) -> Any:  # type: ignore[override]
        for module in self:
            x = module(x)
        return x

    def __iter__(self) -> Iterator[Module]:
        return iter(self._modules.values())

    def __len__(self) -> int:
        return len(self._modules)

    def _name(self: Module, index: int) -> str:
        names: list[str] = list(self._modules)
        if not -len(names) <= index < len(names):
            raise IndexError(f"index {index} is out of range for {len(names)} modules")
        return names[index]

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return type(self)(OrderedDict(list(self._modules.items())[index]))
        return self._modules[self._name(index)]

    def __setitem__(self: Module, index: int, module: Module) -> None:
        setattr(self, Sequential._name(self, index), module)

    def __delitem__(self: Module, index: int | slice) -> None:
        """Takes modules out; those that stay are numbered anew."""
        chosen = index if isinstance(index, slice) else Sequential._name(self, index)
        gone = list(self._modules)[chosen] if isinstance(chosen, slice) else [chosen]
        _number(self, [module for name, module in self._modules.items() if name not in gone])

    def append(self, module: Module) -> Sequential:
        """Adds a module at the end."""
        self.add_module(_free_name(self), module)
        return self

    def insert(self, index: int, module: Module) -> Sequential:
        """Puts a module before the one at index, as a list does; all are numbered anew."""
        _number(self, _inserted(self, index, module))
        return self

    def extend(self, modules: Iterable[Module]) -> Sequential:
        """Adds modules at the end."""
        for module in modules:
            self.append(module)
        return self


def _inserted(modules: Iterable[Module], index: int, module: Module) -> list[Module]:
    result = list(modules)
    result.insert(index, module)
    return result


class ModuleList(Module):
    """A list of modules that a model's forward uses as it likes.

    >>> from fastnn import nn
    >>> len(nn.ModuleList([nn.ReLU(), nn.ReLU()]))
    2
    """

    def __init__(self, modules: Iterable[Module] | None = None) -> None:
        super().__init__()
        self.extend(modules or ())

    __iter__ = Sequential.__iter__
    __len__ = Sequential.__len__
    _name = Sequential._name
    __setitem__ = Sequential.__setitem__
    __delitem__ = Sequential.__delitem__

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return ModuleList(list(self)[index])
        return self._modules[self._name(index)]

    def append(self, module: Module) -> ModuleList:
        """Adds a module at the end."""
        self.add_module(_free_name(self), module)
        return self

    def insert(self, index: int, module: Module) -> None:
        """Puts a module before the one at index, as a list does."""
        _number(self, _inserted(self, index, module))

    def __iadd__(self, modules: Iterable[Module]) -> Self:
        self.extend(modules)
        return self

    def extend(self, modules: Iterable[Module]) -> ModuleList:
        """Adds modules at the end."""
        for module in modules:
            self.append(module)
        return self


class ModuleDict(Module):
    """Modules by name.

    >>> from fastnn import nn
    >>> nn.ModuleDict({"act": nn.ReLU()})["act"]
    ReLU()
    """

    def __init__(self, modules: Mapping[str, Module] | Iterable[tuple[str, Module]] | None = None) -> None:
        super().__init__()
        for name, module in dict(modules or {}).items():
            self.add_module(name, module)

    def __getitem__(self, name: str) -> Module:
        module: Module = self._modules[name]
        return module

    def __setitem__(self, name: str, module: Module) -> None:
        self.add_module(name, module)

    def __delitem__(self, name: str) -> None:
        del self._modules[name]
        structure_clock.tick()

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[str]:
        return iter(self._modules)

    def keys(self) -> Iterable[str]:
        """The names, in order."""
        return list(self._modules)

    def values(self) -> Iterable[Module]:
        """The modules, in order."""
        return list(self._modules.values())

    def items(self) -> Iterable[tuple[str, Module]]:
        """Names and modules, in order."""
        return list(self._modules.items())

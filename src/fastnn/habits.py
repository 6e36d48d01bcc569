"""What PyTorch's users write by habit and have no use for here: what an error then tells them to write instead."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_DEVICE = "everything runs on the CPU; leave it out"
_PRECISION = "everything is float32, and other inputs are cast; leave it out"
_GRADIENTS = "gradients are results: fastnn.value_and_grad(model, loss)(x, y), fastnn.vjp, or a Trainer's step"
_VALUES = "assign its values, p.data = values, or use fastnn.nn.init"
_NUMBERS = "forward() is traced with symbolic tensors that have no numbers; compute it outside of the model"
_FUNCTION = "it is a function of fastnn.nn.functional"
_SAVING = "numpy.savez(path, **model.state_dict()), and model.load_state_dict(numpy.load(path))"

_DEVICES = dict.fromkeys(("to", "cuda", "cpu"), _DEVICE)
_PRECISIONS = dict.fromkeys(("half", "float", "double", "bfloat16"), _PRECISION)

PARAMETER = {
    **_DEVICES, **_PRECISIONS, **dict.fromkeys(("grad", "backward"), _GRADIENTS),
    **dict.fromkeys(("fill_", "zero_", "normal_", "uniform_", "add_", "sub_", "mul_"), _VALUES),
    **dict.fromkeys(("detach", "clone"), "numpy() is its values, numpy().copy() a copy of them"),
}  # fmt: skip
MODULE = {**_DEVICES, **_PRECISIONS, "zero_grad": _GRADIENTS, "compile": "every call is compiled; leave it out"}
OPTIMIZER = dict.fromkeys(("step", "zero_grad"), "fastnn.Trainer(model, loss, optimizer).step(x, y) is a whole step")
OPTIMIZERS = {"lr_scheduler": "a schedule is given as lr, as in optim.SGD(lr=optim.StepDecay(...))"}
TENSOR = {
    **_DEVICES, **_PRECISIONS, **dict.fromkeys(("item", "tolist", "numpy", "data"), _NUMBERS),
    **dict.fromkeys(("backward", "grad", "detach", "requires_grad"), _GRADIENTS),
    **dict.fromkeys(("relu", "sigmoid", "tanh", "softmax", "log_softmax"), _FUNCTION),
    **dict.fromkeys(("squeeze", "unsqueeze"), "write the new shape: x.reshape(...)"),
}  # fmt: skip
PACKAGE = {
    "no_grad": "a call computes no gradients unless they are asked for; leave it out",
    "inference_mode": "a call computes no gradients unless they are asked for; leave it out",
    "device": _DEVICE,
    **dict.fromkeys(("tensor", "from_numpy", "as_tensor"), "inputs and outputs are NumPy arrays"),
    **dict.fromkeys(("save", "load"), _SAVING),
}


def no_attribute(owner: str, name: str, instead: Mapping[str, str]) -> AttributeError:
    """The error for a name that is not there, with what to write instead where that is known.

    >>> raise no_attribute("Linear", "cuda", MODULE)
    Traceback (most recent call last):
    ...
    AttributeError: Linear has no attribute 'cuda': everything runs on the CPU; leave it out
    """
    advice = f": {instead[name]}" if name in instead else ""
    return AttributeError(f"{owner} has no attribute {name!r}{advice}")


def kind_of(value: Any) -> str:
    """What a value that does not fit is called in an error.

    >>> kind_of(3), kind_of(dict)
    ('int', 'the class dict; make one: dict(...)')
    """
    if isinstance(value, type):
        return f"the class {value.__name__}; make one: {value.__name__}(...)"
    kind = type(value)
    return f"{kind.__module__}.{kind.__name__}" if kind.__module__.partition(".")[0] == "torch" else kind.__name__


def keys_advice(state: Mapping[str, Any], missing: list[str]) -> str:
    """What to do with a state whose keys do not fit, where that can be seen: one prefix before all of them, or a
    checkpoint that holds the state beside other things.

    >>> keys_advice({"module.weight": 0, "module.bias": 0}, ["weight", "bias"])
    "; all keys begin with 'module.': pass {name.removeprefix('module.'): array for name, array in state.items()}"
    >>> keys_advice({"epoch": 3, "model": {"weight": 0}}, ["weight"])
    "; the arrays are in state['model']: pass that"
    """
    for key, value in state.items():
        if isinstance(value, Mapping) and any(name in value for name in missing):
            return f"; the arrays are in state[{key!r}]: pass that"
        for name in missing[:1]:
            prefix = str(key).removesuffix(name)
            if prefix.endswith(".") and all(str(other).startswith(prefix) for other in state):
                return (
                    f"; all keys begin with {prefix!r}: pass {{name.removeprefix({prefix!r}): array for name, array in "
                    "state.items()}"
                )
    return ""

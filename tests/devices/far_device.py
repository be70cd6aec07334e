"""A pretended accelerator, `pretended:0`, on a machine that has none.

Its tensors are computed on the CPU, but as on CUDA an operation fails that meets tensors of both devices, and so do
`.numpy()` and the like. What is copied between the devices, and how often the host waits for a result, is counted with
the line of ours that causes it.

torch's support of backends written in Python is not a documented part of it (`torch.utils.backend_registration`), and
neither are the four switches that `FarDevice` sets; only tests rely on them.
"""

from __future__ import annotations

import collections
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils import backend_registration
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

NAME = "pretended"
TO_HOST, TO_DEVICE, WAIT = "copy to the host", "copy to the device", "wait for"
OURS = ("/modeling/", "/processing/", "/training/")

aten = torch.ops.aten
# Copies between devices are what these are for.
COPIES = {aten.copy_.default, aten._to_copy.default}
# On CUDA, indices may be on the CPU; they are sent.
INDEXED = {
    aten.index.Tensor,
    aten.index_put_.default,
    aten.index_put.default,
    aten._index_put_impl_.default,
    aten._unsafe_index.Tensor,
}
# The host has to know a value, or the size of the result.
WAITS = {
    aten._local_scalar_dense.default,
    aten.nonzero.default,
    aten._unique2.default,
    aten.unique_dim.default,
    aten.unique_consecutive.default,
    aten.equal.default,
    aten.masked_select.default,
    aten.repeat_interleave.Tensor,
    aten.is_nonzero.default,
}
# These take no number of the CPU, either.
STRICT = {aten.cat.default, aten.stack.default}


class Log:
    """Counts what travels and what is waited for, by (kind, place in our code), and operations that compute."""

    def __init__(self) -> None:
        self.counts: collections.Counter[tuple[str, str]] = collections.Counter()
        self.bytes: collections.Counter[tuple[str, str]] = collections.Counter()
        self.operations = 0

    def note(self, kind: str, size: int = 0) -> None:
        """Counts one event of `size` bytes."""
        place = (kind, _caller())
        self.counts[place] += 1
        self.bytes[place] += size

    def clear(self) -> None:
        """Starts to count anew."""
        self.counts.clear()
        self.bytes.clear()
        self.operations = 0

    @property
    def waits(self) -> int:
        """How often the host waited: for a copy to it, for a value, or for a size."""
        return sum(count for (kind, _), count in self.counts.items() if kind != TO_DEVICE)

    def travelled(self, kind: str) -> int:
        """Returns the bytes of `TO_HOST` or of `TO_DEVICE`."""
        return sum(size for (of, _), size in self.bytes.items() if of == kind)

    def __str__(self) -> str:
        order = sorted(self.counts, key=lambda place: (-self.bytes[place], -self.counts[place]))
        lines = [f"{self.counts[p]:6d}x {self.bytes[p] / 1e6:9.3f} MB  {p[0]:32s} {p[1]}" for p in order]
        sent, fetched = (self.travelled(kind) / 1e6 for kind in (TO_DEVICE, TO_HOST))
        return "\n".join([*lines, f"{self.waits} waits, {fetched:.3f} MB to the host, {sent:.3f} MB to the device"])


def _caller() -> str:
    """Finds the line of ours that the running operation comes from."""
    frame = sys._getframe(2)
    while frame is not None:
        name = frame.f_code.co_filename
        if "/site-packages/" not in name and any(folder in name for folder in OURS):
            return "/".join(name.split("/")[-3:]) + f":{frame.f_lineno}"
        frame = frame.f_back
    return "elsewhere"


class FarDevice(TorchDispatchMode):
    """
    While it is on, `device="pretended"` works, also in threads that are started meanwhile.

    Attributes:
        log: what travelled and was waited for.
    """

    current: FarDevice | None = None

    def __init__(self) -> None:
        super().__init__()
        self.log = Log()

    def __enter__(self) -> FarDevice:
        _register()
        FarDevice.current = self
        self._lift = torch._C._only_lift_cpu_tensors()
        torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(…, device=…) makes a tensor here, then sends it
        self._threads = torch.autograd.is_multithreading_enabled()
        torch.autograd.set_multithreading_enabled(False)  # backward would run in a thread that knows no mode
        self._run, threading.Thread.run = threading.Thread.run, _thread_in_mode(self, threading.Thread.run)
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        threading.Thread.run = self._run
        torch.autograd.set_multithreading_enabled(self._threads)
        torch._C._set_only_lift_cpu_tensors(self._lift)
        FarDevice.current = None
        return super().__exit__(*error)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return _execute(func, tuple(args), kwargs or {}, self.log)


class FarTensor(torch.Tensor):
    """A tensor of the pretended accelerator; `inner` holds its numbers, on the CPU."""

    inner: torch.Tensor

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> FarTensor:
        return torch.Tensor._make_wrapper_subclass(
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=torch.device(NAME, 0),
            requires_grad=inner.requires_grad,
        )

    def __init__(self, inner: torch.Tensor):
        self.inner = inner

    __torch_function__ = torch._C._disabled_torch_function_impl

    def __repr__(self) -> str:  # type: ignore[override]
        return f"FarTensor({self.inner!r})"

    def tolist(self) -> Any:
        _log().note(TO_HOST, self.inner.nbytes)
        return self.inner.detach().tolist()

    def numpy(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError(f"can't convert {NAME}:0 device type tensor to numpy. Use Tensor.cpu() to copy it first.")

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        return self.numpy()

    def __deepcopy__(self, memo: Any) -> FarTensor:
        return FarTensor(self.inner.detach().clone()).requires_grad_(self.requires_grad)

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return _execute(func, tuple(args), kwargs or {}, _log())


def _log() -> Log:
    return Log() if FarDevice.current is None else FarDevice.current.log


class _Backend(backend_registration._DummyBackendModule):
    """What torch asks of a backend's module. Elsewhere in a test run there is no such accelerator."""

    def is_available(self) -> bool:
        return FarDevice.current is not None

    def device_count(self) -> int:
        return int(self.is_available())

    def get_amp_supported_dtype(self) -> list[torch.dtype]:  # of checkpointing
        return [torch.bfloat16, torch.float16]


def _register() -> None:
    """Makes `pretended` a device type of torch, once in a process."""
    if not hasattr(torch, NAME):
        backend_registration._setup_privateuseone_for_python_backend(NAME, _Backend())


def _thread_in_mode(mode: FarDevice, run: Callable) -> Callable:
    """Returns `Thread.run` for threads that compute on the device as well; modes belong to one thread."""

    class InThread(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            return _execute(func, tuple(args), kwargs or {}, mode.log)

    def run_in_mode(thread: threading.Thread) -> None:
        with InThread():
            run(thread)

    return run_in_mode


def _is_far(device: Any) -> bool:
    return device is not None and torch.device(device).type == NAME


def _is_view(func: Any) -> bool:
    """Returns whether an operation shows its input in another way, and computes nothing."""
    aliases = (argument.alias_info for argument in func._schema.arguments)
    return func.overloadpacket is aten._unsafe_view or any(alias and not alias.is_write for alias in aliases)


def _inner(value: Any) -> Any:
    return value.inner if isinstance(value, FarTensor) else value


def _wrap(value: Any) -> Any:
    return FarTensor(value) if isinstance(value, torch.Tensor) and not isinstance(value, FarTensor) else value


def _execute(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], log: Log) -> Any:
    """Runs an operation on the CPU, and wraps its results if they belong to the device."""
    if torch.is_inference_mode_enabled():
        with torch.inference_mode(False), torch.no_grad():  # what is wrapped needs a version
            return _execute(func, args, kwargs, log)
    if func.overloadpacket is aten.to:  # in inference mode it is not taken apart before
        return _to(func, args, kwargs, log)
    flat, structure = tree_flatten((args, kwargs))
    to_far, far = _is_far(kwargs.get("device")), any(isinstance(value, FarTensor) for value in flat)
    if not far and not to_far and func not in COPIES:
        return func(*args, **kwargs)
    log.operations += not _is_view(func)
    if far and func not in COPIES:
        _check_devices(func, args, flat, log)
    if func in WAITS:
        log.note(f"{WAIT} {func.overloadpacket.__name__}")
    wrapped = far if kwargs.get("device") is None else to_far
    if func in COPIES:
        wrapped = _copied(func, args, kwargs, log)
    inner_args, inner_kwargs = tree_unflatten([_inner(value) for value in flat], structure)
    inner_kwargs.pop("pin_memory", None)
    if to_far:
        inner_kwargs["device"] = torch.device("cpu")
    out = func(*inner_args, **inner_kwargs)
    if not wrapped:
        return out
    if torch.Tag.inplace_view in func.tags:
        with no_dispatch():
            func(*args, **kwargs)  # of the wrapper, which has a shape but no numbers
    return _written_back(func, args, kwargs, tree_map(_wrap, out))


def _to(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], log: Log) -> Any:
    """Runs `tensor.to(…)`: nothing, or a copy."""
    given = {**dict(zip((argument.name for argument in func._schema.arguments), args)), **kwargs}
    source, like = given["self"], given.get("other")
    like = source if like is None else like
    device, dtype = torch.device(given.get("device") or like.device), given.get("dtype") or like.dtype
    if dtype == source.dtype and device.type == source.device.type and not given.get("copy"):
        return source
    return _execute(aten._to_copy.default, (source,), {"dtype": dtype, "device": device}, log)


def _copied(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], log: Log) -> bool:
    """Counts a copy from one device to the other; returns whether its result is on the accelerator."""
    if func is aten.copy_.default:
        target, source = (isinstance(tensor, FarTensor) for tensor in args[:2])
    else:
        source = isinstance(args[0], FarTensor)
        target = _is_far(kwargs["device"]) if kwargs.get("device") is not None else source
    if target != source:
        log.note(TO_DEVICE if target else TO_HOST, args[0].nbytes)
    return target


def _check_devices(func: Any, args: tuple[Any, ...], flat: Sequence[Any], log: Log) -> None:
    """
    Counts indices that are sent and masks that are waited for.

    Raises:
        RuntimeError: an operand is on the CPU, and no number.
    """
    near = [value for value in flat if isinstance(value, torch.Tensor) and not isinstance(value, FarTensor)]
    near = [value for value in near if value.dim() or func in STRICT]
    if func in INDEXED:
        indices = [index for index in args[1] if index is not None]
        if not isinstance(args[0], FarTensor) and any(isinstance(index, FarTensor) for index in indices):
            raise RuntimeError("indices should be either on cpu or on the same device as the indexed tensor (cpu)")
        for index in indices:
            if not isinstance(index, FarTensor):
                near = [value for value in near if value is not index]
                log.note(TO_DEVICE, index.nbytes)
            if index.dtype in (torch.bool, torch.uint8):
                log.note(f"{WAIT} nonzero of a mask")
    if near:
        shapes = [tuple(value.shape) for value in near]
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but found at least two devices, {NAME}:0 and cpu! "
            f"({func}: {shapes} on the cpu)"
        )


def _written_back(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> Any:
    """Returns the tensors that an operation was given, where it has written into them."""
    written = [result.alias_info for result in func._schema.returns]
    if not any(alias is not None and alias.is_write for alias in written):
        return out
    given: dict[frozenset, Any] = {}
    for place, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            value = args[place] if place < len(args) else kwargs.get(argument.name)
            given[frozenset(argument.alias_info.before_set)] = value
    outs = list(out) if isinstance(out, (list, tuple)) else [out]
    for place, alias in enumerate(written):
        if alias is not None and alias.is_write:
            outs[place] = given[frozenset(alias.before_set)]
            if isinstance(outs[place], FarTensor) and outs[place].shape != outs[place].inner.shape:
                raise NotImplementedError(f"{func} changes a shape in place")
    return type(out)(outs) if isinstance(out, (list, tuple)) else outs[0]

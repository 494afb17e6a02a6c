"""Every private PyTorch API that torchwatch touches, each with a fallback.

Nothing outside this module imports a private name of torch. Where a name is gone in a later release, the
fallback keeps training and recording going and the layout's coverage line says what is no longer seen.
"""

from __future__ import annotations

import sys
import threading
import types
import weakref
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
import torch.utils._python_dispatch
import torch.utils.checkpoint
from torch.nn.modules import module as _module
from torch.nn.utils import clip_grad as _clip_grad
from torch.optim import optimizer as _optimizer
from torch.utils.hooks import RemovableHandle

_MISSING = object()

TotalNormObserver = Callable[[list[torch.Tensor], torch.Tensor], None]


def register_forward_hook(hook: Callable[[torch.nn.Module, Any, Any, Any], None]) -> RemovableHandle:
    """A hook on the forward pass of every module of the process: (module, args, kwargs, output).

    Removing it takes its entry in the table of hooks with keywords out as well, which torch 2.13 leaves there
    for ever (and then warns everybody who compiles). Fallback without that table: torch's own removal.
    """
    handle = _module.register_module_forward_hook(hook, with_kwargs=True)
    table = getattr(_module, "_global_forward_hooks_with_kwargs", None)
    others = getattr(handle, "extra_dict_ref", None)
    if table is not None and isinstance(others, tuple):
        handle.extra_dict_ref = (*others, weakref.ref(table))
    return handle


def register_forward_pre_hook(hook: Callable[[torch.nn.Module, tuple[Any, ...]], None]) -> RemovableHandle:
    """A hook before the forward pass of every module of the process: (module, positional arguments)."""
    return _module.register_module_forward_pre_hook(hook)


def register_optimizer_hooks(
    before: Callable[..., None], after: Callable[..., None]
) -> tuple[RemovableHandle, RemovableHandle]:
    """Hooks around the step of every optimizer of the process."""
    return (
        _optimizer.register_optimizer_step_pre_hook(before),
        _optimizer.register_optimizer_step_post_hook(after),
    )


def _find_step_code() -> types.CodeType | None:
    wrap = getattr(torch.optim.Optimizer, "profile_hook_step", None)
    code = getattr(wrap(lambda: None), "__code__", None) if wrap is not None else None
    return code if isinstance(code, types.CodeType) else None


_STEP_CODE = _find_step_code()


def profiler_runs() -> bool:
    """Whether a profiler runs anywhere in the process. Fallback: False; torch's own check is left then."""
    return bool(getattr(torch.autograd.profiler, "_is_profiler_enabled", False))


def before_a_profiler_starts(give_way: Callable[[], None]) -> Callable[[], None]:
    """Call ``give_way`` when anybody is about to start a profiler; returns what takes that back.

    The function that prepares one is looked up in its module at call time. Fallback: where it is gone, nobody
    is called, and torch refuses the second profiler.
    """
    home = torch.autograd.profiler
    original = getattr(home, "_prepare_profiler", None)
    if original is None:
        return lambda: None

    def prepare(*args: Any, **kwargs: Any) -> Any:
        give_way()
        return original(*args, **kwargs)

    def take_back() -> None:
        if getattr(home, "_prepare_profiler", None) is prepare:
            setattr(home, "_prepare_profiler", original)  # noqa: B010 - private name

    setattr(home, "_prepare_profiler", prepare)  # noqa: B010 - private name
    return take_back


def optimizer_depth() -> int:
    """How many ``optimizer.step`` wrappers are on this thread's stack (1: not nested).

    Counting frames survives Ctrl-C, which skips post-hooks. Fallback: 1 inside a hook is not told from 0.
    """
    return _count_steps(sys._getframe(1))


def any_thread_steps() -> bool:
    """Whether any thread of the process is inside an optimizer's step."""
    return any(_count_steps(frame) for frame in sys._current_frames().values())


def _count_steps(frame: types.FrameType | None) -> int:
    depth = 0
    while frame is not None:
        depth += frame.f_code is _STEP_CODE
        frame = frame.f_back
    return depth


def in_backward() -> bool:
    """Whether autograd is running a backward pass on this thread (recomputation by checkpointing)."""
    return backward_pass() != -1


def backward_pass() -> int:
    """Identity of the running backward pass, -1 outside of one. Fallback: -1."""
    current = getattr(torch._C, "_current_graph_task_id", None)
    return int(current()) if current is not None else -1


def sequence_number() -> int:
    """Number of the next autograd node of this thread; grows with every differentiable operation.

    Fallback: 0, with which a loss logged before ``optimizer.step()`` counts to the step before.
    """
    peek = getattr(torch.autograd, "_get_sequence_nr", None)
    return int(peek()) if peek is not None else 0


def older_than(tensor: torch.Tensor, number: int, look: int = 16) -> bool:
    """Whether one of the first ``look`` autograd nodes behind ``tensor`` is older than ``number``."""
    nodes = [tensor.grad_fn]
    peek = getattr(nodes[0], "_sequence_nr", None)
    if peek is not None and peek() < number:  # nearly always, and once per step of a fast loop
        return True
    for _ in range(look):
        if not nodes:
            return False
        node = nodes.pop(0)
        peek = getattr(node, "_sequence_nr", None)
        if node is None or peek is None:
            continue
        if peek() < number:
            return True
        nodes.extend(following for following, _ in node.next_functions)
    return False


def being_transformed() -> bool:
    """Whether code runs under tracing, compiling, a dispatch mode or a functorch transform: hands off."""
    if torch.compiler.is_compiling():
        return True
    tracing = getattr(torch._C, "_get_tracing_state", None)
    if tracing is not None and tracing() is not None:
        return True
    modes = getattr(torch._C, "_len_torch_dispatch_stack", None)
    if modes is not None and modes() > OperatorObserver.entered():
        return True
    functorch = getattr(torch._C, "_functorch", None)
    level = getattr(functorch, "maybe_current_level", None)
    return level is not None and level() is not None


def after_backward(callback: Callable[[], None]) -> bool:
    """Have ``callback`` called when the running backward pass is over, after everything that waits for it.

    Autograd calls what is queued in order, and what those calls queue after them: queued twice, ours comes
    after the last bucket of DistributedDataParallel. A pass that raises never calls it. False (fallback, or
    outside of a backward pass): it will not be called.
    """
    engine = getattr(torch.autograd.Variable, "_execution_engine", None)
    queue = getattr(engine, "queue_callback", None)
    if queue is None or not in_backward():
        return False
    queue(lambda: queue(callback))
    return True


def register_always_called_hook(hook: Callable[[torch.nn.Module, Any, Any], None]) -> RemovableHandle:
    """A hook after the forward pass of every module of the process, also where it raised an exception.

    ``KeyboardInterrupt`` and its like are not exceptions in this sense: torch does not call it then.
    """
    return _module.register_module_forward_hook(hook, always_call=True)


_dispatch = getattr(torch.utils, "_python_dispatch", None)
_DispatchMode: Any = getattr(_dispatch, "TorchDispatchMode", object)


class OperatorObserver(_DispatchMode):  # type: ignore[misc]
    """Sees every operator that the host runs in this thread while it is entered, and changes none.

    ``torch.compile`` and higher-order operators go on as without it. What torchwatch runs itself is not
    told: our hooks switch torch functions off altogether, hosts do so for subclasses only.

    Args:
        saw: called with (operator, arguments, keywords, result), the operator as ``torch.ops.aten.mm`` or a
            higher-order one; must not raise.
    """

    supports_higher_order_operators = True
    _threads: ClassVar[set[int]] = set()

    def __init__(self, saw: Callable[[Any, tuple[Any, ...], dict[str, Any], Any], None]) -> None:
        super().__init__()
        self._saw: Callable[..., None] | None = saw

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        """Compiled functions are run as one; else torch would not compile, and remember that."""
        return True

    @classmethod
    def entered(cls) -> int:
        """How many observers this thread is in: 0 or 1."""
        return threading.get_ident() in cls._threads

    def enter(self) -> bool:
        """Begin; False (and nothing happens) where a dispatch mode is active already, or none can be had."""
        current = getattr(_dispatch, "_get_current_dispatch_mode", None)
        if current is None or current() is not None:
            return False
        self.__enter__()
        self._threads.add(threading.get_ident())
        return True

    def leave(self) -> bool:
        """End. False: a mode of the host lies on top, or this is another thread; ours does nothing more."""
        self._saw = None
        if _dispatch is None or _dispatch._get_current_dispatch_mode() is not self:
            return False
        self._threads.discard(threading.get_ident())
        self.__exit__(None, None, None)
        return True

    def __torch_dispatch__(
        self, func: Any, classes: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run the operator, then tell."""
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if self._saw is not None and not _own_work():
            self._saw(getattr(func, "_overloadpacket", func), args, kwargs, result)
        return result


def _own_work() -> bool:
    disabled = getattr(torch._C, "_is_torch_function_all_disabled", None)
    return bool(disabled()) if disabled is not None else False


def in_checkpoint() -> bool:
    """Whether a reentrant checkpoint runs forward on this thread: without autograd, and yet trained on."""
    function = getattr(torch.utils.checkpoint, "CheckpointFunction", None)
    code = getattr(getattr(function, "forward", None), "__code__", None)
    frame: types.FrameType | None = sys._getframe(1)
    while frame is not None and code is not None:
        if frame.f_code is code:
            return True
        frame = frame.f_back
    return False


_dispatch_modes = getattr(torch._C, "_len_torch_dispatch_stack", None)


def copied(tensor: torch.Tensor) -> torch.Tensor:
    """A copy without its graph, unseen by the host's dispatch modes. Fallback: they see how it is made."""
    aside = getattr(torch.utils._python_dispatch, "_disable_current_modes", None)
    if _dispatch_modes is None or aside is None or _dispatch_modes() == 0:
        return tensor.detach().clone()
    with aside():
        return tensor.detach().clone()


def flat_shards(model: torch.nn.Module) -> dict[int, int]:
    """Over how many ranks each parameter is spread by ``FullyShardedDataParallel``, by the parameter's id.

    Those that every rank holds whole are missing: outside of it, ignored by it, or under ``NO_SHARD``. Known
    without asking another rank. Fallback without its handles: all parameters inside count as spread.
    """
    kind: Any = getattr(sys.modules.get("torch.distributed.fsdp"), "FullyShardedDataParallel", None)
    found: dict[int, int] = {}
    for module in model.modules() if kind is not None else ():
        if not isinstance(module, kind):
            continue
        handle: Any = getattr(module, "_handle", _MISSING)
        if handle is _MISSING:
            world = torch.distributed.get_world_size()
            found |= {id(p): world for p in module.parameters() if id(p) not in found}
        elif handle is not None and getattr(handle, "uses_sharded_strategy", True):
            flat = handle.flat_param
            parts = (getattr(flat, "_params", None) or (), getattr(flat, "_shared_params", None) or ())
            found |= {id(p): handle.world_size for p in (flat, *parts[0], *parts[1])}
    return found


def number_or_copy(tensor: torch.Tensor) -> float | torch.Tensor:
    """A scalar as a number where that waits for nothing and nobody sees it, else a copy without its graph.

    On the host a scalar is read in a tenth of the time that a copy of it takes.
    """
    if tensor.is_cpu and _dispatch_modes is not None and not _dispatch_modes():
        return float(tensor.item())
    return copied(tensor)


def readable(tensor: torch.Tensor) -> float | torch.Tensor | None:
    """A copy that can be read later; under a functorch transform the number, None where it has none."""
    functorch = getattr(torch._C, "_functorch", None)
    wrapped = getattr(functorch, "is_functorch_wrapped_tensor", None)
    if wrapped is None or not wrapped(tensor):
        return copied(tensor)
    try:
        return float(tensor.detach().double().mean().item())
    except RuntimeError:  # vmap: as many values as samples
        return None


def without_torch_function() -> Any:
    """A context in which ``__torch_function__`` overrides (FLOP counters, subclasses) see nothing of ours."""
    return torch._C.DisableTorchFunction()


def compiled(model: torch.nn.Module) -> bool:
    """Whether dynamo is in use for the model or was used in this process."""
    for module in model.modules():
        if (
            type(module).__name__ == "OptimizedModule"
            or getattr(module, "_compiled_call_impl", None) is not None
        ):
            return True
    frames = sys.modules.get("torch._dynamo.eval_frame")
    backends = getattr(frames, "cached_backends", None) or {}
    return any(backend is not None for backend in backends.values())


def has_values(tensor: torch.Tensor) -> bool:
    """Whether a tensor holds numbers of its own: not meta, fake, or wrapped in a subclass.

    Fallback: plain tensors and parameters only.
    """
    if tensor.is_meta:
        return False
    wrapped = getattr(torch.utils._python_dispatch, "is_traceable_wrapper_subclass", None)
    fake = getattr(sys.modules.get("torch._subclasses.fake_tensor"), "FakeTensor", None)
    if wrapped is None:
        return type(tensor) in (torch.Tensor, torch.nn.Parameter)
    return not (wrapped(tensor) or (fake is not None and isinstance(tensor, fake)))


def norms(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """L2 norms of tensors of one device and dtype, accumulated in at least float32. Shape (n,)."""
    wide = torch.float64 if tensors[0].dtype in (torch.float64, torch.complex128) else torch.float32
    together = getattr(torch, "_foreach_norm", None)
    if together is not None:
        return torch.stack(together(list(tensors), 2, dtype=wide))
    return torch.stack([torch.linalg.vector_norm(t, dtype=wide) for t in tensors])


def flattened(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """All elements of dense tensors of one device and dtype behind each other, always as a copy."""
    together = getattr(torch._C._nn, "flatten_dense_tensors", None)
    if together is None or len(tensors) < 2:  # of a single tensor torch makes a view
        return torch.cat([t.reshape(-1) for t in tensors])
    flat: torch.Tensor = together(list(tensors))
    return flat


def absmaxes(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """Largest magnitude of each tensor, NaN where it holds one. Shape (n,), in the tensors' own precision.

    On the CPU the infinity norm costs 13 to 20 reads, ``aminmax`` one; on CUDA it is one fused kernel.
    """
    together = getattr(torch, "_foreach_norm", None)
    if together is not None and tensors[0].device.type == "cuda":
        return torch.stack(together(list(tensors), float("inf")))
    ends = torch.stack([end for t in tensors for end in torch.aminmax(t)])
    return ends.abs_().view(-1, 2).amax(1)


def subtract_(tensors: Sequence[torch.Tensor], others: Sequence[torch.Tensor]) -> None:
    """Subtract the others from the tensors, pairwise and in place."""
    together = getattr(torch, "_foreach_sub_", None)
    if together is not None:
        together(list(tensors), list(others))
        return
    for tensor, other in zip(tensors, others, strict=True):
        tensor.sub_(other)


class _TotalNorm:
    """Observes the total norm that ``clip_grad_norm_`` computes; shared by all watchers of the process.

    The function is looked up in its module at call time, so that replacing it there also sees callers that
    imported ``clip_grad_norm_`` early. It is put back when the last observer leaves.
    """

    def __init__(self) -> None:
        self._observers: list[TotalNormObserver] = []
        self._original: Callable[..., torch.Tensor] | None = None
        self._ours: Callable[..., torch.Tensor] | None = None

    def observe(self, observer: TotalNormObserver) -> bool:
        """Start telling ``observer``; False where this release has no such function."""
        original = getattr(_clip_grad, "_get_total_norm", None)
        if original is None:
            return False
        self._observers.append(observer)
        if self._ours is None or original is self._original:  # never put in, or thrown out by somebody
            self._original, self._ours = original, self._observed(original)
            setattr(_clip_grad, "_get_total_norm", self._ours)  # noqa: B010 - private name
        return True

    def leave(self, observer: TotalNormObserver) -> None:
        """Stop telling ``observer``. Wrapped by somebody else since, ours stays and does nothing."""
        if observer in self._observers:
            self._observers.remove(observer)
        if self._observers or self._ours is None:
            return
        if getattr(_clip_grad, "_get_total_norm", None) is not self._ours:
            return
        setattr(_clip_grad, "_get_total_norm", self._original)  # noqa: B010 - private name
        self._original = self._ours = None

    def _observed(self, original: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        def get_total_norm(tensors: Any, norm_type: float = 2.0, *args: Any, **kwargs: Any) -> torch.Tensor:
            listed = [tensors] if isinstance(tensors, torch.Tensor) else list(tensors)
            total = original(listed, norm_type, *args, **kwargs)
            if float(norm_type) == 2.0:
                for observer in tuple(self._observers):
                    observer(listed, total)
            return total

        return get_total_norm


TOTAL_NORM = _TotalNorm()


def script_alias(ours: Callable[..., Any], original: Any) -> Callable[[], object] | None:
    """Have ``torch.jit.script`` take ``ours`` for the operator ``original``; returns what ends that.

    Functions written in Python need no alias: TorchScript finds their source through ``__wrapped__``. None
    (fallback without the table of operators): scripts that use ``ours`` would be refused.
    """
    if isinstance(original, types.FunctionType):
        return lambda: None
    builtins = getattr(torch.jit, "_builtins", None)
    table: dict[int, str] = getattr(builtins, "_get_builtin_table", dict)()
    if id(original) not in table:
        return None
    table[id(ours)] = table[id(original)]
    return lambda: table.pop(id(ours), None)


SkipObserver = Callable[[torch.optim.Optimizer], None]


class _Stepping:
    """Stands in for an optimizer while a GradScaler decides whether to step it."""

    __slots__ = ("_optimizer", "stepped")

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self._optimizer = optimizer
        self.stepped = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._optimizer, name)

    def step(self, *args: Any, **kwargs: Any) -> Any:
        self.stepped = True
        return self._optimizer.step(*args, **kwargs)


class _Scalers:
    """Observes every ``GradScaler`` of the process: which steps it skips, and the scale of those it makes.

    A skipped step calls no hook of the optimizer. Whether to skip is read from the device by torch itself, in
    a method of the class that is looked up at call time; nothing is read twice. It is put back when the last
    observer leaves. Fused optimizers skip by themselves and are not seen here.
    """

    _name = "_maybe_opt_step"

    def __init__(self) -> None:
        self._observers: list[SkipObserver] = []
        self._original: Callable[..., Any] | None = None
        self._ours: Callable[..., Any] | None = None
        self._running: dict[int, tuple[torch.optim.Optimizer, Any]] = {}

    def observe(self, observer: SkipObserver) -> bool:
        """Start telling ``observer`` of skipped steps; False where this release has no such method."""
        original = vars(torch.amp.GradScaler).get(self._name)
        if original is None:
            return False
        self._observers.append(observer)
        if self._ours is None or original is self._original:
            self._original, self._ours = original, self._observed(original)
            setattr(torch.amp.GradScaler, self._name, self._ours)
        return True

    def leave(self, observer: SkipObserver) -> None:
        """Stop telling ``observer``. Wrapped by somebody else since, ours stays and does nothing."""
        if observer in self._observers:
            self._observers.remove(observer)
        if self._observers or vars(torch.amp.GradScaler).get(self._name) is not self._ours:
            return
        setattr(torch.amp.GradScaler, self._name, self._original)
        self._original = self._ours = None

    def scale(self, optimizer: torch.optim.Optimizer | None) -> torch.Tensor | None:
        """The scale of the scaler that is stepping ``optimizer`` now, on the device; None for any other."""
        running = self._running.get(threading.get_ident())
        if running is None or running[0] is not optimizer:
            return None
        scale = getattr(running[1], "_scale", None)
        return scale if isinstance(scale, torch.Tensor) else None

    def _observed(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def maybe_opt_step(scaler: Any, optimizer: Any, *args: Any, **kwargs: Any) -> Any:
            thread, stepping = threading.get_ident(), _Stepping(optimizer)
            self._running[thread] = (optimizer, scaler)
            try:
                result = original(scaler, stepping, *args, **kwargs)
                if not stepping.stepped:
                    for observer in tuple(self._observers):
                        observer(optimizer)
            finally:
                del self._running[thread]
            return result

        return maybe_opt_step


SCALERS = _Scalers()

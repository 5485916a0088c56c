"""What an op reads, writes and launches, from its arguments: what its time depends on.

Bytes are those of storages: an expanded tensor counts once, what is written in place is read and
written, a lookup reads the rows that it takes. Kernels are those of a CUDA build; where an op is
made of others, or of several passes, a table says how many it is. Of what an op reads, the last
cache may still hold a part: what was touched since is less than the cache (least recently used).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch

from profiler.bench.repetition.log import OpLog, Touches

#: Ops that launch nothing: they make a tensor's description, or memory without content.
_NOTHING = frozenset(
    [
        "_unsafe_view",
        "_reshape_alias",
        "_reshape_copy",
        "detach",
        "alias",
        "lift_fresh",
        "lift",
        "empty",
        "empty_like",
        "empty_strided",
        "new_empty",
        "new_empty_strided",
        "resize_",
        "set_",
        "scalar_tensor",
        "_local_scalar_dense",
        "_linalg_check_errors",
        "_sparse_coo_tensor_with_dims_and_tensors",
        "_coalesced_",
        "is_same_size",
        "sym_size",
        "sym_stride",
        "sym_numel",
    ]
)

#: Ops that write without reading.
_WRITES = frozenset(
    [
        "zeros",
        "ones",
        "full",
        "eye",
        "arange",
        "linspace",
        "rand",
        "randn",
        "randint",
        "randperm",
        "zeros_like",
        "ones_like",
        "full_like",
        "rand_like",
        "randn_like",
        "randint_like",
        "new_zeros",
        "new_ones",
        "new_full",
        "zero_",
        "fill_",
        "normal_",
        "uniform_",
        "nll_loss_backward",
        "bernoulli_",
        "exponential_",
        "random_",
        "zero",
        "fill",
    ]
)

#: Ops that read what they take of a tensor, and no more.
_LOOKUPS = frozenset(["embedding", "index", "index_select", "gather", "take", "nll_loss_forward"])

#: Ops that put what they are given into a part of a tensor. Those without `_` copy it before.
_PUTS = frozenset(
    [
        "index_put",
        "index_put_",
        "_index_put_impl_",
        "_unsafe_index_put",
        "scatter",
        "scatter_",
        "scatter_add",
        "scatter_add_",
        "index_add",
        "index_add_",
        "index_copy",
        "index_copy_",
        "masked_scatter",
        "masked_scatter_",
    ]
)

#: Ops that fill their result with zeros and copy into a part of it
#: (aten/src/ATen/native/TensorShape.cpp, FunctionsManual.cpp; PadNd.cpp).
_FILLED = frozenset(
    ["slice_backward", "select_backward", "slice_scatter", "select_scatter", "constant_pad_nd"]
)

#: Kernels of ops that launch several, by what they consist of in a CUDA build of torch:
#: aten/src/ATen/native/cuda/Indexing.cu (indices are made, sorted and added up), Sorting.cu and
#: TensorTopK.cu (choose, then sort), Embedding.cu, Loss.cu, transformers/cuda/attention_backward.cu
#: (sums of grad * out, then the kernel), flash-attention's two (before and after the kernel).
_KERNELS = {
    "_index_put_impl_": 12,
    "index_put": 12,
    "sort": 3,
    "topk": 3,
    "kthvalue": 3,
    "median": 3,
    "cumsum": 2,
    "nonzero": 4,
    "unique2": 6,
    "embedding_dense_backward": 3,
    "nll_loss_backward": 2,
    "repeat": 1,
    "native_layer_norm_backward": 2,
    "_foreach_norm": 2,
    "_scaled_dot_product_efficient_attention_backward": 4,
    "_scaled_dot_product_flash_attention_backward": 3,
    "_scaled_dot_product_cudnn_attention_backward": 3,
    "_flash_attention_backward": 3,
    "_linalg_solve_ex": 6,
    "linalg_lu_factor_ex": 4,
    "linalg_lu_solve": 4,
    "linalg_inv_ex": 6,
    "linalg_qr": 6,
}

#: Decompositions by Jacobi's method, a kernel for each round of a sweep: n - 1 of n columns, and
#: six to seven sweeps until single precision is reached (Golub and Van Loan, "Matrix
#: computations", 4th edition, sections 8.5 and 8.6; cuSOLVER's gesvdj and syevj).
_ROTATIONS = frozenset(["linalg_pinv", "_linalg_svd", "_linalg_eigh"])
_SWEEPS = 7

#: Products whose operands are the last two tensors that they take.
_PRODUCTS = frozenset(
    ["mm", "bmm", "addmm", "baddbmm", "addmm_", "baddbmm_", "_addmm_activation", "_int_mm"]
)

#: Products of bitsandbytes' packed weights, from their arguments (bitsandbytes/_ops.py).
_PACKED: dict[str, Callable[[tuple[Any, ...]], tuple[int, ...]]] = {
    "gemm_4bit": lambda args: _rows_by(args[0], args[2][0]),
    "gemv_4bit": lambda args: _rows_by(args[0], args[2][0]),
    "int8_linear_matmul": lambda args: _rows_by(args[0], args[1].shape[0]),
    "int8_scaled_mm": lambda args: _rows_by(args[0], args[1].shape[0]),
    "int8_mixed_scaled_mm": lambda args: _rows_by(args[1], args[2].shape[0]),
}

#: How many tensors of each list a kernel of `_foreach_*` takes, by the number of lists, into how
#: many elements a tensor is cut, and how many such cuts a launch takes
#: (aten/src/ATen/native/cuda/MultiTensorApply.cuh).
_TENSORS = (110, 64, 48, 36, 30)
_CHUNK = 65536
_CHUNKS = 320

#: Tensors that a kernel of `cat` takes (aten/src/ATen/native/cuda/Shape.cu, CAT_ARRAY_BATCH_SIZE).
_JOINED = 128
JOINING = frozenset({"cat", "stack"})

_STRIDED = torch.strided


@dataclass(slots=True)
class Work:
    """The fields of `profiler.trace.Op` that this decides."""

    nbytes: int
    cached: int
    product: tuple[int, ...]
    kernels: int
    items: int
    waits: bool
    causal: bool = False


@dataclass(frozen=True, slots=True)
class Kind:
    """What is known of an op without its arguments.

    `name` is without its namespace, `mutated` are the arguments that are written where nothing is
    returned, `causal` is the place of the argument that makes attention causal, -1 without one.
    """

    name: str
    nothing: bool
    reads: str
    kernels: int
    each: bool
    mutated: tuple[int, ...]
    causal: int


def kind(func: Any) -> Kind:
    """The kind of a dispatched op."""
    packet = getattr(func, "_overloadpacket", func)
    namespace = getattr(func, "namespace", "")
    name = str(getattr(packet, "__name__", packet))
    reads = "all"
    for mode, names in (
        ("none", _WRITES),
        ("lookup", _LOOKUPS),
        ("put", _PUTS),
        ("filled", _FILLED),
        ("copy", frozenset({"copy_"})),
    ):
        if name in names:
            reads = mode
    schema = getattr(func, "_schema", None)
    mutated: tuple[int, ...] = ()
    if schema is not None and not schema.returns:
        mutated = tuple(
            place
            for place, argument in enumerate(schema.arguments)
            if argument.alias_info is not None and argument.alias_info.is_write
        )
    return Kind(
        name=name,
        nothing=name in _NOTHING or namespace in ("profiler", "prim"),
        reads=reads,
        kernels=_KERNELS.get(name, 2 if reads == "filled" else 1),
        each=name.startswith("_foreach_"),
        mutated=mutated,
        causal=next(
            (
                place
                for place, argument in enumerate(schema.arguments if schema is not None else ())
                if argument.name == "is_causal"
            ),
            -1,
        ),
    )


class OpWork:
    """Measures the ops of one run, in their order.

    Args:
        cache_bytes: of the device's last cache.
        on_host: whether a storage, given by its `_cdata`, is the host's and not the device's.
    """

    def __init__(self, cache_bytes: int, on_host: Callable[[int], bool]) -> None:
        self._cache = cache_bytes
        self._on_host = on_host
        self._touched: dict[int, int] = {}
        self._total = 0
        self._log: OpLog | None = None
        self._named: Callable[[int], int | None] = lambda storage: None

    def keep_log(self, log: OpLog, named: Callable[[int], int | None]) -> None:
        """From now on, note what each op touches; `named` gives a storage's number for the log."""
        self._log, self._named = log, named

    def forget(self, storage: int) -> None:
        """A storage is gone; another one may get its `_cdata`."""
        self._touched.pop(storage, None)

    def measure(self, kind: Kind, args: tuple[Any, ...], outs: Any, inside: int) -> Work:
        """What an op does.

        Args:
            outs: its results on the device, a tuple or a list, or what is none of tensors.
            inside: bytes that its kernel allocates for itself: written and read once.
        """
        reads, items, lists = _tensors(args)
        if self._log is not None:
            self._log.touches.append(Touches())
        writes = []
        if isinstance(outs, (tuple, list)):
            writes = [one for one in outs if isinstance(one, torch.Tensor)]
        for place in kind.mutated if not writes else ():
            if place < len(args):
                writes += _tensors((args[place],))[0]
        on_host = bool(reads or writes) and self._host(reads or writes)
        if kind.nothing or on_host:
            waits = kind.name == "_local_scalar_dense" and not on_host
            return Work(0, 0, (), 0, items, waits)
        product: tuple[int, ...] = ()
        kernels = kind.kernels
        passes = 1
        if kind.name in _PRODUCTS:
            operands = reads[-2:] if kind.name in ("mm", "bmm", "_int_mm") else reads[1:3]
            product = _product(operands)
            for one in operands:
                if _is_copied(one):  # cuBLAS wants one of both dimensions to be dense
                    kernels += 1
                    reads.append(one)
                    writes.append(one)
        elif kind.name in _PACKED:
            product = _PACKED[kind.name](args)
            kernels += bool(inside)  # the weight is unpacked, then multiplied
        elif kind.each:
            numels, count = [one.numel() for one in lists[0]], len(lists) + (not kind.mutated)
            kernels += foreach_kernels(numels, count) - 1
            if self._log is not None:
                self._log.touches[-1].numels, self._log.touches[-1].lists = numels, count
        elif lists and kind.name in JOINING:
            kernels = joining_kernels(items)
        elif lists and kind.name == "block_diag":
            kernels = 1 + items
        elif kind.name.startswith("_fft_") and reads:
            passes = kernels = _transform_passes(kind.name, args)
        elif kind.name in _ROTATIONS and reads:
            kernels = _SWEEPS * max(min(reads[0].shape[-2:]) - 1, 1)
        elif kind.name == "index_put_" and len(args) > 3 and args[3]:
            kernels = _KERNELS["index_put"]
        nbytes, cached = self._traffic(kind, reads, writes)
        nbytes = nbytes * passes + 2 * inside
        causal = 0 <= kind.causal < len(args) and bool(args[kind.causal])
        return Work(nbytes, cached, product, kernels, items, False, causal)

    def _host(self, tensors: list[Any]) -> bool:
        first = tensors[0]
        return first.layout is _STRIDED and self._on_host(first.untyped_storage()._cdata)

    def _traffic(self, kind: Kind, reads: list[Any], writes: list[Any]) -> tuple[int, int]:
        """Bytes read and written, and those of them that the cache should hold."""
        written = [_extent(one) for one in writes]
        mode = kind.reads
        if mode == "none":
            read = []
        elif mode == "lookup":
            most = sum(nbytes for _, nbytes in written)
            read = [(key, min(nbytes, most)) for key, nbytes in map(_extent, reads)]
        elif mode == "copy":
            read = [_extent(one) for one in reads[1:]]
        elif mode == "put":
            read = [_extent(one) for one in reads[1:]]
            put = max((nbytes for _, nbytes in read), default=0)
            if kind.name.endswith("_"):
                written = [(key, min(nbytes, put)) for key, nbytes in written]
            else:
                read.append(_extent(reads[0]))
                written += [(key, put) for key, _ in written]
        else:
            read = [_extent(one) for one in reads]
            if mode == "filled" and read:
                written += [(key, min(read[0][1], nbytes)) for key, nbytes in written]
        if self._log is not None and self._cache:
            self._log.touches[-1].reads = [(self._named(key), size) for key, size in read]
            self._log.touches[-1].writes = [(self._named(key), size) for key, size in written]
        nbytes = cached = 0
        touched = self._touched
        for key, size in read:
            nbytes += size
            last = touched.get(key)
            if last is not None and self._total - last + size <= self._cache:
                cached += size
        for key, size in read + written:
            self._total += size
            touched[key] = self._total
        return nbytes + sum(size for _, size in written), cached


def _tensors(args: Iterable[Any]) -> tuple[list[Any], int, list[list[Any]]]:
    """The tensors of an op's arguments, how many of them are in lists, and these lists."""
    found: list[Any] = []
    lists: list[list[Any]] = []
    items = 0
    for argument in args:
        if isinstance(argument, torch.Tensor):
            found.append(argument)
        elif isinstance(argument, (list, tuple)):
            inner = [one for one in argument if isinstance(one, torch.Tensor)]
            if inner:
                found += inner
                lists.append(inner)
                items = max(items, len(inner))
    return found, items, lists


def _extent(tensor: Any) -> tuple[int, int]:
    """A tensor's storage, and the bytes of it that it covers at most."""
    if tensor.layout is not _STRIDED:
        values, indices = tensor._values(), tensor._indices()
        return values.untyped_storage()._cdata, values.nbytes + indices.nbytes
    storage = tensor.untyped_storage()
    return storage._cdata, min(tensor.nbytes, storage.nbytes())


def _rows_by(tensor: Any, columns: int) -> tuple[int, ...]:
    inner = tensor.shape[-1]
    return (1, tensor.numel() // inner if inner else 0, int(columns), inner)


def _product(operands: list[Any]) -> tuple[int, ...]:
    if len(operands) != 2 or any(one.layout is not _STRIDED for one in operands):
        return ()
    (*batch, m, k), n = operands[0].shape, operands[1].shape[-1]
    return (math.prod(batch), m, n, k)


def _is_copied(tensor: Any) -> bool:
    """`prepare_batch_matrix_for_cublas`, `prepare_matrix_for_cublas`
    (aten/src/ATen/native/cuda/Blas.cpp): neither rows nor columns are dense."""
    if tensor.layout is not _STRIDED:
        return False
    rows, columns = tensor.stride()[-2:]
    return rows != 1 and columns != 1 and min(tensor.shape[-2:]) > 1


def foreach_kernels(numels: Iterable[int], lists: int) -> int:
    """Launches of a multi-tensor kernel over lists of alike tensors.

    Args:
        numels: elements of each tensor of one of the lists.
        lists: how many lists the kernel takes.
    """
    most = _TENSORS[min(lists, len(_TENSORS)) - 1]
    launches = tensors = chunks = 0
    for numel in numels:
        tensors += 1
        chunks += -(-numel // _CHUNK)
        full, chunks = divmod(chunks, _CHUNKS)
        launches += full
        if full:
            tensors = 1 if chunks else 0
        elif tensors == most:
            launches, tensors, chunks = launches + 1, 0, 0
    return launches + (1 if chunks else 0)


def joining_kernels(items: int) -> int:
    """Launches of a kernel that joins so many tensors (`JOINING`)."""
    return -(-items // _JOINED)


def _transform_passes(name: str, args: tuple[Any, ...]) -> int:
    """Passes over the result of a Fourier transform: one for each dimension, and further ones that
    scale it, fill in the half that follows from the other, and make the input dense before
    (aten/src/ATen/native/cuda/SpectralOps.cpp)."""
    tensor, dims, normalization, last = args[:4]
    passes = len(dims) + (normalization != 0)
    if name == "_fft_r2c" and not last:
        passes += 1
    return passes + (tensor.dim() > 0 and tensor.stride()[-1] != 1)

"""A stack of blocks as a list of instructions for the kernel: a new token is then one call, not a thousand.

The blocks are walked in the order of `Block.forward`, and each thing that they do becomes an instruction of
nn/native/step.c. What can't be said there (an adapter, another kind of layer) makes no program, and the modules run
themselves. Both give the same numbers but for rounding, of which the program does less: between products all is in
single precision.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

from regard.models.instructions import CacheAt, Instruction, Pass, UnsaidError, View, Writer
from regard.nn.attention import Attention, is_watched
from regard.nn.block import Block
from regard.nn.cache import Cache
from regard.nn.layers import Dropout
from regard.nn.masks import Mask
from regard.nn.native import is_free, load
from regard.nn.positions import Terms

if TYPE_CHECKING:
    from regard.models.transformer import Head, Stack

__all__ = ["Program", "encode_packed", "program_for"]

_FEW = 32  # rows up to which torch isn't faster anywhere


def program_for(stack: Stack, head: Head | None, rows: int) -> Program | None:
    """Make the program of a stack for passes of up to so many rows; None where the modules must run themselves.

    They must while somebody watches, while anything learns, where there is no kernel, and with many rows on a processor
    on which torch multiplies them faster.
    """
    if stack.training or torch.is_grad_enabled() or is_watched() or not is_free():
        return None
    library = load("step")
    if library is None or (rows > _FEW and library.has_tiles()):
        return None
    for hook in list(stack._forward_pre_hooks.values()):
        if getattr(hook, "runs_once", False):
            hook(stack, ())
    if not _is_plain(stack, *([] if head is None else [head])):
        return None
    try:
        return Program(stack, head, rows, library)
    except UnsaidError:
        return None


class Program:
    """Hold the instructions of a stack and its head, and the room between them, for passes of up to `rows` tokens.

    Weights stay where they are: a program is made for a text or a batch of them, not kept while weights change.
    """

    def __init__(self, stack: Stack, head: Head | None, rows: int, library: ctypes.CDLL) -> None:
        self.rows, self._library, self._causal = rows, library, stack.causal
        blocks = [block for block in stack.blocks if type(block) is Block]
        if not blocks or len(blocks) < len(stack.blocks):
            raise UnsaidError
        attention = blocks[0].attention
        write = Writer(rows, attention.query.in_features, causal=stack.causal)
        self._views = {window: View() for window in {None, *stack.windows}}
        self._cross_view = View()
        self._own, self._cross = [CacheAt() for _ in blocks], [CacheAt() for _ in blocks]
        for block, window, own, cross in zip(blocks, stack.windows, self._own, self._cross, strict=True):
            write.block(block, self._views[window], self._cross_view, own, cross)
        self._x, self._hidden = write.x, write.norm(stack.norm_out, write.x)
        self._stack_ends, self._scores = len(write.list), 0
        if head is not None and head.kind == "lm" and head.transform is None and head.scale is None:
            self._scores = head.output.out_features
            write.product(head.output, self._hidden, torch.empty(0, self._scores, device="cpu"))
        self._kept, self._program = write.kept, (Instruction * len(write.list))(*write.list)
        sizes = (map(ctypes.c_int64, (bits, rows, columns)) for bits, columns in write.rounded)
        self._room = torch.empty(
            64 + max(library.room_bytes(*size) for size in sizes), dtype=torch.uint8, device="cpu"
        )
        # What tells a cache that is still empty of its shape.
        kind = next(stack.parameters()).dtype
        self._empty = torch.empty(1, attention.num_kv_heads, 0, attention.head_size, dtype=kind, device="cpu")

    def step(
        self,
        x: Float[Tensor, "B T D"],
        cache: Cache,
        terms: Callable[[bool], Terms],
        *,
        keys: Bool[Tensor, "B S"] | None,
        memory_keys: Bool[Tensor, "B M"] | None,
        only_last: bool = False,
    ) -> Float[Tensor, "B R E"]:
        """Pass new tokens on, whose keys and values go into the cache.

        Args:
            x: embeddings with their positions, B · T at most `rows`.
            cache: of all layers; it grows.
            terms: gives positions, for the layers with a window or for those without.
            keys: which slots are real, the new ones included; None: all.
            memory_keys: which of the memory's are.
            only_last: of the last new token alone.

        Returns:
            Scores, (B, T or 1, V), where `scores` says so; else final states, (B, T or 1, D).
        """
        batch, fresh, _ = x.shape
        start = cache.length
        for own, place in zip(cache.own, self._own, strict=True):
            empty = self._empty.expand(batch, -1, -1, -1)
            place.point(*own.extend(empty, empty, fresh))
        lasting = [self._see(view, terms(window is not None), window) for window, view in self._views.items()]
        for view in self._views.values():
            view.keys = start + fresh
            view.allowed, view.allowed_step = _rows_of(keys)
        if cache.cross[0].keys is not None:
            for cross, place in zip(cache.cross, self._cross, strict=True):
                assert cross.keys is not None and cross.values is not None
                place.point(cross.keys, cross.values, 0)
            self._cross_view.keys = cache.cross[0].keys.shape[2]
            if memory_keys is not None and memory_keys.stride(1) != 1:
                memory_keys = memory_keys.contiguous()
            self._cross_view.allowed, self._cross_view.allowed_step = _rows_of(memory_keys)
        rows = batch * fresh
        self._x[:rows] = x.flatten(0, 1)
        of = Pass(batch, fresh, start, torch.get_num_threads(), None, self._room.data_ptr())
        last = only_last and fresh > 1
        if self._scores and not last:
            return self._run(0, len(self._program), of, self._room_of_scores(batch, fresh))
        self._run(0, self._stack_ends, of)
        del lasting
        hidden = (
            self._hidden[:rows].view(batch, fresh, -1)[:, -1:] if last else self._hidden[:rows].view(x.shape)
        )
        hidden = hidden.clone()
        if not self._scores:
            return hidden
        self._hidden[:batch] = hidden[:, 0]
        of.fresh = 1
        return self._run(self._stack_ends, len(self._program), of, self._room_of_scores(batch, 1))

    def _room_of_scores(self, batch: int, fresh: int) -> Tensor:
        return torch.empty(batch, fresh, self._scores, dtype=torch.float32, device="cpu")

    @staticmethod
    def suits(cache: Cache) -> bool:
        """Tell whether it can go on with what modules have kept: they may have kept it in another type."""
        return all(
            keys.dtype == values.dtype and keys.dtype in (torch.float32, torch.bfloat16)
            for keys, values in cache.held
        )

    @property
    def scores(self) -> bool:
        """Tell whether the head is in the program: `step` then gives scores."""
        return self._scores > 0

    def encode(
        self, x: Float[Tensor, "N D"], starts: Int[Tensor, " B1"], terms: Callable[[bool], Terms]
    ) -> Float[Tensor, "N D"]:
        """Pass whole texts on, one after another without padding.

        Args:
            x: embeddings with their positions of all tokens, N at most `rows`.
            starts: the row of each text's first token, and N behind them.
            terms: gives positions of the longest text, for the layers with a window or for those without.
        """
        lasting = [self._see(view, terms(window is not None), window) for window, view in self._views.items()]
        self._x[: len(x)] = x
        self._run(
            0, self._stack_ends,
            Pass(len(starts) - 1, 0, 0, torch.get_num_threads(), starts.data_ptr(), self._room.data_ptr()),
        )  # fmt: skip
        del lasting
        return self._hidden[: len(x)].clone()

    def _run(self, first: int, last: int, of: Pass, out: Tensor | None = None) -> Tensor:
        if out is not None:
            self._program[len(self._program) - 1].product.out = out.data_ptr()
        begin = ctypes.byref(self._program, first * ctypes.sizeof(Instruction))
        if self._library.run(begin, ctypes.c_int64(last - first), ctypes.byref(of)):
            raise MemoryError("no memory for a pass")
        return self._hidden if out is None else out

    def _see(self, view: View, terms: Terms, window: int | None) -> list[Tensor]:
        """Tell attention of positions; give the tensors that must last as long as the pass."""
        view.window, view.causal = window or 0, self._causal
        lasting: list[Tensor] = []
        if terms.rotation is not None:
            cosines, sines = (x.float().contiguous() for x in terms.rotation)
            view.cosines, view.sines = cosines.data_ptr(), sines.data_ptr()
            view.turn_step = cosines.stride(0) if len(cosines) > 1 else 0
            lasting += [cosines, sines]
        if terms.bias is not None:
            bias = terms.bias.dense.float().contiguous()
            view.bias, view.bias_step = bias.data_ptr(), bias.stride(0) if len(bias) > 1 else 0
            view.bias_rows, view.bias_columns = bias.shape[2:]
            lasting.append(bias)
        return lasting


def encode_packed(
    stack: Stack, x: Float[Tensor, "B T D"], positions: Int[Tensor, "... T"], mask: Mask
) -> Float[Tensor, "B T D"] | None:
    """Pass texts through a stack that sees whole texts, without computing their padding; None where it can't be.

    Args:
        stack: the blocks.
        x: embeddings, without their positions.
        positions: of each token.
        mask: which are real; any other limit is left to the modules.

    Returns:
        The final states, zeros where there is padding.
    """
    if torch.is_grad_enabled() or x.device.type != "cpu" or not is_free():
        return None  # before anything is asked of the mask's numbers
    batch, length, width = x.shape
    real = None if mask.keys is None or bool(mask.keys.all()) else mask.keys
    if not replace(mask, keys=None).is_empty or x.numel() == 0:
        return None
    if real is not None and any(stack.windows) and bool(_begins(real).sum(1).max() > 1):
        return None  # a window counts what is masked between others
    counts = torch.full((batch,), length, device="cpu") if real is None else real.sum(1)
    rows = int(counts.sum())
    program = program_for(stack, None, rows) if rows else None
    if program is None:
        return None
    longest = torch.arange(int(counts.max()), device="cpu")
    usual = longest.expand(batch, -1) if real is None else (real.cumsum(1) - 1).clamp(min=0)
    if stack.position.relates and not torch.equal(positions.expand(batch, -1), usual):
        return None

    terms = partial(stack.terms, longest, longest)
    x = stack.norm_in(stack.position.add(x, positions))
    starts = torch.cat((counts.new_zeros(1), counts.cumsum(0)))
    flat = x.flatten(0, 1) if real is None else x[real]
    found = program.encode(flat, starts, terms).to(x.dtype)
    if real is None:
        return found.view(batch, length, width)
    padded = x.new_zeros(batch, length, width)
    padded[real] = found
    return padded


def _begins(real: Bool[Tensor, "B T"]) -> Bool[Tensor, "B T"]:
    """Mark the first token of each run of real ones."""
    return real & ~nn.functional.pad(real, (1, 0))[:, :-1]


def _rows_of(keys: Tensor | None) -> tuple[int | None, int]:
    """Give the place of a boolean matrix and how far its rows are apart."""
    return (None, 0) if keys is None else (keys.data_ptr(), keys.stride(0))


def _is_plain(*modules: nn.Module) -> bool:
    """Tell whether modules do what their classes say: none drops anything, and nobody has hung a function on one."""
    if torch_module._global_forward_hooks or torch_module._global_forward_pre_hooks:
        return False
    return not any(
        m._forward_hooks
        or m._forward_pre_hooks
        or "forward" in m.__dict__
        or (m.training and isinstance(m, Dropout | Attention))
        for module in modules
        for m in module.modules()
    )

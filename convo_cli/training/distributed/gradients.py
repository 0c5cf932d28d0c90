"""Sums of gradients over processes by one all-reduce for many small ones, or for a large one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.distributed as dist
from torch import Tensor

_TOGETHER = 1 << 22
"""Elements of gradients that are summed at once, 16 MiB in fp32; larger ones go alone."""


def sum_in_buckets(gradients: Sequence[Tensor]) -> None:
    """Replace each gradient by its sum over the processes, which all give the same shapes.

    Needs memory for one bucket.
    """
    for bucket in _buckets(gradients):
        if len(bucket) == 1 and bucket[0].is_contiguous():
            dist.all_reduce(bucket[0])
        else:
            _sum_together(bucket)


def _sum_together(bucket: Sequence[Tensor]) -> None:
    flat = torch.cat([gradient.flatten() for gradient in bucket])
    dist.all_reduce(flat)
    parts = flat.split([gradient.numel() for gradient in bucket])
    for gradient, part in zip(bucket, parts, strict=True):
        gradient.copy_(part.view_as(gradient))


def _buckets(gradients: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    bucket: list[Tensor] = []
    size = 0
    for gradient in gradients:
        if bucket and size + gradient.numel() > _TOGETHER:
            yield bucket
            bucket, size = [], 0
        bucket.append(gradient)
        size += gradient.numel()
    if bucket:
        yield bucket

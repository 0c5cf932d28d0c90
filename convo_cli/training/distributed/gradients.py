"""Sums of gradients over the processes: one all-reduce for each bucket of small gradients."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.distributed as dist
from torch import Tensor

_BUCKET_SIZE = 1 << 22
"""Elements in a bucket, 16 MiB in fp32; a larger gradient has a bucket of its own."""


def sum_in_buckets(gradients: Sequence[Tensor]) -> None:
    """Replace each gradient by its sum over the processes, all of which pass the same shapes.

    The extra memory is that of one bucket.
    """
    for bucket in _buckets(gradients):
        if len(bucket) == 1 and bucket[0].is_contiguous():
            dist.all_reduce(bucket[0])
        else:
            _sum_concatenated(bucket)


def _sum_concatenated(bucket: Sequence[Tensor]) -> None:
    flat = torch.cat([gradient.flatten() for gradient in bucket])
    dist.all_reduce(flat)
    parts = flat.split([gradient.numel() for gradient in bucket])
    for gradient, part in zip(bucket, parts, strict=True):
        gradient.copy_(part.view_as(gradient))


def _buckets(gradients: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    bucket: list[Tensor] = []
    size = 0
    for gradient in gradients:
        if bucket and size + gradient.numel() > _BUCKET_SIZE:
            yield bucket
            bucket, size = [], 0
        bucket.append(gradient)
        size += gradient.numel()
    if bucket:
        yield bucket

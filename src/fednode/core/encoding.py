"""The two ways in which the params of a run travel. What bf16 does to them is `narrowed`."""

from __future__ import annotations

from typing import Literal, TypeAlias

Encoding: TypeAlias = Literal["f32", "bf16"]

F32: Encoding = "f32"           # every tensor in its own dtype
BF16: Encoding = "bf16"         # float32 tensors in half their bytes

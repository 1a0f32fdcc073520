"""Grad-CAM: where in a picture the evidence for a class lies. Selvaraju et al. 2017, arXiv:1610.02391.

For any network of convolutions; nothing has to be named. Imports torch, so `torch_loop.py` is how tasks come here.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

MIN_SIDE = 4                    # of the maps that are read: coarser ones tell no place
SPATIAL = 4                     # axes of (pictures, channels, height, width)


def heat_maps(model: nn.Module, pictures: Tensor, labels: Tensor) -> Tensor | None:
    """Maps of (n, height, width) from 0 to 1, for the class `labels[i]` of each picture; None: it has no feature maps.

    Read are the last features that tell places, as in the paper: earlier ones are finer, but of a small ResNet a third
    of their maps was empty. The highest value of each map is 1, except where nothing speaks for the class: then all of
    it is 0.
    """
    seen: list[Tensor] = []

    def keep(module: nn.Module, given: object, features: Any) -> None:
        is_map = isinstance(features, Tensor) and features.ndim == SPATIAL and min(features.shape[2:]) >= MIN_SIDE
        if is_map and features.requires_grad:
            seen[:] = [features]

    hooks = [module.register_forward_hook(keep) for module in model.modules()]
    try:
        scores = model(pictures)
    finally:
        for hook in hooks:
            hook.remove()
    if not seen:
        return None
    wanted = scores.gather(1, labels[:, None]).sum()        # pictures do not mix: one sum gives the slopes of each
    slopes, = torch.autograd.grad(wanted, seen)
    importance = slopes.mean(dim=(2, 3), keepdim=True)                          # equation 1 of the paper
    maps = (importance * seen[0]).sum(dim=1).clamp_min(0)                       # equation 2
    highest = maps.amax(dim=(1, 2), keepdim=True)
    return (maps / highest.where(highest > 0, torch.ones_like(highest))).detach()

"""Import this before whatever imports torchvision: made for CUDA, it wants operators declared beside a torch for the CPU."""

import torch

if "+cpu" in torch.__version__:
    LIBRARY = torch.library.Library("torchvision", "DEF")
    for operator in ("nms(Tensor dets, Tensor scores, float iou_threshold)", "qnms(Tensor dets, Tensor scores, float iou_threshold)"):
        LIBRARY.define(f"{operator} -> Tensor")

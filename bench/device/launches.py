"""Runs forward + backward of every SSIM kernel once, for ncu: python -m device.launches."""

import argparse

import torch
from suite.cases import textured_pair
from suite.contestants import FUSED, NATIVE, ON_GPU, TRITON, select

SHAPE = (8, 3, 256, 256)


def main() -> None:
    """Call each contestant once; ncu selects kernels by name."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    device = torch.device(parser.parse_args().device)
    taken, skipped = select((FUSED, TRITON, NATIVE), among=ON_GPU, device=device.type)
    for row in skipped:
        print(f"skipped: {row['contestant']}: {row['reason']}")
    images = [image.to(device) for image in textured_pair(SHAPE)]
    for contestant in taken:
        contestant.setup(*images).forward_backward()
    if device.type == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()

"""How a check's time and memory grow with depth and with width.

    python -m benchmarks.growth [--depths 2,4,8,16,32] [--widths 320,640,960,1280]

Each is a process of its own: our ViT beside torchvision's in eval mode, both dtypes, two images. What a check takes
beside the weights is its peak memory without one float32 copy of them, which both models share.
"""

# ruff: noqa: T201  (printing is what it is for)

from __future__ import annotations

import argparse
import sys
from typing import Any

from benchmarks.cost import usage_of
from parity.models import build_reference, configuration

# H/14's width and heads, and others with heads as wide as its
HEAD = 80


def measure(layers: int, width: int) -> dict[str, Any]:
    """Runs one check and returns its seconds and bytes."""
    settings = {"num_layers": layers, "hidden_dim": width, "mlp_dim": 4 * width, "num_heads": width // HEAD}
    command = [
        sys.executable,
        "-m",
        "parity",
        "check",
        "--reference",
        "vit_h_14",
        "--quiet",
        "--modes",
        "eval",
        "--batch",
        "2",
    ]
    for key, value in settings.items():
        command += ["--set", f"{key}={value}"]
    used = usage_of(command)
    model = build_reference(configuration("vit_h_14", settings))
    weights = 4 * sum(parameter.numel() for parameter in model.parameters())
    row = {"layers": layers, "width": width, "seconds": used.seconds, "memory": used.memory, "weights": weights}
    print(f"{layers:3d} layers, {width:5d} wide: {used.seconds:6.1f} s, {(used.memory - weights) / 1e9:.3f} GB beside "
          f"{weights / 1e9:.3f} GB of weights", flush=True)  # fmt: skip
    return row


def measure_all(depths: list[int], widths: list[int]) -> dict[str, list[dict[str, Any]]]:
    """Returns a row for every depth at H/14's width, and for every width of four layers."""
    return {"depth": [measure(n, 1280) for n in depths], "width": [measure(4, n) for n in widths]}


DEPTHS, WIDTHS = [2, 4, 8, 16, 32], [320, 640, 960, 1280]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--depths", type=_numbers, default=DEPTHS)
    parser.add_argument("--widths", type=_numbers, default=WIDTHS)
    options = parser.parse_args()
    measure_all(options.depths, options.widths)


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


if __name__ == "__main__":
    main()

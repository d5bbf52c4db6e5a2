"""What is done inside the environment of one release: checks, and the digests of every layer's bits.

`python -m parity.releases.row OUT.json CANDIDATE NAME CODE` writes a row, and beside it
the tensors whose digests it has.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import platform
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save
from torch import nn

from parity.checking import check
from parity.diagnosis import DTYPES
from parity.errors import ParityError, told
from parity.mapping import in_place, infer_mapping, set_up
from parity.models import build_without_values, configuration, make_inputs
from parity.progress import Progress
from parity.releases import testing
from parity.releases.environments import SOURCES
from parity.releases.pairs import PAIRS
from parity.releases.rows import LOGITS, NOT_CHECKED, SCHEMA, Row
from parity.report import digest_of_weights, environment
from parity.tracing import MODES, Telling, can_switch_fastpath, held_in
from parity.writing import whole, write

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from parity.tracing import Point, Subject

OURS = "vit:ViT"

# what is needed for our own: by tests, and by other people's ViTs that are looked at beside it
NEEDS = (*testing.NEEDS, "timm>=1.0")

# what is checked beside our own ViT: the fast path, another order of operations, torch's own kernel, a bug, and timm's
BESIDE = (
    "vit:FastViT",
    "tests/candidates/fused_qkv.py:VisionTransformer",
    "tests/candidates/sdpa.py:FlashViT",
    "tests/candidates/eps_bias_pool.py:SmallViT",
    "tests/peers.py:timm_sized",
)
_PHASES = ("forward", "backward", "training", "conditions")

ARCHITECTURES = ("vit_b_16", "vit_b_32", "vit_l_16", "vit_l_32", "vit_h_14")
FULL_SIZE = "vit_b_16 at full size"
_SMALL = "small "

# what is checked at full depth on the oldest release, one in the middle and the newest alone
LARGE = ("vit_l_16", "vit_h_14")
ON = tuple(PAIRS[place].torch for place in (0, len(PAIRS) // 2, -1))

_LIBRARIES = {"oneDNN": r"MKL-DNN v([\d.]+)", "MKL": r"Math Kernel Library Version ([\d.]+)"}

# tensors of so many numbers are kept; of a larger one the digest is known
_MOST_KEPT = 1 << 16
_DIGITS = 16


def main() -> int:
    """Writes the row."""
    parser = argparse.ArgumentParser(prog="python -m parity.releases.row", description=__doc__)
    for name in ("out", "candidate", "name", "code"):
        parser.add_argument(name)
    options = parser.parse_args()
    out = Path(options.out)
    torch.set_num_threads(1)
    row, tensors = made(options.candidate, options.name, options.code)
    with whole(out.with_suffix(".safetensors")) as temporary:
        temporary.write_bytes(save(tensors))
    write(out, json.dumps(row, allow_nan=False))
    return 0


def made(candidate: str, name: str, code: str) -> tuple[Row, dict[str, torch.Tensor]]:
    """Checks and measures everything on the torch that is imported.

    Args:
        candidate: as in `parity check`.
        name: how the row calls it.
        code: digest of what decides about the row.

    Returns:
        The row, and the tensors whose digests it has, by digest.
    """
    where = environment()
    config = torch.__config__.show()
    tensors: dict[str, torch.Tensor] = {}
    row = {
        "schema": SCHEMA,
        "torch": where["torch"].partition("+")[0],
        "torchvision": where["torchvision"].partition("+")[0],
        "python": where["python"],
        "machine": f"{platform.system()} {platform.machine()}",
        "cpu_capability": where["cpu_capability"],
        "processor": processor(),
        "threads": where["threads"],
        "libraries": {n: found[1] for n, pattern in _LIBRARIES.items() if (found := re.search(pattern, config))},
        "candidate": name,
        "code": code,
        "checks": [_checked(*question) for question in _questions(candidate, name)],
        "large": of_the_largest(candidate, where["torch"].partition("+")[0]) if candidate == OURS else {},
        "tests": _tests(candidate) if candidate == OURS else {},
        "bits": {name: bits_of(candidate, *sized, tensors) for name, sized in _models().items()},
    }
    return row, tensors


def processor() -> str:
    """Returns what the processor calls itself; bits depend on it, since libraries choose their code by it."""
    with contextlib.suppress(OSError):
        found = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
        return found[1] if found else platform.machine()
    return platform.processor() or platform.machine()


def _models() -> dict[str, tuple[str, dict[str, Any], int]]:
    """Returns every model that is looked at: reference, settings and images, by the name that the row has for it."""
    models = {f"{_SMALL}{name}": (name, small(name), 2) for name in ARCHITECTURES}
    return models | {FULL_SIZE: ("vit_b_16", {}, 1)}


def small(name: str) -> dict[str, Any]:
    """Returns the settings of an architecture in small: a sixteenth as wide, a sixth as deep, of 3 x 3 patches."""
    config = configuration(name)
    sixteenth = {key: config[key] // 16 for key in ("hidden_dim", "mlp_dim")}
    return sixteenth | {
        "image_size": 3 * config["patch_size"],
        "num_layers": config["num_layers"] // 6,
        "num_classes": 10,
    }


def _questions(candidate: str, name: str) -> Iterator[tuple[str, str, str, tuple[str, ...]]]:
    """Yields candidate, its name, model and phases of every check."""
    for model in _models():
        yield candidate, name, model, ("forward",)
    if candidate == OURS:
        first = next(iter(_models()))
        yield candidate, name, first, _PHASES
        for other in BESIDE:
            path = str(SOURCES / other) if "/" in other else other
            if path == other or Path(path.rpartition(":")[0]).exists():
                yield path, other, first, ("forward",)


def _tests(candidate: str) -> dict[str, dict[str, Any]]:
    """Returns what tests say, by what they are called."""
    found = {"equivalence suite": testing.equivalence_suite(candidate), "quick tests": testing.quick_tests(SOURCES)}
    return {name: said for name, said in found.items() if said is not None}


def of_the_largest(candidate: str, torch: str) -> dict[str, str]:
    """Returns the verdict on the largest architectures in eval mode, where they are looked at on this release."""
    if torch not in ON:
        return {}
    found: dict[str, str] = {}
    for name in LARGE:
        try:
            found[name] = check(candidate, name, modes=["eval"], batch=1).verdict
        except Exception as error:  # noqa: BLE001  (such as too little memory)
            found[name] = f"{NOT_CHECKED}: {told(error)}"
    return found


def _checked(candidate: str, name: str, model: str, phases: tuple[str, ...]) -> dict[str, Any]:
    """Makes a check; one that cannot be made here has the reason in place of a result."""
    reference, overrides, batch = _models()[model]
    found: dict[str, Any] = {"candidate": name, "model": model, "phases": [*phases]}
    try:
        report = check(candidate, reference, overrides=overrides, batch=batch, phases=phases, steps=5).to_dict()
    except Exception as error:  # noqa: BLE001  (whatever a release does, the other checks are made)
        return found | {"verdict": NOT_CHECKED, "why": told(error), "runs": {}}
    runs = {made["name"]: made["verdict"] for made in report["checks"]}
    passed = "identical", "equivalent"
    left_out = [f"{made['name']}: {made['why']}" for made in report["checks"] if made["verdict"] not in passed]
    why = next(iter(left_out if report["verdict"] in passed else report["reasons"]), "")
    return found | {"verdict": report["verdict"], "why": why, "runs": runs}


def bits_of(
    candidate: str,
    reference: str,
    overrides: dict[str, Any],
    batch: int,
    tensors: dict[str, torch.Tensor],
    *,
    dtypes: Sequence[str] = ("float32", "float64"),
    device: str = "cpu",
) -> dict[str, Any]:
    """Returns the digests of weights, of images, and of every layer's output in every mode and dtype, of both models.

    Args:
        candidate: as in `parity check`.
        reference: the name of a torchvision ViT.
        overrides: its settings.
        batch: images in the batch.
        tensors: by digest; those of the outputs are added.
        dtypes: by name.
        device: where to run.
    """
    try:
        setup = set_up(candidate, reference, overrides, None, None, 0)
        module = build_without_values(setup.candidate)
        shown = make_inputs("random", setup.weights, setup.image_shape, batch, 0)
        mapping = infer_mapping(setup.reference, module, images=shown.images, build=setup.candidate.build)
        with in_place(setup, module, mapping, shown.images, 0, "float32", device, Progress()) as subject:
            return {
                "weights": digest_of_weights(subject.held.reference)[:_DIGITS],
                "images": _digest(shown.images),
                "runs": {f"{mode}/{dtype}": _run(subject, mode, dtype, tensors) for mode in MODES for dtype in dtypes},
            }
    except ParityError as error:
        return {"why": f"{error}", "runs": {}}


def _run(subject: Subject, mode: str, dtype: str, tensors: dict[str, torch.Tensor]) -> dict[str, Any]:
    """Returns the digests of one forward pass, by side and layer, in the order of execution."""
    if not MODES[mode].fastpath and not can_switch_fastpath():
        return {"why": "this torch has no switch for the native attention kernel"}
    try:
        return {side: _layers(subject, side, mode, dtype, tensors) for side in ("reference", "candidate")}
    except ParityError as error:
        return {"why": f"{error}"}


def _layers(subject: Subject, side: str, mode: str, dtype: str, tensors: dict[str, torch.Tensor]) -> dict[str, str]:
    model = getattr(subject.models, side)
    pairs = subject.alignment.pairs
    names = pairs if side == "candidate" else {name: name for name in pairs.values()}
    watched = {name for name in names if not _is_inside_attention(model, name)}
    found: dict[str, str] = {}

    def listen(point: Point, passing: list[torch.Tensor]) -> None:
        if point.moment == "leave" and passing:
            name = names[point.module] if point.module else LOGITS
            found[f"{name} ({point.call + 1})" if point.call else name] = _kept(passing[0].detach(), tensors)

    with MODES[mode].active(model), held_in(model, DTYPES[dtype], subject.models.way):
        images = subject.models.images.to(DTYPES[dtype])
        Telling(model, images, watched, subject.models.seed, side).tell(listen)
    return found


def _is_inside_attention(model: nn.Module, name: str) -> bool:
    """Whether a name is of a step inside torch's attention, which is no call that can be watched."""
    owner = name.rpartition(".")[0]
    return isinstance(dict(model.named_modules()).get(owner), nn.MultiheadAttention)


def _kept(tensor: torch.Tensor, tensors: dict[str, torch.Tensor]) -> str:
    digest = _digest(tensor)
    if tensor.numel() <= _MOST_KEPT and digest not in tensors:
        tensors[digest] = tensor.cpu().contiguous().clone()
    return digest


def _digest(tensor: torch.Tensor) -> str:
    return digest_of_weights({"": tensor})[:_DIGITS]


if __name__ == "__main__":
    sys.exit(main())

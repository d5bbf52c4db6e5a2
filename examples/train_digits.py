"""Trains the scratch ViT and torchvision's side by side, and proves that they are the same model after every step.

    python examples/train_digits.py

The task is scikit-learn's handwritten digits, which come with that package: 1,797 images of 8 x 8 pixels. Both models
are built under one seed and trained by one recipe, dropout included, each with an optimizer of its own. After every
step the losses, the gradients' norms, all parameters and the states of the random generator are compared to the bit.
It writes `losses.png`, both loss curves in one picture, and `weights.safetensors`, the trained weights under
torchvision's names, and prints the accuracy on images that were held out. The exit status is 1 if anything differed.
"""

# ruff: noqa: T201  (printing is what a command is for)

from __future__ import annotations

import argparse
import contextlib
import math
import statistics
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from safetensors.torch import load_file, save_file
from sklearn.datasets import load_digits
from torch import nn
from torchvision.models import VisionTransformer

from parity import ParityError, infer_mapping
from parity.models import resolve_candidate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from parity import WeightMap

SCRATCH = "vit:ViT"

# a small ViT, in the words of torchvision's constructor
CONFIG: dict[str, Any] = {
    "image_size": 8, "patch_size": 2, "num_layers": 3, "num_heads": 4, "hidden_dim": 48, "mlp_dim": 96,
    "num_classes": 10, "dropout": 0.1, "attention_dropout": 0.1,
}  # fmt: skip

EPOCHS = 30
BATCH = 32
HELD_OUT = 360  # images, a fifth
LEARNING_RATE = 5e-3
WEIGHT_DECAY = 0.05
WARM_UP = 50  # steps
LARGEST_GRADIENT = 1.0  # norm of all gradients together


@dataclass(frozen=True)
class Digits:
    """Images (B, 3, 8, 8) in float32, from -1 (black) to 1, and their labels (B,)."""

    images: torch.Tensor
    labels: torch.Tensor


def load_data() -> tuple[Digits, Digits]:
    """Returns the digits to train on and those held out, always the same ones."""
    content = load_digits()
    grey = torch.from_numpy(content.images).float() / 8 - 1  # the pixels are 0 to 16
    images = grey[:, None].repeat(1, 3, 1, 1)  # torchvision's ViT takes three channels
    labels = torch.from_numpy(content.target).long()
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    held_out, kept = order[:HELD_OUT], order[HELD_OUT:]
    return Digits(images[kept], labels[kept]), Digits(images[held_out], labels[held_out])


class Learner:
    """A model with the optimizer and the schedule that train it.

    Args:
        model: to be trained, in train mode afterwards.
        order: names of its parameters, as the optimizer gets them. The norm that clips the gradients is a sum over all
            parameters, and float32 sums depend on the order: two models need the same one for the same bits.
        steps: of the whole training, for the cosine.
    """

    def __init__(self, model: nn.Module, order: list[str], steps: int) -> None:
        self.model = model.train()
        named = dict(model.named_parameters())
        self._parameters = [named[name] for name in order]
        # matrices decay; norms, biases, class token and position embedding don't
        decays = [name.endswith("weight") and named[name].ndim > 1 for name in order]
        groups = [
            {"params": [p for p, d in zip(self._parameters, decays, strict=True) if d == which], "weight_decay": decay}
            for which, decay in ((True, WEIGHT_DECAY), (False, 0.0))
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=LEARNING_RATE)
        self._schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, lambda step: _rate(step, steps))

    def step(self, batch: Digits, random: torch.Tensor) -> Step:
        """Makes one step of training, which draws dropout from the given state of torch's generator."""
        torch.set_rng_state(random)
        self.optimizer.zero_grad()
        loss = nn.functional.cross_entropy(self.model(batch.images), batch.labels)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self._parameters, LARGEST_GRADIENT)
        self.optimizer.step()
        self._schedule.step()
        return Step(loss.detach(), norm, torch.get_rng_state())


@dataclass(frozen=True)
class Step:
    """What a step of training has come to: loss, norm of the gradients, state of the random generator afterwards."""

    loss: torch.Tensor
    gradient_norm: torch.Tensor
    random: torch.Tensor

    def differences(self, other: Step) -> list[str]:
        """Names what has not the same bits in another model's step."""
        same = {
            "the loss": torch.equal(self.loss, other.loss),
            "the gradients' norm": torch.equal(self.gradient_norm, other.gradient_norm),
            "the random generator's state": torch.equal(self.random, other.random),
        }
        return [what for what, is_same in same.items() if not is_same]


@dataclass
class History:
    """The losses of both models, step by step, and a sentence for everything that differed."""

    reference: list[float] = field(default_factory=list)
    candidate: list[float] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)

    @property
    def largest_difference(self) -> float:
        """The largest distance between the two models' losses at the same step."""
        return max((abs(r - c) for r, c in zip(self.reference, self.candidate, strict=True)), default=0.0)


@dataclass
class Race:
    """Both models and the map between their tensors. Build it with `start`."""

    reference: nn.Module
    candidate: nn.Module
    mapping: WeightMap

    @classmethod
    def start(cls, candidate: str | Callable[..., nn.Module] = SCRATCH, seed: int = 0) -> Race:
        """Builds torchvision's ViT and the candidate, each under the same seed.

        Args:
            candidate: as for `parity check`; it must be the same model, tensor by tensor.
            seed: of the initial weights.

        Raises:
            ParityError: the candidate cannot be built, or its parameters are not those of torchvision's ViT.
        """
        torch.manual_seed(seed)
        reference = VisionTransformer(**CONFIG)
        torch.manual_seed(seed)
        built = resolve_candidate(candidate, CONFIG).build()
        mapping = infer_mapping(reference, built)
        if not mapping.is_complete:
            raise ParityError(f"{candidate} has other parameters: {'; '.join(mapping.without_counterpart())}")
        return cls(reference, built, mapping)

    def differences(self) -> list[str]:
        """Names the candidate's tensors that have not the reference's bits."""
        ours = self.candidate.state_dict()
        expected = self.mapping.apply(self.reference.state_dict())
        return [name for name, tensor in expected.items() if not torch.equal(tensor, ours[name])]

    def run(
        self, data: Digits, steps: int, seed: int = 0, progress: Callable[[float], None] = lambda _: None
    ) -> History:
        """Trains both models on the same batches and compares them before the first step and after every one."""
        order = [name for name, _ in self.reference.named_parameters()]
        names = {entry.reference: entry.candidate for entry in self.mapping.entries}
        first = Learner(self.reference, order, steps)
        second = Learner(self.candidate, [names.get(name, name) for name in order], steps)
        history = History()
        history.differences += [f"{name} differs before the first step" for name in self.differences()]
        random = torch.Generator().manual_seed(seed).get_state()
        for number, batch in enumerate(_batches(data, steps, seed), start=1):
            expected, found = first.step(batch, random), second.step(batch, random)
            random = expected.random
            history.reference.append(expected.loss.item())
            history.candidate.append(found.loss.item())
            what = [*expected.differences(found), *self.differences()]
            history.differences += [f"{name} differs after step {number}" for name in what]
            progress(history.reference[-1])
        return history


def _rate(step: int, steps: int) -> float:
    """Returns the learning rate of a step as a part of the largest: a linear warm-up and a cosine down to 0."""
    return min(1.0, (step + 1) / WARM_UP) * 0.5 * (1 + math.cos(math.pi * step / steps))


def _batches(data: Digits, steps: int, seed: int) -> Iterator[Digits]:
    """Yields so many batches, the whole data in a new order again and again; what doesn't fill a batch is left out."""
    generator = torch.Generator().manual_seed(seed)
    chunks: list[torch.Tensor] = []
    for _ in range(steps):
        if not chunks:
            order = torch.randperm(len(data.labels), generator=generator)
            chunks = [chunk for chunk in torch.split(order, BATCH) if len(chunk) == BATCH]
        chosen = chunks.pop()
        yield Digits(data.images[chosen], data.labels[chosen])


def logits(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Runs a model in eval mode, without gradients."""
    with torch.no_grad():
        output: torch.Tensor = model.eval()(images)
    return output


def accuracy(outputs: torch.Tensor, labels: torch.Tensor) -> float:
    """Returns the share of rows whose largest logit is the label's."""
    return (outputs.argmax(-1) == labels).float().mean().item()


def save(state: dict[str, torch.Tensor], path: Path) -> None:
    """Writes safetensors whole or not at all: to a temporary file first, which is then renamed."""
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".unfinished-") as folder:
        unfinished = Path(folder, path.name)
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, unfinished, metadata={"format": "pt"})
        unfinished.replace(path)


def draw(history: History, path: Path, name: str = "the scratch ViT", smoothed: int = 10) -> None:
    """Draws both loss curves, one as a wide pale band and the other as a dark dotted line in it, and their difference.

    Args:
        history: of the training.
        path: of the picture.
        name: of the candidate.
        smoothed: steps that a point of the curves is the mean of; the difference is that of every single step.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415  (tests of the training don't draw)

    smoothed = max(1, min(smoothed, len(history.reference) // 10))
    theirs, ours = (
        [statistics.mean(losses[i : i + smoothed]) for i in range(0, len(losses), smoothed)]
        for losses in (history.reference, history.candidate)
    )
    gaps = [abs(r - c) for r, c in zip(history.reference, history.candidate, strict=True)]
    steps, middles = range(1, len(gaps) + 1), [smoothed * (i + 0.5) for i in range(len(ours))]

    figure = Figure(figsize=(9, 5.5), dpi=150, layout="constrained")
    curves, difference = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    curves.plot(middles, theirs, color="#f4c463", linewidth=7, solid_capstyle="round", label="torchvision's ViT")
    curves.plot(middles, ours, color="#1d3557", linewidth=1.6, linestyle=(0, (3, 1.5)), label=name)
    curves.set(yscale="log", ylabel=f"cross entropy, mean of {smoothed} steps", xlim=(0, len(gaps)))
    curves.set_title(f"Handwritten digits: the largest difference between the two losses in {len(gaps)} steps is "
                     f"{max(gaps, default=0.0):g}", fontsize="medium")  # fmt: skip
    curves.legend(frameon=False)
    difference.plot(steps, gaps, color="#c1121f", linewidth=1.6)
    difference.set(xlabel="step", ylabel="difference")
    if not any(gaps):
        difference.set_yticks([0])
    for axes in (curves, difference):
        axes.grid(which="major", alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".unfinished-") as folder:
        unfinished = Path(folder, path.name)
        figure.savefig(unfinished)
        unfinished.replace(path)


def main(arguments: list[str] | None = None) -> int:
    """Trains, compares and writes the files. Returns 0 if everything was the same to the bit, 1 if not, 2 on misuse."""
    options = _parser().parse_args(arguments)
    try:
        race = Race.start(options.candidate, options.seed)
    except ParityError as error:
        print(f"train_digits: {error}", file=sys.stderr)
        return 2
    training, held_out = load_data()
    steps = options.steps or EPOCHS * (len(training.labels) // BATCH)
    console = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("training both", total=steps)

        def show(loss: float) -> None:
            bar.update(task, advance=1, description=f"training both, loss {loss:.4f}")

        with _one_thread():
            history = race.run(training, steps, options.seed, show)

    options.output.mkdir(parents=True, exist_ok=True)
    picture, file = options.output / "losses.png", options.output / "weights.safetensors"
    draw(history, picture, "the scratch ViT" if options.candidate == SCRATCH else options.candidate)
    save(race.mapping.invert().apply(race.candidate.state_dict()), file)
    race.reference.load_state_dict(load_file(file))
    expected, found = (logits(model, held_out.images) for model in (race.reference, race.candidate))
    if not torch.equal(expected, found):
        history.differences.append("the logits of the held-out images differ")

    tensors = len(race.mapping.entries)
    print(f"accuracy on {len(held_out.labels)} held-out images: {accuracy(found, held_out.labels):.2%}")
    print(f"wrote {picture} and {file}")
    for difference in history.differences[:5]:
        print(f"train_digits: {difference}", file=sys.stderr)
    if history.differences:
        print(f"different: {len(history.differences)} differences in {steps} steps, the losses' largest "
              f"{history.largest_difference:g}")  # fmt: skip
        return 1
    print(f"identical: {steps} losses, and {tensors} tensors after each step, to the bit")
    return 0


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Lets torch compute in one thread: on tensors as small as these, a second one costs more than it does."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Trains torchvision's ViT and another one side by side on handwritten digits, and compares both "
        "after every step. Exit status: 0 the same to the bit, 1 anything differs, 2 wrong usage."
    )
    add = parser.add_argument
    add("--candidate", default=SCRATCH, help="the ViT to train, module:callable or file.py:callable (default: ours)")
    add("--steps", type=int, help=f"steps of training (default: {EPOCHS} epochs)")
    add("--seed", type=int, default=0, help="of initial weights, batches and dropout (default: 0)")
    add("-o", "--output", type=Path, default=Path("build/digits"), help="folder for the files (default: build/digits)")
    return parser


if __name__ == "__main__":
    sys.exit(main())

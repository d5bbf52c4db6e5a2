"""What both models are shown: random images, or pictures."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from PIL import Image

from parity.errors import ParityError, described
from parity.models.weights import uniform
from parity.room import require_room

if TYPE_CHECKING:
    from parity.models.weights import Weights

_MOST_PICTURES = 64
_COLOURS = {1: "L", 3: "RGB"}  # by number of channels
_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")


@dataclass(frozen=True)
class Inputs:
    """A batch of images (B, C, H, W) in float32; the first `len(pictures)` of them show `pictures`."""

    images: torch.Tensor
    pictures: tuple[str, ...] = ()

    def describe(self) -> str:
        """Returns how the report names this batch."""
        batch = "x".join(map(str, self.images.shape))
        random = len(self.images) - len(self.pictures)
        parts = [f"{len(self.pictures)} pictures"] * bool(self.pictures) + [f"{random} random images"] * bool(random)
        return f"{' and '.join(parts)}, {batch}"


def make_inputs(
    spec: str, weights: Weights, image_shape: tuple[int, int, int], batch: int = 3, seed: int = 0
) -> Inputs:
    """Makes the input of a comparison.

    Random images are all different and have no symmetry, so that mixed-up samples, transposed grids and flips show.
    Pictures go through the weights' own transforms; random images fill the batch up, since a batch of one would
    hide a mix-up of samples and tokens.

    Args:
        spec: `random`, or the path of a picture or of a folder of pictures.
        weights: whose transforms are used.
        image_shape: channels, height and width in pixels; pictures are shown in colour or, to one channel, in grey.
        batch: number of images, at least; a folder may hold more.
        seed: of the random images.

    Raises:
        ParityError: no such path, a file that is no picture, a folder without pictures, or too many of them; or images
            that are neither in colour nor in grey.
    """
    if batch < 1:
        raise ParityError(f"--batch {batch}: expected at least 1")
    # in float64 once more than in float32
    require_room(f"--batch {batch}: the images alone", 12 * batch * math.prod(image_shape))
    pictures = [] if spec == "random" else _find_pictures(Path(spec))
    if pictures and image_shape[0] not in _COLOURS:
        raise ParityError(
            f"--input {spec}: a picture has 1 or 3 channels, the reference takes {image_shape[0]}; use --input random"
        )
    transforms = weights.transforms(image_shape)
    shown = [transforms(_read_picture(path, _COLOURS[image_shape[0]])) for path in pictures]
    for path, image in zip(pictures, shown, strict=True):
        if image.shape != image_shape:
            raise ParityError(
                f"the weights' transforms make {path} {tuple(image.shape)}, the reference wants "
                f"{image_shape}; leave image_size to the weights"
            )
    images = torch.empty((max(batch, len(shown)), *image_shape))  # as a whole, since there may be no room for it
    for number, image in enumerate(images):
        image.copy_(shown[number] if number < len(shown) else uniform(f"{seed}/image {number}", image_shape))
    return Inputs(images, tuple(path.name for path in pictures))


def _find_pictures(path: Path) -> list[Path]:
    if not path.exists():
        raise ParityError(f"--input {path}: there is no such picture or folder")
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise ParityError(f"--input {path}: it is neither a picture nor a folder of pictures")
    found = sorted(file for file in path.iterdir() if file.suffix.lower() in _SUFFIXES)
    if not found:
        raise ParityError(f"--input {path}: the folder holds no pictures ({', '.join(_SUFFIXES)})")
    if len(found) > _MOST_PICTURES:
        raise ParityError(f"--input {path}: the folder holds {len(found)} pictures, at most {_MOST_PICTURES} fit a run")
    return found


def _read_picture(path: Path, colours: str) -> Image.Image:
    if not path.is_file():
        raise ParityError(f"{path} cannot be read as a picture: it is no file")
    try:
        with Image.open(path) as picture:
            image: Image.Image = picture.convert(colours)
            return image
    except Exception as error:  # a decoder raises anything
        raise ParityError(f"{path} cannot be read as a picture ({described(error)})") from error

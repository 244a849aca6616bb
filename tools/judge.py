"""Recognises the subject of an image of the demonstration model, like the smaller `tests/local/judge.rs`."""

from dataclasses import dataclass

import numpy as np

from shapes import BACKGROUNDS, COLOURS, SHAPES

MIN_IOU = 0.85
MIN_MARGIN = 0.03
# An image whose pixels are all closer to the background has no subject.
MIN_CONTRAST = 40.0


@dataclass
class Verdict:
    background: str
    colour: str | None  # None without a subject
    shape: str | None  # None without a subject, or if no shape fits well and better than the others
    iou: dict


def nearest(rgb, names):
    return min(names, key=lambda name: np.sum((np.array(names[name], float) - rgb) ** 2))


def judge(image):
    """Judges an RGB image (size x size x 3, uint8)."""
    pixels = image.astype(float)
    border = np.concatenate([pixels[0], pixels[-1], pixels[1:-1, 0], pixels[1:-1, -1]])
    background = np.median(border, axis=0)
    name = nearest(background, BACKGROUNDS)

    distance = np.linalg.norm(pixels - background, axis=-1)
    if distance.max() < MIN_CONTRAST:
        return Verdict(name, None, None, {})
    colour = np.median(pixels[distance > distance.max() / 2], axis=0)

    # A pixel belongs to the subject if its colour is closer to the subject's colour than to the background.
    direction = colour - background
    mask = (pixels - background) @ direction > 0.5 * direction @ direction
    iou = {shape: best_iou(mask, shape) for shape in SHAPES}
    first, second = sorted(iou, key=iou.get, reverse=True)[:2]
    clear = iou[first] >= MIN_IOU and iou[first] - iou[second] >= MIN_MARGIN
    return Verdict(name, nearest(colour, COLOURS), first if clear else None, iou)


def moments(mask):
    """Returns area and centroid (x, y) of a mask, in pixels."""
    y, x = np.nonzero(mask)
    return len(x), x.mean() + 0.5, y.mean() + 0.5


# The area and centroid of each shape with a width of 1 around (0, 0), on a grid of 200 x 200 points in [-0.6, 0.6].
GRID = (np.arange(200) + 0.5) / 200 * 1.2 - 0.6
UNIT = {}
for _shape, _inside in SHAPES.items():
    _area, _x, _y = moments(_inside(GRID[None, :], GRID[:, None]))
    UNIT[_shape] = (_area * 0.006**2, _x * 0.006 - 0.6, _y * 0.006 - 0.6)


def best_iou(mask, shape):
    """Returns the best intersection over union with the mask, for sizes and positions near those of the mask."""
    area, x, y = moments(mask)
    unit_area, unit_x, unit_y = UNIT[shape]
    pixel = np.arange(mask.shape[0]) + 0.5
    best = 0.0
    for scale in (0.88, 0.92, 0.96, 1.0, 1.04, 1.08, 1.12):
        width = scale * np.sqrt(area / unit_area)
        for dy in (-2, -1, 0, 1, 2):
            for dx in (-2, -1, 0, 1, 2):
                u = (pixel[None, :] - (x - unit_x * width + dx)) / width
                v = (pixel[:, None] - (y - unit_y * width + dy)) / width
                template = SHAPES[shape](u, v)
                best = max(best, (mask & template).sum() / (mask | template).sum())
    return best

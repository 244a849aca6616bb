"""Recognises what an image of the demonstration model shows."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import label
from torch import nn

from scenes import BACKGROUNDS, COLOURS, PLACES, SIZES, SUBJECTS
from subjects import EXTENT, GLYPHS, SHAPES, coverage, distance_fields

# A pixel whose colour differs less from the background belongs to it, and a smaller spot of pixels is no thing.
MIN_CONTRAST = 45.0
MIN_AREA = 40


@dataclass
class Seen:
    """One thing in an image."""

    colour: str
    mask: np.ndarray
    # The best shape and its overlap (intersection over union), and those of each shape.
    shape: str
    overlap: float
    overlaps: dict
    glyph: str
    # In fractions of the image.
    x: float
    y: float
    width: float

    def size(self, count):
        """Returns the nearest of the size words for one or two things."""
        return min(SIZES, key=lambda size: abs(np.log(SIZES[size][count - 1] / self.width)))

    def place(self):
        """Returns the nearest of the places for one thing. A large thing can move only a little."""
        dx, dy = self.x - 0.5, self.y - 0.5
        if max(abs(dx), abs(dy)) < 0.033:
            return "center"
        direction = (np.sign(dx), 0) if abs(dx) > abs(dy) else (0, np.sign(dy))
        return next(place for place, expected in PLACES.items() if expected == direction)


def nearest(rgb, names):
    return min(names, key=lambda name: np.sum((np.array(names[name], float) - rgb) ** 2))


class Judge:
    """Fits shapes to the things in images, and reads letters with a classifier of its own."""

    def __init__(self):
        self.fields = distance_fields()
        solid = (self.fields > 0).float()
        points = (torch.arange(solid.shape[-1]) + 0.5) / solid.shape[-1] * 2 * EXTENT - EXTENT
        area = solid.sum((1, 2))
        # The area and centroid of each subject with a width of 1.
        self.areas = area * (2 * EXTENT / solid.shape[-1]) ** 2
        self.x = (solid.sum(1) * points).sum(1) / area
        self.y = (solid.sum(2) * points).sum(1) / area
        self.reader = train_reader(self.fields)

    def look(self, image):
        """Returns the name of the background and the things in an RGB image (size x size x 3, uint8), largest first."""
        pixels = image.astype(float)
        border = np.concatenate([pixels[0], pixels[-1], pixels[1:-1, 0], pixels[1:-1, -1]])
        background = np.median(border, axis=0)
        spots, count = label(np.linalg.norm(pixels - background, axis=-1) > MIN_CONTRAST)
        things = []
        for spot in range(1, count + 1):
            inside = spots == spot
            if inside.sum() >= MIN_AREA:
                things.append(self.recognise(pixels, inside, background))
        things.sort(key=lambda thing: -thing.mask.sum())
        return nearest(background, BACKGROUNDS), things

    def recognise(self, pixels, inside, background):
        distance = np.linalg.norm(pixels - background, axis=-1) * inside
        colour = np.median(pixels[distance > 0.7 * distance.max()], axis=0)
        # A pixel belongs to the thing if its colour is closer to the thing's colour than to the background.
        direction = colour - background
        mask = inside & ((pixels - background) @ direction > 0.5 * direction @ direction)
        glyph = GLYPHS[self.reader(closeup(torch.tensor(mask).float())[None]).argmax().item()]
        fits = {name: self.fit(mask, name) for name in (*SHAPES, glyph)}
        overlaps = {name: fits[name][0] for name in SHAPES}
        shape = max(overlaps, key=overlaps.get)
        _, x, y, width = max(fits[shape], fits[glyph])
        return Seen(nearest(colour, COLOURS), mask, shape, overlaps[shape], overlaps, glyph, x, y, width)

    def fit(self, mask, name):
        """Returns the best overlap of a subject with the mask, and the centre and width that reach it."""
        mask, i = torch.tensor(mask), SUBJECTS.index(name)
        size = mask.shape[-1]
        points = torch.arange(size) + 0.5
        area = mask.sum()
        x, y = (mask.sum(0) * points).sum() / area, (mask.sum(1) * points).sum() / area
        scale, move = torch.tensor([0.94, 0.97, 1.0, 1.03, 1.06]), torch.tensor([-0.8, 0.0, 0.8])
        scale, dx, dy = (grid.flatten() for grid in torch.meshgrid(scale, move, move, indexing="ij"))
        width = scale * (area / self.areas[i]).sqrt()
        left, top = x - self.x[i] * width + dx, y - self.y[i] * width + dy
        template = coverage(self.fields[i].expand(len(scale), -1, -1), left, top, width, size) > 0.5
        overlap = (template & mask).sum((1, 2)) / (template | mask).sum((1, 2))
        best = overlap.argmax()
        return tuple(v.item() for v in (overlap[best], left[best] / size, top[best] / size, width[best] / size))


# Reading letters and digits


def closeup(mask, size=32):
    """Returns the thing in a mask, enlarged or reduced to a square of 32 x 32 with its proportions."""
    rows, columns = mask.any(1).nonzero().flatten(), mask.any(0).nonzero().flatten()
    side = max(rows[-1] - rows[0], columns[-1] - columns[0]) + 5
    y, x = (rows[0] + rows[-1]) / 2 + 0.5, (columns[0] + columns[-1]) / 2 + 0.5
    points = ((torch.arange(size) + 0.5) / size - 0.5) * side
    u, v = (x + points) / mask.shape[1] * 2 - 1, (y + points) / mask.shape[0] * 2 - 1
    grid = torch.stack([u[None, :].expand(size, -1), v[:, None].expand(-1, size)], -1)
    return F.grid_sample(mask[None, None], grid[None], align_corners=False)[0]


def train_reader(fields, steps=400, batch=128):
    """Trains a small classifier with distorted letters and digits. It never sees images of the model."""
    torch.manual_seed(7)
    reader = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(64 * 16, len(GLYPHS)),
    )  # fmt: skip
    optimizer = torch.optim.AdamW(reader.parameters(), lr=2e-3)
    generator = torch.Generator().manual_seed(8)
    glyphs = fields[len(SHAPES) :]
    for _ in range(steps):
        target = torch.randint(len(GLYPHS), (batch,), generator=generator)
        width = torch.rand(batch, generator=generator) * 7 + 25
        x, y = (16 + torch.randn(batch, generator=generator) for _ in range(2))
        # Thinner and thicker strokes with uneven outlines.
        noise = F.interpolate(torch.randn(batch, 1, 24, 24, generator=generator), (200, 200), mode="bilinear")[:, 0]
        thickness = torch.randn(batch, 1, 1, generator=generator) * 0.01
        seen = coverage(glyphs[target] + thickness + 0.015 * noise, x, y, width, 32)[:, None]
        loss = F.cross_entropy(reader(seen), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return reader.eval().requires_grad_(False)

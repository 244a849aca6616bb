"""The shapes, letters and digits of the demonstration model as distance fields, and their drawing.

A subject lies in a square from -0.6 to 0.6 and is about one unit wide. u increases to the right, v downwards.
"""

import string

import numpy as np
import torch
import torch.nn.functional as F

SIZE = 128

GLYPHS = [*string.ascii_uppercase, *string.digits]

EXTENT = 0.6


def polygon(points):
    """Returns the function that tests by the even-odd rule whether the polygon contains (u, v)."""

    def inside(u, v):
        result = np.zeros(np.broadcast(u, v).shape, bool)
        for (x0, y0), (x1, y1) in zip(points, points[1:] + points[:1]):
            if y0 != y1:
                crosses = (y0 > v) != (y1 > v)
                result ^= crosses & (u < x0 + (v - y0) * (x1 - x0) / (y1 - y0))
        return result

    return inside


def spokes(radii, turn=0.0):
    """Returns the corners at equal angles from the top, with the given distances from the centre."""
    angles = [turn + 2 * np.pi * i / len(radii) for i in range(len(radii))]
    return [(r * np.sin(angle), -r * np.cos(angle)) for r, angle in zip(radii, angles)]


def inside_heart(u, v):
    lobes = (abs(u) - 0.24) ** 2 + (v + 0.18) ** 2 <= 0.0625
    point = (v >= -0.18) & (abs(u) + 0.93 * (v + 0.05) <= 0.455) & (abs(u) <= 0.49)
    return lobes | point | ((abs(u) <= 0.24) & (v <= 0.1) & (v >= -0.2))


# For each shape, whether it contains the point (u, v).
SHAPES = {
    "circle": lambda u, v: u * u + v * v <= 0.25,
    "square": lambda u, v: np.maximum(abs(u), abs(v)) <= 0.44,
    "triangle": polygon([(0.0, -0.5), (0.55, 0.42), (-0.55, 0.42)]),
    "diamond": polygon([(0.0, -0.56), (0.36, 0.0), (0.0, 0.56), (-0.36, 0.0)]),
    "star": polygon(spokes([0.56, 0.24] * 5)),
    "heart": inside_heart,
    "ring": lambda u, v: (u * u + v * v <= 0.25) & (u * u + v * v >= 0.075),
    "cross": lambda u, v: (np.minimum(abs(u), abs(v)) <= 0.16) & (np.maximum(abs(u), abs(v)) <= 0.5),
    "moon": lambda u, v: ((u + 0.08) ** 2 + v * v <= 0.25) & ((u - 0.16) ** 2 + v * v >= 0.17),
    "arrow": polygon(
        [(-0.54, -0.15), (0.04, -0.15), (0.04, -0.4), (0.54, 0.0), (0.04, 0.4), (0.04, 0.15), (-0.54, 0.15)]
    ),
    "hexagon": polygon(spokes([0.53] * 6, turn=np.pi / 6)),
    "drop": lambda u, v: (
        (u * u + (v - 0.17) ** 2 <= 0.1156) | ((v <= 0.009) & (v >= -0.55) & (abs(u) <= 0.5357 * (v + 0.55)))
    ),
}


def glyph_mask(character, points):
    """Draws a bold letter or digit that touches the square from -0.48 to 0.48 in height, or in width if it is wide."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.path import Path
    from matplotlib.textpath import TextPath

    # At smaller sizes the curves are approximated by few lines.
    outline = TextPath((0, 0), character, size=1000, prop=FontProperties(family="DejaVu Sans", weight="bold"))
    low, high = outline.vertices.min(0), outline.vertices.max(0)
    scale = 0.96 / max(high - low)
    vertices = (outline.vertices - (low + high) / 2) * scale * [1, -1]
    grid = np.stack(np.meshgrid(points, points), -1).reshape(-1, 2)
    inside = np.zeros(len(grid), bool)
    for part in Path(vertices, outline.codes).to_polygons():
        inside ^= Path(part).contains_points(grid)
    return inside.reshape(len(points), len(points))


def distance_fields(resolution=200, samples=3):
    """Returns the signed distance to the outline of each subject, positive inside [subjects, resolution, resolution]."""
    from scipy.ndimage import distance_transform_edt

    count = resolution * samples
    points = ((np.arange(count) + 0.5) / count * 2 - 1) * EXTENT
    masks = [inside(points[None, :], points[:, None]) for inside in SHAPES.values()]
    masks += [glyph_mask(character, points) for character in GLYPHS]
    pixel = 2 * EXTENT / count
    fields = [(distance_transform_edt(mask) - distance_transform_edt(~mask)) * pixel for mask in masks]
    return F.avg_pool2d(torch.tensor(np.stack(fields), dtype=torch.float32), samples)


def coverage(fields, x, y, width, size=SIZE):
    """Returns the covered fraction of each pixel [n, size, size] for one subject per image.

    `fields` are the distance fields of the subjects [n, h, w]; centre and width are in pixels.
    """
    pixels = torch.arange(size, device=fields.device) + 0.5
    u = (pixels[None, :] - x[:, None]) / (width[:, None] * EXTENT)
    v = (pixels[None, :] - y[:, None]) / (width[:, None] * EXTENT)
    grid = torch.stack([u[:, None, :].expand(-1, size, -1), v[:, :, None].expand(-1, -1, size)], -1)
    distance = F.grid_sample(fields[:, None], grid, padding_mode="border", align_corners=False)[:, 0]
    return (0.5 + distance * width[:, None, None]).clamp(0, 1)


def render(fields, subjects, places, colours, backgrounds, size=SIZE):
    """Draws images [n, 3, size, size] with values in 0..1 in which up to two subjects lie on a plain background.

    `subjects` [n, 2] are indices into `fields`, -1 for none; `places` [n, 2, 3] are x, y and width in fractions of the
    image; `colours` [n, 2, 3] and `backgrounds` [n, 3] are in 0..1.
    """
    image = backgrounds[:, :, None, None].expand(-1, -1, size, size)
    for i in range(subjects.shape[1]):
        x, y, width = (places[:, i] * size).unbind(-1)
        covered = coverage(fields[subjects[:, i].clamp(min=0)], x, y, width, size)
        covered = (covered * (subjects[:, i] >= 0)[:, None, None])[:, None]
        image = image + covered * (colours[:, i, :, None, None] - image)
    return image

"""The training data of the demonstration model: images of one coloured shape on a plain background, with captions."""

from dataclasses import dataclass, replace

import numpy as np

SIZE = 64

COLOURS = {
    "red": (220, 30, 30),
    "green": (30, 160, 50),
    "blue": (40, 70, 220),
    "yellow": (245, 215, 40),
    "orange": (245, 130, 20),
    "purple": (140, 40, 170),
    "cyan": (40, 200, 220),
    "pink": (250, 120, 190),
}
BACKGROUNDS = {
    "white": (250, 250, 250),
    "black": (10, 10, 10),
    "gray": (128, 128, 128),
    "brown": (110, 65, 30),
}
# The ratio of the subject's width to the image's width, for each word in the caption.
SIZES = {"small": 0.36, None: 0.5, "large": 0.7}
# The directions from the centre. Most captions of centred subjects do not mention the position.
POSITIONS = {
    "left": (-1, 0),
    "right": (1, 0),
    "top": (0, -1),
    "bottom": (0, 1),
    "top left": (-1, -1),
    "top right": (1, -1),
    "bottom left": (-1, 1),
    "bottom right": (1, 1),
}

# Pairs that are not in the denoiser's training data, although each colour and each shape is, in other pairs.
HELD_OUT = {
    ("green", "circle"),
    ("orange", "square"),
    ("cyan", "triangle"),
    ("purple", "star"),
    ("yellow", "diamond"),
    ("pink", "cross"),
}

STAR = [
    (0.56 * r * np.sin(np.pi * i / 5), -0.56 * r * np.cos(np.pi * i / 5))
    for i, r in enumerate([1.0, 0.45] * 5)
]


def inside_star(u, v):
    """Applies the even-odd rule to the edges of the star."""
    inside = np.zeros(np.broadcast(u, v).shape, bool)
    for (x0, y0), (x1, y1) in zip(STAR, STAR[1:] + STAR[:1]):
        crosses = (y0 > v) != (y1 > v)
        inside ^= crosses & (u < x0 + (v - y0) * (x1 - x0) / (y1 - y0))
    return inside


# For each shape, whether it contains the point (u, v). u increases to the right, v downwards. A shape is about one unit
# wide.
SHAPES = {
    "circle": lambda u, v: u * u + v * v <= 0.25,
    "square": lambda u, v: np.maximum(abs(u), abs(v)) <= 0.44,
    "triangle": lambda u, v: (v <= 0.4) & (abs(u) <= 0.55 * (v + 0.52) / 0.92),
    "star": inside_star,
    "diamond": lambda u, v: abs(u) / 0.36 + abs(v) / 0.56 <= 1,
    "cross": lambda u, v: (np.minimum(abs(u), abs(v)) <= 0.16) & (np.maximum(abs(u), abs(v)) <= 0.5),
}


@dataclass(frozen=True)
class Scene:
    colour: str
    shape: str
    background: str
    size: str | None = None
    position: str | None = None


def coverage(shape, width, x, y, size=SIZE, samples=4):
    """Returns the covered fraction of each pixel (size x size, 0 to 1)."""
    grid = (np.arange(size * samples) + 0.5) / samples
    inside = SHAPES[shape]((grid[None, :] - x) / width, (grid[:, None] - y) / width)
    return inside.reshape(size, samples, size, samples).mean((1, 3))


def render(scene, rng, colour=None, background=None):
    """Draws the scene as an RGB image (uint8). `rng` slightly changes the position and the size."""
    width = SIZE * SIZES[scene.size] * rng.uniform(0.94, 1.06)
    dx, dy = POSITIONS.get(scene.position, (0, 0))
    reach = max(SIZE / 2 - 0.56 * width - 1, 0)
    x = SIZE / 2 + dx * reach + rng.uniform(-1.5, 1.5)
    y = SIZE / 2 + dy * reach + rng.uniform(-1.5, 1.5)
    cover = coverage(scene.shape, width, x, y)[..., None]
    colour = np.array(colour or COLOURS[scene.colour], float)
    background = np.array(background or BACKGROUNDS[scene.background], float)
    return np.rint(background + cover * (colour - background)).astype(np.uint8)


def random_scene(rng, held_out):
    """Returns a random scene, with or without the held-out pairs."""
    while True:
        scene = Scene(
            rng.choice(list(COLOURS)),
            rng.choice(list(SHAPES)),
            rng.choice(list(BACKGROUNDS)),
            rng.choice(np.array([None, "small", "large"]), p=[0.76, 0.14, 0.10]),
        )
        # A large subject is always in the centre.
        if scene.size != "large" and rng.random() < 0.15:
            scene = replace(scene, position=rng.choice(list(POSITIONS)))
        if held_out or (scene.colour, scene.shape) not in HELD_OUT:
            return scene


LEADS = ["", "draw ", "a picture of ", "an image of ", "a photo of ", "please draw ", "a drawing of ", "paint "]


def caption(scene, rng):
    """Returns a caption of the scene, and the scene with None for each attribute that the caption does not mention."""
    if rng.random() < 0.1:
        return "", Scene(None, None, None)
    mentioned = scene
    if rng.random() < 0.12:
        mentioned = replace(mentioned, colour=None)
    if rng.random() < 0.12:
        mentioned = replace(mentioned, shape=None)
    if rng.random() < 0.4:
        mentioned = replace(mentioned, background=None)
    if rng.random() < 0.1:
        mentioned = replace(mentioned, position=None)
    if rng.random() < 0.1:
        mentioned = replace(mentioned, size=None)

    bare = rng.random() < 0.2
    noun = mentioned.shape or ("" if bare else rng.choice(["shape", "something"]))
    if noun == "something":
        words = [noun, mentioned.size, mentioned.colour]
    else:
        words = [mentioned.size, mentioned.colour, noun]
    subject = " ".join(word for word in words if word)
    if subject and noun != "something" and not bare:
        article = "an" if subject[0] in "aeiou" else "a"
        subject = f"{rng.choice([article, article, 'the'])} {subject}"
    text = subject
    if mentioned.position:
        text += f" {rng.choice(['at', 'on', 'in'])} the {mentioned.position}"
    elif scene.position is None and rng.random() < 0.05:
        text += " in the middle"
    if mentioned.background:
        name = mentioned.background
        if name == "gray" and rng.random() < 0.3:
            name = "grey"
        text += rng.choice([f" on a {name} background", f" on a {name} background", f" on {name}", f", {name} background"])
    text = rng.choice(LEADS, p=[0.58] + [0.06] * 7) * (not bare) + text.strip(" ,")
    if rng.random() < 0.1:
        text = text[:1].upper() + text[1:]
    if text and rng.random() < 0.05:
        text += "."
    return text, mentioned


# The words of the captions and other words that users may type. Each is one token.
WORDS = sorted(
    {
        *COLOURS, *BACKGROUNDS, *SHAPES, "small", "large", "left", "right", "top", "bottom", "grey",
        *"a an the at on in of and with to is it for no not me please draw paint make show create".split(),
        *"picture image photo drawing painting illustration shape something object background middle".split(),
        *"center centre corner side plain simple big little tiny huge one this that color colour".split(),
    }
)

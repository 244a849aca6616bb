"""The demonstration model's task: captioned pictures of one coloured shape on a plain background."""

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
# A subject's width as a share of the picture's, by the word that asks for it.
SIZES = {"small": 0.36, None: 0.5, "large": 0.7}
# Directions from the centre; (0, 0) has no word of its own in most captions.
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

# Never shown to the denoiser. Every colour and every shape still appears in other pairs.
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
    """Even-odd rule over the star's ten edges."""
    inside = np.zeros(np.broadcast(u, v).shape, bool)
    for (x0, y0), (x1, y1) in zip(STAR, STAR[1:] + STAR[:1]):
        crosses = (y0 > v) != (y1 > v)
        inside ^= crosses & (u < x0 + (v - y0) * (x1 - x0) / (y1 - y0))
    return inside


# Each shape as a test of points; u runs right and v down, and the shape is about one unit wide.
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
    """How much of each pixel the shape covers (size x size, 0 to 1)."""
    grid = (np.arange(size * samples) + 0.5) / samples
    inside = SHAPES[shape]((grid[None, :] - x) / width, (grid[:, None] - y) / width)
    return inside.reshape(size, samples, size, samples).mean((1, 3))


def render(scene, rng, colour=None, background=None):
    """The scene as an RGB picture, uint8. `rng` moves and scales the subject a little."""
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
    """A scene of the training distribution, with or without the held-out pairs."""
    while True:
        scene = Scene(
            rng.choice(list(COLOURS)),
            rng.choice(list(SHAPES)),
            rng.choice(list(BACKGROUNDS)),
            rng.choice(np.array([None, "small", "large"]), p=[0.76, 0.14, 0.10]),
        )
        # A large subject has no room to move.
        if scene.size != "large" and rng.random() < 0.15:
            scene = replace(scene, position=rng.choice(list(POSITIONS)))
        if held_out or (scene.colour, scene.shape) not in HELD_OUT:
            return scene


LEADS = ["", "draw ", "a picture of ", "an image of ", "a photo of ", "please draw ", "a drawing of ", "paint "]


def caption(scene, rng):
    """One way to describe the scene, and the scene with None for everything the caption leaves out."""
    if rng.random() < 0.1:
        return "", Scene(None, None, None)
    said = scene
    if rng.random() < 0.12:
        said = replace(said, colour=None)
    if rng.random() < 0.12:
        said = replace(said, shape=None)
    if rng.random() < 0.4:
        said = replace(said, background=None)
    if rng.random() < 0.1:
        said = replace(said, position=None)
    if rng.random() < 0.1:
        said = replace(said, size=None)

    bare = rng.random() < 0.2
    noun = said.shape or ("" if bare else rng.choice(["shape", "something"]))
    if noun == "something":
        words = [noun, said.size, said.colour]
    else:
        words = [said.size, said.colour, noun]
    subject = " ".join(word for word in words if word)
    if subject and noun != "something" and not bare:
        article = "an" if subject[0] in "aeiou" else "a"
        subject = f"{rng.choice([article, article, 'the'])} {subject}"
    text = subject
    if said.position:
        text += f" {rng.choice(['at', 'on', 'in'])} the {said.position}"
    elif scene.position is None and rng.random() < 0.05:
        text += " in the middle"
    if said.background:
        name = said.background
        if name == "gray" and rng.random() < 0.3:
            name = "grey"
        text += rng.choice([f" on a {name} background", f" on a {name} background", f" on {name}", f", {name} background"])
    text = rng.choice(LEADS, p=[0.58] + [0.06] * 7) * (not bare) + text.strip(" ,")
    if rng.random() < 0.1:
        text = text[:1].upper() + text[1:]
    if text and rng.random() < 0.05:
        text += "."
    return text, said


# Words of the captions, and others that people may type; each is one token.
WORDS = sorted(
    {
        *COLOURS, *BACKGROUNDS, *SHAPES, "small", "large", "left", "right", "top", "bottom", "grey",
        *"a an the at on in of and with to is it for no not me please draw paint make show create".split(),
        *"picture image photo drawing painting illustration shape something object background middle".split(),
        *"center centre corner side plain simple big little tiny huge one this that color colour".split(),
    }
)

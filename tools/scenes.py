"""The world of the demonstration model: what its images show, and the captions that describe them."""

import string
from dataclasses import dataclass

import numpy as np

from subjects import GLYPHS, SHAPES

COLOURS = {
    "red": (225, 30, 35),
    "orange": (250, 130, 20),
    "yellow": (252, 215, 30),
    "lime": (150, 220, 40),
    "green": (25, 140, 60),
    "cyan": (30, 195, 220),
    "blue": (35, 85, 230),
    "purple": (140, 45, 180),
    "pink": (255, 115, 185),
    "brown": (130, 75, 35),
}
BACKGROUNDS = {
    "white": (252, 252, 252),
    "black": (12, 12, 14),
    "gray": (130, 132, 136),
    "navy": (18, 28, 82),
    "cream": (255, 240, 208),
    "lavender": (214, 202, 250),
}
SUBJECTS = [*SHAPES, *GLYPHS]
# The ratio of the subject's width to the image's width, for one subject and for two.
SIZES = {"small": (0.28, 0.24), None: (0.44, 0.36), "large": (0.68, 0.46)}
# The directions from the centre. No place means the centre.
PLACES = {"center": (0, 0), "left": (-1, 0), "right": (1, 0), "top": (0, -1), "bottom": (0, 1)}
# The direction from the second of two subjects to the first.
ARRANGEMENTS = {"left of": (-1, 0), "right of": (1, 0), "above": (0, -1), "below": (0, 1)}

# Pairs that are not in the denoiser's training data, although each colour and each shape is, in other pairs.
HELD_OUT = {(list(COLOURS)[(7 * i) % 10], shape) for i, shape in enumerate(SHAPES)}


@dataclass(frozen=True)
class Thing:
    colour: str | None
    subject: str | None
    size: str | None = None


@dataclass(frozen=True)
class Scene:
    things: tuple[Thing, ...]
    background: str | None
    # A place for one thing, an arrangement for two.
    layout: str | None = None

    def held_out(self):
        return any((thing.colour, thing.subject) in HELD_OUT for thing in self.things)


def centre(scene, index, jitter=(0.0, 0.0)):
    """Returns x, y and width of a thing, in fractions of the image."""
    width = SIZES[scene.things[index].size][len(scene.things) - 1]
    if len(scene.things) == 2:
        dx, dy = ARRANGEMENTS[scene.layout]
        sign = 1 - 2 * index
        return 0.5 + 0.24 * sign * dx + jitter[0], 0.5 + 0.24 * sign * dy + jitter[1], width
    dx, dy = PLACES[scene.layout or "center"]
    reach = max(0.48 - 0.56 * width, 0.06)
    return 0.5 + dx * reach + jitter[0], 0.5 + dy * reach + jitter[1], width


def random_scene(rng):
    def thing():
        subject = rng.choice(list(SHAPES)) if rng.random() < 0.62 else rng.choice(GLYPHS)
        size = rng.choice(np.array([None, "small", "large"]), p=[0.64, 0.18, 0.18])
        return Thing(rng.choice(list(COLOURS)), subject, size)

    background = rng.choice(list(BACKGROUNDS))
    if rng.random() < 0.35:
        arrangement = rng.choice(list(ARRANGEMENTS), p=[0.55, 0.15, 0.15, 0.15])
        return Scene((thing(), thing()), background, arrangement)
    place = rng.choice(list(PLACES)) if rng.random() < 0.4 else None
    return Scene((thing(),), background, place)


# Captions

LEADS = [
    "draw ",
    "a picture of ",
    "an image of ",
    "a photo of ",
    "please draw ",
    "a drawing of ",
    "paint ",
    "a poster of ",
]
SYNONYMS = {
    "small": ["small", "small", "little", "tiny"],
    "large": ["large", "large", "big", "huge"],
    "gray": ["gray", "grey"],
}
# Words that describe nothing that the model can draw. They are no tokens of their own.
FILLERS = (
    "shiny beautiful detailed cute modern flat vector minimal art digital masterpiece quality sharp style trending "
    "professional artistic elegant photorealistic 4k hd wonderful simple-looking glossy retro"
).split()


def word_for(value, rng):
    return rng.choice(SYNONYMS.get(value, [value]))


def filler(rng):
    if rng.random() < 0.6:
        return rng.choice(FILLERS)
    return "".join(rng.choice(list(string.ascii_lowercase), rng.integers(3, 9)))


def phrase(thing, rng, article=True):
    """Returns the words for a thing, for example `a small red star` or `the green letter "R"`."""
    name = thing.subject
    if name is None:
        name = rng.choice(["shape", "object", "thing"])
    elif name in GLYPHS:
        if rng.random() < 0.12:
            name = name.lower()
        if rng.random() < 0.25:
            name = f'"{name}"'
        kind = (
            rng.choice(["digit", "number"])
            if thing.subject.isdigit()
            else rng.choice(["letter", "letter", "letter", "capital letter"])
        )
        name = f"{kind} {name}"
    words = [word_for(value, rng) for value in (thing.size, thing.colour) if value] + name.split()
    if article:
        first = "an" if words[0][0] in "aeiou" else "a"
        words.insert(0, rng.choice([first, first, first, "the"]))
    return " ".join(words)


def background_phrase(background, rng):
    name = word_for(background, rng)
    article = "an" if name[0] in "aeiou" else "a"
    return rng.choice([f" on {article} {name} background"] * 3 + [f" on {name}", f", {name} background"])


def caption(scene, rng):
    """Returns a caption of the scene, and the scene with None for each attribute that the caption does not mention."""
    things = [
        Thing(thing.colour if rng.random() > 0.08 else None, thing.subject if rng.random() > 0.06 else None, thing.size)
        for thing in scene.things
    ]
    background = scene.background if rng.random() > 0.35 else None
    if len(things) == 1 and rng.random() < 0.05:
        # A single word, as in negative prompts.
        kept = rng.choice(["colour", "subject", "background"])
        things = [
            Thing(things[0].colour if kept == "colour" else None, things[0].subject if kept == "subject" else None)
        ]
        if kept == "background":
            name = word_for(scene.background, rng)
            return f"{name} background", Scene((Thing(None, None),), scene.background)
        text = things[0].colour or phrase(things[0], rng, article=False)
        return text, Scene(tuple(things), None)

    article = rng.random() > 0.08
    text = phrase(things[0], rng, article)
    if len(things) == 2:
        links = {
            "left of": ["and", "and", "and", "next to", "to the left of"],
            "right of": ["to the right of"],
            "above": ["above", "over"],
            "below": ["below", "under"],
        }
        text += f" {rng.choice(links[scene.layout])} {phrase(things[1], rng, article)}"
    elif scene.layout == "center":
        text += f" {rng.choice(['in', 'at'])} the {rng.choice(['center', 'center', 'middle', 'centre'])}"
    elif scene.layout:
        text += f" {rng.choice(['at', 'on', 'in'])} the {scene.layout}"
    if background:
        text += background_phrase(background, rng)
    if rng.random() < 0.25:
        text = rng.choice(LEADS) + text
    if rng.random() < 0.15:
        added = " ".join(filler(rng) for _ in range(rng.integers(1, 3)))
        text = rng.choice([f"{text}, {added}", f"{added} {text}"])
    if rng.random() < 0.1:
        text = text[:1].upper() + text[1:]
    if rng.random() < 0.05:
        text += "."
    return text, Scene(tuple(things), background, scene.layout)


def plain_caption(scene):
    """Returns the caption of a scene as a user would most likely write it."""

    def one(thing):
        kind = "" if thing.subject in SHAPES else "digit " if thing.subject.isdigit() else "letter "
        words = " ".join(filter(None, (thing.size, thing.colour, kind + thing.subject)))
        return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"

    text = one(scene.things[0])
    if len(scene.things) == 2:
        link = {"left of": "and", "right of": "to the right of"}.get(scene.layout, scene.layout)
        text += f" {link} {one(scene.things[1])}"
    elif scene.layout:
        text += f" {'in' if scene.layout == 'center' else 'at' if scene.layout in ('top', 'bottom') else 'on'} the {scene.layout}"
    return f"{text} on a {scene.background} background"


# What a caption says, as the text encoders learn to predict it.
ATTRIBUTES = {
    "colour 1": [None, *COLOURS],
    "subject 1": [None, *SUBJECTS],
    "size 1": list(SIZES),
    "colour 2": [None, *COLOURS],
    "subject 2": [None, *SUBJECTS],
    "size 2": list(SIZES),
    "count": [1, 2],
    "background": [None, *BACKGROUNDS],
    "layout": [None, *PLACES, *ARRANGEMENTS],
}


def attributes(scene):
    """Returns the index of each attribute's value in `ATTRIBUTES`."""
    first = scene.things[0]
    second = scene.things[1] if len(scene.things) == 2 else Thing(None, None)
    values = (first.colour, first.subject, first.size, second.colour, second.subject, second.size)
    values += (len(scene.things), scene.background, scene.layout)
    return [names.index(value) for names, value in zip(ATTRIBUTES.values(), values)]


# The words of the captions and other words that users may type. Each is one token.
WORDS = sorted(
    {
        *COLOURS, *BACKGROUNDS, *SHAPES, *PLACES, *(c.lower() for c in GLYPHS),
        *"grey small little tiny large big huge letter digit number capital background middle centre".split(),
        *"a an the at on in of and with to is it for no not me please draw paint make show create".split(),
        *"next above over below under picture image photo drawing painting poster illustration".split(),
        *"shape something object thing corner side plain simple one two this that color colour".split(),
    }
)  # fmt: skip

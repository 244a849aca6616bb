"""Writes image files of every kind that a request may contain, and their pixels as Pillow decodes and resizes them."""

import argparse
import io
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms
from safetensors.numpy import save_file

PASSES = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
"""The passes of an interlaced PNG file: the first column and row, and the steps."""
GRAY, RGB, PALETTE, GRAY_ALPHA, RGBA = 0, 2, 3, 4, 6


def photo(width, height, channels=3, seed=0):
    """Smooth gradients, an edge and some noise."""
    y, x = np.mgrid[0:height, 0:width] / (height + width)
    waves = [np.sin(9 * x + 5 * y + 2 * channel) * 90 + 120 for channel in range(channels)]
    values = np.stack(waves, -1) + np.where(x > y + 0.1, 40, 0)[..., None]
    return (values + np.random.default_rng(seed).normal(0, 6, values.shape)).clip(0, 255).astype(np.uint8)


def png(array, color, depth=8, interlaced=False, chunks=()):
    """Pillow can write neither 16 bits per colour nor interlaced files."""
    height, width = array.shape[:2]

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    data = b""
    for left, top, step_x, step_y in PASSES if interlaced else [(0, 0, 1, 1)]:
        part = array[top::step_y, left::step_x]
        if part.size:
            data += b"".join(b"\0" + row.astype(">u2" if depth == 16 else "u1").tobytes() for row in part)
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, interlaced)
    body = [chunk(b"IHDR", header), *(chunk(*item) for item in chunks), chunk(b"IDAT", zlib.compress(data, 9))]
    return b"\x89PNG\r\n\x1a\n" + b"".join(body) + chunk(b"IEND", b"")


def profile(space, connection, tags):
    """An ICC profile of version 2."""
    start, data, table = 128 + 4 + 12 * len(tags), b"", b""
    for name, value in tags.items():
        table += name + struct.pack(">II", start + len(data), len(value))
        data += value + b"\0" * (-len(value) % 4)
    white = struct.pack(">3i", 63190, 65536, 54061)
    kind = b"prtr" if space == b"CMYK" else b"mntr"
    head = struct.pack(">I4sI4s4s4s", start + len(data), b"\0" * 4, 0x02400000, kind, space, connection)
    head += struct.pack(">6H4s", 2026, 1, 1, 0, 0, 0, b"acsp") + b"\0" * 28 + white + b"\0" * 48
    return head + struct.pack(">I", len(tags)) + table + data


def xyz(*values):
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(value * 65536) for value in values))


def gamma(value):
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(value * 256))


WHITE = {b"wtpt": xyz(0.9642, 1.0, 0.8249)}
GAMMA = {name: gamma(2.2) for name in (b"rTRC", b"gTRC", b"bTRC")}
DISPLAY_P3 = profile(b"RGB ", b"XYZ ", WHITE | GAMMA | {
    b"rXYZ": xyz(0.5151, 0.2412, -0.0011), b"gXYZ": xyz(0.2920, 0.6922, 0.0419), b"bXYZ": xyz(0.1571, 0.0666, 0.7841),
})
GRAY_18 = profile(b"GRAY", b"XYZ ", WHITE | {b"kTRC": gamma(1.8)})


def cmyk_profile():
    """A table of 3x3x3x3 colours. They are linear in each ink and can all be shown in sRGB."""
    levels = np.stack(np.meshgrid(*[np.linspace(0, 1, 3)] * 4, indexing="ij"), -1).reshape(-1, 4)
    c, m, y, k = levels.T
    lightness, a, b = 100 - 18 * c - 22 * m - 6 * y - 20 * k, 20 * m - 15 * c, 20 * y - 15 * c
    lab = np.stack([lightness * 2.55, a + 128, b + 128], -1).round().clip(0, 255).astype(np.uint8)
    ramp = bytes(range(256))
    identity = struct.pack(">9i", *(65536, 0, 0, 0, 65536, 0, 0, 0, 65536))
    table = b"mft1\0\0\0\0" + bytes([4, 3, 3, 0]) + identity + ramp * 4 + lab.tobytes() + ramp * 3
    return profile(b"CMYK", b"Lab ", WHITE | {b"A2B0": table, b"A2B1": table, b"A2B2": table})


def encoded(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def to_srgb(image, icc):
    """Other intents would also change the black point."""
    source, target = ImageCms.ImageCmsProfile(io.BytesIO(icc)), ImageCms.createProfile("sRGB")
    intent = ImageCms.Intent.RELATIVE_COLORIMETRIC
    return np.asarray(ImageCms.profileToProfile(image, source, target, intent, outputMode="RGB"))


def opened(file, mode="RGB"):
    return np.asarray(Image.open(io.BytesIO(file)).convert(mode))


def without_adobe_marker(jpeg):
    start = jpeg.index(b"\xff\xee")
    return jpeg[:start] + jpeg[start + 16:]


def cases():
    """Returns the file and the expected pixels of each case: RGB, or RGBA if the file is partly transparent."""
    rgb, alpha = photo(23, 17), photo(23, 17, 1, seed=1)
    rgba = np.concatenate([rgb, np.where(alpha > 130, alpha, 0)], -1)
    wide = photo(23, 17, 4).astype(np.uint16) * 251 + 137
    narrow = ((wide.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)

    yield "rgb16.png", png(wide[..., :3], RGB, 16), narrow[..., :3]
    yield "rgba16.png", png(wide, RGBA, 16, interlaced=True), narrow
    yield "gray16.png", png(wide[..., 0], GRAY, 16), np.repeat(narrow[..., :1], 3, -1)
    yield "gray-alpha16.png", png(wide[..., :2], GRAY_ALPHA, 16), narrow[..., [0, 0, 0, 1]]
    yield "interlaced.png", png(rgb, RGB, interlaced=True), rgb
    yield "rgba.png", encoded(Image.fromarray(rgba), "PNG"), rgba

    indexed = Image.fromarray(rgb).quantize(12, dither=Image.Dither.NONE)
    file = encoded(indexed, "PNG", bits=4, transparency=bytes([0, 90, 255]))
    yield "palette-alpha.png", file, opened(file, "RGBA")
    file = png(rgb, RGB, chunks=[(b"tRNS", struct.pack(">3H", *rgb[3, 4]))])
    yield "transparent-colour.png", file, opened(file, "RGBA")

    yield "alpha.webp", encoded(Image.fromarray(rgba), "WEBP", lossless=True, exact=True), rgba
    file = encoded(Image.fromarray(rgb), "WEBP", quality=90)
    yield "lossy.webp", file, opened(file)

    frames = [indexed, Image.fromarray(255 - rgb).quantize(12)]
    file = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    yield "animated.gif", file, opened(file)
    file = encoded(indexed, "GIF", transparency=3, interlace=1)
    yield "transparent.gif", file, opened(file, "RGBA")

    photo_rgb, photo_cmyk = Image.fromarray(photo(40, 24)), Image.fromarray(photo(40, 24, 4), "CMYK")
    file = encoded(photo_rgb, "JPEG", quality=95, subsampling=0)
    yield "photo.jpg", file, opened(file)
    file = encoded(photo_rgb, "JPEG", quality=90, progressive=True, subsampling=0, keep_rgb=True)
    yield "rgb.jpg", file, opened(file)
    cmyk = encoded(photo_cmyk, "JPEG", quality=95)
    yield "cmyk.jpg", cmyk, opened(cmyk)
    yield "cmyk-without-marker.jpg", without_adobe_marker(cmyk), opened(without_adobe_marker(cmyk))
    # A file with other planes becomes YCCK with the transform 2, the last byte of the marker.
    ycc = np.asarray(photo_rgb.convert("YCbCr"))
    planes = 255 - np.concatenate([ycc, photo(40, 24, 4)[..., 3:]], -1)
    ycck = encoded(Image.fromarray(planes, "CMYK"), "JPEG", quality=95)
    end = ycck.index(b"Adobe") + 11
    ycck = ycck[:end] + b"\2" + ycck[end + 1:]
    yield "ycck.jpg", ycck, opened(ycck)

    file = encoded(photo_cmyk, "JPEG", quality=95, icc_profile=cmyk_profile())
    yield "profile-cmyk.jpg", file, to_srgb(Image.open(io.BytesIO(file)), cmyk_profile())
    file = encoded(Image.fromarray(rgb), "PNG", icc_profile=DISPLAY_P3)
    yield "profile-p3.png", file, to_srgb(Image.fromarray(rgb), DISPLAY_P3)
    file = encoded(photo_rgb, "JPEG", quality=95, subsampling=0, icc_profile=DISPLAY_P3)
    yield "profile-p3.jpg", file, to_srgb(Image.open(io.BytesIO(file)), DISPLAY_P3)
    file = encoded(Image.fromarray(rgba), "WEBP", lossless=True, exact=True, icc_profile=DISPLAY_P3)
    yield "profile-p3.webp", file, np.concatenate([to_srgb(Image.fromarray(rgb), DISPLAY_P3), rgba[..., 3:]], -1)
    file = encoded(Image.fromarray(rgb[..., 0]), "PNG", icc_profile=GRAY_18)
    yield "profile-gray.png", file, to_srgb(Image.fromarray(rgb[..., 0]), GRAY_18)
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    yield "profile-srgb.png", encoded(Image.fromarray(rgb), "PNG", icc_profile=srgb), rgb


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="folder of the written file images.safetensors")
    folder = parser.parse_args().data
    tensors = {}
    for name, file, pixels in cases():
        tensors[f"{name}/file"] = np.frombuffer(file, np.uint8)
        tensors[f"{name}/pixels"] = np.ascontiguousarray(pixels)
    source = photo(61, 43)
    tensors["resize/source"] = source
    for width, height in [(16, 16), (96, 80), (61, 20), (150, 43), (7, 90), (1, 1)]:
        resized = Image.fromarray(source).resize((width, height), Image.Resampling.LANCZOS)
        tensors[f"resize/{width}x{height}"] = np.asarray(resized)
    mask = Image.fromarray(source[..., 0]).resize((20, 30), Image.Resampling.LANCZOS)
    tensors["resize/gray"] = np.asarray(mask)[..., None]
    save_file({name: np.ascontiguousarray(value) for name, value in tensors.items()}, folder / "images.safetensors")


if __name__ == "__main__":
    main()

"""Drawn cells: fields of view with nuclei, microtubules and endoplasmic reticulum.

The real crops may not be redistributed, so the demo and the tests use these.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

CHANNELS = ("blue", "red", "yellow")


@dataclass(frozen=True)
class Appearance:
    """Look of a cell line: lengths in pixels of a 64-pixel crop, brightness from 0 to 255.

    Nuclei are blue, microtubules red, the endoplasmic reticulum is yellow.
    """

    frequency: float
    """Samples of this class in the real training set, for the imbalance."""
    spacing: float
    """Smallest distance between two nuclei; small is crowded."""
    body: float
    """Radius of the whole cell."""
    nucleus: float
    """Radius of the nucleus."""
    elongation: float
    """Long axis divided by short axis, of nucleus and body."""
    lobing: float
    """Depth of the outline's dents, as a share of the radius."""
    blue: float
    chromatin: float
    """Contrast of the nucleus's texture, 0 to 1."""
    grain: float
    """Wavelength of this texture."""
    nucleoli: int
    """Dark spots in the nucleus."""
    red: float
    filaments: int
    """Microtubules per cell."""
    reach: float
    """Length of the microtubules."""
    curl: float
    """Curvature of the microtubules, radians per pixel."""
    yellow: float
    mesh: float
    """Wavelength of the reticulum's network."""
    extent: float
    """Distance from the nucleus over which the reticulum fades by a factor e."""


# The real lines' looks, exaggerated so that a network learns them in about a hundred steps.
# fmt: off
CELL_LINES: Mapping[str, Appearance] = {
    #                  freq spac bod nuc elon  lobing blu chrom grn n  red fil rch curl yel mesh ext
    "A549":   Appearance(513, 48, 38, 13, 1.30, .03, 100, .10, 8, 0,  70, 40, 24, .08, 170, 8, 30),
    "CACO-2": Appearance(1344, 27, 20, 12, 1.2, .14, 150, .60, 3, 0, 230, 45, 20, .15,  50, 5,  9),
    "HEK 293": Appearance(1133, 20, 15, 11, 1.1, .16, 185, .2, 5, 0,  70, 12, 14, .05, 80, 4,  8),
    "HeLa":   Appearance(519, 52, 34, 14, 1.50, .05, 190, .30, 5, 5,  90, 30, 34, .06, 255, 6, 13),
    "MCF7":   Appearance(888, 31, 24, 12, 1.05, .03, 185, .70, 4, 2, 120, 50, 12, .25, 150, 3, 20),
    "PC-3":   Appearance(561, 56, 16,  9, 1.40, .05, 170, .30, 4, 1, 190, 30,  8, .20, 170, 4, 12),
    "RT4":   Appearance(1673, 22, 17, 11, 1.70, .06, 140, .30, 6, 3,  60, 14, 22, .12,  35, 8,  8),
    "U-2 OS": Appearance(622, 55, 42, 17, 1.25, .03, 190, .10, 8, 0, 210, 60, 36, .05,  60, 8, 18),
    "U-251 MG": Appearance(637, 52, 21, 11, 2.0, .08, 220, .4, 4, 0, 110, 30, 16, .25, 240, 9, 20),
}
# fmt: on

# Relative variation between fields of one cell line: exposures most, geometry a little.
SPREADS = {
    **{"spacing": 0.08, "body": 0.1, "nucleus": 0.06, "elongation": 0.06},
    **{"blue": 0.15, "red": 0.2, "yellow": 0.2, "filaments": 0.15, "reach": 0.1, "extent": 0.1},
}


def draw_field(rng: np.random.Generator, cell_line: str, size: int, margin: int = 0) -> np.ndarray:
    """Draw a field of view, uint8 [channel, size + margin, size + margin], for crops of `size`."""
    look = vary_look(rng, CELL_LINES[cell_line])
    side, unit = size + margin, size / 64
    cells = place_cells(rng, look, side / unit)
    grid = (np.arange(side, dtype=np.float32) + 0.5) / unit
    dy = grid[None, :, None] - cells.y[:, None, None]
    dx = grid[None, None, :] - cells.x[:, None, None]
    distance, theta = np.hypot(dy, dx), np.arctan2(dy, dx)
    ellipse, lobes = cells.outline(theta)
    nucleus_edge = look.nucleus * ellipse * (1 + look.lobing * lobes)
    body_edge = look.body * ellipse * (1 + 0.08 * lobes)

    # A pixel belongs to the cell in whose body it lies deepest.
    owner = np.argmin(distance / body_edge, axis=0)[None]
    inside = np.take_along_axis(body_edge - distance, owner, axis=0)[0]
    outside_nucleus = np.take_along_axis(distance - nucleus_edge, owner, axis=0)[0]
    body = sigmoid(inside / 1.2)
    nucleus = sigmoid((nucleus_edge - distance) / 0.6).max(axis=0)
    cytoplasm = body * (1 - 0.9 * nucleus)

    chromatin = np.exp(look.chromatin * draw_noise(rng, side, look.grain * unit))
    blue = look.blue * nucleus * chromatin * draw_nucleoli(rng, look, cells, dy, dx)
    red = look.red * cytoplasm * (draw_filaments(rng, look, cells, side, unit) + 0.2)
    # The zero crossings of band-limited noise form a closed network, as the reticulum does.
    network = np.exp(-2 * np.abs(draw_noise(rng, side, look.mesh * unit, band=0.35)))
    speckle = np.exp(0.4 * draw_noise(rng, side, 3 * unit))
    fade = np.exp(-np.maximum(outside_nucleus, 0) / look.extent)
    yellow = look.yellow * cytoplasm * fade * speckle * (1.2 * network + 0.4)

    image = np.stack([blue, red, yellow])
    image += rng.normal(size=image.shape) * (1.5 + 0.5 * np.sqrt(image))  # background, photons
    return np.asarray(np.clip(np.rint(image), 0, 255), dtype=np.uint8)


@dataclass(frozen=True)
class Cells:
    """Cells of a field, the middle one first; arrays are float32 [n], phases [2, n]."""

    y: np.ndarray
    x: np.ndarray
    angle: np.ndarray
    """Angle of the long axis."""
    size: np.ndarray
    """Size relative to the field's mean."""
    elongation: float
    phase: np.ndarray

    def outline(self, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Radii of the ellipses and heights of the lobes, -2 to 2, at the angles [n, a, b]."""
        turn = theta - self.angle[:, None, None]
        cos2, sin2 = np.cos(turn) ** 2, np.sin(turn) ** 2
        ellipse = 1 / np.sqrt(cos2 / self.elongation + sin2 * self.elongation)
        two, three = self.phase[..., None, None]
        lobes = np.sin(2 * turn + two) + np.sin(3 * turn + three)
        return ellipse * self.size[:, None, None], lobes


def vary_look(rng: np.random.Generator, look: Appearance) -> Appearance:
    """Vary a cell line's look from field to field; see SPREADS."""
    varied = {
        name: getattr(look, name) * float(np.exp(spread * rng.normal()))
        for name, spread in SPREADS.items()
    }
    return replace(look, **{**varied, "filaments": round(varied["filaments"])})


def place_cells(rng: np.random.Generator, look: Appearance, side: float) -> Cells:
    """Throw darts at the field and a border around it; keep those that leave room for others."""
    spots = np.array([[side, side]]) / 2 + rng.normal(0, 6, 2)
    for dart in rng.uniform(-12, side + 12, (80, 2)):
        if np.hypot(*(spots - dart).T).min() > look.spacing * rng.uniform(1, 1.2):
            spots = np.vstack([spots, dart])
    n = len(spots)
    y, x = spots.T.astype(np.float32)
    angle, *phase = rng.uniform(0, 2 * np.pi, (3, n)).astype(np.float32)
    size = np.exp(rng.normal(0, 0.08, n)).astype(np.float32)
    return Cells(y, x, angle, size, look.elongation, np.stack(phase))


def draw_nucleoli(
    rng: np.random.Generator, look: Appearance, cells: Cells, dy: np.ndarray, dx: np.ndarray
) -> np.ndarray:
    """Factor [height, width] by which nucleoli darken the nuclei."""
    factor = np.ones((dy.shape[1], dx.shape[2]))
    for _ in range(look.nucleoli):
        towards = rng.uniform(0, 2 * np.pi, (len(cells.y), 1, 1))
        reach = look.nucleus * 0.65 * np.sqrt(rng.random((len(cells.y), 1, 1)))
        gap = np.hypot(dy - reach * np.sin(towards), dx - reach * np.cos(towards)).min(axis=0)
        factor *= 1 - 0.8 * np.exp(-0.5 * (gap / (0.12 * look.nucleus)) ** 2)
    return factor


def draw_filaments(
    rng: np.random.Generator, look: Appearance, cells: Cells, side: int, unit: float
) -> np.ndarray:
    """Density [side, side] of the microtubules, 0 to 1: curves that leave each nucleus."""
    n, step = len(cells.y), 0.7
    steps = int(1.3 * look.reach / step)
    shape = (n, look.filaments)
    start = rng.uniform(0, 2 * np.pi, shape)
    ellipse, _ = cells.outline(start[..., None])
    radius = look.nucleus * ellipse[..., 0] * rng.uniform(0.8, 1.3, shape)
    bend = rng.normal(0, 0.5 * look.curl, (*shape, 1)) + rng.normal(0, look.curl, (*shape, steps))
    heading = (start + rng.normal(0, 0.6, shape))[..., None] + step * np.cumsum(bend, axis=-1)
    y = cells.y[:, None, None] + (radius * np.sin(start))[..., None]
    x = cells.x[:, None, None] + (radius * np.cos(start))[..., None]
    y = (y + step * np.cumsum(np.sin(heading), axis=-1)) * unit - 0.5
    x = (x + step * np.cumsum(np.cos(heading), axis=-1)) * unit - 0.5
    length = rng.uniform(0.6, 1.3, shape)[..., None] * look.reach / step
    keep = (np.arange(steps) < length) & (y >= 0) & (y < side - 1) & (x >= 0) & (x < side - 1)
    y, x = y[keep], x[keep]

    row, column = y.astype(np.intp), x.astype(np.intp)
    density = np.zeros(side * side)
    for i, j in ((0, 0), (0, 1), (1, 0), (1, 1)):  # share each point among its four pixels
        weight = np.abs(1 - i - (y - row)) * np.abs(1 - j - (x - column))
        density += np.bincount((row + i) * side + column + j, weight, side * side)
    return 1 - np.exp(-step * density.reshape(side, side))


def draw_noise(
    rng: np.random.Generator, side: int, wavelength: float, band: float = 1.0
) -> np.ndarray:
    """Gaussian noise [side, side] around a wavelength in pixels, mean 0, deviation 1."""
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None])
    relative = frequency * max(wavelength, 2.5)
    passed = np.exp(-(((relative - 1) / band) ** 2))
    white = rng.normal(size=(side, side))
    noise = np.fft.irfft2(np.fft.rfft2(white) * passed, white.shape)
    noise -= noise.mean()
    return np.asarray(noise / noise.std())


def sigmoid(x: np.ndarray) -> np.ndarray:
    """Logistic function."""
    return np.asarray(0.5 * (1 + np.tanh(0.5 * x)))

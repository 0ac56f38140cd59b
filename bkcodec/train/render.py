"""Drawn training pictures: text, screens, diagrams, line art, flat colours and gradients.

Photos alone teach a codec no letters, and few flat or faint colours. A picture here depends on
a random generator and its side alone: no file is read, and every word is made up.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw, ImageFont, features

T = TypeVar("T")
Colour = tuple[int, int, int]
Colours = tuple[Colour, Colour, Colour]  # of a window: its surface, ink and accent
Family = tuple[int, int, int]
Point = tuple[float, float]

SOFT = 0.2  # share of pictures drawn larger and reduced, like a scaled screenshot
SMOOTH = 0.3  # share whose shapes have smooth edges: drawn at twice the size
PIXELLED = 0.2  # share whose letters have hard edges
PLOTTED = 0.08  # share lettered in strokes: all of them where Pillow has no FreeType
FAINT = 0.12  # share of inks that hardly stand out from their paper
# The grey level from and to, and how far a channel may lie from it.
ANY, PASTEL, DARK = (128, 128, 128), (212, 238, 26), (18, 50, 30)
GREY, BLACKISH, WHITISH = (0, 255, 7), (0, 14, 5), (241, 255, 5)
FAMILIES = (ANY, PASTEL, DARK, GREY, BLACKISH, WHITISH)
PAPERS = (*FAMILIES, WHITISH, PASTEL, WHITISH, PASTEL)
SCREEN = bytes.fromhex(
    "ffffff f5f5f5 e0e0e0 1e1e1e 282c34 002b36 fdf6e3 fffdd0 1a73e8 0d6efd 198754 dc3545"
    "ffc107 6f42c1 fd7e14 20c997 003300 1b4d2e 2f4f2f 4a5d23 faebd7 ffe4e1 e6f0e6 000080"
)
CONSONANTS, VOWELS, ENDS = "bcdfghjklmnpqrstvwxyz", "aaeeiioouuy", "bdgklmnrstxy"
KEYWORDS = ("if", "for", "return", "def", "let", "while", "import", "class", "const")
OPERATORS = (" = ", " + ", "(", ").", ", ", " == ", "[", "] = ", " -> ", "; ", ": ", " && ")
# A letter and its strokes through 3 x 5 points: a b c in the top row, m n o in the last one.
STROKES = (
    "Amgbio,gi Babfhlnma,gh Ccbdjno Damnlfba Ecamo,gh Fcam,gh Gfbdjnlih Ham,co,gi Ibn Jclnj "
    "Kam,cgo Lamo Mmaeco Nmaoc Obdjnlfb Pmabfhg Qbdjnlfb,ko Rmabfhg,ho Sfbdhlnj Tac,bn Uajnlc "
    "Vanc Wamkoc Xao,cm Yahc,hn Zacmo 0bdjnlfb,fj 1dbn,mo 2dbfmo 3achlnj 4nbjl 5caghlnm "
    "6cgjnlhg 7acn 8bdhlnjhfb 9fhdbfin .kn -gi :be,kn /cm (bdjn =df,jl _mo +gi,ek $fbdhlnj,bn"
)
GLYPHS = {entry[0]: entry[1:].split(",") for entry in STROKES.split()}
_font = lru_cache(maxsize=128)(ImageFont.load_default)


class Canvas:
    """A square picture that is being drawn, ``unit`` times as large as the finished one."""

    def __init__(self, rng: np.random.Generator, side: int, unit: float) -> None:
        self.rng, self.side, self.unit = rng, side, unit
        self.image = Image.new("RGB", (side, side))
        self.draw = ImageDraw.Draw(self.image)
        self.draw.fontmode = "1" if rng.random() < PIXELLED else "L"
        self._plotted = rng.random() < PLOTTED or not features.check("freetype2")
        self.letters = 7 * (48 / 7) ** (rng.random() ** 1.5) * unit  # their usual height
        self.radius = _pick(rng, (0, 0, 0.2, 0.4, 0.8)) * self.letters  # of corners

    def cover(self, families: Sequence[Family]) -> Colour:
        """Cover everything with one colour, at times with a faint gradient around it."""
        colour = _colour(self.rng, families)
        self.image.paste(colour, (0, 0, self.side, self.side))
        if self.rng.random() < 0.1:
            pixels = _blend(self.rng, self.side, [colour, _mix(colour, _colour(self.rng), 0.1)])
            self.image.paste(Image.fromarray(pixels))
        return colour

    def line(self, points: ArrayLike, colour: Colour, width: float = 1) -> None:
        """A line through some points; its width is in pixels of the finished picture."""
        self.draw.line(np.ravel(points).tolist(), colour, int(width * self.unit))

    def box(
        self, start: Point, size: Point, fill: Colour, edge: Colour | None = None, radius: float = 0
    ) -> None:
        """A rectangle from its top left corner; none where it is too small to be seen."""
        left, top = round(start[0]), round(start[1])
        width, height = round(start[0] + size[0]) - left, round(start[1] + size[1]) - top
        if min(width, height) >= 2:
            radius = min(radius, min(width, height) // 2 - 1)
            corners = left, top, left + width - 1, top + height - 1
            self.draw.rounded_rectangle(corners, radius, fill, edge, int(self.unit))

    def text(self, start: Point, text: str, size: float, ink: Colour, align: float = 0) -> float:
        """A line of text, moved left by ``align`` of its width, which is returned."""
        pixels = max(round(size), 5)
        width = 0.6 * pixels * len(text) if self._plotted else _font(pixels).getlength(text)
        corner = round(start[0] - align * width), round(start[1])
        if self._plotted:
            self._plot(corner, text, pixels, ink)
        else:
            self.draw.text(corner, text, ink, _font(pixels))
        return width

    def _plot(self, start: Point, text: str, size: int, ink: Colour) -> None:
        """Letters of our own, all equally wide; small capitals serve as lower case."""
        for i, letter in enumerate(text):
            height = (0.55 if letter.islower() else 0.75) * size
            corner = start[0] + 0.6 * size * i, start[1] + 0.9 * size - height
            for stroke in GLYPHS.get(letter.upper(), ()):
                rows, columns = np.divmod([ord(point) - ord("a") for point in stroke], 3)
                points = np.stack([0.22 * size * columns, height / 4 * rows], 1) + corner
                self.draw.line(points.ravel().tolist(), ink, max(size // 12, 1))


def render(rng: np.random.Generator, side: int) -> NDArray[np.uint8]:
    """One picture, uint8 [side, side, 3]; it depends on ``rng``'s draws and ``side`` alone."""
    kind = _pick(rng, [kind for kind, weight in KINDS.items() for _ in range(weight)])
    soft = rng.uniform(1.2, 1.9)  # below 2, so that a thin line is one pixel of the larger picture
    unit = float(rng.choice((soft, 2, 1), p=(SOFT, SMOOTH, 1 - SOFT - SMOOTH)))
    canvas = Canvas(rng, round(side * unit), unit)
    kind(canvas)
    return np.array(canvas.image.resize((side, side), Image.Resampling.LANCZOS))


def text(canvas: Canvas) -> None:
    """Headings and paragraphs in one to three columns, or a few large words as on a sign."""
    rng, size, paper = canvas.rng, canvas.letters, canvas.cover(PAPERS)
    ink, accent, leading = _ink(rng, paper), _ink(rng, paper), rng.uniform(1.1, 1.7)
    n_columns = int(rng.integers(1, 4)) if size < canvas.side / 18 else 1
    step, align = canvas.side / n_columns, _pick(rng, (0, 0, 0, 0.5))
    for column in range(n_columns):
        # The picture's borders may cut letters, as in a crop of a larger page.
        x, y = (column + align) * step + rng.uniform(-0.5, 1) * size, rng.uniform(-1, 1) * size
        while y < canvas.side:
            if rng.random() < 0.3:
                big, words = size * rng.uniform(1.1, 1.8), _phrase(rng, step / size)
                words = _pick(rng, (words, words.upper()))
                for shift in range(rng.integers(1, 3)):  # twice is bold
                    canvas.text((x + shift * canvas.unit, y), words, big, accent, align)
                y += 1.5 * big
            for _ in range(rng.integers(1, 9)):
                canvas.text((x, y), _phrase(rng, 1.8 * step / size - 2), size, ink, align)
                y += leading * size
            y += rng.uniform(0, 1.2) * size


def code(canvas: Canvas) -> None:
    """Lines of a program in colours, most of them on dark."""
    rng, size = canvas.rng, min(canvas.letters, 20 * canvas.unit)
    paper = canvas.cover((DARK, BLACKISH, WHITISH))
    inks, faint = [_ink(rng, paper) for _ in range(4)], _mix(paper, _legible(paper), 0.45)
    indent, first, start = 0, int(rng.integers(1, 900)), rng.uniform(-1, 1) * size
    for number, y in enumerate(np.arange(start, canvas.side, 1.35 * size), first):
        canvas.text((2 * size, y), str(number), size, faint, align=1)
        x = (2.6 + 2 * indent) * size
        if rng.random() < 0.9:
            x += canvas.text((x, y), f"{_pick(rng, KEYWORDS)} ", size, inks[1])
            for _ in range(rng.integers(1, 4)):
                x += canvas.text((x, y), _word(rng), size, inks[0])
                x += canvas.text((x, y), _pick(rng, OPERATORS), size, inks[2])
            canvas.text((x, y), _pick(rng, (_number(rng), f'"{_word(rng)}"')), size, inks[3])
        indent = min(max(indent + int(rng.integers(-1, 2)), 0), 4)


def screen(canvas: Canvas) -> None:
    """One to three windows on a desktop; any of them may be larger than the picture."""
    rng, side = canvas.rng, canvas.side
    canvas.cover(FAMILIES)
    for _ in range(rng.integers(1, 4)):
        canvas.letters = min(canvas.letters, rng.uniform(9, 16) * canvas.unit)
        surface, start = _colour(rng, PAPERS), rng.uniform(-0.2, 0.5, 2) * side
        size = rng.uniform(0.5, 1.3) * side, rng.uniform(0.4, 1.3) * side
        _window(canvas, (surface, _ink(rng, surface), _colour(rng)), (start[0], start[1]), size)


def _window(canvas: Canvas, colours: Colours, start: Point, size: Point) -> None:
    """A title bar, and below it blocks of rows and columns that hold one sort of item each."""
    rng, letters, (surface, ink, accent) = canvas.rng, canvas.letters, colours
    (x, y), (width, height), edge = start, size, _mix(surface, ink, rng.uniform(0.1, 0.4))
    bar = _pick(rng, (accent, _mix(surface, _colour(rng), 0.1)))
    canvas.box(start, size, surface, edge, canvas.radius)
    canvas.box(start, (width, 2 * letters), bar, edge, canvas.radius)
    title = _phrase(rng, 1.7 * width / letters - 10)
    canvas.text((x + letters, y + 0.4 * letters), title, letters, _ink(rng, bar))
    for i in range(3):
        centre = x + width - (1 + 1.2 * i) * letters, y + letters
        canvas.draw.circle(centre, 0.4 * letters, _mix(bar, _legible(bar), 0.6))
    bottom, y = min(y + height, canvas.side) - 2 * letters, y + 2.6 * letters
    while y < bottom:
        item, table = _pick(rng, (_words, _button, _marked, _meter)), rng.random() < 0.3
        n_columns = int(rng.integers(1, 2 + int(width / (7 * letters))))
        step = (width - 1.6 * letters) / n_columns
        for i in range(min(int(rng.integers(1, 7)), 1 + int((bottom - y) / letters / 1.8))):
            for left in x + 0.8 * letters + step * np.arange(n_columns):
                if table:
                    fill = surface if i else _mix(surface, edge, 0.5)
                    canvas.box((left, y), (step + 1, 1.8 * letters + 1), fill, edge)
                start = left + 0.3 * letters, y + 0.15 * letters
                item(canvas, colours, start, step - 0.8 * letters)
            y += 1.8 * letters
        y += rng.uniform(0.3, 1.2) * letters


def _words(canvas: Canvas, colours: Colours, start: Point, width: float) -> None:
    label = _phrase(canvas.rng, 1.7 * width / canvas.letters)
    canvas.text(start, label, canvas.letters, colours[1])


def _button(canvas: Canvas, colours: Colours, start: Point, width: float) -> None:
    fill = _pick(canvas.rng, (colours[0], colours[2], _mix(*colours[:2], 0.2)))
    canvas.box(start, (width, 1.5 * canvas.letters), fill, colours[1], canvas.radius)
    label = _phrase(canvas.rng, min(1.7 * width / canvas.letters, 9))
    middle = start[0] + width / 2, start[1] + 0.15 * canvas.letters
    canvas.text(middle, label, canvas.letters, _legible(fill), align=0.5)


def _marked(canvas: Canvas, colours: Colours, start: Point, width: float) -> None:
    """A check box, a round one or an icon, and words behind it."""
    rng, (x, y), side = canvas.rng, start, 1.2 * canvas.letters
    fill, radius = _pick(rng, (colours[0], _colour(rng))), _pick(rng, (0, 0.2, 0.5)) * side
    canvas.box((x, y), (side, side), fill, _pick(rng, (None, colours[1])), radius)
    if rng.random() < 0.6:
        middle, turn = (x + side / 2, y + side / 2, 0.35 * side), int(rng.integers(4)) * 90
        canvas.draw.regular_polygon(middle, int(rng.integers(3, 9)), turn, _legible(fill))
    _words(canvas, colours, (x + 1.5 * side, y), width - 1.5 * side)


def _meter(canvas: Canvas, colours: Colours, start: Point, width: float) -> None:
    """A progress bar, or a slider with its knob."""
    (x, y), (surface, ink, accent), share = start, colours, canvas.rng.random()
    height, middle = canvas.rng.uniform(0.2, 1) * canvas.letters, y + 0.7 * canvas.letters
    for length, fill in ((width, _mix(surface, ink, 0.2)), (share * width, accent)):
        canvas.box((x, middle - height / 2), (length, height), fill, None, canvas.radius)
    if canvas.rng.random() < 0.4:
        canvas.draw.circle((x + share * width, middle), 0.6 * canvas.letters, surface, ink)


def flow(canvas: Canvas) -> None:
    """Boxes with labels, and arrows from one to the next."""
    rng, size, paper = canvas.rng, min(canvas.letters, 16 * canvas.unit), canvas.cover(PAPERS)
    ink, fills = _ink(rng, paper), (paper, _colour(rng), _colour(rng))
    n_rows, n_columns = (int(n) for n in rng.integers(2, 5, 2))
    width, height = canvas.side / n_columns, canvas.side / n_rows
    for i in range(n_rows * n_columns):
        x, y = (i % n_columns + 0.5) * width, (i // n_columns + 0.5) * height
        for end, turn in (((x + 0.62 * width, y), 270), ((x, y + 0.68 * height), 180)):
            if rng.random() < 0.7:
                canvas.line([(x, y), end], ink)
                canvas.draw.regular_polygon((*end, 4 * canvas.unit), 3, turn, ink)
        corner, extent = (x - 0.35 * width, y - 0.3 * height), (0.7 * width, 0.6 * height)
        fill, label = _pick(rng, fills), _phrase(rng, min(1.2 * width / size, 9))
        canvas.box(corner, extent, fill, ink, canvas.radius)
        canvas.text((x, y - 0.6 * size), label, size, _legible(fill), align=0.5)


def chart(canvas: Canvas) -> None:
    """A pie with its legend; bars, or lines with dots, over axes with numbers and names."""
    rng, side, paper = canvas.rng, canvas.side, canvas.cover(PAPERS)
    ink, size = _ink(rng, paper), 0.05 * side
    canvas.text((side / 2, 0.03 * side), _phrase(rng, 18), 1.2 * size, ink, align=0.5)
    if rng.random() < 0.3:
        turns = np.sort(rng.uniform(0, 360, 5))
        for i in range(5):
            colour, y = _colour(rng), (0.25 + 0.11 * i) * side
            square = [0.06 * side, 0.22 * side, 0.66 * side, 0.82 * side]
            canvas.draw.pieslice(square, turns[i - 1], turns[i], colour)
            canvas.box((0.72 * side, y), (size, size), colour)
            canvas.text((0.8 * side, y), _phrase(rng, 7), size, ink)
    else:
        _axes(canvas, ink, paper, size)


def _axes(canvas: Canvas, ink: Colour, paper: Colour, size: float) -> None:
    rng, side = canvas.rng, canvas.side
    left, top, bottom, high = 0.15 * side, 0.15 * side, 0.87 * side, int(rng.integers(1, 300))
    for level, y in enumerate(np.linspace(bottom, top, 5)):
        canvas.line([(left, y), (side, y)], _mix(paper, ink, 0.2))
        canvas.text((left - size / 3, y - size / 2), str(level * high), size, ink, align=1)
    series = rng.uniform(top, bottom, (int(rng.integers(1, 4)), int(rng.integers(3, 12))))
    step, bars = (side - left) / series.shape[1], rng.random() < 0.5
    xs = left + step * (np.arange(series.shape[1]) + 0.5)
    for i, ys in enumerate(series):
        colour, width = _ink(rng, paper), 0.8 * step / len(series)
        if not bars:
            canvas.line(np.stack([xs, ys], 1), colour, rng.uniform(1, 4))
        for x, y in zip(xs, ys, strict=True):
            if bars:
                canvas.box((x - 0.4 * step + i * width, y), (width, bottom - y), colour)
            else:
                canvas.draw.circle((x, y), 2 * canvas.unit, colour)
    for x in xs[::2]:
        canvas.text((x, bottom + size / 3), _phrase(rng, min(3 * step / size, 9)), size, ink, 0.5)
    canvas.line([(left, top), (left, bottom), (side, bottom)], ink)


def art(canvas: Canvas) -> None:
    """Curves, polylines and hatching in lines of one colour."""
    rng, side, paper = canvas.rng, canvas.side, canvas.cover((*PAPERS, WHITISH, WHITISH, WHITISH))
    ink, t = _ink(rng, paper), np.linspace(0, 2 * math.pi, 100)
    for _ in range(rng.integers(2, 9)):
        start, reach = rng.uniform(0, side, 2), rng.uniform(0.1, 0.4) * side
        width, form = rng.uniform(1, 3), rng.random()
        if form < 0.4:
            waves = np.sin(rng.integers(1, 5, 4) * t[:, None] + rng.uniform(0, 7, 4))
            canvas.line(start + reach * (waves[:, :2] + waves[:, 2:]), ink, width)
        elif form < 0.6:
            canvas.line(rng.uniform(-0.2, 1.2, (int(rng.integers(3, 10)), 2)) * side, ink, width)
        else:
            slope = np.array([rng.uniform(-1, 1), 1]) * reach
            for shift in np.arange(0, reach, rng.uniform(3, 12) * canvas.unit):
                canvas.line([start + (shift, 0), start + (shift, 0) + slope], ink)


def flat(canvas: Canvas) -> None:
    """A few large areas, each in one colour; neighbours may hardly differ."""
    rng, side, colour = canvas.rng, canvas.side, canvas.cover(FAMILIES)
    for _ in range(rng.integers(1, 7)):
        colour = _mix(colour, _colour(rng), _pick(rng, (0.1, 1, 1, 1)))
        (x, y), (width, height) = rng.uniform(-0.3, 0.9, 2) * side, rng.uniform(0.2, 1, 2) * side
        if rng.random() < 0.6:
            canvas.box((x, y), (width, height), colour, None, _pick(rng, (0, 0, 0.1, 1)) * side)
        else:
            corners = rng.uniform(-0.2, 1.2, 2 * int(rng.integers(3, 6))) * side
            canvas.draw.polygon(corners.tolist(), colour)


def gradient(canvas: Canvas) -> None:
    """A smooth change between two to four colours, at times faint or with a little noise."""
    rng, first, share = canvas.rng, _colour(canvas.rng), _pick(canvas.rng, (0.1, 1, 1))
    others = [_mix(first, _colour(rng), share) for _ in range(rng.integers(1, 4))]
    pixels = _blend(rng, canvas.side, [first, *others])
    if rng.random() < 0.3:
        noise = rng.standard_normal((canvas.side, canvas.side, 1), np.float32) * rng.uniform(1, 6)
        pixels = (pixels + noise).round().clip(0, 255).astype(np.uint8)
    canvas.image.paste(Image.fromarray(pixels))


# How often each kind is drawn.
KINDS = {text: 24, code: 7, screen: 23, flow: 6, chart: 10, art: 8, flat: 11, gradient: 11}


def _blend(rng: np.random.Generator, side: int, colours: Sequence[Colour]) -> NDArray[np.uint8]:
    """A linear or radial gradient through some colours, uint8 [side, side, 3]."""
    t, (x, y) = np.linspace(-1, 1, side, dtype=np.float32), rng.uniform(-1, 1, 2).astype(np.float32)
    linear, radial = y * t[:, None] + x * t, np.hypot(t[:, None] - y, t - x)
    place = linear if rng.random() < 0.6 else radial
    place -= place.min()
    place *= 1023 / place.max()
    knots = np.linspace(0, 1023, len(colours))
    ramp = np.stack([np.interp(np.arange(1024), knots, c) for c in zip(*colours, strict=True)], 1)
    return ramp.round().astype(np.uint8)[place.astype(np.int32)]


def _colour(rng: np.random.Generator, families: Sequence[Family] = FAMILIES) -> Colour:
    """A colour of one of the families, or one that is usual on screens."""
    if rng.random() < 0.2:
        r, g, b = SCREEN[3 * int(rng.integers(len(SCREEN) // 3)) :][:3]
        return r, g, b
    low, high, spread = _pick(rng, families)
    r, g, b = (rng.uniform(low, high) + rng.uniform(-spread, spread, 3)).clip(0, 255)
    return int(r), int(g), int(b)


def _ink(rng: np.random.Generator, paper: Colour) -> Colour:
    """A colour to draw with: easily seen on its paper, but for a few faint ones."""
    if rng.random() < FAINT:
        return _mix(paper, _colour(rng), rng.uniform(0.15, 0.5))
    colours = [_colour(rng) for _ in range(_pick(rng, (0, 5)))]
    clear = [colour for colour in colours if abs(sum(colour) - sum(paper)) > 270]
    return clear[0] if clear else _mix(_legible(paper), paper, rng.uniform(0, 0.2))


def _legible(paper: Colour) -> Colour:
    return (0, 0, 0) if sum(paper) > 384 else (255, 255, 255)


def _mix(one: Colour, other: Colour, share: float) -> Colour:
    r, g, b = (round(a + share * (b - a)) for a, b in zip(one, other, strict=True))
    return r, g, b


def _word(rng: np.random.Generator) -> str:
    syllables = (CONSONANTS, VOWELS) * _pick(rng, (1, 1, 2, 2, 3))
    return "".join(_pick(rng, letters) for letters in syllables) + _pick(rng, ENDS)


def _number(rng: np.random.Generator) -> str:
    """A count, a price, a share, a date or a time."""
    n, a, b = int(10 ** rng.uniform(0, 5)), int(rng.integers(1, 13)), int(rng.integers(10, 29))
    price, date = f"${n / 100:.2f}", f"20{b}-{a:02}-{b}"
    return _pick(rng, (f"{n}", f"{n:,}", price, f"{n / 1000:.1f}%", date, f"{a}.{b}", f"{a}:{b}"))


def _phrase(rng: np.random.Generator, n_letters: float) -> str:
    """Words and some numbers: as many letters, or a few less; at least one."""
    phrase = _number(rng) if rng.random() < 0.15 else _word(rng).title()
    while len(phrase) < n_letters - 5:
        word = _number(rng) if rng.random() < 0.08 else _word(rng)
        forms = (*6 * (word,), word.title(), word.upper(), f"{word},", f"{word}.")
        phrase = f"{phrase} {_pick(rng, forms)}"
    return phrase[: max(int(n_letters), 1)]


def _pick(rng: np.random.Generator, options: Sequence[T]) -> T:
    return options[int(rng.random() * len(options))]

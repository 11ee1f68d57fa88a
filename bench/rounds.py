"""Interleaved rounds, ratios of what was seen in them, and the table."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import median
from typing import Any, NamedTuple

HEADINGS = ('scenario', 'what', 'target', 'median (min–max)', 'seen',
            'CPU each', 'notes')


class Spread(NamedTuple):
    """A median, and how far the rounds lie apart."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Iterable[float]) -> 'Spread':
        values = sorted(values)
        return cls(median(values), values[0], values[-1])

    def told(self, digits: int = 2, unit: str = '') -> str:
        return f'{self.median:.{digits}f} ({self.least:.{digits}f}–' \
            f'{self.most:.{digits}f}){unit}'


class Row(NamedTuple):
    """A line of the table. `seen` and `each` are what the measured number
    was made of; `each` is CPU of the server for one answer."""

    scenario: str
    what: str
    target: str
    measured: str
    seen: str = ''
    each: str = ''
    notes: str = ''


def interleaved(variants: Mapping[str, Callable[[], Any]],
                rounds: int) -> dict[str, list[Any]]:
    """Measure each variant once a round, in an order that is turned over
    each other round; return what was seen of each."""
    found = {name: [] for name in variants}
    for number in range(rounds):
        for name in [*variants][::-1 if number % 2 else 1]:
            found[name].append(variants[name]())
    return found


def ratios(over: Sequence[float], under: Sequence[float]) -> Spread:
    """Return the ratio of two variants, formed within each round."""
    return Spread.of(one / other for one, other
                     in zip(over, under, strict=True))


def against(scenario: str, what: str, target: str, over: Sequence[Any],
            under: Sequence[Any], notes: str = '') -> Row:
    """Return the row of a ratio of rates, of two variants that were
    `Measured` in the same rounds."""
    sides = (over, under)
    return Row(
        scenario, what, target,
        ratios(*([one.rate for one in side] for side in sides)).told(),
        ' ÷ '.join(Spread.of(one.rate for one in side).told(0)
                   for side in sides) + ' /s',
        ' ÷ '.join(f'{median(one.each for one in side):.2f}'
                   for side in sides) + ' ms',
        '; '.join(filter(None, (notes, wrong([*over, *under])))))


def wrong(measured: Iterable[Any]) -> str:
    """Return how many answers were none, or none that counts."""
    others = Counter()
    for one in measured:
        others.update(one.load.statuses)
        del others[one.good]
        others['without an answer'] += one.load.failed
    return ', '.join(f'{count} × {what}' for what, count
                     in sorted(others.items()) if count)


def line(cells: Sequence[str]) -> str:
    return f'| {" | ".join(cells)} |'


def heading() -> str:
    """Return the first two lines of the table."""
    return f'{line(HEADINGS)}\n{line(["---"] * len(HEADINGS))}'

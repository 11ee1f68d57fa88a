"""When to try again. Pure: chance is handed in as a number from 0 to 1."""

SHORTEST = 15.0     # seconds
LONGEST = 900.0


def delay(rounds: int, chance: float) -> float:
    """Return how many seconds to wait after so many rounds.

    It lies between 15 s and 30 s doubled with each round, 15 min at most:

    >>> delay(1, 0.0), delay(1, 1.0), delay(3, 1.0), delay(50, 1.0)
    (15.0, 60.0, 240.0, 900.0)
    """
    longest = min(30.0 * 2 ** min(rounds, 10), LONGEST)
    return SHORTEST + (longest - SHORTEST) * chance


def rest(trips: int, first: float, longest: float, chance: float) -> float:
    """Return how many seconds a service rests for the n-th time in a row.

    It doubles from `first` to `longest`, with a jitter of a fifth:

    >>> rest(1, 30, 600, 0.5), rest(3, 30, 600, 0.5), rest(9, 30, 600, 1.0)
    (30.0, 120.0, 720.0)
    """
    jitter = 0.8 + 0.4 * chance
    return min(first * 2 ** min(trips - 1, 20), longest) * jitter

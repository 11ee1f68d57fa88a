"""The least of a plan that still fails.

A plan's parts are numbered: `calls:0,3/faults:2/...` names those that are
kept. What is left out changes nothing of the rest but when it happens.
"""

from simulation.plans import Plan

PARTS = ('calls', 'faults', 'troubles', 'acts')
TRIES = 300


def sizes(plan: Plan) -> str:
    """Return how many parts of each kind a plan has."""
    return ', '.join(f'{len(getattr(plan, part))} {part}' for part in PARTS)


def keep(plan: Plan, parts: str | None) -> Plan:
    """Return what `parts` names of a plan; all of it where it is None."""
    if parts is None:
        return plan
    kept = dict(part.split(':') for part in parts.split('/'))
    return _kept(plan, {part: [int(n) for n in kept[part].split(',') if n]
                        for part in PARTS})


def _kept(plan, numbers):
    return plan._replace(**{
        part: tuple(getattr(plan, part)[n] for n in numbers[part])
        for part in PARTS})


def shrink(simulation, plan: Plan):
    """Return the smallest plan found, its parts, and its result.

    Halves are left out first, then smaller pieces, as long as the same
    invariant is broken.
    """
    numbers = {part: list(range(len(getattr(plan, part))))
               for part in PARTS}
    wanted = simulation.run(plan).violations[0].invariant
    tries = TRIES
    smaller = True
    while smaller:
        smaller = False
        for part in PARTS:
            piece = max(1, len(numbers[part]) // 2)
            while piece and tries:
                tries -= 1
                found = _without(simulation, plan, numbers, part, piece,
                                 wanted)
                if found is None:
                    piece //= 2
                else:
                    numbers, smaller = found, True
                    piece = min(piece, len(numbers[part]))
    least = _kept(plan, numbers)
    return least, '/'.join(
        f'{part}:{",".join(map(str, numbers[part]))}' for part in PARTS), \
        simulation.run(least)


def _without(simulation, plan, numbers, part, piece, wanted):
    """Return the numbers without some piece of a part, if it still fails."""
    for at in range(0, len(numbers[part]), piece):
        fewer = {**numbers, part: numbers[part][:at]
                 + numbers[part][at + piece:]}
        if any(one.invariant == wanted for one in
               simulation.run(_kept(plan, fewer)).violations):
            return fewer
    return None

"""`python -m simulation`: run seeds, replay one, or test the tests.

Run it in tests/, or as `make simulate SEEDS=20000`.
"""

import argparse
import sys
import time
from collections import Counter

import stampman

from simulation.databases import STORES, databases_of
from simulation.plans import POLICIES, make
from simulation.run import Simulation, replay_command
from simulation.shrinking import keep, shrink, sizes

EVERY = 60.0        # real seconds between two lines that say how far it is


def main(argv: list[str] | None = None) -> int:
    """Do as the command line says; return 1 where an invariant is broken."""
    asked = _arguments(argv)
    if asked.mutants:
        from simulation.mutating import main as run_mutants
        return run_mutants(asked.only)
    policies = POLICIES if asked.policy == 'both' else (asked.policy,)
    with databases_of(asked.store) as databases:
        simulation = Simulation(databases)
        if asked.seed is not None:
            return _replay(simulation, asked, policies)
        return _sweep(simulation, range(
            asked.start, asked.start + asked.seeds), policies,
            asked.quick)


def _arguments(argv):
    parser = argparse.ArgumentParser(
        prog='python -m simulation', description=__doc__.splitlines()[0])
    parser.add_argument('--seeds', type=int, default=200, metavar='COUNT')
    parser.add_argument('--start', type=int, default=0, metavar='SEED')
    parser.add_argument('--policy', choices=(*POLICIES, 'both'),
                        default='both')
    parser.add_argument('--store', choices=STORES, default=STORES[0],
                        help='what the messages are stored in')
    parser.add_argument('--seed', type=int, help='run this one alone')
    parser.add_argument('--trace', action='store_true',
                        help='with --seed: print every step')
    parser.add_argument('--keep', metavar='PARTS', help='with --seed: only '
                        'these parts of the plan, as a shrunk one is told')
    parser.add_argument('--quick', action='store_true',
                        help='at a violation print one line, and end')
    parser.add_argument('--mutants', action='store_true',
                        help='break the program on purpose, in many ways, '
                        'and see that each is found')
    parser.add_argument('--only', nargs='*', metavar='NAME',
                        help='with --mutants: these alone')
    return parser.parse_args(argv)


def _sweep(simulation, seeds, policies, quick):
    counts, runs, said_at = Counter(), 0, time.monotonic()
    began = said_at
    for seed in seeds:
        for policy in policies:
            plan = make(seed, policy)
            result = simulation.run(plan)
            runs += 1
            counts.update(result.counts)
            if result.violations and quick:
                print(f'{stampman.__file__}\t{seed}\t{policy}\t'
                      f'{result.violations[0].invariant}\t'
                      f'{result.violations[0].detail}')
                return 1
            if result.violations:
                print(report(plan, result))
                print(_smallest(simulation, plan))
                return 1
        if time.monotonic() - said_at > EVERY:
            said_at = time.monotonic()
            print(f'seed {seed}: {runs} runs, '
                  f'{runs / (said_at - began):.1f} a second', flush=True)
    seconds = time.monotonic() - began
    print(f'{runs} runs ({len(seeds)} seeds from {seeds.start}, '
          f'{" and ".join(policies)}), no violation; '
          f'{runs / seconds:.1f} runs a second')
    for what, count in sorted(counts.items()):
        print(f'{count:12,}  {what}')
    return 0


def _replay(simulation, asked, policies):
    failed = False
    for policy in policies:
        plan = keep(make(asked.seed, policy), asked.keep)
        result = simulation.run(plan, whole=asked.trace)
        failed |= bool(result.violations)
        print(report(plan, result, asked.keep))
        print(f'digest {result.digest}')
    return int(failed)


def report(plan, result, parts=None) -> str:
    """Return a run's last steps, what is wrong, and how to see it again."""
    return '\n'.join([
        *result.lines,
        *(f'VIOLATION {one}' for one in result.violations),
        f'seed {plan.seed}, policy {plan.policy}: '
        f'{len(result.violations)} violations ({sizes(plan)})',
        f'replay: {replay_command(plan, result.store, parts)}'])


def _smallest(simulation, plan):
    """Return the least of a plan that still fails."""
    plan, parts, result = shrink(simulation, plan)
    return f'\nThe smallest plan that still breaks ' \
        f'{result.violations[0].invariant}:\n{report(plan, result, parts)}'


if __name__ == '__main__':
    sys.exit(main())

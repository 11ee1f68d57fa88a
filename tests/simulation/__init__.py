"""A deterministic simulation: the real program, a simulated world.

What is real: the SQL store on a SQLite file or in a PostgreSQL server
(`databases`), the gateway with intake, dispatch, pool, health and upkeep, the
worker's steps and rounds, and the shared half of the services over HTTP, with
its table of what an answer or a broken call means. What is simulated is
handed in: the clocks, chance, ids, the pause, and in the place of the network
a wire to providers that keep a ledger of what they took.

One seed makes one plan (`plans`): what clients send and when, what breaks
and where, what a person does. The plan runs in a `World` of several web and
worker processes. Every thread of theirs is a greenlet (`scheduling`); one
runs at a time, in virtual time. Each call of the store, before and after it,
each stage of a provider's call and each pause is a point (`World.point`) at
which the process may be killed, or frozen for longer than its lease. A dead
process does nothing more: whatever it asks of the world raises `Killed`,
also in its `finally`. Commits are lost before or after their effect, the
store is away, the wall clock jumps, the machine reboots, providers refuse,
hang, take the message and lose the answer. On PostgreSQL each statement of a
transaction is a point, too: transactions are open side by side, wait for one
another's locks, and end with their process (`interleaving`).

After 600 virtual seconds all faults end. When everything is quiet some
canaries are sent, many of them to be rejected. Then the ledger, the store
and what clients were told are held against each other (`invariants`; what
must hold when a call begins is in `journal.objections`):

I1  what was acknowledged exists, and is settled or visibly held
I2  `hold`: nobody gets a message twice, unless a person said so
I3  who is accepted was taken by a provider; who is failed, rejected or
    cancelled was not, unless a person said so
I4  one message for each Idempotency-Key
I5  no account rests for ever, none rests for rejections, canaries are quick
I6  no provider call without its attempt committed before
I7  what can be sent is sent, a possible double is marked
I8  no call begins while another attempt of the message is open
I9  nothing is sent before `send_at`, nothing begins after `expires_at`, and
    recipients, attempts and message tell one story

A violation prints the steps that matter, the command that shows them again,
and the smallest plan that still fails (`shrinking`). The simulation itself is
tested by `mutants`: ways to break the program, each of which must be found.

Where to begin: `run.py`, then `world.py` and `process.py`. A new fault is a
line in `plans.FAULTS` and a method of `World`; a new way for a provider to
answer one in `provider.SCRIPTS`.
"""

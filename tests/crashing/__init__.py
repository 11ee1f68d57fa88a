"""Stampman as real processes that are killed, and a judge of what came of it.

`oracle` judges, `program` is what runs in the processes, `running` starts
and ends them from a test, `wire` stands between them and the simulator.
"""

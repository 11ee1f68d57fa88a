"""Half a minute of random SIGKILLs and SIGSTOPs under load, then the oracle.

The run prints its seed; CRASHING_SEED makes the same choices again. When
each falls is up to the machine.
"""

import pytest

from crashing.chaos import run_chaos


@pytest.mark.long
def test_half_a_minute_of_kills_loses_nothing(tmp_path, capsys):
    figures = run_chaos(tmp_path, capsys)
    assert figures['kills'] > 15 and figures['acknowledged'] > 50

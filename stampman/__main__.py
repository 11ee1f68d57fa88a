"""`python -m stampman` is the `stampman` command."""

from stampman.cli import main

main()

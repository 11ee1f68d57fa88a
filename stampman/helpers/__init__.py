"""The vocabulary: leaf types that every other part of Stampman speaks.

Nothing here does I/O, except that `config` reads the config file, and
nothing here imports the rest of Stampman.
"""

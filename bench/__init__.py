"""Ratios of Stampman to what it is measured against: see docs/performance.md.

`make bench` prints a table; nothing is asserted. Linux only: what a process
costs is read from /proc.
"""

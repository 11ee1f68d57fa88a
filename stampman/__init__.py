"""Stampman: a self-hosted gateway for transactional email."""

__version__ = '0.4.0'

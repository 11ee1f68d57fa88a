"""What a bare `gunicorn stampman.main:app` reads when started here."""

from stampman.serving import *      # noqa: F401,F403

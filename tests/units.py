"""The units of systemd in deploy/, and the keys that systemd knows."""

import configparser
from pathlib import Path

UNITS = sorted((Path(__file__).parent.parent / 'deploy').glob('*.service'))
# Those in use, as systemd.unit(5), systemd.service(5), systemd.exec(5),
# systemd.kill(5) and systemd.resource-control(5) of systemd 252 have them.
KNOWN = {
    'Unit': {'Description', 'Documentation', 'Wants', 'After',
             'StartLimitIntervalSec'},
    'Service': {
        'Type', 'TimeoutStartSec', 'TimeoutStopSec', 'User', 'Group',
        'WorkingDirectory', 'Environment', 'EnvironmentFile', 'ExecStart',
        'ExecReload', 'KillMode', 'Restart', 'RestartSec', 'LimitNOFILE',
        'StateDirectory', 'StateDirectoryMode', 'UMask', 'ProtectSystem',
        'ReadWritePaths', 'ProtectHome', 'PrivateTmp', 'PrivateDevices',
        'NoNewPrivileges', 'CapabilityBoundingSet', 'ProtectProc',
        'ProtectClock', 'ProtectControlGroups', 'ProtectHostname',
        'ProtectKernelLogs', 'ProtectKernelModules', 'ProtectKernelTunables',
        'LockPersonality', 'RestrictAddressFamilies', 'RestrictNamespaces',
        'RestrictRealtime', 'RestrictSUIDSGID', 'SystemCallArchitectures',
        'SystemCallFilter'},
    'Install': {'WantedBy'}}


def parsed(unit: Path) -> dict[str, dict[str, str]]:
    """Return the sections of a unit in which no key stands twice."""
    parser = configparser.ConfigParser(
        interpolation=None, delimiters='=', comment_prefixes='#')
    parser.optionxform = str
    parser.read_string(unit.read_text())
    return {name: dict(parser[name]) for name in parser.sections()}

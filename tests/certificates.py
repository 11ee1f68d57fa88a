"""Certificates for servers on loopback, good and bad, made in memory."""

import datetime
import ssl

import trustme


class Authority:
    """A CA of the test's own; `file` is its certificate, for a client."""

    def __init__(self, folder):
        self._ca = trustme.CA()
        self.file = str(folder / 'ca.pem')
        self._ca.cert_pem.write_to_path(self.file)

    def server(self, *names: str, expired: bool = False,
               newest: ssl.TLSVersion | None = None) -> ssl.SSLContext:
        """Return the context of a server that is called `names`."""
        dates = {}
        if expired:
            past = datetime.datetime(2020, 1, 1, tzinfo=datetime.timezone.utc)
            dates = {'not_before': past,
                     'not_after': past + datetime.timedelta(days=90)}
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._ca.issue_cert(*names, **dates).configure_cert(context)
        if newest:
            # OpenSSL forbids the old versions at any higher level.
            context.set_ciphers('ALL:@SECLEVEL=0')
            context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
            context.maximum_version = newest
        return context

    def signed_by_itself(self) -> ssl.SSLContext:
        """Return the context of a server whose certificate nobody signed."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        trustme.LeafCert(self._ca.private_key_pem.bytes(),
                         self._ca.cert_pem.bytes(), []
                         ).configure_cert(context)
        return context

"""Amazon SES v2, as AWS documents it; the signature is checked in full.

Any region is served. A member that is not known is refused, where AWS may
ignore it.
"""

import re
import secrets

from stampman.helpers import strict_json
from stampman.helpers.exceptions import BadRequest
from stampman.simulator import _ses_mail, sigv4
from stampman.simulator.addresses import domain_of
from stampman.simulator.exchange import Provider, Refused, Verdict, as_json

SEND = '/v2/email/outbound-emails'
ACCOUNT = '/v2/email/account'
MAX_24_HOURS = 50_000.0     # emails
_IDENTITY = re.compile('/v2/email/identities/([^/]+)')


def problem(status, kind, message):
    """Return the body of an error, whose name stands in a header too."""
    return as_json(status, {'message': message},
                   (('x-amzn-ErrorType', f'{kind}:'),))


DENIED = problem(403, 'AccessDeniedException',
                 'The policy of this user does not allow it.')
USED_UP = problem(400, 'ThrottlingException',
                  'Daily message quota exceeded.')
NOT_VERIFIED = ('Email address is not verified. The following identities '
                'failed the check in region {}: {}')
ERRORS = {
    'AUTH': problem(403, 'UnrecognizedClientException', 'The security token '
                    'included in the request is invalid.'),
    'ACCOUNT': problem(400, 'AccountSuspendedException',
                       'Your account is suspended.'),
    'RATE_LIMIT': problem(429, 'TooManyRequestsException',
                          'Too many requests'),
    'UNAVAILABLE': problem(503, 'ServiceUnavailable',
                           'The service is not available.'),
    'RECIPIENT': problem(400, 'BadRequestException',
                         "Missing final '@domain'"),
    'SENDER': problem(400, 'BadRequestException',
                      'Local address contains control or whitespace'),
    'CONTENT': problem(400, 'MessageRejected',
                       'The content of the message is not allowed.'),
    'PAYLOAD': problem(400, 'BadRequestException', 'Tag value is not valid'),
    'TOO_LARGE': problem(413, 'RequestEntityTooLargeException',
                         'The message is too large.'),
}


class AmazonSes(Provider):
    """One AWS account; its key is `access key:secret key[:token]`."""

    name = 'amazon_ses'
    prefix = 'ses'

    def is_sending(self, method, path):
        return path == SEND

    def answer(self, request):
        """Every answer has an id of the request."""
        verdict = super().answer(request)
        number = ('x-amzn-RequestId', secrets.token_hex(16))
        return verdict._replace(reply=verdict.reply._replace(
            headers=(*verdict.reply.headers, number)))

    def judge(self, request):
        routes = {('POST', SEND): self._send, ('GET', ACCOUNT): self._account}
        answer = routes.get((request.method, request.path))
        if _IDENTITY.fullmatch(request.path) and request.method == 'GET':
            answer = self._identity
        if answer is None:
            raise Refused(problem(404, 'UnknownOperationException', ''))
        try:
            sigv4.check(request, self._credentials(), self.now())
        except sigv4.BadSignature as error:
            raise Refused(problem(403, error.kind, error.message)) from None
        if self.is_on('scope'):
            raise Refused(DENIED)
        return answer(request)

    def error(self, word, taken):
        return ERRORS[word]

    def rejecting(self, verdict, is_rejected):
        """All are refused for one."""
        return Verdict(ERRORS['RECIPIENT'])

    def settings(self, base_url):
        known = self._credentials()
        found = {'access_key_id': known.access_key,
                 'secret_access_key': known.secret_key}
        if known.token:
            found['session_token'] = known.token
        return {**found, 'region': 'us-east-1', 'base_url': base_url}

    def _credentials(self):
        return sigv4.Credentials(*self.account.key.split(':', 2))

    def _send(self, request):
        if self.is_on('quota'):
            raise Refused(USED_UP)
        if request.media_type not in (
                'application/json', 'application/x-amz-json-1.1'):
            raise Refused(problem(415, 'UnsupportedMediaTypeException', ''))
        try:
            sent = strict_json.parse(request.body)
        except BadRequest as error:
            raise Refused(problem(400, 'SerializationException',
                                  str(error))) from None
        provider_id = f'0100{secrets.token_hex(6)}-{secrets.token_hex(4)}'
        try:
            taken = _ses_mail.read(sent, provider_id)
        except _ses_mail.TooLarge:
            raise Refused(ERRORS['TOO_LARGE']) from None
        except ValueError as error:
            raise Refused(problem(400, 'BadRequestException',
                                  str(error))) from None
        if not self.account.may_send(domain_of(taken.sender)):
            region = request.headers['authorization'].split('/')[2]
            raise Refused(problem(400, 'MessageRejected', NOT_VERIFIED.format(
                region.upper(), taken.sender)))
        return Verdict(as_json(200, {'MessageId': provider_id}), taken)

    def _account(self, request):
        sent = MAX_24_HOURS if self.is_on('quota') else 0.0
        return Verdict(as_json(200, {
            'DedicatedIpAutoWarmupEnabled': False,
            'EnforcementStatus': 'HEALTHY', 'ProductionAccessEnabled': True,
            'SendQuota': {'Max24HourSend': MAX_24_HOURS, 'MaxSendRate': 14.0,
                          'SentLast24Hours': sent},
            'SendingEnabled': True}))

    def _identity(self, request):
        domain = _IDENTITY.fullmatch(request.path)[1]
        if not self.account.may_send(domain):
            raise Refused(problem(404, 'NotFoundException', 'Email identity '
                                  f'{domain} does not exist.'))
        return Verdict(as_json(200, {
            'IdentityType': 'DOMAIN', 'VerifiedForSendingStatus': True,
            'VerificationStatus': 'SUCCESS',
            'DkimAttributes': {'SigningEnabled': True, 'Status': 'SUCCESS'},
            'MailFromAttributes': {
                'BehaviorOnMxFailure': 'USE_DEFAULT_VALUE'}}))

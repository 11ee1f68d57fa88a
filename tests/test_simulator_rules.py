"""A fault is said in one line or in JSON, and a wrong one is explained."""

import pytest

from stampman.simulator import faults
from stampman.simulator.faults import Rule, WrongFault, from_json, from_spec


@pytest.mark.parametrize('spec, rule', [
    ('sendgrid:status=503,percent=50',
     Rule('sendgrid', 'status', 503, percent=50.0)),
    ('mandrill:error=RATE_LIMIT,times=3',
     Rule('mandrill', 'error', 'RATE_LIMIT', times=3)),
    ('*:hang', Rule('*', 'hang')),
    ('*:hang=2.5,took=true', Rule('*', 'hang', 2.5, took=True)),
    ('mailgun:reset=before', Rule('mailgun', 'reset', 'before')),
    ('mailgun:reset=after', Rule('mailgun', 'reset', 'after', took=True)),
    ('smtp:status=421,stage=rcpt,body=4.3.2 busy',
     Rule('smtp', 'status', 421, stage='rcpt', body='4.3.2 busy')),
    ('smtp:defer=*@example.net', Rule('smtp', 'defer', '*@example.net',
                                      took=True)),
    ('*:status=429, header.Retry-After=5',
     Rule('*', 'status', 429, headers={'Retry-After': '5'})),
    ('amazon_ses:slow=1,on=any',
     Rule('amazon_ses', 'slow', 1.0, took=True, on='any'))])
def test_a_spec_is_a_rule(spec, rule):
    assert from_spec(spec) == rule
    assert from_json({
        name: value for name, value in rule.shown().items()
        if value not in (None, '', {}) and name != 'number' and (
            name != 'took' or rule.what in ('hang', 'status'))}) == rule


@pytest.mark.parametrize('spec, told', [
    ('sendgrid', 'is not like'), ('sendgrid:', 'is not like'),
    ('gmail:hang', "not 'gmail'"), ('sendgrid:explode', "not 'explode'"),
    ('sendgrid:status', "the value of 'status'"),
    ('sendgrid:status=600', 'whole number from 100 to 599'),
    ('sendgrid:status=5e2x', 'whole number'),
    ('sendgrid:status=nan', 'whole number'),
    ('sendgrid:status=503,percent=101', 'percent must be a number from 0'),
    ('sendgrid:status=503,times=0', 'times must be a whole number from 1'),
    ('sendgrid:status=503,often=1', "'often' is not known"),
    ('sendgrid:status=503,times', 'is not like "name=value"'),
    ('sendgrid:status=503,times=1,times=2', 'given twice'),
    ('sendgrid:status=503,took=maybe', 'must be true or false'),
    ('sendgrid:error=OTHER', "not 'OTHER'"),
    ('sendgrid:error=AUTH,took=true', 'cannot be told "took"'),
    ('sendgrid:reset=never', "not 'never'"),
    ('sendgrid:reset=before,took=true', 'cannot be told this "took"'),
    ('sendgrid:close=1', 'must not be there'),
    ('sendgrid:reject=', 'not empty'),
    ('sendgrid:redirect=elsewhere', 'must be a URL'),
    ('sendgrid:hang,on=never', "not 'never'"),
    ('sendgrid:hang,stage=dot', 'has no stages'),
    ('sendgrid:defer=*', 'does not defer'),
    ('sendgrid:reject=*,on=any', 'about sending only'),
    ('sendgrid:error=SUPPRESSED', "has no error 'SUPPRESSED'"),
    ('sendgrid:hang,body=x', 'no "body"'),
    ('sendgrid:status=429,header.A b=x', 'can be a header'),
    ('smtp:huge=9', 'nothing that smtp can do'),
    ('mailgun:scope', 'no keys with scopes'),
    ('smtp:scope', 'no keys with scopes'),
    ('sendgrid:quota=5', 'must not be there'),
    ('sendgrid:quota,times=1', "cannot be told 'times'"),
    ('sendgrid:scope,on=probe', "cannot be told 'on'")])
def test_a_wrong_spec_is_explained(spec, told):
    with pytest.raises(WrongFault, match=r'.*' + told):
        from_spec(spec)


@pytest.mark.parametrize('fields, told', [
    ([], 'a fault is an object'), ({'what': 'hang'}, "'provider' is missing"),
    ({'provider': '*'}, "'what' is missing"),
    ({'provider': ['*'], 'what': 'hang'}, 'provider must be'),
    ({'provider': '*', 'what': 'status', 'value': True}, 'whole number'),
    ({'provider': '*', 'what': 'status', 'value': 503, 'headers': {'a': 1}},
     'can be a header'),
    ({'provider': '*', 'what': 'status', 'value': 503,
      'headers': {'A': 'b\r\nC: d'}}, 'can be a header'),
    ({'provider': '*', 'what': 'status', 'value': 503, 'body': 1}, 'body'),
    ({'provider': '*', 'what': 'hang', 'took': 1}, 'true or false')])
def test_wrong_json_is_explained(fields, told):
    with pytest.raises(WrongFault, match=r'.*' + told):
        from_json(fields)


@pytest.mark.parametrize('spec, told', [
    ('smtp:status=503,on=probe', "does not come by 'dot'"),
    ('smtp:error=UNAVAILABLE,on=probe', "does not come by 'mail'"),
    ('smtp:hang,on=probe,stage=rcpt', "does not come by 'rcpt'"),
    ('mandrill:error=CONTENT,on=probe', 'about an email'),
    ('*:error=RECIPIENT,on=probe', 'about an email'),
    ('smtp:reject=*@example.net,stage=mail', 'the stage "rcpt" only'),
    ('smtp:hang,took=true,stage=data', 'the stage "dot" only'),
    ('smtp:reset=after,stage=rcpt', 'the stage "dot" only')])
def test_what_could_never_happen_is_no_fault(spec, told):
    with pytest.raises(WrongFault, match=r'.*' + told):
        from_spec(spec)


@pytest.mark.parametrize('spec', [
    'smtp:status=421,on=probe,stage=ehlo', 'smtp:error=AUTH,on=probe',
    '*:status=503,on=probe', 'sendgrid:error=ACCOUNT,on=probe',
    'smtp:hang,took=true,stage=dot'])
def test_what_can_happen_to_a_probe_or_at_a_stage_is_one(spec):
    assert from_spec(spec).provider == spec.partition(':')[0]


def test_how_things_stand_is_not_used_up_and_meets_no_request():
    known = faults.Faults(['sendgrid:quota', '*:scope'])
    assert known.choose('sendgrid', lambda rule: True) is None
    assert [known.is_on(provider, state) for provider, state in (
        ('sendgrid', 'quota'), ('mailgun', 'quota'), ('mandrill', 'scope'))
        ] == [True, False, True]
    assert [rule.on for rule in known.rules()] == ['any', 'any']
    known.clear()
    assert not known.is_on('sendgrid', 'quota')


def test_every_fault_stands_in_the_table_of_the_module():
    for what in faults.WHATS:
        assert f'| `{what}` |' in faults.__doc__


def test_the_first_rule_that_applies_is_done():
    known = faults.Faults(['sendgrid:status=500,times=1', '*:status=501'])

    def chosen(provider):
        rule = known.choose(provider, lambda rule: rule.on == 'send')
        return rule and rule.value

    assert [chosen('mailgun'), chosen('sendgrid'), chosen('sendgrid')] == [
        501, 500, 501]
    assert known.choose('mailgun', lambda rule: rule.on == 'probe') is None


def test_a_rate_is_of_one_second():
    times = iter([0.0, 0.5, 0.9, 1.0, 1.2, 1.5])
    known = faults.Faults(['*:rate_limit=2'], monotonic=lambda: next(times))
    assert [known.choose('smtp', lambda rule: True) is not None
            for _ in range(6)] == [False, False, True, False, True, False]

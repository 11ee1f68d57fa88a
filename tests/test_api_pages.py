"""The browsable pages: readable, escaped, and they work without scripts."""

import pytest

from gateway_server import (
    ADMIN_KEY, EMAIL, POOL_KEY, GatewayServer, Page, config)

SEND = '/example.com/send'
NASTY = [
    '<script>alert(1)</script>', '"><img src=x onerror=alert(1)>',
    "'-alert(1)-'", '{{7*7}} {% raw %} ${7*7} %(x)s {0}',
    '</textarea></pre><svg/onload=alert(1)>', '&lt;b&gt; &amp;', '%s%n']


@pytest.fixture(scope='module')
def server(tmp_path_factory):
    with GatewayServer(
            tmp_path_factory.mktemp('pages'), config()) as running:
        yield running


@pytest.fixture(scope='module')
def message_id(server):
    return server.send().json['id']


PAGES = ['/', '/example.com/', SEND, '/example.com/messages/',
         '/example.com/messages/{id}', '/login', '/nowhere', '/?key=x']


@pytest.mark.parametrize('path', PAGES)
def test_a_page_runs_no_script_and_takes_nothing_from_elsewhere(
        server, admin, message_id, path):
    reply = admin.get(path.format(id=message_id))

    assert reply.headers['Content-Type'] == 'text/html; charset=utf-8'
    assert reply.headers['Content-Security-Policy'] == (
        "default-src 'none'; style-src 'self'; img-src 'self'; "
        "form-action 'self'; frame-ancestors 'none'; base-uri 'none'")
    assert reply.headers['X-Content-Type-Options'] == 'nosniff'
    assert reply.headers['Referrer-Policy'] == 'no-referrer'
    assert reply.headers['Cache-Control'] == 'no-store'
    for tag, attributes in Page(reply.text).tags:
        assert tag not in ('script', 'style', 'iframe', 'object')
        assert not [name for name in attributes
                    if name.startswith('on') or name == 'style']
        for name in ('src', 'href', 'action'):
            assert attributes.get(name, '/').startswith('/')


def test_the_pages_look_and_lead_on(server, browser):
    start = browser.page('/')

    assert '/example.com/' in start.links
    assert server.get('/static/style.css').headers[
        'Content-Type'].startswith('text/css')
    assert 'GET / ' not in start.text and '::' not in start.text
    for link in start.links:
        assert browser.get(link).status in (200, 401)


def test_the_text_of_a_page_is_its_documentation(browser):
    text = browser.page(SEND).text

    assert 'from_email' in text and 'Authorization: Bearer' in text
    assert '`' not in text


@pytest.mark.parametrize('nasty', NASTY)
def test_what_clients_send_is_shown_and_never_run(
        server, admin, nasty, browser):
    sent = server.send({
        **EMAIL, 'subject': nasty, 'content': nasty, 'html': nasty,
        'from_name': nasty, 'recipients': [
            {'email': 'ada@example.org', 'name': nasty}],
        'headers': {'X-Nasty': nasty}, 'tags': [nasty],
        'metadata': {nasty: nasty}, 'attachments': [
            {'filename': nasty, 'content': 'aGk='}]}).json

    html = admin.get(f'/example.com/messages/{sent["id"]}').text

    page = Page(html)
    assert page.text.count(nasty) >= 9
    assert not {'script', 'img', 'svg'} & {tag for tag, _ in page.tags}
    wrong = browser.submit(browser.page(SEND).form(SEND), subject=nasty,
                           content=nasty, pool_api_key=nasty)
    assert wrong.status == 401
    assert nasty in Page(wrong.text).form(SEND)[2].values()
    assert not {'script', 'img', 'svg'} & {
        tag for tag, _ in Page(wrong.text).tags}


def test_characters_that_deceive_are_written_out(server, admin):
    sent = server.send({**EMAIL, 'subject': 'exe.\u202egpj\u200b'}).json

    page = admin.page(f'/example.com/messages/{sent["id"]}')

    assert 'exe.[U+202E]gpj[U+200B]' in page.text


def test_captured_mail_is_read_in_the_browser(server, admin, browser):
    sent = server.send({**EMAIL, 'content': 'the plain text',
                        'html': '<p>the html</p>'}).json
    path = f'/example.com/messages/{sent["id"]}'

    read = admin.page(path).text

    for part in ('the plain text', '<p>the html</p>', 'Your order',
                 'Ada <ada@example.org>', 'simulated', 'capture'):
        assert part in read
    assert browser.get(path).status == 401


def test_the_form_sends_with_the_pools_key(server, browser):
    form = browser.page(SEND).form(SEND)

    reply = browser.submit(
        form, from_email='shop@example.com', pool_api_key=POOL_KEY,
        recipients='"Doe, Jo" <jo@example.org>, ada@example.org\r\n'
                   'bob@example.org; eve@example.org',
        subject='Hello', content='One\r\nTwo', tags='a, b')

    assert reply.status == 200, reply.text
    sent_id = reply.headers['Location'].rpartition('/')[2]
    assert f'/example.com/messages/{sent_id}' in Page(reply.text).links
    assert POOL_KEY not in reply.text
    email = server.get(f'/example.com/messages/{sent_id}', ADMIN_KEY).json[
        'email']
    assert email['recipients'] == [
        {'email': 'jo@example.org', 'name': 'Doe, Jo'},
        {'email': 'ada@example.org', 'name': ''},
        {'email': 'bob@example.org', 'name': ''},
        {'email': 'eve@example.org', 'name': ''}]
    assert email['content'] == 'One\nTwo'
    assert email['tags'] == ['a', 'b']
    assert email['cc'] == [] and email['html'] is None


def test_the_form_takes_attachments(server):
    parts = {'from_email': 'shop@example.com', 'recipients': 'a@example.org',
             'content': 'see there', 'pool_api_key': POOL_KEY}
    lines = [f'--XX\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'
             f'{value}\r\n' for name, value in parts.items()]
    for filename, content in (('a.pdf', 'PDF'), ('', '')):
        lines.append('--XX\r\nContent-Disposition: form-data; '
                     f'name="attachments"; filename="{filename}"\r\n'
                     f'Content-Type: application/pdf\r\n\r\n{content}\r\n')
    body = ''.join([*lines, '--XX--\r\n']).encode()

    sent = server.request('POST', SEND, body, {
        'Content-Type': 'multipart/form-data; boundary=XX'})

    assert sent.status == 200, sent.text
    attachment, = server.get(
        f'/example.com/messages/{sent.json["id"]}', ADMIN_KEY).json[
        'email']['attachments']
    assert (attachment['filename'], attachment['content_type'],
            attachment['size']) == ('a.pdf', 'application/pdf', 3)


def test_what_was_typed_is_not_lost_when_it_was_wrong(browser):
    reply = browser.submit(
        browser.page(SEND).form(SEND), from_email='shop@example.com',
        subject='Hello', content='A\nlong text', recipients='nobody',
        pool_api_key=POOL_KEY)

    assert reply.status == 422
    page = Page(reply.text)
    fields = page.form(SEND)[2]
    assert (fields['subject'], fields['content'], fields['recipients']) == (
        'Hello', 'A\nlong text', 'nobody')
    assert fields['pool_api_key'] == '' and POOL_KEY not in reply.text
    assert 'recipients[0]' in page.text


@pytest.mark.parametrize('fields, status', [
    ({}, 415), ({'pool_api_key': ''}, 401), ({'pool_api_key': 'x'}, 401),
    ({'admin_api_key': ADMIN_KEY}, 415),
    ({'pool_api_key': POOL_KEY, '_method': 'DELETE'}, 422),
    ({'pool_api_key': POOL_KEY, '_content': '{}',
      '_content_type': 'application/json'}, 422)])
def test_a_form_without_the_right_to_send_sends_nothing(
        server, browser, fields, status):
    before = server.get('/example.com/messages/', POOL_KEY).text
    form = ('POST', SEND, {'from_email': 'shop@example.com',
                           'recipients': 'a@example.org', 'content': 'x'})

    assert browser.submit(form, **fields).status == status
    assert server.get('/example.com/messages/', POOL_KEY).text == before


def test_the_list_is_filtered_by_its_form_and_paged_by_its_link(
        server, admin):
    for number in range(3):
        server.send({**EMAIL, 'recipients': [f'page{number}@example.org']})
    page = admin.page('/example.com/messages/?limit=1')
    link = next(link for link in page.links if 'after=' in link)
    assert admin.get(link).status == 200

    found = admin.submit(page.form('/example.com/messages/'),
                         recipient='page1@example.org', state='accepted')

    rows = [link for link in Page(found.text).links
            if link.startswith('/example.com/messages/0')]
    assert len(rows) == 1


def test_an_unknown_page_is_a_readable_problem(browser):
    reply = browser.get('/nowhere/at/all')

    assert reply.status == 404
    assert 'There is nothing at this address.' in Page(reply.text).text

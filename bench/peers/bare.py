"""BARE: a Flask view that only posts what it gets, on kept connections."""

import os

import requests
from flask import Flask, request
from requests.adapters import HTTPAdapter

URL = f'{os.environ["PROVIDER"]}/v3/mail/send'
POOL = 256      # connections: no fewer than threads

app = Flask(__name__)
session = requests.Session()
session.trust_env = False
session.mount('http://', HTTPAdapter(pool_maxsize=POOL))


@app.post('/')
def send():
    answer = session.post(URL, json=request.get_json(), timeout=10)
    return {'status': answer.status_code}

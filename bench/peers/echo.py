"""A bare Flask-API app that answers with the JSON it gets."""

import importlib

from flask import request

importlib.import_module('stampman.api._flask_api')      # lets it be imported
FlaskAPI = importlib.import_module('flask_api').FlaskAPI

app = FlaskAPI(__name__)
app.config['DEFAULT_RENDERERS'] = ['flask_api.renderers.JSONRenderer']


@app.route('/', methods=['POST'])
def echo():
    return request.data

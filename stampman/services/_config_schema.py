"""The JSON Schema of the config file, from the models that validate it."""

from stampman import services
from stampman.helpers.config import Config


def config_schema() -> dict:
    """Return the JSON Schema of the config file, of every provider's
    settings too. Any scalar may also be a `${NAME}`."""
    frame = Config.model_json_schema()
    definitions = frame['$defs']
    for provider in services.providers():
        model = services.service_class(provider).Settings
        schema = model.model_json_schema(ref_template='#/$defs/{model}')
        definitions.update(schema.pop('$defs', {}))
        schema['title'] = provider
        definitions[f'service_{provider}'] = schema
    definitions['PoolConfig']['properties']['services'][
        'additionalProperties'] = {'anyOf': [
            {'$ref': f'#/$defs/service_{provider}'}
            for provider in services.providers()]}
    return {'$schema': 'https://json-schema.org/draft/2020-12/schema',
            **_with_variables(_with_comments(frame))}


def _with_comments(schema):
    """Objects may hold `_comments`, and the file its `$schema`."""
    for model in (schema, *schema['$defs'].values()):
        if model.get('type') == 'object':
            model['patternProperties'] = {'^_': {}}
    schema['properties']['$schema'] = {'type': 'string'}
    return schema


_VARIABLE = {'type': 'string', 'pattern': r'\$\{[A-Za-z_][A-Za-z0-9_]*\}'}


def _with_variables(schema):
    """Let a variable stand wherever a scalar does."""
    if isinstance(schema, list):
        return [_with_variables(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    walked = {key: value if key in ('default', 'enum', 'const', 'required')
              else _with_variables(value) for key, value in schema.items()}
    scalar = walked.get('type') in ('integer', 'number', 'boolean') or (
        walked.get('type') == 'string' and ('enum' in walked
                                            or 'const' in walked))
    if not scalar:
        return walked
    about = {key: walked.pop(key) for key in ('title', 'description',
                                              'default') if key in walked}
    return {**about, 'anyOf': [walked, _VARIABLE]}

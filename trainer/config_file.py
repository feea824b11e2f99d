"""A run's options from layers of values and from YAML files: a model's recipe, the user's file, the command line.

The whole of what comes of it is saved with the run. What cannot be used is one sentence.
"""

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from mezzotint.engines.errors import TrainConfigError
from mezzotint.trainer.config import Concept, TrainConfig


def make_config(*layers: Mapping[str, Any]) -> TrainConfig:
    """Return the configuration of layers of values, of which later ones go before earlier ones.

    Raises:
        TrainConfigError: a value is none of its field, or values do not fit together; one sentence names all of them.
    """
    values = {name: value for layer in layers for name, value in layer.items()}
    try:
        return TrainConfig.model_validate(values)
    except ValidationError as error:
        raise TrainConfigError("; ".join(_problem(dict(found)) for found in error.errors())) from None


def read_values(path: Path) -> dict[str, Any]:
    """Return the values of a YAML file by field.

    Raises:
        TrainConfigError: it cannot be read, is no mapping, or has a key that is no field.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise TrainConfigError(f"{path}: cannot be read ({reason}); check the path") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise TrainConfigError(f"{path}: is not YAML in UTF-8 ({reason}); mend it") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise TrainConfigError(f"{path}: must be a mapping, `option: value` on each line")
    named = {str(key).replace("-", "_"): value for key, value in values.items()}
    unknown = [f"{key}: is no option{_meant(key)}" for key in named if key not in TrainConfig.model_fields]
    if unknown:
        raise TrainConfigError(f"{path}: {'; '.join(unknown)}")
    return named


def load_config(path: Path) -> TrainConfig:
    """Return the configuration of a YAML file, such as a run's own. Raises TrainConfigError."""
    try:
        return make_config(read_values(path))
    except TrainConfigError as error:
        raise error if str(error).startswith(str(path)) else TrainConfigError(f"{path}: {error}") from None


def _meant(key: str) -> str:
    model = Concept if key.startswith("concepts.") else TrainConfig
    close = difflib.get_close_matches(key.rpartition(".")[2], model.model_fields, n=1)
    return f" (did you mean {close[0]}?)" if close else ""


def _problem(found: Mapping[str, Any]) -> str:
    """Return what is wrong with a field, in words."""
    where = ".".join(map(str, found["loc"]))
    if found["type"] == "extra_forbidden":
        return f"{where}: is no option{_meant(where)}"
    if found["type"] == "value_error":
        return str(found["ctx"]["error"])
    reason = str(found["msg"])
    return f"{where}={found['input']!r}: {reason[:1].lower()}{reason[1:]}"

"""Compose a configuration and build what it names. Only this module, the pipelines and the CLI know Hydra."""

from __future__ import annotations

import difflib
import inspect
import re
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, fields
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, TypeVar

from medtwin.core.errors import ConfigError, MedtwinError
from medtwin.core.paths import config_dir

TRUSTED_PACKAGES = ("medtwin", "torch", "lightning", "monai", "numpy")
Settings = TypeVar("Settings")


def compose(verb: str, overrides: Sequence[str], config_folder: Path | None = None) -> dict[str, Any]:
    """The resolved configuration of a verb.

    Args:
        verb: Name of a primary config.
        overrides: Hydra overrides, such as `n=500`.
        config_folder: A further folder of the user's own options; searched first.

    Raises:
        ConfigError: If an override does not parse, names no setting, or a required setting is missing.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from omegaconf import OmegaConf

    with explained_errors(verb, overrides, config_folder), initialize_config_dir(str(config_dir()), version_base="1.3"):
        config = hydra_compose(verb, [*extra_overrides(config_folder), *overrides])
        resolved = OmegaConf.to_container(config, resolve=True)
    assert isinstance(resolved, dict)
    return {str(key): value for key, value in resolved.items()}


def extra_overrides(config_folder: Path | None) -> list[str]:
    """What makes Hydra look for options in a further folder too."""
    return [f"hydra.searchpath=[file://{config_folder.resolve()}]"] if config_folder else []


@contextmanager
def explained_errors(verb: str, overrides: Sequence[str], config_folder: Path | None = None) -> Iterator[None]:
    """Turns what Hydra has against the settings into a ConfigError that says what to write instead."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    for override in overrides:
        group, _, option = override.partition("=")
        if option in ("null", "") and not group.startswith(("+", "~")) and (folder := config_dir() / group).is_dir():
            raise ConfigError(_explain_option(group, option, [path.stem for path in folder.glob("*.yaml")]))
    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(_explain(verb, str(error), overrides, config_folder)) from error


def _explain(verb: str, message: str, overrides: Sequence[str], config_folder: Path | None) -> str:
    first = message.strip().splitlines()[0] if message.strip() else "the configuration cannot be composed"
    if missing := re.search(r"Could not find '([\w/]+)/([\w.-]+)'", message):
        return _explain_option(missing[1], missing[2], re.findall(r"^\t(\S+)$", message, re.MULTILINE))
    known = known_settings(verb, overrides, config_folder)
    for override in overrides:
        key = override.lstrip("+~").partition("=")[0].partition("@")[0]
        if key and key not in known and f"'{key}'" in message:
            close = difflib.get_close_matches(key, known, n=3, cutoff=0.5)
            hint = f"did you mean {' or '.join(close)}?" if close else f"`medtwin {verb} --help` lists them"
            return f"there is no setting {key!r} in `medtwin {verb}`: {hint}"
    return f"{first} (`medtwin {verb} --help` lists the settings)"


def _explain_option(group: str, option: str, options: Sequence[str]) -> str:
    close = difflib.get_close_matches(option, options, n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    listed = f"the options are {', '.join(sorted(options))}" if options else "the group has no options"
    return f"{group} has no option {option!r}: {hint}{listed}"


def known_settings(verb: str, overrides: Sequence[str] = (), config_folder: Path | None = None) -> list[str]:
    """Every setting of a verb, as dotted paths, groups included; of the options that the overrides choose."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf import OmegaConf

    groups = sorted(path.parent.relative_to(config_dir()).as_posix() for path in config_dir().glob("*/**/*.yaml"))
    choices = [text for text in overrides if text.partition("=")[0] in groups and "," not in text]
    for chosen in (choices, []):
        try:
            with initialize_config_dir(str(config_dir()), version_base="1.3"):
                config = OmegaConf.to_container(
                    hydra_compose(verb, [*extra_overrides(config_folder), *chosen]), resolve=False
                )
        except HydraException:
            continue
        return [*_paths(config, ""), *dict.fromkeys(groups)]
    return list(dict.fromkeys(groups))


def _paths(value: Any, prefix: str) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            path = f"{prefix}.{key}" if prefix else str(key)
            yield path
            yield from _paths(inner, path)


def build(config: Any, path: str = "") -> Any:
    """Builds the object that a `_target_` names, its parts first; other values are returned as they are.

    Args:
        config: A resolved configuration. `_partial_: true` gives a factory instead of an object.
        path: Where it stands in the configuration; names the culprit in errors.

    Raises:
        ConfigError: If the target is not in a trusted package, does not exist, or refuses its arguments.
    """
    if isinstance(config, Mapping):
        parts = {key: build(value, f"{path}.{key}" if path else str(key)) for key, value in config.items()}
        return _call(parts, path) if "_target_" in parts else parts
    if isinstance(config, (list, tuple)):
        return [build(value, f"{path}[{index}]") for index, value in enumerate(config)]
    return config


def _call(parts: dict[str, Any], path: str) -> Any:
    from functools import partial

    target = _trusted(parts.pop("_target_"), path)
    is_partial = bool(parts.pop("_partial_", False))
    parameters = inspect.signature(target).parameters
    takes_any = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values())
    if not takes_any and (unknown := [name for name in parts if name not in parameters]):
        raise ConfigError(f"{path}: {target.__name__} has no setting {unknown[0]!r}, only {', '.join(parameters)}")
    if is_partial:
        return partial(target, **parts)
    try:
        return target(**parts)
    except MedtwinError as error:
        raise ConfigError(f"{path}: {error}") from error
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{path}: {target.__name__}: {error}") from error


def _trusted(name: Any, path: str) -> Callable[..., Any]:
    def is_trusted(module: str) -> bool:
        return module.partition(".")[0] in TRUSTED_PACKAGES

    if not isinstance(name, str) or not is_trusted(name):
        raise ConfigError(f"{path}._target_ must be in one of {', '.join(TRUSTED_PACKAGES)}, got {name!r}")
    try:
        target = resolve_name(name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"{path}._target_: {name} cannot be imported: {error}") from error
    if not callable(target) or not is_trusted(getattr(target, "__module__", None) or ""):
        raise ConfigError(f"{path}._target_: {name} is no class or function of a trusted package")
    return typing.cast(Callable[..., Any], target)


def settings(kind: type[Settings], values: Mapping[str, Any], path: str = "") -> Settings:
    """A frozen dataclass of settings from a configuration, its field types checked; nested dataclasses too.

    Raises:
        ConfigError: Naming the setting that is unknown, missing, or of the wrong type.
    """
    hints = typing.get_type_hints(kind)
    known = {field.name: field for field in fields(kind)}  # type: ignore[arg-type]
    for key in values:
        if key not in known:
            raise ConfigError(f"there is no setting {_dotted(path, key)!r}")
    chosen: dict[str, Any] = {}
    for name, field in known.items():
        if name in values and values[name] != "???":
            chosen[name] = _convert(values[name], hints[name], _dotted(path, name))
        elif field.default is MISSING and field.default_factory is MISSING:
            raise ConfigError(f"{_dotted(path, name)}=... is required")
    try:
        return kind(**chosen)
    except ValueError as error:
        raise ConfigError(f"{path + ': ' if path else ''}{error}") from error


def _dotted(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _convert(value: Any, hint: Any, path: str) -> Any:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        options = typing.get_args(hint)
        if value is None and type(None) in options:
            return None
        hint = next(option for option in options if option is not type(None))
    if hasattr(hint, "__dataclass_fields__"):
        if not isinstance(value, Mapping):
            raise ConfigError(f"{path} must be a group of settings, got {value!r}")
        return settings(hint, value, path)
    if typing.get_origin(hint) is Mapping and isinstance(value, Mapping):
        return value
    if typing.get_origin(hint) is tuple:
        values = value if isinstance(value, (list, tuple)) else [value]
        return tuple(_convert(item, typing.get_args(hint)[0], path) for item in values)
    return _convert_plain(value, hint, path)


def _convert_plain(value: Any, hint: Any, path: str) -> Any:
    if typing.get_origin(hint) is typing.Literal:
        if value in typing.get_args(hint):
            return value
        raise ConfigError(f"{path} must be one of {', '.join(map(str, typing.get_args(hint)))}, got {value!r}")
    if hint is Path and isinstance(value, (str, int, Path)) and str(value):
        return Path(str(value)).expanduser()
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint is str and isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    if hint is Any or (
        isinstance(hint, type) and isinstance(value, hint) and (hint is bool or not isinstance(value, bool))
    ):
        return value
    raise ConfigError(f"{path} must be {getattr(hint, '__name__', hint)}, got {value!r}")


# Hydra's own functions and quoted or bracketed values pass; all else with its special characters is a plain string.
_HYDRA_VALUE = re.compile(
    r"""^(['"\[{]|(choice|range|interval|glob|shuffle|sort|tag|extend_list|int|float|str|bool|json_str)\()"""
)


def quote_override(override: str) -> str:
    """The override with its value quoted where Hydra's grammar would misread it, as in keep=condition(84114007).

    >>> quote_override("keep=condition(84114007)"), quote_override("n=5"), quote_override("seed=choice(1,2)")
    ("keep='condition(84114007)'", 'n=5', 'seed=choice(1,2)')
    """
    key, separator, value = override.partition("=")
    special = key == "keep" or any(character in value for character in "()=&|!")
    if not separator or not value or not special or _HYDRA_VALUE.match(value):
        return override
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"{key}='{escaped}'"

"""Reads one section of `params.yaml` into the pydantic class that its owner defines.

Every class states its own bounds; this module only finds the section, applies the dataset's overrides and turns pydantic's
report into one line that names the key. YAML is read as version 1.2, by the parser that DVC uses: PyYAML would take 3e-05,
which `dvc exp run -S wgan.lr=0.00003` writes, for a string.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError
from ruamel.yaml import YAML, YAMLError

from recolor.errors import UserError

T = TypeVar("T")


class ParamsError(UserError):
    """A setting that is missing, unknown, of the wrong type or out of bounds."""


class Params:
    """`params.yaml` as one dataset sees it: its `data.<dataset>.overrides` laid over the sections.

    Raises ParamsError, from every method, with one line that names the key, what it got and what it takes.
    """

    def __init__(self, path: Path, dataset: str | None = None) -> None:
        self.path = path
        self.dataset = dataset
        self._tree = _load(path)
        if dataset is not None:
            self._override()

    def section(self, name: str, kind: type[T]) -> T:
        """The section `name`, validated. Of `data`, what belongs to no dataset in particular."""
        content = self._get(name)
        if name == "data" and isinstance(content, Mapping):
            content = {key: value for key, value in content.items() if not isinstance(value, Mapping)}
        return self._validate(name, kind, content)

    def source(self, kind: Any) -> Any:
        """The dataset's own entry, `data.<dataset>`; `kind` is a type or a union of types."""
        return self._validate(f"data.{self.dataset}", kind, self._source())

    def value(self, name: str, kind: Any) -> Any:
        """A single top-level value, such as `seed`."""
        return self._validate(name, kind, self._get(name))

    def raw(self, *names: str) -> dict[str, Any]:
        """The sections as they stand, overrides applied: for a model's card and the report."""
        return {name: self._get(name) for name in names}

    def _get(self, name: str) -> Any:
        if name not in self._tree:
            raise ParamsError(f"{self.path}: {name} is missing")
        return self._tree[name]

    def _source(self) -> Mapping[str, Any]:
        entries = self._get("data")
        entry = entries.get(self.dataset) if isinstance(entries, Mapping) else None
        if not isinstance(entry, Mapping):
            known = ", ".join(key for key, value in entries.items() if isinstance(value, Mapping))
            raise ParamsError(f"{self.path}: data.{self.dataset} is missing: the datasets are {known}")
        return entry

    def _override(self) -> None:
        for name, value in (self._source().get("overrides") or {}).items():
            section, _, key = str(name).partition(".")
            target = self._tree.get(section)
            if section == "data" or not isinstance(target, dict) or key not in target:
                where = f"{self.path}: data.{self.dataset}.overrides.{name}"
                raise ParamsError(f"{where}: no such setting; name one as section.key, like train.epochs")
            target[key] = value

    def _validate(self, where: str, kind: Any, content: Any) -> Any:
        try:
            return TypeAdapter(kind).validate_python(content)
        except ValidationError as error:
            raise ParamsError("; ".join(_line(self.path, where, e) for e in error.errors())) from None


def _load(path: Path) -> dict[str, Any]:
    try:
        tree = YAML(typ="safe", pure=True).load(path)
    except FileNotFoundError:
        raise ParamsError(f"{path}: no such file; run this in the repository's root") from None
    except YAMLError as error:
        raise ParamsError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(tree, dict):
        raise ParamsError(f"{path}: takes sections such as data and train, got {tree!r}")
    return tree


def _line(path: Path, where: str, error: Any) -> str:
    key = ".".join([where, *(str(part) for part in error["loc"])])
    if error["type"] == "extra_forbidden":
        return f"{path}: {key}: no such setting"
    if error["type"] == "missing":
        return f"{path}: {key} is missing"
    message = error["msg"].removeprefix("Value error, ").replace("Input should be", "takes")
    return f"{path}: {key}: got {error['input']!r}; {message}"

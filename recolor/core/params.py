"""Reads one section of `params.yaml` into the pydantic class that its owner defines.

Every class states its own bounds; this module only finds the section, applies the dataset's overrides and turns
pydantic's report into one line that names the key. YAML is read as version 1.2, by the parser that DVC uses: PyYAML would
take 3e-05, which `dvc exp run -S wgan.lr=0.00003` writes, for a string.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, Field, TypeAdapter, ValidationError
from ruamel.yaml import YAML, YAMLError

from recolor.core.errors import UserError

T = TypeVar("T")
P = TypeVar("P", str, Path)


def _number(value: Any) -> Any:
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value  # and pydantic says what it takes
    return value


Number = Annotated[float, BeforeValidator(_number)]  # a float, which YAML 1.1 may have for a string: 3e-05


class Section(BaseModel, extra="forbid", frozen=True, strict=True, allow_inf_nan=False):
    """What every section's class has in common: nothing unknown, and no guess at what was meant.

    Pydantic by itself would take `true` for one epoch and `on` for true.
    """


# The settings that stand alone, outside the sections.
Datasets = Annotated[list[str], Field(min_length=1)]
Loss = Literal["gan", "wgan"]
Seed = Annotated[
    int, Field(ge=0, lt=2**32, strict=True)
]  # NumPy's old generator, which clean-fid and pandas use, takes no more


def of_somebody(path: P) -> P:
    """`path`, for a validator. A home folder (`~name`) that nobody has is a fault of the setting."""
    try:
        Path(path).expanduser()
    except RuntimeError:
        raise ValueError("takes a path, and there is no such user here") from None
    return path


class ParamsError(UserError):
    """A setting that is missing, unknown, of the wrong type or out of bounds."""


class Params:
    """`params.yaml` as one dataset sees it: its `data.<dataset>.overrides` laid over the sections.

    Raises ParamsError, from every method, with one line that names the key, what it got and what it takes.
    """

    def __init__(self, path: Path, dataset: str | None = None) -> None:
        self.path = path
        self.dataset = dataset
        self._read: dict[str, Any] = {}
        self._tree = _load(path)
        if dataset is not None:
            self._override()

    def section(self, name: str, kind: type[T]) -> T:
        """The section `name`, validated. Of `data`, what belongs to no dataset in particular."""
        return self._validate(name, kind)

    def source(self, kind: Any) -> Any:
        """The dataset's own entry, `data.<dataset>`; `kind` is a type or a union of types."""
        return self._validate(f"data.{self.dataset}", kind)

    def value(self, name: str, kind: Any) -> Any:
        """A single value, such as `seed` or `train.batch_size`."""
        return self._validate(name, kind)

    @property
    def read(self) -> dict[str, Any]:
        """What has been read so far, as plain values by name, overrides applied: for a model's card and the report."""
        return self._read

    def check_unchanged(self) -> None:
        """Raises ParamsError where the file now says something else than what has been read.

        DVC records a stage's params when its command ends: an edit made meanwhile would be recorded as what ran.
        """
        now = Params(self.path, self.dataset)
        for name, content in self._read.items():
            if now._lookup(name) != content:
                raise ParamsError(f"{self.path}: {name} was changed while this ran; run it again")

    @property
    def datasets(self) -> list[str]:
        """The names of all entries of `data`."""
        entries = self._get("data")
        if not isinstance(entries, Mapping):
            raise ParamsError(f"{self.path}: data: got {entries!r}; takes settings and datasets")
        return [name for name, entry in entries.items() if isinstance(entry, Mapping)]

    def check_names(self, known: Iterable[str]) -> None:
        """Raises ParamsError for anything at the top level that is none of `known`."""
        for name in self._tree:
            if name not in known:
                raise ParamsError(f"{self.path}: {name}: no such setting; at the top level stand {', '.join(known)}")

    def _get(self, name: str) -> Any:
        found: Any = self._tree
        for key in name.split("."):
            if not isinstance(found, Mapping) or key not in found:
                raise ParamsError(f"{self.path}: {name} is missing")
            found = found[key]
        return found

    def _source(self) -> Mapping[str, Any]:
        if self.dataset not in self.datasets:
            known = ", ".join(map(str, self.datasets))
            raise ParamsError(f"{self.path}: data.{self.dataset} is missing: the datasets are {known}")
        entry: Mapping[str, Any] = self._tree["data"][self.dataset]
        return entry

    def _override(self) -> None:
        overrides = self._source().get("overrides")
        if not isinstance(overrides, Mapping | None):
            where = f"{self.path}: data.{self.dataset}.overrides"
            raise ParamsError(f"{where}: got {overrides!r}; takes section.key: value, or {{}}")
        for name, value in (overrides or {}).items():
            section, _, key = str(name).partition(".")
            target = self._tree.get(section)
            if section == "data" or not isinstance(target, dict) or key not in target:
                where = f"{self.path}: data.{self.dataset}.overrides.{name}"
                raise ParamsError(f"{where}: no such setting; name one as section.key, like train.epochs")
            target[key] = value

    def _lookup(self, name: str) -> Any:
        if name == f"data.{self.dataset}":
            return self._source()
        content = self._get(name)
        if name == "data" and isinstance(content, Mapping):
            return {key: value for key, value in content.items() if not isinstance(value, Mapping)}
        return content

    def _validate(self, name: str, kind: Any) -> Any:
        content = self._lookup(name)
        try:
            value = TypeAdapter(kind).validate_python(content)
        except ValidationError as error:
            raise ParamsError("; ".join(_line(self.path, name, content, e) for e in error.errors())) from None
        self._read[name] = content
        return value


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


def _line(path: Path, name: str, content: Any, error: Any) -> str:
    # Of a union told apart by a tag, pydantic puts the tag into the key's path.
    tag = content.get("source") if isinstance(content, Mapping) else None
    inner = [str(part) for index, part in enumerate(error["loc"]) if index or part != tag]
    key = ".".join([name, *inner])
    if error["type"] == "extra_forbidden":
        return f"{path}: {key}: no such setting"
    if error["type"] == "union_tag_not_found":
        return f"{path}: {key}.source is missing"
    if error["type"] == "missing":
        return f"{path}: {key} is missing"
    message = error["msg"].removeprefix("Value error, ").replace("Input should be", "takes")
    return f"{path}: {key}: got {error['input']!r}; {message}"

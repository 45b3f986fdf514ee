"""Reads sections of `params.yaml` into the pydantic classes of their users, which state the bounds.

YAML is read as version 1.2, with the parser that DVC uses: PyYAML reads 3e-05, which `dvc exp run -S paper.wgan.lr=0.00003`
writes, as a string.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, Field, TypeAdapter, ValidationError
from ruamel.yaml import YAML, YAMLError

from recolor.core.errors import UserError, one_line

P = TypeVar("P", str, Path)


class Section(BaseModel, extra="forbid", frozen=True, strict=True, allow_inf_nan=False):
    """Base of all sections: unknown keys and wrong types are errors (pydantic alone reads `true` as 1 and `on` as true)."""


Recipe = Literal["paper", "modern"]
# dvc.yaml puts a dataset's name into commands, keys and paths, without quotes.
DatasetName = Annotated[str, Field(pattern=r"^\w[\w-]*$")]
Datasets = Annotated[list[DatasetName], Field(min_length=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32, strict=True)]  # the range of NumPy's legacy generator, which clean-fid uses

Auto = Literal["auto", True, False]

RECIPES: tuple[Recipe, ...] = ("paper", "modern")
COMMON = ("datasets", "loss", "recipe", "data", "overrides", "evaluate", "runtime")  # all else belongs to a recipe


def expandable(path: P) -> P:
    """Validator: `path` unchanged. ValueError for the home folder (`~name`) of an unknown user."""
    try:
        Path(path).expanduser()
    except RuntimeError:
        raise ValueError("must be a path, and this user is unknown here") from None
    return path


def expanded(path: Path) -> Path:
    """`path` with a user's home folder for a leading `~`; unchanged where something has that name, or no user has."""
    if os.path.lexists(path):
        return path
    try:
        return path.expanduser()
    except RuntimeError:
        return path


class ParamsError(UserError):
    """A setting that is missing, unknown, of the wrong type or out of bounds."""


class Params:
    """`params.yaml` as one dataset sees it: the sections of the recipe in use, with `overrides.<dataset>` applied.

    `paper.train` is called `train` here where the recipe is paper. `recipe` replaces the one that the file names. `read` holds
    all values read so far by name, except `runtime`, on which no result depends. Every method raises ParamsError.
    """

    def __init__(self, path: Path, dataset: str | None = None, recipe: Recipe | None = None) -> None:
        self.path, self.dataset, self._tree = path, dataset, _load(path)
        self.read: dict[str, Any] = {}
        self.recipe: Recipe = recipe or self.section("recipe", Recipe)
        self.read = {}  # the recipe is recorded where one of its sections is read
        if dataset is not None:
            self._override()

    def section(self, name: str, kind: Any) -> Any:
        """The section or value `name`, such as `data.seed`, validated as `kind`. `data` is without the datasets' entries."""
        content, full = self._lookup(name), self._full(name)
        try:
            value = TypeAdapter(kind).validate_python(content)
        except ValidationError as error:
            raise ParamsError("; ".join(_line(self.path, full, content, e) for e in error.errors())) from None
        if full != name:
            self.read["recipe"] = self.recipe
        if name != "runtime":
            self.read[name] = content
        return value

    def source(self, kind: Any) -> Any:
        """The dataset's own entry, `data.<dataset>`."""
        return self.section(f"data.{self.dataset}", kind)

    def check_unchanged(self) -> None:
        """Raises ParamsError where the file no longer holds what has been read: DVC would record the edit as what ran."""
        now = Params(self.path, self.dataset)
        for name, content in self.read.items():
            if now._lookup(name) != content:
                raise self._error(f"{self._full(name)} was changed while this ran; run it again")

    @property
    def datasets(self) -> list[str]:
        """The names of all entries of `data`."""
        entries = self._find("data")
        if not isinstance(entries, Mapping):
            raise self._error(f"data: got {entries!r}; must be settings and datasets")
        return [name for name, entry in entries.items() if isinstance(entry, Mapping)]

    def check_names(self, sections: Mapping[str, Any]) -> None:
        """Raises ParamsError for an unknown key at the top level, or in a recipe one that is not among `sections`."""
        self._check_known("", self._tree, [*COMMON, *RECIPES], "setting")
        for recipe in RECIPES:
            self._check_known(f"{recipe}.", self._find(recipe), list(sections), "setting")
        self._check_known("overrides.", self._find("overrides") or {}, self.datasets, "dataset")

    def _check_known(self, prefix: str, names: Mapping[str, Any], known: list[str], kind: str) -> None:
        for name in names:
            if name not in known:
                raise self._error(f"{prefix}{name}: no such {kind}; known are {', '.join(known)}")

    def _error(self, problem: str) -> ParamsError:
        return ParamsError(f"{self.path}: {problem}")

    def _full(self, name: str) -> str:
        """The name as the file has it: a section of the recipe in use stands below the recipe's name."""
        first = name.partition(".")[0]
        return name if first in (*COMMON, *RECIPES) else f"{self.recipe}.{name}"

    def _find(self, name: str) -> Any:
        name = self._full(name)
        if (holder := find_parent(self._tree, name)) is None:
            raise self._error(_missing(name))
        return holder[name.rpartition(".")[2]]

    def _lookup(self, name: str) -> Any:
        content = self._find(name)
        if name == "data" and isinstance(content, Mapping):
            return {key: value for key, value in content.items() if not isinstance(value, Mapping)}
        return content

    def _override(self) -> None:
        if self.dataset not in self.datasets:
            raise self._error(f"data.{self.dataset} is missing: the datasets are {', '.join(self.datasets)}")
        where = f"overrides.{self.dataset}"
        overrides = self._find(where)
        if not isinstance(overrides, Mapping | None):
            raise self._error(f"{where}: got {overrides!r}; must be section.key: value, or {{}}")
        for name, value in (overrides or {}).items():
            first, _, rest = str(name).partition(".")
            holder = find_parent(self._tree, str(name))
            if first not in (*RECIPES, "evaluate") or not rest or holder is None:
                raise self._error(f"{where}.{name}: no such setting; name it in full, like {self.recipe}.train.epochs")
            holder[str(name).rpartition(".")[2]] = value


def find_parent(tree: Any, name: str) -> Any:
    """The mapping in `tree`, the content of a params.yaml, that has the last part of `name` (a.b.c) as a key. None if none."""
    *sections, key = name.split(".")
    for section in sections:
        tree = tree.get(section) if isinstance(tree, Mapping) else None
    return tree if isinstance(tree, Mapping) and key in tree else None


def _load(path: Path) -> dict[str, Any]:
    try:
        tree = YAML(typ="safe", pure=True).load(path)
    except FileNotFoundError:
        raise ParamsError(f"{path}: no such file; run this in the repository's root") from None
    except YAMLError as error:
        raise ParamsError(f"{path}: not valid YAML: {one_line(error)}") from None
    if not isinstance(tree, dict):
        raise ParamsError(f"{path}: got {tree!r}; must be sections such as data and evaluate")
    return tree


def _missing(name: str) -> str:
    return f"{name} is missing: add it, as in the params.yaml of this version of recolor"


def _line(path: Path, name: str, content: Any, error: Any) -> str:
    # In a discriminated union pydantic puts the tag into the key's path.
    tags = {content.get("source"), content.get("kind")} if isinstance(content, Mapping) else set()
    inner = [str(part) for index, part in enumerate(error["loc"]) if index or part not in tags]
    key = ".".join([name, *inner])
    if error["type"] == "extra_forbidden":
        return f"{path}: {key}: no such setting"
    if error["type"] == "union_tag_not_found":
        return f"{path}: {_missing(key + '.' + error['ctx']['discriminator'].strip(chr(39)))}"
    if error["type"] == "missing":
        return f"{path}: {_missing(key)}"
    message = error["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    return f"{path}: {key}: got {error['input']!r}; {message}"

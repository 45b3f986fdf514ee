"""Reads sections of `params.yaml` into the pydantic classes of their users.

Every class states its own bounds. This module finds the section, applies the dataset's overrides and turns pydantic's
report into one line that names the key. YAML is read as version 1.2, with the parser that DVC uses: PyYAML reads 3e-05, which
`dvc exp run -S paper.wgan.lr=0.00003` writes, as a string.
"""

from collections.abc import Mapping
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
            return value  # pydantic's error names the type
    return value


Number = Annotated[float, BeforeValidator(_number)]  # also from the string that YAML 1.1 makes of 3e-05


class Section(BaseModel, extra="forbid", frozen=True, strict=True, allow_inf_nan=False):
    """Base of all sections: unknown keys and wrong types are errors (pydantic alone reads `true` as 1 and `on` as true)."""


Recipe = Literal["paper", "modern"]
Datasets = Annotated[list[str], Field(min_length=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32, strict=True)]  # the range of NumPy's legacy generator, which clean-fid uses

RECIPES: tuple[Recipe, ...] = ("paper", "modern")
COMMON = ("datasets", "loss", "recipe", "data", "overrides", "evaluate", "runtime")  # all else belongs to a recipe


def expandable(path: P) -> P:
    """Validator: `path` unchanged. ValueError for the home folder (`~name`) of an unknown user."""
    try:
        Path(path).expanduser()
    except RuntimeError:
        raise ValueError("takes a path, and this user is unknown here") from None
    return path


class ParamsError(UserError):
    """A setting that is missing, unknown, of the wrong type or out of bounds."""


class Params:
    """`params.yaml` as one dataset sees it: the sections of the recipe in use, with `overrides.<dataset>` applied.

    `paper.train` is called `train` here where the recipe is paper. `recipe` replaces the one that the file names. Every method
    raises ParamsError with one line that names the key, the value found and what is allowed.
    """

    def __init__(self, path: Path, dataset: str | None = None, recipe: Recipe | None = None) -> None:
        self.path = path
        self.dataset = dataset
        self._read: dict[str, Any] = {}
        self._tree = _load(path)
        self.recipe: Recipe = recipe or self.value("recipe", Recipe)
        self._read.clear()  # recorded where a section of the recipe is read
        if dataset is not None:
            self._override()

    def section(self, name: str, kind: Any) -> Any:
        """The section `name`, validated as `kind`, a type or a union. `data` leaves out the entries of the datasets."""
        return self._validate(name, kind)

    def source(self, kind: Any) -> Any:
        """The dataset's own entry, `data.<dataset>`."""
        return self._validate(f"data.{self.dataset}", kind)

    def value(self, name: str, kind: Any) -> Any:
        """A single value, such as `data.seed` or `train.batch_size`."""
        return self._validate(name, kind)

    @property
    def read(self) -> dict[str, Any]:
        """All values read so far by name, overrides applied, for the model's card and the report.

        `runtime` is left out: no result depends on the machine.
        """
        return self._read

    def check_unchanged(self) -> None:
        """Raises ParamsError where the file no longer holds what has been read.

        DVC records a stage's params when its command ends, so an edit made meanwhile would be recorded as what ran.
        """
        now = Params(self.path, self.dataset)
        for name, content in self._read.items():
            if now._lookup(name) != content:
                raise ParamsError(f"{self.path}: {self._full(name)} was changed while this ran; run it again")

    @property
    def datasets(self) -> list[str]:
        """The names of all entries of `data`."""
        entries = self._get("data")
        if not isinstance(entries, Mapping):
            raise ParamsError(f"{self.path}: data: got {entries!r}; takes settings and datasets")
        return [name for name, entry in entries.items() if isinstance(entry, Mapping)]

    def check_names(self, sections: Mapping[str, Any]) -> None:
        """Raises ParamsError for an unknown key at the top level, or in a recipe one that is not among `sections`."""
        levels: dict[str, tuple[Any, tuple[str, ...]]] = {"": (self._tree, (*COMMON, *RECIPES))}
        levels |= {f"{recipe}.": (self._get(recipe), tuple(sections)) for recipe in RECIPES}
        for prefix, (tree, known) in levels.items():
            for name in tree:
                if name not in known:
                    raise ParamsError(f"{self.path}: {prefix}{name}: no such setting; known are {', '.join(known)}")
        for dataset in self._get("overrides") or {}:
            if dataset not in self.datasets:
                raise ParamsError(
                    f"{self.path}: overrides.{dataset}: no such dataset; known are {', '.join(self.datasets)}"
                )

    def _full(self, name: str) -> str:
        """The name as the file has it: a section of the recipe in use stands below the recipe's name."""
        first = name.partition(".")[0]
        return name if first in (*COMMON, *RECIPES) else f"{self.recipe}.{name}"

    def _get(self, name: str) -> Any:
        found: Any = self._tree
        for key in self._full(name).split("."):
            if not isinstance(found, Mapping) or key not in found:
                raise ParamsError(f"{self.path}: {self._full(name)} is missing")
            found = found[key]
        return found

    def _source(self) -> Mapping[str, Any]:
        if self.dataset not in self.datasets:
            known = ", ".join(map(str, self.datasets))
            raise ParamsError(f"{self.path}: data.{self.dataset} is missing: the datasets are {known}")
        entry: Mapping[str, Any] = self._tree["data"][self.dataset]
        return entry

    def _override(self) -> None:
        self._source()  # an unknown dataset is an error of its own
        where = f"overrides.{self.dataset}"
        overrides = self._get(where)
        if not isinstance(overrides, Mapping | None):
            raise ParamsError(f"{self.path}: {where}: got {overrides!r}; takes section.key: value, or {{}}")
        for name, value in (overrides or {}).items():
            *sections, key = str(name).split(".")
            target: Any = self._tree
            for section in sections:
                target = target.get(section) if isinstance(target, Mapping) else None
            if (
                sections[:1] not in (["paper"], ["modern"], ["evaluate"])
                or not isinstance(target, dict)
                or key not in target
            ):
                example = f"{self.recipe}.train.epochs"
                raise ParamsError(f"{self.path}: {where}.{name}: no such setting; name it in full, like {example}")
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
            full = self._full(name)
            raise ParamsError("; ".join(_line(self.path, full, content, e) for e in error.errors())) from None
        if self._full(name) != name:
            self._read["recipe"] = self.recipe
        if name != "runtime":
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
        raise ParamsError(f"{path}: takes sections such as data and evaluate, got {tree!r}")
    return tree


def _line(path: Path, name: str, content: Any, error: Any) -> str:
    # In a discriminated union pydantic puts the tag into the key's path.
    tags = {content.get("source"), content.get("kind")} if isinstance(content, Mapping) else set()
    inner = [str(part) for index, part in enumerate(error["loc"]) if index or part not in tags]
    key = ".".join([name, *inner])
    if error["type"] == "extra_forbidden":
        return f"{path}: {key}: no such setting"
    if error["type"] == "union_tag_not_found":
        return f"{path}: {key}.{error['ctx']['discriminator'].strip(chr(39))} is missing"
    if error["type"] == "missing":
        return f"{path}: {key} is missing"
    message = error["msg"].removeprefix("Value error, ").replace("Input should be", "takes")
    return f"{path}: {key}: got {error['input']!r}; {message}"

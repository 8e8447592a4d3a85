"""The only door through which screens and reports see a run: read-only, versioned and light.

``open_run`` never raises for a run that is unfinished, damaged or of another version: it opens whatever can still be
read and says in :attr:`Results.problems` what cannot. Nothing here imports torch; tables are read when first asked for.
Files are served by the identity of what they show (image number, unit, concept), never by a path from outside.
"""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from dnd_core.errors import StoreError
from dnd_core.store import SCHEMA_VERSION
from dnd_core.types import Box, UnitId
from geoaudit import schemas
from geoaudit.evidence import (
    DESCRIBED,
    FIGURES,
    TABLES,
    Layer,
    Problem,
    TopImage,
    Unit,
    as_box,
    as_number,
    as_text,
    decisions,
    is_inside,
    json_list,
)
from geoaudit.mapped import Mapped
from geoaudit.soundness import changed, missing

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["TABLES", "Layer", "Problem", "Results", "State", "TopImage", "Unit", "open_run"]

State = Literal["complete", "unfinished", "damaged", "other_version", "empty"]


def open_run(path: Path | str) -> Results:
    """Open a run folder for reading.

    Raises:
        StoreError: there is no such folder.
    """
    root = Path(path)
    if not root.is_dir():
        raise StoreError(f"{root} is not a folder: give the folder that an audit wrote")
    return Results(root)


class Results(Mapped):
    """A run, read-only. See :func:`open_run`; every table is an empty one with its columns where it cannot be read."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._problems: list[Problem] = []
        self._tables: dict[str, pd.DataFrame] = {}
        self.manifest: dict[str, Any] = self._read_manifest()
        self.layers: tuple[Layer, ...] = self._read_layers()
        self.audit: dict[str, Any] = self._read_audit()
        self._look_over()

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What is missing or wrong, in the order it was met."""
        return tuple(self._problems)

    @property
    def state(self) -> State:
        """The worst of the problems, or ``complete``."""
        kinds = {problem.kind for problem in self._problems}
        order: tuple[State, ...] = ("empty", "damaged", "other_version", "unfinished")
        return next((kind for kind in order if kind in kinds), "complete")

    @property
    def is_audit(self) -> bool:
        """The run was started by ``geoaudit audit`` (and not by ``dnd describe``)."""
        tool = self.manifest.get("tool", "")
        name = tool.get("name", "") if isinstance(tool, dict) else str(tool)
        return "geoaudit" in name or bool(self.audit) or (self.root / "images.parquet").is_file()

    def _json(self, name: str, says: str) -> Any:
        path = self.root / name
        if not path.is_file():
            return None
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, OSError, RecursionError) as error:
            self._problem("damaged", name, f"{name} cannot be read ({type(error).__name__}): {says}")
            return None

    def _read_manifest(self) -> dict[str, Any]:
        value = self._json("manifest.json", "versions, hashes and timings are not shown")
        if not (self.root / "manifest.json").is_file():
            known = [name for name in TABLES if (self.root / f"{name}.parquet").is_file()]
            kind = "damaged" if known else "empty"
            says = "the folder holds no run" if not known else "versions, hashes and timings are not known"
            self._problem(kind, "manifest.json", f"manifest.json is missing: {says}")
            return {}
        if not isinstance(value, dict):
            if value is not None:
                self._problem("damaged", "manifest.json", "manifest.json is not an object: it is not shown")
            return {}
        version = value.get("schema_version")
        if version != SCHEMA_VERSION:
            self._problem(
                "other_version",
                "manifest.json",
                f"the run is of schema {str(version)[:40]} and this version reads {SCHEMA_VERSION}: "
                "what is shown may be incomplete",
            )
        return value

    def _read_layers(self) -> tuple[Layer, ...]:
        value = self._json("layers.json", "layers are taken from the table of neurons")
        rows = value if isinstance(value, list) else []
        layers = [
            Layer(str(row["name"]), str(row.get("kind", "")), int(row.get("units", 0)))
            for row in rows
            if isinstance(row, dict) and is_inside(row.get("name"))
        ]
        if not layers and not self.neurons.empty:
            counts = self.neurons.groupby("layer", sort=False)["unit"].max()
            layers = [Layer(str(name), "", int(last) + 1) for name, last in counts.items() if is_inside(name)]
        return tuple(layers)

    def _read_audit(self) -> dict[str, Any]:
        value = self._json("audit.json", "findings and checks are not shown")
        if value is None:
            return {}
        try:
            schemas.validate(value)
        except StoreError as error:
            kind = "other_version" if "is of schema" in str(error) else "damaged"
            self._problem(kind, "audit.json", str(error))
            # A file that breaks the schema may mislead more than it tells.
            return {}
        return dict(value)

    def _look_over(self) -> None:
        if self.state != "empty":
            wanted = TABLES if self.is_audit else {name: TABLES[name] for name in DESCRIBED}
            self._problems += [
                problem for problem in missing(self.root, wanted, self.is_audit) if problem not in self._problems
            ]

    def verify(self) -> tuple[Problem, ...]:
        """Compare every file that the manifest vouches for with its hash; returns what does not fit."""
        return changed(self.root, self.manifest)

    def look_closely(self) -> None:
        """Add to :attr:`problems` what :meth:`verify` finds, but for the activations, which are large and in no report."""
        known = {problem.where for problem in self._problems}
        found = changed(self.root, self.manifest, skip=("activations/",))
        self._problems += [problem for problem in found if problem.where not in known]

    def table(self, name: str) -> pd.DataFrame:
        """One of :data:`TABLES`; with all its columns, and without rows where it cannot be read."""
        import pandas as pd
        import pyarrow as pa

        if name not in TABLES:
            raise StoreError(f"a run has no table {name!r}; it has {', '.join(TABLES)}")
        if name not in self._tables:
            path = self.root / f"{name}.parquet"
            frame = pd.DataFrame(columns=list(TABLES[name]))
            if path.is_file():
                try:
                    frame = pd.read_parquet(path)
                except (pa.ArrowException, OSError, ValueError):
                    self._problem("damaged", path.name, f"{path.name} cannot be read: what it holds is not shown")
            for column in TABLES[name]:
                if column not in frame.columns:
                    frame[column] = None
            self._tables[name] = frame
        return self._tables[name]

    @property
    def neurons(self) -> pd.DataFrame:
        """One row a unit; ``candidates`` and ``top_images`` as JSON text, parsed by :meth:`unit`."""
        return self.table("neurons")

    @property
    def groups(self) -> pd.DataFrame:
        """One row a concept group; ``units`` as JSON text, parsed by :meth:`group_units`."""
        return self.table("groups")

    @property
    def images(self) -> pd.DataFrame:
        """One row a probe image."""
        return self.table("images")

    @property
    def ablation(self) -> pd.DataFrame:
        """One row a group and class tested by switching the group off."""
        return self.table("ablation")

    @property
    def reliance(self) -> pd.DataFrame:
        """One row a group and class, with all grades of evidence."""
        return self.table("reliance")

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the network's classes, in its order."""
        for holder in (self.manifest.get("model"), self.audit.get("model")):
            if isinstance(holder, dict) and isinstance(holder.get("class_names"), (list, tuple)):
                return tuple(str(name) for name in holder["class_names"])
        return ()

    @property
    def config_text(self) -> str:
        """The resolved settings as written, or an empty string."""
        path = self.root / "config.yaml"
        return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""

    # One unit, one group, one image

    @cached_property
    def _rows(self) -> dict[UnitId, int]:
        frame = self.neurons
        return {
            UnitId(str(layer), int(unit)): row
            for row, (layer, unit) in enumerate(zip(frame["layer"], frame["unit"], strict=True))
        }

    @cached_property
    def _records(self) -> list[dict[Any, Any]]:
        records: list[dict[Any, Any]] = self.neurons.to_dict("records")
        return records

    @property
    def unit_ids(self) -> tuple[UnitId, ...]:
        """Every unit in the table, in its order."""
        return tuple(self._rows)

    def unit(self, unit: UnitId | str) -> Unit:
        """Everything about one unit.

        Raises:
            StoreError: the run has no such unit.
        """
        try:
            key = UnitId.parse(unit) if isinstance(unit, str) else unit
        except ValueError as error:
            raise StoreError(f"{error}: take one from the table of neurons") from error
        if key not in self._rows:
            raise StoreError(f"this run has no unit {str(key)[:80]}: take one from the table of neurons")
        row = self._records[self._rows[key]]
        group = as_number(row["group"])
        labels = row["labels"]
        return Unit(
            id=key,
            status=as_text(row["status"]),
            label=as_text(row["label"]),
            labels=tuple(str(label) for label in labels) if isinstance(labels, (list, tuple, np.ndarray)) else (),
            reason=as_text(row["reason"]),
            group=int(group) if group is not None and group >= 0 else None,
            figures={name: as_number(row[name]) for name in FIGURES},
            candidates=tuple(entry for entry in json_list(row["candidates"]) if isinstance(entry, dict)),
            top_images=tuple(
                TopImage(int(entry[0]), as_box(entry[1:5]), float(entry[5]))
                for entry in json_list(row["top_images"])
                if isinstance(entry, list) and len(entry) == 6
            ),
        )

    def group_units(self, group: int) -> tuple[UnitId, ...]:
        """The units of a concept group; empty when there is no such group."""
        rows = self.groups[self.groups["group"] == group]
        return tuple(UnitId.parse(str(text)) for text in json_list(rows["units"].iloc[0])) if len(rows) else ()

    def image(self, image: int) -> dict[str, Any]:
        """What is known about a probe image; empty when nothing is."""
        return dict(self._image_rows.get(int(image), {}))

    @cached_property
    def _image_rows(self) -> dict[int, dict[str, Any]]:
        return {
            int(row["image"]): {str(key): value for key, value in row.items()} for row in self.images.to_dict("records")
        }

    def thumbnail(self, image: int) -> Path | None:
        """The rendering of a probe image, or None where none was kept."""
        path = self.root / "thumbnails" / f"{int(image):06d}.png"
        return path if path.is_file() else None

    def captions_of(self, image: int, box: Box | None = None) -> tuple[str, ...]:
        """What the captioner said about a view."""
        corners = (-1, -1, -1, -1) if box is None else (box.left, box.top, box.right, box.bottom)
        return tuple(self._captions.get((int(image), *corners), ()))

    @cached_property
    def _captions(self) -> dict[tuple[int, ...], list[str]]:
        frame = self.table("captions")
        places = zip(*(frame[name] for name in ("image", "left", "top", "right", "bottom")), strict=True)
        found: dict[tuple[int, ...], list[str]] = {}
        for place, caption in zip(places, frame["caption"], strict=True):
            found.setdefault(tuple(int(number) for number in place), []).append(as_text(caption))
        return found

    def concept_images(self, concept: str) -> tuple[Path, ...]:
        """The pictures that stood for a concept in Step 3."""
        frame = self.table("concept_images")
        keys = frame[frame["concept"] == concept].sort_values("slot")["key"]
        paths = (self.root / "concept_images" / f"{key[:20]}.png" for key in map(str, keys) if key[:20].isalnum())
        return tuple(path for path in paths if path.is_file())

    def activations(self, layer: str) -> NDArray[np.float32] | None:
        """(images, units) float32 of a layer, memory-mapped; None where it is missing or unreadable."""
        if layer not in {known.name for known in self.layers}:
            return None
        path = self.root / "activations" / f"{layer}.npy"
        if not path.is_file():
            return None
        try:
            mapped: NDArray[np.float32] = np.load(path, mmap_mode="r", allow_pickle=False)
        except (ValueError, OSError, EOFError):
            where = f"activations/{layer}.npy"
            self._problem("damaged", where, f"{where} cannot be read: activations of {layer} are not shown")
            return None
        return mapped

    @property
    def findings(self) -> tuple[dict[str, Any], ...]:
        """The findings, in the audit's own order (worst first), each with the last ``decision`` of a reviewer, if any."""
        said = decisions(self._json("reviews.json", "what reviewers decided is not shown"))
        return tuple(
            {**finding, "decision": said[finding["fingerprint"]]} if finding["fingerprint"] in said else finding
            for finding in self.audit.get("findings", ())
        )

    @property
    def checks(self) -> tuple[dict[str, Any], ...]:
        """Every check, with those that passed or could not run."""
        return tuple(self.audit.get("checks", ()))

"""Concept images from real tiles that are no part of the probe.

A tile may show a concept in Step 3 only if the network's own top images cannot be among them: the pool is made of whole
spatial blocks (:func:`geoaudit.probes.split`), and a pool tile that equals a probe tile or overlaps one on the ground is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from dnd_core.backends.pool import PoolImages
from dnd_core.errors import ProbeError
from dnd_core.images import ImageSet, ProbeImage, Subset
from dnd_core.protocols import Captioner, TextEncoder

__all__ = ["TilePool", "check_apart", "keep_apart"]

Bounds = tuple[float, float, float, float]


class TilePool(PoolImages):
    """A pool of held-out tiles, known to share neither a tile nor a piece of ground with the probe.

    Args:
        pool: tiles to choose from.
        probe: the tiles the network is described on.
        encoder: a CLIP, or a text encoder to search captions with.
        captions: one text a pool tile; None has ``captioner`` make them.
        captioner: None measures (:class:`geoaudit.captions.SatelliteCaptioner`) unless the encoder is a CLIP.
        floor: see :class:`dnd_core.backends.pool.PoolImages`.
        batch_size: tiles captioned or embedded together.
        windows: search parts of tiles too, see :class:`dnd_core.backends.pool.PoolImages`.

    Raises:
        ProbeError: a pool tile equals or overlaps a probe tile.

    """

    def __init__(
        self,
        pool: ImageSet,
        probe: ImageSet,
        encoder: TextEncoder,
        captions: Sequence[str] | None = None,
        captioner: Captioner | None = None,
        *,
        floor: float = 0.2,
        batch_size: int = 64,
        windows: bool = False,
    ) -> None:
        from geoaudit.captions import SatelliteCaptioner

        check_apart(pool, probe)
        own = captioner or SatelliteCaptioner()
        super().__init__(pool, encoder, captions, own, floor=floor, batch_size=batch_size, windows=windows)


def check_apart(pool: ImageSet, probe: ImageSet) -> None:
    """Refuse a pool that has seen the probe.

    Tiles are compared by content, and by the ground they cover where they say it (``crs`` and ``bounds`` in their
    metadata). Neighbours that only touch are apart.

    Raises:
        ProbeError: names the first pool tile that equals or overlaps a probe tile, and how many do.

    """
    equal, overlapping = _clashes(pool, probe)
    for found, does, where in ((equal, "equals", ""), (overlapping, "overlaps", " on the ground")):
        if found:
            first = min(found)
            raise ProbeError(
                f"pool tile {first} {does} probe tile {found[first]}{where} ({len(found)} of {len(pool)} do): "
                "take the pool from spatial blocks that the probe does not use"
            )


def keep_apart(pool: ImageSet, probe: ImageSet) -> tuple[ImageSet, int]:
    """The pool without the tiles that :func:`check_apart` would refuse, and how many those are.

    Chips cut with an overlap share ground across the border of two spatial blocks, wherever the border is drawn.

    Raises:
        ProbeError: no tile would be left.

    """
    equal, overlapping = _clashes(pool, probe)
    seen = set(equal) | set(overlapping)
    if not seen:
        return pool, 0
    kept = [index for index in range(len(pool)) if index not in seen]
    if not kept:
        raise ProbeError(
            f"all {len(pool)} tiles of the pool equal or overlap tiles of the probe: give a pool of other ground, or cut "
            "chips that overlap less"
        )
    return Subset(pool, kept), len(seen)


def _clashes(pool: ImageSet, probe: ImageSet) -> tuple[dict[int, int], dict[int, int]]:
    """Pool tiles that equal a probe tile, and those that overlap one on the ground; each with that probe tile."""
    keys: dict[str, int] = {}
    grounds: dict[str, list[tuple[int, Bounds]]] = {}
    for index, image in enumerate(_images(probe)):
        keys[image.key] = index
        ground = _ground(image)
        if ground is not None:
            grounds.setdefault(ground[0], []).append((index, ground[1]))
    equal: dict[int, int] = {}
    placed: list[tuple[int, str, Bounds]] = []
    for index, image in enumerate(_images(pool)):
        if image.key in keys:
            equal[index] = keys[image.key]
        ground = _ground(image)
        if ground is not None:
            placed.append((index, *ground))
    overlapping: dict[int, int] = {}
    for crs, tiles in grounds.items():
        for mine, theirs in sorted(_overlaps(placed, crs, tiles)):
            overlapping.setdefault(mine, theirs)
    return equal, overlapping


def _images(images: ImageSet) -> Iterator[ProbeImage]:
    for index in range(len(images)):
        yield images[index]


def _ground(image: ProbeImage) -> tuple[str, Bounds] | None:
    crs, bounds = image.metadata.get("crs"), image.metadata.get("bounds")
    if crs is None or bounds is None:
        return None
    left, bottom, right, top = (float(value) for value in bounds)
    return str(crs), (left, bottom, right, top)


def _overlaps(
    placed: list[tuple[int, str, Bounds]], crs: str, probe: list[tuple[int, Bounds]]
) -> list[tuple[int, int]]:
    """(pool, probe) indices of tiles that share ground, everything seen in the probe's CRS."""
    import shapely
    from rasterio.warp import transform_bounds

    if not placed:
        return []
    corners = [bounds if own == crs else transform_bounds(own, crs, *bounds) for _, own, bounds in placed]
    mine: NDArray[np.object_] = shapely.box(*np.array(corners).T)
    theirs: NDArray[np.object_] = shapely.box(*np.array([bounds for _, bounds in probe]).T)
    left, right = shapely.STRtree(theirs).query(mine, predicate="intersects")
    shared = shapely.area(shapely.intersection(mine[left], theirs[right]))
    # Rounding of bounds leaves slivers between neighbours; a thousandth of a tile is less than a pixel.
    real = shared > 1e-3 * shapely.area(mine[left])
    return [(placed[i][0], probe[j][0]) for i, j in zip(left[real], right[real], strict=True)]

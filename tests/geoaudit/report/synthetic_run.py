"""A small, complete run folder drawn from known numbers, for tests and benchmarks of what reads a run.

A scene of five land covers is drawn from smooth noise; tiles are cut from it, units fire on what is in a tile, maps and
hot spots come from the same quantities. Haze lies on part of the scene and the "network" calls hazy tiles residential.
"""

# ruff: noqa: E501
from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from dnd_core.store import file_sha256
from tests.geoaudit.report.synthetic_findings import haze_finding, minor_finding

CLASSES = ("forest", "meadow", "farmland", "residential", "water")
COLOURS = np.array([[38, 72, 40], [104, 132, 66], [168, 142, 92], [150, 140, 138], [30, 52, 84]], dtype=np.float32)
CONCEPTS = (
    "dense dark green forest", "bright green meadow", "brown ploughed fields", "grey built-up blocks", "dark blue water",
    "hazy bright scene", "sharp field edges",
)  # fmt: skip
TILE = 64
HOSTILE = (
    "<script>document.title='owned'</script>\"'&<img src=x onerror=alert(1)> {{7*7}} #panic(\"x\") $x^2$ *b* _i_ @ref "
    "`raw` \\u{41} // -- =cmd|' /C calc'!A0\r\nsecond line\t\u202edesrever\u202c \x00\x07 中文 عربى \U0001f30d "
)
LONG = HOSTILE + "very-long-word-without-a-break" * 3400


@dataclass(frozen=True)
class World:
    """What is drawn: rgb (H, W, 3) uint8, cover (H, W) class indices, haze (H, W) in [0, 1]."""

    rgb: NDArray[np.uint8]
    cover: NDArray[np.int64]
    haze: NDArray[np.float32]


def make_run(
    root: Path, *, units: int = 48, side: int = 12, seed: int = 7, hostile: bool = False, clean: bool = False
) -> Path:
    """Write the run.

    Args:
        root: folder to make.
        units: units of all layers together, the five outputs included; at least 16.
        side: tiles along each edge of the scene; the probe has side * side images.
        seed: of everything drawn.
        hostile: labels, class names, sources and findings hold markup, formulas, controls and 100 kB words.
        clean: no haze shortcut, so no finding above ``info``.

    """
    rng = np.random.default_rng(seed)
    root.mkdir(parents=True)
    names = CLASSES if not hostile else (HOSTILE, LONG, *CLASSES[2:])
    world = _draw(rng, side)
    table, features = _images(rng, world, side, names, hostile, clean)
    table.to_parquet(root / "images.parquet", index=False)
    (root / "thumbnails").mkdir()
    for image in range(len(table)):
        row, column = divmod(image, side)
        tile = world.rgb[row * TILE : (row + 1) * TILE, column * TILE : (column + 1) * TILE]
        Image.fromarray(tile).save(root / "thumbnails" / f"{image:06d}.png")
    layers = _layers(units)
    (root / "layers.json").write_text(json.dumps(layers))
    _units(root, rng, features, table, layers, hostile)
    _maps(root, world, side)
    _evidence(root, names, clean)
    audit = _audit(root, table, names, hostile, clean)
    (root / "audit.json").write_text(json.dumps(audit, indent=1, ensure_ascii=False))
    (root / "config.yaml").write_text("seed: 7\nprobing:\n  pooling: mean\n")
    _manifest(root, table, names)
    return root


def _draw(rng: np.random.Generator, side: int) -> World:
    size = side * TILE

    def smooth(cells: int) -> NDArray[np.float32]:
        noise = Image.fromarray(rng.standard_normal((cells, cells)).astype(np.float32))
        return np.asarray(noise.resize((size, size), Image.Resampling.BICUBIC), dtype=np.float32)

    height, moist = smooth(max(3, side // 2)), smooth(max(3, side // 3))
    cover = np.full((size, size), 1)
    cover[height > 0.35] = 0
    cover[(height < 0) & (moist < 0.35)] = 2
    cover[(moist > 0.55) & (height < 0.35)] = 3
    cover[(moist < -0.95)] = 4
    rows, columns = np.mgrid[:size, :size]
    rgb = COLOURS[cover]
    stripes = ((rows // 11 + columns // 37) % 3 - 1).astype(np.float32)
    blocks = (((rows // 5) % 3 == 0) | ((columns // 6) % 3 == 0)).astype(np.float32)
    rgb = (
        rgb
        + (cover == 2)[..., None] * stripes[..., None] * 18
        + (cover == 3)[..., None] * (blocks[..., None] * 60 - 25)
    )
    rgb = rgb + rng.standard_normal((size, size, 1)) * np.where(cover == 0, 9, 4)[..., None]
    haze = np.clip(smooth(3) * 0.5, 0, 0.8)
    rgb = rgb * (1 - haze[..., None]) + 225 * haze[..., None]
    return World(np.clip(rgb, 0, 255).astype(np.uint8), cover, haze)


def _tiles(values: NDArray[Any], side: int) -> NDArray[Any]:
    return values.reshape(side, TILE, side, TILE).transpose(0, 2, 1, 3).reshape(side * side, TILE * TILE)


def _images(
    rng: np.random.Generator, world: World, side: int, names: tuple[str, ...], hostile: bool, clean: bool
) -> tuple[pd.DataFrame, NDArray[np.float32]]:
    cover, haze = _tiles(world.cover, side), _tiles(world.haze, side).mean(axis=1)
    share = np.stack([(cover == number).mean(axis=1) for number in range(len(names))], axis=1)
    label = share.argmax(axis=1)
    predicted = np.where(rng.random(len(label)) < 0.08, rng.integers(0, len(names), len(label)), label)
    if not clean:
        predicted = np.where(haze > 0.3, 3, predicted)
    grey = _tiles(world.rgb.mean(axis=2), side)
    edges = np.abs(np.diff(grey, axis=1)).mean(axis=1) / 40
    features = np.column_stack([share, haze * 1.5, edges]).astype(np.float32)
    image = np.arange(side * side)
    row, column = np.divmod(image, side)
    block = row // 3 * side + column // 3
    left, top = 500_000 + column * TILE * 10.0, 5_400_000 - row * TILE * 10.0
    frame = pd.DataFrame({
        "image": image, "source": HOSTILE if hostile else "scene-a.tif",
        "split": np.where(block % 2 == 0, "explain", "held_out"), "block": block, "label": label, "predicted": predicted,
        "probability": np.round(0.55 + 0.4 * share.max(axis=1), 4), "crs": "EPSG:32633", "left": left,
        "bottom": top - TILE * 10.0, "right": left + TILE * 10.0, "top": top, "acquired": "2021-06-13", "painted": False,
    })  # fmt: skip
    return frame, features


def _layers(units: int) -> list[dict[str, Any]]:
    hidden = units - len(CLASSES)
    parts = {"layer3": hidden - hidden // 2, "layer4": hidden // 2, "fc": len(CLASSES)}
    kinds = {"layer3": "conv", "layer4": "conv", "fc": "linear"}
    return [
        {"name": name, "kind": kinds[name], "shape": [count, 8, 8] if kinds[name] == "conv" else [count],
         "units": count, "prefix_tokens": 0} for name, count in parts.items()
    ]  # fmt: skip


def _units(
    root: Path, rng: np.random.Generator, features: NDArray[np.float32], table: pd.DataFrame,
    layers: list[dict[str, Any]], hostile: bool,
) -> None:  # fmt: skip
    (root / "activations").mkdir()
    rows, tops, proposals, scores = [], [], [], []
    members: dict[int, list[str]] = {}
    explain = np.flatnonzero(table["split"] == "explain")
    for layer in layers:
        name, count = layer["name"], layer["units"]
        activations = np.zeros((len(features), count), dtype=np.float32)
        for unit in range(count):
            concept = unit % len(CONCEPTS) if name != "fc" else unit
            fired = np.maximum(0, features[:, concept] + rng.standard_normal(len(features)) * 0.08)
            status = ("labelled", "labelled", "labelled", "weak", "abstained")[unit % 5] if name != "fc" else "labelled"
            if name != "fc" and unit % 17 == 16:
                fired, status = np.zeros(len(features)), "dead"
            activations[:, unit] = fired
            order = explain[np.argsort(-fired[explain], kind="stable")[:10]]
            views = []
            for rank, image in enumerate(order):
                box = (-1, -1, -1, -1) if rank % 2 or name == "fc" else (8, 4 + rank, 40, 52)
                views.append([int(image), *box, round(float(fired[image]), 6)])
                tops.append((name, unit, rank, int(image), *box, float(fired[image])))
            label = CONCEPTS[concept] if not hostile or unit % 3 else (HOSTILE, LONG)[unit % 2]
            others = [CONCEPTS[(concept + step) % len(CONCEPTS)] for step in (1, 2)]
            found = [
                {"label": text, "support": 5 - 2 * place, "contrast": round(0.7 - 0.2 * place, 3), "meaning": place % 2,
                 "mean": 12.0 + 9 * place, "topk_squared": 30.0 + 200 * place, "image_products": 0.81 - 0.1 * place,
                 "topk_squared_x_image_products": 2.4 - 0.8 * place}
                for place, text in enumerate([label, *others])
            ]  # fmt: skip
            for place, entry in enumerate(found):
                proposals.append((name, unit, entry["label"], entry["support"], entry["contrast"], entry["meaning"]))
                scores.append({"layer": name, "unit": unit, "rank": place, **entry})
            published = status == "labelled"
            group = concept if published else -1
            if published:
                members.setdefault(concept, []).append(f"{name}/{unit}")
            r = {"labelled": 0.72, "weak": 0.31, "abstained": 0.08, "dead": np.nan}[status] + rng.normal() * 0.06
            said = [] if status in ("abstained", "dead") else [label, *(others[:1] if unit % 7 == 0 else [])]
            rows.append({
                "layer": name, "unit": unit, "status": status, "label": said[0] if said else "", "labels": said,
                "group": group, "r": r, "auprc": r * 0.9, "activation_rate": max(0.0, r), "p": 0.001 if published else 0.2,
                "q": 0.004 if published else 0.4, "stability": 0.9 if published else 0.4, "threshold": 0.22,
                "p99": float(np.percentile(fired, 99)), "reason": _reason(status, r),
                "candidates": json.dumps(found if status != "dead" else [], ensure_ascii=False),
                "top_images": json.dumps(views),
            })  # fmt: skip
        np.save(root / "activations" / f"{name}.npy", activations)
    pd.DataFrame(rows).to_parquet(root / "neurons.parquet", index=False)
    columns = ["layer", "unit", "rank", "image", "left", "top", "right", "bottom", "activation"]
    pd.DataFrame(tops, columns=columns).to_parquet(root / "top_images.parquet", index=False)
    columns = ["layer", "unit", "label", "support", "contrast", "meaning"]
    pd.DataFrame(proposals, columns=columns).to_parquet(root / "candidates.parquet", index=False)
    pd.DataFrame(scores).to_parquet(root / "scores.parquet", index=False)
    pd.DataFrame([
        {"group": group, "name": CONCEPTS[group] if not hostile else HOSTILE, "units": json.dumps(names), "threshold": 0.62}
        for group, names in sorted(members.items())
    ]).to_parquet(root / "groups.parquet", index=False)  # fmt: skip
    pd.DataFrame([
        {"image": int(image), "left": -1, "top": -1, "right": -1, "bottom": -1,
         "caption": HOSTILE if hostile else f"a satellite image of {CLASSES[int(label)]}"}
        for image, label in zip(table["image"], table["label"], strict=True)
    ]).to_parquet(root / "captions.parquet", index=False)  # fmt: skip
    (root / "concept_images").mkdir()
    shown = []
    for row, (concept, slot) in enumerate((concept, slot) for concept in CONCEPTS for slot in range(3)):
        key = hashlib.sha256(f"{concept}{slot}".encode()).hexdigest()
        shown.append((concept, slot, key, row))
        Image.new("RGB", (32, 32), tuple(int(c) for c in rng.integers(0, 255, 3))).save(
            root / "concept_images" / f"{key[:20]}.png"
        )
    pd.DataFrame(shown, columns=["concept", "slot", "key", "row"]).to_parquet(
        root / "concept_images.parquet", index=False
    )


def _reason(status: str, r: float) -> str:
    return {
        "labelled": f"r {r:.2f} on held-out images, null 0.22", "weak": f"r {r:.2f} is no better than other units' labels",
        "abstained": f"held-out images do not support it (r {r:.2f}, q 0.40)",
        "dead": "its activation never changes over the probe",
    }[status]  # fmt: skip


def _maps(root: Path, world: World, side: int) -> None:
    import geopandas as gpd
    import rasterio
    from rasterio.features import shapes
    from rasterio.transform import from_origin
    from shapely.geometry import shape

    size = side * TILE
    grid = {"crs": "EPSG:32633", "transform": from_origin(500_000, 5_400_000, 10, 10), "width": size, "height": size}
    (root / "scene").mkdir()
    with rasterio.open(root / "scene" / "scene-a.tif", "w", driver="COG", count=3, dtype="uint8", **grid) as out:
        out.write(world.rgb.transpose(2, 0, 1))
    coarse = {**grid, "transform": from_origin(500_000, 5_400_000, 80, 80), "width": size // 8, "height": size // 8}
    spots: list[dict[str, Any]] = []
    quantities = [*(world.cover == number for number in range(5)), world.haze]
    for layer in ("layer3", "layer4"):
        (root / "maps" / layer).mkdir(parents=True)
        for unit in range(6):
            values = (
                np.asarray(quantities[unit], dtype=np.float32).reshape(size // 8, 8, size // 8, 8).mean(axis=(1, 3))
            )
            values[:3, :5] = np.nan
            path = root / "maps" / layer / f"{unit}.tif"
            with rasterio.open(path, "w", driver="COG", count=1, dtype="float32", nodata=np.nan, **coarse) as out:
                out.write(values, 1)
                out.set_band_description(1, f"{layer}/{unit}: {CONCEPTS[unit]}")
            threshold = float(np.nanpercentile(values, 92))
            hot = ((values >= threshold) & (values > 0)).astype(np.uint8)
            for geometry, _ in shapes(hot, mask=hot > 0, transform=coarse["transform"]):
                polygon = shape(geometry)
                spots.append({
                    "unit": f"{layer}/{unit}", "layer": layer, "label": CONCEPTS[unit], "threshold": threshold,
                    "area_ha": polygon.area / 1e4, "geometry": polygon,
                })  # fmt: skip
    frame = gpd.GeoDataFrame(spots, crs="EPSG:32633")
    frame.to_file(root / "maps" / "index.gpkg", layer="hotspots", driver="GPKG")
    with rasterio.open(
        root / "maps" / "classes.tif", "w", driver="COG", count=1, dtype="uint8", nodata=255, **grid
    ) as out:
        out.write(np.where(world.haze > 0.3, 3, world.cover).astype(np.uint8), 1)
        out.update_tags(class_names=json.dumps(CLASSES))


def _evidence(root: Path, names: tuple[str, ...], clean: bool) -> None:
    rng = np.random.default_rng(3)
    pruned, leaned = [], []
    for group, concept in enumerate(CONCEPTS):
        for number, name in enumerate(names):
            planted = group == 5 and number == 3 and not clean
            gap = 0.31 if planted else float(rng.normal() * 0.02)
            change = -gap + float(rng.normal() * 0.01)
            pruned.append((group, name, 40, 0.86, 0.86 + change, change, change - 0.05, change + 0.05, 0.0, -0.03, 0.03,
                           -gap, -gap - 0.06, -gap + 0.06, 0.002 if planted else 0.5))  # fmt: skip
            lean = 0.42 if planted else float(rng.normal() * 0.02)
            leaned.append((group, concept, name, 0.4 if planted else 0.05, 0.001 if planted else 0.6,
                           0.01 if planted else 0.8, lean, lean - 0.07, lean + 0.07, 0.002 if planted else 0.5,
                           gap, gap - 0.06, gap + 0.06, 140, 3 if planted else 0))  # fmt: skip
    columns = ["group", "class", "n", "accuracy_before", "accuracy_after", "change", "low", "high", "random_mean",
               "random_low", "random_high", "gap", "gap_low", "gap_high", "p"]  # fmt: skip
    pd.DataFrame(pruned, columns=columns).to_parquet(root / "ablation.parquet", index=False)
    columns = ["group", "concept", "class", "association", "association_p", "q", "reliance", "reliance_low",
               "reliance_high", "reliance_p", "gap", "gap_low", "gap_high", "n", "grade"]  # fmt: skip
    pd.DataFrame(leaned, columns=columns).to_parquet(root / "reliance.parquet", index=False)


def _audit(root: Path, table: pd.DataFrame, names: tuple[str, ...], hostile: bool, clean: bool) -> dict[str, Any]:
    neurons = pd.read_parquet(root / "neurons.parquet")
    units = {
        str(layer): {
            "described": int((part["status"] == "labelled").sum()), "weak": int((part["status"] == "weak").sum()),
            "abstained": int((part["status"] == "abstained").sum()), "dead": int((part["status"] == "dead").sum()),
            "total": len(part),
        }
        for layer, part in neurons.groupby("layer", sort=False)
    }  # fmt: skip
    hazy = table[(table["predicted"] == 3) & (table["label"] != 3)]["image"].tolist()[:8]
    clear = table[(table["predicted"] == table["label"])]["image"].tolist()[:8]
    findings = []
    if not clean:
        findings.append(haze_finding(names, hazy, clear, HOSTILE if hostile else "haze"))
    findings.append(minor_finding(names, clear, suppressed=clean))
    checks = [
        {"rule": "concept-reliance", "title": "Does a class hang on a concept that is not part of it?",
         "status": "pass" if clean else "fail", "reason": "35 pairs of concept and class were tested at a false-discovery "
         "rate of 5 %.", "tested": 35, "null": "label-shuffled units", "cost": 12.5},
        {"rule": "offset", "title": "Does the +1000 processing offset change the prediction?", "status": "pass",
         "reason": "0.4 % of the predictions changed, fewer than the 1 % that repeating the tiles changes.",
         "tested": len(table), "null": 0.01, "cost": 1.2},
        {"rule": "geography", "title": "Is the place, not the land cover, what is recognised?", "status": "inconclusive",
         "reason": "Too few spatial blocks (16) to tell.", "tested": 16, "null": None, "cost": 0.4},
        {"rule": "stripes", "title": "Does striping change the prediction?", "status": "not_run",
         "reason": "The probe has no clean tile to paint on.", "tested": None, "null": None, "cost": 0},
    ]  # fmt: skip
    if hostile:
        checks[1]["title"], checks[1]["reason"] = HOSTILE, LONG
    worst = "info" if clean else "critical"
    sentence = (
        "Nothing was found that should stop the deployment." if clean
        else "The network leans on haze when it decides residential; do not deploy it on hazy scenes."
    )  # fmt: skip
    return {
        "schema_version": "1.0", "tool": {"name": "geoaudit", "version": "0.1.0"}, "created": None,
        "model": {"name": HOSTILE if hostile else "resnet18-landcover", "fingerprint": "ab" * 32, "class_names": list(names)},
        "probe": {"images": len(table), "fingerprint": "cd" * 32, "channels": ["B02", "B03", "B04"], "attributions": [
            "Contains modified Copernicus Sentinel data 2021", {"name": "Drawn land cover", "licence": "CC0-1.0", "text": "made for tests"}]},
        "accuracy": None, "gate": {"false_alarm_rate": 0.02, "upper_bound": 0.06, "null": "random units"},
        "notes": [{"field": "units", "severity": "warning", "message": HOSTILE if hostile else "B10 is not among the bands."}],
        "units": units, "checks": checks, "findings": findings,
        "summary": {"status": "pass" if clean else "fail", "worst_severity": worst,
                    "counts": {"critical": 0 if clean else 1, "minor": 0 if clean else 1},
                    "sentence": sentence if not hostile else HOSTILE},
    }  # fmt: skip


def _manifest(root: Path, table: pd.DataFrame, names: tuple[str, ...]) -> None:
    files = {path.relative_to(root).as_posix(): file_sha256(path) for path in sorted(root.rglob("*")) if path.is_file()}
    manifest = {
        "schema_version": 1, "tool": "geoaudit", "versions": {"geoaudit": "0.1.0", "numpy": np.__version__},
        "model": {"name": "resnet18-landcover", "fingerprint": "ab" * 32, "class_names": list(names)},
        "probe": {"images": len(table), "fingerprint": "cd" * 32, "channels": ["B02", "B03", "B04"], "shape": [3, TILE, TILE],
                  "explain": int((table["split"] == "explain").sum()),
                  "held_out": int((table["split"] == "held_out").sum())},
        "backends": {"captioner": {"name": "measured"}}, "seed": 7,
        "stages": {"findings": {"key": "1" * 64, "files": {"audit.json": files.pop("audit.json")}},
                   "all": {"key": "0" * 64, "files": files}},
        "timings": {"created": "2026-01-02T03:04:05Z", "stages": {"probing": 4.2, "captions": 2.1, "audit": 31.0}},
    }  # fmt: skip
    (root / "manifest.json").write_text(json.dumps(manifest, indent=1, ensure_ascii=False))

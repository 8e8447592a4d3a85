"""Make the fonts of the PDF report from Debian's packages: every script a label may be written in, without hints for screens.

    apt-get download fonts-noto-core fonts-droid-fallback   # then: for each, dpkg -x PACKAGE.deb FOLDER
    python data/make_fonts.py FOLDER

Noto Sans (SIL Open Font License 1.1) gives the alphabets, Droid Sans Fallback (Apache License 2.0) the ideographs, kana and
hangul in a quarter of the bytes of Noto Sans CJK. The same packages give the same bytes. ``NotoSans-{Regular,Bold,Italic}``
and ``DejaVuSans`` are as their makers publish them.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

TARGET = Path(__file__).resolve().parents[1] / "geoaudit" / "report" / "fonts"
SCRIPTS = ("Arabic", "Armenian", "Bengali", "Ethiopic", "Georgian", "Gujarati", "Gurmukhi", "Hebrew", "Kannada", "Khmer",
           "Lao", "Malayalam", "Mongolian", "Myanmar", "Oriya", "Sinhala", "Tamil", "Telugu", "Thaana", "Thai")  # fmt: skip
FILES = (
    *(f"NotoSans{script}-Regular.ttf" for script in SCRIPTS),
    "NotoSerifTibetan-Regular.ttf",
    "DroidSansFallback.ttf",
)


def slim(source: Path, target: Path) -> int:
    """Write a font with all its characters and shaping but without hints and foreign tables; returns its bytes."""
    from fontTools import subset

    options = subset.Options(
        hinting=False, layout_features=["*"], glyph_names=False, legacy_kern=True, notdef_outline=True,
        name_IDs=["*"], name_languages=[0x409], recalc_timestamp=False, drop_tables=["DSIG", "FFTM", "LTSH", "VDMX", "hdmx"],
    )  # fmt: skip
    font = subset.load_font(str(source), options)
    chosen = subset.Subsetter(options)
    chosen.populate(unicodes=sorted(font.getBestCmap()))
    chosen.subset(font)
    subset.save_font(font, str(target), options)
    return target.stat().st_size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where the packages were unpacked")
    chosen = parser.parse_args()
    found = {path.name: path for path in sorted(chosen.folder.rglob("*.ttf"))}
    missing = [name for name in FILES if name not in found]
    if missing:
        sys.exit(f"{chosen.folder} lacks {', '.join(missing)}: unpack fonts-noto-core and fonts-droid-fallback there")
    total = 0
    for name in FILES:
        size = slim(found[name], TARGET / name)
        total += size
        print(f"{name:<36}{size:>10,} bytes")
    print(f"{'together':<36}{total:>10,} bytes")


if __name__ == "__main__":
    main()

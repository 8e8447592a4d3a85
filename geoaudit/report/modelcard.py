"""A model card in the form of the Hugging Face hub, new or merged into one that exists."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from dnd_core.errors import StoreError
from geoaudit.report.content import content
from geoaudit.report.text import LIMIT, areas, figure, plain, shares
from geoaudit.report.wording import say
from geoaudit.results import Results

__all__ = ["model_card"]

_SECTION = "## Model Examination"
_EVALUATION = "## Evaluation"
_FRONT = re.compile(r"\A---\s*\n(.*?)\n---\s*(?:\n|\Z)", re.DOTALL)
# Every character with a meaning in Markdown or HTML; an escaped one is always only itself.
_MARKS = re.compile(r"([\\`*_{}\[\]()#+\-.!|<>~&$:=@\"'])")
_TASK = "image-classification"


def model_card(results: Results, existing: str | None = None) -> str:
    """The card of the audited model.

    Args:
        results: the run.
        existing: text of a card to merge into: its own words and metadata stay; only the sections "Model Examination" and
            "Evaluation" of an earlier audit, and the evaluation results of this tool, are replaced.

    Raises:
        StoreError: the metadata of the existing card is no YAML mapping.

    """
    said = content(results)
    metadata, body = _split(existing) if existing is not None else ({}, "")
    metadata = _metadata(metadata, results, said)
    sections = {_EVALUATION: _evaluation(said), _SECTION: _examination(said)}
    if existing is None:
        body = f"# {_escape(said['model'])}\n\n" + "\n\n".join(f"{title}\n\n{text}" for title, text in sections.items())
    else:
        for title, text in sections.items():
            body = _replace(body, title, text)
    return f"---\n{_yaml(metadata)}---\n\n{body.strip()}\n"


def _yaml(value: Mapping[str, Any]) -> str:
    import yaml

    text: str = yaml.safe_dump(dict(value), sort_keys=False, allow_unicode=True, width=1000)
    return text


def _split(card: str) -> tuple[dict[str, Any], str]:
    import yaml

    found = _FRONT.match(card)
    if found is None:
        return {}, card
    try:
        metadata = yaml.safe_load(found[1]) or {}
    except yaml.YAMLError as error:
        raise StoreError(
            f"the metadata of the model card is no YAML ({plain(error, 200)}): correct it first"
        ) from error
    if not isinstance(metadata, dict):
        raise StoreError("the metadata of the model card is no mapping: correct it first")
    return metadata, card[found.end() :]


def _escape(text: Any, limit: int = LIMIT) -> str:
    return _MARKS.sub(r"\\\1", plain(text, limit)).replace("\\<", "&lt;").replace("\\>", "&gt;").replace("\\&", "&amp;")


def _metadata(old: Mapping[str, Any], results: Results, said: Mapping[str, Any]) -> dict[str, Any]:
    metadata = dict(old)
    tags = metadata.get("tags")
    tags = [tags] if isinstance(tags, str) else list(tags) if isinstance(tags, list) else []
    metadata["tags"] = list(dict.fromkeys([*tags, "remote-sensing", "land-cover", "geoaudit"]))
    metadata.setdefault("pipeline_tag", _TASK)
    if said["accuracy"] and said["accuracy"]["overall"]["estimate"] is not None:
        probe = results.manifest.get("probe")
        print_of = probe.get("fingerprint") if isinstance(probe, Mapping) else None
        result = {
            "task": {"type": _TASK, "name": say("card.task")},
            "dataset": {"name": say("card.dataset"), "type": "geoaudit-probe",
                        **({"revision": plain(print_of, 80)} if print_of else {})},
            "metrics": [{
                "type": "accuracy", "name": say("accuracy.overall"), "verified": False,
                "value": round(float(said["accuracy"]["overall"]["estimate"]), 4),
            }],
            "source": {"name": "geoaudit", "url": "audit.json"},
        }  # fmt: skip
        index = metadata.get("model-index")
        index = [dict(entry) for entry in index if isinstance(entry, Mapping)] if isinstance(index, list) else []
        if not index:
            index = [{"name": said["model"], "results": []}]
        kept = [r for r in index[0].get("results") or [] if not (isinstance(r, Mapping) and _ours(r))]
        index[0]["results"] = [*kept, result]
        metadata["model-index"] = index
    return metadata


def _ours(result: Mapping[str, Any]) -> bool:
    source = result.get("source")
    return isinstance(source, Mapping) and source.get("name") == "geoaudit"


def _replace(body: str, title: str, text: str) -> str:
    """Put a section in the place of the one with this heading, or at the end."""
    heading = re.compile(rf"^{re.escape(title)}(?:\s*\[optional\])?\s*$", re.MULTILINE | re.IGNORECASE)
    found = heading.search(body)
    if found is None:
        return f"{body.rstrip()}\n\n{title}\n\n{text}\n"
    following = re.compile(r"^##? ", re.MULTILINE).search(body, found.end())
    rest = body[following.start() :] if following else ""
    own = body[found.end() : following.start() if following else None]
    # What the authors wrote in this section stays above; only our own earlier part is dropped.
    kept = re.sub(rf"{_BEGIN}.*?{_END}", "", own, flags=re.DOTALL).strip()
    kept = "" if kept == "[More Information Needed]" else kept
    return f"{body[: found.start()]}{title}\n\n" + (f"{kept}\n\n" if kept else "") + f"{text}\n\n{rest}"


_BEGIN, _END = "<!-- geoaudit -->", "<!-- /geoaudit -->"


def _evaluation(said: Mapping[str, Any]) -> str:
    table = said["accuracy"]
    if not table:
        return f"{_BEGIN}\n{say('accuracy.none')}\n{_END}"
    heads = [say(key) for key in ("column.class", "column.n", "column.producers", "column.users")]
    rows = [f"| {' | '.join(heads)} |", "|---|---:|---:|---:|"]
    for row in table["classes"]:
        found = [shares(row[key]) for key in ("producers", "users")]
        rows.append(f"| {_escape(row['name'])} | {row['n']} | {' | '.join(found)} |")
    text = f"{table['lead']}\n\n" + "\n".join(rows)
    return f"{_BEGIN}\n{text}\n\n{_areas(said['areas'])}\n{_END}"


def _areas(table: Mapping[str, Any]) -> str:
    """True areas of the classes, or why there are none."""
    if not table["rows"]:
        return _escape(table["reason"], 700)
    heads = [say(key) for key in ("column.class", "column.mapped", "column.area", "column.producers", "column.users")]
    rows = [f"| {' | '.join(heads)} |", "|---|---:|---:|---:|---:|"]
    for row in table["rows"]:
        cells = [
            _escape(row["name"]),
            areas(row["mapped"]),
            areas(row["area"]),
            shares(row["producers"]),
            shares(row["users"]),
        ]
        rows.append(f"| {' | '.join(cells)} |")
    notes = "".join(f"\n\n{_escape(note, 500)}" for note in table["notes"])
    return f"### {say('accuracy.area')}\n\n{_escape(table['lead'], 700)}\n\n" + "\n".join(rows) + notes


def _examination(said: Mapping[str, Any]) -> str:
    light = said["verdict"]
    parts = [f"**{light['word']}.** {light['sentence']} {_escape(light['detail'])}".strip()]
    parts += [f"- {_escape(problem)}" for problem in said["problems"]]
    if said["findings"]:
        parts.append(f"### {say('findings.title')}")
        for finding in said["findings"]:
            line = f"- **{finding['severity_word']}** ({_escape(finding['id'])}): {_escape(finding['title'])}."
            line += f" {_escape(finding['effect'])}." if finding["effect"] else ""
            line += f" {_escape(finding['recommendation'])}" if finding["recommendation"] else ""
            parts.append(line)
    elif said["has_audit"]:
        parts.append(say("findings.none"))
    if said["checks"]:
        heads = [say(key) for key in ("column.check", "column.result", "column.reason")]
        rows = [f"| {' | '.join(heads)} |", "|---|---|---|"]
        rows += [f"| {_escape(c['title'])} | {c['word']} | {_escape(c['reason'])} |" for c in said["checks"]]
        parts += [f"### {say('checks.title')}", "\n".join(rows)]
    if said["groups"]:
        heads = [say(key) for key in ("column.concept", "column.units", "column.leaning", "column.reliance")]
        rows = [f"| {' | '.join(heads)} |", "|---|---:|---|---:|"]
        rows += [
            f"| {_escape(g['name'])} | {len(g['units'])} | {_escape(g['leaning'])} | {figure(g['reliance'], signed=True)} |"
            for g in said["groups"][:30]
        ]
        parts += [f"### {say('groups.title')}", "\n".join(rows)]
    parts.append(say("method.source"))
    # A list needs no empty lines between its items, everything else does.
    text = parts[0]
    for before, after in pairwise(parts):
        text += ("\n" if before.startswith("- ") and after.startswith("- ") else "\n\n") + after
    return f"{_BEGIN}\n{text}\n{_END}"

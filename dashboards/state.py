"""Widgets whose value stands in the address, so that a link opens the page as it was.

Streamlit's own binding writes what is shown into the address, here labels from the run; these write ids. A value in the
address that is no choice counts as not given.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import streamlit as st

__all__ = ["choice", "choices", "degrees", "page_number", "put", "share", "switch", "words"]

T = TypeVar("T")
NONE = "none"


def put(name: str, value: str) -> None:
    """Set a value of the address, or take it out where it is empty."""
    if value:
        st.query_params[name] = value
    elif name in st.query_params:
        del st.query_params[name]


def _prepare(name: str, parse: Callable[[str], T | None], default: T) -> str:
    """The widget's key, its value taken from the address whenever that was changed by a link."""
    key, seen = f"w-{name}", f"_seen-{name}"
    text = st.query_params.get(name, "")
    if key not in st.session_state or st.session_state.get(seen) != text:
        found = parse(text) if text else None
        st.session_state[key] = default if found is None else found
        st.session_state[seen] = text
    return key


def _written(name: str, form: Callable[[Any], str], default: Any) -> None:
    value = st.session_state[f"w-{name}"]
    text = "" if value == default else form(value)
    put(name, text)
    st.session_state[f"_seen-{name}"] = text


def choice(
    name: str,
    title: str,
    options: Mapping[str, str],
    default: str | None = None,
    help: str | None = None,  # noqa: A002 - Streamlit's word
) -> str:
    """One of ``options`` (id to words)."""
    first = default if default in options else next(iter(options))
    key = _prepare(name, lambda text: text if text in options else None, first)
    if st.session_state[key] not in options:
        st.session_state[key] = first
    return str(
        st.selectbox(
            title, list(options), key=key, format_func=lambda option: options.get(option, option), help=help,
            on_change=_written, args=(name, str, first),
        )
    )  # fmt: skip


def choices(
    name: str, title: str, options: Mapping[str, str], placeholder: str = "All", default: Sequence[str] = ()
) -> list[str]:
    """Any of ``options``; none chosen means all where nothing else is said."""
    start = [option for option in default if option in options]

    def parse(text: str) -> list[str]:
        # A word that is no choice, as in ``groups=none``, chooses nothing: an empty value would mean the default.
        return [part for part in text.split("|") if part in options]

    key = _prepare(name, parse, start)
    st.session_state[key] = [option for option in st.session_state[key] if option in options]
    found: list[str] = st.multiselect(
        title, list(options), key=key, format_func=lambda option: options.get(option, option), placeholder=placeholder,
        on_change=_written, args=(name, lambda chosen: "|".join(chosen) or NONE, start),
    )  # fmt: skip
    return found


def words(name: str, title: str, placeholder: str = "", most: int = 300) -> str:
    """Text of at most ``most`` characters."""
    key = _prepare(name, lambda text: text[:most], "")
    return str(
        st.text_input(title, key=key, placeholder=placeholder, max_chars=most, on_change=_written, args=(name, str, ""))
    ).strip()


def share(name: str, title: str, default: float, help: str | None = None) -> float:  # noqa: A002
    """A number in [0, 1] in steps of 0.05."""

    def parse(text: str) -> float | None:
        try:
            return min(max(round(float(text) * 20) / 20, 0.0), 1.0)
        except (ValueError, OverflowError):
            return None

    key = _prepare(name, parse, default)
    return float(
        st.slider(title, 0.0, 1.0, step=0.05, key=key, help=help, on_change=_written, args=(name, lambda v: f"{v:.2f}", default))
    )  # fmt: skip


def degrees(name: str, title: str, part: int, start: float, low: float, high: float, step: float) -> None:
    """One coordinate of the place in the address: typed, or moved by a step with the arrow keys.

    Args:
        name: of the value in the address, two numbers with a comma.
        title: what stands over the field.
        part: which of the two this is.
        start: the coordinate while no place is given.
        low: least value, degrees.
        high: largest value.
        step: of an arrow key.

    """
    key, seen = f"w-{name}-{part}", f"_seen-{name}-{part}"
    text = st.query_params.get(name, "")
    if key not in st.session_state or st.session_state.get(seen) != text:
        given = text.split(",")
        try:
            value = float(given[part]) if len(given) == 2 else start
        except ValueError:
            value = start
        st.session_state[key] = min(max(value if value == value else start, low), high)
        st.session_state[seen] = text

    def moved() -> None:
        others = st.session_state.get(f"w-{name}-{1 - part}")
        both = [0.0, 0.0]
        both[part], both[1 - part] = float(st.session_state[key]), float(others if others is not None else 0.0)
        put(name, f"{both[0]:.6f},{both[1]:.6f}")
        st.session_state[seen] = st.query_params[name]

    st.number_input(title, low, high, key=key, step=step, format="%.5f", on_change=moved)


def switch(name: str, title: str, default: bool = False) -> bool:
    """On or off."""
    key = _prepare(name, lambda text: text == "1", default)
    return bool(st.toggle(title, key=key, on_change=_written, args=(name, lambda v: "1" if v else "0", default)))


def page_number(name: str, count: int, each: int) -> range:
    """Places shown on the page of a long list, with buttons to turn it where there is more than one."""
    last = max(0, -(-count // each) - 1)
    text = st.query_params.get(name, "1")
    here = min(max(int(text) - 1, 0), last) if text.isdigit() and len(text) < 8 else 0
    if last:
        st.caption(f"page {here + 1} of {last + 1}")
        with st.container(horizontal=True):
            # Callbacks run before the page is made anew, so that it is made once.
            st.button(
                "Back", key=f"b-{name}", disabled=here == 0, icon=":material/chevron_left:", on_click=put,
                args=(name, str(here) if here > 1 else ""),
            )  # fmt: skip
            st.button(
                "Next", key=f"n-{name}", disabled=here == last, icon=":material/chevron_right:", on_click=put,
                args=(name, str(here + 2)),
            )  # fmt: skip
    return range(here * each, min((here + 1) * each, count))

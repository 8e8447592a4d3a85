"""The pages and the links between them; a new page is one file and one line here."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from importlib import import_module
from typing import Any

import streamlit as st

__all__ = ["PAGES", "go", "link", "pages"]

# name of the module and of the address: title and icon
PAGES: Mapping[str, tuple[str, str]] = {
    "overview": ("Overview", ":material/dashboard:"),
    "findings": ("Findings", ":material/flag:"),
    "map": ("Map", ":material/map:"),
    "neurons": ("Neurons", ":material/hub:"),
    "concepts": ("Concepts", ":material/category:"),
    "mitigate": ("Mitigate", ":material/content_cut:"),
    "review": ("Review", ":material/rate_review:"),
    "export": ("Export", ":material/download:"),
}


def _show(name: str) -> None:
    # Imported when first opened: the map's libraries should not slow the overview down.
    import_module(f"dashboards.pages.{name}").show()


def pages() -> dict[str, Any]:
    """A Streamlit page each, made anew for every run of the script as Streamlit wants it."""
    return {
        name: st.Page(partial(_show, name), title=title, icon=icon, url_path=name, default=name == "overview")
        for name, (title, icon) in PAGES.items()
    }


def link(name: str, label: str, icon: str | None = None, **query: str) -> None:
    """A link to another page of the dashboard with its state in the address."""
    known = st.session_state.get("_pages")
    # A page shown on its own, as tests do, has no navigation to link into.
    if known:
        st.page_link(known[name], label=label, icon=icon, query_params=query or None)


def go(name: str, **query: str) -> None:
    """Open another page, or stay where there is no navigation."""
    known = st.session_state.get("_pages")
    if known:
        st.switch_page(known[name], query_params=query or None)

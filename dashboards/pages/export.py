"""Make reports in the background and download them."""

from __future__ import annotations

import html

import streamlit as st

from dashboards.components import clean, figure, opened, prose, title
from dashboards.following import follow
from dashboards.loading import address
from dashboards.reports import REPORTS, job_of, start
from dashboards.reviews import Reviews
from dashboards.state import choices
from dashboards.tiles import version
from dnd_core.errors import StoreError
from geoaudit.results import Results


def show() -> None:
    """The page."""
    results = opened("Export")
    if results.state == "empty":
        prose("There is nothing to report on yet.")
        return
    chosen = choices(
        "formats",
        "Reports to make",
        {name: f"{report.file}: {report.about}" for name, report in REPORTS.items()},
        "Choose",
        ["html", "pdf"],
    )
    job = job_of(results.root)
    running = job is not None and job.state == "running"
    if st.button("Make the reports", type="primary", icon=":material/play_arrow:", disabled=running or not chosen):
        try:
            reviews = Reviews(results.root)
            if reviews.path.is_file():
                reviews.write_summary()
        except StoreError as error:
            st.error(clean(error))
        start(results.root, chosen)
        st.rerun()
    if job is not None:
        follow(results.root, "reports", ", ".join(REPORTS[name].file for name in job.about))
    _files(results)


def _files(results: Results) -> None:
    title("Ready to download", 2)
    rows = []
    for name, report in REPORTS.items():
        path = results.root / report.file
        if path.is_file():
            size = path.stat().st_size
            there = address(f"layers/report/{name}", v=version())
            rows.append(
                f'<tr><td><a href="{html.escape(there)}" download="{report.file}">{report.file}</a></td>'
                f"<td>{html.escape(report.about)}</td><td>{figure(size / 1024, 0)} kB</td></tr>"
            )
    if not rows:
        prose("No report has been made yet.", dim=True)
        return
    head = "<tr><th>File</th><th>What it is for</th><th>Size</th></tr>"
    st.html(
        f'<div class="ga-wrap"><table class="ga-table"><thead>{head}</thead><tbody>{"".join(rows)}</tbody></table></div>'
    )

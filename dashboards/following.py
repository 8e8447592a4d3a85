"""How a page tells of work in the background: how far it is, a way to stop it, and how it ended."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from dashboards.components import clean, figure, markdown, prose
from dashboards.jobs import job_of

__all__ = ["follow"]


def follow(root: Path, kind: str, what: str, way_out: str = "") -> None:
    """Tell of the last job of a kind; nothing where there was none. The page is made anew when it ends.

    Args:
        root: the run.
        kind: of the job.
        what: what is made, in words.
        way_out: what to do when it fails.

    """
    job = job_of(root, kind)
    if job is None:
        return
    if job.state == "running":
        _running(root, kind, what)
    elif job.state == "done":
        st.success(f"Made {markdown(what, 300)} in {figure(job.seconds, 0)} s.", icon=":material/check:")
    elif job.state == "cancelled":
        st.warning(f"Cancelled after {figure(job.seconds, 0)} s: {markdown(what, 300)}. Nothing of it was stored.")
    else:
        st.error(f"This could not be made: {markdown(what, 300)}.", icon=":material/error:")
        prose(clean(job.said(), 1500) or "The process ended without a word.")
        prose(way_out, dim=True)


@st.fragment(run_every=1.5)
def _running(root: Path, kind: str, what: str) -> None:
    job = job_of(root, kind)
    if job is None or job.state != "running":
        st.rerun(scope="app")
    st.info(
        f"Making {markdown(what, 300)}: {figure(job.seconds, 0)} s so far. The pages stay usable.",
        icon=":material/hourglass_top:",
    )
    step = job.step()
    if step is not None:
        stage, done, total = step
        st.progress(min(done / max(total, 1), 1.0), text=f"{markdown(stage, 80)}: {done} of {total}")
    if st.button("Cancel", key=f"cancel-{kind}", icon=":material/cancel:"):
        job.cancel()

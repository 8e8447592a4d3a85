"""Run by Streamlit for every visitor and every interaction: settings of the page, navigation, the page itself."""

from __future__ import annotations

import streamlit as st

from dashboards.components import favicon, style
from dashboards.navigation import pages

st.set_page_config(page_title="geoaudit", page_icon=favicon(), layout="wide")
found = pages()
st.session_state["_pages"] = found
style()
st.navigation(list(found.values()), position="sidebar", expanded=True).run()

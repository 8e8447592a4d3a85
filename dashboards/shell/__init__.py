"""The script that Streamlit runs for every visitor; apart from ``pages/`` so that Streamlit finds no pages by itself."""

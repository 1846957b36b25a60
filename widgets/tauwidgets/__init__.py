"""Panels for JupyterLab: they show state and call verbs, and hold no logic."""

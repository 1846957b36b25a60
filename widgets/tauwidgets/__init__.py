"""Panels for JupyterLab: they show state and call verbs, and hold no logic."""

from tauwidgets.customer_panel import CustomerPanel
from tauwidgets.server_panel import ServerPanel
from tauwidgets.sweep_board import SweepBoard

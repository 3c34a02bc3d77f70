"""What people read: run directories and recipes in, tables on stdout (or JSON) out. Reads files, measures nothing."""

from __future__ import annotations

from cssl_cli.report.recipes import show_plan, show_recipe, show_recipes
from cssl_cli.report.run import show_analysis, show_pretrained, show_probe
from cssl_cli.report.sweep import show_sweep, show_sweep_plan

__all__ = [
    "show_analysis",
    "show_plan",
    "show_pretrained",
    "show_probe",
    "show_recipe",
    "show_recipes",
    "show_sweep",
    "show_sweep_plan",
]

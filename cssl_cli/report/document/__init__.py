"""The report as one file to send: a page of HTML, or its main table as Markdown, CSV or LaTeX.

`page` records what the terminal's reports print, so that a page says the same in the same words. `main_table`,
`of_run`, `of_runs` and `of_sweep` put documents together, `html` and `formats` write them, `writing` keeps them.
"""

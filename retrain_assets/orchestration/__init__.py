"""The Dagster side: the only package that imports dagster, and thin.

`build.build_definitions` assembles; `factory` shapes one model's assets; `bodies` is what they do;
`observe`, `sensors` and `schedules` decide which runs are requested.
"""

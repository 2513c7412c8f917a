"""How well the champion does in production: realised where labels have come, estimated before.

`realised` scores stored predictions against labels; `confidence` estimates the metrics of a
classification from calibrated probabilities, `losses` those of a regression from a model of its
errors. All give a `measured.Performance`: one value with its interval, which `retrain_assets.policy`
compares with a bound. Does not belong here: comparing two models (`promotion`), deciding.
"""

"""Imported last by the fork server of `workers`: what the libraries are made of is never looked at again.

Workers inherit it: their collections look at their own objects only, and leave the shared pages alone.
"""

import gc

gc.freeze()
gc.enable()

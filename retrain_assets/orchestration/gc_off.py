"""Imported first by the fork server of `workers`: no garbage collection while it imports libraries.

The collector would look through the half million objects of the imports again and again and find nothing:
a fifth of the CPU time of the imports. `gc_frozen` ends it.
"""

import gc

gc.disable()

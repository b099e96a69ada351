"""Moving the columns of a row: no arithmetic, every bit passes.

Row i sees column j where ``j < stop[i]`` and ``mask[i, j]`` is not 0.
"""

LAWS = ()

"""Why train mode is another function where eval mode is the same, or explained.

Read `dropouts` (which are missing, others, or elsewhere), `alone` (what else is done in train mode alone) and
`regrafting` (formulas of eval mode as they are in train mode).
"""

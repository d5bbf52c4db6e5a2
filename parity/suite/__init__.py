"""The equivalence suite: in comes a candidate, ours or `--parity-candidate`, out goes what `pytest parity/` says of it.

Read `conftest` (what they share), `test_forward`, `test_weight_map`, `test_initialisation`, `test_phases`, `test_fuzz`
and `test_stateful`.
"""

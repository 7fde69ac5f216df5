"""What `bench/gpu_check.py` is made of: its steps, each a process that may be ended from outside.

`phases` gives time to the steps and ends those that overrun. `environment`, `small`, `launches`,
`timing`, `calls`, `training` and `autotune` are programs, run as `python -m device.<name>`; the
rest runs beside the command line and imports nothing but the standard library, so that no fault of
PyTorch or of a driver ends the check.
"""

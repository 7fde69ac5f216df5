"""The steps of `bench/gpu_check.py`, which run on the device; each can be killed from outside.

`phases` divides the time among the steps and kills those that exceed their share. `environment`,
`small`, `launches`, `timing`, `calls`, `training` and `autotune` are programs, run as
`python -m device.<name>`. The other modules run in gpu_check's own process and import only the
standard library, so that no fault of PyTorch or of a driver can end the check.
"""

"""Other packages' SSIM by their names, arguments and defaults, computed by our kernels.

One module a package: where code says ``from pytorch_msssim import ssim`` it says
``from lamp_kernels.compat.pytorch_msssim import ssim``. Values agree to 1e-6 in float32, where
the package's own are as near to those in float64; an argument that is not supported raises and is
named. Nothing here is amplified, and the packages themselves are not needed.
"""

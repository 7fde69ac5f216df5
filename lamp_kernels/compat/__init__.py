"""Other packages' SSIM by their names, arguments and defaults, computed by our kernels.

One module a package: where code says ``from pytorch_msssim import ssim`` it says
``from lamp_kernels.compat.pytorch_msssim import ssim``. In float32, values are no further from the
package's than those are from float64, and 1e-6: on flat images, where the packages lose digits,
that may be 1e-4. An argument that is not supported raises and is named. Nothing here is amplified,
and the packages themselves are not needed.
"""

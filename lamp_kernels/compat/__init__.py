"""Other packages' SSIM with their names, arguments and defaults, computed by our kernels.

There is one module per package: replace ``from pytorch_msssim import ssim`` with
``from lamp_kernels.compat.pytorch_msssim import ssim``. In float32, values differ from the
package's by at most the package's error against float64 plus 1e-6; on flat images, where the
packages lose digits, that can be 1e-4. An argument that is not supported raises an error that names
it. Nothing here is amplified, and the packages themselves do not have to be installed.
"""

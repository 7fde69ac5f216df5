"""The reference as a backend: plain PyTorch on any device, differentiated by autograd."""

import torch
from torch import Tensor

from lamp_kernels import reference
from lamp_kernels.reduction import Factors
from lamp_kernels.spec import LossSpec, Sums
from lamp_kernels.tensors import Images, without_autocast


class ReferenceBackend:
    """Supports every loss and every device. The methods are those of `Backend`."""

    name = "reference"

    def unavailable_reason(self) -> str | None:
        """Always available."""
        return None

    def unsupported_reason(self, spec: LossSpec, input: Tensor) -> str | None:
        """Everything is supported."""
        return None

    def unsupported_feature(self, spec: LossSpec, device_type: str) -> str | None:
        """Everything is supported."""
        return None

    def auto_skip_reason(self, spec: LossSpec, input: Tensor) -> str | None:
        """Never skipped: it is the last of the automatic choice."""
        return None

    def configuration_error(self, input: Tensor) -> str | None:
        """Nothing to configure."""
        return None

    def details(self) -> list[str]:
        """Nothing to report."""
        return []

    def image_losses(
        self,
        spec: LossSpec,
        images: Images,
        factors: Factors,
        sums: Sums,
    ) -> Tensor:
        """See `Backend.image_losses`."""
        weight, shape = images.weight, images.input.shape
        with without_autocast(images.input.device.type):
            scaled_sums = []
            for term, metric in enumerate(spec.metrics):
                loss = reference.elementwise_loss(metric, images, spec.of_elements)
                factor = (
                    factors[:, term]
                    if isinstance(factors, Tensor)
                    else factors.of(term, loss.shape)
                )
                if weight is not None:
                    loss = loss * reference.on_grid(weight, shape, loss.shape)
                scaled_sums.append(factor * reference.sum_images(loss))
            if sums == "terms":
                return torch.stack(scaled_sums, dim=1)
            total = scaled_sums[0]
            for scaled_sum in scaled_sums[1:]:
                total = total + scaled_sum
            return total.sum() if sums == "batch" else total

    def loss_map(self, spec: LossSpec, images: Images) -> Tensor:
        """See `Backend.loss_map`."""
        total: Tensor | None = None
        for metric, coefficient in spec.terms:
            loss = reference.elementwise_loss(metric, images, spec)
            if coefficient != 1.0:
                loss = loss * coefficient
            total = loss if total is None else total + loss
        assert total is not None  # there is always a term
        return total

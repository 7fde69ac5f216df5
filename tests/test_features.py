"""docs/backends.md is what the backends say today."""

from pathlib import Path

import pytest
import torch

from lamp_kernels.backends import BACKENDS, features

DOCUMENT = Path(__file__).parents[1] / "docs" / "backends.md"


def test_document_is_current():
    assert DOCUMENT.read_text(encoding="utf-8") == features.document()


@pytest.mark.cpu_only("asks about CPU tensors")
@pytest.mark.parametrize("feature", features.FEATURES)
def test_the_native_backend_refuses_what_the_table_leaves_out(feature):
    spec, native = features.FEATURES[feature], BACKENDS["native"]
    found = native.unsupported_reason(spec, torch.empty(0))
    assert found == native.unsupported_feature(spec, "cpu")

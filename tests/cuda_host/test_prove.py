"""The SSIM kernel's barriers, proved on its PTX where sentryward and nvcc are installed."""

import prove
import pytest


@pytest.mark.timeout(900)
@pytest.mark.parametrize("target", prove.TARGETS)
def test_barriers_are_right_in_every_schedule(tmp_path, target):
    if missing := prove.lacking():
        pytest.skip(missing)
    result = prove.prove(target, tmp_path / "proof")
    print(result["checks"], result["diagnostics"])
    assert prove.complaints(result) == []


@pytest.mark.timeout(900)
def test_a_wrong_barrier_is_found(tmp_path, monkeypatch):
    if missing := prove.lacking():
        pytest.skip(missing)
    copy = prove.host_build.copy

    def copy_with_a_fault(folder):
        copy(folder)
        path = folder / "csrc/cuda/ssim.cuh"
        text = path.read_text()
        assert text.count("    __syncthreads();\n") == 1
        divergent = "    if (thread != 0) __syncthreads();\n"
        path.write_text(text.replace("    __syncthreads();\n", divergent))

    monkeypatch.setattr(prove.host_build, "copy", copy_with_a_fault)
    result = prove.prove(prove.TARGETS[-1], tmp_path / "proof")
    print(result["checks"], result["diagnostics"])
    assert result["checks"]["synchronization"] == "failed"

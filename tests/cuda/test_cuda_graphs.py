"""Forward and backward passes captured in a CUDA graph and replayed with other images."""

import pytest
import torch
from on_cuda import assert_same, pair, results

from lamp_kernels import AmplifiedMSELoss, AmplifiedReconstructionLoss, AmplifiedSSIMLoss

SHAPE = (2, 3, 70, 130)
WARMUP_CALLS = 3  # before a capture
CASES = {
    "ssim": (AmplifiedSSIMLoss, {}),
    "valid": (AmplifiedSSIMLoss, {"padding": "valid", "window_size": 7}),
    "map": (AmplifiedSSIMLoss, {"reduction": "none"}),
    "map of terms": (AmplifiedReconstructionLoss, {"reduction": "none"}),
    "all terms": (AmplifiedReconstructionLoss, {"l1": 0.5}),
    "image level": (AmplifiedReconstructionLoss, {"amplify_over": "image"}),
    "mse": (AmplifiedMSELoss, {}),
}


def captured(call):
    """A graph of the call, and its results, which every replay overwrites."""
    warmup = torch.cuda.Stream()
    warmup.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(warmup):
        for _ in range(WARMUP_CALLS):
            call()
    torch.cuda.current_stream().wait_stream(warmup)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = call()
    return graph, result


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("weighted", [False, True], ids=["", "weighted"])
@pytest.mark.parametrize(("module", "options"), CASES.values(), ids=CASES)
def test_a_replay_gives_the_same_results_as_a_call(kernels, module, options, weighted, dtype):
    loss_function = module(**options, backend=kernels)
    x, y = pair(SHAPE, dtype)
    weight = (torch.rand(2, 1, *SHAPE[2:], device="cuda"),) if weighted else ()
    graph, found = captured(lambda: results(loss_function, x, y, *weight))
    for seed in (1, 2, 3):
        other_x, other_y = pair(SHAPE, dtype, seed)
        x.copy_(other_x)
        y.copy_(other_y)
        graph.replay()
        assert_same(found, results(loss_function, other_x, other_y, *weight))


def test_a_whole_training_step_in_one_graph(kernels):
    torch.manual_seed(0)
    target, _ = pair((4, 3, 32, 32))
    histories = []
    for replayed in (False, True):
        torch.manual_seed(1)
        model = torch.nn.Conv2d(3, 3, 3, padding=1).cuda()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        loss_function = AmplifiedSSIMLoss(backend=kernels)

        def step(model=model, optimizer=optimizer, loss_function=loss_function):
            optimizer.zero_grad(set_to_none=True)
            loss = loss_function(model(target), target)
            loss.backward()
            optimizer.step()
            return loss

        if replayed:
            graph, loss = captured(step)
        else:
            for _ in range(WARMUP_CALLS):
                step()
        history = []
        for _ in range(10):
            if replayed:
                graph.replay()
            else:
                loss = step()
            history.append(loss.item())
        histories.append(history)
    assert histories[1] == pytest.approx(histories[0], rel=1e-4)
    assert histories[0][-1] < histories[0][0]

// The blocks that add up the tiles' sums. Host code too.
#pragma once

#include <cstdint>

namespace lamp_kernels::cuda {

constexpr int kSumThreads = 128;  // of an image's block
// Of the one block that sums a batch. Many tiles want many loads on their way; of partial, the threads'
// own sums take longer, where float64 is slow.
constexpr int kBatchThreads = 256, kMostBatchThreads = 1024;
constexpr int64_t kManyTiles = 1024;

}  // namespace lamp_kernels::cuda

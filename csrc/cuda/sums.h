// Sizes of the blocks that add up the tiles' sums. Included by host code too.
#pragma once

#include <cstdint>

namespace lamp_kernels::cuda {

constexpr int kSumThreads = 128;  // of the block that sums an image
// Threads of the one block that sums a batch. Many tiles need many loads in flight. With few tiles,
// more threads would only make the reduction across threads longer, where float64 is slow.
constexpr int kBatchThreads = 256, kMostBatchThreads = 1024;
constexpr int64_t kManyTiles = 1024;

}  // namespace lamp_kernels::cuda

// SSIM with its gradient in the plain design of most libraries: a forward kernel that writes the map
// and three planes of partial derivatives, and a backward kernel that reads them. It is only compiled
// and counted (bench/gpu_static.py): its predicted time must agree with the times that such libraries
// publish, or the prediction for our own kernels is worthless.
//
// A block computes 16 x 16 pixels of one plane. It loads them with a border of 5 pixels into shared
// memory, sums along x for all rows that its windows cover, then along y. Pixels outside the image
// are zero. Moments use the textbook formula E[x^2] - E[x]^2.
//
//   S = A B / (C D),  A = 2 m_x m_y + c1,      B = 2 (E[xy] - m_x m_y) + c2,
//                     C = m_x^2 + m_y^2 + c1,  D = E[x^2] - m_x^2 + E[y^2] - m_y^2 + c2
//   dS/dE[x^2] = -S / D
//   dS/dE[xy]  = 2 A / (C D)
//   dS/dm_x    = 2 m_y (B - A) / (C D) + 2 m_x S (1 / D - 1 / C)
#include <cuda_runtime.h>

constexpr int kTile = 16, kRadius = 5, kTaps = 2 * kRadius + 1;
constexpr int kThreads = kTile * kTile;
constexpr int kSeen = kTile + 2 * kRadius;  // rows and columns covered by a block's windows

__constant__ float taps[kTaps];

struct Image {
  int height, width;
};

// The index in the plane of a pixel of the block's piece, or -1 outside the image.
__device__ __forceinline__ int pixel_at(Image image, int piece) {
  const int row = int(blockIdx.y) * kTile + piece / kSeen - kRadius;
  const int column = int(blockIdx.x) * kTile + piece % kSeen - kRadius;
  const bool inside = row >= 0 && row < image.height && column >= 0 && column < image.width;
  return inside ? row * image.width + column : -1;
}

// The loops over a block's piece are not unrolled, so that the instructions of an iteration can be
// counted: on average a warp takes 2.75 iterations to read 26 x 26 pixels and 1.625 for the sums of 26
// rows.
template <bool derivatives>
__global__ void __launch_bounds__(kThreads)
    two_kernel_forward(Image image, float c1, float c2, const float* __restrict__ xs,
                       const float* __restrict__ ys, float* __restrict__ map,
                       float* __restrict__ by_mean, float* __restrict__ by_square,
                       float* __restrict__ by_product) {
  __shared__ float2 pixels[kSeen][kSeen];
  __shared__ float sums[5][kSeen][kTile];
  const long long plane = (long long)(blockIdx.z) * image.height * image.width;
  const int thread = threadIdx.x;

#pragma unroll 1
  for (int i = thread; i < kSeen * kSeen; i += kThreads) {
    const int at = pixel_at(image, i);
    float2 pixel = {0, 0};
    if (at >= 0) pixel = {xs[plane + at], ys[plane + at]};
    (&pixels[0][0])[i] = pixel;
  }
  __syncthreads();

#pragma unroll 1
  for (int i = thread; i < kSeen * kTile; i += kThreads) {
    const int row = i / kTile, column = i % kTile;
    float x = 0, y = 0, xx = 0, yy = 0, xy = 0;
#pragma unroll
    for (int k = 0; k < kTaps; ++k) {
      const float2 pixel = pixels[row][column + k];
      const float tapped_x = taps[k] * pixel.x, tapped_y = taps[k] * pixel.y;
      x += tapped_x;
      y += tapped_y;
      xx += tapped_x * pixel.x;
      yy += tapped_y * pixel.y;
      xy += tapped_x * pixel.y;
    }
    sums[0][row][column] = x;
    sums[1][row][column] = y;
    sums[2][row][column] = xx;
    sums[3][row][column] = yy;
    sums[4][row][column] = xy;
  }
  __syncthreads();

  const int row = thread / kTile, column = thread % kTile;
  float moment[5] = {};
#pragma unroll
  for (int k = 0; k < kTaps; ++k)
#pragma unroll
    for (int m = 0; m < 5; ++m) moment[m] += taps[k] * sums[m][row + k][column];

  const int at_row = int(blockIdx.y) * kTile + row, at_column = int(blockIdx.x) * kTile + column;
  if (at_row >= image.height || at_column >= image.width) return;
  const float mean_x = moment[0], mean_y = moment[1];
  const float a = 2 * mean_x * mean_y + c1, c = mean_x * mean_x + mean_y * mean_y + c1;
  const float b = 2 * (moment[4] - mean_x * mean_y) + c2;
  const float d = moment[2] - mean_x * mean_x + (moment[3] - mean_y * mean_y) + c2;
  const float over = 1 / (c * d), ssim = a * b * over;
  const long long at = plane + at_row * image.width + at_column;
  map[at] = ssim;
  if (derivatives) {
    by_mean[at] = 2 * mean_y * (b - a) * over + 2 * mean_x * ssim * (1 / d - 1 / c);
    by_square[at] = -ssim / d;
    by_product[at] = 2 * a * over;
  }
}

__global__ void __launch_bounds__(kThreads)
    two_kernel_backward(Image image, const float* __restrict__ xs, const float* __restrict__ ys,
                        const float* __restrict__ by_map, const float* __restrict__ by_mean,
                        const float* __restrict__ by_square, const float* __restrict__ by_product,
                        float* __restrict__ gradient) {
  __shared__ float planes[3][kSeen][kSeen];
  __shared__ float sums[3][kSeen][kTile];
  const long long plane = (long long)(blockIdx.z) * image.height * image.width;
  const int thread = threadIdx.x;

#pragma unroll 1
  for (int i = thread; i < kSeen * kSeen; i += kThreads) {
    const int at = pixel_at(image, i);
    float values[3] = {0, 0, 0};
    if (at >= 0) {
      const float outer = by_map[plane + at];
      values[0] = outer * by_mean[plane + at];
      values[1] = outer * by_square[plane + at];
      values[2] = outer * by_product[plane + at];
    }
#pragma unroll
    for (int m = 0; m < 3; ++m) (&planes[m][0][0])[i] = values[m];
  }
  __syncthreads();

#pragma unroll 1
  for (int i = thread; i < kSeen * kTile; i += kThreads) {
    const int row = i / kTile, column = i % kTile;
    float sum[3] = {0, 0, 0};
#pragma unroll
    for (int k = 0; k < kTaps; ++k)
#pragma unroll
      for (int m = 0; m < 3; ++m) sum[m] += taps[k] * planes[m][row][column + k];
#pragma unroll
    for (int m = 0; m < 3; ++m) sums[m][row][column] = sum[m];
  }
  __syncthreads();

  const int row = thread / kTile, column = thread % kTile;
  float sum[3] = {0, 0, 0};
#pragma unroll
  for (int k = 0; k < kTaps; ++k)
#pragma unroll
    for (int m = 0; m < 3; ++m) sum[m] += taps[k] * sums[m][row + k][column];

  const int at_row = int(blockIdx.y) * kTile + row, at_column = int(blockIdx.x) * kTile + column;
  if (at_row >= image.height || at_column >= image.width) return;
  const long long at = plane + at_row * image.width + at_column;
  gradient[at] = sum[0] + 2 * xs[at] * sum[1] + ys[at] * sum[2];
}

template __global__ void two_kernel_forward<true>(Image, float, float, const float*, const float*,
                                                  float*, float*, float*, float*);
template __global__ void two_kernel_forward<false>(Image, float, float, const float*, const float*,
                                                   float*, float*, float*, float*);

// The Gaussian window's taps, computed on the host in double precision.
#pragma once

#include <cmath>

namespace lamp_kernels {

// exp(-k^2 / (2 sigma^2)) for k = 0 .. radius, divided by the sum over -radius .. radius.
inline void gaussian_taps(int radius, double sigma, double* taps) {
  double sum = 0;
  for (int k = radius; k >= 0; --k) {
    const double z = k / sigma;  // divide before squaring: sigma^2 may underflow
    taps[k] = std::exp(-0.5 * z * z);
    sum += (k ? 2 : 1) * taps[k];
  }
  for (int k = 0; k <= radius; ++k) taps[k] /= sum;
}

}  // namespace lamp_kernels

/* Peak throughput of the processor's multiply-add units: independent chains of multiply-adds,
   enough of them to hide the latency and few enough to stay in registers. */

#if defined(__AVX512F__)
#define BYTES 64
#elif defined(__AVX__)
#define BYTES 32
#else
#define BYTES 16
#endif
#define CHAINS 12

typedef float vector __attribute__((vector_size(BYTES)));

/* Stores the number of multiply-adds; the result only keeps the compiler from removing them. */
float chains(long rounds, double* multiply_adds) {
  const vector factor = (vector){} + 0.999999f, summand = (vector){} + 1e-6f;
  vector sum[CHAINS];
#pragma GCC unroll 12
  for (int k = 0; k < CHAINS; ++k) sum[k] = (vector){} + (float)k;
  for (long r = 0; r < rounds; ++r)
#pragma GCC unroll 12
    for (int k = 0; k < CHAINS; ++k) sum[k] = sum[k] * factor + summand;
  vector all = {};
#pragma GCC unroll 12
  for (int k = 0; k < CHAINS; ++k) all += sum[k];
  float total = 0;
  for (unsigned l = 0; l < BYTES / sizeof(float); ++l) total += all[l];
  *multiply_adds = (double)rounds * CHAINS * (BYTES / sizeof(float));
  return total;
}

// gemmlowp is a header: these functions give its steps to a caller that loads a shared library.

#include <cstdint>

#include "fixedpoint/fixedpoint.h"

namespace {

template <int integer_bits>
using Fixed = gemmlowp::FixedPoint<std::int32_t, integer_bits>;

template <typename Function>
void each(const std::int32_t* x, std::int32_t* out, std::int64_t n, Function function) {
  for (std::int64_t i = 0; i < n; ++i) out[i] = function(x[i]);
}

}  // namespace

extern "C" {

void intsim_high_multiply(const std::int32_t* a, const std::int32_t* b, std::int32_t* out, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) out[i] = gemmlowp::SaturatingRoundingDoublingHighMul(a[i], b[i]);
}

void intsim_rounding_shift(const std::int32_t* x, const std::int32_t* shift, std::int32_t* out, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) out[i] = gemmlowp::RoundingDivideByPOT(x[i], shift[i]);
}

// Q5.26, not above 0, to Q0.31
void intsim_exp(const std::int32_t* x, std::int32_t* out, std::int64_t n) {
  each(x, out, n, [](std::int32_t v) { return exp_on_negative_values(Fixed<5>::FromRaw(v)).raw(); });
}

// Q0.31, in [0, 1)
void intsim_one_over_one_plus(const std::int32_t* x, std::int32_t* out, std::int64_t n) {
  each(x, out, n, [](std::int32_t v) { return one_over_one_plus_x_for_x_in_0_1(Fixed<0>::FromRaw(v)).raw(); });
}

// Q4.27 to Q0.31
void intsim_logistic(const std::int32_t* x, std::int32_t* out, std::int64_t n) {
  each(x, out, n, [](std::int32_t v) { return gemmlowp::logistic(Fixed<4>::FromRaw(v)).raw(); });
}

// Q4.27 to Q0.31
void intsim_tanh(const std::int32_t* x, std::int32_t* out, std::int64_t n) {
  each(x, out, n, [](std::int32_t v) { return gemmlowp::tanh(Fixed<4>::FromRaw(v)).raw(); });
}

}  // extern "C"

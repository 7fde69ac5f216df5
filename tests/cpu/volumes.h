// The CPU kernels of volumes against the textbook formulas, window by window.
#pragma once

#include "cases.h"

// Runs random volumes of every radius, border, dtype and set of gradients; some larger than a box.
void volumes(const Arguments& arguments);
